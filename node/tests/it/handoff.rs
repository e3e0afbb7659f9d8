//! Real nodes, one or more of them away: who stands in for them, and what they hold when they are back.
//!
//! Nothing waits for time to pass: nodes are asked until they say what they must. No key is read before its
//! copies are compared, so what an owner holds it got by hinted handoff: explain asks for digests first.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::{Value, json};

use crate::ask::{get, key, post, put, put_bucket, text};
use crate::nodes::{Cluster, Node, until};

/// Five nodes: a key has three owners and two that may stand in.
fn five(flags: &[&str]) -> Cluster {
    let mut all = vec!["--allow-cuts", "--partitions=16"];
    all.extend(flags);
    let mut cluster = Cluster::plan(5, &all);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster
}

/// Keys with their paths.
fn keys(prefix: &str) -> impl Iterator<Item = (String, String)> {
    let name = move |at| format!("{prefix}-{at}");
    (0..1000)
        .map(name)
        .map(|name| (key("default", &name), name))
}

/// The first key whose preference list is as wanted.
fn key_where(
    cluster: &Cluster,
    prefix: &str,
    fits: impl Fn(&[String]) -> bool,
) -> (String, Vec<String>) {
    let mut placed = keys(prefix).map(|(path, name)| (path, cluster.owners("default", &name)));
    let found = placed.find(|(_, nodes)| fits(nodes));
    found.expect("sixteen partitions have many lists")
}

/// What a node keeps for others: `(target, count, refused)`.
fn kept(node: &Node) -> Vec<(String, u64, u64)> {
    let body = node.ask(&get("/v1/cluster/handoff")).expect(200).json();
    assert_eq!(body["transfers"], json!([]), "{body}");
    let number = |hint: &Value, name: &str| hint[name].as_u64().unwrap();
    let hint = |hint: &Value| {
        (
            text(&hint["target"]),
            number(hint, "count"),
            number(hint, "refused"),
        )
    };
    body["hints"].as_array().unwrap().iter().map(hint).collect()
}

fn kept_in_all(cluster: &Cluster) -> u64 {
    let running = cluster.nodes.iter().filter(|node| node.runs());
    running.flat_map(kept).map(|(_, count, _)| count).sum()
}

#[track_caller]
fn wait_delivered(cluster: &Cluster) {
    until("every hint is delivered", || match kept_in_all(cluster) {
        0 => Ok(()),
        left => Err(format!("{left} hints are left")),
    });
}

/// Each node's copy by explain, which looks before it reads: `(role, digest, hint)`.
fn copies(node: &Node, path: &str) -> Vec<(String, Value, bool)> {
    let answer = node
        .ask(&get(format!("{path}?explain=true&r=1")))
        .expect(200);
    let body = answer.json();
    let copy = |owner: &Value| {
        (
            text(&owner["role"]),
            owner["object_digest"].clone(),
            owner["hint"].as_bool().unwrap(),
        )
    };
    let list = body["preference_list"].as_array().unwrap();
    list.iter().map(copy).collect()
}

/// Every owner holds the same, and nobody else anything.
#[track_caller]
fn check_owned(node: &Node, path: &str) {
    let copies = copies(node, path);
    let (owners, others) = copies.split_at(3);
    for (role, digest, hint) in owners {
        assert_eq!((role.as_str(), *hint), ("primary", false), "{copies:?}");
        assert!(!digest.is_null() && digest == &owners[0].1, "{copies:?}");
    }
    for other in others {
        assert_eq!(
            other,
            &("fallback".to_owned(), Value::Null, false),
            "{copies:?}"
        );
    }
}

#[test]
fn an_owner_that_returns_holds_every_key_without_any_read() {
    let mut cluster = five(&[]);
    let owned: Vec<String> = keys("missed")
        .filter(|(_, name)| cluster.owners("default", name)[..3].contains(&"n3".to_owned()))
        .map(|(path, _)| path)
        .take(20)
        .collect();
    cluster.nodes[2].kill();
    cluster.wait_whole();
    for (at, path) in owned.iter().enumerate() {
        let node = cluster.node(["n1", "n2", "n4", "n5"][at % 4]);
        let written = node.ask(&put(format!("{path}?w=all"), path)).expect(204);
        assert_eq!(written.header("sibyl-acks"), "owners=2 fallbacks=1");
    }
    let strict = cluster.nodes[0].ask(&put(format!("{}?w=all&sloppy=false", owned[0]), "x"));
    let body = strict.refused(503, "quorum_not_reached").json();
    assert_eq!(body["outcome"], "unknown", "{body}");
    let read = cluster.nodes[0].ask(&get(format!("{}?r=all&siblings=true", owned[1])));
    assert_eq!(
        read.expect(200).header("sibyl-acks"),
        "owners=2 fallbacks=1"
    );

    assert!(kept_in_all(&cluster) >= 20, "one for each key");
    let keeper = cluster
        .nodes
        .iter()
        .find(|node| node.runs() && !kept(node).is_empty());
    let keeper = keeper.unwrap();
    let sync = |timeout_ms: u64| {
        let path = format!("/v1/cluster/handoff?timeout_ms={timeout_ms}");
        keeper.ask(&post(path, &json!({}))).expect(200).json()
    };
    let left = sync(1);
    assert_eq!(
        (&left["delivered"], &left["hints"][0]["target"]),
        (&json!(false), &json!("n3")),
        "{left}"
    );
    let page = keeper.ask(&get("/metrics")).expect(200).text();
    assert!(
        page.contains("sibyl_hints_pending{target=\"n3\"}"),
        "{page}"
    );

    let keeper = keeper.id.clone();
    cluster.nodes[2].start();
    cluster.nodes[2].wait_ready();
    let path = "/v1/cluster/handoff?timeout_ms=40000";
    let done = cluster
        .node(&keeper)
        .ask(&post(path, &json!({})))
        .expect(200)
        .json();
    assert_eq!(
        (&done["delivered"], &done["hints"]),
        (&json!(true), &json!([])),
        "{done}"
    );
    wait_delivered(&cluster);
    cluster.wait_whole();
    for path in &owned[1..] {
        check_owned(&cluster.nodes[2], path);
    }
}

