//! A write, as its coordinator sees it: mint, send to all n at once, answer at W.
//!
//! The coordinator is always a primary. It mints on its own copy, sends the shipment to every other primary
//! before its own sync is through, and counts its own copy like any other. Once minted a write may become
//! visible, so from then on a missing quorum is `unknown`, never `not written`. Late answers are taken in
//! after the client has its own.

use std::collections::BTreeSet;

use crate::id::NodeId;
use crate::quorum::{Standing, Tally};

#[cfg(test)]
mod tests;

/// What happened to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The coordinator's own copy holds the write; it may not be on disk yet.
    Minted,
    /// A copy counts: it is on disk, or handed to the operating system in a `buffered` bucket.
    Acked(&'a NodeId),
    /// A replica answered that it could not, or cannot be reached.
    Failed(&'a NodeId),
    /// The client's time is up.
    Deadline,
}

/// What to do for a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the shipment to this replica.
    Replicate(NodeId),
    /// Tell the client.
    Answer(Outcome),
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// W copies count.
    Written {
        /// How many owners have it by now.
        owners: usize,
    },
    /// Fewer than W copies count, and no more can; the write may still become visible.
    Unknown {
        /// How many owners have it.
        owners: usize,
        /// How many owners said they could not.
        failed: usize,
    },
}

/// A write under way.
#[derive(Clone, Debug)]
pub struct Put {
    me: NodeId,
    tally: Tally<NodeId>,
    pending: BTreeSet<NodeId>,
    answered: bool,
}

impl Put {
    /// A write to these owners, of which the coordinator is one, to be answered when `w` copies count.
    ///
    /// # Panics
    /// If the coordinator is not among the owners.
    pub fn new(me: NodeId, owners: &[NodeId], w: usize) -> Self {
        assert!(
            owners.contains(&me),
            "a write is minted by one of its owners"
        );
        let pending = owners.iter().cloned().collect();
        Self {
            me,
            tally: Tally::new(owners.len(), w),
            pending,
            answered: false,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Minted => {
                let others = self.pending.iter().filter(|owner| **owner != self.me);
                effects.extend(others.cloned().map(Effect::Replicate));
            }
            Event::Acked(owner) => {
                if self.pending.remove(owner) {
                    self.tally.ack(owner.clone());
                }
            }
            Event::Failed(owner) => {
                if self.pending.remove(owner) {
                    self.tally.fail(owner.clone());
                }
            }
            Event::Deadline => effects.extend(self.answer(self.unknown())),
        }
        match self.tally.standing() {
            Standing::Met => effects.extend(self.answer(Outcome::Written {
                owners: self.tally.acks(),
            })),
            Standing::Lost => effects.extend(self.answer(self.unknown())),
            Standing::Pending => {}
        }
        effects
    }

    /// Whether every owner has answered.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the client has its answer: what comes now comes late.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// How many owners said that they could not.
    pub fn failures(&self) -> usize {
        self.tally.fails()
    }

    fn unknown(&self) -> Outcome {
        Outcome::Unknown {
            owners: self.tally.acks(),
            failed: self.tally.fails(),
        }
    }

    fn answer(&mut self, outcome: Outcome) -> Option<Effect> {
        let first = !std::mem::replace(&mut self.answered, true);
        first.then_some(Effect::Answer(outcome))
    }
}
