//! Traces of a real cluster: three processes that export to a real OTLP receiver.
//!
//! A scene is played once, the nodes are stopped, which sends every span, and then whole trees are compared:
//! parents, kinds, nodes, links, attributes, events, and that no key or value left the nodes.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::live::{Live, Said, With, prebuilt};
use crate::otlp::{ExportedSpan, Receiver, attribute, check_tree};

/// A client's span.
const CLIENT_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";
/// What must not be in any span.
const KEY: &str = "key-of-ann";
const VALUE: &str = "value-of-ann";

const PUT_LOCAL: &str = "
    PUT /v1/buckets/{bucket}/keys/{key} SERVER n1
      quorum.write INTERNAL n1
        storage.write INTERNAL n1
        Replica/Put CLIENT n1
          Replica/Put SERVER n2
            storage.write INTERNAL n2
        Replica/Put CLIENT n1
          Replica/Put SERVER n3
            storage.write INTERNAL n3";

const PUT_FORWARDED: &str = "
    PUT /v1/buckets/{bucket}/keys/{key} SERVER n1
      coordinator.forward CLIENT n1
        Coordinator/Forward SERVER FIRST
          quorum.write INTERNAL FIRST
            storage.write INTERNAL FIRST
            Replica/Put CLIENT FIRST
              Replica/Put SERVER SECOND
                storage.write INTERNAL SECOND";

const PUT_BUCKET: &str = "
    PUT /v1/buckets/{bucket} SERVER n1
      Node/Status CLIENT n1
        Node/Status SERVER n2
      Node/Status CLIENT n1
        Node/Status SERVER n3
      registry.propose INTERNAL n1
        Registry/Prepare CLIENT n1
          Registry/Prepare SERVER n2
        Registry/Prepare CLIENT n1
          Registry/Prepare SERVER n3
        Registry/Accept CLIENT n1
          Registry/Accept SERVER n2
        Registry/Accept CLIENT n1
          Registry/Accept SERVER n3
        Registry/Learn CLIENT n1
          Registry/Learn SERVER n2
        Registry/Learn CLIENT n1
          Registry/Learn SERVER n3";

const GET_MERGED: &str = "
    GET /v1/buckets/{bucket}/keys/{key} SERVER n3
      quorum.read INTERNAL n3
        Replica/Digest CLIENT n3
          Replica/Digest SERVER n1
        Replica/Digest CLIENT n3
          Replica/Digest SERVER n2
      siblings.reconcile INTERNAL n3
        resolver.resolve INTERNAL n3";

const GET_REPAIRS: &str = "
    GET /v1/buckets/{bucket}/keys/{key} SERVER n1
      quorum.read INTERNAL n1
        Replica/Digest CLIENT n1
          Replica/Digest SERVER n2
        Replica/Digest CLIENT n1
          Replica/Digest SERVER n3
        Replica/Get CLIENT n1
          Replica/Get SERVER n3
      siblings.reconcile INTERNAL n1";

const REPAIR: &str = "
    read.repair INTERNAL n1
      Replica/Repair CLIENT n1
        Replica/Repair SERVER n3
          storage.write INTERNAL n3";

/// The traces of one scene, by their `Sibyl-Trace-Id`.
struct Scene {
    bucket: String,
    local: String,
    forwarded: String,
    /// The owners of the forwarded key.
    pair: [String; 2],
    writes: [String; 2],
    merged: String,
    version: String,
    cut: String,
    repairs: String,
    late: String,
}

fn path(bucket: &str, key: &str) -> String {
    format!("/v1/buckets/{bucket}/keys/{key}")
}

/// The trace of a good answer.
fn trace(said: Said) -> String {
    assert!(said.status < 300, "{} {}", said.status, said.text());
    said.header("sibyl-trace-id").to_owned()
}

