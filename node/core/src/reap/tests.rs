//! One key on generated histories: owners, nodes that stand in, lost answers, crashes, and everything that carries
//! objects. Nothing that a delete covered may ever be live again, however reaping falls between. Each rule that is
//! left out is caught by the same histories.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::codec;
use crate::context::Context;
use crate::id::{Digest, Dot, WriteId};
use crate::object::{Caps, Content, Mint, Object, Sibling, Write};

mod machine;

const NODES: usize = 5;
const OWNERS: usize = 3;
const UNCAPPED: Caps = Caps {
    siblings: 1000,
    object_bytes: usize::MAX,
    context_intervals: 1000,
};

/// What is left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Epochs end whatever is under way.
    InFlight,
    /// Hints on disk are no reason to wait.
    Hints,
    /// Messages of an earlier connection count as over.
    Unsettled,
    /// So many epochs pass between seal and reap.
    Steps(u64),
    /// One owner's seal is enough.
    OneOwner,
    /// Whoever takes a hint's copy into a hint of its own does not say so.
    Relays,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).expect("small")
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// An object on its way; `for_hint`: it is to be kept, not joined.
#[derive(Clone)]
struct Message {
    from: usize,
    to: usize,
    object: Object,
    tag: u64,
    for_hint: bool,
    /// Nobody waits for the answer any more: the sender, or its connection, is gone.
    adrift: bool,
    /// It takes its time.
    slow: bool,
}

/// A read that goes on: what it found will be sent to an owner, or kept as a hint.
struct Reading {
    at: usize,
    found: Object,
    tag: u64,
    from_hint: bool,
    slow: bool,
}

struct World {
    random: Random,
    fault: Fault,
    machines: Vec<Machine>,
    copies: Vec<Object>,
    hints: Vec<Object>,
    counters: [u64; NODES],
    relayed: [u64; NODES],
    messages: Vec<Message>,
    readings: Vec<Reading>,
    seals: Vec<Seals<u8>>,
    words: Vec<(usize, usize, Word)>,
    contexts: Vec<Context>,
    deleted: BTreeSet<Dot>,
    minted: BTreeSet<Dot>,
    /// Everything that was ever in a reaped copy.
    gone: Context,
    reaped: usize,
}

fn name(node: usize) -> NodeId {
    format!("n{node}").parse().expect("a node id")
}

fn digest(object: &Object) -> Digest {
    codec::digest(object)
}

impl World {
    fn new(seed: u64, fault: Fault) -> Self {
        let members: BTreeMap<NodeId, Option<Actor>> = (0..NODES)
            .map(|node| (name(node), Some(Actor(node as u64))))
            .collect();
        let machine = |node: usize| {
            let mut machine = Machine::new(name(node), Actor(node as u64), None);
            let members = &members;
            machine.handle(Event::Layout { number: 2, members });
            machine
        };
        Self {
            random: Random(seed),
            fault,
            machines: (0..NODES).map(machine).collect(),
            copies: vec![Object::default(); OWNERS],
            hints: vec![Object::default(); NODES],
            counters: [0; NODES],
            relayed: [0; NODES],
            messages: Vec::new(),
            readings: Vec::new(),
            seals: vec![Seals::new(8); OWNERS],
            words: Vec::new(),
            contexts: Vec::new(),
            deleted: BTreeSet::new(),
            minted: BTreeSet::new(),
            gone: Context::new(),
            reaped: 0,
        }
    }

    fn tag(&self, node: usize) -> u64 {
        self.machines[node].epoch()
    }

    fn send(&mut self, from: usize, to: usize, object: Object, tag: u64, for_hint: bool) {
        self.messages.push(Message {
            from,
            to,
            object,
            tag,
            for_hint,
            adrift: self.random.chance(20),
            slow: self.random.chance(15),
        });
    }

    fn change(&mut self, owner: usize, object: &Object) {
        if self.copies[owner].join(object) {
            self.seals[owner].break_one(&0);
        }
    }

