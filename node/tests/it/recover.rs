//! A majority is lost for good: one member goes on alone by its operator's word, others join, whoever comes back gives.
//!
//! What is lost is lost with its disk here: folders are removed. What the survivor held must be there with three
//! copies in the end, and what only a returning member held, too.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::ask::{delete, get, key, post, put, put_bucket, text};
use crate::backup::wait_same;
use crate::nodes::{Cluster, Node, SIBYL, until};

const FLAGS: &[&str] = &[
    "--allow-cuts",
    "--partitions=16",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
    "--reap-interval=100ms",
];
const KEYS: usize = 20;

fn json_of(node: &Node, path: &str) -> Value {
    node.ask(&get(path)).expect(200).json()
}

fn path(bucket: &str, at: usize) -> String {
    key(bucket, &format!("k{at}"))
}

fn recover(node: &Node, accept_loss: bool) -> crate::ask::Answer {
    let word = json!({ "accept_loss": accept_loss });
    node.ask(&post("/v1/cluster/recover", &word))
}

/// Whom the registry names.
fn members(node: &Node) -> Vec<String> {
    let body = json_of(node, "/v1/registry");
    let members = body["members"].as_array().unwrap();
    members.iter().map(|one| text(&one["node_id"])).collect()
}

/// It and its disk are gone.
fn lose(mut node: Node) {
    node.kill();
    std::fs::remove_dir_all(&node.folder).unwrap();
}

