//! `observability/METRICS.md` and a live page say the same, and the page is what scrapers expect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sibyl_core::membership::State;

use super::*;
use crate::telemetry::settings::{Collector, Protocol};
use crate::telemetry::{Kind, Settings, Telemetry};

const DOCUMENT: &str = include_str!("../../../../observability/METRICS.md");
const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text; version=1.0.0");

/// A node that records every trace and sends to nobody.
fn node(ratio: f64) -> Telemetry {
    let collector = Collector {
        endpoint: "http://127.0.0.1:9".to_owned(),
        protocol: Protocol::Http,
        timeout: Duration::from_millis(10),
        queue_spans: 1000,
        interval: Duration::from_secs(60),
    };
    Telemetry::start(Settings {
        collector: Some(collector),
        node_id: "n1".parse().expect("a node id"),
        cluster_id: "test".to_owned(),
        service_name: None,
        ratio,
        trust_client_sampling: false,
    })
    .expect("good settings")
}

/// Counts everything once.
fn count_everything(node: &Telemetry) {
    let Telemetry { tracer, metrics } = node;
    let span = tracer.root("x", Kind::Internal).start();
    let took = Duration::from_millis(3);
    let request = metrics.request(Op::Put);
    request.bytes(Direction::In, 1000);
    request.end(Outcome::Ok, &span);
    metrics.quorum(Quorum::Write, 2, took, &span);
    metrics.quorum_failed(Quorum::Read, QuorumFailure::Timeout);
    metrics.rpc(Rpc::ReplicaPut, "n2", RpcResult::Ok, took, Some(&span));
    metrics.rpc_bytes(Direction::Out, "n2", 300);
    metrics.object(2, 5);
    metrics.conflict("carts", Resolution::View);
    metrics.resolver("cart", ResolverResult::Ok, "", 391, took, &span);
    metrics.law_violation("cart", "closure");
    metrics.compiled(Duration::from_secs(2));
    metrics.view_cache(CacheResult::Hit);
    metrics.read_repair(RepairMode::Async, Success::Ok);
    metrics.merkle_synced("n2", Success::Ok, took, &span);
    metrics.merkle_repaired("n2", Repaired::Sent, 4);
    metrics.merkle_succeeded("n2");
    metrics.sloppy_write();
    metrics.repeated_write();
    metrics.hint_delivered(Duration::from_secs(3), &span);
    metrics.salvaged(SalvageResult::Imported);
    metrics.storage(StorageOp::Get, Duration::from_micros(70));
    metrics.amnesia(AmnesiaCause::Missing);
    metrics.knock(KnockResult::Named);
    metrics.request_shed(Op::Get, ShedReason::Full);
    metrics.gossip_round(GossipKind::Pull, Success::Ok);
    metrics.gossip_message(GossipKind::Pull, 400);
    metrics.gossip_changed(State::Alive, State::Suspect);
    metrics.gossip_converged(Duration::from_secs(1));
    metrics.clock_skew("n2", -1_500);
    metrics.on_scrape(|| Readings {
        registry_number: Some(7),
        members: Some([3, 0, 0, 0]),
        partitions_owned: Some(256),
        ring_version: Some(6),
        transfers_pending: Some(0),
        merkle_dirty_partitions: Some(3),
        storage_keys: Some(10),
        storage_bytes: Some(u64::MAX),
        storage_tombstones: Some(1),
        reap_epoch_age_seconds: Some(1),
        salvage_quarantined: Some(1),
        disk_available_bytes: Some(1),
        disk_total_bytes: Some(2),
        disk_level: Some(1),
        hints: vec![HintReading {
            target: "n2".into(),
            pending: 3,
            bytes: 300,
            oldest_seconds: 9,
        }],
    });
}

#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The tables of the document: name to type and labels.
fn documented() -> BTreeMap<String, Metric> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let metric = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(str::trim)
            .filter(|label| !label.is_empty());
        let kind = cells[2].replace(" + exemplar", "");
        let metric = Metric {
            kind,
            labels: labels.map(str::to_owned).collect(),
        };
        (cells[1].trim_matches('`').to_owned(), metric)
    };
    rows.map(metric).collect()
}

/// The families of a page in the classic format, where a family is called like its samples.
fn exported(page: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for line in page.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            let (name, kind) = header.split_once(' ').expect("a name and a type");
            found.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') {
            let (name, labels) = sample(line);
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let family = family
                .filter(|family| found.contains_key(*family))
                .unwrap_or(name);
            let metric = found.get_mut(family).expect("a header comes first");
            metric
                .labels
                .extend(labels.into_iter().filter(|label| label != "le"));
        }
    }
    found
}

/// Name and label names of a sample; checks that its value is a number.
fn sample(line: &str) -> (&str, Vec<String>) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    value
        .parse::<f64>()
        .unwrap_or_else(|_| panic!("{value} in {line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return (series, Vec::new());
    };
    let labels = labels.strip_suffix('}').expect("labels end");
    let names = labels
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""));
    (name, names.map(|(name, _)| name.to_owned()).collect())
}