    /// A write or a delete, at an owner; owners that are away get a hint at a node that stands in.
    fn write(&mut self, all: bool) {
        let at = self.random.below(OWNERS);
        let deletes = all || self.random.chance(60);
        let read = self.random.chance(70);
        let context = match deletes || read {
            // Somebody read every owner, and deletes the key.
            true if all => {
                let mut seen = Context::new();
                self.copies
                    .iter()
                    .for_each(|copy| seen.join(copy.context()));
                Some(seen)
            }
            true if !all && !self.contexts.is_empty() && self.random.chance(30) => {
                let at = self.random.below(self.contexts.len());
                Some(self.contexts.swap_remove(at))
            }
            true => Some(self.copies[at].context().clone()),
            false => None,
        };
        if deletes {
            let seen = context.clone().unwrap_or_default();
            let live = self.copies.iter().chain(&self.hints);
            let live = live.flat_map(|copy| copy.live().flat_map(Sibling::dots));
            self.deleted
                .extend(live.filter(|dot| seen.contains(*dot)).collect::<Vec<_>>());
        }
        self.counters[at] += 1 + self.random.next() % 3;
        let dot = Dot {
            actor: Actor(at as u64),
            counter: self.counters[at],
        };
        let content = Content {
            value: (!deletes).then(|| Bytes::from_static(b"v")),
            content_type: "t/t".into(),
            attributes: BTreeMap::new(),
            modified_at: 1,
            write_id: WriteId([0; 16]),
            trace: None,
        };
        let write = Write {
            context,
            tombstones: Context::new(),
            content,
        };
        let mut known = self.copies[at].context().clone();
        known.join(write.context.as_ref().unwrap_or(&Context::new()));
        let written = self.copies[at].write(Mint { dot, line: 0 }, write, UNCAPPED);
        let written = written.expect("no caps");
        self.check_claims(dot, &known, written.shipment.context());
        self.seals[at].break_one(&0);
        for owner in (0..OWNERS).filter(|owner| *owner != at) {
            let to = match self.random.chance(75) {
                true => owner,
                false => OWNERS + self.random.below(NODES - OWNERS),
            };
            let tag = self.tag(at);
            self.send(at, to, written.shipment.clone(), tag, to >= OWNERS);
        }
    }

    /// A fresh dot is nobody's, no context that anybody holds covers it, and it claims nothing that its writer did
    /// not know but what was reaped: an old context may bring a part of that back, and the rest is dead.
    fn check_claims(&mut self, dot: Dot, known: &Context, shipped: &Context) {
        assert!(!self.contexts.iter().any(|held| held.contains(dot)));
        let mut claimed = self.minted.iter().filter(|dot| shipped.contains(**dot));
        assert!(claimed.all(|dot| known.contains(*dot) || self.gone.contains(*dot)));
        assert!(self.minted.insert(dot), "{dot} is minted twice");
    }

    fn begin_read(&mut self) {
        let at = self.random.below(NODES);
        let from_hint = self.random.chance(40);
        let found = match from_hint {
            true => self.hints[OWNERS + self.random.below(NODES - OWNERS)].clone(),
            false => self.copies[self.random.below(OWNERS)].clone(),
        };
        if !found.is_empty() {
            if self.random.chance(20) {
                self.contexts.push(found.context().clone());
            }
            let (tag, slow) = (self.tag(at), self.random.chance(10));
            self.readings.push(Reading {
                at,
                found,
                tag,
                from_hint,
                slow,
            });
        }
    }

