//! What a change of owners moves, for people: computed from a document, before it is proposed or after.
//!
//! A move is one partition that one node has to fetch. Who gives it up need not be whom it is fetched from: that is
//! any of the owners of before. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Document;
use crate::id::{NodeId, Partition};

/// A partition that gets a new owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: Partition,
    /// Its new owner.
    pub to: NodeId,
    /// Who owns it no more, once all is done; nobody, if it gains a copy.
    pub from: BTreeSet<NodeId>,
}

/// What one node gains and gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Partitions it has to fetch.
    pub gains: usize,
    /// Partitions it owns no more.
    pub gives: usize,
}

impl Document {
    /// What the change of owners under way moves, fetched or not, in the order of partitions; nothing if none is.
    /// With buckets of different n a partition moves if it does for any of them.
    pub fn moves(&self) -> Vec<Move> {
        if self.layout.change.is_none() {
            return Vec::new();
        }
        let (before, after) = (
            self.ring_of(&self.seats_before()),
            self.ring_of(&self.seats_after()),
        );
        let ns: Vec<usize> = self.ns().into_iter().map(usize::from).collect();
        let mut moves = Vec::new();
        for partition in (0..self.layout.partitions).map(Partition) {
            let mut gains: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
            for n in &ns {
                let (old, new) = (
                    before.primaries(partition, *n),
                    after.primaries(partition, *n),
                );
                for to in new.iter().filter(|node| !old.contains(node)) {
                    let from = old.iter().filter(|node| !new.contains(node)).cloned();
                    gains.entry(to.clone()).or_default().extend(from);
                }
            }
            moves.extend(gains.into_iter().map(|(to, from)| Move {
                partition,
                to,
                from,
            }));
        }
        moves
    }

    /// The same by node.
    pub fn shares(moves: &[Move]) -> BTreeMap<NodeId, Share> {
        let mut shares: BTreeMap<NodeId, Share> = BTreeMap::new();
        let mut given: BTreeSet<(Partition, &NodeId)> = BTreeSet::new();
        for Move {
            partition,
            to,
            from,
        } in moves
        {
            shares.entry(to.clone()).or_default().gains += 1;
            given.extend(from.iter().map(|node| (*partition, node)));
        }
        for (_, node) in given {
            shares.entry(node.clone()).or_default().gives += 1;
        }
        shares
    }
}
