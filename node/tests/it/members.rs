//! Who comes and goes, on real clusters: joins, spares, refusals, removals by an operator and without one.
//!
//! What moves then is another module's matter: nothing here waits until data has moved.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::{Value, json};

use crate::ask::{get, key, post, put, text};
use crate::nodes::{Cluster, Node, until};

const FLAGS: &[&str] = &[
    "--partitions=16",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
];

fn started(count: usize, more: &[&str]) -> Cluster {
    let flags: Vec<&str> = FLAGS.iter().chain(more).copied().collect();
    let mut cluster = Cluster::plan(count, &flags);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster
}

fn spare(cluster: &Cluster, id: &str) -> Node {
    let flags: Vec<&str> = FLAGS.iter().chain(&["--spare"]).copied().collect();
    cluster.joiner(id, &flags)
}

fn cluster_of(node: &Node) -> Value {
    node.ask(&get("/v1/cluster")).expect(200).json()
}

fn number(node: &Node) -> u64 {
    let body = node.ask(&get("/v1/registry")).expect(200).json();
    body["number"].as_u64().unwrap()
}

/// The store that speaks for a member.
fn store_of(node: &Node, member: &str) -> String {
    let body = node.ask(&get("/v1/registry")).expect(200).json();
    let members = body["members"].as_array().unwrap();
    let found = members.iter().find(|one| one["node_id"] == member);
    text(&found.unwrap()["store"])
}

/// What a node says of a member, present or former; null if it does not know it.
fn seen(node: &Node, member: &str) -> Value {
    let body = cluster_of(node);
    let members = body["members"].as_array().unwrap();
    let found = members.iter().find(|one| one["node_id"] == member);
    found.cloned().unwrap_or_default()
}

/// Waits until what a node says of its readiness, ready or not, holds these words.
#[track_caller]
fn wait_says(node: &Node, words: &str) {
    until(&format!("{} says {words:?}", node.id), || {
        match get("/health/ready").send(node.http) {
            Ok(answer) if answer.json()["reasons"].to_string().contains(words) => Ok(()),
            answer => Err(format!("{answer:?}\n{}", node.said())),
        }
    });
}

/// Waits until every one of them shows this candidate; its store.
#[track_caller]
fn wait_candidate(cluster: &Cluster, id: &str) -> String {
    let mut stores = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.runs()) {
        stores.push(until(&format!("{} knows who knocks", node.id), || {
            let body = cluster_of(node);
            let candidates = body["candidates"].as_array().unwrap();
            let found = candidates.iter().find(|one| one["node_id"] == id);
            found.map(|one| text(&one["store"])).ok_or(body.to_string())
        }));
    }
    stores.dedup();
    assert_eq!(stores.len(), 1, "{stores:?}");
    stores.remove(0)
}

/// Waits until the members of all these are exactly those.
#[track_caller]
fn wait_members(nodes: &[&Node], wanted: &[&str]) {
    for node in nodes {
        until(&format!("{} names {wanted:?}", node.id), || {
            let body = node.ask(&get("/v1/registry")).expect(200).json();
            let members = body["members"].as_array().unwrap();
            let names: Vec<_> = members.iter().map(|one| text(&one["node_id"])).collect();
            if names == wanted {
                Ok(())
            } else {
                Err(body.to_string())
            }
        });
    }
}

