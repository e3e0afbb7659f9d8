//! What nodes say to each other: the heads of frames.
//!
//! A head is small and encoded with postcard behind a version byte; what is large (an object, a document,
//! a module, a value) travels raw as the frame's body. Decoding hostile bytes gives an error, never a panic.
//! Additions go to the end of an enum: mixed versions of one release step must understand each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::context::Context;
use crate::id::{Digest, Dot, Incarnation, NodeId, Partition, Trace, WriteId};
use crate::merkle::Tree;
use crate::object::Refused;
use crate::reap::Word;
use crate::registry::Durability;

/// The version of heads that this code writes and reads.
const VERSION: u8 = 1;

/// A key of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The bucket, as of its creation.
    pub bucket: Incarnation,
    /// The key.
    pub key: Bytes,
}

/// A question to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Join the shipment in the body and say so once it counts.
    Replicate {
        /// Where.
        place: Place,
        /// When it counts.
        durability: Durability,
    },
    /// Join the object in the body: a read found this copy behind.
    Repair {
        /// Where.
        place: Place,
    },
    /// Send the object.
    Object {
        /// Where.
        place: Place,
    },
    /// Send the object's digest.
    Digest {
        /// Where.
        place: Place,
    },
    /// Coordinate a write; its value is the body.
    Coordinate(Box<Coordinate>),
    /// List keys of a bucket.
    List {
        /// Which bucket.
        bucket: Incarnation,
        /// Only keys that begin with this.
        prefix: Bytes,
        /// Only keys greater than this.
        after: Option<Bytes>,
        /// At most so many entries.
        limit: u32,
    },
    /// The registry's own talk: the message is the body, for a document may be large.
    Registry,
    /// Send the bytes of a module.
    Module {
        /// Which one.
        digest: Digest,
    },
    /// Keep the module in the body and compile it; answer when it is ready.
    Prepare {
        /// Which one.
        digest: Digest,
    },
    /// Say whether a module is ready here.
    Readiness {
        /// Which one.
        digest: Digest,
    },
    /// Send the conflict feed of a bucket.
    Conflicts {
        /// Which bucket.
        bucket: Incarnation,
        /// Only keys greater than this.
        after: Option<Bytes>,
        /// At most so many entries.
        limit: u32,
    },
    /// Take no more writes for a bucket that is about to be deleted; answered once those taken before are there.
    Close {
        /// Which bucket.
        bucket: Incarnation,
        /// For so long; 0 opens it again.
        hold_ms: u32,
    },
    /// Send nodes of a tree: the children of these, or the root at level 0.
    MerkleNodes {
        /// Which tree.
        tree: Tree,
        /// The level of the nodes.
        level: u8,
        /// Their parents.
        parents: Vec<u16>,
    },
    /// Send a page of the keys under these leaves, with their tags.
    MerkleKeys {
        /// Which tree.
        tree: Tree,
        /// Which leaves.
        leaves: Vec<u16>,
        /// Where to begin, inclusive.
        from: Option<Place>,
    },
    /// Join what is in the parcel in the body, sync, and send what it wants.
    MerkleExchange {
        /// Which tree.
        tree: Tree,
    },
    /// Keep the shipment in the body for an owner that cannot take it, and say so once it counts.
    Hint {
        /// Where.
        place: Place,
        /// When it counts.
        durability: Durability,
        /// The owner it is for.
        target: NodeId,
        /// The span that hands it over: its delivery links to it.
        trace: Option<Trace>,
    },
    /// Join the object in the body, which was kept for this node, and say what is on disk.
    Handoff {
        /// Where.
        place: Place,
    },
    /// This node is back: deliver what is kept for it.
    Collect,
    /// A question of membership: the body is the message.
    Gossip,
    /// Coordinate a write that its client may repeat, if it was not written before; its value is the body.
    CoordinateOnce(Box<Coordinate>),
    /// Reaping: this is what the asker says of itself; say the same of yourself.
    Epoch(Word),
    /// Say in which epochs the objects in the body were sealed.
    Seals {
        /// Where they lie.
        partition: Partition,
    },
    /// Every owner had sealed the objects in the body: forget them, if their seals hold.
    Reap {
        /// Where they lie.
        partition: Partition,
        /// The asker's epoch.
        epoch: u64,
    },
    /// Say in which epoch something of this partition was last reaped.
    Horizon {
        /// Which one.
        partition: Partition,
    },
}

/// One entry of the conflict feed: a key that no resolver made one value of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The key.
    pub key: Bytes,
    /// Why it is unresolved.
    pub reason: String,
    /// The resolver that failed; `None` if none is bound.
    pub resolver: Option<(String, Digest)>,
    /// Live siblings.
    pub siblings: u32,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The trace of the read that met it first.
    pub trace_id: [u8; 16],
}

/// A write to be coordinated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinate {
    /// Where.
    pub place: Place,
    /// What the client had seen; `None` is a blind write.
    pub context: Option<Context>,
    /// Tombstones a read before a blind write found.
    pub tombstones: Context,
    /// Whether the body is a value, or there is none: a tombstone.
    pub deletes: bool,
    /// The media type.
    pub content_type: String,
    /// Attributes by name.
    pub attributes: BTreeMap<String, String>,
    /// The client request.
    pub write_id: WriteId,
    /// The writer's span, to be kept in the sibling.
    pub trace: Option<Trace>,
    /// How many copies must count.
    pub w: u32,
    /// Whether nodes that stand in for an owner count, and may coordinate.
    pub sloppy: bool,
}

