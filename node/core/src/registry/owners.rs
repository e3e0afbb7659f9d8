//! Who owns what, also while owners change.
//!
//! A change of owners is never done at once. From its first document on, the owners of before and those of
//! after both get every write, and a write needs W of each. A new owner fetches what it lacks; when every new
//! owner of a partition has it, the partition is *switched*: reads and mints go to the owners of after. Writes
//! still go to both, so a reader with an older document misses nothing. When the old owners know that all is
//! switched the change is *retired*: only the owners of after are left, and old copies may go. Until then the
//! owners of before hold every acknowledged write, so a change can be turned round or given another aim at any
//! time, and a new owner that dies harms nobody (Garage's rule of a quorum in each active layout).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::document::{Document, Member};
use super::partitions::Partitions;
use crate::id::{NodeId, Partition};
use crate::refill::Need;
use crate::ring::{Ring, Stand};

/// The most former members that anybody is shown: who went before those is of no interest, and gossip publishes
/// them with every change. That their stores are sent away stays known ([`Layout::former`](super::Layout)).
pub const MAX_DEPARTED: usize = 64;

/// A member's places on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// How many tokens it has.
    pub tokens: u32,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Whose tokens they are; see [`Stand::seat`].
    pub seat: NodeId,
}

/// A change of owners under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerChange {
    /// The document that began it, or gave it its present aim.
    pub began: u64,
    /// Who stood on the ring before. Some may be no members any more.
    pub before: BTreeMap<NodeId, Seat>,
    /// What new owners have still to fetch; a partition that nobody has to fetch is switched.
    pub missing: BTreeMap<NodeId, Partitions>,
}

/// Why somebody is no member any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Farewell {
    /// The operator asked, and its partitions were handed over first.
    Left,
    /// It failed for good.
    Removed,
    /// It went with a majority that was lost for good; see [`Document::recovered`].
    Lost,
}

/// The store of a former member: it never speaks for anybody again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Whose store it was.
    pub node: NodeId,
    /// Its last incarnation in the registry.
    pub incarnation: u64,
    /// Why it went.
    pub why: Farewell,
    /// The document without it.
    pub number: u64,
}

/// Who owns what by one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Whose copies count and who mints: by the layout that each partition is read by.
    pub ring: Ring,
    /// The other layout of each partition, while owners change.
    other: Option<Ring>,
}

impl Owners {
    /// The owners of a partition that count, at this n.
    pub fn counting(&self, partition: Partition, n: u8) -> &[NodeId] {
        self.ring.primaries(partition, usize::from(n))
    }

    /// Its owners by the other layout, while it changes hands: a write needs W of these, too. Empty if they are
    /// the same nodes.
    pub fn also(&self, partition: Partition, n: u8) -> &[NodeId] {
        let counting = self.counting(partition, n);
        let other = self.other.as_ref();
        let also = other.map_or(&[][..], |ring| ring.primaries(partition, usize::from(n)));
        let same = also.len() == counting.len() && also.iter().all(|node| counting.contains(node));
        if same { &[] } else { also }
    }

    /// Everybody who holds a copy: by either layout.
    pub fn holders(&self, partition: Partition, n: u8) -> Vec<NodeId> {
        let counting = self.counting(partition, n);
        let also = self.also(partition, n).iter();
        let more = also.filter(|node| !counting.contains(node));
        counting.iter().chain(more).cloned().collect()
    }

    /// Whether a node holds a copy, by either layout.
    pub fn holds(&self, node: &NodeId, partition: Partition, n: u8) -> bool {
        self.counting(partition, n).contains(node) || self.also(partition, n).contains(node)
    }

    /// Who stands in for owners, in order: whoever holds no copy.
    pub fn fallbacks(&self, partition: Partition, n: u8) -> impl Iterator<Item = &NodeId> {
        let also = self.also(partition, n);
        let rest = self.ring.fallbacks(partition, usize::from(n)).iter();
        rest.filter(|node| !also.contains(node))
    }
}

impl Document {
    /// Who owns what.
    pub fn owners(&self) -> Owners {
        let after = self.ring_of(&self.seats_after());
        let Some(change) = &self.layout.change else {
            return Owners {
                ring: after,
                other: None,
            };
        };
        let before = self.ring_of(&self.seats_before());
        let is_switched = |at: Partition| change.is_switched(at);
        Owners {
            ring: before.pick(&after, is_switched),
            other: Some(before.pick(&after, |at| !is_switched(at))),
        }
    }

    /// Who was a member and is none any more, each by its last store, the latest first: a few, for people and gossip.
    pub fn departed(&self) -> Vec<&Former> {
        let mut all: Vec<&Former> = self.layout.former.values().collect();
        all.sort_by_key(|former| std::cmp::Reverse((former.number, &former.node)));
        let mut seen = BTreeSet::new();
        let members = &self.layout.members;
        all.retain(|former| !members.contains_key(&former.node) && seen.insert(&former.node));
        all.truncate(MAX_DEPARTED);
        all
    }

    /// The numbers of copies that buckets have.
    pub fn ns(&self) -> BTreeSet<u8> {
        self.buckets
            .values()
            .map(|bucket| bucket.config.n)
            .collect()
    }