#[test]
fn a_fallback_coordinates_where_no_owner_can_be_reached() {
    let cluster = five(&[]);
    let (path, nodes) = key_where(&cluster, "away", |nodes| {
        nodes[3..].contains(&"n5".to_owned())
    });
    let (owners, others) = nodes.split_at(3);
    let other = cluster.node(others.iter().find(|id| *id != "n5").unwrap());
    let client = cluster.node("n5");
    let set = |cut: bool| {
        for owner in owners {
            for node in [client, other] {
                node.cut(cluster.node(owner), cut);
            }
        }
    };
    for round in ["first", "second"] {
        set(true);
        client.wait_reaches(&[&other.id]);
        other.wait_reaches(&["n5"]);
        client
            .ask(&put(format!("{path}?sloppy=false"), "strict"))
            .refused(503, "quorum_not_reached");
        let written = client.ask(&put(&path, format!("{round} a"))).expect(204);
        assert_eq!(written.header("sibyl-acks"), "owners=0 fallbacks=2");
        assert_eq!(written.header("sibyl-coordinator"), "n5");
        let again = client
            .ask(&put(&path, format!("{round} b")).seen(&written))
            .expect(204);
        assert_eq!(again.header("sibyl-acks"), "owners=0 fallbacks=2");
        let read = other.ask(&get(&path));
        assert_eq!(read.header("sibyl-acks"), "owners=0 fallbacks=2", "{read}");
        assert!(read.text().contains(&format!("{round} b")), "{read}");
        let hints: Vec<bool> = copies(client, &path).iter().map(|copy| copy.2).collect();
        assert_eq!(hints, [false, false, false, true, true]);
        set(false);
        wait_delivered(&cluster);
        cluster.wait_whole();
        check_owned(client, &path);
    }
    // What the fallback minted after it had forgotten its first copy superseded nothing it had not seen.
    let all = client.ask(&get(format!("{path}?r=all"))).expect(300);
    assert_eq!(all.values(), ["first b", "second b"]);
}

#[test]
fn a_fallback_killed_after_its_acknowledgement_loses_nothing() {
    let mut cluster = five(&[]);
    let (path, nodes) = key_where(&cluster, "killed", |nodes| {
        !nodes[..3].contains(&"n1".to_owned()) && nodes[3] != "n1"
    });
    let at = |id: &str| id[1..].parse::<usize>().unwrap() - 1;
    let (owner, fallback) = (at(&nodes[2]), at(&nodes[3]));
    cluster.nodes[owner].kill();
    cluster.wait_whole();
    let written = cluster.nodes[0]
        .ask(&put(format!("{path}?w=all"), "kept"))
        .expect(204);
    assert_eq!(written.header("sibyl-acks"), "owners=2 fallbacks=1");
    cluster.nodes[fallback].kill();
    cluster.nodes[owner].start();
    cluster.wait_whole();
    assert_eq!(
        kept_in_all(&cluster),
        0,
        "the only hint is on the dead node's disk"
    );
    cluster.nodes[fallback].start();
    // It counts what it kept before it serves.
    cluster.nodes[fallback].wait_ready();
    wait_delivered(&cluster);
    cluster.wait_whole();
    check_owned(&cluster.nodes[0], &path);
}

#[test]
fn over_the_quota_a_hint_is_refused_and_does_not_count() {
    let mut cluster = five(&["--hint-quota-bytes=1"]);
    let strict = put_bucket("strict", &json!({ "sloppy": false }));
    cluster.nodes[0].ask(&strict).expect(201);
    let (path, _) = key_where(&cluster, "full", |nodes| {
        nodes[..3].contains(&"n3".to_owned()) && nodes[3..].contains(&"n1".to_owned())
    });
    cluster.nodes[2].kill();
    cluster.wait_whole();
    let answer = cluster.nodes[0].ask(&put(format!("{path}?w=all"), "x"));
    let body = answer.refused(503, "quorum_not_reached").json();
    assert_eq!(body["outcome"], "unknown", "{body}");
    let refused: Vec<_> = cluster
        .nodes
        .iter()
        .filter(|node| node.runs())
        .flat_map(kept)
        .collect();
    assert_eq!(
        refused,
        [("n3".to_owned(), 0, 1), ("n3".to_owned(), 0, 1)],
        "by both that may stand in"
    );
    let written = cluster.nodes[0].ask(&put(&path, "x")).expect(204);
    assert_eq!(written.header("sibyl-acks"), "owners=2 fallbacks=0");
    // In a bucket that counts owners only nobody is asked to stand in.
    let mut names = (0..1000).map(|at| format!("s-{at}"));
    let name = names.find(|name| cluster.owners("strict", name)[..3].contains(&"n3".to_owned()));
    let path = key("strict", &name.unwrap());
    cluster.nodes[0]
        .ask(&put(format!("{path}?w=all"), "x"))
        .refused(503, "quorum_not_reached");
    let asked: u64 = cluster
        .nodes
        .iter()
        .filter(|node| node.runs())
        .flat_map(kept)
        .map(|hint| hint.2)
        .sum();
    assert!(
        asked >= 3,
        "the second write asked both again, the strict one nobody: {asked}"
    );
}
