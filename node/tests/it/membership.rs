//! Who is there, on real clusters: nodes die, stand still, lose a link, come back, and everybody says so.
//!
//! Intervals are short, and still long enough for a busy machine; nothing here waits for a time, only for what nodes
//! say of each other.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use rustix::process::Signal;
use serde_json::Value;

use crate::ask::{get, key, put, text};
use crate::nodes::{Cluster, Node, until};

const FLAGS: &[&str] = &[
    "--allow-cuts",
    "--partitions=16",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
];

fn started(count: usize) -> Cluster {
    let mut cluster = Cluster::plan(count, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster
}

fn cluster_of(node: &Node) -> Value {
    node.ask(&get("/v1/cluster")).expect(200).json()
}

/// What a node says of a member.
fn seen(node: &Node, member: &str) -> Value {
    let body = cluster_of(node);
    let members = body["members"].as_array().unwrap();
    let found = members.iter().find(|one| one["node_id"] == member);
    found.unwrap().clone()
}

/// Waits until all of these see the member so; at which incarnation the last of them does.
#[track_caller]
fn wait_seen(by: &[&Node], member: &str, state: &str) -> u64 {
    let mut last = 0;
    for node in by {
        let what = format!("{} sees {member} {state}", node.id);
        last = until(&what, || match seen(node, member) {
            found if found["state"] == state => Ok(found["incarnation"].as_u64().unwrap()),
            found => Err(found.to_string()),
        });
    }
    last
}

/// The sum of a metric's samples that carry all these words.
fn metric(node: &Node, name: &str, words: &[&str]) -> f64 {
    let page = node.ask(&get("/metrics")).expect(200).text();
    let fits = |line: &&str| line.starts_with(name) && words.iter().all(|word| line.contains(word));
    let values = page.lines().filter(fits);
    values
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_node_that_died_is_suspected_by_all_and_is_told_so_when_it_returns() {
    let mut cluster = started(4);
    let before = wait_seen(&cluster.nodes.iter().collect::<Vec<_>>(), "n3", "alive");
    cluster.nodes[2].kill();
    let others = [0, 1, 3];
    // On a busy machine somebody may have been late while all started.
    let late = others.map(|at| !cluster_of(&cluster.nodes[at])["was_suspected"].is_null());
    {
        let others = others.map(|at| &cluster.nodes[at]);
        wait_seen(&others, "n3", "suspect");
        for node in others {
            let changes = "sibyl_gossip_state_changes_total";
            assert!(
                metric(node, changes, &["alive", "suspect"]) >= 1.0,
                "{}",
                node.id
            );
            assert_eq!(metric(node, "sibyl_gossip_members", &["suspect"]), 1.0);
            let body = cluster_of(node);
            assert_eq!(body["healthy"], false);
            assert!(
                body["reasons"].to_string().contains("n3 is suspected"),
                "{body}"
            );
            // It serves all the same.
            node.ask(&get("/health/ready")).expect(200);
            node.ask(&put(key("default", "k"), "v")).expect(204);
            assert_eq!(node.ask(&get(key("default", "k"))).expect(200).text(), "v");
        }
        // Everybody's opinion can be read on every node.
        until("n1 knows that n2 and n4 suspect n3", || {
            let by = seen(others[0], "n3")["suspected_by"].clone();
            if by == serde_json::json!(["n2", "n4"]) {
                Ok(())
            } else {
                Err(by.to_string())
            }
        });
    }
    cluster.nodes[2].start();
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    let after = wait_seen(&all, "n3", "alive");
    assert!(after > before, "incarnation {after} after {before}");
    let told = until("n3 knows that it was suspected", || {
        let body = cluster_of(all[2]);
        if body["was_suspected"].is_null() {
            Err(body.to_string())
        } else {
            Ok(text(&body["was_suspected"]["by"]))
        }
    });
    assert!(["n1", "n2", "n4"].contains(&told.as_str()), "{told}");
    for node in &all {
        until(&format!("{} is content", node.id), || {
            match cluster_of(node) {
                body if body["healthy"] == true => Ok(()),
                body => Err(body.to_string()),
            }
        });
    }
    for (at, late) in others.into_iter().zip(late) {
        let body = cluster_of(all[at]);
        assert!(late || body["was_suspected"].is_null(), "{body}");
    }
}

#[test]
fn a_node_that_stood_still_refutes_and_blames_nobody() {
    let cluster = started(3);
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let before = wait_seen(&[one, two, three], "n2", "alive");
    let blamed = |node: &Node| {
        metric(
            node,
            "sibyl_gossip_state_changes_total",
            &["from=\"alive\"", "to=\"suspect\""],
        )
    };
    let mine = blamed(two);
    two.signal(Signal::STOP);
    wait_seen(&[one, three], "n2", "suspect");
    two.signal(Signal::CONT);
    let after = wait_seen(&[one, three, two], "n2", "alive");
    until("n2 refutes what it was suspected of", || {
        match cluster_of(two) {
            body if body["was_suspected"].is_null() => Err(body.to_string()),
            _ => Ok(()),
        }
    });
    let refuted = until("n1 hears of it", || {
        match seen(one, "n2")["incarnation"].as_u64() {
            Some(incarnation) if incarnation > before => Ok(incarnation),
            other => Err(format!("{other:?} after {before}")),
        }
    });
    assert!(refuted >= after);
    wait_seen(&[two], "n1", "alive");
    wait_seen(&[two], "n3", "alive");
    assert_eq!(blamed(two), mine, "the silence was its own");
}

#[test]
fn one_broken_link_makes_nobody_suspect() {
    let cluster = started(3);
    let [one, two, _] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    // On a busy machine somebody may have been late while all started.
    let suspected = |node: &Node| {
        let name = "sibyl_gossip_state_changes_total";
        metric(node, name, &["from=\"alive\"", "to=\"suspect\""])
    };
    let before = [suspected(one), suspected(two)];
    one.cut(two, true);
    two.cut(one, true);
    let beats = |node: &Node, member: &str| seen(node, member)["heartbeat"].as_u64().unwrap();
    let from = beats(one, "n2");
    // Longer than any timer, counted in heartbeats that come by way of n3.
    until("n1 hears a dozen heartbeats of n2", || {
        match beats(one, "n2") {
            now if now >= from + 12 => Ok(()),
            now => Err(format!("{now} after {from}")),
        }
    });
    for (node, other) in [(one, "n2"), (two, "n1")] {
        let found = seen(node, other);
        assert_eq!(
            (&found["state"], &found["reachable"]),
            (&"alive".into(), &false.into()),
            "{found}"
        );
        let reasons = cluster_of(node)["reasons"].to_string();
        assert!(reasons.contains("the link"), "{reasons}");
    }
    assert_eq!([suspected(one), suspected(two)], before);
}

#[test]
fn a_store_that_is_older_than_what_its_peers_remember_is_given_up() {
    let mut cluster = started(3);
    let folder = cluster.nodes[1].folder.clone();
    let image = folder.with_file_name("image");
    assert_eq!(cluster.nodes[1].terminate().code(), Some(0));
    copy(&folder, &image);
    cluster.nodes[1].start();
    cluster.wait_whole();
    let batch = |node: &Node| {
        let answers = (0..12).map(|at| node.ask(&put(key("default", &format!("k{at}")), "v")));
        answers
            .map(|answer| answer.expect(204))
            .filter(|answer| answer.header("sibyl-coordinator") == "n2")
            .count()
    };
    assert!(batch(&cluster.nodes[0]) > 0, "n2 coordinates some");
    let beat = seen(&cluster.nodes[0], "n2")["heartbeat"].as_u64().unwrap();
    until("n1 hears two more heartbeats of n2", || {
        match seen(&cluster.nodes[0], "n2")["heartbeat"].as_u64() {
            Some(now) if now >= beat + 2 => Ok(()),
            now => Err(format!("{now:?}")),
        }
    });
    cluster.nodes[1].kill();
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&image, &folder);
    cluster.nodes[1].start();
    assert_eq!(
        cluster.nodes[1].ended().code(),
        Some(1),
        "{}",
        cluster.nodes[1].said()
    );
    assert!(
        cluster.nodes[1].said().contains("remembers this store"),
        "{}",
        cluster.nodes[1].said()
    );
    cluster.nodes[1].start();
    until("n2 begins anew and says so", || {
        match get("/health/ready").send(cluster.nodes[1].http) {
            Ok(answer)
                if answer.status == 503
                    && answer.json()["reasons"].to_string().contains("rebuilding") =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", cluster.nodes[1].said())),
        }
    });
    assert!(
        folder.join("data").join("aside-1").exists(),
        "the old store is kept"
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