    /// What a node has to fetch, and from whom, before the owners of before are not needed any more: whole
    /// exchanges with so many that every acknowledged write is met (as in `refill`). For each partition one need
    /// per number of copies.
    pub fn fill_needs(&self, me: &NodeId) -> BTreeMap<Partition, Vec<Need>> {
        let change = self.layout.change.as_ref();
        let Some(missing) = change.and_then(|change| change.missing.get(me)) else {
            return BTreeMap::new();
        };
        let (before, after) = (
            self.ring_of(&self.seats_before()),
            self.ring_of(&self.seats_after()),
        );
        let need = |at: Partition, bucket: &Bucket| {
            let n = usize::from(bucket.config.n);
            let (old, new) = (before.primaries(at, n), after.primaries(at, n));
            let is_new = new.contains(me) && !old.contains(me);
            is_new.then(|| {
                let w = bucket.config.w.need(n, old.len());
                Need::from(old, w, |node| self.layout.members.contains_key(node))
            })
        };
        let needs = |at| {
            self.buckets
                .values()
                .filter_map(|bucket| need(at, bucket))
                .collect()
        };
        missing.iter().map(|at| (at, needs(at))).collect()
    }

    /// Whether the change of owners may be retired: all is switched, and so many old owners of every partition
    /// know it that nobody with an older document reads past the new ones. `number_of` says which document a
    /// member is known to go by; who can be reached must know it in any case. Whoever leaves takes a vote along,
    /// so a majority of those who stay must be there and know: else nobody could name the new store of one that
    /// lost its own.
    pub fn may_retire(
        &self,
        number_of: impl Fn(&NodeId) -> u64,
        reachable: impl Fn(&NodeId) -> bool,
    ) -> bool {
        let Some(change) = &self.layout.change else {
            return false;
        };
        let knows = |node: &NodeId| number_of(node) >= self.number;
        let mut members = self.layout.members.keys();
        if !change.missing.is_empty() || members.any(|node| reachable(node) && !knows(node)) {
            return false;
        }
        let stays = self.layout.members.iter().filter(|(_, at)| !at.leaving);
        let voters: Vec<&NodeId> = stays.map(|(node, _)| node).collect();
        let present = voters.iter().filter(|at| reachable(at) && knows(at));
        if present.count() * 2 <= voters.len() {
            return false;
        }
        let before = self.ring_of(&self.seats_before());
        let enough = |partition: Partition, bucket: &Bucket| {
            let n = usize::from(bucket.config.n);
            let owners = before.primaries(partition, n);
            let w = bucket.config.w.need(n, owners.len());
            let need = w.max((owners.len() + 1).saturating_sub(w));
            let left = owners
                .iter()
                .filter(|node| self.layout.members.contains_key(node));
            left.clone().filter(|node| knows(node)).count() >= need.min(left.count())
        };
        (0..self.layout.partitions)
            .map(Partition)
            .all(|at| self.buckets.values().all(|bucket| enough(at, bucket)))
    }

    /// What new owners have to fetch if owners change from those of `before` to those of this document.
    pub(super) fn moves_from(
        &self,
        before: &BTreeMap<NodeId, Seat>,
    ) -> BTreeMap<NodeId, Partitions> {
        let (before, after) = (
            self.ring_of(&self.with_newcomers(before)),
            self.ring_of(&self.seats_after()),
        );
        let mut missing: BTreeMap<NodeId, Partitions> = BTreeMap::new();
        for n in self.ns().into_iter().map(usize::from) {
            for partition in (0..self.layout.partitions).map(Partition) {
                let old = before.primaries(partition, n);
                let new = after.primaries(partition, n).iter();
                for node in new.filter(|node| !old.contains(node)) {
                    missing.entry(node.clone()).or_default().insert(partition);
                }
            }
        }
        missing
    }

    pub(super) fn seats_before(&self) -> BTreeMap<NodeId, Seat> {
        let change = self.layout.change.as_ref();
        change.map_or_else(
            || self.seats_after(),
            |change| self.with_newcomers(&change.before),
        )
    }

    /// Whoever is a member and did not stand on the ring stands in last.
    fn with_newcomers(&self, before: &BTreeMap<NodeId, Seat>) -> BTreeMap<NodeId, Seat> {
        let newcomer = |member: &Member| Seat {
            tokens: 0,
            ..member.seat()
        };
        let members = self.layout.members.iter();
        let mut seats: BTreeMap<NodeId, Seat> = members
            .map(|(node, member)| (node.clone(), newcomer(member)))
            .collect();
        seats.extend(
            before
                .iter()
                .map(|(node, seat)| (node.clone(), seat.clone())),
        );
        seats
    }

    pub(super) fn seats_after(&self) -> BTreeMap<NodeId, Seat> {
        let after = |member: &Member| match member.leaving {
            true => Seat {
                tokens: 0,
                ..member.seat()
            },
            false => member.seat(),
        };
        let members = self.layout.members.iter();
        members
            .map(|(node, member)| (node.clone(), after(member)))
            .collect()
    }

    pub(super) fn ring_of(&self, seats: &BTreeMap<NodeId, Seat>) -> Ring {
        let stand = |(id, seat): (&NodeId, &Seat)| Stand {
            id: id.clone(),
            tokens: seat.tokens,
            zone: seat.zone.clone(),
            seat: seat.seat.clone(),
        };
        let stands: Vec<Stand> = seats.iter().map(stand).collect();
        Ring::new(&self.cluster_id, self.layout.partitions, &stands)
            .expect("a checked document has a valid number of partitions")
    }
}

impl OwnerChange {
    /// Whether a partition is read by the owners of after.
    pub fn is_switched(&self, partition: Partition) -> bool {
        !self
            .missing
            .values()
            .any(|missing| missing.contains(partition))
    }
}

impl Member {
    pub(super) fn seat(&self) -> Seat {
        Seat {
            tokens: self.tokens,
            zone: self.zone.clone(),
            seat: self.seat.clone(),
        }
    }
}
