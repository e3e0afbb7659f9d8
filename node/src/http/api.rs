//! What HTTP needs of the node behind it: the one seam between routes and everything else.
//!
//! The node implements [`Api`] once; each request gets its own [`Call`], which holds the request's span, so
//! that what the call does hangs below it. No type of axum crosses this seam, and no type of the store or of
//! the peers. A call may be dropped at any await: the client went away.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::{Digest, Incarnation, NodeId};
use sibyl_core::registry::{Bucket, BucketConfig, Expect};
use sibyl_core::seal::Forged;

use super::certificates::{Certificate, CheckView, Checked};
use super::cluster::{AntiEntropyView, ClusterView, RegistryView, RingView};
use super::handoff::{HandoffView, SyncView};
use super::owners::OwnersChanged;
use super::recover::Recovered;
use super::resolver_shapes::{ResolverView, VersionView};
use crate::backup::TakeError;
use crate::coordinator::{
    ConflictPage, Explained, GetError, GetRequest, Got, GuestLog, ListError, ListRequest, Listed,
    PutError, PutRequest, Stored,
};

/// An answer that is on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The pieces of a long answer, a few of them ahead of whoever reads.
pub type Pieces = tokio::sync::mpsc::Receiver<Result<Bytes, TakeError>>;

/// A request at the moment it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The method.
    pub method: &'a str,
    /// The route's template, never the path; `unmatched` if there is no such route.
    pub route: &'a str,
    /// What stands behind `?`, as it came.
    pub query: Option<&'a str>,
    /// The client's W3C trace context, as it came; may be malformed.
    pub traceparent: Option<&'a str>,
    /// What `Content-Length` says, 0 without it.
    pub request_bytes: u64,
}

/// A request at the moment its answer's head is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The HTTP status.
    pub status: u16,
    /// The length of the body.
    pub response_bytes: u64,
}

/// The node, as HTTP sees it.
pub trait Api: Send + Sync + 'static {
    /// Begins a request: starts its span and its clock. A call that is dropped without [`Call::end`] was
    /// given up by its client.
    fn begin(&self, arrival: Arrival<'_>) -> Arc<dyn Call>;
}

/// One request: keys.
pub trait Keys: Send + Sync {
    /// The largest value that the bucket takes, in bytes.
    fn max_value_bytes(&self, bucket: &str) -> Result<usize, BucketRefused>;
    /// Opens a context that a client handed back for this key.
    fn open(&self, bucket: &str, key: &[u8], sealed: &[u8]) -> Result<Context, ContextRefused>;
    /// Seals a context for a client. The caller writes it as base64url.
    fn seal(&self, bucket: Incarnation, key: &[u8], context: &Context) -> Vec<u8>;
    /// Reads a key.
    fn get(&self, request: GetRequest) -> Pending<'_, Result<Got, GetError>>;
    /// Writes or deletes a key.
    fn put(&self, request: PutRequest) -> Pending<'_, Result<Stored, PutError>>;
    /// Lists keys.
    fn list(&self, request: ListRequest) -> Pending<'_, Result<Listed, ListError>>;
    /// Says why a key says what it says.
    fn explain(&self, request: GetRequest) -> Pending<'_, Result<Explained, GetError>>;
    /// The conflict feed of a bucket. Uses `bucket`, `after` and `limit` of the request.
    fn conflicts(&self, request: ListRequest) -> Pending<'_, Result<ConflictPage, ListError>>;
}

/// One request: buckets.
pub trait Buckets: Send + Sync {
    /// Every bucket, by name.
    fn buckets(&self) -> Result<BTreeMap<String, Bucket>, AdminError>;
    /// One bucket.
    fn bucket(&self, name: &str) -> Result<Bucket, AdminError>;
    /// Creates a bucket or replaces its configuration.
    fn put_bucket(&self, change: PutBucket) -> Pending<'_, Result<BucketChanged, AdminError>>;
    /// Deletes a bucket: refused with `Conflict` if it holds keys, unless they are purged.
    fn delete_bucket(&self, change: DeleteBucket) -> Pending<'_, Result<(), AdminError>>;
}

/// One request: resolvers.
pub trait Resolvers: Send + Sync {
    /// Validates, compiles, stores and registers a version.
    fn upload(&self, upload: Upload) -> Pending<'_, Result<Uploaded, AdminError>>;
    /// Every resolver with its versions, by name.
    fn resolvers(&self) -> Pending<'_, Result<Vec<ResolverView>, AdminError>>;
    /// One resolver with its versions.
    fn resolver(&self, name: &str) -> Pending<'_, Result<ResolverView, AdminError>>;
    /// The bytes of a version, as they were uploaded.
    fn module(&self, name: &str, version: Digest) -> Pending<'_, Result<Module, AdminError>>;
    /// Deletes a version: refused with `Conflict` while a bucket is bound to it.
    fn delete_version(&self, name: &str, version: Digest) -> Pending<'_, Result<(), AdminError>>;
    /// Checks the laws of a version and keeps what is found.
    fn check(&self, wish: CheckWish) -> Pending<'_, Result<Checked, AdminError>>;
    /// The thorough check of a version on this node, if there is one.
    fn checking(&self, name: &str, version: Digest) -> Result<Option<CheckView>, AdminError>;
    /// What a resolver logged on this node last.
    fn guest_log(&self, name: &str) -> Result<GuestLog, AdminError>;
    /// Runs a version on siblings of the caller; stores nothing.
    fn try_resolver(&self, trial: Trial) -> Pending<'_, Result<Tried, AdminError>>;
}

