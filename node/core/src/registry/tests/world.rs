//! A cluster of registry machines on a seeded scheduler: no time, any order.
//!
//! Each step does one random thing: perform one waiting effect of one node, deliver, lose or double one
//! message, run off a timer, crash a node (effects it has not performed are lost, its disk stays), wipe
//! one, cut links. Every document that any node takes as chosen is recorded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::machine::Promises;
use super::super::{
    Ballot, BucketConfig, Change, Document, Effect, Event, Faults, Machine, Message, Outcome, Slot,
};
use super::{first, node, put, secrets};
use crate::id::{Actor, Digest, NodeId};

/// Splitmix64: small, seeded, the same everywhere.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }
}

struct Node {
    machine: Machine,
    store: Actor,
    disk: BTreeMap<Slot, Vec<u8>>,
    todo: VecDeque<Effect>,
}

/// What makes a run hard.
#[derive(Clone, Copy)]
pub(super) struct Trouble {
    /// Of 1,000 steps, so many crash a node.
    pub(super) crashes: usize,
    /// Of 1,000 steps, so many propose a change.
    pub(super) proposals: usize,
    /// Of 1,000 steps, so many take a node's disk away.
    pub(super) wipes: usize,
    /// Rules left out.
    pub(super) faults: Faults,
    /// A shell's bug: answers leave before the state is on disk.
    pub(super) early_answers: bool,
}

pub(super) struct World {
    pub(super) rng: Rng,
    trouble: Trouble,
    first: Document,
    nodes: BTreeMap<NodeId, Node>,
    wire: Vec<(NodeId, NodeId, Message)>,
    /// Messages that come when nobody expects them any more.
    late: Vec<(NodeId, NodeId, Message)>,
    timers: Vec<(NodeId, u64)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    votes: BTreeMap<(u64, Ballot, Digest), BTreeSet<NodeId>>,
    never_wiped: NodeId,
    draws: u64,
    proposed: u64,
    /// Every document taken as chosen, by number.
    pub(super) chosen: BTreeMap<u64, BTreeMap<Digest, Document>>,
    /// How each proposed change ended; change k creates bucket `b<k>`.
    pub(super) outcomes: BTreeMap<u64, Outcome>,
}

impl World {
    pub(super) fn new(seed: u64, members: usize, trouble: Trouble) -> Self {
        let mut rng = Rng(seed);
        let never_wiped = node(1 + rng.below(members));
        let mut world = Self {
            rng,
            trouble,
            first: first(members),
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            late: Vec::new(),
            timers: Vec::new(),
            cut: BTreeSet::new(),
            votes: BTreeMap::new(),
            never_wiped,
            draws: 0,
            proposed: 0,
            chosen: BTreeMap::new(),
            outcomes: BTreeMap::new(),
        };
        for number in 1..=members {
            world.start(&node(number), BTreeMap::new(), None);
        }
        world
    }

    /// One random thing.
    pub(super) fn step(&mut self) {
        let Trouble {
            crashes,
            proposals,
            wipes,
            ..
        } = self.trouble;
        if self.rng.chance(proposals) {
            self.propose_one();
        }
        if self.rng.chance(crashes) {
            self.crash_one();
        }
        if self.rng.chance(wipes) {
            self.wipe_one();
        }
        if self.rng.chance(15) {
            self.wire.append(&mut self.late);
        }
        match self.rng.below(1000) {
            0..470 => self.perform_one(),
            470..920 => self.deliver_one(),
            920..955 => self.run_off_one(),
            955..970 => self.see_one(),
            970..975 => self.cut_links(),
            975..988 => self.cut.clear(),
            _ => self.remember_one(),
        }
    }

