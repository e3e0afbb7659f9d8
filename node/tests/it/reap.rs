//! Three real nodes forget what was deleted, and nothing of it comes back.
//!
//! Nothing waits for time to pass: nodes are asked until they say what they must. A key that was reaped is one that
//! no node has a record of; a tombstone would be counted.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::ask::{Answer, delete, get, key, post, put};
use crate::nodes::{Cluster, Node, SIBYL, until};

/// Often enough for a test, and some ten rounds are what a reap takes.
const FLAGS: [&str; 3] = ["--allow-cuts", "--partitions=16", "--reap-interval=100ms"];

fn three() -> Cluster {
    let mut cluster = Cluster::plan(3, &FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster
}

/// A gauge of a node.
fn gauge(node: &Node, name: &str) -> Option<f64> {
    let page = node.ask(&get("/metrics")).expect(200).text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

/// How far a node is.
fn reaping(node: &Node) -> Value {
    node.ask(&get("/v1/cluster")).expect(200).json()["reaping"].clone()
}

/// Waits until no node has a tombstone any more.
#[track_caller]
fn wait_reaped(nodes: &[&Node]) {
    for node in nodes {
        until("no tombstone is left", || {
            match gauge(node, "sibyl_storage_tombstones") {
                Some(0.0) => Ok(()),
                left => Err(format!("{}: {left:?}; {}", node.id, reaping(node))),
            }
        });
    }
}

/// Waits until the next epoch has begun everywhere, so many times.
#[track_caller]
fn wait_epochs(nodes: &[&Node], epochs: u64) {
    let epoch = |node: &Node| reaping(node)["epoch"].as_u64().unwrap();
    let wanted = nodes.iter().map(|node| epoch(node)).max().unwrap() + epochs;
    for node in nodes {
        until("epochs go on", || match epoch(node) >= wanted {
            true => Ok(()),
            false => Err(format!("{}: {}", node.id, reaping(node))),
        });
    }
}

/// No owner has a record of the key.
#[track_caller]
fn check_gone(node: &Node, path: &str) {
    let body = node
        .ask(&get(format!("{path}?explain=true&r=all")))
        .expect(200)
        .json();
    let owners = body["preference_list"].as_array().unwrap();
    for owner in owners {
        assert_eq!(owner["siblings"], 0, "{body}");
    }
    let read = node.ask(&get(format!("{path}?r=all"))).expect(404);
    assert!(!read.has("sibyl-context"), "{read}");
}

fn listed(node: &Node) -> Vec<String> {
    let body = node
        .ask(&get("/v1/buckets/default/keys"))
        .expect(200)
        .json();
    let keys = body["keys"].as_array().unwrap();
    keys.iter().map(crate::ask::text).collect()
}

/// Writes keys and deletes them; the contexts of the reads before.
fn write_and_delete(cluster: &Cluster, paths: &[String]) -> Vec<Answer> {
    let one = |(at, path): (usize, &String)| {
        let node = &cluster.nodes[at % cluster.nodes.len()];
        node.ask(&put(format!("{path}?w=all"), "old")).expect(204);
        let seen = node.ask(&get(path.as_str())).expect(200);
        node.ask(&delete(path.as_str()).seen(&seen)).expect(204);
        seen
    };
    paths.iter().enumerate().map(one).collect()
}

#[test]
fn deleted_keys_are_forgotten_by_every_owner_and_can_be_written_again() {
    let cluster = three();
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    let paths: Vec<String> = (0..30)
        .map(|at| key("default", &format!("gone-{at}")))
        .collect();
    let kept = key("default", "kept");
    nodes[0].ask(&put(kept.as_str(), "here")).expect(204);
    let seen = write_and_delete(&cluster, &paths);
    wait_reaped(&nodes);
    for (at, path) in paths.iter().enumerate() {
        check_gone(nodes[at % 3], path);
    }
    for node in &nodes {
        assert_eq!(listed(node), ["kept"]);
        assert!(
            reaping(node)["reaped"].as_u64().unwrap() >= 30,
            "{}",
            reaping(node)
        );
        assert!(gauge(node, "sibyl_reap_epoch_age_seconds").is_some());
    }
    // Trees and copies went together: comparing everything finds nothing.
    let repaired = |node: &Node| {
        let status = node
            .ask(&get("/v1/cluster/anti-entropy"))
            .expect(200)
            .json();
        status["totals"]["keys_repaired"].as_u64().unwrap()
    };
    let before: Vec<u64> = nodes.iter().map(|node| repaired(node)).collect();
    for node in &nodes {
        node.ask(&post("/v1/cluster/anti-entropy", &Value::Null))
            .expect(200);
        until("everything is compared", || {
            let status = node
                .ask(&get("/v1/cluster/anti-entropy"))
                .expect(200)
                .json();
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            match peers.iter().all(|peer| peer["dirty_partitions"] == 0)
                && status["running"] == json!([])
            {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
    }
    let after: Vec<u64> = nodes.iter().map(|node| repaired(node)).collect();
    assert_eq!(before, after);
    for (path, seen) in paths.iter().zip(&seen).take(6) {
        // Created anew, by somebody who had seen nothing, and then written by one who had seen what is gone.
        nodes[1]
            .ask(&put(format!("{path}?w=all"), "new"))
            .expect(204);
        nodes[2]
            .ask(&put(format!("{path}?w=all"), "late").seen(seen))
            .expect(204);
        let both = nodes[0].ask(&get(format!("{path}?r=all"))).expect(300);
        let mut values = both.values();
        values.sort();
        assert_eq!(
            values,
            ["late", "new"],
            "a context covers what its client saw alone"
        );
        nodes[0].ask(&delete(path.as_str()).seen(&both)).expect(204);
    }
    wait_reaped(&nodes);
    nodes[0].ask(&get(kept.as_str())).expect(200);
}

#[test]
fn a_node_that_is_away_stops_reaping_for_all_and_is_named() {
    let mut cluster = three();
    let paths: Vec<String> = (0..10)
        .map(|at| key("default", &format!("away-{at}")))
        .collect();
    for path in &paths {
        cluster.nodes[0]
            .ask(&put(format!("{path}?w=all"), "old"))
            .expect(204);
    }
    cluster.nodes[2].kill();
    cluster.wait_whole();
    for path in &paths {
        let seen = cluster.nodes[0].ask(&get(path.as_str())).expect(200);
        cluster.nodes[1]
            .ask(&delete(path.as_str()).seen(&seen))
            .expect(204);
    }
    for node in &cluster.nodes[..2] {
        until("it is said who stops it", || {
            let reasons = node.ask(&get("/v1/cluster")).expect(200).json()["reasons"].clone();
            let said = reasons.as_array().unwrap().iter().map(crate::ask::text);
            match said
                .clone()
                .any(|why| why.starts_with("reaping: ") && why.contains("n3 cannot be reached"))
            {
                true => Ok(()),
                false => Err(reasons.to_string()),
            }
        });
    }
    let age = |node: &Node| gauge(node, "sibyl_reap_epoch_age_seconds").unwrap();
    until("the epoch gets old", || match age(&cluster.nodes[0]) {
        age if age >= 2.0 => Ok(()),
        age => Err(format!("{age}")),
    });
    for node in &cluster.nodes[..2] {
        assert_eq!(gauge(node, "sibyl_storage_tombstones"), Some(10.0));
        assert_eq!(reaping(node)["reaped"], 0);
    }
    cluster.nodes[2].start();
    cluster.wait_whole();
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    wait_reaped(&nodes);
    wait_epochs(&nodes, 2);
    for path in &paths {
        check_gone(nodes[2], path);
    }
    assert_eq!(listed(nodes[1]), Vec::<String>::new());
}

fn sibyl(args: &[&str]) {
    let mut command = Command::new(SIBYL);
    command.args(args).stdin(Stdio::null());
    for name in ["SIBYL_URL", "SIBYL_BUCKET", "SIBYL_OUTPUT"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_from_before_brings_nothing_back_that_was_reaped() {
    let mut cluster = three();
    let paths: Vec<String> = (0..20)
        .map(|at| key("default", &format!("back-{at}")))
        .collect();
    for path in &paths {
        cluster.nodes[0]
            .ask(&put(format!("{path}?w=all"), "old"))
            .expect(204);
    }
    let file = cluster.nodes[2].folder.with_file_name("n3.backup");
    let url = format!("http://{}", cluster.nodes[2].http);
    sibyl(&["backup", text_of(&file), "--url", &url]);
    let (gone, stay) = paths.split_at(10);
    for path in gone {
        let seen = cluster.nodes[0].ask(&get(path.as_str())).expect(200);
        cluster.nodes[0]
            .ask(&delete(path.as_str()).seen(&seen))
            .expect(204);
    }
    wait_reaped(&cluster.nodes.iter().collect::<Vec<_>>());
    // One of them is there again, as another write.
    cluster.nodes[0]
        .ask(&put(format!("{}?w=all", gone[0]), "new"))
        .expect(204);
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(&cluster.nodes[2].folder).unwrap();
    let folder = cluster.nodes[2].folder.clone();
    sibyl(&["restore", text_of(&file), "--data-dir", text_of(&folder)]);
    cluster.nodes[2].start();
    cluster.wait_whole();
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    until("what may be gone is set aside", || {
        match reaping(nodes[2]) {
            status if status["aside"].as_u64() >= Some(10) => Ok(()),
            status => Err(status.to_string()),
        }
    });
    wait_epochs(&nodes, 2);
    for path in &gone[1..] {
        check_gone(nodes[2], path);
    }
    let again = nodes[2].ask(&get(format!("{}?r=all", gone[0]))).expect(200);
    assert_eq!(again.text(), "new", "only what was written since");
    for path in stay {
        assert_eq!(
            nodes[2]
                .ask(&get(format!("{path}?r=all")))
                .expect(200)
                .text(),
            "old"
        );
    }
    let mut left = listed(nodes[0]);
    left.sort();
    assert_eq!(left.len(), 11, "{left:?}");
}
