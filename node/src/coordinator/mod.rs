//! Carries requests: forwards a write to the node that mints it, asks replicas, joins, resolves, answers.
//!
//! The flows of `sibyl-core` decide; this performs their effects on peers and on the local replica. It
//! knows no HTTP and no disk. What a request asks and what it gets stands in `request`; `placement` says who
//! takes it now; `handing` finds the node that mints; `read` and `write` perform the flows; `once` looks first
//! where a write may be repeated; `resolve` makes views; `modules` keeps resolvers on every node.

mod buckets;
mod certify;
mod change;
mod closing;
mod conflicts;
mod explain;
mod guest_logs;
mod handing;
mod list;
mod modules;
mod once;
mod placement;
mod read;
mod remote;
mod removal;
mod request;
mod resolve;
mod settled;
mod unnamed;
mod write;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::{Digest, Incarnation, NodeId, Partition};
use sibyl_core::joining;
use sibyl_core::message::{Failure, Place};
use sibyl_core::pace::Pace;
use sibyl_core::registry::Bucket;
use sibyl_core::room::Level;
use sibyl_core::seal::{self, Forged, Opened};

pub use buckets::{BucketFailed, Emptiness};
pub use certify::{CheckFailed, Wish};
pub use guest_logs::{GuestLine, GuestLog};
pub use modules::{ModuleFailed, Uploaded};
pub use once::Answered;
pub use request::{
    Acks, Conflict, ConflictPage, Explained, GetError, GetRequest, Got, ListError, ListRequest,
    Listed, Owner, PutError, PutRequest, Resolved, ResolverNote, Stored,
};

pub use unnamed::{UNNAMED_EVERY, UNNAMED_GRACE};

use crate::door::Door;
use crate::outside;
use crate::peer::Net;
use crate::replica::{Replica, Slot};
use crate::resolver::Platform;
use crate::tasks::anti_entropy::AntiEntropy;
use crate::tasks::gossip::Gossip;
use crate::tasks::handoff::Handoff;
use crate::tasks::reap::Reaping;
use crate::tasks::registry::{Registry, View};
use crate::telemetry::Metrics;

/// How long a client waits if it does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a client may wait.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a node that stops serves nothing.
pub const STOPPING: &str = "the node is stopping: ask another one";

/// What a coordinator stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Its copies.
    pub replica: Replica,
    /// Its peers.
    pub net: Net,
    /// What needs one answer.
    pub registry: Registry,
    /// Who is there.
    pub gossip: Gossip,
    /// What merges siblings.
    pub platform: Platform,
    /// Delivers what is kept for other nodes.
    pub handoff: Handoff,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What compares copies with other owners in the background.
    pub anti_entropy: AntiEntropy,
    /// What forgets what is deleted.
    pub reaping: Reaping,
    /// Where clients' requests wait for their turn.
    pub door: Door,
}

/// Carries requests. Clones are one.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    /// How long peers take.
    pace: Mutex<Pace>,
    views: resolve::Cache,
    feed: conflicts::Feed,
    leaving: AtomicBool,
    draining: AtomicBool,
    /// Modules that a read asked for and that are being had.
    fetching: Mutex<BTreeSet<Digest>>,
    checks: certify::Jobs,
    guest_logs: guest_logs::GuestLogs,
}

/// A coordinator, seen by what it stands on itself: it does not keep it alive.
#[derive(Clone)]
pub struct Seen(Weak<Inner>);

impl Seen {
    /// The coordinator, as long as its node runs.
    pub fn get(&self) -> Option<Coordinator> {
        let inner = self.0.upgrade()?;
        Some(Coordinator { inner })
    }
}

impl Coordinator {
    /// For what it stands on itself.
    pub fn seen(&self) -> Seen {
        Seen(Arc::downgrade(&self.inner))
    }

