//! What can happen to membership, and what must be done then.
//!
//! Times are milliseconds of a clock that the shell chooses and that should not go back; random numbers come with
//! the moment. The stamps of others are data.

use std::collections::BTreeMap;

use super::message::{Answer, Message, Question};
use super::record::{Life, Marks};
use super::view::State;
use crate::id::NodeId;

/// Now, and luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The node's own steady clock.
    pub now_ms: u64,
    /// The node's wall clock: what is stamped.
    pub wall_ms: u64,
    /// Any number.
    pub draw: u64,
}

/// How fast it all goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub interval_ms: u64,
    /// Silence after which a member is suspected.
    pub suspect_after_ms: u64,
}

/// What a registry document says of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A member.
    Member,
    /// Removed, since it was away for too long.
    Down,
    /// It left.
    Left,
}

/// Something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is time, or about time.
    Tick {
        /// How far this node's store has come.
        marks: Marks,
    },
    /// A member asks; the answer goes to `ask`.
    Asked {
        /// Names the question.
        ask: u64,
        /// Who, as the transport proved.
        from: NodeId,
        /// What.
        message: Message<Question>,
    },
    /// A call was answered.
    Answered {
        /// Which.
        call: u64,
        /// How.
        message: Message<Answer>,
    },
    /// A call was not answered: refused, lost, or too late.
    Unanswered {
        /// Which.
        call: u64,
    },
    /// Somebody else's request to a member ended: a reason to look, never a verdict.
    Outcome {
        /// The member.
        member: NodeId,
        /// Whether it answered.
        answered: bool,
    },
    /// A registry document is in force.
    Registry {
        /// Its number.
        number: u64,
        /// Whom it names, and as what. Who was a member and is not named any more counts as removed.
        members: BTreeMap<NodeId, Standing>,
    },
}

/// Why somebody is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A heartbeat, or what follows from it.
    Round,
    /// This member is looked for.
    Probe(NodeId),
    /// Another member asked for it, with this question.
    Relay(u64),
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing newer was heard for too long.
    Silence,
    /// Neither this node nor those it asked could reach it.
    Probes,
    /// Something newer was heard.
    Heard,
    /// A registry document says so.
    Registry,
}

impl Why {
    /// The word for spans and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Probes => "probes",
            Self::Heard => "heard",
            Self::Registry => "registry",
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a member; say how it went.
    Send {
        /// Names the call.
        call: u64,
        /// Whom.
        to: NodeId,
        /// What.
        message: Box<Message<Question>>,
        /// How long to wait.
        timeout_ms: u64,
        /// Why.
        cause: Cause,
    },
    /// Answer a question.
    Answer {
        /// Which.
        ask: u64,
        /// How.
        message: Box<Message<Answer>>,
    },
    /// Put this node's incarnation on disk before anything that follows is done.
    Persist {
        /// The new one.
        incarnation: u64,
    },
    /// This node sees a member otherwise than before.
    Changed {
        /// Whom.
        member: NodeId,
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// The newest life known of it.
        life: Life,
        /// Why.
        why: Why,
    },
    /// A member is there again, or for the first time, or after a restart: give it what is kept for it.
    Returned {
        /// Who.
        member: NodeId,
        /// Its incarnation now.
        incarnation: u64,
    },
    /// This node was suspected: it may have missed writes.
    WasSuspected {
        /// Who told.
        by: NodeId,
        /// Which of its lives.
        at: Life,
    },
    /// Everybody who is there came to see a member as this node does.
    Agreed {
        /// Whom.
        member: NodeId,
        /// How long that took.
        after_ms: u64,
    },
    /// A member acts on a registry document that this node does not hold.
    Behind {
        /// Who.
        member: NodeId,
        /// Its number.
        number: u64,
    },
    /// A member keeps a record of this very store that says more than the store knows: it has lost something.
    Forgotten {
        /// Who keeps it.
        by: NodeId,
        /// What the store once was.
        was: Life,
        /// How far it once was.
        marks: Marks,
    },
}