#[tokio::test]
async fn the_document_and_a_live_page_say_the_same() {
    let node = node(1.0);
    count_everything(&node);
    let page = node.metrics.page(None);
    assert_eq!(
        page.content_type,
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let mut documented = documented();
    if !page.body.contains("process_max_fds") {
        documented.remove("process_max_fds");
    }
    assert_eq!(exported(&page.body), documented);
}

#[test]
fn the_document_names_the_histograms_with_exemplars() {
    let node = node(1.0);
    count_everything(&node);
    let page = node.metrics.page(OPEN_METRICS).body;
    let with = page.lines().filter(|line| line.contains(" # {"));
    let with: BTreeSet<_> = with
        .filter_map(|line| line.split_once("_bucket{"))
        .map(|(name, _)| name)
        .collect();
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.contains("| histogram + exemplar |"));
    let told: BTreeSet<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert_eq!(with, told);
}

#[test]
fn exemplars_lead_only_to_recorded_traces() {
    for (ratio, led) in [(1.0, true), (0.0, false)] {
        let node = node(ratio);
        let span = node.tracer.root("x", Kind::Internal).start();
        node.metrics.request(Op::Get).end(Outcome::Ok, &span);
        let page = node.metrics.page(OPEN_METRICS).body;
        let id = format!("# {{trace_id=\"{}\",span_id=\"", span.trace_id());
        assert_eq!(page.contains(&id), led);
        assert_eq!(page.contains("trace_id"), led);
    }
}

#[test]
fn open_metrics_keeps_its_rules() {
    let node = node(1.0);
    count_everything(&node);
    let page = node.metrics.page(OPEN_METRICS);
    assert_eq!(
        page.content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(page.body.ends_with("\n# EOF\n"));
    let mut family = ("", "");
    let mut seen = BTreeSet::new();
    for line in page.body.lines().filter(|line| *line != "# EOF") {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            family = header.split_once(' ').expect("a name and a type");
            assert!(seen.insert(family.0), "{} comes twice", family.0);
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').expect("a name and a unit");
            assert!(name.ends_with(unit), "{line}");
        } else if !line.starts_with('#') {
            let (name, _) = sample(line.split(" # {").next().expect("a sample"));
            let end = name
                .strip_prefix(family.0)
                .unwrap_or_else(|| panic!("{line} in {family:?}"));
            let ends: &[&str] = match family.1 {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(ends.contains(&end), "{line} in {family:?}");
        }
    }
}

#[test]
fn buckets_are_those_of_the_document() {
    let node = node(0.0);
    count_everything(&node);
    let page = node.metrics.page(None).body;
    let bounds = |name: &str, label: &str| {
        let head = format!("{name}_bucket{{le=\"");
        let lines = page.lines().filter_map(|line| line.strip_prefix(&head));
        let bounds = lines
            .filter(|line| line.contains(label))
            .filter_map(|line| line.split('"').next());
        bounds
            .map(|bound| bound.trim_end_matches(".0").to_owned())
            .collect::<Vec<_>>()
    };
    let told = |name: &str| {
        let (_, after) = DOCUMENT
            .split_once(&format!("**{name}** = "))
            .expect("the document tells");
        let list = after
            .split(';')
            .next()
            .expect("a list")
            .trim_end_matches('.');
        let list = list.split(',').map(|bound| bound.trim().to_owned());
        list.chain(["+Inf".to_owned()]).collect::<Vec<_>>()
    };
    let get = "op=\"get\"";
    assert_eq!(bounds("sibyl_request_duration_seconds", get), told("fast"));
    assert_eq!(bounds("sibyl_compile_seconds", ""), told("slow"));
    assert_eq!(bounds("sibyl_siblings", ""), told("small counts"));
    let storage = bounds("sibyl_storage_op_duration_seconds", get);
    assert_eq!(storage[..3], ["0.00005", "0.0001", "0.00025"]);
    assert_eq!(
        bounds("sibyl_request_bytes", "direction=\"in\"")[10],
        "268435456"
    );
    assert_eq!(bounds("sibyl_resolver_fuel_used", "").len(), 10);
}

#[test]
fn a_request_nobody_ended_is_an_error() {
    let node = node(0.0);
    let request = node.metrics.request(Op::Get);
    let holds = |line: &str| {
        node.metrics
            .page(None)
            .body
            .lines()
            .any(|found| found == line)
    };
    assert!(holds("sibyl_inflight_requests{op=\"get\"} 1"));
    drop(request);
    assert!(holds("sibyl_inflight_requests{op=\"get\"} 0"));
    assert!(holds(
        "sibyl_requests_total{op=\"get\",outcome=\"error\"} 1"
    ));
}

#[test]
fn hostile_names_cannot_break_or_flood_the_page() {
    let node = node(0.0);
    for number in 0..10 * MAX_BUCKETS {
        node.metrics
            .conflict(&format!("b\"\n # {{{number}"), Resolution::Kept);
    }
    let page = node.metrics.page(None).body;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        sample(line);
    }
    let series = page
        .lines()
        .filter(|line| line.starts_with("sibyl_conflicts_total{"));
    assert_eq!(series.count(), MAX_BUCKETS + 1);
    assert!(page.contains(&format!(
        "{{bucket=\"other\",resolution=\"kept\"}} {}",
        9 * MAX_BUCKETS
    )));
}
