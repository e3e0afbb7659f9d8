//! What anti-entropy counts: exchanges, what they moved, and when each peer was last found equal.
//!
//! How many partitions are to be compared is read when someone scrapes, see `gauges.rs`. The wall clock stamps
//! the last success and decides nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::families::{Exemplars, Of, slow};
use super::labels::{ByDirectionPeer, ByPeer, ByPeerResult, Repaired, Success};
use super::{Metrics, Span, exemplar};

#[derive(Debug)]
pub(super) struct Families {
    syncs: Of<ByPeerResult, Counter>,
    duration: Exemplars,
    repaired: Of<ByDirectionPeer, Counter>,
    succeeded: Of<ByPeer, Gauge>,
}

impl Families {
    pub(super) fn new() -> Self {
        Self {
            syncs: Family::default(),
            duration: slow(),
            repaired: Family::default(),
            succeeded: Family::default(),
        }
    }

    pub(super) fn register(&self, to: &mut Registry) {
        let help = "Exchanges with other owners, by how they ended";
        to.register("sibyl_merkle_syncs", help, self.syncs.clone());
        let (help, unit) = ("Time of exchanges", Unit::Seconds);
        to.register_with_unit(
            "sibyl_merkle_sync_duration",
            help,
            unit,
            self.duration.clone(),
        );
        let help = "Objects that exchanges moved";
        to.register("sibyl_merkle_keys_repaired", help, self.repaired.clone());
        let help = "When an exchange with this peer last ended with both equal, since 1970";
        let unit = Unit::Seconds;
        to.register_with_unit(
            "sibyl_merkle_last_success_timestamp",
            help,
            unit,
            self.succeeded.clone(),
        );
    }
}

impl Metrics {
    /// An exchange ended.
    pub fn merkle_synced(&self, peer: &str, result: Success, took: Duration, span: &Span) {
        let by = ByPeerResult {
            peer: self.peers.admit(peer),
            result: result.as_str(),
        };
        let merkle = &self.families.merkle;
        merkle.syncs.get_or_create(&by).inc();
        merkle
            .duration
            .observe(took.as_secs_f64(), exemplar(span), None);
    }

    /// An exchange moved objects.
    pub fn merkle_repaired(&self, peer: &str, direction: Repaired, objects: u32) {
        let by = ByDirectionPeer {
            direction: direction.as_str(),
            peer: self.peers.admit(peer),
        };
        self.families
            .merkle
            .repaired
            .get_or_create(&by)
            .inc_by(u64::from(objects));
    }

    /// A partition is equal with a peer's.
    pub fn merkle_succeeded(&self, peer: &str) {
        let by = ByPeer {
            peer: self.peers.admit(peer),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.families.merkle.succeeded.get_or_create(&by).set(now);
    }
}