/// A key of the bucket whose owners satisfy this, first owner first.
async fn key(live: &Live, bucket: &str, fits: impl Fn(&[String]) -> bool) -> (String, Vec<String>) {
    for number in 0..1000 {
        let key = format!("{KEY}-{number}");
        let explained = live
            .get(1, &format!("{}?explain=true", path(bucket, &key)))
            .await
            .expect(200)
            .json();
        let list = explained["preference_list"].as_array().expect("a list");
        let primaries = list.iter().filter(|owner| owner["role"] == "primary");
        let owners: Vec<_> = primaries.map(|owner| text(&owner["node_id"])).collect();
        if fits(&owners) {
            return (key, owners);
        }
    }
    panic!("no key has such owners")
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

async fn play(live: &Live) -> Scene {
    let bucket = live
        .put(1, "/v1/buckets/pairs", With::json(&json!({"n": 2})))
        .await;
    let bucket = trace(bucket);
    live.agreed().await;
    let write = || With::body(VALUE);

    let (mine, _) = key(live, "default", |owners| owners[0] == "n1").await;
    let client = format!("00-{CLIENT_TRACE}-{CLIENT_SPAN}-01");
    let local = path("default", &mine) + "?w=3";
    let local = trace(
        live.put(1, &local, write().header("traceparent", client))
            .await,
    );

    let (theirs, owners) = key(live, "pairs", |owners| !owners.contains(&"n1".to_owned())).await;
    let forwarded = trace(live.put(1, &path("pairs", &theirs), write()).await);

    let version = live.upload("newest", prebuilt("lww")).await;
    live.bucket(
        "merged",
        &json!({"resolver": {"name": "newest", "version": version, "laws": "off"}}),
    )
    .await;
    let both = path("merged", KEY) + "?w=3";
    let writes = [
        trace(live.put(1, &both, write()).await),
        trace(live.put(2, &both, write()).await),
    ];
    let merged = trace(live.get(3, &(path("merged", KEY) + "?r=3")).await);

    live.isolate(3, true).await;
    let (behind, _) = key(live, "default", |owners| {
        owners[0] == "n1" && owners.len() == 3
    })
    .await;
    let behind = path("default", &behind);
    let cut = trace(live.put(1, &behind, write()).await);
    live.isolate(3, false).await;
    let repairs = trace(live.get(1, &(behind + "?r=3")).await);

    live.signal(3, Signal::STOP);
    let late = live.put(1, &path("default", &mine), write()).await;
    live.signal(3, Signal::CONT);
    let late = trace(late);
    let pair = [owners[0].clone(), owners[1].clone()];
    Scene {
        bucket,
        local,
        forwarded,
        pair,
        writes,
        merged,
        version,
        cut,
        repairs,
        late,
    }
}

/// The spans of one trace with one name.
fn named<'a>(spans: &'a [ExportedSpan], trace: &str, name: &str) -> Vec<&'a ExportedSpan> {
    spans
        .iter()
        .filter(|span| span.trace_id == trace && span.name == name)
        .collect()
}

fn one<'a>(spans: &'a [ExportedSpan], trace: &str, name: &str) -> &'a ExportedSpan {
    let found = named(spans, trace, name);
    assert_eq!(found.len(), 1, "{name} in {trace}: {found:#?}");
    found[0]
}

fn check(span: &ExportedSpan, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        assert_eq!(
            attribute(&span.attributes, name).as_deref(),
            Some(*value),
            "{name} of {}",
            span.name
        );
    }
}

fn events(span: &ExportedSpan) -> Vec<&str> {
    let mut names: Vec<_> = span
        .events
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

/// The repair that the scene's read began.
fn repair<'a>(spans: &'a [ExportedSpan], scene: &Scene) -> Option<&'a ExportedSpan> {
    let of_scene =
        |span: &&ExportedSpan| span.links.iter().any(|link| link.trace_id == scene.repairs);
    spans
        .iter()
        .filter(|span| span.name == "read.repair")
        .find(of_scene)
}

/// Where the links of a span lead and why, in order of traces.
fn links(span: &ExportedSpan) -> Vec<(&str, &str, String)> {
    let kind =
        |attributes| attribute(attributes, "sibyl.link.kind").expect("every link says its kind");
    let links = span.links.iter();
    let mut links: Vec<_> = links
        .map(|link| {
            (
                link.trace_id.as_str(),
                link.span_id.as_str(),
                kind(&link.attributes),
            )
        })
        .collect();
    links.sort();
    links
}

