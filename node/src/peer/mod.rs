//! The transport between nodes: framed, multiplexed, bounded, over TCP.
//!
//! A node dials each peer once for its own requests; the peer answers on that connection and dials back for
//! its own. Frames carry a request id, the time left, the registry number, the session and optionally 26
//! bytes of span context; heads and bodies are opaque here. It knows nothing of keys, quorums or
//! membership. The invariants: nothing is kept without a limit, every request gets at most one answer, and a
//! failed call says whether the peer may have acted on it. Files in reading order: `net`, `link`, `client`,
//! `service`, `server`, `pump`, `handshake`, `wire`.

mod batch;
mod calls;
mod client;
mod error;
mod flights;
mod handshake;
mod knock;
mod limits;
mod link;
mod net;
mod outbox;
mod pump;
mod sent;
mod server;
mod service;
mod shared;
mod wire;

#[cfg(test)]
mod tests;

pub use calls::Answer;
pub use error::{CallError, Reason, Sent};
pub use flights::{Flight, Flights};
pub use handshake::Identity;
pub use knock::{KnockError, MAX_KNOCK_BYTES, Visit, knock, visit};
pub use limits::{MAX_BODY_BYTES, MAX_CALLS, MAX_HEAD_BYTES, MAX_PEER_BYTES, MAX_TIMEOUT};
pub use link::{Call, Outgoing};
pub use net::{CutError, Net, Options, PeerView, RegistrySeen, StartError};
pub use service::{Incoming, Knocked, Remote, Responder, Service};
