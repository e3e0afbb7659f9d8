//! Values the node knows anyway, read when someone scrapes: no counter to keep in step, none to forget.
//!
//! The node hands in one function that fills [`Readings`]. What it leaves `None` is not on the page, because
//! a made-up zero would be a lie in a dashboard.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByState, ByTarget};

/// What the node knows about itself at this moment. `None` stays off the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Number of the registry document this node acts on.
    pub registry_number: Option<u64>,
    /// Members by this node's view: alive, suspect, down, left.
    pub members: Option<[u64; 4]>,
    /// The last document that changed who owns what.
    pub ring_version: Option<u64>,
    /// Partitions that are on their way here, each from one owner of before.
    pub transfers_pending: Option<u64>,
    /// Partitions this node owns.
    pub partitions_owned: Option<u64>,
    /// Partitions that are to be compared with other owners, or whose trees are computed anew.
    pub merkle_dirty_partitions: Option<u64>,
    /// Keys in the store, tombstones included.
    pub storage_keys: Option<u64>,
    /// Bytes of the store on disk.
    pub storage_bytes: Option<u64>,
    /// Keys whose only siblings are tombstones.
    pub storage_tombstones: Option<u64>,
    /// How long the reaping epoch has lasted, seconds; none if this node takes no part.
    pub reap_epoch_age_seconds: Option<u64>,
    /// Objects that nobody took when this node came back after its removal; none if it never did.
    pub salvage_quarantined: Option<u64>,
    /// Free bytes on the store's disk.
    pub disk_available_bytes: Option<u64>,
    /// Size of the store's disk.
    pub disk_total_bytes: Option<u64>,
    /// What that leaves room for: 0 everything, 1 no values, 2 nothing.
    pub disk_level: Option<u64>,
    /// What is kept for other nodes, by target.
    pub hints: Vec<HintReading>,
}

/// What is kept for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintReading {
    /// For whom.
    pub target: String,
    /// How many hints.
    pub pending: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How long the oldest has waited, seconds.
    pub oldest_seconds: u64,
}

const STATES: [&str; 4] = ["alive", "suspect", "down", "left"];

type Source = Box<dyn Fn() -> Readings + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Gauges(Arc<RwLock<Option<Source>>>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Gauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        registry.register_collector(Box::new(gauges.clone()));
        gauges
    }

    pub(super) fn set_source(&self, source: Source) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }
}

impl Collector for Gauges {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        build_info(&mut to)?;
        let source = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(readings) = source.as_ref().map(|read| read()) else {
            return Ok(());
        };
        drop(source);
        standing(&mut to, &readings)?;
        let bytes = Some(&Unit::Bytes);
        let help = "Keys in the store, tombstones included";
        gauge(
            &mut to,
            "sibyl_storage_keys",
            help,
            None,
            readings.storage_keys,
        )?;
        let help = "The store on disk";
        gauge(
            &mut to,
            "sibyl_storage",
            help,
            bytes,
            readings.storage_bytes,
        )?;
        let help = "Keys with nothing but tombstones";
        gauge(
            &mut to,
            "sibyl_storage_tombstones",
            help,
            None,
            readings.storage_tombstones,
        )?;
        let help = "How long the reaping epoch has lasted";
        gauge(
            &mut to,
            "sibyl_reap_epoch_age",
            help,
            Some(&Unit::Seconds),
            readings.reap_epoch_age_seconds,
        )?;
        salvaged(&mut to, &readings)?;
        let help = "Free on the store's disk";
        gauge(
            &mut to,
            "sibyl_storage_disk_available",
            help,
            bytes,
            readings.disk_available_bytes,
        )?;
        let help = "Size of the store's disk";
        gauge(
            &mut to,
            "sibyl_storage_disk_total",
            help,
            bytes,
            readings.disk_total_bytes,
        )?;
        let help = "What the disk leaves room for: 0 everything, 1 no values, 2 nothing";
        gauge(
            &mut to,
            "sibyl_storage_disk_level",
            help,
            None,
            readings.disk_level,
        )?;
        members(&mut to, readings.members)?;
        hints(&mut to, &readings.hints)
    }
}

/// What this node acts on, and what it still has to compare.
fn salvaged(to: &mut DescriptorEncoder<'_>, readings: &Readings) -> fmt::Result {
    let help = "Objects that this node brought after its removal and nobody took";
    let count = readings.salvage_quarantined;
    gauge(to, "sibyl_salvage_quarantined", help, None, count)
}

fn standing(to: &mut DescriptorEncoder<'_>, readings: &Readings) -> fmt::Result {
    let help = "Number of the registry document this node acts on";
    gauge(
        to,
        "sibyl_registry_number",
        help,
        None,
        readings.registry_number,
    )?;
    let help = "Number of the last registry document that changed who owns what";
    gauge(to, "sibyl_ring_version", help, None, readings.ring_version)?;
    let help = "Partitions on their way here, counted once for each owner they are fetched from";
    gauge(
        to,
        "sibyl_ring_transfers_pending",
        help,
        None,
        readings.transfers_pending,
    )?;
    let help = "Partitions this node owns";
    gauge(
        to,
        "sibyl_ring_partitions_owned",
        help,
        None,
        readings.partitions_owned,
    )?;
    let help = "Partitions to be compared with other owners, or whose trees are computed anew";
    gauge(
        to,
        "sibyl_merkle_dirty_partitions",
        help,
        None,
        readings.merkle_dirty_partitions,
    )?;
    Ok(())
}

pub(super) fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: Option<u64>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    // As f64, because a gauge's integers are signed: bytes of a very full disk would turn negative.
    let value = ConstGauge::new(value as f64);
    value.encode(to.encode_descriptor(name, &format!("{help}."), unit, MetricType::Gauge)?)
}

fn members(to: &mut DescriptorEncoder<'_>, members: Option<[u64; 4]>) -> fmt::Result {
    let Some(members) = members else {
        return Ok(());
    };
    let help = "Members by this node's view.";
    let mut family = to.encode_descriptor("sibyl_gossip_members", help, None, MetricType::Gauge)?;
    for (state, count) in STATES.into_iter().zip(members) {
        ConstGauge::new(count as f64).encode(family.encode_family(&ByState { state })?)?;
    }
    Ok(())
}

fn hints(to: &mut DescriptorEncoder<'_>, hints: &[HintReading]) -> fmt::Result {
    type Of = fn(&HintReading) -> u64;
    let families: [(&str, &str, Option<&Unit>, Of); 3] = [
        (
            "sibyl_hints_pending",
            "Hints that wait for their target.",
            None,
            |hint| hint.pending,
        ),
        (
            "sibyl_hints_pending",
            "Hints that wait for their target, in the store.",
            Some(&Unit::Bytes),
            |hint| hint.bytes,
        ),
        (
            "sibyl_hint_oldest_age",
            "How long the oldest hint has waited for its target.",
            Some(&Unit::Seconds),
            |hint| hint.oldest_seconds,
        ),
    ];
    for (name, help, unit, value) in families {
        let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for hint in hints {
            let target = hint.target.clone();
            let value = ConstGauge::new(value(hint) as f64);
            value.encode(family.encode_family(&ByTarget { target })?)?;
        }
    }
    Ok(())
}

fn build_info(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("git", option_env!("SIBYL_GIT").unwrap_or("unknown")),
    ];
    let help = "What this node was built from; always 1.";
    let mut family = to.encode_descriptor("sibyl_build_info", help, None, MetricType::Gauge)?;
    ConstGauge::new(1i64).encode(family.encode_family(&labels)?)
}
