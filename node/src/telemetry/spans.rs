//! The span trees of put, get and registry: one constructor per span, with its kind and attributes.
//!
//! `observability/TRACES.md` draws the trees. Rules they keep: at most 15 spans for a quorum request; the
//! server side always takes the remote parent; work that outlives its request is a new root with links;
//! user keys appear only as a hash. Each constructor is cheap when the trace is not recorded.

use std::time::{Duration, SystemTime};

use sibyl_core::id::{Digest, NodeId, Trace};

use super::names::{attribute, event, span};
use super::rpc::Rpc;
use super::span::Span;
use super::tracer::{Name, Tracer};
use super::value::{Kind, LinkKind, Value};

/// Reads faster than this leave no span: nearly all do, and they would double the size of a trace.
pub const SLOW_READ: Duration = Duration::from_micros(50);

/// How a quorum ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumEnd {
    /// Replies or acks that came in time.
    pub acks: usize,
    /// Replicas that failed, refused or timed out.
    pub failures: usize,
    /// Whether fallbacks counted.
    pub sloppy: bool,
    /// Whether R or W was reached.
    pub met: bool,
    /// Time until it was reached or lost.
    pub wait: Duration,
}

/// What one resolver call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolverEnd {
    /// ok, trap, fuel, timeout or invalid.
    pub outcome: super::ResolverResult,
    /// Fuel burnt.
    pub fuel: u64,
    /// Peak memory, bytes.
    pub memory_bytes: u64,
}

impl Tracer {
    /// The root of a client's request: `GET /v1/buckets/{bucket}/keys/{key}` and so on. `route` is the
    /// template, never the path. A client's `traceparent` becomes the parent; whether its sampled flag
    /// counts is a setting.
    pub fn request(&self, method: &str, route: &str, traceparent: Option<&str>) -> Span {
        let parent = self.edge(traceparent);
        let span = self
            .remote(Name::Request(method, route), Kind::Server, parent)
            .start();
        span.set(attribute::HTTP_METHOD, method);
        span.set(attribute::HTTP_ROUTE, route);
        span
    }

    /// The answering side of a remote call.
    pub fn rpc_server(&self, rpc: Rpc, peer: &NodeId, parent: Option<Trace>) -> Span {
        let span = self.remote(rpc.as_str(), Kind::Server, parent).start();
        span.remote_call(rpc, peer);
        span
    }

    /// The asking side of a remote call that no request asked for.
    pub fn rpc_root(&self, rpc: Rpc, peer: &NodeId) -> Span {
        let span = self.root(rpc.as_str(), Kind::Client).start();
        span.remote_call(rpc, peer);
        span
    }

    /// Choosing a registry document: below an admin request, or a root when the node itself wants one.
    pub fn registry_propose(&self, request: Option<&Span>, number: u64) -> Span {
        let builder = match request {
            Some(request) => request.child(span::REGISTRY_PROPOSE, Kind::Internal),
            None => self.root(span::REGISTRY_PROPOSE, Kind::Internal),
        };
        let span = builder.start();
        span.set(attribute::REGISTRY_NUMBER, number);
        span
    }
}

/// How a batch of hints ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayEnd {
    /// How many the target has now.
    pub delivered: usize,
    /// How many it has not.
    pub failed: usize,
    /// How long the oldest had waited.
    pub oldest: Duration,
}

/// Hints.
impl Tracer {
    /// Delivering a batch of hints: a root of its own that links to the writes they carry.
    pub fn hint_replay(&self, target: &NodeId, writes: impl IntoIterator<Item = Trace>) -> Span {
        let builder = self.root(span::HINT_REPLAY, Kind::Producer);
        let span = builder.links(LinkKind::OriginalWrite, writes).start();
        span.set(attribute::HINT_TARGET, target.as_str());
        span
    }
}

/// Hints.
impl Span {
    /// Having `to` keep a write for `target`; its context travels in the hint.
    pub fn hint_store(&self, to: &NodeId, target: &NodeId, bytes: usize) -> Span {
        self.event(event::FALLBACK_CHOSEN, || {
            [
                (attribute::FROM, target.as_str().into()),
                (attribute::TO, to.as_str().into()),
            ]
        });
        let span = self.contender(span::HINT_STORE, Kind::Producer).start();
        span.set(attribute::HINT_TARGET, target.as_str());
        span.set(attribute::STORAGE_BYTES, bytes);
        span
    }

