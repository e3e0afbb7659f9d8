//! The families behind [`Metrics`](super::Metrics): names, help texts and buckets.
//!
//! Families with closed label lists are filled with zeros at start, so a rate over a rare event exists
//! before its first time. Buckets are those of `observability/METRICS.md`.

use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sibyl_core::membership::State;

use super::labels::{
    AmnesiaCause, ByBucketResolution, ByCause, ByDirectionPeer, ByFromTo, ByKind, ByKindResult,
    ByMethodPeer, ByMethodPeerResult, ByModeResult, ByOp, ByOpDirection, ByOpOutcome, ByOpReason,
    ByPeer, ByResolver, ByResolverLaw, ByResolverResult, ByResult, CacheResult, Exemplar,
    GossipKind, HintResult, KnockResult, Op, Outcome, Quorum, QuorumFailure, RepairMode,
    SalvageResult, ShedReason, StorageOp, Success,
};
use super::merkle;

pub(super) type Exemplars = HistogramWithExemplars<Exemplar>;

/// Requests and remote calls, in seconds.
const FAST: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Long work, in seconds.
const SLOW: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Siblings, dots, acks.
const SMALL_COUNTS: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 13.0, 21.0, 50.0];

pub(super) fn slow() -> Exemplars {
    HistogramWithExemplars::new(SLOW.into_iter())
}

fn fast() -> Exemplars {
    HistogramWithExemplars::new(FAST.into_iter())
}

fn storage_fast() -> Histogram {
    // Written out by division, 0.00005 would print as 0.000049999…
    Histogram::new(
        FAST.into_iter()
            .map(|bound| (bound * 100_000.0).round() / 1_000_000.0),
    )
}

fn small_counts() -> Histogram {
    Histogram::new(SMALL_COUNTS)
}

/// 256 bytes to 256 MiB, each four times the one before.
fn bytes() -> Histogram {
    Histogram::new((0..=10).map(|power| 256.0 * 4f64.powi(power)))
}

/// A hundred to ten thousand million, by powers of ten.
fn fuel() -> Histogram {
    Histogram::new((2..=10).map(|power| 10f64.powi(power)))
}

pub(super) type Of<Labels, Metric> = Family<Labels, Metric>;