    /// What was read goes to an owner, or a node that stands in mints on it.
    fn end_read(&mut self) {
        if self.readings.is_empty() {
            return;
        }
        let at = self.random.below(self.readings.len());
        if self.readings[at].slow && !self.random.chance(12) {
            return;
        }
        let reading = self.readings.swap_remove(at);
        let at = reading.at;
        if at >= OWNERS && reading.from_hint && self.random.chance(8) {
            self.hints[at].join(&reading.found);
            if self.fault != Fault::Relays {
                self.relayed[at] = self.tag(at);
            }
        } else {
            let to = self.random.below(OWNERS);
            self.send(at, to, reading.found, reading.tag, false);
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = match self.random.chance(50) {
            true => 0,
            false => self.random.below(self.messages.len()),
        };
        if self.messages[at].slow && !self.random.chance(12) {
            return;
        }
        let message = self.messages.remove(at);
        match message.for_hint {
            _ if self.random.chance(10) => {}
            true => {
                self.hints[message.to].join(&message.object);
            }
            false => self.change(message.to, &message.object),
        }
    }

    /// A hint goes when all owners have it.
    fn hand_off(&mut self) {
        let at = OWNERS + self.random.below(NODES - OWNERS);
        let object = self.hints[at].clone();
        if object.is_empty() {
            return;
        }
        if self.random.chance(30) {
            let (to, tag) = (self.random.below(OWNERS), self.tag(at));
            return self.send(at, to, object, tag, false);
        }
        (0..OWNERS).for_each(|owner| self.change(owner, &object));
        self.hints[at] = Object::default();
    }

    fn look(&mut self, node: usize) {
        let readings = self.readings.iter().filter(|reading| reading.at == node);
        let sent = self.messages.iter().filter(|message| message.from == node);
        let answered = sent.clone().filter(|message| !message.adrift);
        let oldest = readings.map(|reading| reading.tag);
        let oldest = oldest.chain(answered.map(|message| message.tag)).min();
        let mut own = Own {
            oldest,
            hints: !self.hints[node].is_empty(),
            relayed: self.relayed[node],
            ..Own::default()
        };
        if self.fault != Fault::Unsettled {
            for message in sent.filter(|message| message.adrift) {
                let tag = own.unsettled.entry(name(message.to)).or_insert(message.tag);
                *tag = message.tag.min(*tag);
            }
        }
        match self.fault {
            Fault::InFlight => (own.oldest, own.unsettled) = (None, BTreeMap::new()),
            Fault::Hints => own.hints = false,
            _ => {}
        }
        self.tell(node, Event::Own(own));
    }

    fn tell(&mut self, node: usize, event: Event<'_>) {
        for Effect::Keep(epoch) in self.machines[node].handle(event) {
            let more = self.machines[node].handle(Event::Kept(epoch));
            assert!(more.is_empty());
        }
        let epochs = self.machines.iter().map(Machine::epoch);
        let (least, most) = (epochs.clone().min(), epochs.max());
        assert!(most.unwrap_or_default() - least.unwrap_or_default() <= 1);
    }

    fn gossip(&mut self) {
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            if from != to && self.random.chance(70) {
                let word = self.machines[from].word();
                self.words.push((from, to, word));
            }
        }
        while self.words.len() > NODES {
            let at = self.random.below(self.words.len());
            let (from, to, word) = self.words.swap_remove(at);
            let from = &name(from);
            self.tell(to, Event::Heard { from, word });
        }
    }

    fn seal(&mut self) {
        let at = self.random.below(OWNERS);
        if self.machines[at].may_seal() && may_be_sealed(&self.copies[at], 1, 0) {
            let epoch = self.tag(at);
            self.seals[at].seal(0, digest(&self.copies[at]), epoch);
        }
    }

    fn reap(&mut self) {
        let at = self.random.below(OWNERS);
        let sealed = digest(&self.copies[at]);
        let asked: Vec<usize> = match self.fault {
            Fault::OneOwner => vec![at],
            _ => (0..OWNERS).collect(),
        };
        let seals = asked
            .iter()
            .map(|owner| self.seals[*owner].sealed_in(&0, sealed));
        let Some(seals) = seals.collect::<Option<Vec<u64>>>() else {
            return;
        };
        let youngest = seals.into_iter().max().unwrap_or_default();
        let machine = &self.machines[at];
        let ripe = match self.fault {
            Fault::Steps(steps) => machine.epoch() >= youngest.max(self.all_relayed()) + steps,
            _ => machine.is_ripe(youngest),
        };
        if ripe {
            for owner in asked {
                // An order may be lost: then this owner keeps its tombstone.
                if self.random.chance(90) {
                    self.gone.join(self.copies[owner].context());
                    self.copies[owner] = Object::default();
                    self.seals[owner].break_one(&0);
                    self.reaped += 1;
                }
            }
        }
    }

