//! What a real cluster promises while nodes are stopped or links are cut, and what it is afterwards.
//!
//! Nothing here waits for time to pass: nodes are stopped, then the others are asked until they say that they
//! noticed. A 503 is held to its word: `unknown` may show later, `not_written` never does.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::{Value, json};

use crate::ask::{Answer, delete, get, key, put, put_bucket, text};
use crate::nodes::{Cluster, Node, until};

/// A key of the bucket that begins with `prefix` and whose first owner is this node.
fn key_of(cluster: &Cluster, bucket: &str, prefix: &str, owner: &str) -> String {
    let mut names = (0..1000).map(|at| format!("{prefix}-{at}"));
    names
        .find(|name| cluster.owners(bucket, name)[0] == owner)
        .expect("every node is first somewhere")
}

fn value(node: &Node, path: &str) -> Option<String> {
    let answer = node.ask(&get(path));
    (answer.status == 200).then(|| answer.text())
}

/// A write that may still become visible. It is answered once W is out of reach, so fewer than `most` may have
/// been counted by then.
#[track_caller]
fn unknown(answer: Answer, most: u64, need: u64) {
    let body = answer.refused(503, "quorum_not_reached").json();
    assert_eq!(
        (&body["outcome"], &body["need"]),
        (&json!("unknown"), &json!(need)),
        "{body}"
    );
    assert!(
        body["acks"].as_u64() <= Some(most) && body["failed"].as_u64() >= Some(1),
        "{body}"
    );
}

/// A read that too few could answer; `most` as for writes.
#[track_caller]
fn few(answer: Answer, most: u64, need: u64) {
    let body = answer.refused(503, "quorum_not_reached").json();
    assert_eq!(body["need"], need, "{body}");
    assert!(
        body["replies"].as_u64() <= Some(most) && body["failed"].as_u64() >= Some(1),
        "{body}"
    );
}

