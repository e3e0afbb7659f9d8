//! Records that fail their checksum, and full disks.
//!
//! As `tasks/anti_entropy/heal.rs` does it: what cannot be read is fenced, never absent; reads of it fail, joins and
//! mints are refused. It counts again once enough other owners were asked (`core: refill`) and the join of what they
//! hold has taken its place. Below the low-water mark only deletes go on.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sibyl::store::Store as _;
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::refill::Need;

use super::command::{Command, Group, Why};
use super::frames::Waiting;
use super::{Bytes, Event, NodeId, World};
use crate::disk::Fenced;
use crate::plan::PATIENCE_US;
use crate::sight::Sight;
use crate::zoo::Bug;

/// How soon a record is looked at, and looked at again.
const AGAIN_US: u64 = 20_000;

/// What was heard of a record.
#[derive(Default)]
pub(crate) struct Healing {
    joined: Object,
    heard: BTreeMap<NodeId, bool>,
    waits: usize,
}

impl World {
    /// Reads a node's own record of a key.
    pub(crate) fn read(&mut self, node: usize, key: usize) -> Result<Option<Bytes>, Fenced> {
        let read = self.nodes[node].disk.read(&self.keys[key].record);
        if read.is_err() {
            if self.bug == Some(Bug::ErrorIsAbsent) {
                return Ok(None);
            }
            self.note_damage(node, key);
        }
        read
    }

    /// A record could not be read: other owners are asked for it.
    pub(crate) fn note_damage(&mut self, node: usize, key: usize) {
        let trusts = self.bug == Some(Bug::ErrorIsAbsent);
        let process = self.process(node);
        if trusts || process.healing.contains_key(&key) {
            return;
        }
        process.healing.insert(key, Healing::default());
        let life = process.life;
        self.sights.met(Sight::Fenced);
        self.scheduler
            .after(AGAIN_US, Event::Heal { node, life, key });
    }

    /// Asks the other owners for a record.
    pub(crate) fn heal(&mut self, node: usize, key: usize) {
        let readable = self.nodes[node].disk.read(&self.keys[key].record).is_ok();
        let Some(need) = self.heal_need(node, key).filter(|_| !readable) else {
            self.process(node).healing.remove(&key);
            return;
        };
        let others = need.others;
        let waits = others.len();
        let healing = Healing {
            waits,
            ..Healing::default()
        };
        self.process(node).healing.insert(key, healing);
        for other in others {
            let place = self.keys[key].place.clone();
            let (peer, request) = (self.index(&other), Request::Object { place });
            let waiting = Waiting::Heal { key };
            if !self.ask(node, peer, request, Bytes::new(), PATIENCE_US, waiting) {
                self.heard_of(node, key, &other, None);
            }
        }
    }

    fn heal_need(&self, node: usize, key: usize) -> Option<Need> {
        let slot = &self.keys[key].slot;
        let process = self.nodes[node].process.as_ref()?;
        let owners = process.placed.holders(slot.partition, slot.n);
        let held = Rc::clone(&process.held);
        let is_member = |at: &NodeId| held.document.layout.members.contains_key(at);
        let w = self.plan.setting.w.min(owners.len());
        Need::of(&self.nodes[node].id, &owners, w, is_member)
    }

    /// Another owner has spoken, or cannot.
    pub(crate) fn heard_of(
        &mut self,
        node: usize,
        key: usize,
        from: &NodeId,
        said: Option<(Object, bool)>,
    ) {
        let Some(healing) = self.process(node).healing.get_mut(&key) else {
            return;
        };
        healing.waits = healing.waits.saturating_sub(1);
        if let Some((object, counts)) = said {
            healing.joined.join(&object);
            healing.heard.insert(from.clone(), counts);
        }
        if healing.waits > 0 {
            return;
        }
        let (joined, heard) = (healing.joined.clone(), healing.heard.clone());
        let Some(need) = self.heal_need(node, key) else {
            self.process(node).healing.remove(&key);
            return;
        };
        let process = self.nodes[node].process.as_ref().expect("it acts");
        let one = self.bug == Some(Bug::HealAfterOne) && !heard.is_empty();
        let met = one || need.is_met(&heard, |other| process.reachable[self.index(other)]);
        if met && !need.others.is_empty() {
            let object = Box::new(joined);
            self.submit(node, Command::Replace { key, object });
        }
        // Looked at once more: a replacement may be lost, and who was silent may speak.
        let life = self.process(node).life;
        self.scheduler
            .after(AGAIN_US * 4, Event::Heal { node, life, key });
    }

