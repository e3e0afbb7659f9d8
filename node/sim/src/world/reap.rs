//! Reaping, as `tasks/reap` does it: words about epochs, seals, and all owners that forget what they sealed.
//!
//! The machine is the core's. What a connection would know the world knows here: which questions with an object in
//! them are still on their way. An epoch goes to disk like a promise, beside the engine. What was reaped the ledger
//! excuses from being there, and nothing it covered may live again, anywhere.

use std::collections::BTreeMap;

use sibyl_core::codec;
use sibyl_core::id::{Actor, Digest, NodeId, Partition};
use sibyl_core::message::{self, Failure, Place, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::reap::{Effect, Event as Told, Machine, Own, STEPS, Seals, Word, may_be_sealed};

use super::command::{Command, Group};
use super::frames::Waiting;
use super::writer::Writer;
use super::{Bytes, Event, World};
use crate::draw::Draw;
use crate::plan::{CALM_US, PATIENCE_US};
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 14;
/// How long a node waits between two rounds, about.
const ROUND_US: u64 = 20_000;
/// Until then rounds go on: long enough for what was deleted last.
const LAST_US: u64 = CALM_US + 700_000;
/// For how long clients repeat writes: three tries with their pauses.
const WINDOW_MS: u64 = 2_000;
/// Seals of a node; there are three keys.
const SEALS: usize = 8;

/// A node's part in reaping.
pub(crate) struct Part {
    machine: Machine,
    seals: Seals<usize>,
    /// What has a lower number began before the epoch did.
    mark: u64,
    relayed: u64,
    asking: BTreeMap<u64, Asking>,
}

/// Owners are asked whether they sealed the same.
struct Asking {
    key: usize,
    digest: Digest,
    number: u64,
    youngest: u64,
    left: usize,
}

impl Part {
    pub(crate) fn new(id: NodeId, store: Actor, epoch: Option<u64>) -> Self {
        Self {
            machine: Machine::new(id, store, epoch),
            seals: Seals::new(SEALS),
            mark: 0,
            relayed: 0,
            asking: BTreeMap::new(),
        }
    }

    pub(crate) fn break_seal(&mut self, key: usize) {
        self.seals.break_one(&key);
    }

    pub(crate) fn owners_changed(&mut self) {
        self.seals.break_all();
    }

    /// What was read elsewhere becomes part of a hint.
    pub(crate) fn relay(&mut self) {
        self.relayed = self.machine.epoch();
    }

    pub(crate) fn holds_seal(&self, key: usize, digest: Digest) -> bool {
        self.seals.sealed_in(&key, digest).is_some()
    }
}

impl World {
    /// A process starts to take part.
    pub(crate) fn open_reaping(&mut self, node: usize) {
        if self.plan.setting.reaps {
            self.reap_later(node);
        }
    }

    fn reap_later(&mut self, node: usize) {
        let now_us = self.scheduler.now_us();
        if now_us < LAST_US {
            let life = self.process(node).life;
            let mut draw = Draw::of(self.plan.seed, PURPOSE + node as u64 * 64, now_us);
            let after_us = ROUND_US / 2 + draw.below(ROUND_US);
            self.scheduler.after(after_us, Event::Reap { node, life });
        }
    }

    /// One round.
    pub(crate) fn reap_round(&mut self, node: usize) {
        self.look_at_epoch(node);
        let word = self.process(node).part.machine.word();
        for peer in 0..self.nodes.len() {
            if peer != node {
                let (request, waiting) = (Request::Epoch(word), Waiting::Word);
                let _sent = self.ask(node, peer, request, Bytes::new(), PATIENCE_US, waiting);
            }
        }
        for key in 0..self.keys.len() {
            self.seal(node, key);
            self.reap(node, key);
        }
        self.reap_later(node);
    }

    fn look_at_epoch(&mut self, node: usize) {
        let document = self.process(node).held.document.clone();
        if document.number < 2 {
            return;
        }
        let members = document.layout.members.iter();
        let members = members.map(|(node, member)| (node.clone(), member.store));
        let members: BTreeMap<NodeId, Option<Actor>> = members.collect();
        let (number, members) = (document.number, &members);
        self.tell_reaping(node, Told::Layout { number, members });
        let own = self.under_way(node, document.layout.change.is_some());
        self.tell_reaping(node, Told::Own(own));
    }

    /// The number of the oldest thing that goes on in a process, and whether its writer rests.
    fn has_older(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        let process = process.expect("only a running node acts");
        let first = [
            process.calls.keys().next(),
            process.handings.keys().next(),
            process.puts.keys().next(),
            process.gets.keys().next(),
            process.looking.keys().next(),
            process.exchanges.keys().next(),
            process.taking.keys().next(),
        ];
        let oldest = first.into_iter().flatten().min();
        oldest.is_some_and(|oldest| *oldest < process.part.mark)
    }

    fn under_way(&self, node: usize, changing: bool) -> Own {
        let process = self.nodes[node].process.as_ref();
        let process = process.expect("only a running node acts");
        let leftover = |key: &usize| {
            let here = self.nodes[node].disk.encoded(&self.keys[*key].record);
            here.is_some() && !self.is_holder(node, *key)
        };
        let leftover = (0..self.keys.len()).any(|key| leftover(&key));
        let busy = process.writer.is_busy() && self.bug != Some(Bug::SealUnsynced);
        let mut own = Own {
            oldest: (self.has_older(node) || busy).then_some(0),
            hints: !self.hints(node).is_empty(),
            moving: changing || leftover,
            rebuilding: self.nodes[node].disk.rebuilding || self.nodes[node].disk.image.is_some(),
            relayed: process.part.relayed,
            ..Own::default()
        };
        for (from, to, epoch) in self.carriers.values() {
            if *from == node {
                let to = self.nodes[*to].id.clone();
                let oldest = own.unsettled.entry(to).or_insert(*epoch);
                *oldest = epoch.min(oldest).to_owned();
            }
        }
        if self.bug == Some(Bug::ReapInFlight) {
            (own.oldest, own.hints) = (None, false);
            own.unsettled.clear();
        }
        own
    }

    /// The epoch that a question of a node belongs to: the older one, while something of it goes on.
    pub(crate) fn epoch_of_question(&self, node: usize) -> u64 {
        let process = self.nodes[node].process.as_ref();
        let epoch = process.map_or(0, |process| process.part.machine.epoch());
        epoch - u64::from(epoch > 0 && self.has_older(node))
    }

    fn tell_reaping(&mut self, node: usize, event: Told<'_>) {
        for Effect::Keep(epoch) in self.process(node).part.machine.handle(event) {
            let disk = &mut self.nodes[node].disk;
            // The others were in epochs before this store was: what they reaped then it did not see.
            if disk.epoch.is_none() && epoch > STEPS {
                disk.floor = epoch;
            }
            disk.epoch = Some(epoch);
            let mark = self.process(node).fresh();
            let part = &mut self.process(node).part;
            part.mark = mark;
            part.machine.handle(Told::Kept(epoch));
        }
    }

    /// A member says how far it is.
    pub(crate) fn heard_word(&mut self, node: usize, from: usize, word: Word) {
        let from = &self.nodes[from].id.clone();
        self.tell_reaping(node, Told::Heard { from, word });
    }

    /// A peer's question about reaping.
    pub(crate) fn asked_to_reap(
        &mut self,
        node: usize,
        (from, number): (usize, u64),
        request: &Request,
        body: &Bytes,
    ) -> (Reply, Bytes) {
        let mut at = 0;
        if let Request::Reap { epoch, .. } = request {
            at = *epoch;
        }
        if let Request::Epoch(word) = request {
            self.heard_word(node, from, *word);
            let word = self.process(node).part.machine.word();
            // What is on its way the world knows.
            let settled = true;
            return (Reply::Epoch { word, settled }, Bytes::new());
        }
        let forget = matches!(request, Request::Reap { .. });
        self.asked_about_seals(node, number, forget.then_some(at), body)
    }

    fn is_first(&self, node: usize, key: usize) -> bool {
        self.counting(node, key).first() == Some(&self.nodes[node].id)
    }

    fn seal(&mut self, node: usize, key: usize) {
        let id = &self.nodes[node].id;
        let may = self.counting(node, key).contains(id) && self.vouches(node, key);
        let now_ms = self.scheduler.now_us() / 1000;
        let object = self.nodes[node].disk.object(&self.keys[key].record);
        let unsynced = self.bug == Some(Bug::SealUnsynced);
        let process = self.process(node);
        // What a resting writer has applied is on disk.
        let may = may && (unsynced || !process.writer.is_busy()) && process.part.machine.may_seal();
        if may && may_be_sealed(&object, now_ms, WINDOW_MS) {
            let part = &mut process.part;
            let epoch = part.machine.epoch();
            part.seals.seal(key, codec::digest(&object), epoch);
        }
    }

    /// The first owner asks the others.
    fn reap(&mut self, node: usize, key: usize) {
        if !self.is_first(node, key) {
            return;
        }
        let object = self.nodes[node].disk.object(&self.keys[key].record);
        let digest = codec::digest(&object);
        let others: Vec<NodeId> = self.counting(node, key).split_off(1);
        let part = &self.process(node).part;
        let sealed = part.seals.sealed_in(&key, digest);
        let Some(youngest) = sealed.filter(|epoch| part.machine.is_ripe(*epoch)) else {
            return;
        };
        let process = self.process(node);
        let (flow, number) = (process.fresh(), process.held.document.number);
        let asking = Asking {
            key,
            digest,
            number,
            youngest,
            left: others.len(),
        };
        process.part.asking.insert(flow, asking);
        let partition = self.keys[key].slot.partition;
        let request = Request::Seals { partition };
        let body = message::encode(&vec![(self.keys[key].place.clone(), digest)]);
        for other in &others {
            let (peer, waiting) = (self.index(other), Waiting::Seals { flow });
            let _sent = self.ask(
                node,
                peer,
                request.clone(),
                body.clone(),
                PATIENCE_US,
                waiting,
            );
        }
        self.sealed_by(node, flow, None);
    }

    /// An owner answered; at the end all forget it.
    pub(crate) fn sealed_by(&mut self, node: usize, flow: u64, sealed: Option<Option<u64>>) {
        let one = self.bug == Some(Bug::ReapOneSeal);
        let part = &mut self.process(node).part;
        let Some(asking) = part.asking.get_mut(&flow) else {
            return;
        };
        match sealed {
            Some(Some(epoch)) => {
                asking.left -= 1;
                asking.youngest = epoch.max(asking.youngest);
            }
            Some(None) if !one => {
                part.asking.remove(&flow);
                return;
            }
            _ => {}
        }
        if asking.left > 0 && !one {
            return;
        }
        let Some(asking) = part.asking.remove(&flow) else {
            return;
        };
        let (key, digest, number) = (asking.key, asking.digest, asking.number);
        let ripe = part.machine.is_ripe(asking.youngest) && part.holds_seal(key, digest);
        if !ripe || self.process(node).held.document.number != number {
            return;
        }
        let object = self.nodes[node].disk.object(&self.keys[key].record);
        let reaped = self.oracle.claimed(key, object.context());
        self.oracle.reap(reaped);
        self.note(&[21, node as u64, key as u64], || {
            format!("n{node} has k{key} reaped")
        });
        let partition = self.keys[key].slot.partition;
        let epoch = self.process(node).part.machine.epoch();
        let request = Request::Reap { partition, epoch };
        let body = message::encode(&vec![(self.keys[key].place.clone(), digest)]);
        for other in self.counting(node, key).split_off(1) {
            let (peer, waiting) = (self.index(&other), Waiting::Repair);
            let _sent = self.ask(
                node,
                peer,
                request.clone(),
                body.clone(),
                PATIENCE_US,
                waiting,
            );
        }
        self.submit(
            node,
            Command::Reap {
                key,
                digest,
                number,
                epoch,
            },
        );
    }

    /// A peer asks whether this node sealed these, or has it forget them.
    fn asked_about_seals(
        &mut self,
        node: usize,
        number: u64,
        forget: Option<u64>,
        body: &Bytes,
    ) -> (Reply, Bytes) {
        let current = self.process(node).held.document.number;
        if number != current {
            return (Reply::Failed(Failure::Stale(current)), Bytes::new());
        }
        let asked: Vec<(Place, Digest)> =
            message::decode(body).expect("what was encoded here can be decoded");
        let mut seals = Vec::new();
        for (place, digest) in asked {
            let Some(key) = self.key(&place) else {
                continue;
            };
            let part = &self.process(node).part;
            let may = part.machine.may_seal();
            seals.push(part.seals.sealed_in(&key, digest).filter(|_| may));
            if let Some(epoch) = forget {
                self.submit(
                    node,
                    Command::Reap {
                        key,
                        digest,
                        number,
                        epoch,
                    },
                );
            }
        }
        match forget.is_some() {
            true => (Reply::Reaped { keys: 0 }, Bytes::new()),
            false => (Reply::Seals, message::encode(&seals)),
        }
    }

    /// A copy whose seal holds goes.
    pub(super) fn reap_in(
        &mut self,
        node: usize,
        key: usize,
        (digest, epoch): (Digest, u64),
        group: &mut Group,
    ) {
        // What cannot be read is not what was sealed.
        let Ok(held) = self.load(node, key, group) else {
            return;
        };
        let one = self.bug == Some(Bug::ReapOneSeal) && self.is_first(node, key);
        let sealed = self.process(node).part.holds_seal(key, digest);
        if (sealed || one) && codec::digest(&held) == digest {
            self.sights.met(Sight::Reaped);
            self.process(node).part.break_seal(key);
            group.changed.insert(key, Object::default());
            group.forgotten.insert(key);
            self.raise_horizon(node, self.keys[key].slot.partition, epoch, group);
        }
    }

    pub(super) fn gained_in(&mut self, node: usize, partitions: Vec<Partition>, group: &mut Group) {
        let epoch = self.process(node).part.machine.epoch();
        for partition in partitions {
            self.raise_horizon(node, partition, epoch, group);
        }
    }

    fn raise_horizon(&self, node: usize, partition: Partition, epoch: u64, group: &mut Group) {
        let disk = &self.nodes[node].disk;
        let horizon = group.horizons.entry(partition);
        let horizon = horizon.or_insert_with(|| disk.horizon(partition));
        *horizon = epoch.max(*horizon);
    }
}

impl Writer {
    /// Whether something is queued or not synced yet.
    fn is_busy(&self) -> bool {
        self.busy || !self.queue.is_empty()
    }
}

/// The answer of an owner about one key.
pub(crate) fn seal_of(body: &Bytes) -> Option<u64> {
    let seals: Vec<Option<u64>> = message::decode(body).ok()?;
    seals.into_iter().next().flatten()
}
