//! The ring: where keys lie, where nodes stand, and who owns what.
//!
//! Keys hash into `Q = 2^k` equal partitions. Nodes stand on the same circle with several tokens each.
//! The preference list of a partition is the walk clockwise from its start and names every member once:
//! its first n are the primaries, the rest stand in as fallbacks, in that order. It goes in rounds, and
//! a round takes at most one node of each zone, so every prefix is spread over the zones as evenly as
//! the members allow. Without zones it is the plain walk of Dynamo's paper (section 6.2, strategy 3).
//! A pure function of its arguments: two nodes with one registry document have one ring.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Digest, Incarnation, NodeId, Partition};

/// The largest number of partitions: 2^16 times 1 KiB of Merkle root paths is still memory one has.
pub const MAX_PARTITIONS: u32 = 1 << 16;
/// Partitions of a cluster that was formed without saying how many.
pub const DEFAULT_PARTITIONS: u32 = 256;
/// The most tokens of one node: above this, more tokens no longer even out the shares.
pub const MAX_TOKENS: u32 = 1024;
/// Tokens of a node that does not say how many.
pub const DEFAULT_TOKENS: u32 = 64;

/// What the ring has to know of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The member.
    pub id: NodeId,
    /// How many tokens it has; a member without any owns nothing and stands in last.
    pub tokens: u32,
    /// Its failure domain; a member without one counts as a zone of its own.
    pub zone: Option<String>,
    /// Whose places it has: its own, or those of the member that it took the place of.
    pub seat: NodeId,
}

/// Partitions, tokens and the preference list of every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    shift: u32,
    tokens: Vec<(u64, NodeId)>,
    /// Distinct preference lists; partitions between the same two tokens share one.
    lists: Vec<List>,
    /// The list of each partition, as an index into `lists`.
    by_partition: Vec<u32>,
}

/// Who owns and stands in for a partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    nodes: Vec<NodeId>,
    /// How many of them, from the first, have tokens: only those own.
    seated: usize,
}

/// A number of partitions that is not a power of two from 1 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partitions must be a power of two from 1 to {MAX_PARTITIONS}, not {0}")]
pub struct BadPartitions(pub u32);

/// Says whether a ring can have this many partitions.
pub fn check_partitions(partitions: u32) -> Result<(), BadPartitions> {
    if partitions.is_power_of_two() && partitions <= MAX_PARTITIONS {
        Ok(())
    } else {
        Err(BadPartitions(partitions))
    }
}

/// Where a key lies on the circle: the first 8 bytes of SHA-256(incarnation, 0x00, key).
pub fn position(bucket: Incarnation, key: &[u8]) -> u64 {
    let mut input = Vec::with_capacity(9 + key.len());
    input.extend_from_slice(&bucket.0.to_be_bytes());
    input.push(0);
    input.extend_from_slice(key);
    first_eight(&input)
}

/// Where a token of a seat stands: the first 8 bytes of SHA-256(cluster id, 0x00, seat, 0x00, index).
pub fn token(cluster_id: &str, seat: &NodeId, index: u32) -> u64 {
    let mut input = Vec::with_capacity(cluster_id.len() + seat.as_str().len() + 6);
    input.extend_from_slice(cluster_id.as_bytes());
    input.push(0);
    input.extend_from_slice(seat.as_str().as_bytes());
    input.push(0);
    input.extend_from_slice(&index.to_be_bytes());
    first_eight(&input)
}

impl Ring {
    /// Builds the ring of a cluster. Cost: min(Q, all tokens) walks over the tokens.
    pub fn new(
        cluster_id: &str,
        partitions: u32,
        members: &[Stand],
    ) -> Result<Self, BadPartitions> {
        check_partitions(partitions)?;
        let mut tokens: Vec<(u64, NodeId)> = members
            .iter()
            .flat_map(|m| (0..m.tokens).map(|i| (token(cluster_id, &m.seat, i), m.id.clone())))
            .collect();
        tokens.sort();
        let mut ring = Self {
            shift: 64 - partitions.trailing_zeros(),
            tokens,
            lists: Vec::new(),
            by_partition: Vec::with_capacity(partitions as usize),
        };
        let mut known = BTreeMap::new();
        for partition in 0..partitions {
            let first = ring.first_token(ring.start(Partition(partition)));
            let list = *known.entry(first).or_insert_with(|| {
                ring.lists.push(ring.list(first, members));
                ring.lists.len() - 1
            });
            ring.by_partition
                .push(u32::try_from(list).expect("at most Q lists"));
        }
        Ok(ring)
    }