#[test]
fn a_spare_waits_is_planned_and_is_taken_in_by_name() {
    let cluster = started(3, &[]);
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let mut four = spare(&cluster, "n4");
    four.start();
    wait_says(&four, "it waits until an operator names it");
    let answer = four.ask(&get("/health/ready"));
    answer.refused(503, "not_ready");
    four.ask(&get("/health/live")).expect(200);
    four.ask(&put(key("default", "k"), "v"))
        .refused(503, "not_serving");
    let store = wait_candidate(&cluster, "n4");

    // A crash before it was named: it is the same store that knocks on.
    four.kill();
    four.start();
    wait_says(&four, "it waits until an operator names it");
    assert_eq!(wait_candidate(&cluster, "n4"), store);

    let before = number(two);
    let named = json!({ "node": "n4" });
    let planned = two
        .ask(&post("/v1/cluster/join?plan=true", &named))
        .expect(200)
        .json();
    assert_eq!(
        (&planned["plan"], &planned["registry"]),
        (&json!(true), &json!(before))
    );
    let moves = planned["moves"].as_array().unwrap();
    assert!(
        !moves.is_empty() && moves.iter().all(|one| one["to"] == "n4"),
        "{planned}"
    );
    let gains = planned["summary"].as_array().unwrap();
    let gains = gains.iter().find(|one| one["node"] == "n4").unwrap();
    assert_eq!(gains["gains"], moves.len());
    assert_eq!(number(two), before, "a plan changes nothing");

    let joined = two
        .ask(&post("/v1/cluster/join", &named))
        .expect(200)
        .json();
    assert_eq!(
        (&joined["plan"], &joined["moves"]),
        (&json!(false), &planned["moves"])
    );
    assert!(joined["registry"].as_u64() > Some(before));
    four.wait_ready();
    let all = [one, two, three, &four];
    wait_members(&all, &["n1", "n2", "n3", "n4"]);
    for node in all {
        let others = ["n1", "n2", "n3", "n4"]
            .into_iter()
            .filter(|id| *id != node.id);
        node.wait_reaches(&others.collect::<Vec<_>>());
        assert_eq!(seen(node, "n4")["tokens"], 64);
    }
    four.ask(&put(key("default", "k"), "v")).expect(204);
    assert_eq!(one.ask(&get(key("default", "k"))).expect(200).text(), "v");
    assert_eq!(cluster_of(two)["candidates"], json!([]));

    // From now on its store knows better than its flags.
    four.kill();
    four.start();
    four.wait_ready();
    assert!(four.said().contains("--join is ignored"), "{}", four.said());
}

#[test]
fn a_node_joins_by_itself_and_a_wrong_one_is_told_why() {
    let cluster = started(3, &[]);
    let one = &cluster.nodes[0];
    let refused = |id: &str, more: &[String], words: &str| {
        let mut node = cluster.joiner(id, FLAGS);
        for flag in more {
            let (name, value) = flag.split_once('=').unwrap();
            node.set_flag(name, value);
        }
        // Names of members have their folders already.
        node.folder = node.folder.with_file_name(format!("refused-{id}"));
        node.start();
        assert_eq!(node.ended().code(), Some(1));
        assert!(node.said().contains(words), "{words:?}: {}", node.said());
    };
    let before = number(one);
    refused(
        "n4",
        &["cluster-id=other".to_owned()],
        "this is cluster \"test\", not \"other\"",
    );
    refused("n2", &[], "n2 is a member with another store");
    refused(
        "n5",
        &[format!("peer-advertise={}", one.peer)],
        &format!("{} is the peer address of n1", one.peer),
    );
    assert_eq!(number(one), before, "nobody was taken in");

    let mut four = cluster.joiner("n4", FLAGS);
    four.start();
    four.wait_ready();
    let nodes: Vec<&Node> = cluster.nodes.iter().chain([&four]).collect();
    wait_members(&nodes, &["n1", "n2", "n3", "n4"]);
    assert_eq!(text(&cluster_of(&four)["cluster_id"]), "test");

    let named = store_of(one, "n4");
    // It loses its disk: where it was, with the same flags, it comes back as what it was.
    four.kill();
    until("nobody reaches n4 any more", || {
        let there = |node: &&Node| seen(node, "n4")["reachable"] == true;
        match cluster.nodes.iter().find(there) {
            None => Ok(()),
            Some(node) => Err(node.id.clone()),
        }
    });
    std::fs::remove_dir_all(&four.folder).unwrap();
    four.start();
    until("its new store is named", || match store_of(one, "n4") {
        now if now != named => Ok(()),
        _ => Err(four.said()),
    });
    wait_members(&[&four], &["n1", "n2", "n3", "n4"]);
    assert_eq!(store_of(&four, "n4"), store_of(one, "n4"));
}

