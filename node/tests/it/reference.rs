//! The reference set-up: six nodes with four virtual nodes (tokens) each, N = 3, W = 2, R = 2.
//!
//! One long story, told by the public API alone: a put reaches three nodes, two answers acknowledge it, a node that
//! stops is suspected by all others, what it misses is hinted, it comes back and holds every key, and one that stays
//! away is removed for good and its keys have three copies again. The same by hand:
//! `sibyl dev --nodes 6 -- --tokens 4 --down-after 5m`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::ask::{get, key, put, text};
use crate::nodes::{Cluster, Node, until};

/// Minutes where people look on; here long enough that a slow machine's short stop is not taken for a long one.
const DOWN_AFTER: &str = "--down-after=40s";
const FLAGS: &[&str] = &[
    "--tokens=4",
    "--partitions=64",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
    DOWN_AFTER,
];
const PARTITIONS: usize = 64;
const KEYS: usize = 60;
const ALL: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];

fn json_of(node: &Node, path: &str) -> Value {
    node.ask(&get(path)).expect(200).json()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

fn path(at: usize) -> String {
    key("default", &format!("k{at}"))
}

/// Who holds what of a key: node and digest.
type Copies = Vec<(String, Value)>;

/// The owners of a key, and whoever else holds something of it.
fn copies(node: &Node, path: &str) -> (Copies, Copies) {
    let body = json_of(node, &format!("{path}?explain=true&r=1"));
    let copy = |copy: &Value| (text(&copy["node_id"]), copy["object_digest"].clone());
    let is_owner = |copy: &&Value| copy["role"] == "primary";
    let all = list(&body["preference_list"]);
    let others = all.iter().filter(|copy| !is_owner(copy)).map(copy);
    let others = others.filter(|(_, digest)| !digest.is_null()).collect();
    (all.iter().filter(is_owner).map(copy).collect(), others)
}

/// Waits until exactly three nodes hold a key, all the same, and these are its owners.
#[track_caller]
fn wait_three_copies(node: &Node, path: &str) -> Vec<String> {
    until(&format!("{path} has three equal copies"), || {
        let (owners, others) = copies(node, path);
        let digests: BTreeSet<String> = owners
            .iter()
            .map(|(_, digest)| digest.to_string())
            .collect();
        let whole = owners.len() == 3 && digests.len() == 1 && !digests.contains("null");
        match whole && others.is_empty() {
            true => Ok(owners.into_iter().map(|(node, _)| node).collect()),
            false => Err(format!("{owners:?}, and {others:?}")),
        }
    })
}

/// Four tokens on each of these, and every partition with three owners.
fn check_ring(node: &Node, members: &[&str]) {
    let ring = json_of(node, "/v1/cluster/ring");
    assert_eq!(ring["partitions"], PARTITIONS);
    let nodes = list(&ring["nodes"]);
    let names: Vec<String> = nodes.iter().map(|node| text(&node["node_id"])).collect();
    assert_eq!(names, members);
    assert!(
        nodes.iter().all(|node| list(&node["tokens"]).len() == 4),
        "{ring}"
    );
    let owned: u64 = nodes
        .iter()
        .map(|node| node["owned"].as_u64().unwrap())
        .sum();
    assert_eq!(owned, 3 * PARTITIONS as u64, "{ring}");
    for preferred in list(&ring["owners"]) {
        let distinct: BTreeSet<String> = list(&preferred).iter().map(text).collect();
        assert!(
            distinct.len() >= 3 && distinct.len() == list(&preferred).len(),
            "{preferred}"
        );
    }
    let bucket = json_of(node, "/v1/buckets/default");
    assert_eq!(bucket["n"], 3, "{bucket}");
    assert_eq!(
        [&bucket["w"], &bucket["r"]],
        ["quorum", "quorum"],
        "two of three: {bucket}"
    );
}

/// Waits until all of these see a member so.
#[track_caller]
fn wait_seen(nodes: &[&Node], member: &str, state: &str) {
    for node in nodes {
        until(&format!("{} sees {member} {state}", node.id), || {
            let body = json_of(node, "/v1/cluster");
            let found = list(&body["members"])
                .into_iter()
                .find(|one| one["node_id"] == member);
            match found.unwrap_or_default() {
                found if found["state"] == state => Ok(()),
                found => Err(found.to_string()),
            }
        });
    }
}

/// How much all of these keep for a node.
fn kept(nodes: &[&Node], target: &str) -> u64 {
    let of = |node: &&Node| {
        let hints = list(&json_of(node, "/v1/cluster/handoff")["hints"]);
        let hints = hints.into_iter().filter(|hint| hint["target"] == target);
        hints
            .map(|hint| hint["count"].as_u64().unwrap())
            .sum::<u64>()
    };
    nodes.iter().map(of).sum()
}

#[test]
fn six_nodes_of_four_virtual_nodes_keep_three_copies_through_a_short_and_a_long_stop() {
    let mut cluster = Cluster::plan(6, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    check_ring(&cluster.nodes[0], &ALL);
    three_nodes_hold_every_put(&cluster);
    let missed = one_stops(&mut cluster);
    it_returns(&mut cluster, &missed);
    one_stays_away(&mut cluster);
}

/// A put reaches three nodes, whichever node is asked, and two answers acknowledge it.
fn three_nodes_hold_every_put(cluster: &Cluster) {
    for at in 0..KEYS {
        let node = &cluster.nodes[at % 6];
        let written = node.ask(&put(path(at), format!("first {at}"))).expect(204);
        // A fallback may stand in for an owner that a busy machine keeps silent; two answers are what it takes.
        let acks = written.header("sibyl-acks");
        let two = [
            "owners=2 fallbacks=0",
            "owners=1 fallbacks=1",
            "owners=3 fallbacks=0",
        ];
        assert!(two.contains(&acks), "{acks}");
        assert!(ALL.contains(&written.header("sibyl-coordinator")));
    }
    let mut owners = BTreeSet::new();
    for at in 0..KEYS {
        owners.extend(wait_three_copies(&cluster.nodes[0], &path(at)));
    }
    assert_eq!(owners.len(), 6, "everybody owns something: {owners:?}");
}

/// n3 stops: all others say so, and what it should have had is kept for it. What it missed.
fn one_stops(cluster: &mut Cluster) -> Vec<usize> {
    let owned =
        |at: &usize| cluster.owners("default", &format!("k{at}"))[..3].contains(&"n3".to_owned());
    let missed: Vec<usize> = (0..KEYS).filter(owned).collect();
    assert!(missed.len() > 10, "{missed:?}");
    cluster.nodes[2].kill();
    let others: Vec<&Node> = cluster.nodes.iter().filter(|node| node.runs()).collect();
    wait_seen(&others, "n3", "suspect");
    for node in &others {
        let body = json_of(node, "/v1/cluster");
        assert_eq!(body["healthy"], false, "{body}");
        assert!(
            body["reasons"].to_string().contains("n3 is suspected"),
            "{body}"
        );
    }
    cluster.wait_whole();
    for at in &missed {
        let node = others[at % 5];
        let read = node.ask(&get(path(*at))).expect(200);
        let written = node.ask(&put(path(*at) + "?w=all", format!("second {at}")).seen(&read));
        assert_eq!(
            written.expect(204).header("sibyl-acks"),
            "owners=2 fallbacks=1"
        );
    }
    // Two owners that answered acknowledge it, with nobody standing in; three there are not.
    let read = others[0].ask(&get(path(missed[0]))).expect(200);
    let ask =
        |query: &str| put(path(missed[0]) + query, format!("second {}", missed[0])).seen(&read);
    let strict = others[0].ask(&ask("?sloppy=false")).expect(204);
    assert_eq!(strict.header("sibyl-acks"), "owners=2 fallbacks=0");
    let seen = others[0].ask(&get(path(missed[0]))).expect(200);
    let all = put(
        path(missed[0]) + "?sloppy=false&w=all",
        format!("second {}", missed[0]),
    )
    .seen(&seen);
    others[0].ask(&all).refused(503, "quorum_not_reached");

    assert!(kept(&others, "n3") >= missed.len() as u64);
    let pending = others.iter().filter(|node| {
        let page = node.ask(&get("/metrics")).expect(200).text();
        page.contains("sibyl_hints_pending{target=\"n3\"}")
    });
    assert!(pending.count() > 1, "several stand in");
    missed
}

/// n3 is back: it learns that it was suspected, collects its hints, compares its trees with everybody, and holds
/// every key of its own without anybody having read it.
fn it_returns(cluster: &mut Cluster, missed: &[usize]) {
    cluster.nodes[2].start();
    cluster.wait_whole();
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    let three = all[2];
    wait_seen(&all, "n3", "alive");
    until("n3 knows that it was suspected", || {
        match json_of(three, "/v1/cluster") {
            body if body["was_suspected"].is_null() => Err(body.to_string()),
            _ => Ok(()),
        }
    });
    until("every hint is delivered", || match kept(&all, "n3") {
        0 => Ok(()),
        left => Err(format!("{left} hints are left")),
    });
    assert!(
        three
            .said()
            .contains("collects what was kept for this node"),
        "{}",
        three.said()
    );
    until("n3 has compared its trees with all others", || {
        let status = json_of(three, "/v1/cluster/anti-entropy");
        let peers = list(&status["peers"]);
        let compared =
            |peer: &Value| peer["dirty_partitions"] == 0 && peer["last_success_ms_ago"].is_u64();
        match peers.len() == 5 && peers.iter().all(compared) && status["unclean_partitions"] == 0 {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    for at in 0..KEYS {
        let owners = wait_three_copies(three, &path(at));
        assert_eq!(owners.contains(&"n3".to_owned()), missed.contains(&at));
    }
    check_values(three, missed);
}

/// n5 stays away: it is removed for good, and every key of it has three copies again.
fn one_stays_away(cluster: &mut Cluster) {
    let before: Vec<Vec<String>> = (0..KEYS)
        .map(|at| wait_three_copies(&cluster.nodes[0], &path(at)))
        .collect();
    assert!(
        before
            .iter()
            .any(|owners| owners.contains(&"n5".to_owned()))
    );
    let missed: Vec<usize> = (0..KEYS)
        .filter(|at| before[*at].contains(&"n3".to_owned()))
        .collect();
    cluster.nodes[4].kill();
    let left: Vec<&Node> = cluster.nodes.iter().filter(|node| node.runs()).collect();
    wait_seen(&left, "n5", "suspect");
    wait_seen(&left, "n5", "down");
    for node in &left {
        until(&format!("{} knows the owners of after", node.id), || {
            let body = json_of(node, "/v1/registry");
            match body["owner_change"].is_null() && list(&body["members"]).len() == 5 {
                true => Ok(()),
                false => Err(body.to_string()),
            }
        });
        check_ring(node, &["n1", "n2", "n3", "n4", "n6"]);
    }
    for (at, before) in before.iter().enumerate() {
        let owners = wait_three_copies(left[at % 5], &path(at));
        assert!(!owners.contains(&"n5".to_owned()), "{owners:?}");
        let kept = before.iter().filter(|node| owners.contains(node)).count();
        assert!(kept >= 2, "{before:?} became {owners:?}");
    }
    check_values(left[0], &missed);
    // It is writable as before, with three owners that answer.
    let read = left[0].ask(&get(path(0))).expect(200);
    let ask = put(path(0) + "?w=all&sloppy=false", read.text()).seen(&read);
    assert_eq!(
        left[0].ask(&ask).expect(204).header("sibyl-acks"),
        "owners=3 fallbacks=0"
    );
    assert_eq!(kept(&left, "n5"), 0);
    assert_eq!(json_of(left[0], "/v1/cluster/handoff")["hints"], json!([]));
}

/// Every key is there as it was written last.
fn check_values(node: &Node, missed: &[usize]) {
    for at in 0..KEYS {
        let round = if missed.contains(&at) {
            "second"
        } else {
            "first"
        };
        let read = node.ask(&get(path(at) + "?r=all")).expect(200);
        assert_eq!(read.text(), format!("{round} {at}"));
    }
}