/// A peer's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The join counts.
    Joined,
    /// The body is the object.
    Object {
        /// Whether this replica's answer counts: not while it is rebuilding.
        counts: bool,
    },
    /// The object's digest.
    Digest {
        /// It.
        digest: Digest,
        /// How many siblings it has.
        siblings: u32,
        /// Whether this replica's answer counts.
        counts: bool,
    },
    /// The write was coordinated.
    Written(Written),
    /// The body is a page of keys.
    Listed,
    /// The body is the module.
    Module,
    /// Whether the module is compiled here, or why not.
    Readiness(Result<(), String>),
    /// The body is the feed, in the order of keys.
    Conflicts,
    /// It could not be done.
    Failed(Failure),
    /// The body is the nodes, 16 bytes each.
    MerkleNodes {
        /// Whether this replica's copies count: not while it is rebuilding.
        counts: bool,
    },
    /// The body is a page of keys.
    MerkleKeys,
    /// The parcel was joined and synced; the body is the delivery.
    MerkleExchanged,
    /// What was kept for this node is on disk here.
    Delivered {
        /// Every dot of what was delivered: the hint may go if it holds no other.
        context: Context,
    },
    /// Delivery begins.
    Collecting {
        /// How many hints wait for the asker.
        hints: u64,
    },
    /// The body is membership's answer.
    Gossip,
    /// The write was there before; nothing was minted, and W copies have it.
    Repeated(Written),
    /// What the peer says of itself.
    Epoch {
        /// It.
        word: Word,
        /// Whether nothing of the asker's earlier sessions is left with it.
        settled: bool,
    },
    /// The body is the epochs, one for each object; none for one that is not sealed.
    Seals,
    /// So many were forgotten.
    Reaped {
        /// How many.
        keys: u64,
    },
    /// The epoch of the partition's last reap.
    Horizon {
        /// It; 0 if there was none. None if that node lost its data since and does not know.
        epoch: Option<u64>,
    },
}

/// A coordinated write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The write's name.
    pub dot: Dot,
    /// What its client may reuse: the request's context and the dot.
    pub context: Context,
    /// Its final modified-at.
    pub modified_at: u64,
    /// How many owners have it by now.
    pub owners: u32,
    /// How many nodes that stand in for another owner have it.
    pub fallbacks: u32,
    /// How many live siblings the coordinator's copy has now.
    pub siblings: u32,
    /// Who coordinated.
    pub coordinator: NodeId,
}

/// Why a peer could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The bucket is unknown here, or another incarnation.
    #[error("the bucket is unknown to that node, or was re-created since")]
    Bucket,
    /// This node does not own the key.
    #[error("that node does not own the key")]
    NotOwner,
    /// The node may not mint yet.
    #[error("that node is rebuilding its data and takes no writes to coordinate yet")]
    Rebuilding,
    /// The disk cannot be read now; the copy may well be there.
    #[error("that node cannot read its copy: {0}")]
    Unreadable(String),
    /// The disk is full, or failed.
    #[error("that node's disk is full")]
    DiskFull,
    /// The store failed and the node is stopping.
    #[error("that node's store failed: {0}")]
    Store(String),
    /// Minting was refused; nothing was written.
    #[error("{0}")]
    Refused(Refused),
    /// Minted, but fewer than W copies counted in time.
    #[error("{copies} of {w} copies counted in time")]
    Quorum {
        /// How many counted, of owners and of those that stand in for one.
        copies: u32,
        /// How many owners said they could not.
        failed: u32,
        /// How many were needed.
        w: u32,
    },
    /// A queue is full; nothing was done.
    #[error("that node is overloaded")]
    Overloaded,
    /// The node does not know the module.
    #[error("that node does not hold the module")]
    NoModule,
    /// The question cannot be read.
    #[error("that node cannot read the question: {0}")]
    Malformed(String),
    /// The node is forming its cluster, or stopping.
    #[error("that node is not serving: {0}")]
    NotServing(String),
    /// The bucket is about to be deleted: it takes no writes now.
    #[error("the bucket is being deleted: it takes no writes until that is decided")]
    Closing,
    /// The tree is not known to be right and is being computed anew.
    #[error("that node is computing the tree anew")]
    TreeUnclean,
    /// The node keeps as many hints as it may; what it keeps, it keeps.
    #[error("that node keeps as many hints for others as it may")]
    HintsFull,
    /// Owners changed since the document that the question was asked by: ask again by the newer one.
    #[error("owners changed in registry document {0}, which the question does not know")]
    Stale(u64),
    /// The idempotency key came with another write of this key; nothing was written.
    #[error(
        "the Idempotency-Key was used for another write of this key: another value, content type or attributes, or a delete"
    )]
    Reused,
    /// Too few copies answered to know whether the write was made before; nothing was written.
    #[error(
        "{replies} of {need} copies answered in time, too few to know whether this write was made before"
    )]
    Unsure {
        /// How many answered.
        replies: u32,
        /// How many were needed.
        need: u32,
    },
    /// The record fails its checksum: this copy is lost until other owners were asked for it.
    #[error("that node's copy is damaged and fenced: {0}")]
    Fenced(String),
    /// The node takes no part in reaping.
    #[error("that node does not reap (--reap-interval 0): so nobody does")]
    NotReaping,
}

/// Bytes that are not a head of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of version {VERSION}")]
pub struct Unreadable;

/// Writes a head.
pub fn encode<T: Serialize>(head: &T) -> Bytes {
    let bytes = postcard::to_extend(head, vec![VERSION]);
    bytes
        .expect("heads hold integers, strings, bytes and maps, which always serialise")
        .into()
}

/// Reads a head.
///
/// # Errors
/// [`Unreadable`] if the bytes are of another version, damaged, or followed by more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let (version, body) = bytes.split_first().ok_or(Unreadable)?;
    if *version != VERSION {
        return Err(Unreadable);
    }
    match postcard::take_from_bytes(body) {
        Ok((head, [])) => Ok(head),
        _ => Err(Unreadable),
    }
}