/// One request: the cluster and this node.
pub trait Operation: Send + Sync {
    /// This node's name.
    fn node_id(&self) -> NodeId;
    /// The members, as this node sees them.
    fn cluster(&self) -> ClusterView;
    /// Partitions and owners.
    fn ring(&self) -> Result<RingView, AdminError>;
    /// What is compared with other owners.
    fn anti_entropy(&self) -> AntiEntropyView;
    /// Begins to compare everything with everybody.
    fn start_anti_entropy(&self) -> Result<AntiEntropyView, AdminError>;
    /// The registry's document in force.
    fn registry(&self) -> RegistryView;
    /// Changes who owns what, or only says what that would move.
    fn change_owners(
        &self,
        wish: OwnerWish,
        plan: bool,
    ) -> Pending<'_, Result<OwnersChanged, AdminError>>;
    /// Begins a new lineage with this node alone, or only says what that would mean.
    fn recover(&self, plan: bool, accept_loss: bool) -> Pending<'_, Result<Recovered, AdminError>>;
    /// What this node keeps for others.
    fn handoff(&self) -> HandoffView;
    /// Waits until what it keeps now is delivered, or so long.
    fn sync_handoff(&self, patience: Duration) -> Pending<'_, SyncView>;
    /// Begins a backup of this node: its bytes in order, and an error in the place of the rest if it fails.
    fn backup(&self) -> Result<Pieces, AdminError>;
    /// Whether this node serves, and what an operator should know.
    fn health(&self) -> Health;
    /// Every metric; in the OpenMetrics text format if asked for, else in the plain one of Prometheus.
    fn metrics(&self, openmetrics: bool) -> String;
    /// The share of requests that is traced, from 0 to 1.
    fn trace_ratio(&self) -> f64;
    /// Changes the share; it is from 0 to 1.
    fn set_trace_ratio(&self, ratio: f64);
    /// What the process logs, as a filter like `info,sibyl::peer=debug`.
    fn log_filter(&self) -> String;
    /// Changes what is logged until the process ends; why not, in words.
    fn set_log_filter(&self, filter: &str) -> Result<(), String>;
    /// Cuts the link to a peer, or mends it. Only called if the node allows cuts.
    fn cut(&self, peer: &NodeId, cut: bool) -> Result<(), AdminError>;
}

/// One request, from its arrival to its answer.
pub trait Call: Keys + Buckets + Resolvers + Operation {
    /// The trace that the request is part of; always valid, recorded or not.
    fn trace_id(&self) -> [u8; 16];
    /// The answer is known.
    fn end(&self, departure: Departure);
}

/// A change of members, and with them of owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerWish {
    /// Take in a node that asks for it.
    Join(NodeId),
    /// Let a member hand over and go.
    Leave(NodeId),
    /// Give up a member that is gone for good.
    Remove(NodeId),
    /// Let a node that asks for it take the places of a member.
    Replace {
        /// The member.
        node: NodeId,
        /// The node.
        with: NodeId,
    },
}

/// Why a bucket cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketRefused {
    /// No such bucket.
    #[error("there is no bucket {0:?}: create it with PUT /v1/buckets/{0}")]
    NoBucket(String),
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
}

/// Why a context that a client handed back was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextRefused {
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketRefused),
    /// It is not a context for this place.
    #[error("Sibyl-Context is {0}; read the key again and use the context of that answer")]
    Forged(#[from] Forged),
    /// It is older than what it could remove safely.
    #[error("the context is too old to be used: read the key again")]
    Expired,
}

/// A bucket to create, or to configure anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBucket {
    /// Its name, valid.
    pub name: String,
    /// The whole configuration: what the client left out has its default.
    pub config: BucketConfig,
    /// The client named no `n`: an existing bucket keeps its own.
    pub keep_n: bool,
    /// What must be true.
    pub expect: Expect,
}

/// A bucket as a change left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketChanged {
    /// The bucket.
    pub bucket: Bucket,
    /// Whether it is new.
    pub created: bool,
}

/// A bucket to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteBucket {
    /// Its name.
    pub name: String,
    /// Whether its keys go with it.
    pub purge: bool,
    /// What must be true.
    pub expect: Expect,
}

/// What an upload says it is. The node looks at the bytes all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/wasm`: a component or a core module.
    Wasm,
    /// `text/plain`: WAT.
    Wat,
}

