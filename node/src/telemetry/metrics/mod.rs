//! What this node counts, as typed methods: the rest of the node never sees a label or a bucket.
//!
//! Names, labels and buckets are an interface; `observability/METRICS.md` lists them and a test compares the
//! list with a live page, both ways. A histogram that can lead to a trace takes the span and leaves an
//! exemplar only if that trace is recorded. Values the node knows anyway (keys, bytes, registry number) are
//! read when someone scrapes, see `gauges.rs`.

mod families;
mod gauges;
mod labels;
mod merkle;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::registry::Registry;
use sibyl_core::membership::State;

pub use self::gauges::{HintReading, Readings};
pub use self::labels::SalvageResult;
pub use self::labels::{
    AmnesiaCause, CacheResult, Direction, GossipKind, HintResult, KnockResult, MAX_BUCKETS,
    MAX_PEERS, MAX_RESOLVERS, Op, Outcome, Quorum, QuorumFailure, RepairMode, Repaired, Resolution,
    ResolverResult, RpcResult, ShedReason, StorageOp, Success,
};
pub use self::text::Page;

use self::families::Families;
use self::gauges::Gauges;
use self::labels::{
    ByBucketResolution, ByCause, ByDirectionPeer, ByFromTo, ByKind, ByKindResult, ByMethodPeer,
    ByMethodPeerResult, ByModeResult, ByOp, ByOpDirection, ByOpOutcome, ByOpReason, ByPeer,
    ByResolver, ByResolverLaw, ByResolverResult, ByResult, Exemplar, Names,
};
use super::propagation;
use super::rpc::Rpc;
use super::span::Span;