/// What explain says of each node's copy: its digest, or null.
fn copies(node: &Node, path: &str) -> Vec<Value> {
    let body = node
        .ask(&get(format!("{path}?explain=true&r=1")))
        .expect(200)
        .json();
    body["preference_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|owner| owner["object_digest"].clone())
        .collect()
}

fn are_equal(copies: &[Value]) -> bool {
    copies
        .iter()
        .all(|copy| copy == &copies[0] && !copy.is_null())
}

/// Keys of the test below.
struct Paths {
    /// Written before, during and after.
    old: String,
    /// Written while one node is away.
    new: String,
    /// In a bucket with one copy, on n3.
    lonely: String,
}

#[test]
fn stopped_nodes_do_not_count_and_catch_up_by_reads() {
    let mut cluster = Cluster::three();
    let single = put_bucket("one", &json!({ "n": 1 }));
    cluster.nodes[0].ask(&single).expect(201);
    let lonely = key("one", &key_of(&cluster, "one", "lonely", "n3"));
    let (old, new) = (key("default", "a"), key("default", "b"));
    let paths = Paths { old, new, lonely };
    all_there(&cluster, &paths);
    cluster.nodes[2].kill();
    cluster.wait_whole();
    one_away(&cluster, &paths);
    cluster.nodes[1].kill();
    cluster.wait_whole();
    alone(&cluster.nodes[0], &paths.old);
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_whole();
    caught_up(&cluster, &paths);
}

fn all_there(cluster: &Cluster, paths: &Paths) {
    let all = cluster.nodes[0].ask(&put(format!("{}?w=all", paths.old), "old"));
    assert_eq!(all.expect(204).header("sibyl-acks"), "owners=3 fallbacks=0");
    // More than there are, however many of them are up.
    for node in &cluster.nodes {
        let answer = node.ask(&put(format!("{}?w=4", paths.old), "x"));
        let body = answer.refused(503, "too_few_nodes").json();
        assert_eq!(
            (&body["outcome"], &body["need"], &body["members"]),
            (&json!("not_written"), &json!(4), &json!(3))
        );
        let answer = node.ask(&get(format!("{}?r=4", paths.old)));
        answer.refused(503, "too_few_nodes");
    }
}

/// What two nodes of three do.
fn one_away(cluster: &Cluster, paths: &Paths) {
    let Paths { old, new, lonely } = paths;
    let [one, two, _] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    for node in [one, two] {
        few(node.ask(&get(format!("{old}?r=all"))), 2, 3);
        let part = node.ask(&get(format!("{old}?r=all&partial=true")));
        assert_eq!(part.clone().expect(200).text(), "old");
        assert_eq!(part.header("sibyl-partial"), "true");
        assert_eq!(part.header("sibyl-acks"), "owners=2 fallbacks=0");
        let whole = node.ask(&get(format!("{old}?partial=true"))).expect(200);
        assert!(!whole.has("sibyl-partial"), "{whole}");
    }
    let seen = one.ask(&get(old)).expect(200);
    let everywhere = |path: &str, value: &str| put(format!("{path}?w=all"), value);
    unknown(two.ask(&everywhere(old, "new").seen(&seen)), 2, 3);
    let shown = value(one, old);
    assert_eq!(shown.as_deref(), Some("new"), "unknown may well be visible");
    unknown(one.ask(&everywhere(new, "first")), 2, 3);
    two.ask(&put(key("default", "c"), "c")).expect(204);
    one.ask(&get("/v1/buckets/default/keys")).expect(200);
    // No owner can mint it and nobody else may, so nobody did.
    let answer = one.ask(&put(format!("{lonely}?sloppy=false"), "never"));
    let body = answer.refused(503, "quorum_not_reached").json();
    assert_eq!(body["outcome"], "not_written", "{body}");
    assert_eq!(body["acks"], 0, "{body}");
    few(one.ask(&get(lonely)), 0, 1);
}

/// What all three do after that.
fn caught_up(cluster: &Cluster, paths: &Paths) {
    let Paths { old, new, lonely } = paths;
    let [one, _, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    assert_eq!(one.ask(&get(old)).expect(300).values(), ["alone", "new"]);
    // Reads repair, and nodes that are back compare their copies: whoever is first.
    for path in [old, new] {
        until("every copy is up to date", || match copies(three, path) {
            copies if copies.len() == 3 && are_equal(&copies) => Ok(()),
            copies => Err(format!("{copies:?}")),
        });
    }
    for node in &cluster.nodes {
        let all = node.ask(&get(format!("{old}?r=all"))).expect(300);
        assert_eq!(all.values(), ["alone", "new"]);
        assert_eq!(value(node, new).as_deref(), Some("first"));
        assert_eq!(value(node, &key("default", "c")).as_deref(), Some("c"));
        node.ask(&get(lonely)).refused(404, "no_value");
    }
}

/// What one node of three does while the others are away.
fn alone(node: &Node, path: &str) {
    few(node.ask(&get(path)), 1, 2);
    unknown(node.ask(&put(path, "alone")), 1, 2);
    let read = node.ask(&get(format!("{path}?r=1"))).expect(300);
    assert_eq!(read.values(), ["alone", "new"]);
    let single = key("default", "single");
    let first = node.ask(&put(format!("{single}?w=one"), "1")).expect(204);
    assert_eq!(first.header("sibyl-acks"), "owners=1 fallbacks=0");
    node.ask(&put(format!("{single}?w=1"), "2").seen(&first))
        .expect(204);
    assert_eq!(
        node.ask(&get(format!("{single}?r=one"))).expect(200).text(),
        "2"
    );
    node.ask(&get("/v1/buckets/default/keys"))
        .refused(503, "partition_uncovered");
    // What needs one answer needs a majority, and says how many are missing.
    for change in [
        put_bucket("late", &json!({})),
        put_bucket("default", &json!({ "max_siblings": 7 })),
        delete("/v1/buckets/one?purge=true"),
    ] {
        let answer = node.ask(&change);
        assert_eq!(answer.status, 503, "{answer}");
        let body = answer.json();
        assert!(
            ["unknown", "not_written"].contains(&text(&body["outcome"]).as_str()),
            "{body}"
        );
        if answer.code() == "no_majority" {
            assert_eq!(
                (&body["missing"], &body["members"]),
                (&json!(1), &json!(3)),
                "{body}"
            );
        }
        assert!(
            text(&body["detail"]).contains("1 more of the 3 members"),
            "{body}"
        );
    }
    node.ask(&get("/v1/buckets/late")).refused(404, "no_bucket");
}

/// Which links are cut: who is told, and about whom.
struct Cut(&'static [(&'static str, &'static str)]);

impl Cut {
    fn set(&self, cluster: &Cluster, cut: bool) {
        for (on, to) in self.0 {
            cluster.node(on).cut(cluster.node(to), cut);
        }
    }
}

#[test]
fn both_sides_of_a_cut_take_writes_and_nothing_is_lost() {
    let cluster = Cluster::three();
    // The key is n1's first, and n2 cannot reach it: both sides mint.
    let check = |name: &str, cut: &Cut, reach: [&[&str]; 3]| {
        let path = key("default", &key_of(&cluster, "default", name, "n1"));
        cut.set(&cluster, true);
        for (node, wanted) in cluster.nodes.iter().zip(reach) {
            node.wait_reaches(wanted);
        }
        for (node, value) in cluster.nodes[..2].iter().zip(["left", "right"]) {
            let answer = node.ask(&put(&path, value)).expect(204);
            assert_eq!(
                answer.header("sibyl-acks"),
                "owners=2 fallbacks=0",
                "{answer}"
            );
            assert_ne!(
                node.ask(&get(&path)).status,
                404,
                "a side reads its own write"
            );
        }
        cut.set(&cluster, false);
        cluster.wait_whole();
        for node in &cluster.nodes {
            assert_eq!(
                node.ask(&get(&path)).expect(300).values(),
                ["left", "right"]
            );
        }
        until("every copy is whole", || {
            match copies(&cluster.nodes[0], &path) {
                copies if are_equal(&copies) => Ok(()),
                copies => Err(format!("{copies:?}")),
            }
        });
    };
    check(
        "both",
        &Cut(&[("n1", "n2"), ("n2", "n1")]),
        [&["n3"], &["n3"], &["n1", "n2"]],
    );
    // Told to one side only, the link is gone for both.
    check(
        "one",
        &Cut(&[("n1", "n2")]),
        [&["n3"], &["n3"], &["n1", "n2"]],
    );
}

#[test]
fn a_node_that_is_cut_off_keeps_what_it_took() {
    let cluster = Cluster::three();
    let path = key("default", &key_of(&cluster, "default", "off", "n3"));
    let before = cluster.nodes[0]
        .ask(&put(format!("{path}?w=all"), "before"))
        .expect(204);
    let cut = Cut(&[("n3", "n1"), ("n3", "n2")]);
    cut.set(&cluster, true);
    for (node, wanted) in cluster.nodes.iter().zip([&["n2"][..], &["n1"], &[]]) {
        node.wait_reaches(wanted);
    }
    unknown(
        cluster.nodes[2].ask(&put(&path, "inside").seen(&before)),
        1,
        2,
    );
    few(cluster.nodes[2].ask(&get(&path)), 1, 2);
    assert_eq!(
        value(&cluster.nodes[2], &format!("{path}?r=1")).as_deref(),
        Some("inside")
    );
    cluster.nodes[0]
        .ask(&put(&path, "outside").seen(&before))
        .expect(204);
    assert_eq!(value(&cluster.nodes[1], &path).as_deref(), Some("outside"));
    let changed = cluster.nodes[1]
        .ask(&put_bucket("made", &json!({})))
        .expect(201);
    assert_eq!(changed.json()["name"], "made");
    cluster.nodes[2]
        .ask(&get("/v1/buckets/made"))
        .refused(404, "no_bucket");

    cut.set(&cluster, false);
    cluster.wait_whole();
    for node in &cluster.nodes {
        assert_eq!(
            node.ask(&get(format!("{path}?r=all"))).expect(300).values(),
            ["inside", "outside"]
        );
    }
    until("n3 learns what it missed", || {
        match cluster.nodes[2].ask(&get("/v1/buckets/made")) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}
