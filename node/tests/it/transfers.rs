//! Owners that change, as operators see it: what is on its way, how it stands, and the spans and counts of it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::{Value, json};

use crate::ask::{get, key, put, put_bucket, text};
use crate::nodes::{Cluster, Node, until};
use crate::otlp::{ExportedSpan, Receiver, attribute};

fn transfers(node: &Node) -> Vec<Value> {
    let body = node.ask(&get("/v1/cluster/handoff")).expect(200).json();
    body["transfers"].as_array().unwrap().clone()
}

fn metric(node: &Node, name: &str) -> f64 {
    let page = node.ask(&get("/metrics")).expect(200).text();
    let line = page.lines().find(|line| line.starts_with(name));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// A node joins while one owner of before is away that it has to hear.
fn play(endpoint: &str) {
    let endpoint = format!("--otlp-endpoint={endpoint}");
    let mut cluster = Cluster::plan(3, &["--partitions=16", &endpoint]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    // With w=1 an acknowledged write may be on any one owner: whoever comes asks all of them.
    cluster.nodes[0]
        .ask(&put_bucket("one", &json!({ "w": 1 })))
        .expect(201);
    for at in 0..64 {
        let path = key("one", &format!("k-{at}"));
        cluster.nodes[at % 3]
            .ask(&put(format!("{path}?w=all"), "v"))
            .expect(204);
    }
    let before = metric(&cluster.nodes[0], "sibyl_ring_version ");
    cluster.nodes[2].kill();
    cluster.wait_whole();
    let mut joiner = cluster.joiner("n4", &[&endpoint]);
    joiner.start();
    let from = |transfers: &[Value], from: &str, state: &str| -> usize {
        let such = |one: &&Value| one["from"] == from && one["state"] == state && one["to"] == "n4";
        transfers.iter().filter(such).count()
    };
    let held = until("all is fetched but what nobody can give", || {
        // Until it is named it serves nothing but its health.
        let answer = get("/v1/cluster/handoff").send(joiner.http);
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.to_string());
        }
        let found = transfers(&joiner);
        let waits = from(&found, "n3", "waiting");
        let fetched = ["n1", "n2"].map(|owner| from(&found, owner, "fetched"));
        match waits > 0 && fetched == [waits, waits] {
            true => Ok(found),
            false => Err(format!("{found:?}")),
        }
    });
    let keys: u64 = held.iter().map(|one| one["keys"].as_u64().unwrap()).sum();
    let bytes: u64 = held.iter().map(|one| one["bytes"].as_u64().unwrap()).sum();
    assert!(keys > 0 && bytes > 0, "{held:?}");
    let pending = metric(&joiner, "sibyl_ring_transfers_pending ");
    assert!((pending - held.len() as f64).abs() < 0.5, "{pending}");
    assert_eq!(
        transfers(&cluster.nodes[0]),
        [] as [Value; 0],
        "nothing comes to it"
    );

    cluster.nodes[2].start();
    cluster.nodes[2].wait_ready();
    until("nothing is missing any more", || {
        let change = joiner.ask(&get("/v1/cluster")).expect(200).json()["owner_change"].clone();
        match (transfers(&joiner).is_empty(), change.is_null()) {
            (true, true) => Ok(()),
            _ => Err(text(&json!(change.to_string()))),
        }
    });
    assert!(metric(&joiner, "sibyl_ring_transfers_pending ").abs() < 0.5);
    assert!(metric(&joiner, "sibyl_ring_version ") > before);
    let named = "sibyl_knocks_total{result=\"named\"}";
    let told: f64 = cluster.nodes[..2]
        .iter()
        .map(|node| metric(node, named))
        .sum();
    assert!(told >= 1.0, "{told}");
    joiner.terminate();
    cluster.nodes.iter_mut().for_each(|node| {
        node.terminate();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_shows_what_is_on_its_way() {
    let receiver = Receiver::grpc().await;
    let endpoint = receiver.endpoint.clone();
    tokio::task::spawn_blocking(move || play(&endpoint))
        .await
        .expect("the scene is played");
    let ended = |span: &ExportedSpan| {
        span.name == "ring.transfer" && attribute(&span.attributes, "sibyl.transfer.keys").is_some()
    };
    let spans = receiver.wait(|spans| spans.iter().any(ended)).await;
    let transfer = spans.iter().find(|span| ended(span)).unwrap();
    assert_eq!(transfer.parent_span_id, "", "a root of its own");
    let said = |name: &str| -> u64 {
        attribute(&transfer.attributes, name)
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(said("sibyl.transfer.keys") > 0 && said("sibyl.transfer.bytes") > 0);
    assert!(said("sibyl.transfer.partitions") > 0 && said("sibyl.registry.number") > 2);
    let below = |parent: &ExportedSpan| {
        let mut children = spans
            .iter()
            .filter(|span| span.parent_span_id == parent.span_id);
        children.any(|span| span.name == "registry.propose")
    };
    assert!(below(transfer), "it says to the registry what it has");
    let knock = spans.iter().find(|span| {
        span.name == "Node/Knock"
            && attribute(&span.attributes, "sibyl.knock.result").as_deref() == Some("named")
    });
    assert!(
        below(knock.unwrap()),
        "who knocks leads to the document that names it"
    );
}
