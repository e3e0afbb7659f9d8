//! A node's copies, and the one writer of them: apply, ship, sync, and only then acknowledge.
//!
//! As `replica.rs` does it: everything queued becomes one batch; what was minted is told once it is applied,
//! so shipments leave before the sync; what counts is told after the sync, which takes time and during
//! which nothing else is applied. Minting and joining are the core's; the ledger watches every batch.

use std::collections::BTreeMap;

use sibyl::replica::leaves::Changes;
use sibyl::store::{Batch, Space, Store as _};
use sibyl_core::codec;
use sibyl_core::merkle::Sum;
use sibyl_core::message::{Failure, Place, Reply};
use sibyl_core::object::Object;

use super::command::{Command, Counts, Group, Then, Why};
use super::coordinate::{Minted, Took};
use super::{Bytes, Event, HandoffEvent, NodeId, VecDeque, World};
use crate::checks::{deletes::Copy, dots, durable, seen, siblings};
use crate::disk::{Disk, Fenced};
use crate::draw::Draw;
use crate::oracle::Writes;
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 4;
/// The most commands one batch takes.
const BATCH: usize = 8;
/// How long the writer gathers commands at most.
const GATHER_US: u64 = 100;
/// Where the chosen document lies among the node's own records.
pub(crate) const CHOSEN: &[u8] = b"registry/chosen";

/// The queue and the batch under way.
#[derive(Default)]
pub(crate) struct Writer {
    pub(super) queue: VecDeque<Command>,
    pub(super) busy: bool,
    group: Group,
    syncs: u64,
    /// The last message heard of each peer, by when it was sent.
    pub(crate) heard: BTreeMap<usize, u64>,
}

impl World {
    pub(crate) fn submit(&mut self, node: usize, command: Command) {
        let (seed, now) = (self.plan.seed, self.scheduler.now_us());
        let process = self.process(node);
        process.writer.queue.push_back(command);
        if !process.writer.busy {
            process.writer.busy = true;
            let life = process.life;
            let gather = Draw::of(seed, PURPOSE + node as u64 * 64, now).below(GATHER_US);
            self.scheduler.after(gather, Event::Wake { node, life });
        }
    }

