//! What is recorded, and what becomes of it: sampling, and collectors that are missing, stalled or too slow.

use std::future::Future;
use std::time::Duration;

use sibyl::telemetry::settings::Protocol;
use sibyl::telemetry::{Collector, Kind, LinkKind, QuorumEnd, Rpc, Telemetry, propagation};
use sibyl_core::id::Trace;
use tokio::net::TcpListener;

use crate::otlp::{Receiver, attribute, check_tree, collector, id, only, settings, start};

const ROUTE: &str = "/v1/buckets/{bucket}/keys/{key}";
/// Far beyond any deadline in here: a shutdown that takes this long hangs.
const HANGS: Duration = Duration::from_secs(30);
/// Deadline given to shutdowns.
const DEADLINE: Duration = Duration::from_secs(5);
/// A client's header, sampled.
const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A write that one replica acknowledged.
const LOST: QuorumEnd = QuorumEnd {
    acks: 1,
    failures: 2,
    sloppy: false,
    met: false,
    wait: Duration::from_millis(3),
};

#[tokio::test]
async fn failures_and_conflicts_leave_a_span_at_ratio_zero() {
    let receiver = Receiver::grpc().await;
    let node = start("n1", &receiver);
    node.set_ratio(0.0).expect("zero is a ratio");
    let root = node.tracer.request("PUT", ROUTE, None);
    let quorum = root.quorum_write(3, 2);
    quorum.quorum_settled(LOST);
    root.siblings_reconcile().siblings_merged(3, 2, 4);
    root.siblings_reconcile().siblings_merged(3, 1, 4);
    let trace = root.trace_id().to_string();
    drop((quorum, root));
    node.shutdown(DEADLINE).await;
    let spans = receiver.wait_for(2).await;
    check_tree(
        &spans,
        &trace,
        "conflict.detected INTERNAL n1\nquorum.failed INTERNAL n1",
    );
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(
            attribute(&span.attributes, "sibyl.trace.force").as_deref(),
            Some("true")
        );
    }
    let failed = only(&spans, "quorum.failed");
    assert_eq!(
        failed.status.as_ref().map(|status| status.code.as_str()),
        Some("STATUS_CODE_ERROR")
    );
    assert_eq!(
        attribute(&failed.attributes, "error.type").as_deref(),
        Some("no_quorum")
    );
}

#[tokio::test]
async fn a_root_follows_what_it_links_to() {
    let receiver = Receiver::grpc().await;
    let node = start("n1", &receiver);
    let recorded = node
        .tracer
        .root("recorded", Kind::Internal)
        .start()
        .context();
    node.set_ratio(0.0).expect("zero is a ratio");
    let unrecorded = node
        .tracer
        .root("unrecorded", Kind::Internal)
        .start()
        .context();
    let links = |name, to| {
        node.tracer
            .root(name, Kind::Internal)
            .links(LinkKind::RepairedRead, to)
            .start()
    };
    assert!(!links("to none", vec![]).is_recording());
    assert!(!links("to unrecorded", vec![unrecorded]).is_recording());
    assert!(!links("to nothing", vec![Trace([0; 26])]).is_recording());
    assert!(links("to both", vec![unrecorded, recorded]).is_recording());
    assert!(links("to many", vec![recorded; 1000]).is_recording());
    let spans = receiver.wait_for(3).await;
    assert_eq!(only(&spans, "to both").links.len(), 2);
    assert_eq!(
        only(&spans, "to many").links.len(),
        sibyl::telemetry::MAX_LINKS
    );
}

#[tokio::test]
async fn a_client_decides_only_where_it_is_trusted() {
    let receiver = Receiver::grpc().await;
    for (trusted, ratio, flag, recorded) in [
        (false, 0.0, "01", false),
        (false, 1.0, "00", true),
        (true, 0.0, "01", true),
        (true, 1.0, "00", false),
    ] {
        let mut settings = settings("n1", Some(collector(&receiver.endpoint, Protocol::Grpc)));
        (settings.trust_client_sampling, settings.ratio) = (trusted, ratio);
        let node = Telemetry::start(settings).expect("good settings");
        let header = CLIENT.replace("-01", &format!("-{flag}"));
        let root = node.tracer.request("GET", ROUTE, Some(&header));
        assert_eq!(root.is_recording(), recorded, "{trusted} {ratio} {flag}");
        assert_eq!(root.trace_id().to_string(), CLIENT[3..35]);
        if recorded {
            drop(root);
            node.shutdown(DEADLINE).await;
        }
    }
    let spans = receiver.wait_for(2).await;
    assert!(
        spans
            .iter()
            .all(|span| span.parent_span_id == CLIENT[36..52])
    );
}

