//! What may stand in a label: closed lists of words, and names of users behind a cap.
//!
//! Every label set has a known largest size. A word that is not in a list cannot be counted, and of
//! buckets, resolvers and peers only the first [`Names`] seen keep their name; the rest is `other`.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Buckets with a name of their own in labels.
pub const MAX_BUCKETS: usize = 50;
/// Resolvers with a name of their own in labels.
pub const MAX_RESOLVERS: usize = 50;
/// Peers with a name of their own in labels: as many as a cluster of ours has members at most.
pub const MAX_PEERS: usize = 128;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant,)* }

        impl $name {
            /// Every word of the list.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in labels and attributes.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What a client asked for.
    Op {
        /// Read, HEAD included.
        Get = "get",
        /// Write.
        Put = "put",
        /// Delete.
        Delete = "delete",
        /// Raw siblings.
        Siblings = "siblings",
        /// Where a value came from.
        Explain = "explain",
        /// List keys.
        List = "list",
        /// Several operations at once.
        Batch = "batch",
        /// The conflict feed.
        Conflicts = "conflicts",
        /// Bucket configuration.
        Bucket = "bucket",
        /// Resolver upload, binding, trial.
        Resolver = "resolver",
        /// Cluster and operation.
        Cluster = "cluster",
    }
}

words! {
    /// How a request ended.
    Outcome {
        /// Done.
        Ok = "ok",
        /// No live value, bucket or resolver.
        NotFound = "not_found",
        /// Too few replicas.
        NoQuorum = "no_quorum",
        /// Siblings without a view, or a state that forbids it.
        Conflict = "conflict",
        /// A forged, misplaced or expired context.
        BadContext = "bad_context",
        /// Over a limit.
        TooLarge = "too_large",
        /// Anything else.
        Error = "error",
    }
}

words! {
    /// Which quorum.
    Quorum {
        /// Waiting for W acks.
        Write = "put",
        /// Waiting for R replies.
        Read = "get",
    }
}

words! {
    /// Why a quorum was missed.
    QuorumFailure {
        /// Replicas did not answer in time.
        Timeout = "timeout",
        /// Too few replicas could be reached.
        Unavailable = "unavailable",
        /// Replicas refused.
        Rejected = "rejected",
    }
}

words! {
    /// How a remote call ended.
    RpcResult {
        /// Answered.
        Ok = "ok",
        /// No answer in time.
        Timeout = "timeout",
        /// No connection.
        Unavailable = "unavailable",
        /// Refused by the peer.
        Rejected = "rejected",
    }
}

words! {
    /// Which way bytes went, seen from this node.
    Direction {
        /// To this node.
        In = "in",
        /// From this node.
        Out = "out",
    }
}

words! {
    /// What a read made of a conflict.
    Resolution {
        /// A resolver made a view.
        View = "view",
        /// The siblings stay: no resolver, or it chose to keep them.
        Kept = "kept",
        /// The resolver failed.
        Failed = "failed",
    }
}

words! {
    /// What one resolver call came to.
    ResolverResult {
        /// A usable answer.
        Ok = "ok",
        /// The guest trapped.
        Trap = "trap",
        /// Out of fuel.
        Fuel = "fuel",
        /// Out of time.
        Timeout = "timeout",
        /// An answer that cannot be used, or a limit other than fuel.
        Invalid = "invalid",
    }
}

words! {
    /// Whether the view cache knew the answer.
    CacheResult {
        /// It did.
        Hit = "hit",
        /// It did not.
        Miss = "miss",
    }
}

words! {
    /// When read repair ran.
    RepairMode {
        /// Before the answer.
        Blocking = "blocking",
        /// After it.
        Async = "async",
    }
}

words! {
    /// What became of a hint.
    HintResult {
        /// It is kept here.
        Stored = "stored",
        /// It is not: the quota is used up, or the node could not.
        Refused = "refused",
        /// It is on its target's disk.
        Delivered = "delivered",
        /// It could not be delivered this time.
        Failed = "failed",
        /// It was given up for its age: never, a hint that counted is a copy.
        Expired = "expired",
        /// It went undelivered, with its bucket.
        Dropped = "dropped",
    }
}

words! {
    /// What became of an object that a removed node brought.
    SalvageResult {
        /// It held something that was not known here.
        Imported = "imported",
        /// It did not.
        Known = "known",
        /// It may have been deleted and forgotten here.
        Older = "older",
        /// Its bucket is gone.
        Gone = "gone",
        /// It is not this node's, or could not be taken now.
        Refused = "refused",
    }
}

