//! What needs one answer, on a real cluster: buckets, forming, and who is let in.
//!
//! Changes go through any node and end in one document on all of them. Flags that differ, strangers and second
//! processes are refused with words that an operator can act on; the words are part of the test.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::{Value, json};

use crate::ask::{Ask, delete, get, key, put, put_bucket, text};
use crate::nodes::{Cluster, Node, free_address, until};

fn registry(node: &Node) -> (Value, Value) {
    let body = node.ask(&get("/v1/registry")).expect(200).json();
    (body["number"].clone(), body["hash"].clone())
}

/// Waits until every node holds the same document.
#[track_caller]
fn wait_agreed(cluster: &Cluster) {
    until("one registry", || {
        let all: Vec<_> = cluster.nodes.iter().map(registry).collect();
        if all.iter().all(|one| *one == all[0]) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    });
}

fn buckets(node: &Node) -> Vec<String> {
    let body = node.ask(&get("/v1/buckets")).expect(200).json();
    body["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| text(&bucket["name"]))
        .collect()
}

/// Waits until what a node says of its readiness holds these words.
#[track_caller]
fn wait_unready(node: &Node, words: &str) {
    until(&format!("{} says {words:?}", node.id), || {
        match get("/health/ready").send(node.http) {
            Ok(answer)
                if answer.status == 503 && answer.json()["reasons"].to_string().contains(words) =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", node.said())),
        }
    });
}

#[test]
fn a_bucket_lives_and_is_configured_through_any_node() {
    let cluster = Cluster::three();
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let bucket = |config: Value| put_bucket("life", &config);
    let made = one
        .ask(&bucket(json!({ "n": 2 })).with("if-none-match", "*"))
        .expect(201);
    wait_agreed(&cluster);
    two.ask(&bucket(json!({})).with("if-none-match", "*"))
        .refused(412, "precondition_failed");
    let changed = two
        .ask(&bucket(json!({ "max_siblings": 5 })).with("if-match", made.header("etag")))
        .expect(200);
    assert_eq!(
        (&changed.json()["n"], &changed.json()["max_siblings"]),
        (&json!(2), &json!(5)),
        "n stays"
    );
    wait_agreed(&cluster);
    for node in &cluster.nodes {
        assert_eq!(
            node.ask(&get("/v1/buckets/life"))
                .expect(200)
                .header("etag"),
            changed.header("etag")
        );
        node.ask(&bucket(json!({})).with("if-match", made.header("etag")))
            .refused(412, "precondition_failed");
        node.ask(&delete("/v1/buckets/life").with("if-match", made.header("etag")))
            .refused(412, "precondition_failed");
    }
    for (config, status, code) in [
        (json!({ "n": 3 }), 409, "fixed_n"),
        (json!({ "n": 0 }), 400, "bad_config"),
        (json!({ "max_siblings": 0 }), 400, "bad_config"),
        (json!({ "journal": {} }), 400, "unsupported_field"),
        (
            json!({ "resolver": { "name": "none" } }),
            404,
            "no_resolver",
        ),
        (json!({ "color": "red" }), 400, "unknown_field"),
    ] {
        let answer = three.ask(&bucket(config.clone()));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{config}: {answer}"
        );
    }
    let unchanged = three.ask(&get("/v1/buckets/life")).expect(200);
    assert_eq!(
        unchanged.header("etag"),
        changed.header("etag"),
        "a refused change changes nothing"
    );
    one.ask(&delete("/v1/buckets/default?purge=true"))
        .refused(409, "default_bucket");
    two.ask(&delete("/v1/buckets/nowhere"))
        .refused(404, "no_bucket");
    recreate(&cluster);
}

/// Deletes a bucket that holds something and makes it again: nothing of the old one is left.
fn recreate(cluster: &Cluster) {
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let path = key("life", "k");
    let old = three.ask(&put(&path, "old")).expect(204);
    one.ask(&delete("/v1/buckets/life"))
        .refused(409, "bucket_not_empty");
    one.ask(&delete("/v1/buckets/life?purge=true")).expect(204);
    wait_agreed(cluster);
    for node in &cluster.nodes {
        node.ask(&get(&path)).refused(404, "no_bucket");
        node.ask(&put(&path, "new")).refused(404, "no_bucket");
    }
    two.ask(&put_bucket("life", &json!({}))).expect(201);
    wait_agreed(cluster);
    for node in &cluster.nodes {
        node.ask(&get(&path)).refused(404, "no_value");
        assert_eq!(
            node.ask(&get("/v1/buckets/life/keys")).expect(200).json()["keys"],
            json!([])
        );
        node.ask(&put(&path, "new").seen(&old))
            .refused(400, "bad_context");
        node.ask(&delete(&path).seen(&old))
            .refused(400, "bad_context");
    }
    let new = one.ask(&put(&path, "new")).expect(204);
    assert_eq!(three.ask(&get(&path)).expect(200).text(), "new");
    three.ask(&delete(&path).seen(&new)).expect(204);
    two.ask(&delete("/v1/buckets/life")).expect(204);
}

