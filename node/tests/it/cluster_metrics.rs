//! Metrics of a real cluster: after a day's work in small, what should have moved has moved, under true labels.
//!
//! `observability/METRICS.md` is the list: each metric in it must be on the page of a node that did everything,
//! but for those that only a damaged node shows.

use fake_opentelemetry_collector::ExportedSpan;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::live::{Live, With, until};
use crate::otlp::Receiver;
use crate::resolver::fixture::{guest, pick};

const METRICS: &str = include_str!("../../../observability/METRICS.md");
/// Not on the page of a healthy node.
const ONLY_IN_TROUBLE: &[&str] = &[
    "sibyl_amnesia_total",
    "sibyl_law_violations_total",
    "sibyl_salvage_quarantined",
    "sibyl_trace_spans_dropped_total",
];
/// Listed, and not measured by any store yet.
const NOT_YET: &[&str] = &[];

/// Moved on n1, which was asked everything: name, and labels that one of its samples carries.
const MOVED: &[(&str, &[&str])] = &[
    ("sibyl_requests_total", &["put", "ok"]),
    ("sibyl_requests_total", &["put", "bad_context"]),
    ("sibyl_requests_total", &["put", "too_large"]),
    ("sibyl_requests_total", &["put", "no_quorum"]),
    ("sibyl_requests_total", &["get", "ok"]),
    ("sibyl_requests_total", &["get", "not_found"]),
    ("sibyl_requests_total", &["get", "conflict"]),
    ("sibyl_requests_total", &["get", "no_quorum"]),
    ("sibyl_requests_total", &["delete", "ok"]),
    ("sibyl_requests_total", &["siblings", "ok"]),
    ("sibyl_requests_total", &["explain", "ok"]),
    ("sibyl_requests_total", &["list", "ok"]),
    ("sibyl_requests_total", &["batch", "ok"]),
    ("sibyl_requests_total", &["conflicts", "ok"]),
    ("sibyl_requests_total", &["bucket", "ok"]),
    ("sibyl_requests_total", &["resolver", "ok"]),
    ("sibyl_requests_total", &["cluster", "ok"]),
    ("sibyl_request_duration_seconds_count", &["put"]),
    ("sibyl_request_bytes_count", &["put", "in"]),
    ("sibyl_request_bytes_sum", &["get", "out"]),
    ("sibyl_inflight_requests", &["cluster"]),
    ("sibyl_quorum_wait_seconds_count", &["put"]),
    ("sibyl_quorum_wait_seconds_count", &["get"]),
    ("sibyl_quorum_acks_sum", &["put"]),
    ("sibyl_quorum_failures_total", &["put", "unavailable"]),
    ("sibyl_quorum_failures_total", &["get", "unavailable"]),
    ("sibyl_quorum_failures_total", &["put", "timeout"]),
    (
        "sibyl_replica_rpc_duration_seconds_count",
        &["Replica/Put", "n2"],
    ),
    ("sibyl_replica_rpc_total", &["Replica/Put", "n2", "ok"]),
    (
        "sibyl_replica_rpc_total",
        &["Replica/Put", "n3", "unavailable"],
    ),
    ("sibyl_replica_rpc_total", &["Replica/Put", "n3", "timeout"]),
    ("sibyl_replica_rpc_total", &["Replica/Digest", "n2", "ok"]),
    ("sibyl_replica_rpc_total", &["Replica/List", "n3", "ok"]),
    ("sibyl_replica_rpc_total", &["Resolver/Store", "n2", "ok"]),
    ("sibyl_replica_rpc_total", &["Registry/Prepare", "n2", "ok"]),
    ("sibyl_replica_rpc_total", &["Registry/Accept", "n2", "ok"]),
    ("sibyl_rpc_bytes_total", &["in", "n2"]),
    ("sibyl_rpc_bytes_total", &["out", "n3"]),
    ("sibyl_read_repairs_total", &["async", "ok"]),
    ("sibyl_registry_number", &[]),
    ("sibyl_ring_partitions_owned", &[]),
    ("sibyl_gossip_members", &["alive"]),
    ("sibyl_gossip_rounds_total", &["pull", "ok"]),
    ("sibyl_gossip_rounds_total", &["ping", "failed"]),
    ("sibyl_gossip_message_bytes_count", &["pull"]),
    ("sibyl_gossip_state_changes_total", &["alive", "suspect"]),
    ("sibyl_gossip_state_changes_total", &["suspect", "alive"]),
    ("sibyl_gossip_converge_seconds_count", &[]),
    ("sibyl_siblings_count", &[]),
    ("sibyl_context_dots_sum", &[]),
    ("sibyl_conflicts_total", &["plain", "kept"]),
    ("sibyl_conflicts_total", &["picks", "view"]),
    ("sibyl_conflicts_total", &["traps", "failed"]),
    ("sibyl_resolver_invocations_total", &["picks", "ok"]),
    (
        "sibyl_resolver_invocations_total",
        &["traps", "trap", "trap"],
    ),
    ("sibyl_resolver_duration_seconds_count", &["picks"]),
    ("sibyl_resolver_fuel_used_sum", &["picks"]),
    ("sibyl_compile_seconds_count", &[]),
    ("sibyl_view_cache_total", &["hit"]),
    ("sibyl_view_cache_total", &["miss"]),
    ("sibyl_storage_op_duration_seconds_count", &["get"]),
    ("sibyl_storage_op_duration_seconds_count", &["put"]),
    ("sibyl_storage_op_duration_seconds_count", &["scan"]),
    ("sibyl_storage_op_duration_seconds_count", &["fsync"]),
    ("sibyl_storage_keys", &[]),
    ("sibyl_storage_bytes", &[]),
    ("sibyl_storage_tombstones", &[]),
    ("sibyl_storage_disk_available_bytes", &[]),
    ("sibyl_storage_disk_total_bytes", &[]),
    ("sibyl_trace_spans_total", &["ok"]),
    ("sibyl_trace_export_batches_total", &["ok"]),
    ("sibyl_build_info", &[]),
    ("process_resident_memory_bytes", &[]),
    ("tokio_workers_count", &[]),
];