#[test]
fn a_removed_member_comes_back_as_a_spare() {
    let mut cluster = started(4, &[]);
    let one = &cluster.nodes[0];
    let four = json!({ "node": "n4" });
    let remove = |plan: &str| post(format!("/v1/cluster/remove{plan}"), &four);
    let refused = one.ask(&remove("")).refused(409, "member_answers");
    assert!(
        refused
            .text()
            .contains("n4 answers: let it leave, or stop it first")
    );
    one.ask(&post("/v1/cluster/leave", &json!({ "node": "n9" })))
        .refused(404, "no_member");
    let with = json!({ "node": "n4", "with": "n9" });
    one.ask(&post("/v1/cluster/replace", &with))
        .refused(404, "no_candidate");
    cluster.nodes[3].kill();
    let [one, two, three] = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[2]];
    let planned = until("n4 does not answer", || {
        match one.ask(&remove("?plan=true")) {
            answer if answer.status == 200 => Ok(answer.json()),
            answer => Err(answer.to_string()),
        }
    });
    assert!(
        !planned["moves"].as_array().unwrap().is_empty(),
        "{planned}"
    );
    let removed = one.ask(&remove("")).expect(200).json();
    let number = removed["registry"].as_u64().unwrap();
    wait_members(&[one, two, three], &["n1", "n2", "n3"]);
    for node in [one, two, three] {
        until(&format!("{} sees n4 down", node.id), || {
            match seen(node, "n4") {
                found if found["state"] == "down" && found["gone_with"] == number => Ok(()),
                found => Err(found.to_string()),
            }
        });
        let page = node.ask(&get("/metrics")).expect(200).text();
        let down = page
            .lines()
            .find(|line| line.starts_with("sibyl_gossip_members{") && line.contains("down"));
        assert!(down.unwrap().ends_with(" 1.0"), "{down:?}");
    }
    // Three are left for three copies.
    let answer = one.ask(&post("/v1/cluster/leave", &json!({ "node": "n2" })));
    let code = answer.code();
    assert_eq!(answer.status, 409, "{answer}");
    assert!(
        ["too_few_members", "change_under_way"].contains(&code.as_str()),
        "{code}"
    );

    cluster.nodes[3].start();
    wait_says(&cluster.nodes[3], "it waits until an operator names it");
    let body = cluster_of(&cluster.nodes[3]);
    assert_eq!(body["salvage"]["removed_by"], number, "{body}");
    assert_eq!(
        seen(&cluster.nodes[0], "n4")["state"],
        "down",
        "gossip brings nobody back"
    );
}

#[test]
fn a_member_that_stays_away_is_given_up_but_never_below_the_copies() {
    let mut cluster = started(4, &["--down-after=6s"]);
    cluster.nodes[3].kill();
    let left: Vec<&Node> = cluster.nodes[..3].iter().collect();
    wait_members(&left, &["n1", "n2", "n3"]);
    for node in &left {
        until(&format!("{} sees n4 down", node.id), || {
            match seen(node, "n4") {
                found if found["state"] == "down" => Ok(()),
                found => Err(found.to_string()),
            }
        });
    }
    cluster.nodes[2].kill();
    let one = &cluster.nodes[0];
    until("n1 says why n3 stays", || {
        let body = cluster_of(one);
        let says = body["reasons"].to_string();
        if says.contains("n3 should be removed: 2 members would be left for 3 copies") {
            Ok(())
        } else {
            Err(says)
        }
    });
    wait_members(&[one, &cluster.nodes[1]], &["n1", "n2", "n3"]);
}
