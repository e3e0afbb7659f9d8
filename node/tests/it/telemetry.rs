//! Spans through real OTLP: trees across three nodes, links, sampling, and collectors that do not work.
//!
//! The nodes here are three `Telemetry` values that pass each other 26 bytes, as the transport does.

use std::future::Future;
use std::time::Duration;

use sibyl::telemetry::settings::Protocol;
use sibyl::telemetry::{
    Collector, Kind, LinkKind, QuorumEnd, ResolverEnd, ResolverResult, Rpc, SLOW_READ, Settings,
    Span, Telemetry, propagation,
};
use sibyl_core::id::{Digest, NodeId, Trace};
use tokio::net::TcpListener;

use crate::otlp::{Receiver, attribute, check_tree, only};

const ROUTE: &str = "/v1/buckets/{bucket}/keys/{key}";
/// Far beyond any deadline in here: a shutdown that takes this long hangs.
const HANGS: Duration = Duration::from_secs(60);
/// Deadline given to shutdowns.
const DEADLINE: Duration = Duration::from_secs(5);
/// A client's header, sampled.
const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn id(name: &str) -> NodeId {
    name.parse().expect("a good node id")
}

fn settings(name: &str, collector: Option<Collector>) -> Settings {
    Settings {
        collector,
        node_id: id(name),
        cluster_id: "test".to_owned(),
        service_name: None,
        ratio: 1.0,
        trust_client_sampling: false,
    }
}

fn collector(endpoint: &str, protocol: Protocol) -> Collector {
    Collector {
        endpoint: endpoint.to_owned(),
        protocol,
        timeout: Duration::from_secs(2),
        queue_spans: 8192,
        interval: Duration::from_millis(20),
    }
}

fn start(name: &str, receiver: &Receiver) -> Telemetry {
    let protocol = match receiver.endpoint.ends_with("/v1/traces") {
        true => Protocol::Http,
        false => Protocol::Grpc,
    };
    let collector = collector(&receiver.endpoint, protocol);
    Telemetry::start(settings(name, Some(collector))).expect("good settings")
}

struct Three([Telemetry; 3]);

impl Three {
    fn start(receiver: &Receiver) -> Self {
        Self(["n1", "n2", "n3"].map(|name| start(name, receiver)))
    }
}

/// Asks `to` below `asker`; `work` is done on the other node's span.
fn call(asker: &Span, to: &Telemetry, name: &str, rpc: Rpc, work: impl Fn(&Span)) -> Span {
    let client = asker.rpc_client(rpc, &id(name));
    let server = to.tracer.rpc_server(rpc, &id("n1"), Some(client.context()));
    work(&server);
    client
}

fn met(acks: usize) -> QuorumEnd {
    QuorumEnd {
        acks,
        failures: 0,
        sloppy: false,
        met: true,
        wait: Duration::from_millis(3),
    }
}

/// A put through n1, answered at W=2; n3's answer is late. Gives the write's context.
fn put(nodes: &Three) -> Trace {
    let [n1, n2, n3] = &nodes.0;
    let root = n1.tracer.request("PUT", ROUTE, None);
    root.about_key("carts", 0xabc, 7);
    let quorum = root.quorum_write(3, 2);
    drop(quorum.storage_write(100, true));
    let store = |server: &Span| drop(server.storage_write(100, true));
    drop(call(&quorum, n2, "n2", Rpc::ReplicaPut, store));
    quorum.replica_ack(&id("n2"), Duration::from_millis(2));
    let late = call(&quorum, n3, "n3", Rpc::ReplicaPut, store);
    quorum.quorum_settled(met(2));
    drop(quorum);
    root.answered(204);
    let context = root.context();
    drop(root);
    drop(late);
    context
}

