//! What a registry machine is told and what it asks for.
//!
//! Effects are performed in the order in which they come. That order is the safety of the whole: what
//! must be on disk stands before what tells of it.

use std::collections::BTreeSet;

use super::change::Change;
use super::document::BadDocument;
use super::forming::Secrets;
use super::held::Held;
use super::message::{Ballot, LearnError, Message};
use super::rounds::Outcome;
use crate::id::NodeId;

/// What happens to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node starts with document 1 only: form the cluster, with these secrets if nobody else's win.
    Form(Secrets),
    /// Make this change; the id comes back in [`Effect::Finished`].
    Propose {
        /// Names the change towards the caller.
        id: u64,
        /// The change.
        change: Change,
    },
    /// Begin a new lineage, alone: the operator says that a majority is lost for good. The id comes back in
    /// [`Effect::Finished`].
    Recover {
        /// Names the wish towards the caller.
        id: u64,
        /// The members that can be reached now, each with the store that the document names.
        present: BTreeSet<NodeId>,
        /// The reaping epoch that this store is in.
        epoch: u64,
    },
    /// A peer says something; the handshake has proven who it is.
    Message {
        /// The peer.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A timer asked for by [`Effect::Timer`] has run off.
    Timer {
        /// Its token.
        token: u64,
    },
    /// A peer that could not be reached can be now.
    Reached(NodeId),
    /// A message to this peer cannot be delivered.
    Unreachable(NodeId),
    /// A frame or handshake of this peer carried a higher number than is held here.
    Seen {
        /// The peer.
        from: NodeId,
        /// The number it carried.
        number: u64,
    },
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replace what the slot holds, and sync, before performing anything that follows.
    Persist {
        /// Which of the two records.
        slot: Slot,
        /// Its new content.
        bytes: Vec<u8>,
    },
    /// Send to a peer, once. Loss, delay, doubling and reordering are fine.
    Send {
        /// The peer.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// A newer document is in force: publish it to the rest of the node.
    Chosen(Box<Held>),
    /// Feed [`Event::Timer`] after a random time in this range, drawn anew each time.
    Timer {
        /// Names the timer. Only the newest counts; older ones may still come.
        token: u64,
        /// The least time.
        min_ms: u64,
        /// The greatest time.
        max_ms: u64,
    },
    /// A proposed change is decided.
    Finished {
        /// Its id.
        id: u64,
        /// How.
        outcome: Outcome,
    },
    /// An operator must know.
    Alarm(Alarm),
}

/// The records a machine keeps on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The latest chosen document with its proof.
    Chosen,
    /// The ballot counter and the promises about the next document.
    Promises,
}

/// What should not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// A first member was started with other flags.
    #[error("{peer} was started with other flags, this cluster cannot form: {difference}")]
    FlagsDiffer {
        /// The member.
        peer: NodeId,
        /// What differs, in words.
        difference: String,
    },
    /// A peer's document cannot be learned.
    #[error("refused a registry document of {peer}: {error}")]
    Rejected {
        /// The peer.
        peer: NodeId,
        /// Why.
        error: LearnError,
    },
    /// A peer knows a ballot of this store that this store does not: it lost its promises. The node must
    /// go on as a new store.
    #[error("a peer knows ballot {} of this store, which forgot it: the store has lost data", .0.counter)]
    Forgotten(Ballot),
}

/// Records that cannot be read, or contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The chosen document cannot be read.
    #[error("the stored registry document: {0}")]
    Document(#[from] BadDocument),
    /// The promises cannot be read.
    #[error("the stored registry promises are garbled")]
    Promises,
    /// Promises about a document whose predecessor is gone: the store has lost data.
    #[error("promises about document {promised}, but only document {held} is stored")]
    Ahead {
        /// What was promised about.
        promised: u64,
        /// What is held.
        held: u64,
    },
}