    /// No more trouble: delivers everything, then lets timers run off one by one; ends when nothing moves.
    pub(super) fn calm(&mut self, most: usize) {
        self.cut.clear();
        self.wire.append(&mut self.late);
        for _ in 0..most {
            if self.nodes.values().any(|node| !node.todo.is_empty()) {
                self.perform_one();
            } else if let Some((from, to, message)) = self.draw_message() {
                self.feed(&to, Event::Message { from, message });
            } else if !self.timers.is_empty() {
                self.run_off_one();
            } else {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Everybody hears of the highest number.
    pub(super) fn gossip(&mut self) {
        for to in self.names() {
            for from in self.names() {
                let number = self.machine(&from).held().document.number;
                self.feed(&to, Event::Seen { from, number });
            }
        }
    }

    pub(super) fn machine(&self, id: &NodeId) -> &Machine {
        &self.nodes[id].machine
    }

    pub(super) fn names(&self) -> Vec<NodeId> {
        self.nodes.keys().cloned().collect()
    }

    /// The latest document that any node holds.
    pub(super) fn latest(&self) -> &Document {
        let documents = self
            .nodes
            .values()
            .map(|node| &node.machine.held().document);
        documents
            .max_by_key(|document| document.number)
            .expect("there are nodes")
    }

    /// How many nodes may vote on the successor of the latest document.
    pub(super) fn electorate(&self) -> usize {
        let voters = self.latest().voters();
        self.nodes
            .iter()
            .filter(|(id, node)| voters.get(*id) == Some(&Some(node.store)))
            .count()
    }

    /// Proposes to create bucket `b<k>`; says k.
    pub(super) fn propose_at(&mut self, id: &NodeId) -> u64 {
        self.proposed += 1;
        let max_siblings = 1 + (self.proposed % 900) as u32;
        let config = BucketConfig {
            max_siblings,
            ..BucketConfig::default()
        };
        let change = put(&format!("b{}", self.proposed), config);
        self.feed(
            id,
            Event::Propose {
                id: self.proposed,
                change,
            },
        );
        self.proposed
    }

    /// Names the present store of a node, through another one.
    pub(super) fn remember(&mut self, through: &NodeId, lost: &NodeId) {
        self.draws += 1;
        let (node, store) = (lost.clone(), self.nodes[lost].store);
        let change = Change::NameStore { node, store };
        self.feed(
            through,
            Event::Propose {
                id: u64::MAX - self.draws,
                change,
            },
        );
    }

    fn start(&mut self, id: &NodeId, disk: BTreeMap<Slot, Vec<u8>>, store: Option<Actor>) {
        self.draws += 1;
        let store = store.unwrap_or(Actor(1000 + self.draws));
        let record = |slot| disk.get(&slot).map(Vec::as_slice);
        let (chosen, promises) = (record(Slot::Chosen), record(Slot::Promises));
        let machine = Machine::open(id.clone(), store, self.first.clone(), chosen, promises)
            .expect("what was synced can be read")
            .with_faults(self.trouble.faults);
        let forming = machine.forming();
        self.nodes.insert(
            id.clone(),
            Node {
                machine,
                store,
                disk,
                todo: VecDeque::new(),
            },
        );
        self.timers.retain(|(of, _)| of != id);
        if forming {
            let draw = secrets((self.draws % 251) as u8);
            self.feed(id, Event::Form(draw));
        }
    }

    fn feed(&mut self, id: &NodeId, event: Event) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let mut effects = node.machine.handle(event);
        if self.trouble.early_answers {
            effects.sort_by_key(|effect| matches!(effect, Effect::Persist { .. }));
        }
        node.todo.extend(effects);
    }

    fn perform_one(&mut self) {
        let busy: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| !n.todo.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        let Some(id) = busy.get(self.rng.below(busy.len())) else {
            return;
        };
        let node = self.nodes.get_mut(id).expect("just listed");
        match node.todo.pop_front() {
            Some(Effect::Persist { slot, bytes }) => {
                if slot == Slot::Promises {
                    self.count_vote(&id.clone(), &bytes);
                }
                let node = self.nodes.get_mut(id).expect("just listed");
                node.disk.insert(slot, bytes);
            }
            Some(Effect::Send { to, message }) => self.wire.push((id.clone(), to, message)),
            Some(Effect::Timer { token, .. }) => self.timers.push((id.clone(), token)),
            Some(Effect::Finished { id, outcome }) => {
                self.outcomes.insert(id, outcome);
            }
            Some(Effect::Chosen(held)) => {
                let same_number = self.chosen.entry(held.document.number).or_default();
                same_number.insert(held.digest, held.document);
            }
            Some(Effect::Alarm(_)) | None => {}
        }
    }

    /// A document is chosen once enough disks hold it under one ballot, whoever knows of it.
    fn count_vote(&mut self, id: &NodeId, bytes: &[u8]) {
        let promises = Promises::decode(bytes).expect("just encoded");
        let Some((ballot, document)) = promises.acceptor.accepted else {
            return;
        };
        let (number, digest) = (document.number, document.digest());
        let votes = self.votes.entry((number, ballot, digest)).or_default();
        votes.insert(id.clone());
        let members = self.first.layout.members.len();
        let all = number == 2 && !self.trouble.faults.form_by_majority;
        if votes.len() >= if all { members } else { members / 2 + 1 } {
            self.chosen
                .entry(number)
                .or_default()
                .insert(digest, *document);
        }
    }

    fn draw_message(&mut self) -> Option<(NodeId, NodeId, Message)> {
        let index = self.rng.below(self.wire.len());
        (!self.wire.is_empty()).then(|| self.wire.swap_remove(index))
    }

    fn deliver_one(&mut self) {
        let Some((from, to, message)) = self.draw_message() else {
            return;
        };
        if self.rng.chance(30) || self.cut.contains(&(from.clone(), to.clone())) {
            return;
        }
        if self.rng.chance(50) {
            self.late.push((from, to, message));
            return;
        }
        if self.rng.chance(60) {
            self.wire.push((from.clone(), to.clone(), message.clone()));
        }
        self.feed(&to, Event::Message { from, message });
    }

    fn run_off_one(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let (id, token) = self.timers.swap_remove(self.rng.below(self.timers.len()));
        self.feed(&id, Event::Timer { token });
    }

    fn any_node(&mut self) -> NodeId {
        let names = self.names();
        names[self.rng.below(names.len())].clone()
    }

    fn propose_one(&mut self) {
        let id = self.any_node();
        if !self.machine(&id).forming() {
            self.propose_at(&id);
        }
    }

    fn see_one(&mut self) {
        let (id, from) = (self.any_node(), self.any_node());
        let number = self.machine(&from).held().document.number;
        match self.rng.below(3) {
            0 => self.feed(&id, Event::Reached(from)),
            1 => self.feed(&id, Event::Unreachable(from)),
            _ => self.feed(&id, Event::Seen { from, number }),
        }
    }

    fn crash_one(&mut self) {
        let id = self.any_node();
        let node = self.nodes.remove(&id).expect("it is one of them");
        self.start(&id, node.disk, Some(node.store));
    }

    fn wipe_one(&mut self) {
        let id = self.any_node();
        if id != self.never_wiped {
            self.start(&id, BTreeMap::new(), None);
        }
    }

    fn remember_one(&mut self) {
        let (through, lost) = (self.any_node(), self.any_node());
        if self.machine(&lost).amnesiac() {
            self.remember(&through, &lost);
        }
    }

    /// Replaces the cuts: one node alone, or any links, each direction on its own.
    fn cut_links(&mut self) {
        let names = self.names();
        let alone = self.rng.chance(700).then(|| self.any_node());
        self.cut.clear();
        for from in &names {
            for to in names.iter().filter(|to| *to != from) {
                let cut = match &alone {
                    Some(alone) => alone == from || alone == to,
                    None => self.rng.chance(350),
                };
                if cut {
                    self.cut.insert((from.clone(), to.clone()));
                }
            }
        }
    }
}