fn path(bucket: &str, key: &str) -> String {
    format!("/v1/buckets/{bucket}/keys/{key}")
}

/// The sum of the samples with this name and all these label values.
fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| {
        let rest = line
            .strip_prefix(name)
            .filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| {
            labels
                .iter()
                .all(|label| rest.contains(&format!("=\"{label}\"")))
        })
    };
    let values = page
        .lines()
        .filter(fits)
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

async fn page(live: &Live, node: usize) -> String {
    live.get(node, "/metrics").await.expect(200).text()
}

/// Two siblings on every copy.
async fn conflict(live: &Live, bucket: &str) {
    for (node, value) in [(1, "a"), (2, "b")] {
        live.put(node, &(path(bucket, "k") + "?w=all"), With::body(value))
            .await
            .expect(204);
    }
}

async fn conflicts(live: &Live) {
    live.bucket("plain", &json!({})).await;
    for (name, body) in [("picks", pick(0)), ("traps", "unreachable".to_owned())] {
        let version = live.upload(name, guest(&body)).await;
        live.bucket(
            name,
            &json!({"resolver": {"name": name, "version": version, "laws": "off"}}),
        )
        .await;
    }
    for (bucket, status) in [("plain", 300), ("picks", 200), ("traps", 300)] {
        conflict(live, bucket).await;
        for _ in 0..2 {
            live.get(1, &path(bucket, "k")).await.expect(status);
        }
    }
}

async fn requests(live: &Live) {
    let key = path("default", "k");
    let written = live.put(1, &key, With::body("v")).await.expect(204);
    let context = written.header("sibyl-context").to_owned();
    live.get(1, &key).await.expect(200);
    live.get(1, &(key.clone() + "?siblings=true"))
        .await
        .expect(200);
    live.get(1, &(key.clone() + "?explain=true"))
        .await
        .expect(200);
    live.get(1, &path("default", "none")).await.expect(404);
    let elsewhere = With::body("v").header("sibyl-context", context);
    let misplaced = live
        .put(1, &path("default", "other"), elsewhere)
        .await
        .expect(400)
        .json();
    assert_eq!(misplaced["code"], "bad_context");
    live.bucket("small", &json!({"max_value_bytes": 3})).await;
    live.put(1, &path("small", "k"), With::body("four"))
        .await
        .expect(413);
    live.send(1, Method::DELETE, &(key + "?blind=true"), With::default())
        .await
        .expect(204);
    // One key stays deleted, for the gauge of tombstones.
    let gone = path("default", "gone");
    live.put(1, &(gone.clone() + "?w=all"), With::body("v"))
        .await
        .expect(204);
    live.send(
        1,
        Method::DELETE,
        &(gone + "?blind=true&w=all"),
        With::default(),
    )
    .await
    .expect(204);
    live.get(1, "/v1/buckets/default/keys").await.expect(200);
    live.get(1, "/v1/buckets/plain/conflicts").await.expect(200);
    live.get(1, "/v1/resolvers").await.expect(200);
    live.get(1, "/v1/buckets").await.expect(200);
}