/// A get through n1 that finds two siblings and merges them.
fn get(nodes: &Three, writes: [Trace; 2]) -> (Trace, Trace) {
    let [n1, n2, n3] = &nodes.0;
    let root = n1.tracer.request("GET", ROUTE, None);
    let quorum = root.quorum_read(3, 2);
    let nothing = |_: &Span| ();
    drop(call(&quorum, n2, "n2", Rpc::ReplicaGet, nothing));
    drop(call(&quorum, n3, "n3", Rpc::ReplicaDigest, nothing));
    quorum.quorum_settled(met(2));
    let reconcile = root.siblings_reconcile();
    reconcile.siblings_merged(2, 2, 2);
    let resolve = reconcile.resolver_resolve("cart", &Digest::of(b"cart"), writes);
    let outcome = ResolverResult::Ok;
    resolve.resolver_ended(
        ResolverEnd {
            outcome,
            fuel: 391,
            memory_bytes: 65536,
        },
        None,
    );
    drop((resolve, reconcile));
    root.answered(200);
    let context = root.context();
    let repair = quorum.read_repair(false);
    drop((quorum, root));
    drop(call(&repair, n3, "n3", Rpc::ReplicaRepair, |server| {
        drop(server.storage_write(9, true))
    }));
    (context, repair.context())
}

fn hex(trace: &Trace) -> String {
    format!("{trace:?}")
}