words! {
    /// How a step without further distinction ended.
    Success {
        /// Well.
        Ok = "ok",
        /// Not.
        Failed = "failed",
    }
}

words! {
    /// One kind of work of the local store.
    StorageOp {
        /// Read one object.
        Get = "get",
        /// Write one object.
        Put = "put",
        /// Read a range.
        Scan = "scan",
        /// Wait for the disk.
        Fsync = "fsync",
    }
}

words! {
    /// Which way an exchange moved objects.
    Repaired {
        /// To the peer.
        Sent = "sent",
        /// From the peer.
        Received = "received",
    }
}

words! {
    /// What gossip says to a member.
    GossipKind {
        /// What a member lacked.
        Push = "push",
        /// What is known, in short, and the answer.
        Pull = "pull",
        /// Whether it is there.
        Ping = "ping",
        /// Whether another one is there.
        PingReq = "ping-req",
    }
}

words! {
    /// What a node that knocked was told.
    KnockResult {
        /// The document that names it.
        Named = "named",
        /// To wait, or to knock again.
        Waiting = "waiting",
        /// To bring what it holds, since its store was removed.
        Brings = "brings",
        /// That it is never taken in so.
        Refused = "refused",
    }
}

words! {
    /// Why a request of a client was not begun.
    ShedReason {
        /// As many waited as may.
        Full = "full",
        /// It waited, and no place came free in time.
        Waited = "waited",
    }
}

words! {
    /// Why a store could not prove that it remembers its counters.
    AmnesiaCause {
        /// There is no store.
        Missing = "missing",
        /// It is damaged.
        Corrupt = "corrupt",
        /// It is older than its watermark.
        Stale = "stale",
    }
}

/// A name of a user's making, admitted by [`Names`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

/// The first so many names keep theirs; later ones are `other`. A name is never let go, so a series never
/// changes its meaning while the node runs.
#[derive(Debug)]
pub(super) struct Names {
    seen: RwLock<HashSet<Arc<str>>>,
    room: usize,
    other: Arc<str>,
}

impl Names {
    pub(super) fn new(room: usize) -> Self {
        Self {
            seen: RwLock::default(),
            room,
            other: "other".into(),
        }
    }

    pub(super) fn admit(&self, name: &str) -> Name {
        if let Some(known) = self
            .seen
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Name(Arc::clone(known));
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= self.room && !seen.contains(name) {
            return Name(Arc::clone(&self.other));
        }
        let name: Arc<str> = name.into();
        seen.insert(Arc::clone(&name));
        Name(name)
    }
}

/// Declares a label set: its fields are the labels.
macro_rules! label_set {
    ($name:ident { $($label:ident: $kind:ty),* }) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $label: $kind),* }
    };
}

label_set!(ByOp { op: &'static str });
label_set!(ByOpOutcome { op: &'static str, outcome: &'static str });
label_set!(ByOpDirection { op: &'static str, direction: &'static str });
label_set!(ByOpReason { op: &'static str, reason: &'static str });
label_set!(ByMethodPeer { method: &'static str, peer: Name });
label_set!(ByMethodPeerResult { method: &'static str, peer: Name, result: &'static str });
label_set!(ByDirectionPeer { direction: &'static str, peer: Name });
label_set!(ByPeer { peer: Name });
label_set!(ByPeerResult { peer: Name, result: &'static str });
label_set!(ByBucketResolution { bucket: Name, resolution: &'static str });
label_set!(ByResolver { resolver: Name });
label_set!(ByResolverLaw { resolver: Name, law: &'static str });
label_set!(ByResolverResult { resolver: Name, result: &'static str, reason: &'static str });
label_set!(ByResult { result: &'static str });
label_set!(ByModeResult { mode: &'static str, result: &'static str });
label_set!(ByCause { cause: &'static str });
label_set!(ByTarget { target: String });
label_set!(ByKind { kind: &'static str });
label_set!(ByKindResult { kind: &'static str, result: &'static str });
label_set!(ByFromTo { from: &'static str, to: &'static str });
label_set!(ByState { state: &'static str });
label_set!(Exemplar {
    trace_id: String,
    span_id: String
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_stay() {
        let names = Names::new(2);
        let text = |name| names.admit(name).0.to_string();
        assert_eq!([text("a"), text("b"), text("c")], ["a", "b", "other"]);
        assert_eq!([text("a"), text("b"), text("d")], ["a", "b", "other"]);
    }
}