/// A key that n1 coordinates.
async fn mine(live: &Live) -> String {
    for number in 0..1000 {
        let key = path("default", &format!("k{number}"));
        let explained = live
            .get(1, &(key.clone() + "?explain=true"))
            .await
            .expect(200)
            .json();
        if explained["preference_list"][0]["node_id"] == "n1" {
            return key;
        }
    }
    panic!("n1 is first nowhere")
}

async fn quorums(live: &Live) {
    let key = mine(live).await;
    live.isolate(3, true).await;
    until("n1 sees that n3 is gone", async || {
        let seen = live.get(1, "/v1/cluster").await.json();
        seen["members"][2]["state"] == "suspect"
    })
    .await;
    live.put(1, &(key.clone() + "?w=3"), With::body("v"))
        .await
        .expect(503);
    live.get(1, &(key.clone() + "?r=3")).await.expect(503);
    live.isolate(3, false).await;
    let repaired = "sibyl_read_repairs_total";
    until("n3 is repaired", async || {
        live.get(1, &(key.clone() + "?r=3")).await.expect(200);
        sum(&page(live, 1).await, repaired, &["async", "ok"]) > 0.0
    })
    .await;
    live.signal(3, Signal::STOP);
    let lost = live
        .put(1, &(key + "?w=3&timeout_ms=300"), With::body("w"))
        .await;
    live.signal(3, Signal::CONT);
    assert_eq!(lost.expect(503).json()["outcome"], "unknown");
    live.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_should_move_has_moved() {
    let receiver = Receiver::grpc().await;
    let flags = [
        format!("--otlp-endpoint={}", receiver.endpoint),
        "--allow-cuts".to_owned(),
        // Reads find what differs before anything else mends it.
        "--anti-entropy=passive".to_owned(),
    ];
    let live = Live::start(3, &flags).await;
    conflicts(&live).await;
    requests(&live).await;
    quorums(&live).await;
    live.send(1, Method::POST, "/v1/cluster/anti-entropy", With::default())
        .await
        .expect(200);
    // A change of state leaves a span, whatever the ratio says.
    let changed = |span: &ExportedSpan| {
        let noted = span.events.iter();
        span.name == "gossip.round"
            && noted
                .map(|event| event.name.as_str())
                .any(|name| name == "member.state_changed")
    };
    receiver.wait(|spans| spans.iter().any(changed)).await;
    let batch = json!({"ops": [{"op": "put", "key": "k", "value": "v"}]});
    let batch = live
        .post(1, "/v1/buckets/default/batch", &batch)
        .await
        .expect(200);
    let mut left = Vec::new();
    // Spans leave, and calls run out, a moment later.
    until("every metric has moved", async || {
        let page = page(&live, 1).await;
        left = MOVED
            .iter()
            .filter(|(name, labels)| sum(&page, name, labels) <= 0.0)
            .collect();
        if left.len() < 5 {
            println!("waiting for {left:?}");
        }
        left.is_empty()
    })
    .await;
    let page = page(&live, 1).await;
    for name in listed().filter(|name| !ONLY_IN_TROUBLE.contains(name) && !NOT_YET.contains(name)) {
        assert!(
            page.contains(&format!("# TYPE {name} ")),
            "{name} is not on the page of a node"
        );
    }
    let others = self::page(&live, 2).await;
    assert!(
        sum(&others, "sibyl_compile_seconds_count", &[]) > 0.0,
        "n2 compiled what it was sent"
    );
    let accept = With::default().header("accept", "application/openmetrics-text");
    let open = live
        .send(1, Method::GET, "/metrics", accept)
        .await
        .expect(200)
        .text();
    let trace = batch.header("sibyl-trace-id");
    let exemplar = |line: &str| {
        line.starts_with("sibyl_request_duration_seconds_bucket{") && line.contains(trace)
    };
    assert!(open.lines().any(exemplar), "no exemplar leads to {trace}");
    assert!(open.ends_with("# EOF\n"));
    live.end().await;
}

/// The names of the document's tables.
fn listed() -> impl Iterator<Item = &'static str> {
    METRICS
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
}
