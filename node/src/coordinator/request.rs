//! What requests ask and get: plain values between HTTP and the coordinator.
//!
//! No type of the transport, the store or HTTP. An error says what a client may conclude from it: of writes, only
//! `PutError::Unknown` may have been written.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::{Digest, Dot, Incarnation, NodeId, WriteId};
pub use sibyl_core::message::Conflict;
use sibyl_core::message::{Failure, Place};
use sibyl_core::object::{Receipt, Sibling};
use sibyl_core::quorum::Level;
use sibyl_core::retry::{self, Payload};
use sibyl_core::view::View;

use crate::door::Shed;

/// A read.
#[derive(Clone, Debug)]
pub struct GetRequest {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// How many replicas must answer; `None`: the bucket's.
    pub r: Option<Level>,
    /// Whether nodes that stand in for an owner count; `None`: the bucket's.
    pub sloppy: Option<bool>,
    /// How long the client waits; `None`: the node's default.
    pub timeout: Option<Duration>,
    /// Answer with what was found even if R is not met.
    pub partial: bool,
    /// Whether an active resolver may merge siblings into a view.
    pub resolve: bool,
}

/// How many copies took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Owners of the key.
    pub owners: usize,
    /// Nodes standing in for an owner.
    pub fallbacks: usize,
}

/// What a resolver did for a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It made a new value.
    Merged,
    /// It picked a sibling.
    Picked,
    /// It kept some siblings.
    Kept,
    /// It deleted the key.
    Deleted,
    /// It failed: all siblings stay.
    Failed,
}

/// Which resolver ran, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverNote {
    /// Its name in the registry.
    pub name: String,
    /// The version that ran.
    pub version: Digest,
    /// What it did.
    pub outcome: Resolved,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Got {
    /// What to show. `View::Gone` with a context that is not empty is a tombstone.
    pub view: View,
    /// Every sibling, tombstones too, in canonical order.
    pub siblings: Vec<Sibling>,
    /// Live siblings seen.
    pub live: usize,
    /// The object's context.
    pub context: Context,
    /// What the object remembers of writes that their clients may repeat.
    pub receipts: Vec<Receipt>,
    /// The bucket's incarnation, to seal the context with.
    pub bucket: Incarnation,
    /// Quoted ETag: of the view, or of the object.
    pub etag: String,
    /// The resolver, if one ran or failed.
    pub resolver: Option<ResolverNote>,
    /// Who answered.
    pub acks: Acks,
    /// Whether R was met; `false` only with `partial`.
    pub met: bool,
}

