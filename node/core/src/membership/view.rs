//! What this node thinks of everyone, for the rest of the node to read.
//!
//! A value that never changes: news make another one. It is an opinion, and says whose.

use std::collections::BTreeMap;

use super::record::Life;
use crate::id::NodeId;

/// How a member stands in one node's opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Heartbeats arrive.
    Alive,
    /// A temporary failure: nothing newer came for too long, or probes failed, or nothing ever came.
    Suspect,
    /// A permanent failure: the registry removed it.
    Down,
    /// The registry says that it left.
    Left,
}

impl State {
    /// All of them, in the order of their severity.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Left];

    /// The word of the API, spans and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its state.
    pub state: State,
    /// The newest life known of it.
    pub life: Life,
    /// When that was learnt, by this node's steady clock; `None` if nothing was ever heard.
    pub learnt_ms: Option<u64>,
    /// Its own clock at that heartbeat.
    pub stamp_ms: u64,
    /// The registry document it acts on.
    pub registry: u64,
    /// Since when this node suspects it.
    pub suspected_ms: Option<u64>,
    /// Which other members suspect it at its newest life.
    pub suspected_by: Vec<NodeId>,
    /// How far its clock was ahead of this node's when it last spoke here.
    pub skew_ms: Option<i64>,
}

/// Everyone, as one node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By name; this node among them.
    pub members: BTreeMap<NodeId, MemberView>,
}

impl View {
    /// Whether somebody is away, or not there any more. Strangers are not suspected.
    pub fn is_suspect(&self, node: &NodeId) -> bool {
        let member = self.members.get(node);
        member.is_some_and(|member| member.state != State::Alive)
    }

    /// How many are alive, suspect, down and left.
    pub fn counts(&self) -> [u64; 4] {
        State::ALL.map(|state| {
            let members = self.members.values();
            members.filter(|member| member.state == state).count() as u64
        })
    }
}