async fn check_put(receiver: Receiver) {
    let nodes = Three::start(&receiver);
    let trace = hex(&put(&nodes));
    let spans = receiver.wait_for(9).await;
    check_tree(
        &spans,
        &trace,
        "
        PUT /v1/buckets/{bucket}/keys/{key} SERVER n1
          quorum.write INTERNAL n1
            storage.write INTERNAL n1
            Replica/Put CLIENT n1
              Replica/Put SERVER n2
                storage.write INTERNAL n2
            Replica/Put CLIENT n1
              Replica/Put SERVER n3
                storage.write INTERNAL n3",
    );
    let root = only(&spans, "PUT /v1/buckets/{bucket}/keys/{key}");
    let of_root = |name| attribute(&root.attributes, name);
    assert_eq!(of_root("http.response.status_code").as_deref(), Some("204"));
    assert_eq!(of_root("http.route").as_deref(), Some(ROUTE));
    assert_eq!(of_root("db.collection.name").as_deref(), Some("carts"));
    assert_eq!(
        of_root("sibyl.key.hash").as_deref(),
        Some("0000000000000abc")
    );
    let quorum = only(&spans, "quorum.write");
    let wanted = [
        ("n", "3"),
        ("w", "2"),
        ("acks", "2"),
        ("failures", "0"),
        ("met", "true"),
        ("wait_ms", "3"),
    ];
    for (name, value) in wanted {
        let found = attribute(&quorum.attributes, &format!("sibyl.quorum.{name}"));
        assert_eq!(found.as_deref(), Some(value), "{name}");
    }
    let events: Vec<_> = quorum
        .events
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert_eq!(events, ["replica.ack", "quorum.reached"]);
    let late = spans
        .iter()
        .filter(|span| attribute(&span.attributes, "sibyl.quorum.late").is_some());
    let late: Vec<_> = late
        .map(|span| attribute(&span.attributes, "sibyl.peer.id"))
        .collect();
    assert_eq!(late, [Some("n3".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_one_tree_over_grpc() {
    check_put(Receiver::grpc().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_one_tree_over_http() {
    check_put(Receiver::http().await).await;
}

#[tokio::test]
async fn one_thread_is_enough() {
    check_put(Receiver::grpc().await).await;
    check_put(Receiver::http().await).await;
}

#[tokio::test]
async fn a_conflicting_get_links_to_the_writes() {
    let receiver = Receiver::grpc().await;
    let nodes = Three::start(&receiver);
    let writes = [put(&nodes), put(&nodes)];
    let (read, repair) = get(&nodes, writes);
    let spans = receiver.wait_for(9 + 9 + 8 + 4).await;
    check_tree(
        &spans,
        &hex(&read),
        "
        GET /v1/buckets/{bucket}/keys/{key} SERVER n1
          quorum.read INTERNAL n1
            Replica/Get CLIENT n1
              Replica/Get SERVER n2
            Replica/Digest CLIENT n1
              Replica/Digest SERVER n3
          siblings.reconcile INTERNAL n1
            resolver.resolve INTERNAL n1",
    );
    check_tree(
        &spans,
        &hex(&repair),
        "
        read.repair INTERNAL n1
          Replica/Repair CLIENT n1
            Replica/Repair SERVER n3
              storage.write INTERNAL n3",
    );
    let links = |name| {
        let links = &only(&spans, name).links;
        links
            .iter()
            .map(|link| {
                let kind = attribute(&link.attributes, "sibyl.link.kind")
                    .expect("every link says its kind");
                (link.trace_id.clone(), link.span_id.clone(), kind)
            })
            .collect::<Vec<_>>()
    };
    let to_writes = links("resolver.resolve");
    let traces: Vec<_> = to_writes.iter().map(|(trace, ..)| trace.clone()).collect();
    assert_eq!(traces, writes.map(|write| hex(&write)));
    assert!(
        to_writes
            .iter()
            .all(|(.., kind)| kind == "conflicting_write")
    );
    let quorum = only(&spans, "quorum.read");
    let to_read = (
        hex(&read),
        quorum.span_id.clone(),
        "repaired_read".to_owned(),
    );
    assert_eq!(links("read.repair"), [to_read]);
    let reconcile = only(&spans, "siblings.reconcile");
    assert_eq!(
        attribute(&reconcile.attributes, "sibyl.conflict").as_deref(),
        Some("true")
    );
    assert!(
        reconcile
            .events
            .iter()
            .any(|event| event.name == "conflict.detected")
    );
}

#[tokio::test]
async fn a_proposal_and_a_forward_are_trees() {
    let receiver = Receiver::grpc().await;
    let Three([n1, n2, _]) = Three::start(&receiver);
    let admin = n1.tracer.request("PUT", "/v1/buckets/{bucket}", None);
    let propose = n1.tracer.registry_propose(Some(&admin), 8);
    let nothing = |_: &Span| ();
    drop(call(&propose, &n2, "n2", Rpc::RegistryPrepare, nothing));
    drop(call(&propose, &n2, "n2", Rpc::RegistryAccept, nothing));
    propose.registry_settled(1, 2, true);
    let trace = hex(&admin.context());
    let forward = admin.forward(&id("n2"));
    let carried = n2
        .tracer
        .rpc_server(Rpc::CoordinatorForward, &id("n1"), Some(forward.context()));
    carried.storage_read(SLOW_READ, 1);
    carried.storage_read(Duration::ZERO, 1);
    drop((carried, forward, propose, admin));
    let spans = receiver.wait_for(9).await;
    check_tree(
        &spans,
        &trace,
        "
        PUT /v1/buckets/{bucket} SERVER n1
          registry.propose INTERNAL n1
            Registry/Prepare CLIENT n1
              Registry/Prepare SERVER n2
            Registry/Accept CLIENT n1
              Registry/Accept SERVER n2
          coordinator.forward CLIENT n1
            Coordinator/Forward SERVER n2",
    );
    let read = only(&spans, "storage.read");
    assert_eq!(
        read.parent_span_id,
        only(&spans, "Coordinator/Forward").span_id
    );
    assert!(read.end_time_unix_nano - read.start_time_unix_nano >= 50_000);
}

#[tokio::test]
async fn failures_and_conflicts_leave_a_span_at_ratio_zero() {
    let receiver = Receiver::grpc().await;
    let node = start("n1", &receiver);
    node.set_ratio(0.0).expect("zero is a ratio");
    let root = node.tracer.request("PUT", ROUTE, None);
    let quorum = root.quorum_write(3, 2);
    quorum.quorum_settled(QuorumEnd {
        met: false,
        failures: 2,
        ..met(1)
    });
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

/// A thousand spans towards a collector that does not work: nothing hangs and every span is accounted for.
async fn check_lost(endpoint: String, protocol: Protocol, queue_spans: usize) {
    let collector = Collector {
        timeout: Duration::from_millis(300),
        queue_spans,
        ..collector(&endpoint, protocol)
    };
    let node = Telemetry::start(settings("n1", Some(collector))).expect("good settings");
    for _ in 0..1000 {
        drop(node.tracer.request("GET", ROUTE, None));
    }
    bounded(node.shutdown(DEADLINE)).await;
    bounded(node.shutdown(DEADLINE)).await;
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