    /// What became of a hint: a stable word.
    pub fn hint_result(&self, result: &'static str) {
        self.set(attribute::HINT_RESULT, result);
    }

    /// One hint of a batch is on its target's disk, or is not.
    pub fn hint_ended(&self, delivered: bool, age: Duration) {
        let name = if delivered {
            event::HINT_DELIVERED
        } else {
            event::HINT_FAILED
        };
        self.event(name, || [(attribute::HINT_AGE_MS, whole_ms(age).into())]);
    }

    /// A batch of hints came to its end.
    pub fn replay_ended(&self, end: ReplayEnd) {
        self.set(attribute::HINT_BATCH_SIZE, end.delivered + end.failed);
        self.set(attribute::HINT_AGE_MS, whole_ms(end.oldest));
        let result = if end.failed == 0 {
            "delivered"
        } else {
            "failed"
        };
        self.hint_result(result);
        if end.failed > 0 {
            let ReplayEnd {
                delivered, failed, ..
            } = end;
            self.fail(
                "undelivered",
                format_args!("{delivered} delivered, {failed} failed"),
            );
        }
    }
}

/// Requests.
impl Span {
    /// Says which key the request is about, once the ring was asked. `key_hash` is the first 8 bytes of the
    /// key's ring hash.
    pub fn about_key(&self, bucket: &str, key_hash: u64, partition: u32) {
        if self.is_recording() {
            self.event(event::RING_LOOKUP, || []);
            self.about_bucket(bucket);
            self.set(attribute::KEY_HASH, format!("{key_hash:016x}"));
            self.set(attribute::PARTITION, partition);
        }
    }

    /// Says which bucket the request is about.
    pub fn about_bucket(&self, bucket: &str) {
        self.set(attribute::BUCKET, bucket);
        self.set(attribute::DB_COLLECTION, bucket);
    }

    /// The HTTP answer: its status, and failure for 5xx.
    pub fn answered(&self, status: u16) {
        self.set(attribute::HTTP_STATUS, status);
        if status >= 500 {
            self.fail(status.to_string(), format_args!("answered {status}"));
        }
    }

    /// Carrying the request to a node that is in the preference list.
    pub fn forward(&self, peer: &NodeId) -> Span {
        let span = self.child(span::FORWARD, Kind::Client).start();
        span.remote_call(Rpc::CoordinatorForward, peer);
        span
    }

    fn remote_call(&self, rpc: Rpc, peer: &NodeId) {
        self.set(attribute::PEER_ID, peer.as_str());
        self.set(attribute::RPC_SYSTEM, "sibyl");
        self.set(attribute::RPC_METHOD, rpc.as_str());
    }

    /// The asking side of a remote call. Below a quorum span it marks itself late where it is.
    pub fn rpc_client(&self, rpc: Rpc, peer: &NodeId) -> Span {
        let span = self.contender(rpc.as_str(), Kind::Client).start();
        span.remote_call(rpc, peer);
        span
    }
}

/// Quorums.
impl Span {
    /// Writing to `n` owners, waiting for `w`.
    pub fn quorum_write(&self, n: usize, w: usize) -> Span {
        let span = self.child(span::QUORUM_WRITE, Kind::Internal).start();
        span.set(attribute::QUORUM_N, n);
        span.set(attribute::QUORUM_W, w);
        span
    }

    /// Reading from `n` owners, waiting for `r`.
    pub fn quorum_read(&self, n: usize, r: usize) -> Span {
        let span = self.child(span::QUORUM_READ, Kind::Internal).start();
        span.set(attribute::QUORUM_N, n);
        span.set(attribute::QUORUM_R, r);
        span
    }

    /// A replica answered well.
    pub fn replica_ack(&self, peer: &NodeId, elapsed: Duration) {
        self.event(event::REPLICA_ACK, || {
            [peer_value(peer), elapsed_value(elapsed)]
        });
    }