    /// A coordinator on this ground.
    pub fn new(ground: Ground) -> Self {
        let inner = Inner {
            ground,
            pace: Mutex::default(),
            views: resolve::Cache::new(),
            feed: conflicts::Feed::new(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            fetching: Mutex::default(),
            checks: certify::Jobs::default(),
            guest_logs: guest_logs::GuestLogs::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What a resolver logged on this node last.
    pub fn guest_log(&self, name: &str) -> GuestLog {
        self.inner.guest_logs.of(name)
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.inner.ground.me
    }

    /// Its copies.
    pub fn replica(&self) -> &Replica {
        &self.inner.ground.replica
    }

    /// Its peers.
    pub fn net(&self) -> &Net {
        &self.inner.ground.net
    }

    /// What needs one answer.
    pub fn registry(&self) -> &Registry {
        &self.inner.ground.registry
    }

    /// Who is there.
    pub fn gossip(&self) -> &Gossip {
        &self.inner.ground.gossip
    }

    /// Whether a node can be asked now: it is connected, and nobody has reason to think that it is away. It
    /// chooses, and never decides what is safe.
    fn is_there(&self, node: &NodeId) -> bool {
        node == self.me() || self.net().is_reachable(node) && !self.gossip().is_suspect(node)
    }

    /// How long peers take.
    fn pace(&self) -> MutexGuard<'_, Pace> {
        // One average after the other: there is nothing between two of them.
        let pace = self.inner.pace.lock();
        pace.unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer took so long for a write that all owners got.
    fn took(&self, peer: &NodeId, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.pace().observe(peer, took_us);
    }

    /// How long those took who are no members any more does not matter.
    fn forget_pace(&self, view: &View) {
        let members = &view.document().layout.members;
        self.pace().keep(|node| members.contains_key(node));
    }

    /// What merges siblings.
    pub fn platform(&self) -> &Platform {
        &self.inner.ground.platform
    }

    /// Delivers what is kept for other nodes.
    pub fn handoff(&self) -> &Handoff {
        &self.inner.ground.handoff
    }

    /// What this node counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.inner.ground.metrics)
    }

    /// Whether this node lost its data and has not been refilled: it mints nothing, and its reads do not
    /// count.
    pub fn is_rebuilding(&self) -> bool {
        self.registry().is_rebuilding()
    }

    /// Whether this node's copies of a partition count and may be minted on.
    pub fn vouches(&self, partition: Partition) -> bool {
        self.registry().vouches(partition) && self.replica().is_judged(partition)
    }

    /// What compares copies with other owners in the background.
    pub fn anti_entropy(&self) -> &AntiEntropy {
        &self.inner.ground.anti_entropy
    }

    /// What forgets what is deleted.
    pub fn reaping(&self) -> &Reaping {
        &self.inner.ground.reaping
    }

    /// From now on this node says that it is not ready. What was accepted, and what peers ask, is still served.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the node has begun to stop.
    pub fn is_leaving(&self) -> bool {
        self.inner.leaving.load(Ordering::Relaxed)
    }

    /// From now on no request is begun here; those under way go on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Where clients' requests wait for their turn.
    pub fn door(&self) -> &Door {
        &self.inner.ground.door
    }

    /// How full the disk is.
    pub fn room(&self) -> Level {
        self.replica().gauge().level()
    }

    /// What is in force, if this node serves.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn serving(&self) -> Result<Arc<View>, String> {
        let view = self.registry().view();
        if self.is_draining() {
            Err(STOPPING.into())
        } else if !view.document().layout.members.contains_key(self.me()) {
            Err(gone(&view, self.me()))
        } else if view.forming() {
            Err("the cluster is still forming: every first member must be reachable once".into())
        } else {
            Ok(view)
        }
    }

    /// Opens a context that a client handed back for this place.
    ///
    /// # Errors
    /// [`Forged`].
    pub fn open(&self, bucket: Incarnation, key: &[u8], sealed: &[u8]) -> Result<Opened, Forged> {
        let view = self.registry().view();
        seal::open(
            &view.document().context_keys,
            seal::Place { bucket, key },
            sealed,
        )
    }

    /// Seals a context for a client.
    pub fn seal(&self, bucket: Incarnation, key: &[u8], context: &Context) -> Vec<u8> {
        let view = self.registry().view();
        let newest = view.document().context_keys.last();
        let newest =
            newest.expect("a node that serves holds document 2, which holds a context key");
        seal::seal(newest, seal::Place { bucket, key }, now_ms(), context)
    }
}

/// Why a node that no document names serves nothing.
fn gone(view: &View, me: &NodeId) -> String {
    let former = view.document().layout.former.values();
    let last = former
        .filter(|former| former.node == *me)
        .max_by_key(|former| former.number);
    last.map_or_else(
        || format!("this node is no member of the cluster: start {me} with --join"),
        |former| {
            format!(
                "this node is no member any more: {}",
                joining::farewell(former)
            )
        },
    )
}

/// Where a key lies by what is in force.
fn slot(view: &View, bucket: &Bucket, key: &Bytes) -> Slot {
    let partition = view.ring().partition(bucket.incarnation, key);
    Slot {
        partition,
        n: bucket.config.n,
        place: Place {
            bucket: bucket.incarnation,
            key: key.clone(),
        },
    }
}

/// The wall clock, which stamps and never decides.
pub(crate) fn now_ms() -> u64 {
    let since = outside::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a failure says that the write was certainly not minted there: another owner may.
fn was_not_minted(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Bucket
            | Failure::NotOwner
            | Failure::Rebuilding
            | Failure::Unreadable(_)
            | Failure::Fenced(_)
            | Failure::DiskFull
            | Failure::Overloaded
            | Failure::NotServing(_)
            | Failure::Malformed(_)
            | Failure::HintsFull
            | Failure::Closing
            | Failure::Stale(_)
            | Failure::Unsure { .. }
            | Failure::NotReaping
    )
}
