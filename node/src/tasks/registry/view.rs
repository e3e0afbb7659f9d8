//! What is in force, as the rest of the node reads it: the chosen document and what follows from it.
//!
//! A value that never changes: a newer document is a newer view. It knows neither how a document is chosen nor
//! who reads it.

use std::collections::BTreeMap;

use sibyl_core::id::{Incarnation, NodeId, Partition};
use sibyl_core::registry::{Bucket, Document, Held, Owners};
use sibyl_core::ring::Ring;

/// What is in force, as the rest of the node reads it.
#[derive(Debug)]
pub struct View {
    /// The document and its digest.
    pub held: Held,
    /// Who owns what by it.
    pub placed: Owners,
    names: BTreeMap<Incarnation, String>,
}

impl View {
    pub(super) fn of(held: Held) -> Self {
        let names = held
            .document
            .buckets
            .iter()
            .map(|(name, bucket)| (bucket.incarnation, name.clone()));
        Self {
            placed: held.document.owners(),
            names: names.collect(),
            held,
        }
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.held.document
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.held.document.number
    }

    /// Whether document 2 is still to be chosen: no contexts, no mints.
    pub fn forming(&self) -> bool {
        self.number() < 2
    }

    /// A bucket by name.
    pub fn bucket(&self, name: &str) -> Option<&Bucket> {
        self.document().buckets.get(name)
    }

    /// A bucket by its incarnation.
    pub fn bucket_of(&self, incarnation: Incarnation) -> Option<(&str, &Bucket)> {
        let name = self.names.get(&incarnation)?;
        Some((name, self.document().buckets.get(name)?))
    }

    /// The ring by which copies count.
    pub fn ring(&self) -> &Ring {
        &self.placed.ring
    }

    /// The owners of a partition of this bucket: their copies count, and they mint.
    pub fn owners(&self, bucket: &Bucket, partition: Partition) -> &[NodeId] {
        self.placed.counting(partition, bucket.config.n)
    }

    /// Who is to hold a copy of a partition and can: what is kept for others goes to these.
    pub fn takers(&self, partition: Partition, n: u8) -> Vec<NodeId> {
        let mut takers = self.placed.holders(partition, n);
        takers.retain(|node| self.is_member(node));
        takers
    }

    /// Whether a node is a member.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.document().layout.members.contains_key(node)
    }

    /// The last document that changed who owns what: whoever goes by an older one may ask the wrong nodes.
    pub fn since(&self) -> u64 {
        self.document().layout.since
    }
}
