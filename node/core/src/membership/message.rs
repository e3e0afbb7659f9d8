//! What members say to each other: a question with its answer, each under a header that says who speaks.
//!
//! The header carries the speaker's own record, so every message is a heartbeat, and what the speaker knows of the
//! listener: that it was suspected, or that its store has once been further than it says now. Decoding hostile
//! bytes gives an error, never a panic, and nothing larger than [`MAX_MESSAGE_BYTES`] is looked at.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::limits::{MAX_DIGEST, MAX_MESSAGE_BYTES};
use super::record::{Life, Record};
use crate::id::NodeId;
use crate::message as head;

/// What the speaker knows of the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// A life of the listener that the speaker suspected, and that the listener may not know of.
    pub suspected: Option<Life>,
    /// A record of the listener's own making that says more than the listener's present one.
    pub record: Option<Box<Record>>,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The speaker's own record.
    pub mine: Record,
    /// The speaker's clock now, milliseconds since the Unix epoch. Shown, never believed.
    pub wall_ms: u64,
    /// What the speaker knows of the listener.
    pub about: About,
}

/// A question to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// This is what I know, in short: send what I lack, and say what you lack.
    Exchange {
        /// Members and the newest life known of each.
        digest: Vec<(NodeId, Life)>,
    },
    /// This is what you lacked.
    Tell {
        /// Records.
        records: Vec<Record>,
    },
    /// Are you there?
    Ping,
    /// Is that member there, seen from you?
    PingFor {
        /// Who.
        target: NodeId,
    },
}

/// A member's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To an exchange.
    Exchanged {
        /// What the asker lacked.
        records: Vec<Record>,
        /// What the answerer lacks.
        wants: Vec<NodeId>,
    },
    /// To what was told.
    Heard,
    /// To a ping.
    Pong,
    /// To a ping on behalf of another.
    PongFor {
        /// What the target said; `None`: it did not answer.
        record: Option<Box<Record>>,
    },
}

/// A question or an answer under its header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<B> {
    /// Who speaks.
    pub header: Header,
    /// What is said.
    pub body: B,
}

/// Bytes that are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Larger than any.
    #[error("a gossip message has at most {MAX_MESSAGE_BYTES} bytes, not {0}")]
    TooLarge(usize),
    /// Cut short, damaged, of another version, or beyond a limit.
    #[error("not a gossip message of this version")]
    Garbled,
}

/// What a message must keep.
pub trait Bounded {
    /// Whether its lists are within their limits.
    fn is_bounded(&self) -> bool;
}

impl Bounded for Question {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Exchange { digest } => digest.len() <= MAX_DIGEST,
            Self::Tell { records } => records.len() <= MAX_DIGEST,
            Self::Ping | Self::PingFor { .. } => true,
        }
    }
}

impl Bounded for Answer {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Exchanged { records, wants } => {
                records.len() <= MAX_DIGEST && wants.len() <= MAX_DIGEST
            }
            Self::Heard | Self::Pong | Self::PongFor { .. } => true,
        }
    }
}

/// Writes a message.
pub fn encode<B: Serialize>(message: &Message<B>) -> Bytes {
    head::encode(message)
}

/// Reads a message.
///
/// # Errors
/// [`BadMessage`].
pub fn decode<B: DeserializeOwned + Bounded>(bytes: &[u8]) -> Result<Message<B>, BadMessage> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(BadMessage::TooLarge(bytes.len()));
    }
    let message: Message<B> = head::decode(bytes).map_err(|_| BadMessage::Garbled)?;
    if message.body.is_bounded() {
        Ok(message)
    } else {
        Err(BadMessage::Garbled)
    }
}
