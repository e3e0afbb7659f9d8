//! Known bugs, switchable: what a registry gets wrong without each of its rules.
//!
//! A production build has no way to switch one on. Tests and the simulator do, to show that their
//! properties find it; `reference/model-findings.md` (m3, m16, m17) has the counts of small models.

use std::collections::BTreeMap;

use super::document::Document;
#[cfg(any(test, feature = "zoo"))]
use super::machine::Machine;
use super::message::votes_needed;
use crate::id::{Actor, NodeId};

/// Which rules are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Votes are opinions: nobody remembers what it promised or accepted.
    pub poll: bool,
    /// A node that lost its promises goes on voting under its old store's name.
    pub amnesiac_votes: bool,
    /// A proposer takes its own vote for granted, whatever its acceptor has promised since.
    pub own_vote_unasked: bool,
    /// Document 2 needs a majority, not all.
    pub form_by_majority: bool,
}

impl Faults {
    pub(super) fn need(self, before: &Document) -> usize {
        let number = if self.form_by_majority {
            0
        } else {
            before.number + 1
        };
        votes_needed(number, before.layout.members.len())
    }
}

/// Stores for members that have not told theirs; with the rule that all must, there are none.
pub(super) fn invent_stores(
    first: &Document,
    told: &BTreeMap<NodeId, Actor>,
) -> BTreeMap<NodeId, Actor> {
    let mut stores: BTreeMap<_, _> = first
        .layout
        .members
        .keys()
        .map(|id| (id.clone(), Actor(0)))
        .collect();
    stores.extend(told.clone());
    stores
}

#[cfg(any(test, feature = "zoo"))]
impl Machine {
    /// Leaves rules out, from the start of the node on.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }
}