#[derive(Debug)]
pub(super) struct Families {
    pub(super) requests: Of<ByOpOutcome, Counter>,
    pub(super) request_duration: Of<ByOp, Exemplars>,
    pub(super) requests_shed: Of<ByOpReason, Counter>,
    pub(super) request_bytes: Of<ByOpDirection, Histogram>,
    pub(super) inflight: Of<ByOp, Gauge>,
    pub(super) quorum_wait: Of<ByOp, Exemplars>,
    pub(super) quorum_acks: Of<ByOp, Histogram>,
    pub(super) quorum_failures: Of<ByOpReason, Counter>,
    pub(super) rpc_duration: Of<ByMethodPeer, Exemplars>,
    pub(super) rpc: Of<ByMethodPeerResult, Counter>,
    pub(super) rpc_bytes: Of<ByDirectionPeer, Counter>,
    pub(super) gossip_rounds: Of<ByKindResult, Counter>,
    pub(super) gossip_changes: Of<ByFromTo, Counter>,
    pub(super) gossip_converge: Histogram,
    pub(super) gossip_bytes: Of<ByKind, Histogram>,
    pub(super) gossip_skew: Of<ByPeer, Gauge<f64, AtomicU64>>,
    pub(super) siblings: Histogram,
    pub(super) context_dots: Histogram,
    pub(super) conflicts: Of<ByBucketResolution, Counter>,
    pub(super) resolver_invocations: Of<ByResolverResult, Counter>,
    pub(super) resolver_duration: Of<ByResolver, Exemplars>,
    pub(super) resolver_fuel: Of<ByResolver, Histogram>,
    pub(super) law_violations: Of<ByResolverLaw, Counter>,
    pub(super) compile: Histogram,
    pub(super) view_cache: Of<ByResult, Counter>,
    pub(super) read_repairs: Of<ByModeResult, Counter>,
    pub(super) sloppy_writes: Counter,
    pub(super) repeated_writes: Counter,
    pub(super) hints: Of<ByResult, Counter>,
    pub(super) hint_delay: Exemplars,
    pub(super) salvaged: Of<ByResult, Counter>,
    pub(super) storage_duration: Of<ByOp, Histogram>,
    pub(super) merkle: merkle::Families,
    pub(super) knocks: Of<ByResult, Counter>,
    pub(super) amnesia: Of<ByCause, Counter>,
    pub(super) spans: Of<ByResult, Counter>,
    pub(super) spans_dropped: Of<ByResult, Counter>,
    pub(super) export_batches: Of<ByResult, Counter>,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::new();
        families.register_requests(registry);
        families.register_replication(registry);
        families.register_hints(registry);
        families.register_gossip(registry);
        families.register_merging(registry);
        families.merkle.register(registry);
        families.register_rest(registry);
        families.fill_with_zeros();
        families
    }

    fn new() -> Self {
        Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(fast),
            requests_shed: Family::default(),
            request_bytes: Family::new_with_constructor(bytes),
            inflight: Family::default(),
            quorum_wait: Family::new_with_constructor(fast),
            quorum_acks: Family::new_with_constructor(small_counts),
            quorum_failures: Family::default(),
            rpc_duration: Family::new_with_constructor(fast),
            rpc: Family::default(),
            rpc_bytes: Family::default(),
            gossip_rounds: Family::default(),
            gossip_changes: Family::default(),
            gossip_converge: Histogram::new(SLOW),
            gossip_bytes: Family::new_with_constructor(bytes),
            gossip_skew: Family::default(),
            siblings: small_counts(),
            context_dots: small_counts(),
            conflicts: Family::default(),
            resolver_invocations: Family::default(),
            resolver_duration: Family::new_with_constructor(fast),
            resolver_fuel: Family::new_with_constructor(fuel),
            law_violations: Family::default(),
            compile: Histogram::new(SLOW),
            view_cache: Family::default(),
            read_repairs: Family::default(),
            sloppy_writes: Counter::default(),
            repeated_writes: Counter::default(),
            hints: Family::default(),
            hint_delay: slow(),
            salvaged: Family::default(),
            storage_duration: Family::new_with_constructor(storage_fast),
            merkle: merkle::Families::new(),
            knocks: Family::default(),
            amnesia: Family::default(),
            spans: Family::default(),
            spans_dropped: Family::default(),
            export_batches: Family::default(),
        }
    }

    fn register_requests(&self, to: &mut Registry) {
        let seconds = || Unit::Seconds;
        to.register(
            "sibyl_requests",
            "Requests of clients, by how they ended",
            self.requests.clone(),
        );
        let help = "Time from the request's head to the answer";
        to.register_with_unit(
            "sibyl_request_duration",
            help,
            seconds(),
            self.request_duration.clone(),
        );
        let help = "Bodies of requests (in) and answers (out)";
        to.register_with_unit(
            "sibyl_request",
            help,
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        to.register(
            "sibyl_requests_shed",
            "Requests of clients that were not begun for want of room",
            self.requests_shed.clone(),
        );
        to.register(
            "sibyl_inflight_requests",
            "Requests not answered yet",
            self.inflight.clone(),
        );
        let help = "Time until a quorum was reached or lost";
        to.register_with_unit(
            "sibyl_quorum_wait",
            help,
            seconds(),
            self.quorum_wait.clone(),
        );
        let help = "Replicas that had answered when a quorum was settled";
        to.register("sibyl_quorum_acks", help, self.quorum_acks.clone());
        to.register(
            "sibyl_quorum_failures",
            "Quorums missed",
            self.quorum_failures.clone(),
        );
    }

    fn register_replication(&self, to: &mut Registry) {
        let help = "Time of calls to other nodes";
        let unit = Unit::Seconds;
        to.register_with_unit(
            "sibyl_replica_rpc_duration",
            help,
            unit,
            self.rpc_duration.clone(),
        );
        let help = "Calls to other nodes, by how they ended";
        to.register("sibyl_replica_rpc", help, self.rpc.clone());
        let help = "Frames from (in) and to (out) other nodes";
        to.register_with_unit("sibyl_rpc", help, Unit::Bytes, self.rpc_bytes.clone());
        to.register(
            "sibyl_read_repairs",
            "Read repairs",
            self.read_repairs.clone(),
        );
    }

    fn register_hints(&self, to: &mut Registry) {
        let help = "Writes acknowledged with the help of nodes that stand in for an owner";
        to.register("sibyl_sloppy_writes", help, self.sloppy_writes.clone());
        let help =
            "Retries by Idempotency-Key that were recognised and acknowledged, and minted nothing";
        to.register("sibyl_repeated_writes", help, self.repeated_writes.clone());
        let help = "Hints, by what became of them";
        to.register("sibyl_hints", help, self.hints.clone());
        let help = "Time from keeping a hint to its target's acknowledgement";
        let unit = Unit::Seconds;
        to.register_with_unit("sibyl_hint_delay", help, unit, self.hint_delay.clone());
        let help = "Objects that removed nodes brought, by what became of them here";
        to.register("sibyl_salvaged", help, self.salvaged.clone());
    }

    fn register_gossip(&self, to: &mut Registry) {
        let help = "Questions of gossip, by how they ended";
        to.register("sibyl_gossip_rounds", help, self.gossip_rounds.clone());
        let help = "Members seen otherwise than before";
        to.register(
            "sibyl_gossip_state_changes",
            help,
            self.gossip_changes.clone(),
        );
        let help = "Time until every member that is alive saw a change as this node did";
        to.register_with_unit(
            "sibyl_gossip_converge",
            help,
            Unit::Seconds,
            self.gossip_converge.clone(),
        );
        let help = "Messages of gossip that this node sent";
        to.register_with_unit(
            "sibyl_gossip_message",
            help,
            Unit::Bytes,
            self.gossip_bytes.clone(),
        );
        let help = "How far a peer's clock is ahead of this node's; shown, never believed";
        to.register_with_unit(
            "sibyl_gossip_clock_skew",
            help,
            Unit::Seconds,
            self.gossip_skew.clone(),
        );
    }

    fn register_merging(&self, to: &mut Registry) {
        let seconds = || Unit::Seconds;
        to.register(
            "sibyl_siblings",
            "Live siblings a read found",
            self.siblings.clone(),
        );
        let help = "Entries of the causal context a read found";
        to.register("sibyl_context_dots", help, self.context_dots.clone());
        let help = "Reads that met a conflict, by what became of it";
        to.register("sibyl_conflicts", help, self.conflicts.clone());
        let help = "Calls of resolvers, by how they ended";
        to.register(
            "sibyl_resolver_invocations",
            help,
            self.resolver_invocations.clone(),
        );
        let help = "Laws that a resolver broke on real conflicts";
        to.register("sibyl_law_violations", help, self.law_violations.clone());
        let help = "Time of resolver calls";
        to.register_with_unit(
            "sibyl_resolver_duration",
            help,
            seconds(),
            self.resolver_duration.clone(),
        );
        let help = "Fuel that resolver calls burnt";
        to.register("sibyl_resolver_fuel_used", help, self.resolver_fuel.clone());
        let help = "Time to compile a resolver";
        to.register_with_unit("sibyl_compile", help, seconds(), self.compile.clone());
        to.register(
            "sibyl_view_cache",
            "Views asked of the cache",
            self.view_cache.clone(),
        );
    }

    fn register_rest(&self, to: &mut Registry) {
        let help = "Time of work of the local store";
        let unit = Unit::Seconds;
        to.register_with_unit(
            "sibyl_storage_op_duration",
            help,
            unit,
            self.storage_duration.clone(),
        );
        let help = "Questions of nodes that are no members, by what they were told";
        to.register("sibyl_knocks", help, self.knocks.clone());
        let help = "Starts as a new actor because the store could not prove that it remembers";
        to.register("sibyl_amnesia", help, self.amnesia.clone());
        to.register(
            "sibyl_trace_spans",
            "Spans handed to the exporter",
            self.spans.clone(),
        );
        let help = "Spans lost before their export";
        to.register(
            "sibyl_trace_spans_dropped",
            help,
            self.spans_dropped.clone(),
        );
        let help = "Batches of spans handed to the exporter";
        to.register(
            "sibyl_trace_export_batches",
            help,
            self.export_batches.clone(),
        );
    }

    fn fill_with_zeros(&self) {
        for op in Op::ALL.iter().map(|op| op.as_str()) {
            for outcome in Outcome::ALL.iter().map(|outcome| outcome.as_str()) {
                zero(&self.requests, ByOpOutcome { op, outcome });
            }
            for reason in ShedReason::ALL.iter().map(|reason| reason.as_str()) {
                zero(&self.requests_shed, ByOpReason { op, reason });
            }
            zero(&self.request_duration, ByOp { op });
            zero(&self.inflight, ByOp { op });
        }
        for op in Quorum::ALL.iter().map(|op| op.as_str()) {
            for reason in QuorumFailure::ALL.iter().map(|reason| reason.as_str()) {
                zero(&self.quorum_failures, ByOpReason { op, reason });
            }
            zero(&self.quorum_wait, ByOp { op });
            zero(&self.quorum_acks, ByOp { op });
        }
        for op in StorageOp::ALL.iter().map(|op| op.as_str()) {
            zero(&self.storage_duration, ByOp { op });
        }
        for result in CacheResult::ALL.iter().map(|result| result.as_str()) {
            zero(&self.view_cache, ByResult { result });
        }
        for result in HintResult::ALL.iter().map(|result| result.as_str()) {
            zero(&self.hints, ByResult { result });
        }
        for result in SalvageResult::ALL.iter().map(|result| result.as_str()) {
            zero(&self.salvaged, ByResult { result });
        }
        for result in KnockResult::ALL.iter().map(|result| result.as_str()) {
            zero(&self.knocks, ByResult { result });
        }
        for cause in AmnesiaCause::ALL.iter().map(|cause| cause.as_str()) {
            zero(&self.amnesia, ByCause { cause });
        }
        for result in Success::ALL.iter().map(|result| result.as_str()) {
            for mode in RepairMode::ALL.iter().map(|mode| mode.as_str()) {
                zero(&self.read_repairs, ByModeResult { mode, result });
            }
            zero(&self.spans, ByResult { result });
            zero(&self.export_batches, ByResult { result });
        }
        self.fill_gossip();
        for result in ["queue_full", "shutdown"] {
            zero(&self.spans_dropped, ByResult { result });
        }
    }
}

impl Families {
    fn fill_gossip(&self) {
        for kind in GossipKind::ALL.iter().map(|kind| kind.as_str()) {
            for result in Success::ALL.iter().map(|result| result.as_str()) {
                zero(&self.gossip_rounds, ByKindResult { kind, result });
            }
            zero(&self.gossip_bytes, ByKind { kind });
        }
        let states = || State::ALL.iter().map(|state| state.as_str());
        for from in states() {
            for to in states().filter(|to| *to != from) {
                zero(&self.gossip_changes, ByFromTo { from, to });
            }
        }
    }
}

/// Makes a series exist.
fn zero<Labels: Clone + Hash + Eq, Metric: Clone>(family: &Of<Labels, Metric>, labels: Labels) {
    drop(family.get_or_create_owned(&labels));
}
