//! What a store made of a backup may show where deleted keys are reaped, as `tasks/reap/judge.rs` finds out.
//!
//! A partition of it is judged before anything of it leaves the node, is compared or written to: every other owner is
//! asked when it reaped there last, after the document that names the store. If that may be since the backup was taken,
//! all of the partition is set aside and fetched like any that was lost. A start judges anew what is not over.

use std::collections::{BTreeMap, BTreeSet};

use sibyl_core::id::Partition;
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::object::Object;

use super::command::{Command, Group, Then};
use super::frames::Waiting;
use super::{Bytes, Event, HandoffEvent, World};
use crate::draw::Draw;
use crate::plan::{CALM_US, PATIENCE_US};
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 17;
/// How long a node waits between two rounds, about.
const AGAIN_US: u64 = 20_000;
/// From then on the end of the run wakes who waits: an owner may be filled by that alone.
const LAST_US: u64 = CALM_US + 3_000_000;
/// How far two members' epochs may be apart, as in the node.
const SLACK: u64 = 2;

/// What a process knows of an older state that its store was made of.
#[derive(Default)]
pub(crate) struct Judging {
    judged: BTreeSet<Partition>,
    asked: BTreeMap<u64, Asked>,
}

/// Owners that are asked about a partition.
struct Asked {
    partition: Partition,
    left: usize,
    last: u64,
    known: bool,
}

impl World {
    /// Whether what a node holds of a partition may be shown.
    pub(crate) fn is_judged(&self, node: usize, partition: Partition) -> bool {
        let this = &self.nodes[node];
        let judged = |process: &super::Process| process.judging.judged.contains(&partition);
        this.disk.image.is_none() || this.process.as_ref().is_some_and(judged)
    }

    /// A process starts, perhaps on an older state.
    pub(crate) fn open_judging(&mut self, node: usize) {
        if self.nodes[node].disk.image.is_some() {
            self.judge_later(node);
        }
    }

    fn judge_later(&mut self, node: usize) {
        let now_us = self.scheduler.now_us();
        if now_us < LAST_US {
            let life = self.process(node).life;
            let mut draw = Draw::of(self.plan.seed, PURPOSE + node as u64 * 64, now_us);
            let after_us = AGAIN_US / 2 + draw.below(AGAIN_US);
            self.scheduler.after(after_us, Event::Judge { node, life });
        }
    }

    /// One round through all partitions that are not judged yet.
    pub(crate) fn judge_round(&mut self, node: usize) {
        if self.nodes[node].disk.image.is_none() {
            return;
        }
        let mut partitions: Vec<Partition> = Vec::new();
        for key in &self.keys {
            if !partitions.contains(&key.slot.partition) {
                partitions.push(key.slot.partition);
            }
        }
        partitions.retain(|at| !self.is_judged(node, *at));
        if partitions.is_empty() {
            self.nodes[node].disk.image = None;
            return;
        }
        // The last attempt to have it named may have found too few.
        if self.process(node).registry.machine.pending() == 0 {
            self.name_store(node);
        }
        for partition in partitions {
            self.ask_horizons(node, partition);
        }
        if self.nodes[node].process.is_some() {
            self.judge_later(node);
        }
    }

    fn ask_horizons(&mut self, node: usize, partition: Partition) {
        let asked = &self.process(node).judging.asked;
        let under_way = asked.values().any(|asked| asked.partition == partition);
        // Orders of before may still be on their way until a document names this store.
        if under_way || !self.is_named(node) {
            return;
        }
        let n = self.keys[0].slot.n;
        let me = self.nodes[node].id.clone();
        let process = self.process(node);
        let mut owners = process.placed.holders(partition, n);
        let members = &process.held.document.layout.members;
        owners.retain(|owner| *owner != me && members.contains_key(owner));
        let flow = process.fresh();
        let asked = Asked {
            partition,
            left: owners.len(),
            last: 0,
            known: owners.is_empty(),
        };
        process.judging.asked.insert(flow, asked);
        for owner in &owners {
            let (peer, request) = (self.index(owner), Request::Horizon { partition });
            let waiting = Waiting::Horizon { flow };
            if !self.ask(node, peer, request, Bytes::new(), PATIENCE_US, waiting) {
                self.heard_horizon(node, flow, None);
            }
        }
        if owners.is_empty() {
            self.judge(node, flow);
        }
    }

    /// An owner said when it reaped there last, if it knows; `None`: it did not answer.
    pub(crate) fn heard_horizon(&mut self, node: usize, flow: u64, said: Option<Option<u64>>) {
        let asked = &mut self.process(node).judging.asked;
        let Some(said) = said else {
            asked.remove(&flow);
            return;
        };
        let Some(one) = asked.get_mut(&flow) else {
            return;
        };
        one.left -= 1;
        one.known |= said.is_some();
        one.last = said.unwrap_or_default().max(one.last);
        if one.left == 0 {
            self.judge(node, flow);
        }
    }

