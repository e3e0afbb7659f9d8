//! Copies that differ become equal without anybody reading them.
//!
//! What a node holds itself is seen by asking it alone: the others are stopped, and one reply is enough.

use serde_json::Value;

use crate::ask::{Answer, get, key, post, put, put_bucket};
use crate::nodes::{Cluster, Node, until};

/// What a node says about its exchanges.
fn status(node: &Node) -> Value {
    node.ask(&get("/v1/cluster/anti-entropy"))
        .expect(200)
        .json()
}

fn count(status: &Value, at: &str) -> u64 {
    status
        .pointer(at)
        .and_then(Value::as_u64)
        .unwrap_or(u64::MAX)
}

/// Waits until nothing is left to be compared by these nodes and their trees are right.
fn wait_settled(nodes: &[&Node]) {
    for node in nodes {
        until("everything is compared", || {
            let status = status(node);
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            let done = peers
                .iter()
                .all(|peer| peer["dirty_partitions"] == 0 && peer["last_success_ms_ago"].is_u64());
            match done && status["unclean_partitions"] == 0 {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
    }
}

fn own(node: &Node, key: &str) -> Answer {
    node.ask(&get(format!("{key}?r=one")))
}

#[test]
fn a_node_that_was_cut_off_gets_what_it_missed_and_gives_what_only_it_has() {
    let mut cluster = Cluster::three();
    let keys: Vec<String> = (0..60)
        .map(|at| key("default", &format!("k{at}")))
        .collect();
    let first: Vec<Answer> = keys[..20]
        .iter()
        .map(|key| cluster.nodes[0].ask(&put(key, "old")).expect(204))
        .collect();
    let one = serde_json::json!({ "w": 1 });
    cluster.nodes[0].ask(&put_bucket("lone", &one)).expect(201);
    cut(&cluster, true);
    for (key, seen) in keys.iter().zip(&first) {
        cluster.nodes[0]
            .ask(&put(key, "new").seen(seen))
            .expect(204);
    }
    for key in &keys[20..] {
        cluster.nodes[1].ask(&put(key, "new")).expect(204);
    }
    // With W = 1 the node on the other side of the cut goes on, too.
    let lone: Vec<String> = (0..20).map(|at| key("lone", &format!("k{at}"))).collect();
    for key in &lone {
        cluster.nodes[2].ask(&put(key, "only here")).expect(204);
    }
    cut(&cluster, false);
    cluster.wait_whole();
    wait_settled(&cluster.nodes.iter().collect::<Vec<_>>());
    let repaired: u64 = cluster
        .nodes
        .iter()
        .map(|node| count(&status(node), "/totals/keys_repaired"))
        .sum();
    assert!(repaired >= 60, "{repaired} objects were moved");

    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].wait_reaches(&[]);
    for key in &keys {
        assert_eq!(
            own(&cluster.nodes[2], key).expect(200).text(),
            "new",
            "{key}"
        );
    }
    cluster.nodes[1].start();
    cluster.nodes[2].wait_reaches(&["n2"]);
    cluster.nodes[2].kill();
    cluster.nodes[1].wait_reaches(&[]);
    cluster.nodes[1].wait_ready();
    for key in &lone {
        assert_eq!(
            own(&cluster.nodes[1], key).expect(200).text(),
            "only here",
            "{key}"
        );
    }
}

/// Cuts n3 off, on both sides, or mends it.
fn cut(cluster: &Cluster, cut: bool) {
    let [n1, n2, n3] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    for (a, b) in [(n1, n3), (n2, n3), (n3, n1), (n3, n2)] {
        a.cut(b, cut);
    }
    if cut {
        n3.wait_reaches(&[]);
        n1.wait_reaches(&["n2"]);
        n2.wait_reaches(&["n1"]);
    }
}

#[test]
fn after_a_crash_trees_are_computed_anew_and_then_compared() {
    let mut cluster = Cluster::three();
    let path = key("default", "k");
    cluster.nodes[0].ask(&put(&path, "v")).expect(204);
    cluster.nodes[2].kill();
    let seen = cluster.nodes[0].ask(&get(&path)).expect(200);
    cluster.nodes[0]
        .ask(&put(&path, "w").seen(&seen))
        .expect(204);
    cluster.nodes[2].start();
    cluster.wait_whole();
    wait_settled(&cluster.nodes.iter().collect::<Vec<_>>());
    let said = cluster.nodes[2].said();
    assert!(said.contains("computed anew"), "{said}");
    let again = cluster.nodes[2]
        .ask(&post("/v1/cluster/anti-entropy", &Value::Null))
        .expect(200);
    assert!(again.json()["totals"]["exchanges"].as_u64() > Some(0));
    wait_settled(&[&cluster.nodes[2]]);
    // Closed in order, it believes what it finds.
    assert_eq!(cluster.nodes[2].terminate().code(), Some(0));
    let before = cluster.nodes[2].said().matches("computed anew").count();
    cluster.nodes[2].start();
    cluster.wait_whole();
    wait_settled(&[&cluster.nodes[2]]);
    assert_eq!(
        cluster.nodes[2].said().matches("computed anew").count(),
        before
    );
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].wait_reaches(&[]);
    assert_eq!(own(&cluster.nodes[2], &path).expect(200).text(), "w");
}