#[test]
fn changes_on_all_nodes_at_once_end_in_one_document() {
    const EACH: usize = 4;
    let cluster = Cluster::three();
    let made = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            let made = &made;
            scope.spawn(move || {
                for at in 0..EACH {
                    // Its own, and one that all of them want.
                    for name in [format!("{}-{at}", node.id), format!("all-{at}")] {
                        made.lock()
                            .unwrap()
                            .push((name.clone(), create(node, &name)));
                    }
                }
            });
        }
    });
    wait_agreed(&cluster);
    let mut wanted: Vec<String> = (0..EACH).map(|at| format!("all-{at}")).collect();
    wanted.push("default".to_owned());
    wanted.extend((1..=3).flat_map(|node| (0..EACH).map(move |at| format!("n{node}-{at}"))));
    for node in &cluster.nodes {
        assert_eq!(buckets(node), wanted, "{}", node.id);
    }
    let made = made.into_inner().unwrap();
    for at in 0..EACH {
        let creators = made
            .iter()
            .filter(|(name, status)| *name == format!("all-{at}") && *status == 201);
        assert_eq!(creators.count(), 1, "exactly one of them made it: {made:?}");
    }
}

/// Creates a bucket, again while the node says that it could not or does not know; the last status.
fn create(node: &Node, name: &str) -> u16 {
    until("the bucket is made", || {
        match node.ask(&put_bucket(name, &json!({}))) {
            answer if answer.status < 300 => Ok(answer.status),
            answer if answer.status == 503 && answer.has("retry-after") => Err(answer.to_string()),
            answer => panic!("{answer}"),
        }
    })
}

#[test]
fn first_members_form_in_any_order_of_start() {
    for order in [[2, 0, 1], [1, 2, 0]] {
        let mut cluster = Cluster::plan(3, &["--partitions=8"]);
        let [first, second, last] = order;
        cluster.nodes[first].start();
        wait_unready(&cluster.nodes[first], "forming");
        cluster.nodes[second].start();
        wait_unready(&cluster.nodes[second], "forming");
        cluster.nodes[first].wait_reaches(&[&cluster.nodes[second].id]);
        // Two of three are a majority, and still form nothing.
        for at in [first, second] {
            let node = &cluster.nodes[at];
            assert_eq!(
                node.ask(&get("/v1/registry")).expect(200).json()["number"],
                1
            );
            let body = node
                .ask(&put(key("default", "k"), "v"))
                .refused(503, "not_serving")
                .json();
            assert_eq!(body["outcome"], "not_written");
            let refused: [Ask; 3] = [
                get(key("default", "k")),
                get("/v1/buckets/default/keys"),
                put_bucket("b", &json!({})),
            ];
            refused
                .iter()
                .for_each(|ask| drop(node.ask(ask).refused(503, "not_serving")));
            node.ask(&get("/health/live")).expect(200);
        }
        cluster.nodes[last].start();
        cluster.wait_whole();
        wait_agreed(&cluster);
        cluster.nodes[last]
            .ask(&put(key("default", "k"), "v"))
            .expect(204);
        assert_eq!(
            cluster.nodes[first]
                .ask(&get(key("default", "k")))
                .expect(200)
                .text(),
            "v"
        );
        // The same folders with other processes are the same cluster.
        let before = registry(&cluster.nodes[0]);
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_whole();
        assert_eq!(registry(&cluster.nodes[0]), before);
        assert_eq!(
            cluster.nodes[second]
                .ask(&get(key("default", "k")))
                .expect(200)
                .text(),
            "v"
        );
    }
}

#[test]
fn flags_that_differ_are_refused_by_name() {
    let check = |flag: &str, value: &str, words: &str| {
        let mut cluster = Cluster::plan(2, &["--partitions=8", "--tokens=16"]);
        cluster.nodes[1].set_flag(flag, value);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster
            .nodes
            .iter()
            .for_each(|node| wait_unready(node, words));
        let named = |node: &Node| assert_eq!(registry(node).0, 1, "nothing is formed");
        cluster.nodes.iter().for_each(named);
    };
    check("partitions", "16", "--partitions: ");
    check("tokens", "17", "--tokens of n1: ");
}

#[test]
fn strangers_and_second_processes_are_refused() {
    let mut cluster = Cluster::plan(2, &["--partitions=8"]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster.nodes[0]
        .ask(&put(key("default", "k"), "v"))
        .expect(204);

    // One of another cluster, at the address of a member.
    cluster.nodes[1].kill();
    let mut stranger = cluster.nodes[1].like("stranger");
    stranger.set_flag("cluster-id", "other");
    stranger.start();
    wait_unready(&stranger, "wrong_cluster");
    cluster.nodes[0].wait_reaches(&[]);
    stranger.kill();
    cluster.nodes[1].start();
    cluster.wait_whole();

    // Another process on a folder that is in use.
    let mut second = cluster.nodes[1].like("second");
    (second.http, second.peer, second.folder) = (
        free_address(),
        free_address(),
        cluster.nodes[1].folder.clone(),
    );
    second.start();
    assert_eq!(second.ended().code(), Some(1));
    assert!(
        cluster.nodes[1]
            .said()
            .contains("is in use by another process"),
        "{}",
        cluster.nodes[1].said()
    );

    // Another store under the name of a member that is there.
    let mut twin = cluster.nodes[1].like("twin");
    (twin.http, twin.peer) = (free_address(), free_address());
    twin.start();
    wait_unready(&twin, "two nodes call themselves n2");
    twin.kill();

    cluster.wait_whole();
    assert_eq!(
        cluster.nodes[1]
            .ask(&get(key("default", "k")))
            .expect(200)
            .text(),
        "v"
    );
}