/// Waits until nobody has to be waited for, and recovers.
#[track_caller]
fn wait_recovered(node: &Node) {
    until("the others are seen to be gone", || {
        match recover(node, true) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}

#[track_caller]
fn wait_serves(node: &Node) {
    until("it serves", || match get("/v1/registry").send(node.http) {
        Ok(answer) if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}\n{}", node.said())),
    });
}

#[track_caller]
fn wait_settled(node: &Node) {
    until("owners have changed", || {
        let body = json_of(node, "/v1/registry");
        match body["owner_change"].is_null() {
            true => Ok(()),
            false => Err(body.to_string()),
        }
    });
}

/// Waits until reaping was there for a while, so that horizons mean something.
#[track_caller]
fn wait_epoch(node: &Node, wanted: u64) {
    until("epochs go on", || {
        let reaping = json_of(node, "/v1/cluster")["reaping"].clone();
        match reaping["epoch"].as_u64().unwrap() >= wanted {
            true => Ok(()),
            false => Err(reaping.to_string()),
        }
    });
}

#[track_caller]
fn wait_given(node: &Node) -> Value {
    until("everything is given", || {
        match get("/v1/cluster").send(node.http) {
            Ok(answer) if answer.status == 200 && answer.json()["salvage"]["over"] == true => {
                Ok(answer.json()["salvage"].clone())
            }
            answer => Err(format!("{answer:?}\n{}", node.said())),
        }
    })
}

#[track_caller]
fn wait_joined(node: &Node, by: &Node) {
    wait_named(node, by);
    node.wait_ready();
    wait_settled(by);
}

#[track_caller]
fn wait_named(node: &Node, by: &Node) {
    until("it is taken in by name", || {
        match by.ask(&post("/v1/cluster/join", &json!({ "node": node.id }))) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}

#[test]
fn one_member_goes_on_alone_and_others_join() {
    let mut cluster = Cluster::plan(3, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let one = &cluster.nodes[0];
    one.ask(&put_bucket("carts", &json!({ "n": 3 })))
        .expect(201);
    for at in 0..KEYS {
        let written = put(format!("{}?w=all", path("carts", at)), at.to_string());
        one.ask(&written).expect(204);
    }
    let seen = one.ask(&get(path("carts", 0))).expect(200);
    let refused = recover(one, true).refused(409, "majority_answers");
    let said = refused.json()["detail"].to_string();
    assert!(said.contains("n1, n2, n3"), "a majority is named: {said}");

    cluster.nodes.drain(1..).for_each(lose);
    let one = &cluster.nodes[0];
    until("without a majority no bucket is made", || {
        match one.ask(&put_bucket("more", &json!({ "n": 3 }))) {
            answer if answer.code() == "no_majority" => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    let plan = one.ask(&post(
        "/v1/cluster/recover?plan=true",
        &json!({ "accept_loss": false }),
    ));
    let plan = plan.expect(200).json();
    let given_up: Vec<String> = plan["given_up"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| text(&member["node_id"]))
        .collect();
    assert_eq!(given_up, ["n2", "n3"], "{plan}");
    assert_eq!(plan["partitions_without_copy"], 0, "{plan}");
    recover(one, false).refused(409, "loss_not_accepted");
    assert_eq!(members(one).len(), 3, "nothing was changed yet");

    let url = format!("http://{}", one.http);
    let command = |word: &[&str]| {
        let mut command = Command::new(SIBYL);
        command
            .args(["cluster", "recover", "--url", &url])
            .args(word);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), told, said)
    };
    let (code, _, said) = command(&["--yes"]);
    assert!(code != Some(0) && said.contains("--accept-loss"), "{said}");
    let (code, told, said) = command(&["--plan"]);
    assert!(
        code == Some(0) && told.contains("nothing was changed"),
        "{told} {said}"
    );
    let (code, told, said) = command(&["--accept-loss", "--yes"]);
    assert!(
        code == Some(0) && told.contains("the only member"),
        "{told} {said}"
    );

    let check = |one: &Node| {
        assert_eq!(members(one), ["n1"]);
        for at in 0..KEYS {
            let read = one.ask(&get(format!("{}?r=all", path("carts", at))));
            assert!(!read.expect(200).text().is_empty());
        }
    };
    check(one);
    recover(one, true).refused(409, "majority_answers");
    // Contexts of before are opened still, and the write that they belong to supersedes what was seen.
    one.ask(&put(path("carts", 0), "new").seen(&seen))
        .expect(204);
    assert_eq!(one.ask(&get(path("carts", 0))).expect(200).text(), "new");
    one.ask(&put_bucket("more", &json!({ "n": 3 }))).expect(201);
    let one = &mut cluster.nodes[0];
    one.kill();
    one.start();
    one.wait_ready();
    check(one);

    for id in ["n4", "n5"] {
        let mut new = cluster.joiner(id, FLAGS);
        new.start();
        new.wait_ready();
        cluster.nodes.push(new);
        wait_settled(&cluster.nodes[0]);
    }
    cluster.wait_whole();
    for node in &cluster.nodes {
        assert_eq!(members(node), ["n1", "n4", "n5"]);
        for at in 0..KEYS {
            let read = node
                .ask(&get(format!("{}?r=3", path("carts", at))))
                .expect(200);
            let wanted = if at == 0 {
                "new".to_owned()
            } else {
                at.to_string()
            };
            assert_eq!(read.text(), wanted);
        }
    }
    (0..KEYS).for_each(|at| wait_same(&cluster.nodes[0], &path("carts", at)));
    let reads: u64 = json_of(&cluster.nodes[1], "/v1/registry")["number"]
        .as_u64()
        .unwrap();
    assert!(reads > 1 << 32, "no number of before is used again");
}

#[test]
fn a_member_that_was_believed_lost_gives_what_only_it_holds() {
    let mut cluster = Cluster::plan(3, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let one = &cluster.nodes[0];
    one.ask(&put_bucket("solo", &json!({ "n": 1, "r": 1, "w": 1 })))
        .expect(201);
    for at in 0..KEYS {
        one.ask(&put(path("solo", at), "sole copy")).expect(204);
    }
    let deleted = key("default", "deleted");
    one.ask(&put(format!("{deleted}?w=all"), "old")).expect(204);
    wait_epoch(one, 8);
    // What it writes from here on nobody else hears of.
    let partition = |path: &str| {
        let asked = get(format!("{path}?explain=true&r=1"));
        one.ask(&asked).expect(200).json()["partition"].clone()
    };
    let elsewhere = |path: &String| partition(path) != partition(&deleted);
    let mut keys = (0..100).map(|at| key("default", &format!("alone-{at}")));
    let alone = keys.find(elsewhere).expect("one of a hundred keys");
    let three = &cluster.nodes[2];
    cluster.nodes[..2]
        .iter()
        .for_each(|other| three.cut(other, true));
    three
        .ask(&put(format!("{alone}?w=1"), "only here"))
        .expect(204);
    let mut three = cluster.nodes.pop().unwrap();
    three.kill();
    lose(cluster.nodes.pop().unwrap());
    let one = &cluster.nodes[0];
    until("it sees that they are gone", || {
        let word = json!({ "accept_loss": false });
        match one.ask(&post("/v1/cluster/recover?plan=true", &word)) {
            answer if answer.status == 200 => {
                let lacks = answer.json()["partitions_without_copy"].as_u64().unwrap();
                assert!(lacks > 0, "what has one copy lies elsewhere: {answer}");
                Ok(())
            }
            answer => Err(answer.to_string()),
        }
    });
    // Hints that count are copies, also after their targets were given up.
    let hinted = KEYS..KEYS + 10;
    for at in hinted.clone() {
        until("it stands in for whoever is gone", || {
            match one.ask(&put(path("solo", at), "hinted")) {
                answer if answer.status == 204 => Ok(()),
                answer => Err(answer.to_string()),
            }
        });
    }
    wait_recovered(one);
    until("nothing is kept for anybody", || {
        let kept = json_of(one, "/v1/cluster/handoff");
        match kept["hints"] == json!([]) {
            true => Ok(()),
            false => Err(kept.to_string()),
        }
    });
    for at in hinted {
        let read = one.ask(&get(format!("{}?sloppy=false", path("solo", at))));
        assert_eq!(read.expect(200).text(), "hinted");
    }
    let held = |one: &Node| {
        let found = (0..KEYS).filter(|at| one.ask(&get(path("solo", *at))).status == 200);
        found.collect::<Vec<_>>()
    };
    let before = held(one);
    assert!(before.len() < KEYS, "some lay elsewhere");
    one.ask(&get(alone.as_str())).expect(404);
    let seen = one.ask(&get(deleted.as_str())).expect(200);
    one.ask(&delete(deleted.as_str()).seen(&seen)).expect(204);
    until("it is forgotten", || {
        let reaping = json_of(one, "/v1/cluster")["reaping"].clone();
        match reaping["reaped"].as_u64() {
            Some(1..) => Ok(()),
            _ => Err(reaping.to_string()),
        }
    });

    three.start();
    let salvage = wait_given(&three);
    // What was deleted and forgotten meanwhile lies in a partition of which nothing is taken any more.
    assert!(salvage["quarantined"].as_u64().unwrap() >= 1, "{salvage}");
    assert_eq!(salvage["damaged"], 0, "{salvage}");
    assert!(salvage["imported"].as_u64().unwrap() >= 2, "{salvage}");
    assert_eq!(
        one.ask(&get(alone.as_str())).expect(200).text(),
        "only here"
    );
    assert!(
        held(one).len() > before.len(),
        "what had its one copy there is here now"
    );
    one.ask(&get(deleted.as_str())).expect(404);
    wait_joined(&three, one);
    cluster.nodes.push(three);
    assert_eq!(members(&cluster.nodes[0]), ["n1", "n3"]);
    wait_same(&cluster.nodes[0], &alone);
    cluster.nodes[1].ask(&get(deleted.as_str())).expect(404);
}

#[test]
fn a_majority_of_restored_nodes_comes_back() {
    let mut cluster = Cluster::plan(3, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    for at in 0..KEYS {
        let written = put(format!("{}?w=all", path("default", at)), "kept");
        cluster.nodes[0].ask(&written).expect(204);
    }
    let sibyl = |args: &[&str]| {
        let output = Command::new(SIBYL).args(args).stdin(Stdio::null()).output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let mut files = Vec::new();
    for node in &cluster.nodes[..2] {
        let file = node.folder.with_extension("backup");
        let file = file.to_str().unwrap().to_owned();
        sibyl(&["backup", &file, "--url", &format!("http://{}", node.http)]);
        files.push(file);
    }
    lose(cluster.nodes.pop().unwrap());
    for (node, file) in cluster.nodes.iter_mut().zip(&files) {
        node.kill();
        std::fs::remove_dir_all(&node.folder).unwrap();
        sibyl(&["restore", file, "--data-dir", node.folder.to_str().unwrap()]);
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    until("both are there, and may not vote", || {
        match get("/v1/cluster").send(one.http) {
            Ok(_) => match one.ask(&put_bucket("more", &json!({ "n": 3 }))) {
                answer if answer.code() == "no_majority" => Ok(()),
                answer => Err(answer.to_string()),
            },
            Err(error) => Err(error.to_string()),
        }
    });
    wait_recovered(one);
    until("it answers for everything", || {
        let read = |at| one.ask(&get(path("default", at)));
        match (0..KEYS).map(read).find(|answer| answer.status != 200) {
            None => Ok(()),
            Some(answer) => Err(answer.to_string()),
        }
    });
    one.ask(&put_bucket("more", &json!({ "n": 3 }))).expect(201);
    let salvage = wait_given(two);
    assert_eq!(salvage["known"], KEYS, "{salvage}");
    wait_joined(two, one);
    assert_eq!(members(two), ["n1", "n2"]);
}

#[test]
fn two_recoveries_refuse_each_other_until_one_yields() {
    let mut cluster = Cluster::plan(3, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    lose(cluster.nodes.pop().unwrap());
    // Each believes that the other is lost: the one that was left behind would yield as soon as it hears.
    cluster.nodes[1].kill();
    wait_recovered(&cluster.nodes[0]);
    cluster.nodes[0].kill();
    cluster.nodes[1].start();
    wait_serves(&cluster.nodes[1]);
    wait_recovered(&cluster.nodes[1]);
    cluster.nodes[0].start();
    wait_serves(&cluster.nodes[0]);
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    for (node, at) in [(one, 1), (two, 2)] {
        node.ask(&put(path("default", at), node.id.as_str()))
            .expect(204);
    }
    for node in [one, two] {
        until("it says that there are two", || {
            let said = node.ask(&get("/health/ready")).expect(200).text();
            match said.contains("recovered twice") && said.contains("--yield") {
                true => Ok(()),
                false => Err(said),
            }
        });
        assert_eq!(members(node), [node.id.as_str()]);
    }
    let mut two = cluster.nodes.pop().unwrap();
    let one = &cluster.nodes[0];
    two.kill();
    two.set_flag("yield", &one.peer.to_string());
    two.start();
    let salvage = wait_given(&two);
    assert_eq!(
        (&salvage["imported"], &salvage["quarantined"]),
        (&json!(1), &json!(0)),
        "{salvage}"
    );
    assert_eq!(one.ask(&get(path("default", 2))).expect(200).text(), "n2");
    wait_named(&two, one);
    two.wait_ready();
    wait_settled(one);
    assert_eq!(members(one), ["n1", "n2"]);
    until("nothing is said of it any more", || {
        let said = one.ask(&get("/health/ready")).expect(200).text();
        match said.contains("recovered twice") {
            false => Ok(()),
            true => Err(said),
        }
    });
    // The flag may stay: there is nothing left to give up, whether or not that peer is there.
    two.kill();
    cluster.nodes[0].kill();
    two.start();
    wait_serves(&two);
    assert_eq!(members(&two), ["n1", "n2"]);
    cluster.nodes[0].start();
    cluster.nodes.push(two);
    cluster.wait_whole();
}

#[test]
fn a_removed_node_goes_on_giving_after_a_recovery() {
    let mut cluster = Cluster::plan(4, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let one = &cluster.nodes[0];
    one.ask(&put_bucket("solo", &json!({ "n": 1, "r": 1, "w": 1 })))
        .expect(201);
    for at in 0..KEYS {
        one.ask(&put(path("solo", at), "sole copy")).expect(204);
    }
    let mut four = cluster.nodes.pop().unwrap();
    four.kill();
    until("it is removed", || {
        let gone = json!({ "node": four.id });
        match cluster.nodes[0].ask(&post("/v1/cluster/remove", &gone)) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    wait_settled(&cluster.nodes[0]);
    cluster.nodes.drain(1..).for_each(lose);
    four.start();
    until("it waits for an owner that is gone", || {
        match get("/v1/cluster").send(four.http) {
            Ok(answer) if answer.json()["salvage"]["waits_for"].is_string() => Ok(()),
            answer => Err(format!("{answer:?}\n{}", four.said())),
        }
    });
    let one = &cluster.nodes[0];
    wait_recovered(one);
    let salvage = wait_given(&four);
    assert_eq!(salvage["damaged"], 0, "{salvage}");
    wait_joined(&four, one);
    assert_eq!(members(one), ["n1", "n4"]);
}

#[test]
fn who_knows_nobody_of_the_new_lineage_is_found_by_it() {
    let mut cluster = Cluster::plan(3, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let mut three = cluster.nodes.pop().unwrap();
    three.kill();
    lose(cluster.nodes.pop().unwrap());
    wait_recovered(&cluster.nodes[0]);
    for id in ["n4", "n5", "n6"] {
        let mut new = cluster.joiner(id, FLAGS);
        new.start();
        new.wait_ready();
        cluster.nodes.push(new);
        wait_settled(&cluster.nodes[0]);
    }
    // Everybody whom the old lineage knows goes away.
    let word = json!({ "node": "n1" });
    until("it may leave", || {
        match cluster.nodes[1].ask(&post("/v1/cluster/leave", &word)) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    until("it has left", || {
        match members(&cluster.nodes[1]).contains(&"n1".to_owned()) {
            false => Ok(()),
            true => Err("it is still a member".into()),
        }
    });
    wait_settled(&cluster.nodes[1]);
    lose(cluster.nodes.remove(0));
    three.start();
    wait_given(&three);
    for node in &cluster.nodes {
        let said = node.ask(&get("/health/ready")).expect(200).text();
        assert!(!said.contains("recovered twice"), "{said}");
    }
    assert_eq!(members(&cluster.nodes[0]), ["n4", "n5", "n6"]);
}