    /// The ring that takes each partition's list from `self` or from `other`, which has as many partitions.
    /// Its tokens are those of `other`.
    pub fn pick(&self, other: &Self, takes_other: impl Fn(Partition) -> bool) -> Self {
        let shift = u32::try_from(self.lists.len()).expect("at most Q lists");
        let both = self.by_partition.iter().zip(&other.by_partition);
        let list = |(at, (mine, theirs)): (u32, (&u32, &u32))| match takes_other(Partition(at)) {
            true => theirs + shift,
            false => *mine,
        };
        Self {
            shift: self.shift,
            tokens: other.tokens.clone(),
            lists: self.lists.iter().chain(&other.lists).cloned().collect(),
            by_partition: (0..).zip(both).map(list).collect(),
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.by_partition.len()).expect("at most 65,536 partitions")
    }

    /// The partition of a key.
    pub fn partition(&self, bucket: Incarnation, key: &[u8]) -> Partition {
        let slice = position(bucket, key).checked_shr(self.shift).unwrap_or(0);
        Partition(u32::try_from(slice).expect("at most 16 bits are left"))
    }

    /// Every member once, in the order in which they own or stand in for the partition.
    /// Empty for a partition that the ring does not have.
    pub fn preference(&self, partition: Partition) -> &[NodeId] {
        self.list_of(partition).map_or(&[], |list| &list.nodes)
    }

    /// The owners of a partition: the first n, or all members with tokens if there are fewer.
    pub fn primaries(&self, partition: Partition, n: usize) -> &[NodeId] {
        self.list_of(partition)
            .map_or(&[], |list| &list.nodes[..n.min(list.seated)])
    }

    /// Who stands in for absent owners, in order.
    pub fn fallbacks(&self, partition: Partition, n: usize) -> &[NodeId] {
        self.list_of(partition)
            .map_or(&[], |list| &list.nodes[n.min(list.seated)..])
    }

    fn list_of(&self, partition: Partition) -> Option<&List> {
        let list = self.by_partition.get(partition.0 as usize)?;
        self.lists.get(*list as usize)
    }

    /// Who should coordinate a write: the first primary that is reachable from here.
    pub fn coordinator(
        &self,
        partition: Partition,
        n: usize,
        reachable: impl Fn(&NodeId) -> bool,
    ) -> Option<&NodeId> {
        self.primaries(partition, n)
            .iter()
            .find(|node| reachable(node))
    }

    /// How many partitions each member owns at this n; they add up to Q times min(n, members).
    pub fn owned(&self, n: usize) -> BTreeMap<&NodeId, usize> {
        let mut counts: BTreeMap<&NodeId, usize> = self
            .preference(Partition(0))
            .iter()
            .map(|node| (node, 0))
            .collect();
        for partition in 0..self.partitions() {
            for node in self.primaries(Partition(partition), n) {
                *counts.entry(node).or_default() += 1;
            }
        }
        counts
    }

    /// All tokens in ring order.
    pub fn tokens(&self) -> &[(u64, NodeId)] {
        &self.tokens
    }

    fn start(&self, partition: Partition) -> u64 {
        u64::from(partition.0).checked_shl(self.shift).unwrap_or(0)
    }

    /// The first token at or after a position; past the last one it is the first of all.
    fn first_token(&self, position: u64) -> usize {
        let index = self.tokens.partition_point(|(at, _)| *at < position);
        if index == self.tokens.len() { 0 } else { index }
    }

    /// Every member once: in the order in which their first tokens come, spread over zones; those without tokens
    /// last.
    fn list(&self, first: usize, members: &[Stand]) -> List {
        let mut seen = BTreeSet::new();
        let around = self.tokens[first..].iter().chain(&self.tokens[..first]);
        let walk: Vec<NodeId> = around
            .filter(|(_, node)| seen.insert(node))
            .map(|(_, node)| node.clone())
            .take(members.len())
            .collect();
        let mut rest: Vec<&NodeId> = members
            .iter()
            .map(|m| &m.id)
            .filter(|id| !seen.contains(id))
            .collect();
        rest.sort();
        let mut nodes = in_rounds(&walk, members);
        let seated = nodes.len();
        nodes.extend(rest.into_iter().cloned());
        List { nodes, seated }
    }
}

/// Reorders a walk into rounds of one node per zone. Ends because each round takes at least one node.
fn in_rounds(walk: &[NodeId], members: &[Stand]) -> Vec<NodeId> {
    let zones: BTreeMap<&NodeId, &str> = members
        .iter()
        .filter_map(|m| Some((&m.id, m.zone.as_deref()?)))
        .collect();
    let mut order = Vec::with_capacity(walk.len());
    let mut waiting: Vec<&NodeId> = walk.iter().collect();
    while !waiting.is_empty() {
        let mut met = BTreeSet::new();
        waiting.retain(|node| {
            let skip = zones.get(node).is_some_and(|zone| !met.insert(*zone));
            if !skip {
                order.push((*node).clone());
            }
            skip
        });
    }
    order
}

fn first_eight(input: &[u8]) -> u64 {
    let Digest(hash) = Digest::of(input);
    hash[..8]
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
