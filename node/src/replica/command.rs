//! What the writer is asked to do.
//!
//! One value per wish, with whoever waits for it inside: it is told exactly once, by the writer or by
//! [`Command::refuse`]. It knows neither batches nor the store.

use bytes::Bytes;
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::message::Failure;
use sibyl_core::object::Object;
use sibyl_core::registry::Durability;
use sibyl_core::room::Taking;
use tokio::time::Instant;

use super::{Asked, Done, Slot, keeper, reaper, salvage, trees};

/// By what a write is minted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The registry document that its owners are named by.
    pub number: u64,
    /// When nobody waits for it any more: one that is still queued then is not begun.
    pub until: Option<Instant>,
}

impl From<u64> for Terms {
    fn from(number: u64) -> Self {
        Self {
            number,
            until: None,
        }
    }
}

/// A wish.
pub(super) enum Command {
    Mint(Asked),
    Hint(keeper::Change),
    Join {
        slot: Slot,
        /// The registry document by which this node was asked as an owner; none if it does not matter.
        number: Option<u64>,
        object: Object,
        durability: Durability,
        counts: Done<()>,
    },
    Meta {
        key: &'static str,
        value: Bytes,
        counts: Done<()>,
    },
    Erase {
        records: Vec<Bytes>,
        /// The registry document by which they are not this node's any more; none if they are nobody's.
        number: Option<u64>,
        counts: Done<()>,
    },
    /// Put what other owners hold in the place of a record that cannot be read.
    Replace {
        slot: Slot,
        object: Object,
        counts: Done<()>,
    },
    /// A record that could not be read can be read again.
    Readable {
        slot: Slot,
        counts: Done<()>,
    },
    /// One step of computing a partition's leaves anew.
    Step(trees::Asked),
    /// The last of all: what is here can be believed by the next start.
    Shut {
        counts: Done<()>,
    },
    /// Until when a bucket takes no writes.
    Close {
        bucket: Incarnation,
        until: Instant,
        counts: Done<()>,
    },
    /// Owners changed: what was asked by older documents does not count any more.
    Owners {
        since: u64,
        gained: Vec<Partition>,
        counts: Done<()>,
    },
    Flush {
        counts: Done<()>,
    },
    /// Something about seals and what was reaped.
    Reaping(reaper::Asked),
    /// Take over what a removed node brings.
    Admit(salvage::Brought),
}

impl Command {
    /// The registry document that named the owners of what is to be written.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Mint(asked) => Some(asked.terms.number),
            Self::Join { number, .. } | Self::Erase { number, .. } => *number,
            Self::Hint(change) => change.number(),
            Self::Admit(brought) => Some(brought.number),
            _ => None,
        }
    }

    /// What it is, as far as room on the disk is concerned. Whether a copy is of a new value says whoever takes it
    /// from a peer: what is kept or repaired here was acknowledged elsewhere.
    pub(super) fn taking(&self) -> Taking {
        match self {
            Self::Mint(asked) if asked.write.content.value.is_some() => Taking::Value,
            Self::Mint(_) => Taking::Delete,
            Self::Join { .. } | Self::Replace { .. } | Self::Admit(_) => Taking::Copy,
            Self::Hint(change) if change.keeps().is_some() => Taking::Copy,
            _ => Taking::Own,
        }
    }

    /// Whether nobody waits for it any more, and it need not be begun. A copy of what another node minted is taken
    /// all the same: it would have to be brought here later.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Mint(asked) => asked
                .terms
                .until
                .is_some_and(|until| until <= Instant::now()),
            _ => false,
        }
    }

    pub(super) fn refuse(self, failure: &Failure) {
        match self {
            Self::Mint(asked) => (asked.minted)(Err(failure.clone())),
            Self::Hint(change) => change.refuse(failure),
            Self::Join { counts, .. }
            | Self::Meta { counts, .. }
            | Self::Erase { counts, .. }
            | Self::Replace { counts, .. }
            | Self::Readable { counts, .. }
            | Self::Shut { counts }
            | Self::Close { counts, .. }
            | Self::Owners { counts, .. }
            | Self::Flush { counts } => {
                counts(Err(failure.clone()));
            }
            Self::Step(asked) => (asked.done)(Err(failure.clone())),
            Self::Reaping(asked) => asked.refuse(failure.clone()),
            Self::Admit(brought) => (brought.done)(Err(failure.clone())),
        }
    }
}