async fn check_scene(receiver: Receiver) {
    let flags = [
        format!("--otlp-endpoint={}", receiver.endpoint),
        "--allow-cuts".to_owned(),
        // Reads find what differs before anything else mends it.
        "--anti-entropy=passive".to_owned(),
    ];
    let live = Live::start(3, &flags).await;
    let scene = play(&live).await;
    live.end().await;
    // The last of all that is done; what was done before is sent before it or with it.
    let complete = |spans: &[ExportedSpan]| {
        let late = named(spans, &scene.late, "Replica/Put").len();
        let repair = repair(spans, &scene)
            .map(|repair| named(spans, &repair.trace_id, "storage.write").len());
        (late, repair) == (4, Some(1))
    };
    let spans = receiver.wait(complete).await;
    check_writes(&spans, &scene);
    check_merge(&spans, &scene);
    check_repair(&spans, &scene);
    check_tree(&spans, &scene.bucket, PUT_BUCKET);
    let propose = one(&spans, &scene.bucket, "registry.propose");
    check(
        propose,
        &[
            ("sibyl.registry.ballots", "1"),
            ("sibyl.registry.acks", "2"),
            ("sibyl.registry.chosen", "true"),
        ],
    );
    for secret in [KEY, VALUE] {
        assert!(!receiver.has(secret), "{secret} is in a span");
    }
    assert!(
        receiver.has("quorum.write"),
        "the search finds what is there"
    );
}

fn check_writes(spans: &[ExportedSpan], scene: &Scene) {
    assert_eq!(scene.local, CLIENT_TRACE);
    check_tree(spans, &scene.local, PUT_LOCAL);
    let root = one(spans, &scene.local, "PUT /v1/buckets/{bucket}/keys/{key}");
    assert_eq!(root.parent_span_id, CLIENT_SPAN);
    let about = [
        ("sibyl.bucket", "default"),
        ("db.collection.name", "default"),
        ("http.request.method", "PUT"),
    ];
    check(root, &about);
    assert_eq!(
        attribute(&root.attributes, "sibyl.key.hash").map(|hash| hash.len()),
        Some(16)
    );
    assert!(attribute(&root.attributes, "sibyl.partition").is_some());
    let quorum = one(spans, &scene.local, "quorum.write");
    let counts = [
        ("n", "3"),
        ("w", "3"),
        ("acks", "3"),
        ("failures", "0"),
        ("met", "true"),
        ("sloppy", "false"),
    ];
    for (name, value) in counts {
        check(quorum, &[(&format!("sibyl.quorum.{name}"), value)]);
    }
    assert_eq!(
        events(quorum),
        [
            "quorum.reached",
            "replica.ack",
            "replica.ack",
            "replica.ack"
        ]
    );
    for call in named(spans, &scene.local, "Replica/Put") {
        check(
            call,
            &[("rpc.method", "Replica/Put"), ("rpc.system.name", "sibyl")],
        );
        assert_eq!(attribute(&call.attributes, "sibyl.quorum.late"), None);
    }
    let forwarded = PUT_FORWARDED
        .replace("FIRST", &scene.pair[0])
        .replace("SECOND", &scene.pair[1]);
    check_tree(spans, &scene.forwarded, &forwarded);
    check(
        one(spans, &scene.forwarded, "coordinator.forward"),
        &[("sibyl.peer.id", &scene.pair[0])],
    );
    check(
        one(spans, &scene.forwarded, "Coordinator/Forward"),
        &[("sibyl.peer.id", "n1")],
    );
    check_late(spans, scene);
}

/// The node that was stopped answers after the client had its answer; the other one before.
fn check_late(spans: &[ExportedSpan], scene: &Scene) {
    let calls = named(spans, &scene.late, "Replica/Put");
    let asked = calls.iter().filter(|call| call.kind == "SPAN_KIND_CLIENT");
    let late = |call: &&ExportedSpan| attribute(&call.attributes, "sibyl.quorum.late");
    let mut found: Vec<_> = asked
        .map(|call| (attribute(&call.attributes, "sibyl.peer.id"), late(call)))
        .collect();
    found.sort();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found, [(text("n2"), None), (text("n3"), text("true"))]);
}