    fn all_relayed(&self) -> u64 {
        self.relayed
            .into_iter()
            .max()
            .unwrap_or_default()
            .max(FIRST)
    }

    fn crash(&mut self) {
        let node = self.random.below(NODES);
        let epoch = self.tag(node);
        let members: BTreeMap<NodeId, Option<Actor>> = (0..NODES)
            .map(|node| (name(node), Some(Actor(node as u64))))
            .collect();
        self.readings.retain(|reading| reading.at != node);
        for message in self
            .messages
            .iter_mut()
            .filter(|message| message.from == node)
        {
            (message.tag, message.adrift) = (0, true);
        }
        self.machines[node] = Machine::new(name(node), Actor(node as u64), Some(epoch));
        let members = &members;
        self.tell(node, Event::Layout { number: 2, members });
        self.counters[node] += 100;
        if node < OWNERS {
            self.seals[node].break_all();
        }
    }

    /// Clients come in bursts: nothing can be reaped that is written all the time.
    fn step(&mut self, busy: bool) {
        match self.random.below(100) {
            0..8 if busy => self.write(false),
            0..8 => self.gossip(),
            8..16 if busy || self.random.chance(40) => self.begin_read(),
            8..24 => self.end_read(),
            24..42 => self.deliver(),
            42..50 => self.hand_off(),
            50..68 => {
                for node in 0..NODES {
                    if self.random.chance(80) {
                        self.look(node);
                    }
                }
            }
            68..82 => self.gossip(),
            82..91 => self.seal(),
            91..99 => self.reap(),
            _ if self.random.chance(20) => self.crash(),
            _ => {}
        }
    }

    /// Everything arrives, and owners compare. Answers what a delete had covered and is live.
    fn settle(mut self) -> Vec<Dot> {
        let mut all = Object::default();
        let sent = self.messages.iter().map(|message| &message.object);
        let read = self.readings.iter().map(|reading| &reading.found);
        let objects: Vec<&Object> = self
            .copies
            .iter()
            .chain(&self.hints)
            .chain(sent)
            .chain(read)
            .collect();
        for object in objects {
            all.join(object);
        }
        self.copies.clear();
        let live = all.live().flat_map(Sibling::dots);
        live.filter(|dot| self.deleted.contains(dot)).collect()
    }
}

fn run(seed: u64, fault: Fault) -> (usize, Vec<Dot>) {
    let mut world = World::new(seed, fault);
    for step in 0..1500 {
        if step % 500 == 50 {
            world.write(true);
        }
        world.step(step % 500 < 50);
    }
    (world.reaped, world.settle())
}

#[test]
fn nothing_that_was_deleted_comes_back() {
    let mut reaped = 0;
    for seed in 0..1000 {
        let (times, back) = run(seed, Fault::None);
        assert_eq!(back, Vec::new(), "seed {seed}");
        reaped += times;
    }
    assert!(reaped > 1000, "{reaped} reaps are too few to say anything");
}

fn check_is_caught(fault: Fault) {
    let caught = (0..2500).find(|seed| !run(*seed, fault).1.is_empty());
    assert!(
        caught.is_some(),
        "{fault:?} harms nobody in these histories"
    );
}

#[test]
fn epochs_that_do_not_wait_for_what_is_under_way_are_caught() {
    check_is_caught(Fault::InFlight);
}

#[test]
fn epochs_that_do_not_wait_for_hints_are_caught() {
    check_is_caught(Fault::Hints);
}

#[test]
fn epochs_that_forget_messages_of_earlier_connections_are_caught() {
    check_is_caught(Fault::Unsettled);
}

#[test]
fn too_few_epochs_are_caught() {
    check_is_caught(Fault::Steps(1));
    check_is_caught(Fault::Steps(2));
}

#[test]
fn an_owner_that_did_not_seal_is_caught() {
    check_is_caught(Fault::OneOwner);
}
