//! A removed node comes back: what only it holds is with the owners then, what was forgotten stays so, and it is empty.
//!
//! Its links are cut before it writes, so that nobody else has what it acknowledges; then it dies and is removed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::Path;

use serde_json::{Value, json};

use crate::ask::{delete, get, key, post, put, text};
use crate::nodes::{Cluster, Node, until};

const FLAGS: &[&str] = &[
    "--allow-cuts",
    "--partitions=16",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
];

fn cluster_of(node: &Node) -> Value {
    node.ask(&get("/v1/cluster")).expect(200).json()
}

/// The store that speaks for a member.
fn store_of(node: &Node, member: &str) -> String {
    let body = node.ask(&get("/v1/registry")).expect(200).json();
    let members = body["members"].as_array().unwrap();
    let found = members.iter().find(|one| one["node_id"] == member);
    found.map(|one| text(&one["store"])).unwrap_or_default()
}

/// A sample of a page of metrics.
fn metric(node: &Node, name: &str) -> Option<f64> {
    let page = node.ask(&get("/metrics")).expect(200).text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

fn imported(nodes: &[Node]) -> f64 {
    let name = "sibyl_salvaged_total{result=\"imported\"}";
    nodes.iter().filter_map(|node| metric(node, name)).sum()
}

/// The first key of a series that this node owns, or does not, but for partitions that are taken.
fn pick(cluster: &Cluster, owner: &str, owned: bool, series: &str, taken: &mut Vec<u64>) -> String {
    let one = &cluster.nodes[0];
    let found = (0..400).find_map(|at| {
        let path = key("default", &format!("{series}-{at}"));
        let body = one
            .ask(&get(format!("{path}?explain=true&r=1")))
            .expect(200)
            .json();
        let partition = body["partition"].as_u64().unwrap();
        let list = body["preference_list"].as_array().unwrap();
        let is_owner = |it: &Value| it["node_id"] == owner && it["role"] == "primary";
        let owns = list.iter().any(is_owner);
        (owns == owned && !taken.contains(&partition)).then_some((path, partition))
    });
    let (path, partition) = found.expect("one of four hundred keys");
    taken.push(partition);
    path
}

/// Has this node written what nobody else hears of, then killed and removed.
fn lose(cluster: &Cluster, mut lost: Node, alone: &[&str]) -> Node {
    for other in &cluster.nodes {
        lost.cut(other, true);
    }
    for path in alone {
        lost.ask(&put(format!("{path}?w=1"), "only here"))
            .expect(204);
    }
    lost.kill();
    let one = &cluster.nodes[0];
    let gone = json!({ "node": lost.id });
    until("it does not answer, and is removed", || {
        match one.ask(&post("/v1/cluster/remove", &gone)) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    for node in &cluster.nodes {
        until("its successors have everything", || {
            let body = node.ask(&get("/v1/registry")).expect(200).json();
            let named = store_of(node, &lost.id);
            match body["owner_change"].is_null() && named.is_empty() {
                true => Ok(()),
                false => Err(body.to_string()),
            }
        });
    }
    lost
}

/// Waits until an owner reads this value everywhere, alone.
#[track_caller]
fn wait_reads(nodes: &[Node], path: &str, value: &str) {
    for node in nodes {
        until(&format!("{} reads {path}", node.id), || {
            match node.ask(&get(format!("{path}?r=all"))) {
                answer if answer.status == 200 && answer.text() == value => Ok(()),
                answer => Err(answer.to_string()),
            }
        });
    }
}

fn asides(node: &Node) -> usize {
    let entries = std::fs::read_dir(node.folder.join("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("aside-")).count()
}

#[test]
fn what_only_a_removed_node_holds_comes_back_with_it() {
    let mut cluster = Cluster::plan(4, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let mut taken = Vec::new();
    let mut mine = |owned, series: &str| pick(&cluster, "n4", owned, series, &mut taken);
    let (alone, hinted) = (mine(true, "alone"), mine(false, "hinted"));
    let (changed, deleted) = (mine(true, "changed"), mine(true, "deleted"));
    let one = &cluster.nodes[0];
    for path in [&changed, &deleted] {
        one.ask(&put(format!("{path}?w=all"), "old")).expect(204);
    }
    let before = store_of(one, "n4");
    let four = cluster.nodes.pop().unwrap();
    let mut four = lose(&cluster, four, &[&alone, &hinted]);
    let one = &cluster.nodes[0];
    for path in [&changed, &deleted] {
        let seen = one.ask(&get(path.as_str())).expect(200);
        let asked = match path == &changed {
            true => put(path.as_str(), "new"),
            false => delete(path.as_str()),
        };
        one.ask(&asked.seen(&seen)).expect(204);
    }
    for path in [&alone, &hinted] {
        one.ask(&get(format!("{path}?r=all"))).expect(404);
    }

    four.start();
    let salvage = until("everything is given", || {
        match get("/v1/cluster").send(four.http) {
            Ok(answer) if answer.status == 200 && answer.json()["salvage"]["over"] == true => {
                Ok(answer.json()["salvage"].clone())
            }
            answer => Err(format!("{answer:?}\n{}", four.said())),
        }
    });
    assert_eq!(salvage["imported"], 2, "{salvage}");
    assert_eq!(salvage["known"], 2, "{salvage}");
    assert_eq!(
        (&salvage["quarantined"], &salvage["damaged"]),
        (&json!(0), &json!(0))
    );
    wait_reads(&cluster.nodes, &alone, "only here");
    wait_reads(&cluster.nodes, &hinted, "only here");
    wait_reads(&cluster.nodes, &changed, "new");
    for node in &cluster.nodes {
        node.ask(&get(format!("{deleted}?r=all"))).expect(404);
    }
    assert_eq!(imported(&cluster.nodes), 2.0, "each is news to one owner");

    // It is a spare now, and another store.
    until("it waits for its operator", || {
        match get("/health/ready").send(four.http) {
            Ok(answer)
                if answer
                    .text()
                    .contains("it waits until an operator names it") =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", four.said())),
        }
    });
    assert_eq!(asides(&four), 1);
    until("it is taken in by name", || {
        match cluster.nodes[0].ask(&post("/v1/cluster/join", &json!({ "node": "n4" }))) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    four.wait_ready();
    assert_ne!(store_of(&cluster.nodes[0], "n4"), before);
    assert_eq!(metric(&four, "sibyl_salvage_quarantined"), Some(0.0));
    cluster.nodes.push(four);
    wait_reads(&cluster.nodes, &alone, "only here");

    // From now on it is a member like any other, whatever its flags say.
    cluster.nodes[3].kill();
    cluster.nodes[3].start();
    cluster.wait_whole();
}

/// Waits until the next epoch has begun everywhere, so many times.
#[track_caller]
fn wait_epochs(nodes: &[&Node], epochs: u64) {
    let epoch = |node: &Node| cluster_of(node)["reaping"]["epoch"].as_u64().unwrap();
    let wanted = nodes.iter().map(|node| epoch(node)).max().unwrap() + epochs;
    for node in nodes {
        until("epochs go on", || match epoch(node) >= wanted {
            true => Ok(()),
            false => Err(format!("{}: {}", node.id, cluster_of(node)["reaping"])),
        });
    }
}

#[test]
fn what_was_forgotten_meanwhile_is_set_aside_and_a_joiner_joins_again() {
    let flags: Vec<&str> = FLAGS
        .iter()
        .copied()
        .chain(["--reap-interval=100ms"])
        .collect();
    let mut cluster = Cluster::plan(3, &flags);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let mut four = cluster.joiner("n4", &flags);
    four.start();
    four.wait_ready();
    four.wait_reaches(&["n1", "n2", "n3"]);
    until("it owns what it is to own", || {
        let body = cluster.nodes[0]
            .ask(&get("/v1/registry"))
            .expect(200)
            .json();
        body["owner_change"]
            .is_null()
            .then_some(())
            .ok_or(body.to_string())
    });
    let mut taken = Vec::new();
    let forgotten = pick(&cluster, "n4", true, "forgotten", &mut taken);
    let alone = pick(&cluster, "n4", true, "alone", &mut taken);
    cluster.nodes[0]
        .ask(&put(format!("{forgotten}?w=all"), "old"))
        .expect(204);
    let all: Vec<&Node> = cluster.nodes.iter().chain([&four]).collect();
    wait_epochs(&all, 8);
    let before = store_of(&cluster.nodes[0], "n4");
    let mut four = lose(&cluster, four, &[&alone]);
    let one = &cluster.nodes[0];
    let seen = one.ask(&get(forgotten.as_str())).expect(200);
    one.ask(&delete(forgotten.as_str()).seen(&seen)).expect(204);
    for node in &cluster.nodes {
        until("no tombstone is left", || {
            match metric(node, "sibyl_storage_tombstones") {
                Some(0.0) => Ok(()),
                left => Err(format!(
                    "{}: {left:?}; {}",
                    node.id,
                    cluster_of(node)["reaping"]
                )),
            }
        });
    }

    four.start();
    until(
        "it is a member again, with another store",
        || match store_of(&cluster.nodes[0], "n4") {
            store if !store.is_empty() && store != before => Ok(()),
            _ => Err(four.said()),
        },
    );
    four.wait_ready();
    assert_eq!(
        metric(&four, "sibyl_salvage_quarantined"),
        Some(1.0),
        "{}",
        four.said()
    );
    let said = four.ask(&get("/health/ready")).expect(200).text();
    assert!(said.contains("1 objects that this node held"), "{said}");
    assert_eq!(asides(&four), 1);
    cluster.nodes.push(four);
    wait_reads(&cluster.nodes, &alone, "only here");
    for node in &cluster.nodes {
        let read = node.ask(&get(format!("{forgotten}?r=all"))).expect(404);
        assert!(!read.has("sibyl-context"), "nobody knows it: {read}");
    }
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    wait_epochs(&nodes, 2);
}

#[test]
fn an_operator_may_skip_it_and_think_again() {
    let mut cluster = Cluster::plan(4, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let alone = pick(&cluster, "n4", true, "alone", &mut Vec::new());
    let four = cluster.nodes.pop().unwrap();
    let mut four = lose(&cluster, four, &[&alone]);
    four.set_flag("salvage", "nothing");
    four.start();
    until("it waits for its operator", || {
        match get("/health/ready").send(four.http) {
            Ok(answer)
                if answer
                    .text()
                    .contains("it waits until an operator names it") =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", four.said())),
        }
    });
    assert_eq!(asides(&four), 1, "its data is there still");
    for node in &cluster.nodes {
        node.ask(&get(format!("{alone}?r=all"))).expect(404);
    }
    assert_eq!(imported(&cluster.nodes), 0.0);

    // What was put aside is a store as it was: in a folder of its own it may be given after all. Members remember for a
    // while who waits, and hear no other store of that name: it waits until they do.
    four.kill();
    let mut again = four.like("n4-again");
    let (from, to) = (four.folder.join("data/aside-1"), again.folder.join("data"));
    copy(&from, &to);
    again.set_flag("salvage", "all");
    again.start();
    until("everything is given", || {
        match get("/v1/cluster").send(again.http) {
            Ok(answer) if answer.status == 200 && answer.json()["salvage"]["over"] == true => {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", again.said())),
        }
    });
    wait_reads(&cluster.nodes, &alone, "only here");
    until(
        "it waits for its operator, after the other store",
        || match get("/health/ready").send(again.http) {
            Ok(answer)
                if answer
                    .text()
                    .contains("it waits until an operator names it") =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", again.said())),
        },
    );
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