#[tokio::test]
async fn without_a_collector_contexts_still_travel() {
    let node = Telemetry::start(settings("n1", None)).expect("good settings");
    assert!(!node.exports());
    let root = node.tracer.request("GET", ROUTE, Some("rubbish"));
    let other = node.tracer.request("GET", ROUTE, None);
    assert!(!root.is_recording());
    assert!(propagation::is_valid(&root.context()));
    assert_ne!(root.trace_id(), other.trace_id());
    let child = root
        .quorum_read(3, 2)
        .rpc_client(Rpc::ReplicaGet, &id("n2"));
    assert_eq!(child.trace_id(), root.trace_id());
    let passed = node.tracer.request("GET", ROUTE, Some(CLIENT));
    assert_eq!(passed.trace_id().to_string(), CLIENT[3..35]);
    node.shutdown(DEADLINE).await;
    assert!(propagation::is_valid(
        &node.tracer.request("GET", ROUTE, None).context()
    ));
}

/// Runs to its end, or says it hangs.
async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, what)
        .await
        .expect("telemetry must never hang its node")
}

/// The value of a sample of the metrics page.
fn sample(node: &Telemetry, name: &str) -> u64 {
    let page = node.metrics.page(None).body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
        .parse()
        .expect("a count")
}

/// A thousand spans towards a collector that does not work: nothing hangs and every span is accounted for,
/// whether the export gives up before the shutdown does or would take much longer.
async fn check_lost(endpoint: String, protocol: Protocol, queue_spans: usize) {
    check_lost_within(
        &endpoint,
        protocol,
        queue_spans,
        [Duration::from_millis(300), DEADLINE],
    )
    .await;
    check_lost_within(
        &endpoint,
        protocol,
        queue_spans,
        [2 * HANGS, Duration::from_millis(50)],
    )
    .await;
}

async fn check_lost_within(
    endpoint: &str,
    protocol: Protocol,
    queue_spans: usize,
    [timeout, deadline]: [Duration; 2],
) {
    let collector = Collector {
        timeout,
        queue_spans,
        ..collector(endpoint, protocol)
    };
    let node = Telemetry::start(settings("n1", Some(collector))).expect("good settings");
    for _ in 0..1000 {
        drop(node.tracer.request("GET", ROUTE, None));
    }
    bounded(node.shutdown(deadline)).await;
    bounded(node.shutdown(deadline)).await;
    let late = node.tracer.request("GET", ROUTE, None);
    assert!(propagation::is_valid(&late.context()));
    assert_eq!(sample(&node, "sibyl_trace_spans_total{result=\"ok\"}"), 0);
    let failed = sample(&node, "sibyl_trace_spans_total{result=\"failed\"}");
    let full = sample(
        &node,
        "sibyl_trace_spans_dropped_total{result=\"queue_full\"}",
    );
    let shut = sample(
        &node,
        "sibyl_trace_spans_dropped_total{result=\"shutdown\"}",
    );
    assert_eq!(
        failed + full + shut,
        1000,
        "{failed} failed, {full} full, {shut} at shutdown"
    );
    assert_eq!(
        full > 0,
        queue_spans < 1000,
        "{full} spans found the queue full"
    );
    assert!(
        failed == 0 || sample(&node, "sibyl_trace_export_batches_total{result=\"failed\"}") > 0
    );
}

/// An address nobody listens on.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

/// An address that takes connections and never answers.
async fn stalled() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_missing_collector_harms_nothing() {
    check_lost(closed().await, Protocol::Grpc, 8192).await;
    check_lost(closed().await, Protocol::Http, 8192).await;
}

#[tokio::test]
async fn a_stalled_collector_harms_nothing() {
    check_lost(stalled().await, Protocol::Grpc, 8192).await;
    check_lost(stalled().await, Protocol::Http, 8192).await;
}

#[tokio::test]
async fn a_full_queue_is_counted() {
    check_lost(stalled().await, Protocol::Grpc, 10).await;
}

#[tokio::test]
async fn exported_spans_are_counted() {
    let receiver = Receiver::grpc().await;
    let node = start("n1", &receiver);
    for _ in 0..100 {
        drop(node.tracer.request("GET", ROUTE, None));
    }
    bounded(node.shutdown(DEADLINE)).await;
    receiver.wait_for(100).await;
    assert_eq!(sample(&node, "sibyl_trace_spans_total{result=\"ok\"}"), 100);
    assert_eq!(
        sample(
            &node,
            "sibyl_trace_spans_dropped_total{result=\"shutdown\"}"
        ),
        0
    );
}
