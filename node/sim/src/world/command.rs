//! What a node's writer is asked to do, and what a batch of it leaves.
//!
//! As `replica/command.rs`: values only. Who is told is a number of the run, not a callback, so that a batch can
//! be lost with its process.

use std::collections::{BTreeMap, BTreeSet};

use sibyl_core::context::Context;
use sibyl_core::hint::Hint;
use sibyl_core::id::{Digest, Partition};
use sibyl_core::message::Place;
use sibyl_core::object::{Caps, Object, Write};
use sibyl_core::salvage::Verdict;

use super::once::Found;
use super::salvage::{Admitted, Brought};
use super::{Bytes, NodeId};

/// Something to write.
pub(crate) enum Command {
    /// Mint a write for a flow.
    Mint {
        flow: u64,
        key: usize,
        request: usize,
        number: u64,
        write: Box<Write>,
        caps: Caps,
        stands_in: bool,
        /// What a look found, if the write may be made only once.
        found: Option<Box<Found>>,
    },
    /// Join what came from elsewhere.
    Join {
        key: usize,
        /// The document by which this node was asked as an owner; none if it does not matter.
        number: Option<u64>,
        object: Box<Object>,
        asked: Option<(usize, u64)>,
        why: Why,
    },
    /// Keep an object for an owner.
    Hint {
        key: usize,
        number: u64,
        object: Box<Object>,
        target: NodeId,
        /// Who waits, if anybody does.
        asked: Option<(usize, u64)>,
    },
    /// Forget a hint whose target has these dots.
    Settle {
        key: usize,
        target: NodeId,
        acked: Context,
    },
    /// Give a hint whose target owns the key no longer to whoever does.
    Reroute { key: usize, target: NodeId },
    /// Forget a key that is not this node's any more by a document.
    Forget { key: usize, number: u64 },
    /// Put what other owners hold in the place of a record that cannot be read.
    Replace { key: usize, object: Box<Object> },
    /// Forget a key that all owners sealed.
    Reap {
        key: usize,
        digest: Digest,
        number: u64,
        epoch: u64,
    },
    /// Take over what a removed node brings, if it may be.
    Admit(Box<Brought>),
    /// Say when this node reaped in a partition last.
    Horizon {
        by: usize,
        call: u64,
        partition: Partition,
    },
    /// Put a key of an older state out of sight.
    SetAside { key: usize },
    /// This node came to own these: what was reaped there before it did not see.
    Gained { partitions: Vec<Partition> },
    /// Keep the registry's chosen document.
    Keep { bytes: Bytes },
    /// Everything in front of it is synced.
    After { then: Then },
}

/// What follows once a parcel is synced.
pub(crate) enum Then {
    /// The peer gets what it wanted.
    Deliver {
        by: usize,
        call: u64,
        want: Vec<Place>,
    },
    /// The own exchange goes on.
    Joined { flow: u64 },
    /// What was kept for this node itself is in its copy.
    Kept { key: usize, context: Context },
    /// What may have been reaped of a partition is out of sight.
    Shown { partition: Partition },
    /// What became of what a removed node brought is true on disk.
    Judged { of: (u64, usize), verdict: Verdict },
}

/// Why an object is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Write,
    Repair,
    Handoff,
    /// Fetched by this exchange.
    Fetched(u64),
    /// Given by a peer's exchange, which is this call.
    Given(usize, u64),
}

/// Who is told once the batch counts.
pub(super) enum Counts {
    Write {
        flow: u64,
    },
    Asked {
        by: usize,
        call: u64,
    },
    /// Delivered: the sender may forget these dots.
    Delivered {
        by: usize,
        call: u64,
        context: Context,
    },
    Kept,
    Admitted(Admitted),
    After(Then),
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) counts: Vec<Counts>,
    pub(super) changed: BTreeMap<usize, Object>,
    /// Of those, what takes the place of a record that cannot be read.
    pub(super) replaced: BTreeSet<usize>,
    /// Calls whose objects could not all be joined.
    pub(super) broken: BTreeSet<(usize, u64)>,
    /// Keys of others: an empty object stands for what goes.
    pub(super) forgotten: BTreeSet<usize>,
    /// Hints as the batch leaves them; `None` if one goes.
    pub(super) hints: BTreeMap<usize, Option<Hint>>,
    /// Horizons of partitions as the batch leaves them.
    pub(super) horizons: BTreeMap<Partition, u64>,
}

impl Group {
    /// A copy is another now.
    pub(super) fn change(&mut self, key: usize, object: Object) {
        self.forgotten.remove(&key);
        self.changed.insert(key, object);
    }
}

impl Command {
    /// The key that it would write for somebody.
    pub(super) fn written(&self) -> Option<usize> {
        match self {
            Self::Mint { key, .. }
            | Self::Join { key, .. }
            | Self::Hint { key, .. }
            | Self::Replace { key, .. } => Some(*key),
            Self::Admit(brought) => Some(brought.key),
            _ => None,
        }
    }

    /// The document whose owners it was meant for.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Mint { number, .. }
            | Self::Hint { number, .. }
            | Self::Forget { number, .. }
            | Self::Reap { number, .. } => Some(*number),
            Self::Join { number, .. } => *number,
            Self::Admit(brought) => Some(brought.number),
            _ => None,
        }
    }
}
