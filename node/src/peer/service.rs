//! What a node does with its peers' requests, and the handle it answers through.
//!
//! The transport spawns no task per request: [`Service::handle`] runs on the connection's own task and
//! answers inline, or moves the [`Responder`] elsewhere. Every request gets exactly one reply, for a
//! responder that is dropped sends an error.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sibyl_core::id::Trace;
use tokio::time::Instant;

use super::error::Fault;
use super::handshake::Identity;
use super::limits::{MAX_BODY_BYTES, MAX_HEAD_BYTES};
use super::server::Session;

/// The node behind the transport.
pub trait Service: Send + Sync + 'static {
    /// Takes a request. Must not block: it holds up every other request of that peer.
    fn handle(&self, from: &Remote, incoming: Incoming, reply: Responder);

    /// Whether to talk to this node at all, beyond cluster, node id and lineage (which are checked before).
    /// Asked in every handshake, whoever dialled, and when an identity changes. The error is shown to both
    /// operators.
    fn admit(&self, remote: &Identity) -> Result<(), String>;

    /// Answers a node that is no peer: one question, one answer, no session. Nothing of it is proved.
    fn knocked(&self, ask: Bytes) -> Knocked;

    /// Whether this knock begins a visit: more questions may follow on its connection, one after the other.
    fn visits(&self, _ask: &Bytes) -> bool {
        false
    }

    /// Answers one of those, head and body. `ask` is the knock that began the visit.
    fn visited(&self, _ask: Bytes, _head: Bytes, _body: Bytes) -> Knocked {
        Box::pin(std::future::ready((Bytes::new(), Bytes::new())))
    }
}

/// The answer to a knock, head and body, on its way.
pub type Knocked = Pin<Box<dyn Future<Output = (Bytes, Bytes)> + Send>>;

/// The peer at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Who it is; its node id never changes within a session.
    pub identity: Identity,
    /// The session's number, drawn by the side that was dialled.
    pub session: u64,
}

/// A request from a peer.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The caller's and service's own encoding; a slice of the read buffer.
    pub head: Bytes,
    /// Raw bytes; a slice of the read buffer of 64 KiB or more: copy what is kept beyond the request.
    pub body: Bytes,
    /// When the caller stops waiting, on this node's clock.
    pub deadline: Instant,
    /// The caller's registry number.
    pub registry: u64,
    /// The caller's span.
    pub span: Option<Trace>,
}

/// Answers one request, from any thread, at any later time.
#[must_use = "dropping a responder answers with an error"]
pub struct Responder {
    session: Arc<Session>,
    id: u64,
    bytes: usize,
    deadline: Instant,
    answered: bool,
}

impl Responder {
    pub(super) fn new(session: Arc<Session>, id: u64, bytes: usize, deadline: Instant) -> Self {
        Self {
            session,
            id,
            bytes,
            deadline,
            answered: false,
        }
    }

    /// When the caller stops waiting; work that has not begun by then need not begin.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Answers. `registry` is this node's registry number. After the deadline only that is said; an
    /// answer over the limits of head or body becomes an error at the caller, and so does one that would leave
    /// more than the connection's share of bytes waiting for a peer that does not read.
    pub fn answer(mut self, head: Bytes, body: Bytes, registry: u64) {
        self.answered = true;
        if head.len() > MAX_HEAD_BYTES || body.len() > MAX_BODY_BYTES {
            self.session.fault(self.id, &Fault::TooLarge);
        } else if Instant::now() < self.deadline {
            self.session.answer(self.id, head, body, registry);
        } else {
            // Nobody waits for it, but the peer counts what it sent until it hears that it is over.
            self.session.fault(self.id, &Fault::Expired);
        }
    }

    /// Says that the request failed; the caller sees [`super::Reason::Remote`] with this text (cut at 4 KiB).
    pub fn fail(mut self, text: impl Into<String>) {
        self.answered = true;
        self.session.fault(self.id, &Fault::Failed(text.into()));
    }

    /// Says that the request was not begun for want of room: the caller sees
    /// [`super::Reason::Overloaded`] and may turn to another node.
    pub fn shed(mut self) {
        self.answered = true;
        self.session.fault(self.id, &Fault::Shed);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            let text = "the request was dropped without an answer".to_owned();
            self.session.fault(self.id, &Fault::Failed(text));
        }
        self.session.answered(self.bytes);
    }
}