    fn judge(&mut self, node: usize, flow: u64) {
        let Some(asked) = self.process(node).judging.asked.remove(&flow) else {
            return;
        };
        let Some(image) = self.nodes[node].disk.image.filter(|_| asked.known) else {
            return;
        };
        let partition = asked.partition;
        let older = asked.last > 0 && asked.last.saturating_add(SLACK) >= image;
        self.note(&[27, node as u64, u64::from(older)], || {
            format!(
                "n{node} judges {partition:?} of epoch {image}: the last horizon is {}",
                asked.last
            )
        });
        let holds = |key: &usize| {
            let record = &self.keys[*key].record;
            let disk = &self.nodes[node].disk;
            disk.read(record) != Ok(None) || disk.hint(record).is_some()
        };
        let of = |key: &usize| self.keys[*key].slot.partition == partition;
        let keys: Vec<usize> = (0..self.keys.len()).filter(of).filter(holds).collect();
        if !older || keys.is_empty() || self.bug == Some(Bug::RestoredUnjudged) {
            if !keys.is_empty() {
                self.sights.met(Sight::RestoredShown);
            }
            return self.show(node, partition);
        }
        self.sights.met(Sight::RestoredAside);
        for key in keys {
            self.submit(node, Command::SetAside { key });
        }
        let then = Then::Shown { partition };
        self.submit(node, Command::After { then });
    }

    /// A partition is like any other from now on.
    pub(crate) fn show(&mut self, node: usize, partition: Partition) {
        self.process(node).judging.judged.insert(partition);
        self.nodes[node].disk.shown.insert(partition);
        for key in 0..self.keys.len() {
            if self.keys[key].slot.partition == partition {
                let held = self.held(node, key);
                let synced = self.oracle.held(key, &held);
                self.nodes[node].synced[key] = synced;
            }
        }
        for (_, hint) in self.hints(node) {
            for target in hint.targets.keys() {
                self.tell_handoff(node, &HandoffEvent::Kept(target));
            }
        }
    }

    /// The writer puts a key out of sight.
    pub(super) fn set_aside_in(&mut self, node: usize, key: usize, group: &mut Group) {
        self.note(&[28, node as u64, key as u64], || {
            format!("n{node} sets k{key} aside")
        });
        let record = self.keys[key].record.clone();
        self.nodes[node].disk.damage(&record, false);
        group.changed.insert(key, Object::default());
        group.forgotten.insert(key);
        if self.nodes[node].disk.hint(&record).is_some() {
            group.hints.insert(key, None);
        }
        let process = self.process(node);
        process.lines.insert(key, process.counter - 1);
    }

    /// A peer asks when this node reaped in a partition last.
    pub(crate) fn asked_for_horizon(
        &mut self,
        node: usize,
        (by, call, number): (usize, u64, u64),
        partition: Partition,
    ) {
        if self.process(node).held.document.number < number {
            let failed = Reply::Failed(Failure::Stale(number));
            return self.reply(node, by, call, failed, Bytes::new());
        }
        self.submit(
            node,
            Command::Horizon {
                by,
                call,
                partition,
            },
        );
    }

    /// Behind everything that was asked before.
    pub(super) fn tell_horizon(
        &mut self,
        node: usize,
        (by, call): (usize, u64),
        partition: Partition,
        group: &Group,
    ) {
        let mut keys = self.keys.iter();
        let key = keys.position(|key| key.slot.partition == partition);
        let knows = key.is_none_or(|key| self.vouches(node, key));
        let epoch = knows.then(|| self.horizon(node, partition, group));
        self.reply(node, by, call, Reply::Horizon { epoch }, Bytes::new());
    }

    /// What would write to a partition that may be set aside as a whole is refused: what is acknowledged stays.
    pub(super) fn is_hidden(&self, node: usize, command: &Command) -> bool {
        let key = command.written();
        key.is_some_and(|key| !self.is_judged(node, self.keys[key].slot.partition))
    }

    /// Whoever waits for an owner to be filled looks again.
    pub(crate) fn finish_judging(&mut self, events: &mut u64) {
        for _ in 0..3 {
            let waits = |node: &usize| {
                let this = &self.nodes[*node];
                this.process.is_some() && this.disk.image.is_some()
            };
            let waiting: Vec<usize> = (0..self.nodes.len()).filter(waits).collect();
            for node in waiting {
                self.judge_round(node);
                self.go(events);
                if self.nodes[node].process.is_some() {
                    self.judge_round(node);
                }
            }
        }
    }
}
