//! Hints, as the one writer of a node keeps them: taken in, minted on, and forgotten on a target's word.
//!
//! As `replica/hints.rs` does it: one record per key, a quota that refuses new hints, and a line that rises when
//! a record goes, because a copy was forgotten.

use sibyl::store::{Space, Store as _};
use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::hint::Hint;
use sibyl_core::message::{Failure, Place, Reply};
use sibyl_core::object::Object;

use super::command::{Command, Counts, Group, Why};
use super::{Bytes, NodeId, World};
use crate::sight::Sight;
use crate::zoo::Bug;

impl World {
    /// A key's hint as the batch leaves it so far; an empty one if there is none.
    pub(super) fn load_hint(&self, node: usize, key: usize, group: &Group) -> Hint {
        let fresh = group.hints.get(&key).cloned();
        let kept = fresh.unwrap_or_else(|| self.nodes[node].disk.hint(&self.keys[key].record));
        kept.unwrap_or_default()
    }

    /// What a node holds of a key: its copy, or what it keeps for the owners.
    pub(crate) fn held(&self, node: usize, key: usize) -> Object {
        let (disk, record) = (&self.nodes[node].disk, &self.keys[key].record);
        let mut held = disk.object(record);
        // Whoever becomes an owner may still keep a hint for others.
        held.join(&disk.hint(record).unwrap_or_default().object);
        held
    }

    /// Keeps an object for an owner, unless the quota is used up.
    pub(super) fn keep_hint(
        &mut self,
        node: usize,
        (key, object, target): (usize, Object, NodeId),
        asked: Option<(usize, u64)>,
        group: &mut Group,
    ) {
        let mut hint = self.load_hint(node, key, group);
        let before = self.copy_of(key, &hint.object);
        let old = if hint.is_settled() {
            0
        } else {
            hint.encode().len()
        };
        let now_ms = self.scheduler.now_us() / 1000;
        hint.keep(&object, [&target], now_ms, None);
        let more = hint.encode().len().saturating_sub(old);
        if self.is_full(node, key, more, group) {
            self.sights.met(Sight::HintRefused);
            if let Some((by, call)) = asked {
                let reply = Reply::Failed(Failure::HintsFull);
                self.reply(node, by, call, reply, Bytes::new());
            }
            return;
        }
        self.watch(node, key, before, &hint.object);
        group.hints.insert(key, Some(hint));
        let Some((by, call)) = asked else { return };
        if self.bug == Some(Bug::HintAckBeforeSync) {
            self.reply(node, by, call, Reply::Joined, Bytes::new());
        } else {
            group.counts.push(Counts::Asked { by, call });
        }
    }

    /// Whether so many more bytes are beyond the quota.
    pub(super) fn is_full(&self, node: usize, key: usize, more: usize, group: &mut Group) -> bool {
        let bytes = |other: usize| {
            let fresh = group.hints.get(&other).cloned();
            let kept =
                fresh.unwrap_or_else(|| self.nodes[node].disk.hint(&self.keys[other].record));
            kept.map_or(0, |hint| hint.encode().len())
        };
        let all: usize = (0..self.keys.len()).map(bytes).sum();
        let full = (all + more) as u64 > self.plan.setting.hint_quota;
        if full && self.bug == Some(Bug::HintEvicted) {
            let others = (0..self.keys.len()).filter(|other| *other != key);
            for other in others {
                let there = self.nodes[node]
                    .disk
                    .hint(&self.keys[other].record)
                    .is_some();
                if there && group.hints.insert(other, None).is_none() {
                    return false;
                }
            }
        }
        full
    }

    /// What was minted in the owners' place is kept for all of them.
    pub(super) fn keep_minted(
        &mut self,
        node: usize,
        key: usize,
        hint: Hint,
        object: Object,
        group: &mut Group,
    ) {
        self.sights.met(Sight::StoodIn);
        if !hint.is_settled() {
            self.sights.met(Sight::StoodInAgain);
        }
        let mut hint = Hint { object, ..hint };
        let now_ms = self.scheduler.now_us() / 1000;
        let takers = self.takers(node, key);
        hint.keep(&Object::default(), &takers, now_ms, None);
        group.hints.insert(key, Some(hint));
    }

    /// A target has these dots on disk.
    pub(super) fn settle_hint(
        &mut self,
        node: usize,
        key: usize,
        target: &NodeId,
        acked: &Context,
        group: &mut Group,
    ) {
        let mut hint = self.load_hint(node, key, group);
        if !hint.targets.contains_key(target) {
            return;
        }
        if !hint.settle(target, acked) {
            return self.sights.met(Sight::HintGrew);
        }
        self.note(&[18, node as u64, key as u64], || {
            format!(
                "n{node} delivered k{key} to {target}, left: {:?}",
                hint.targets
            )
        });
        let settled = hint.is_settled();
        group.hints.insert(key, (!settled).then_some(hint));
        if !settled {
            return;
        }
        self.sights.met(Sight::HintDelivered);
        if self.bug != Some(Bug::ForgetfulFallback) {
            let process = self.process(node);
            process.lines.insert(key, process.counter - 1);
        }
    }

    /// What is kept on a node's disk, by key.
    pub(super) fn hints(&self, node: usize) -> Vec<(usize, Hint)> {
        let disk = &self.nodes[node].disk;
        let hint = |key: usize| Some((key, disk.hint(&self.keys[key].record)?));
        let mut kept: Vec<(usize, Hint)> = (0..self.keys.len()).filter_map(hint).collect();
        kept.sort_by(|(a, _), (b, _)| self.keys[*a].record.cmp(&self.keys[*b].record));
        kept
    }

    /// The encoded object of a hint, as a read finds it.
    pub(super) fn hinted(&self, node: usize, key: usize) -> Option<Bytes> {
        let bytes = self.nodes[node]
            .disk
            .store
            .get(Space::Hints, &self.keys[key].record);
        let bytes = bytes.expect("no read fault is switched on")?;
        let (_, object) = sibyl_core::hint::split(&bytes).expect("only hints are kept");
        Some(object)
    }

    /// A peer asks this node to keep an object for an owner.
    pub(super) fn asked_to_keep(
        &mut self,
        node: usize,
        (from, call, number): (usize, u64, u64),
        place: &Place,
        target: NodeId,
        body: &Bytes,
    ) {
        let object = codec::decode(body).expect("what was encoded here can be decoded");
        if let Some(key) = self.key(place) {
            if self.is_holder(node, key) {
                let asked = (Some((from, call)), Some(number));
                return self.join_for(node, asked, place, object, Why::Write);
            }
            if self.lacks_room(node, &object) {
                let failed = Reply::Failed(Failure::DiskFull);
                return self.reply(node, from, call, failed, Bytes::new());
            }
            let hint = Command::Hint {
                key,
                number,
                object: Box::new(object),
                target,
                asked: Some((from, call)),
            };
            self.submit(node, hint);
        }
    }
}
