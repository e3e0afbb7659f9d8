//! What telemetry costs a request: the spans of one put on its coordinator, not exported, not sampled and
//! recorded, and one request's worth of metrics.
//!
//! Recorded spans go to a collector that does not exist, so most find the queue full: a kept span costs a
//! little more than shown here.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sibyl::telemetry::metrics::{Op, Outcome};
use sibyl::telemetry::settings::Protocol;
use sibyl::telemetry::{Collector, QuorumEnd, Rpc, Settings, Telemetry};
use sibyl_core::id::NodeId;

const ROUTE: &str = "/v1/buckets/{bucket}/keys/{key}";

fn start(exports: bool, ratio: f64) -> Telemetry {
    let collector = Collector {
        endpoint: "http://127.0.0.1:9/v1/traces".to_owned(),
        protocol: Protocol::Http,
        timeout: Duration::from_millis(10),
        queue_spans: 2048,
        interval: Duration::from_secs(1),
    };
    Telemetry::start(Settings {
        collector: exports.then_some(collector),
        node_id: "n1".parse().expect("a node id"),
        cluster_id: "bench".to_owned(),
        service_name: None,
        ratio,
        trust_client_sampling: false,
    })
    .expect("good settings")
}

/// The six spans of a put on its coordinator.
fn put(node: &Telemetry, peers: &[NodeId; 2]) {
    let root = node.tracer.request("PUT", ROUTE, None);
    root.about_key("carts", 7, 7);
    let quorum = root.quorum_write(3, 2);
    drop(quorum.storage_write(100, true));
    for peer in peers {
        black_box(quorum.rpc_client(Rpc::ReplicaPut, peer).context());
        quorum.replica_ack(peer, Duration::from_millis(1));
    }
    let wait = Duration::from_millis(1);
    quorum.quorum_settled(QuorumEnd {
        acks: 3,
        failures: 0,
        sloppy: false,
        met: true,
        wait,
    });
    root.answered(204);
}

fn bench(c: &mut Criterion) {
    let peers: [NodeId; 2] = ["n2", "n3"].map(|name| name.parse().expect("a node id"));
    for (name, exports, ratio) in [
        ("put/no collector", false, 1.0),
        ("put/not sampled", true, 0.0),
        ("put/recorded", true, 1.0),
    ] {
        let node = start(exports, ratio);
        c.bench_function(name, |b| b.iter(|| put(&node, &peers)));
    }
    let node = start(false, 0.0);
    let span = node.tracer.request("PUT", ROUTE, None);
    c.bench_function("metrics/request", |b| {
        b.iter(|| node.metrics.request(Op::Put).end(Outcome::Ok, &span));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