/// The node's counters, gauges and histograms.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    gauges: Gauges,
    peers: Names,
    buckets: Names,
    resolvers: Names,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry);
        let gauges = Gauges::register(&mut registry);
        process::register(&mut registry);
        Self {
            registry,
            families,
            gauges,
            peers: Names::new(MAX_PEERS),
            buckets: Names::new(MAX_BUCKETS),
            resolvers: Names::new(MAX_RESOLVERS),
        }
    }

    /// Says where the gauges are read from; the latest source wins. It is called at every scrape and must
    /// be quick.
    pub fn on_scrape(&self, source: impl Fn() -> Readings + Send + Sync + 'static) {
        self.gauges.set_source(Box::new(source));
    }

    /// The page for `GET /metrics`: OpenMetrics if the `Accept` header asks for it, else the classic text
    /// format, which has no exemplars.
    pub fn page(&self, accept: Option<&str>) -> Page {
        text::page(&self.registry, accept)
    }

    /// A request came in. Drop counts it as an error unless it [ends](Request::end) before.
    pub fn request(self: &Arc<Self>, op: Op) -> Request {
        self.families
            .inflight
            .get_or_create(&ByOp { op: op.as_str() })
            .inc();
        Request {
            metrics: Arc::clone(self),
            op,
            began: Instant::now(),
            ended: false,
        }
    }

    /// A client's request, or one of a batch, was not begun.
    pub fn request_shed(&self, op: Op, why: ShedReason) {
        let by = ByOpReason {
            op: op.as_str(),
            reason: why.as_str(),
        };
        self.families.requests_shed.get_or_create(&by).inc();
    }

    /// A quorum was reached or lost, `wait` after it began.
    pub fn quorum(&self, which: Quorum, acks: usize, wait: Duration, span: &Span) {
        let by = ByOp { op: which.as_str() };
        let waits = self.families.quorum_wait.get_or_create(&by);
        waits.observe(wait.as_secs_f64(), exemplar(span), Some(SystemTime::now()));
        self.families
            .quorum_acks
            .get_or_create(&by)
            .observe(acks as f64);
    }

    /// A quorum was missed.
    pub fn quorum_failed(&self, which: Quorum, reason: QuorumFailure) {
        let by = ByOpReason {
            op: which.as_str(),
            reason: reason.as_str(),
        };
        self.families.quorum_failures.get_or_create(&by).inc();
    }

    /// A remote call this node made has ended; without a span nothing leads from it to a trace.
    pub fn rpc(
        &self,
        rpc: Rpc,
        peer: &str,
        result: RpcResult,
        took: Duration,
        span: Option<&Span>,
    ) {
        let method = rpc.as_str();
        let peer = self.peers.admit(peer);
        let by = ByMethodPeer {
            method,
            peer: peer.clone(),
        };
        let times = self.families.rpc_duration.get_or_create(&by);
        let exemplar = span.and_then(exemplar);
        times.observe(took.as_secs_f64(), exemplar, Some(SystemTime::now()));
        let by = ByMethodPeerResult {
            method,
            peer,
            result: result.as_str(),
        };
        self.families.rpc.get_or_create(&by).inc();
    }

    /// Bytes of frames went to or came from a peer.
    pub fn rpc_bytes(&self, direction: Direction, peer: &str, bytes: u64) {
        let by = ByDirectionPeer {
            direction: direction.as_str(),
            peer: self.peers.admit(peer),
        };
        self.families.rpc_bytes.get_or_create(&by).inc_by(bytes);
    }

    /// A read found this many live siblings and a context with this many entries.
    pub fn object(&self, siblings: usize, context_dots: usize) {
        self.families.siblings.observe(siblings as f64);
        self.families.context_dots.observe(context_dots as f64);
    }

    /// A read met a conflict.
    pub fn conflict(&self, bucket: &str, resolution: Resolution) {
        let by = ByBucketResolution {
            bucket: self.buckets.admit(bucket),
            resolution: resolution.as_str(),
        };
        self.families.conflicts.get_or_create(&by).inc();
    }

    /// A resolver was called. `reason` is a stable word when it failed, else empty.
    pub fn resolver(
        &self,
        resolver: &str,
        result: ResolverResult,
        reason: &'static str,
        fuel: u64,
        took: Duration,
        span: &Span,
    ) {
        let resolver = self.resolvers.admit(resolver);
        let by = ByResolver {
            resolver: resolver.clone(),
        };
        let times = self.families.resolver_duration.get_or_create(&by);
        times.observe(took.as_secs_f64(), exemplar(span), Some(SystemTime::now()));
        self.families
            .resolver_fuel
            .get_or_create(&by)
            .observe(fuel as f64);
        let by = ByResolverResult {
            resolver,
            result: result.as_str(),
            reason,
        };
        self.families.resolver_invocations.get_or_create(&by).inc();
    }

    /// A resolver broke a law on a real conflict.
    pub fn law_violation(&self, resolver: &str, law: &'static str) {
        let resolver = self.resolvers.admit(resolver);
        let by = ByResolverLaw { resolver, law };
        self.families.law_violations.get_or_create(&by).inc();
    }

    /// A resolver was compiled.
    pub fn compiled(&self, took: Duration) {
        self.families.compile.observe(took.as_secs_f64());
    }

    /// The view cache was asked.
    pub fn view_cache(&self, result: CacheResult) {
        let by = ByResult {
            result: result.as_str(),
        };
        self.families.view_cache.get_or_create(&by).inc();
    }

    /// A read repair ended.
    pub fn read_repair(&self, mode: RepairMode, result: Success) {
        let by = ByModeResult {
            mode: mode.as_str(),
            result: result.as_str(),
        };
        self.families.read_repairs.get_or_create(&by).inc();
    }

    /// A write was acknowledged with the help of nodes that stand in for an owner.
    pub fn sloppy_write(&self) {
        self.families.sloppy_writes.inc();
    }

    /// A retry was recognised, and acknowledged without being minted.
    pub fn repeated_write(&self) {
        self.families.repeated_writes.inc();
    }

    /// Something became of a hint.
    pub fn hint(&self, result: HintResult) {
        let by = ByResult {
            result: result.as_str(),
        };
        self.families.hints.get_or_create(&by).inc();
    }

    /// Something became of an object that a removed node brought.
    pub fn salvaged(&self, result: SalvageResult) {
        let by = ByResult {
            result: result.as_str(),
        };
        self.families.salvaged.get_or_create(&by).inc();
    }

    /// A hint is on its target's disk, so long after it was kept.
    pub fn hint_delivered(&self, waited: Duration, span: &Span) {
        self.hint(HintResult::Delivered);
        let delays = &self.families.hint_delay;
        delays.observe(
            waited.as_secs_f64(),
            exemplar(span),
            Some(SystemTime::now()),
        );
    }

    /// The store did some work.
    pub fn storage(&self, op: StorageOp, took: Duration) {
        let by = ByOp { op: op.as_str() };
        self.families
            .storage_duration
            .get_or_create(&by)
            .observe(took.as_secs_f64());
    }

    /// The node began as a new actor, because its store could not prove that it remembers.
    pub fn amnesia(&self, cause: AmnesiaCause) {
        let by = ByCause {
            cause: cause.as_str(),
        };
        self.families.amnesia.get_or_create(&by).inc();
    }

    /// A node that is no member knocked, and was told this.
    pub fn knock(&self, result: KnockResult) {
        let by = ByResult {
            result: result.as_str(),
        };
        self.families.knocks.get_or_create(&by).inc();
    }

    /// A question of gossip ended.
    pub fn gossip_round(&self, kind: GossipKind, result: Success) {
        let (kind, result) = (kind.as_str(), result.as_str());
        let by = ByKindResult { kind, result };
        self.families.gossip_rounds.get_or_create(&by).inc();
    }

    /// A message of gossip left.
    pub fn gossip_message(&self, kind: GossipKind, bytes: usize) {
        let by = ByKind {
            kind: kind.as_str(),
        };
        let sizes = self.families.gossip_bytes.get_or_create(&by);
        sizes.observe(bytes as f64);
    }

    /// A member is seen otherwise than before.
    pub fn gossip_changed(&self, from: State, to: State) {
        let (from, to) = (from.as_str(), to.as_str());
        let by = ByFromTo { from, to };
        self.families.gossip_changes.get_or_create(&by).inc();
    }

    /// Everybody came to see a change as this node did.
    pub fn gossip_converged(&self, after: Duration) {
        self.families.gossip_converge.observe(after.as_secs_f64());
    }

    /// A peer's clock is so far ahead of this node's.
    pub fn clock_skew(&self, peer: &str, ahead_ms: i64) {
        let by = ByPeer {
            peer: self.peers.admit(peer),
        };
        let skew = self.families.gossip_skew.get_or_create(&by);
        skew.set(ahead_ms as f64 / 1000.0);
    }

    /// The exporter handed over a batch, or failed to.
    pub(super) fn spans_exported(&self, spans: usize, ok: bool) {
        let result = if ok { Success::Ok } else { Success::Failed };
        let by = ByResult {
            result: result.as_str(),
        };
        self.families.spans.get_or_create(&by).inc_by(spans as u64);
        self.families.export_batches.get_or_create(&by).inc();
    }

    /// Spans were lost before their export: `queue_full` or `shutdown`.
    pub(super) fn spans_dropped(&self, why: &'static str, spans: usize) {
        let by = ByResult { result: why };
        self.families
            .spans_dropped
            .get_or_create(&by)
            .inc_by(spans as u64);
    }
}