impl Got {
    /// Whether a write was made before, whatever became of it since: this is its retry.
    pub fn knows(&self, request: &PutRequest) -> bool {
        let place = Place {
            bucket: self.bucket,
            key: request.key.clone(),
        };
        let Some(id) = request.write_id(&place) else {
            return false;
        };
        let siblings = self.siblings.iter();
        let siblings = siblings.map(|sibling| sibling.content.write_id);
        let receipts = self.receipts.iter().map(|receipt| receipt.write_id);
        siblings.chain(receipts).any(|made| made == id)
    }
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GetError {
    /// No such bucket.
    #[error("there is no bucket {0:?}: create it with PUT /v1/buckets/{0}")]
    NoBucket(String),
    /// The request asks for more replicas than there are.
    #[error("r={asked} is more than the {members} nodes that hold a key of this bucket")]
    Level {
        /// What was asked.
        asked: usize,
        /// What there is.
        members: usize,
    },
    /// Fewer than R answered in time.
    #[error("{replies} of {need} replicas answered in time ({failed} failed)")]
    Quorum {
        /// Who answered.
        replies: usize,
        /// How many were needed.
        need: usize,
        /// How many said they could not.
        failed: usize,
    },
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
    /// Not begun: the node has more to do than it can.
    #[error(transparent)]
    Shed(#[from] Shed),
}

/// A write or a delete.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// What the client had seen; `None` is a blind write.
    pub context: Option<Context>,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// The media type.
    pub content_type: String,
    /// Attributes by name.
    pub attributes: BTreeMap<String, String>,
    /// The client's own name for the request, if it may repeat it.
    pub idempotency_key: Option<retry::Key>,
    /// How many copies must count; `None`: the bucket's.
    pub w: Option<Level>,
    /// Whether nodes that stand in for an owner count; `None`: the bucket's.
    pub sloppy: Option<bool>,
    /// How long the client waits; `None`: the node's default.
    pub timeout: Option<Duration>,
}

impl PutRequest {
    /// Its write id, if its client may repeat it.
    pub(super) fn write_id(&self, place: &Place) -> Option<WriteId> {
        let key = self.idempotency_key.as_ref()?;
        let payload = Payload {
            value: self.value.as_deref(),
            content_type: &self.content_type,
            attributes: &self.attributes,
        };
        Some(retry::write_id(key, place, payload))
    }
}

/// An acknowledged write.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The write's name.
    pub dot: Dot,
    /// The request's context and the dot, nothing more.
    pub context: Context,
    /// The bucket's incarnation, to seal the context with.
    pub bucket: Incarnation,
    /// Final modified-at, milliseconds since the Unix epoch.
    pub modified_at: u64,
    /// Who has it by now.
    pub acks: Acks,
    /// Live siblings on the coordinator's copy.
    pub live: usize,
    /// Who minted it.
    pub coordinator: NodeId,
    /// Whether it was written before: a retry that was recognised.
    pub repeated: bool,
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PutError {
    /// No such bucket.
    #[error("there is no bucket {0:?}: create it with PUT /v1/buckets/{0}")]
    NoBucket(String),
    /// The value is longer than the bucket allows.
    #[error("the value has {bytes} bytes, the bucket allows {cap}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        cap: usize,
    },
    /// The request asks for more copies than there are owners.
    #[error("w={asked} is more than the {members} nodes that hold a key of this bucket")]
    Level {
        /// What was asked.
        asked: usize,
        /// What there is.
        members: usize,
    },
    /// The bucket's resolver says that the value is not one of its own.
    #[error("the bucket's resolver refuses the value: {0}")]
    Rejected(String),
    /// The read before the write failed; nothing was written.
    #[error("{0}")]
    Read(GetError),
    /// Nothing was written.
    #[error("{0}")]
    NotWritten(Failure),
    /// Nothing was written: no owner could be reached.
    #[error("none of the key's {owners} owners can be reached from here")]
    Unreachable {
        /// How many owners the key has.
        owners: usize,
    },
    /// Fewer than W copies counted; the write may still become visible.
    #[error(
        "{copies} of {w} copies counted in time ({failed} failed); the write may still become visible"
    )]
    Unknown {
        /// How many copies are known to count.
        copies: usize,
        /// How many owners said they could not.
        failed: usize,
        /// How many were needed.
        w: usize,
    },
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
    /// Not begun: the node has more to do than it can.
    #[error(transparent)]
    Shed(#[from] Shed),
}

/// A listing.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The bucket's name.
    pub bucket: String,
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// Only keys greater than this.
    pub after: Option<Bytes>,
    /// At most so many keys.
    pub limit: usize,
    /// Every owner of every partition must be heard, not only R.
    pub all: bool,
}

/// A page of keys.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Keys in byte order.
    pub keys: Vec<Bytes>,
    /// Where the next page begins (exclusive); `None` at the end.
    pub next: Option<Bytes>,
}

/// Why a listing failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ListError {
    /// No such bucket.
    #[error("there is no bucket {0:?}: create it with PUT /v1/buckets/{0}")]
    NoBucket(String),
    /// A partition has too few answers: never a short list.
    #[error("{0}")]
    Uncovered(String),
    /// A key on which its owners differ could not be read.
    #[error("{0}")]
    Read(GetError),
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
    /// Not begun: the node has more to do than it can.
    #[error(transparent)]
    Shed(#[from] Shed),
}

/// One node's copy, for explain.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Which node.
    pub node: NodeId,
    /// Whether it is one of the first n.
    pub primary: bool,
    /// `alive`, `suspect`, `down` or `left`, as this node sees it.
    pub state: &'static str,
    /// The digest of its object; `None` if it holds none or did not answer.
    pub digest: Option<Digest>,
    /// How many siblings its object has; `None` if it did not answer.
    pub siblings: Option<u32>,
    /// Whether what it holds is a hint: kept for an owner.
    pub hint: bool,
}

/// Why a key says what it says.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The partition of the key.
    pub partition: u32,
    /// Its preference list with each node's copy.
    pub preference: Vec<Owner>,
    /// Every sibling, in canonical order.
    pub siblings: Vec<Sibling>,
    /// What the resolver makes of them, if one is bound and they conflict.
    pub resolver: Option<ResolverNote>,
}

/// A page of the conflict feed.
#[derive(Clone, Debug, Default)]
pub struct ConflictPage {
    /// Entries in the order of keys.
    pub conflicts: Vec<Conflict>,
    /// Where the next page begins.
    pub next: Option<Bytes>,
}