    /// A replica did not answer in time.
    pub fn replica_timeout(&self, peer: &NodeId, elapsed: Duration) {
        self.event(event::REPLICA_TIMEOUT, || {
            [peer_value(peer), elapsed_value(elapsed)]
        });
    }

    /// A replica refused or failed; `reason` is a stable word.
    pub fn replica_failed(&self, peer: &NodeId, reason: &'static str, elapsed: Duration) {
        self.event(event::REPLICA_FAILED, || {
            [
                peer_value(peer),
                elapsed_value(elapsed),
                (attribute::REASON, reason.into()),
            ]
        });
    }

    /// The quorum is settled, one way or the other. Answers that come later are marked late. A quorum that
    /// was not met leaves a forced span even when the request is not recorded.
    pub fn quorum_settled(&self, end: QuorumEnd) {
        self.settle();
        self.set_quorum(end);
        if end.met {
            self.event(event::QUORUM_REACHED, || {
                [(attribute::ACKS, end.acks.into())]
            });
        } else if self.is_recording() {
            self.fail(
                "no_quorum",
                format_args!("{} answered, {} failed", end.acks, end.failures),
            );
        } else {
            let span = self
                .child(span::QUORUM_FAILED, Kind::Internal)
                .forced()
                .start();
            span.set_quorum(end);
            span.fail(
                "no_quorum",
                format_args!("{} answered, {} failed", end.acks, end.failures),
            );
        }
    }

    fn set_quorum(&self, end: QuorumEnd) {
        self.set(attribute::QUORUM_ACKS, end.acks);
        self.set(attribute::QUORUM_FAILURES, end.failures);
        self.set(attribute::QUORUM_SLOPPY, end.sloppy);
        self.set(attribute::QUORUM_MET, end.met);
        self.set(attribute::QUORUM_WAIT_MS, whole_ms(end.wait));
    }

    /// Whether the copies that answered a read were not all the same.
    pub fn digests_differ(&self, differ: bool) {
        self.set(attribute::QUORUM_DIGESTS_DIFFER, differ);
    }

    /// Writing the joined copy back: below a blocking read, else a root of its own that links to the read
    /// and may outlive it. `self` is the `quorum.read`.
    pub fn read_repair(&self, blocking: bool) -> Span {
        let builder = if blocking {
            self.child(span::READ_REPAIR, Kind::Internal)
        } else {
            self.tracer()
                .root(span::READ_REPAIR, Kind::Internal)
                .links(LinkKind::RepairedRead, [self.context()])
        };
        let span = builder.start();
        span.set(
            attribute::REPAIR_MODE,
            if blocking { "blocking" } else { "async" },
        );
        span
    }
}

/// Store, siblings, resolvers.
impl Span {
    /// A read of the local store that took `elapsed` and ended now: a span if it was [slow](SLOW_READ).
    pub fn storage_read(&self, elapsed: Duration, bytes: usize) {
        if self.is_recording() && elapsed >= SLOW_READ {
            let began = SystemTime::now().checked_sub(elapsed);
            let span = self.child(span::STORAGE_READ, Kind::Internal);
            let span = span
                .started(began.unwrap_or(SystemTime::UNIX_EPOCH))
                .start();
            span.set(attribute::STORAGE_BYTES, bytes);
        }
    }

    /// A write to the local store; `synced` if it waits for the disk.
    pub fn storage_write(&self, bytes: usize, synced: bool) -> Span {
        let span = self.child(span::STORAGE_WRITE, Kind::Internal).start();
        span.set(attribute::STORAGE_BYTES, bytes);
        span.set(attribute::STORAGE_SYNCED, synced);
        span
    }

    /// Joining the copies that answered and making the view.
    pub fn siblings_reconcile(&self) -> Span {
        self.child(span::SIBLINGS_RECONCILE, Kind::Internal).start()
    }