fn check_merge(spans: &[ExportedSpan], scene: &Scene) {
    check_tree(spans, &scene.merged, GET_MERGED);
    let quorum = one(spans, &scene.merged, "quorum.read");
    check(
        quorum,
        &[
            ("sibyl.quorum.r", "3"),
            ("sibyl.quorum.acks", "3"),
            ("sibyl.quorum.digests_differ", "false"),
        ],
    );
    let reconcile = one(spans, &scene.merged, "siblings.reconcile");
    check(
        reconcile,
        &[
            ("sibyl.siblings.before", "2"),
            ("sibyl.siblings.after", "2"),
            ("sibyl.conflict", "true"),
        ],
    );
    assert_eq!(events(reconcile), ["conflict.detected", "siblings.merged"]);
    let resolve = one(spans, &scene.merged, "resolver.resolve");
    check(
        resolve,
        &[
            ("sibyl.resolver.name", "newest"),
            ("sibyl.resolver.version", &scene.version),
        ],
    );
    check(resolve, &[("sibyl.resolver.outcome", "ok")]);
    for cost in [
        "sibyl.resolver.fuel_used",
        "sibyl.resolver.memory_peak_bytes",
    ] {
        let found = attribute(&resolve.attributes, cost).expect("it says what it cost");
        assert!(
            found.parse::<u64>().expect("a number") > 0,
            "{cost} is {found}"
        );
    }
    let kind = "conflicting_write".to_owned();
    let writes = scene.writes.iter().map(|write| {
        let root = one(spans, write, "PUT /v1/buckets/{bucket}/keys/{key}");
        (write.as_str(), root.span_id.as_str(), kind.clone())
    });
    let mut writes: Vec<_> = writes.collect();
    writes.sort();
    assert_eq!(links(resolve), writes);
    let second = one(
        spans,
        &scene.writes[1],
        "PUT /v1/buckets/{bucket}/keys/{key}",
    );
    assert!(
        events(second).contains(&"conflict.detected"),
        "{:?}",
        events(second)
    );
}

fn check_repair(spans: &[ExportedSpan], scene: &Scene) {
    let quorum = one(spans, &scene.cut, "quorum.write");
    assert!(
        events(quorum).contains(&"replica.failed"),
        "{:?}",
        events(quorum)
    );
    let calls = named(spans, &scene.cut, "Replica/Put");
    let to_n3 = |call: &&&ExportedSpan| {
        attribute(&call.attributes, "sibyl.peer.id").as_deref() == Some("n3")
    };
    check(
        calls.iter().find(to_n3).expect("n3 was asked"),
        &[("error.type", "unavailable")],
    );
    check_tree(spans, &scene.repairs, GET_REPAIRS);
    let quorum = one(spans, &scene.repairs, "quorum.read");
    check(quorum, &[("sibyl.quorum.digests_differ", "true")]);
    let repair = repair(spans, scene).expect("it was waited for");
    assert_eq!(repair.parent_span_id, "");
    check_tree(spans, &repair.trace_id, REPAIR);
    let cause = (
        scene.repairs.as_str(),
        quorum.span_id.as_str(),
        "repaired_read".to_owned(),
    );
    assert_eq!(links(repair), [cause]);
    check(repair, &[("sibyl.repair.mode", "async")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_one_trace_over_grpc() {
    check_scene(Receiver::grpc().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_one_trace_over_http() {
    check_scene(Receiver::http().await).await;
}

/// A node with a collector that is not there, or never answers: it serves, and stops in order.
async fn check_served(endpoint: String) {
    let live = Live::start(1, &[format!("--otlp-endpoint={endpoint}")]).await;
    for number in 0..50 {
        let path = path("default", &format!("k{number}"));
        live.put(1, &path, With::body("v")).await.expect(204);
        let read = live.get(1, &path).await.expect(200);
        assert_eq!(read.header("sibyl-trace-id").len(), 32);
    }
    // Stops within the cluster's limit, without having to be killed.
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_stalled_collector_harms_no_request_and_no_shutdown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let stalled = format!("http://{}", listener.local_addr().expect("it is bound"));
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let missing = format!("http://{}", gone.local_addr().expect("it is bound"));
    drop(gone);
    // Connections wait in the listener's queue: taken by the system, answered by nobody.
    for endpoint in [missing, stalled.clone(), format!("{stalled}/v1/traces")] {
        check_served(endpoint).await;
    }
    drop(listener);
}
