//! The span trees through real OTLP: parents, kinds, links and attributes across three nodes.
//!
//! The nodes here are three `Telemetry` values that pass each other 26 bytes, as the transport does.

use std::time::Duration;

use sibyl::telemetry::{QuorumEnd, ResolverEnd, ResolverResult, Rpc, SLOW_READ, Span, Telemetry};
use sibyl_core::id::{Digest, Trace};

use crate::otlp::{Receiver, attribute, check_tree, id, only, start};

const ROUTE: &str = "/v1/buckets/{bucket}/keys/{key}";

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
    root.answered(204);
    let context = root.context();
    drop(root);
    drop(late);
    drop(quorum);
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
        drop(server.storage_write(9, true));
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