    /// As the writer does it: a record that can be read again is joined as anything else.
    pub(super) fn replace_in(
        &mut self,
        node: usize,
        key: usize,
        object: Object,
        group: &mut Group,
    ) {
        let held = self.load(node, key, group);
        let before = held.as_ref().ok().map(|held| self.copy_of(key, held));
        let object = match held {
            Ok(mut held) => {
                if !held.join(&object) {
                    return;
                }
                held
            }
            Err(Fenced) => {
                group.replaced.insert(key);
                let partition = self.keys[key].slot.partition;
                self.nodes[node].disk.spoiled.insert(partition);
                object
            }
        };
        let before = before.unwrap_or_default();
        self.watch(node, key, before, &object);
        if object.is_empty() {
            group.forgotten.insert(key);
        } else {
            group.forgotten.remove(&key);
        }
        group.changed.insert(key, object);
    }

    /// Replacements are synced: they can be read, and their leaves are computed anew.
    pub(super) fn replaced(&mut self, node: usize, keys: &BTreeSet<usize>) {
        for key in keys {
            self.sights.met(Sight::Healed);
            let record = self.keys[*key].record.clone();
            self.nodes[node].disk.damage(&record, false);
            let partition = self.keys[*key].slot.partition;
            self.count_leaves(node, partition);
            let disk = &mut self.nodes[node].disk;
            if disk.store.sync().is_ok() {
                disk.spoiled.remove(&partition);
            }
        }
    }

    /// A join of what cannot be read was refused: whoever waits for it is told.
    pub(super) fn refuse_fenced(
        &mut self,
        node: usize,
        (asked, why): (Option<(usize, u64)>, Why),
        group: &mut Group,
    ) {
        self.sights.met(Sight::FencedJoin);
        if let Some((by, call)) = asked {
            let failed = Failure::Fenced("its checksum does not match".into());
            self.reply(node, by, call, Reply::Failed(failed), Bytes::new());
        }
        match why {
            Why::Fetched(flow) => {
                if let Some(comparing) = self.process(node).exchanges.get_mut(&flow) {
                    comparing.failed += 1;
                }
            }
            Why::Given(by, call) => drop(group.broken.insert((by, call))),
            Why::Write | Why::Repair | Why::Handoff => {}
        }
    }

    /// Damages a record, unless a promise hangs on it or it is just being written.
    pub(crate) fn damage(&mut self, node: usize, key: usize) {
        let is_free = self.nodes[node].process.is_some()
            && self.owners_now(key).len() > 1
            && self.is_holder(node, key)
            && !self.is_writing(node, key)
            && self.nodes[node]
                .disk
                .encoded(&self.keys[key].record)
                .is_some();
        if !is_free || !self.may_lose(node, key) {
            return self.sights.met(Sight::WipeSpared);
        }
        let kept = self.kept_of(node, key);
        let lost = self.nodes[node].synced[key].without(kept);
        for write in lost.iter() {
            self.oracle.writes[write].destroyed += 1;
        }
        let record = self.keys[key].record.clone();
        self.nodes[node].disk.damage(&record, true);
        self.nodes[node].synced[key] = kept;
        self.check_durable(key);
    }

    /// Whether a disk is below its low-water mark.
    pub(crate) fn is_full_disk(&self, node: usize) -> bool {
        self.nodes[node].disk.full_until_us > self.scheduler.now_us()
    }

    /// Whether an object is refused for lack of room: deletes are what makes some.
    pub(crate) fn lacks_room(&mut self, node: usize, object: &Object) -> bool {
        let lacks = self.is_full_disk(node) && object.live().next().is_some();
        if lacks {
            self.sights.met(Sight::DiskFull);
        }
        lacks
    }
}