    /// Whether a batch under way writes a key.
    pub(super) fn is_writing(&self, node: usize, key: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| process.writer.group.changed.contains_key(&key))
    }

    /// Joins an object that came from a peer, or from a repair of the own copy.
    pub(crate) fn join_for(
        &mut self,
        node: usize,
        (asked, number): (Option<(usize, u64)>, Option<u64>),
        place: &Place,
        object: Object,
        why: Why,
    ) {
        let process = self.nodes[node].process.as_ref();
        if process.is_none_or(|process| process.held.document.number < 2) {
            if let Some((by, call)) = asked {
                let failure = Failure::NotServing("forming".into());
                self.reply(node, by, call, Reply::Failed(failure), Bytes::new());
            }
            return;
        }
        if let Some((by, call)) = asked
            && self.lacks_room(node, &object)
        {
            let failed = Reply::Failed(Failure::DiskFull);
            return self.reply(node, by, call, failed, Bytes::new());
        }
        let owned = self.key(place).filter(|key| self.is_holder(node, *key));
        match (owned, asked) {
            (Some(key), asked) => {
                self.submit(
                    node,
                    Command::Join {
                        key,
                        number,
                        object: Box::new(object),
                        asked,
                        why,
                    },
                );
            }
            (None, Some((by, call))) => {
                self.reply(
                    node,
                    by,
                    call,
                    Reply::Failed(Failure::NotOwner),
                    Bytes::new(),
                );
            }
            (None, None) => {}
        }
    }

    /// One batch: prepare, apply, tell what was minted, begin the sync.
    pub(crate) fn write_group(&mut self, node: usize) {
        let queue = &mut self.process(node).writer.queue;
        let commands: Vec<Command> = queue.drain(..queue.len().min(BATCH)).collect();
        if commands.len() > 1 {
            self.sights.met(Sight::Grouped);
        }
        let mut batch = Batch::new();
        let mut group = Group::default();
        let mut minted = Vec::new();
        for command in commands {
            self.prepare(node, command, &mut batch, &mut group, &mut minted);
        }
        for (key, object) in &group.changed {
            let record = &self.keys[*key].record;
            if group.forgotten.contains(key) {
                batch.delete(Space::Objects, record);
                self.nodes[node].synced[*key] = self.kept_of(node, *key);
                continue;
            }
            let bytes = codec::encode(object);
            self.trace.bytes(&bytes);
            batch.put(Space::Objects, record, bytes);
        }
        let late = self.keep_leaves(node, &group, &mut batch);
        for (key, hint) in &group.hints {
            let record = &self.keys[*key].record;
            match hint {
                Some(hint) => {
                    let bytes = hint.encode();
                    self.trace.bytes(&bytes);
                    batch.put(Space::Hints, record, bytes);
                }
                None => {
                    batch.delete(Space::Hints, record);
                    // From now on nothing here stands for it but a copy of its own, whatever a crash brings back.
                    let own = self.nodes[node].disk.object(record);
                    self.nodes[node].synced[*key] = self.oracle.held(*key, &own);
                }
            }
        }
        for (partition, horizon) in &group.horizons {
            Disk::keep_horizon(*partition, *horizon, &mut batch);
        }
        if !batch.is_empty() {
            let applied = self.nodes[node].disk.store.apply(batch);
            applied.expect("a store that failed has stopped its node");
        }
        if !late.is_empty() {
            let applied = self.nodes[node].disk.store.apply(late);
            applied.expect("a store that failed has stopped its node");
        }
        for (flow, result) in minted {
            self.minted(node, flow, result);
        }
        if self.bug == Some(Bug::AckBeforeSync) {
            let early = std::mem::take(&mut group.counts);
            self.tell(node, early);
        }
        self.begin_sync(node, group);
    }

    fn begin_sync(&mut self, node: usize, group: Group) {
        let (seed, mean, now) = (
            self.plan.seed,
            self.plan.setting.sync_us,
            self.scheduler.now_us(),
        );
        let slow = if now < self.nodes[node].disk.slow_until_us {
            20
        } else {
            1
        };
        let process = self.process(node);
        let (life, syncs) = (process.life, process.writer.syncs);
        process.writer.syncs += 1;
        process.writer.group = group;
        let mut draw = Draw::of(seed, PURPOSE + 1 + node as u64 * 64, (life << 32) + syncs);
        let takes_us = (mean / 2 + draw.around(mean)) * slow;
        self.scheduler.after(takes_us, Event::Synced { node, life });
    }

    pub(crate) fn synced(&mut self, node: usize) {
        if self.nodes[node].disk.store.sync().is_err() {
            self.sights.met(Sight::SyncFailed);
            let down_us = self.plan.setting.sync_us * 10;
            return self.crash(node, down_us);
        }
        let group = std::mem::take(&mut self.process(node).writer.group);
        let hints = group.hints.iter();
        let hints = hints.filter_map(|(key, hint)| Some((key, &hint.as_ref()?.object)));
        for (key, object) in group.changed.iter().chain(hints) {
            let known = self.oracle.held(*key, object);
            let synced = &mut self.nodes[node].synced[*key];
            *synced = synced.and(known);
        }
        self.replaced(node, &group.replaced);
        let targets = group.hints.into_values().flatten();
        let targets: Vec<NodeId> = targets.flat_map(|hint| hint.targets.into_keys()).collect();
        self.tell(node, group.counts);
        for target in targets {
            if self.nodes[node].process.is_some() {
                self.tell_handoff(node, &HandoffEvent::Kept(&target));
            }
        }
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        process.writer.busy = !process.writer.queue.is_empty();
        if process.writer.busy {
            let life = process.life;
            self.scheduler.after(0, Event::Wake { node, life });
        }
    }

    fn tell(&mut self, node: usize, counts: Vec<Counts>) {
        let me = self.nodes[node].id.clone();
        for counts in counts {
            match counts {
                Counts::Write { flow } => self.copy_counts(node, flow, &me, Took::Counts),
                Counts::Asked { by, call } => {
                    self.reply(node, by, call, Reply::Joined, Bytes::new());
                }
                Counts::Delivered { by, call, context } => {
                    self.reply(node, by, call, Reply::Delivered { context }, Bytes::new());
                }
                Counts::Kept => self.kept(node),
                Counts::Admitted(admitted) => self.admitted(node, admitted),
                Counts::After(then) => self.after(node, then),
            }
        }
    }

    fn prepare(
        &mut self,
        node: usize,
        command: Command,
        batch: &mut Batch,
        group: &mut Group,
        minted: &mut Vec<(u64, Result<Minted, Failure>)>,
    ) {
        if let Some(number) = command.number()
            && number < self.process(node).since
            && self.bug != Some(Bug::StaleTaken)
        {
            self.sights.met(Sight::Stale);
            return self.refuse_stale(node, command, minted);
        }
        if self.is_hidden(node, &command) {
            return self.refuse_hidden(node, command, group, minted);
        }
        match command {
            Command::Keep { bytes } => {
                batch.put(Space::Meta, CHOSEN, bytes);
                group.counts.push(Counts::Kept);
            }
            Command::After {
                then: Then::Deliver { by, call, .. },
            } if group.broken.contains(&(by, call)) => {
                let failed = Reply::Failed(Failure::Overloaded);
                self.reply(node, by, call, failed, Bytes::new());
            }
            Command::After { then } => group.counts.push(Counts::After(then)),
            Command::Join {
                key,
                number: _,
                object,
                asked,
                why,
            } => self.join_in(node, (key, &object), (asked, why), group),
            Command::Hint {
                key,
                number: _,
                object,
                target,
                asked,
            } => {
                if !self.takers(node, key).contains(&target) {
                    let target = target.clone();
                    self.submit(node, Command::Reroute { key, target });
                }
                self.keep_hint(node, (key, *object, target), asked, group);
            }
            Command::Settle { key, target, acked } => {
                self.settle_hint(node, key, &target, &acked, group);
            }
            Command::Mint {
                flow,
                key,
                request,
                number: _,
                write,
                caps,
                stands_in,
                found,
            } => {
                let write = (request, *write, caps, stands_in, found);
                let result = self.mint_in(node, flow, key, write, group);
                minted.push((flow, result));
            }
            other => self.prepare_rest(node, other, group),
        }
    }

    /// What nobody waits for, or what is told by other ways.
    fn prepare_rest(&mut self, node: usize, command: Command, group: &mut Group) {
        match command {
            Command::Reroute { key, target } => self.reroute_in(node, key, &target, group),
            Command::Forget { key, .. } => self.forget_in(node, key, group),
            Command::Replace { key, object } => self.replace_in(node, key, *object, group),
            Command::Reap {
                key, digest, epoch, ..
            } => self.reap_in(node, key, (digest, epoch), group),
            Command::Horizon {
                by,
                call,
                partition,
            } => self.tell_horizon(node, (by, call), partition, group),
            Command::SetAside { key } => self.set_aside_in(node, key, group),
            Command::Admit(brought) => self.admit_in(node, *brought, group),
            Command::Gained { partitions } => self.gained_in(node, partitions, group),
            _ => {}
        }
    }

    fn join_in(
        &mut self,
        node: usize,
        (key, object): (usize, &Object),
        (asked, why): (Option<(usize, u64)>, Why),
        group: &mut Group,
    ) {
        let Ok(mut held) = self.load(node, key, group) else {
            return self.refuse_fenced(node, (asked, why), group);
        };
        group.forgotten.remove(&key);
        let before = self.copy_of(key, &held);
        if held.join(object) {
            if why == Why::Repair {
                self.sights.met(Sight::Repaired);
            }
            self.watch(node, key, before, &held);
            group.changed.insert(key, held);
        }
        let context = object.context().clone();
        group.counts.extend(asked.map(|(by, call)| match why {
            Why::Handoff => Counts::Delivered { by, call, context },
            _ => Counts::Asked { by, call },
        }));
    }

    fn reroute_in(&mut self, node: usize, key: usize, target: &NodeId, group: &mut Group) {
        let mut hint = self.load_hint(node, key, group);
        let takers = self.takers(node, key);
        hint.reroute(target, &takers);
        if !hint.is_settled() {
            self.sights.met(Sight::Rerouted);
            group.hints.insert(key, Some(hint));
        }
    }

    fn forget_in(&mut self, node: usize, key: usize, group: &mut Group) {
        self.sights.met(Sight::LetGo);
        group.changed.insert(key, Object::default());
        group.forgotten.insert(key);
        let process = self.process(node);
        process.lines.insert(key, process.counter - 1);
    }

    /// What would be written to what may be set aside.
    fn refuse_hidden(
        &mut self,
        node: usize,
        command: Command,
        group: &mut Group,
        minted: &mut Vec<(u64, Result<Minted, Failure>)>,
    ) {
        match command {
            Command::Mint { flow, .. } => minted.push((flow, Err(Failure::Rebuilding))),
            Command::Join { asked, why, .. } => self.refuse_fenced(node, (asked, why), group),
            Command::Admit(brought) => self.give_up_taking(node, brought.of.0),
            Command::Hint {
                asked: Some((by, call)),
                ..
            } => {
                let failed = Reply::Failed(Failure::Rebuilding);
                self.reply(node, by, call, failed, Bytes::new());
            }
            _ => {}
        }
    }

    /// What was asked by owners that are not those of now.
    fn refuse_stale(
        &mut self,
        node: usize,
        command: Command,
        minted: &mut Vec<(u64, Result<Minted, Failure>)>,
    ) {
        let stale = Failure::Stale(self.process(node).since);
        match command {
            Command::Mint { flow, .. } => minted.push((flow, Err(stale))),
            Command::Join {
                asked: Some((by, call)),
                ..
            } => self.reply(node, by, call, Reply::Failed(stale), Bytes::new()),
            Command::Admit(brought) => self.give_up_taking(node, brought.of.0),
            Command::Hint {
                asked: Some((by, call)),
                ..
            } => self.reply(node, by, call, Reply::Failed(stale), Bytes::new()),
            _ => {}
        }
    }

    /// What a node still keeps of a key for others.
    pub(super) fn kept_of(&self, node: usize, key: usize) -> Writes {
        let hint = self.nodes[node].disk.hint(&self.keys[key].record);
        self.oracle.held(key, &hint.unwrap_or_default().object)
    }

    /// The leaves of what changes, in the same batch; a batch of their own is a known bug.
    fn keep_leaves(&mut self, node: usize, group: &Group, batch: &mut Batch) -> Batch {
        let bug = self.bug;
        let Self { nodes, keys, .. } = self;
        let this = &mut nodes[node];
        let (disk, process) = (&this.disk, this.process.as_mut());
        let process = process.expect("only a running node writes");
        let (mut late, mut changes) = (Batch::new(), Changes::default());
        let own = if bug == Some(Bug::LeavesApart) {
            &mut late
        } else {
            batch
        };
        for (key, object) in &group.changed {
            let slot = &keys[*key].slot;
            let tag = |bytes: Bytes| {
                process
                    .leaves
                    .tag(slot.place.bucket, &slot.place.key, &bytes)
            };
            let gone = disk.encoded(&keys[*key].record).map_or(Sum::ZERO, tag);
            let gone = if bug == Some(Bug::LeafKeepsOld) {
                Sum::ZERO
            } else {
                gone
            };
            let come = match group.forgotten.contains(key) {
                true => Sum::ZERO,
                false => tag(codec::encode(object)),
            };
            process.leaves.change(&mut changes, own, slot, gone, come);
        }
        process.leaves.seal(&disk.store, changes, own);
        late
    }

    /// A key's object as the batch leaves it so far. What cannot be read raises the line: see `heal`.
    pub(super) fn load(
        &mut self,
        node: usize,
        key: usize,
        group: &Group,
    ) -> Result<Object, Fenced> {
        if let Some(fresh) = group.changed.get(&key) {
            return Ok(fresh.clone());
        }
        let read = self.read(node, key);
        if read.is_err() && self.bug != Some(Bug::FenceKeepsLine) {
            let process = self.process(node);
            process.lines.insert(key, process.counter - 1);
        }
        let object = |bytes: Bytes| codec::decode(&bytes).expect("only encoded objects are stored");
        Ok(read?.map_or_else(Object::default, object))
    }

    pub(super) fn copy_of(&self, key: usize, object: &Object) -> Copy {
        Copy {
            known: self.oracle.claimed(key, object.context()),
            surviving: self.oracle.surviving(object),
        }
    }

    /// What must hold for every copy after every change.
    pub(super) fn watch(&mut self, node: usize, key: usize, before: Copy, object: &Object) {
        self.process(node).part.break_seal(key);
        // Who was removed and has not heard of it stands still with what it had.
        if !self.nodes[node].parted {
            let live = self.oracle.live(object);
            self.hold(crate::checks::deletes::reaped(&self.oracle, live));
        }
        self.hold(dots::check(&self.oracle, key, object));
        self.hold(seen::copy(&self.oracle, key, object));
        let after = self.copy_of(key, object);
        self.hold(crate::checks::deletes::step(&self.oracle, before, after));
        self.count_siblings(key, object);
        self.note(&[6, node as u64, key as u64], || {
            let names: Vec<String> = object
                .siblings()
                .iter()
                .map(|sibling| sibling.dot().to_string())
                .collect();
            format!("n{node} holds k{key} = {names:?}")
        });
    }

    /// In a run of polite clients, siblings are bounded.
    pub(crate) fn count_siblings(&mut self, key: usize, object: &Object) {
        if self.plan.setting.polite {
            let unanswered = self
                .requests
                .iter()
                .filter(|request| request.key == key && request.is_open())
                .count();
            let writers = self.clients.len();
            self.hold(siblings::check(
                key,
                Self::shown(object).len(),
                writers,
                unanswered,
            ));
        }
    }

    /// Checks that all promises about a key are kept.
    pub(crate) fn check_durable(&mut self, key: usize) {
        // What nobody took of a removed node lies beside its store, for an operator.
        let held = self.nodes.iter();
        let synced: Vec<Writes> = held
            .map(|node| node.synced[key].and(node.aside[key]))
            .collect();
        let acknowledged = self.oracle.acknowledged(key).without(self.oracle.reaped());
        self.hold(durable::check(&self.oracle, acknowledged, &synced));
    }
}