/// A resolver version to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The resolver's name, valid.
    pub name: String,
    /// What the client says it is.
    pub form: Form,
    /// The bytes; their SHA-256 names the version.
    pub bytes: Bytes,
    /// How its laws are checked.
    pub check: Check,
}

/// How the laws of an upload are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Before the answer, within seconds.
    Quick,
    /// In a job, within minutes.
    Thorough,
    /// Not now.
    Off,
}

/// Laws to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckWish {
    /// The resolver.
    pub name: String,
    /// Default: the version uploaded last.
    pub version: Option<Digest>,
    /// Real values to draw from.
    pub samples: Vec<Bytes>,
    /// Of each law; `None`: as many as a quick check has.
    pub cases: Option<u32>,
    /// Where drawing begins.
    pub seed: u64,
    /// JSON text.
    pub config: Option<String>,
    /// Whether it is shown tombstones.
    pub deletes: bool,
    /// What the values are.
    pub media_type: Option<String>,
}

/// An uploaded version.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    /// The version.
    pub version: VersionView,
    /// Whether it is new.
    pub created: bool,
}

/// The bytes of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What they are.
    pub form: Form,
    /// The bytes.
    pub bytes: Bytes,
}

/// A sibling for a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialSibling {
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Milliseconds since the Unix epoch.
    pub modified_at: u64,
    /// The media type.
    pub content_type: String,
    /// Attributes by name.
    pub attributes: BTreeMap<String, String>,
}

/// Siblings to run a version on, in any order: 2 to 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The resolver.
    pub name: String,
    /// The version; `None`: the one uploaded last.
    pub version: Option<Digest>,
    /// The siblings.
    pub siblings: Vec<TrialSibling>,
    /// The JSON text of the configuration.
    pub config: Option<String>,
    /// The key it shall see.
    pub key: Bytes,
}

/// What a trial came to. Indices count in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TriedOutcome {
    /// A new value.
    Merged(Bytes),
    /// One of them.
    Picked(usize),
    /// Some of them.
    Kept(Vec<usize>),
    /// The key would be deleted.
    Deleted,
    /// It failed: all siblings would stay.
    Failed {
        /// `declined`, `malformed`, `bad_config`, `trap`, `fuel`, `memory`, `output` or another.
        kind: String,
        /// In words.
        message: String,
    },
}

/// One line of a guest's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The line.
    pub message: String,
}

/// A trial's result and cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What it came to.
    pub outcome: TriedOutcome,
    /// Instructions burnt.
    pub fuel: u64,
    /// Peak linear memory.
    pub memory_bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// What it logged, bounded.
    pub log: Vec<LogLine>,
}

/// Whether the node serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether requests for keys can be answered.
    pub ready: bool,
    /// Why not, and what an operator should know although it is ready.
    pub reasons: Vec<String>,
}

/// Why a change of the control plane, or a look at it, failed. Nothing changed unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Too few members can be reached to decide.
    #[error(
        "{missing} more of the {members} members must be reachable, since a change needs a majority; keys can still be read and written"
    )]
    NoMajority {
        /// How many more had to answer.
        missing: usize,
        /// How many there are.
        members: usize,
    },
    /// Proposed, but whether it was chosen is not known.
    #[error("{0}; whether the change was made is not known: look, then repeat it")]
    Unknown(String),
    /// Not there.
    #[error("{detail}")]
    NotFound {
        /// `no_bucket`, `no_resolver`, `no_version` or `no_peer`.
        code: &'static str,
        /// What, and what to do.
        detail: String,
    },
    /// It does not fit what is there.
    #[error("{detail}")]
    Conflict {
        /// The problem's code.
        code: &'static str,
        /// What is in the way, and what to do.
        detail: String,
    },
    /// Another change has to end first.
    #[error("{0}")]
    InProgress(String),
    /// The precondition of the request does not hold.
    #[error("{0}")]
    Precondition(String),
    /// The request makes no sense.
    #[error("{detail}")]
    Invalid {
        /// The problem's code.
        code: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// The upload is not WebAssembly at all.
    #[error("{detail}")]
    NotWasm {
        /// The problem's code.
        code: &'static str,
        /// What was found.
        detail: String,
    },
    /// The upload is WebAssembly, but no resolver.
    #[error("{detail}")]
    NotResolver {
        /// The problem's code.
        code: &'static str,
        /// What was found, and what to do.
        detail: String,
    },
    /// A resolver does not keep the laws that are asked of it, or they could not be checked.
    #[error("{detail}")]
    Laws {
        /// The problem's code.
        code: &'static str,
        /// What is wrong, and what to do.
        detail: String,
        /// What was found.
        certificate: Option<Box<Certificate>>,
    },
    /// The node cannot now: a queue is full, or a helper cannot start.
    #[error("{detail}")]
    Busy {
        /// The problem's code.
        code: &'static str,
        /// What is full.
        detail: String,
    },
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
}
