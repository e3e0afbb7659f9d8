//! From "why does this key say that?" to everything that happened: what `explain` names is found in what a real
//! collector got.
//!
//! Two writes that knew nothing of each other, one of them carried by a hint, and a read that merged them. The
//! test knows of no trace but by what `explain` answers in the end.

use serde_json::json;

use crate::ask::{get, key, put, put_bucket, text};
use crate::live::prebuilt;
use crate::nodes::{Cluster, Node, until};
use crate::otlp::{ExportedSpan, Receiver, attribute};

const BUCKET: &str = "explained";

/// Four nodes, so that somebody can stand in, and a bucket that merges.
fn cluster(endpoint: &str) -> Cluster {
    let endpoint = format!("--otlp-endpoint={endpoint}");
    // What the hint is to carry must not be compared first.
    let flags = ["--partitions=16", "--anti-entropy=passive", &endpoint];
    let mut cluster = Cluster::plan(4, &flags);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let upload = put("/v1/resolvers/newest", prebuilt("lww"));
    let upload = upload.with("content-type", "application/wasm");
    let version = cluster.nodes[0].ask(&upload).expect(201).json();
    let resolver = json!({"name": "newest", "version": version["digest"]});
    let bucket = put_bucket(BUCKET, &json!({ "resolver": resolver }));
    cluster.nodes[0].ask(&bucket).expect(201);
    let number = |node: &Node| node.ask(&get("/v1/registry")).expect(200).json()["number"].as_u64();
    let newest = number(&cluster.nodes[0]);
    for node in &cluster.nodes {
        until("all nodes know the bucket", || match number(node) {
            seen if seen >= newest => Ok(()),
            seen => Err(format!("{seen:?} of {newest:?}")),
        });
    }
    cluster
}

/// The traces that `explain` names in the end, in the order of their writes.
fn play(endpoint: &str) -> Vec<String> {
    let mut cluster = cluster(endpoint);
    let names = (0..1000).map(|at| format!("why-{at}"));
    let mut placed = names.map(|name| (cluster.owners(BUCKET, &name), name));
    let (owners, name) = placed
        .find(|(nodes, _)| nodes[0] == "n1")
        .expect("n1 is first somewhere");
    let path = key(BUCKET, &name);
    cluster.nodes[0]
        .ask(&put(format!("{path}?w=3"), "one"))
        .expect(204);
    let away = cluster.nodes.iter().position(|node| node.id == owners[2]);
    let away = away.expect("a member");
    cluster.nodes[away].kill();
    cluster.wait_whole();
    let kept = cluster.nodes[0]
        .ask(&put(format!("{path}?w=3"), "two"))
        .expect(204);
    assert_eq!(kept.header("sibyl-acks"), "owners=2 fallbacks=1");
    cluster.nodes[away].start();
    cluster.wait_whole();
    let fallback = cluster.node(&owners[3]);
    until("the hint is delivered", || {
        let body = fallback.ask(&get("/v1/cluster/handoff")).expect(200).json();
        match body["hints"].as_array() {
            Some(hints) if hints.is_empty() => Ok(()),
            _ => Err(body.to_string()),
        }
    });
    let read = cluster.nodes[away].ask(&get(&path)).expect(200);
    assert!(
        read.header("sibyl-resolver").contains("outcome="),
        "{read:?}"
    );
    assert_eq!(read.header("sibyl-siblings"), "2");

    let explained = cluster.nodes[0].ask(&get(format!("{path}?explain=true")));
    let explained = explained.expect(200).json();
    let siblings = explained["siblings"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut writes: Vec<_> = siblings
        .iter()
        .map(|sibling| (text(&sibling["modified_at"]), text(&sibling["trace_id"])))
        .collect();
    writes.sort();
    // Stopped in order, every node sends what it has.
    cluster.nodes.iter_mut().for_each(|node| {
        node.terminate();
    });
    writes.into_iter().map(|(_at, trace)| trace).collect()
}

/// The traces that a span refers to for this reason, each once.
fn linked(span: &ExportedSpan, kind: &str) -> Vec<String> {
    let mut traces: Vec<_> = span
        .links
        .iter()
        .filter(|link| attribute(&link.attributes, "sibyl.link.kind").as_deref() == Some(kind))
        .map(|link| link.trace_id.clone())
        .collect();
    traces.sort();
    traces.dedup();
    traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_leads_to_both_writes_to_the_delivery_and_to_the_merge() {
    let receiver = Receiver::grpc().await;
    let endpoint = receiver.endpoint.clone();
    let writes = tokio::task::spawn_blocking(move || play(&endpoint))
        .await
        .expect("the scene is played");
    assert_eq!(writes.len(), 2, "both writes are explained: {writes:?}");
    let mut sorted = writes.clone();
    sorted.sort();
    let is_merge = |span: &ExportedSpan| {
        span.name == "resolver.resolve" && linked(span, "conflicting_write") == sorted
    };
    let is_delivery = |span: &ExportedSpan| {
        span.name == "hint.replay"
            && attribute(&span.attributes, "sibyl.hint.result").as_deref() == Some("delivered")
    };
    let spans = receiver
        .wait(|spans| spans.iter().any(is_merge) && spans.iter().any(is_delivery))
        .await;

    for trace in &writes {
        let route = "PUT /v1/buckets/{bucket}/keys/{key}";
        let request = |span: &&ExportedSpan| span.trace_id == *trace && span.name == route;
        let request = spans.iter().find(request).expect("the request of a write");
        assert_eq!(
            attribute(&request.attributes, "sibyl.bucket").as_deref(),
            Some(BUCKET)
        );
    }
    let delivery = spans
        .iter()
        .find(|span| is_delivery(span))
        .expect("waited for");
    let carried = linked(delivery, "original_write");
    assert_eq!(
        carried,
        writes[1..],
        "the write that came while the owner was away"
    );
    let merge = spans
        .iter()
        .find(|span| is_merge(span))
        .expect("waited for");
    let read = spans.iter().find(|span| {
        span.trace_id == merge.trace_id && span.name == "GET /v1/buckets/{bucket}/keys/{key}"
    });
    let read = read.expect("the read that merged");
    assert!(!writes.contains(&read.trace_id), "a trace of its own");
}
