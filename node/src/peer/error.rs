//! Why a call failed, and whether the peer may have acted on it.
//!
//! The second half matters as much as the first: a forwarded write that certainly did not reach the peer
//! may be given to another node, one that perhaps did may not. On the wire an error is one byte of code in
//! the head and a text in the body; a code this node does not know counts as [`Reason::Remote`].

use bytes::Bytes;

use super::limits::{MAX_BODY_BYTES, MAX_ERROR_BYTES, MAX_HEAD_BYTES};

/// Whether the peer's service may have seen a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It certainly did not, and will not: the call can be given to somebody else.
    No,
    /// It may have, or may still: the outcome is unknown.
    Maybe,
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no connection; the text says what the last attempt met.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// One side refused the handshake; `code: explanation`.
    #[error("refused: {0}")]
    Refused(String),
    /// A queue or the bytes under way are at their limit, here or there.
    #[error("overloaded: too much is under way to this peer")]
    Overloaded,
    /// No answer within the call's timeout.
    #[error("no answer in time")]
    Timeout,
    /// The connection was lost while the call was under way.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Head or body (of the call, or of its answer) is over its limit.
    #[error("over the limit of {MAX_HEAD_BYTES} bytes of head or {MAX_BODY_BYTES} bytes of body")]
    TooLarge,
    /// The link is cut, by this side or the other.
    #[error("the link is cut")]
    Cut,
    /// This node or the peer shuts down.
    #[error("shutting down")]
    Closing,
    /// The peer's service failed; its words.
    #[error("the peer failed: {0}")]
    Remote(String),
}

/// A call without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CallError {
    /// What went wrong.
    pub reason: Reason,
    /// Whether the peer may have acted on the call.
    pub sent: Sent,
}

impl CallError {
    /// A call that certainly was not handled.
    pub(super) fn unsent(reason: Reason) -> Self {
        let sent = Sent::No;
        Self { reason, sent }
    }
}

/// What a server says instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not handled: too much is under way.
    Shed,
    /// Not handled: the node shuts down.
    Closing,
    /// Not handled: its time was over on arrival.
    Expired,
    /// Handled, but there is no room for the answer.
    NoRoom,
    /// Handled, but the answer is over its limits.
    TooLarge,
    /// Handled, and failed.
    Failed(String),
}

impl Fault {
    /// Head and body of the error frame.
    pub(super) fn parts(&self) -> (Bytes, Bytes) {
        let (code, text): (&'static [u8], &str) = match self {
            Self::Shed => (&[1], ""),
            Self::Closing => (&[2], ""),
            Self::Expired => (&[3], ""),
            Self::NoRoom => (&[4], ""),
            Self::TooLarge => (&[5], ""),
            Self::Failed(text) => (&[6], text),
        };
        let end = text.floor_char_boundary(MAX_ERROR_BYTES);
        let text = Bytes::copy_from_slice(&text.as_bytes()[..end]);
        (Bytes::from_static(code), text)
    }

    /// What the caller learns from such a frame.
    pub(super) fn call_error(head: &[u8], body: &[u8]) -> CallError {
        let text =
            || String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_BYTES)]).into_owned();
        let (reason, sent) = match head.first() {
            Some(1) => (Reason::Overloaded, Sent::No),
            Some(2) => (Reason::Closing, Sent::No),
            Some(3) => (Reason::Timeout, Sent::No),
            Some(4) => (Reason::Overloaded, Sent::Maybe),
            Some(5) => (Reason::TooLarge, Sent::Maybe),
            _ => (Reason::Remote(text()), Sent::Maybe),
        };
        CallError { reason, sent }
    }
}