    /// What joining found: siblings `before`, `after`, and the dots in the context. More than one left is a
    /// conflict: it is noted, and leaves a forced span even when the request is not recorded.
    pub fn siblings_merged(&self, before: usize, after: usize, context_dots: usize) {
        self.set_siblings(before, after, context_dots);
        self.event(event::SIBLINGS_MERGED, || siblings_values(before, after));
        if after <= 1 {
            return;
        }
        if self.is_recording() {
            self.event(event::CONFLICT_DETECTED, || siblings_values(before, after));
        } else {
            let span = self
                .child(span::CONFLICT_DETECTED, Kind::Internal)
                .forced()
                .start();
            span.set_siblings(before, after, context_dots);
        }
    }

    /// A write left so many live siblings on its coordinator's copy. More than one is a conflict that the
    /// next read will meet; if this request is not recorded, that read leaves the forced span.
    pub fn conflict_left(&self, siblings: usize) {
        if siblings > 1 {
            self.event(event::CONFLICT_DETECTED, || {
                [(attribute::AFTER, siblings.into())]
            });
        }
    }

    fn set_siblings(&self, before: usize, after: usize, context_dots: usize) {
        self.set(attribute::SIBLINGS_BEFORE, before);
        self.set(attribute::SIBLINGS_AFTER, after);
        self.set(attribute::CONTEXT_DOTS, context_dots);
        self.set(attribute::CONFLICT, after > 1);
    }

    /// One call of a resolver, linked to the writes that made the siblings (their contexts travel in the
    /// siblings).
    pub fn resolver_resolve(
        &self,
        name: &str,
        version: &Digest,
        writes: impl IntoIterator<Item = Trace>,
    ) -> Span {
        let builder = self.child(span::RESOLVER_RESOLVE, Kind::Internal);
        let span = builder.links(LinkKind::ConflictingWrite, writes).start();
        span.set(attribute::RESOLVER_NAME, name);
        span.show(attribute::RESOLVER_VERSION, version);
        span
    }

    /// Whose laws are checked.
    pub fn resolver_checks(&self, name: &str, version: &Digest) {
        self.set(attribute::RESOLVER_NAME, name.to_owned());
        self.show(attribute::RESOLVER_VERSION, version);
    }

    /// A line of the guest, in its own words: its author decides what is in them.
    pub fn resolver_logged(&self, level: &'static str, message: &str) {
        self.event(event::RESOLVER_LOG, || {
            [
                (attribute::LEVEL, level.into()),
                (attribute::MESSAGE, message.to_owned().into()),
            ]
        });
    }

    /// The tier that was found.
    pub fn resolver_certified(&self, tier: &'static str) {
        self.set(attribute::RESOLVER_CERTIFICATE, tier);
    }

    /// What the resolver call came to. `reason` is a stable word when it failed.
    pub fn resolver_ended(&self, end: ResolverEnd, reason: Option<&'static str>) {
        self.set(attribute::RESOLVER_OUTCOME, end.outcome.as_str());
        self.set(attribute::RESOLVER_FUEL, end.fuel);
        self.set(attribute::RESOLVER_MEMORY, end.memory_bytes);
        if let Some(reason) = reason {
            self.event(event::RESOLVER_FAILED, || {
                [(attribute::REASON, reason.into())]
            });
            self.fail(reason, "the resolver failed; the siblings stay as they are");
        }
    }

    /// How a registry proposal ended.
    pub fn registry_settled(&self, ballots: u64, acks: usize, chosen: bool) {
        self.set(attribute::REGISTRY_BALLOTS, ballots);
        self.set(attribute::REGISTRY_ACKS, acks);
        self.set(attribute::REGISTRY_CHOSEN, chosen);
        if !chosen {
            self.fail(
                "not_chosen",
                format_args!("{acks} acceptors after {ballots} ballots"),
            );
        }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn peer_value(peer: &NodeId) -> (&'static str, Value) {
    (attribute::PEER, peer.as_str().into())
}

fn elapsed_value(elapsed: Duration) -> (&'static str, Value) {
    (attribute::ELAPSED_MS, whole_ms(elapsed).into())
}

fn siblings_values(before: usize, after: usize) -> [(&'static str, Value); 2] {
    [
        (attribute::BEFORE, before.into()),
        (attribute::AFTER, after.into()),
    ]
}