/// A way from a histogram to the trace, if there will be one.
fn exemplar(span: &Span) -> Option<Exemplar> {
    let context = span.context();
    span.is_recording().then(|| Exemplar {
        trace_id: span.trace_id().to_string(),
        span_id: format!(
            "{:016x}",
            u64::from_be_bytes(propagation::span_id(&context))
        ),
    })
}

/// A request on its way.
#[derive(Debug)]
pub struct Request {
    metrics: Arc<Metrics>,
    op: Op,
    began: Instant,
    ended: bool,
}

impl Request {
    /// Counts the body's bytes, in or out.
    pub fn bytes(&self, direction: Direction, bytes: usize) {
        let by = ByOpDirection {
            op: self.op.as_str(),
            direction: direction.as_str(),
        };
        self.metrics
            .families
            .request_bytes
            .get_or_create(&by)
            .observe(bytes as f64);
    }

    /// The request was answered.
    pub fn end(mut self, outcome: Outcome, span: &Span) {
        self.count(outcome, exemplar(span));
    }

    fn count(&mut self, outcome: Outcome, exemplar: Option<Exemplar>) {
        self.ended = true;
        let Families {
            requests,
            request_duration,
            inflight,
            ..
        } = &self.metrics.families;
        let op = self.op.as_str();
        requests
            .get_or_create(&ByOpOutcome {
                op,
                outcome: outcome.as_str(),
            })
            .inc();
        let took = self.began.elapsed().as_secs_f64();
        let times = request_duration.get_or_create(&ByOp { op });
        times.observe(took, exemplar, Some(SystemTime::now()));
        inflight.get_or_create(&ByOp { op }).dec();
    }
}

impl Drop for Request {
    /// The client went away, or the handler panicked.
    fn drop(&mut self) {
        if !self.ended {
            self.count(Outcome::Error, None);
        }
    }
}
