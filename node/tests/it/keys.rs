//! Many keys on a real cluster: odd names, listing, batches, the plain form, the conflict feed, delete policies.
//!
//! The cluster has few partitions, so that one of them holds many keys of a bucket. Lists are compared whole:
//! an entry too many, too few or out of order fails.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::ask::{delete, get, key, post, put, put_bucket, text};
use crate::nodes::{Cluster, Node, Shared};
use crate::resolver::fixture;

static CLUSTER: Shared = Shared::new();

/// A key as JSON, as bytes.
fn bytes(name: &Value) -> Vec<u8> {
    match name {
        Value::String(name) => name.clone().into_bytes(),
        other => STANDARD.decode(text(&other["base64"])).unwrap(),
    }
}

/// All keys of a bucket by pages of `limit`, and how many pages it took.
fn listed(cluster: &Cluster, bucket: &str, prefix: &str, limit: usize) -> (Vec<Vec<u8>>, usize) {
    let (mut keys, mut pages, mut start) = (Vec::new(), 0, String::new());
    for node in cluster.nodes.iter().cycle() {
        let path = format!("/v1/buckets/{bucket}/keys?limit={limit}&prefix={prefix}{start}");
        let page = node.ask(&get(path)).expect(200).json();
        let found = page["keys"].as_array().unwrap();
        assert!(
            found.len() <= limit,
            "{} keys on a page of {limit}",
            found.len()
        );
        keys.extend(found.iter().map(bytes));
        pages += 1;
        if page["next"].is_null() {
            break;
        }
        // A deleted key may be the last one looked at, so the cursor may be past the last one shown.
        let next = bytes(&page["next"]);
        assert!(keys.last().is_none_or(|last| *last <= next), "{page}");
        start = format!("&start={}", encoded(&next));
        assert!(pages < 1000, "the list does not end");
    }
    (keys, pages)
}

fn encoded(key: &[u8]) -> String {
    key.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Writes keys by batches.
fn fill(node: &Node, bucket: &str, keys: &[Vec<u8>]) {
    for some in keys.chunks(128) {
        let op = |key: &Vec<u8>| json!({ "op": "put", "key": { "base64": STANDARD.encode(key) }, "value": "v" });
        let ops: Vec<_> = some.iter().map(op).collect();
        let done = node
            .ask(&post(
                format!("/v1/buckets/{bucket}/batch"),
                &json!({ "ops": ops }),
            ))
            .expect(200)
            .json();
        let results = done["results"].as_array().unwrap();
        assert!(
            results.len() == some.len() && results.iter().all(|result| result["status"] == 204),
            "{done}"
        );
    }
}

#[test]
fn a_key_is_its_bytes() {
    let cluster = Cluster::shared(&CLUSTER);
    cluster.nodes[0]
        .ask(&put_bucket("odd", &json!({})))
        .expect(201);
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut check = |written: &str, read: &str, name: &[u8]| {
        let value = format!("value of {written}");
        let (writer, reader) = (
            &cluster.nodes[names.len() % 3],
            &cluster.nodes[(names.len() + 1) % 3],
        );
        writer.ask(&put(key("odd", written), &value)).expect(204);
        assert_eq!(
            reader.ask(&get(key("odd", read))).expect(200).text(),
            value,
            "{written}"
        );
        names.push(name.to_vec());
    };
    check("a/b", "a%2Fb", b"a/b");
    check("a//b", "a%2f%2Fb", b"a//b");
    check("/a", "%2Fa", b"/a");
    check("a/", "a%2F", b"a/");
    check("%00", "%00", b"\0");
    check("%FF%fe", "%ff%FE", b"\xff\xfe");
    check("..", "%2e%2E", b"..");
    check("../../x", "..%2F..%2Fx", b"../../x");
    check("a%2525", "%61%2525", b"a%25");
    check("a+b", "a%2Bb", b"a+b");
    check("%20%3F%23", "%20%3f%23", b" ?#");
    check("%C3%A9", "\u{e9}", "\u{e9}".as_bytes());
    check("a", "%61", b"a");
    names.sort();
    assert_eq!(listed(&cluster, "odd", "", 1000).0, names, "in byte order");
    assert_eq!(listed(&cluster, "odd", "", 1).0, names, "a key a page");
    let under = |prefix: &[u8]| {
        names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect::<Vec<_>>()
    };
    for prefix in [&b"a"[..], b"a/", b"\xff", b"..", b"nothing"] {
        assert_eq!(
            listed(&cluster, "odd", &encoded(prefix), 2).0,
            under(prefix),
            "{prefix:?}"
        );
    }
}

#[test]
fn lists_are_whole_however_many_pages_they_take() {
    let cluster = Cluster::shared(&CLUSTER);
    // Some fifty keys in each of the sixteen partitions: more than one chunk of a scan.
    let keys: Vec<Vec<u8>> = (0..800)
        .map(|at| format!("{}/{at:04}", ["x", "y"][at % 2]).into_bytes())
        .collect();
    for n in [1, 3] {
        let bucket = format!("many{n}");
        cluster.nodes[n - 1]
            .ask(&put_bucket(&bucket, &json!({ "n": n })))
            .expect(201);
        fill(&cluster.nodes[0], &bucket, &keys);
        // Every fifth key goes again, so pages run over tombstones.
        for gone in keys.iter().step_by(5) {
            let path = key(&bucket, &encoded(gone)) + "?blind=true";
            cluster.nodes[1].ask(&delete(path)).expect(204);
        }
        let mut left: Vec<_> = keys
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 5 != 0)
            .map(|(_, key)| key.clone())
            .collect();
        left.sort();
        let check = |prefix: &str, limit: usize, least: usize| {
            let (found, pages) = listed(&cluster, &bucket, prefix, limit);
            let wanted: Vec<_> = left
                .iter()
                .filter(|key| key.starts_with(prefix.as_bytes()))
                .cloned()
                .collect();
            let (found_len, wanted_len) = (found.len(), wanted.len());
            assert!(
                found == wanted,
                "n={n} prefix={prefix:?} limit={limit}: {found_len} of {wanted_len} keys"
            );
            assert!(pages >= least, "{pages} pages of {limit}");
        };
        check("", 1000, 1);
        check("", 97, 7);
        check("x/", 100, 3);
        check("y/07", 10, 3);
    }
    for (query, code) in [
        ("limit=0", "bad_parameter"),
        ("limit=1001", "bad_parameter"),
        ("page=1", "unknown_parameter"),
    ] {
        cluster.nodes[0]
            .ask(&get(format!("/v1/buckets/default/keys?{query}")))
            .refused(400, code);
    }
    cluster.nodes[0]
        .ask(&get("/v1/buckets/nowhere/keys"))
        .refused(404, "no_bucket");
}

#[test]
fn a_batch_answers_each_operation_on_its_own_and_in_order() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = "/v1/buckets/default/batch";
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let seen = one
        .ask(&put(key("default", "batch/old"), "old"))
        .expect(204);
    let ops = json!({ "ops": [
        { "op": "put", "key": "batch/a", "value": "1", "content_type": "text/plain", "attributes": { "x": "y" } },
        { "op": "get", "key": "batch/a" },
        { "op": "get", "key": "batch/none" },
        { "op": "put", "key": "batch/old", "value": { "base64": "/w==" }, "context": seen.context() },
        { "op": "get", "key": "batch/old" },
        { "op": "put", "key": "batch/a", "value": "2" },
        { "op": "get", "key": "batch/a" },
        { "op": "put", "key": "batch/b", "value": "3", "context": seen.context() },
    ]});
    let broken = json!({ "ops": [
        { "op": "put", "key": "batch/never", "value": "1" },
        { "op": "delete", "key": "batch/a" },
    ]});
    two.ask(&post(path, &broken)).refused(400, "bad_json");
    two.ask(&get(key("default", "batch/never")))
        .refused(404, "no_value");
    let done = two.ask(&post(path, &ops)).expect(200).json();
    let results = done["results"].as_array().unwrap();
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [204, 200, 404, 204, 200, 204, 300, 400], "{done}");
    assert_eq!(
        (&results[1]["value"], &results[1]["attributes"]["x"]),
        (&json!("1"), &json!("y"))
    );
    assert_eq!(results[4]["value"], json!({ "base64": "/w==" }));
    assert_eq!(
        results[6]["siblings"]["siblings"].as_array().map(Vec::len),
        Some(2),
        "{done}"
    );
    assert_eq!(results[7]["problem"]["code"], "bad_context");
    let codes = results
        .iter()
        .filter(|result| result["status"].as_u64() >= Some(400));
    assert!(
        codes
            .clone()
            .all(|result| !text(&result["problem"]["trace_id"]).is_empty()),
        "{done}"
    );

    let read = three.ask(&get(key("default", "batch/a"))).expect(300);
    let gone = json!({ "ops": [{ "op": "delete", "key": "batch/a", "context": read.context() }] });
    assert_eq!(
        three.ask(&post(path, &gone)).expect(200).json()["results"][0]["status"],
        204
    );
    one.ask(&get(key("default", "batch/a")))
        .refused(404, "no_value");
}

#[test]
fn a_batch_has_limits_of_its_own() {
    let cluster = Cluster::shared(&CLUSTER);
    let (one, path) = (&cluster.nodes[0], "/v1/buckets/default/batch");
    let many =
        |count: usize| json!({ "ops": vec![json!({ "op": "get", "key": "batch/none" }); count] });
    one.ask(&post(path, &many(128))).expect(200);
    one.ask(&post(path, &many(129)))
        .refused(400, "too_many_ops");
    one.ask(&post(path, &json!({ "ops": [], "atomic": true })))
        .expect(400);
    one.ask(&post("/v1/buckets/nowhere/batch", &many(1)))
        .refused(404, "no_bucket");
}

#[test]
fn the_plain_form_reads_before_it_writes() {
    let cluster = Cluster::shared(&CLUSTER);
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let write = |node: &Node, body: Value| node.ask(&post("/key", &body));
    let first = write(one, json!({ "key": "plain", "value": "a" }))
        .expect(200)
        .json();
    assert_eq!(
        (&first["key"], &first["value"]),
        (&json!("plain"), &json!("a"))
    );
    let second = write(two, json!({ "key": "plain", "value": "b" }))
        .expect(200)
        .json();
    let read = three.ask(&get("/key/plain")).expect(200).json();
    assert_eq!(
        (&read["value"], &read["siblings"]),
        (&json!("b"), &json!(1)),
        "the second write saw the first"
    );
    // An old context: what it did not see stays.
    write(
        three,
        json!({ "key": "plain", "value": "c", "context": first["context"] }),
    )
    .expect(200);
    let several = one.ask(&get("/key/plain")).expect(300).json();
    let mut values: Vec<_> = several["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    values.sort();
    assert_eq!(
        (values, &several["siblings"]),
        (vec!["b".to_owned(), "c".to_owned()], &json!(2))
    );
    // The contexts of both forms are the same thing.
    let path = key("default", "plain");
    let context = text(&several["context"]);
    two.ask(&put(&path, "d").with("sibyl-context", &context))
        .expect(204);
    assert_eq!(one.ask(&get("/key/plain")).expect(200).json()["value"], "d");
    two.ask(&delete(format!("{path}?blind=true"))).expect(204);
    one.ask(&get("/key/plain")).refused(404, "no_value");
    three.ask(&get("/key/never")).refused(404, "no_value");
    write(
        one,
        json!({ "key": "plain", "value": "e", "context": second["context"], "extra": 1 }),
    )
    .expect(400);
    write(one, json!({ "key": "", "value": "e" })).refused(400, "bad_key");
}

/// Uploads a guest and binds it to a new bucket.
fn bind(cluster: &Cluster, bucket: &str, config: Value, wat: &str) {
    let path = format!("/v1/resolvers/{bucket}?check=off");
    let upload = put(path, wat).with("content-type", "text/plain");
    cluster.nodes[0].ask(&upload).expect(201);
    let mut config = config;
    config["resolver"] = json!({ "name": bucket, "laws": "off" });
    let made = cluster.nodes[1]
        .ask(&put_bucket(bucket, &config))
        .expect(201);
    assert_eq!(made.json()["resolver"]["name"], bucket);
}

#[test]
fn conflicts_nobody_merges_are_on_the_feed_until_they_are_gone() {
    let cluster = Cluster::shared(&CLUSTER);
    bind(&cluster, "feed", json!({}), &fixture::guest("unreachable"));
    let feed = |query: &str| {
        cluster.nodes[2]
            .ask(&get(format!("/v1/buckets/feed/conflicts{query}")))
            .expect(200)
            .json()
    };
    for name in ["a", "b", "c"] {
        cluster.nodes[0]
            .ask(&put(key("feed", name), "1"))
            .expect(204);
        cluster.nodes[1]
            .ask(&put(key("feed", name), "2"))
            .expect(204);
    }
    assert_eq!(feed("")["conflicts"], json!([]), "nobody has met them");
    for (node, name) in cluster.nodes.iter().zip(["a", "b", "c"]) {
        for _ in 0..2 {
            let answer = node.ask(&get(key("feed", name))).expect(300);
            assert_eq!(
                answer.values(),
                ["1", "2"],
                "a failed resolver hides nothing"
            );
            let ran = answer.header("sibyl-resolver");
            assert!(
                ran.starts_with("feed@sha256:") && ran.ends_with("; outcome=failed"),
                "{answer}"
            );
        }
    }
    let all = feed("");
    let entries = all["conflicts"].as_array().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| text(&entry["key"])).collect();
    assert_eq!(
        (names, &all["next"]),
        (vec!["a".into(), "b".into(), "c".into()], &Value::Null),
        "{all}"
    );
    for entry in entries {
        assert!(
            text(&entry["resolver"]).starts_with("feed@sha256:") && entry["siblings"] == 2,
            "{entry}"
        );
        assert!(text(&entry["reason"]).contains("unreachable"), "{entry}");
        assert_eq!(text(&entry["trace_id"]).len(), 32, "{entry}");
    }
    let page = feed("?limit=2");
    assert_eq!(
        (page["conflicts"].as_array().map(Vec::len), &page["next"]),
        (Some(2), &json!("b"))
    );
    assert_eq!(feed("?limit=2&start=b")["conflicts"][0]["key"], "c");

    let seen = cluster.nodes[1].ask(&get(key("feed", "b"))).expect(300);
    cluster.nodes[0]
        .ask(&put(key("feed", "b"), "3").seen(&seen))
        .expect(204);
    cluster.nodes[1].ask(&get(key("feed", "b"))).expect(200);
    let left = feed("");
    let names: Vec<_> = left["conflicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(&entry["key"]))
        .collect();
    assert_eq!(names, ["a", "c"]);
}

/// A delete that saw one of two writes: what every node shows, and what it says that its resolver did.
fn check_policy(cluster: &Cluster, bucket: &str, status: u16, ran: &str) {
    let path = key(bucket, "k");
    let first = cluster.nodes[0].ask(&put(&path, "seen")).expect(204);
    cluster.nodes[1].ask(&put(&path, "unseen")).expect(204);
    cluster.nodes[2]
        .ask(&delete(&path).seen(&first))
        .expect(204);
    for node in &cluster.nodes {
        let answer = node.ask(&get(&path));
        match answer.clone().expect(status).status {
            200 => assert_eq!(answer.text(), "unseen", "{bucket}"),
            300 => assert_eq!(answer.values(), ["unseen"], "{bucket}"),
            _ => assert_eq!(answer.code(), "no_value", "{bucket}"),
        }
        assert!(
            answer.header("sibyl-resolver").ends_with(ran),
            "{bucket}: {answer}"
        );
        let raw = node
            .ask(&get(format!("{path}?siblings=true")))
            .expect(200)
            .json();
        let deleted: Vec<_> = raw["siblings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["deleted"] == true)
            .collect();
        assert_eq!(
            deleted,
            [false, true],
            "{bucket}: both stay, whatever the view: {raw}"
        );
    }
    // Whoever read this view and writes has seen both.
    let seen = cluster.nodes[1].ask(&get(&path));
    cluster.nodes[1]
        .ask(&put(&path, "again").seen(&seen))
        .expect(204);
    assert_eq!(
        cluster.nodes[2].ask(&get(&path)).expect(200).text(),
        "again",
        "{bucket}"
    );
}

#[test]
fn what_a_delete_beside_a_write_means_is_the_buckets_choice() {
    let cluster = Cluster::shared(&CLUSTER);
    let of = |policy: &str| json!({ "deletes": policy });
    cluster.nodes[0]
        .ask(&put_bucket("write-wins", &of("write_wins")))
        .expect(201);
    cluster.nodes[0]
        .ask(&put_bucket("delete-wins", &of("delete_wins")))
        .expect(201);
    cluster.nodes[0]
        .ask(&put_bucket("nobody", &of("resolver")))
        .refused(400, "bad_config");
    // The resolver is shown the write first, since it is older.
    bind(
        &cluster,
        "picks-write",
        of("resolver"),
        &fixture::guest(&fixture::pick(0)),
    );
    bind(
        &cluster,
        "picks-delete",
        of("resolver"),
        &fixture::guest(&fixture::pick(1)),
    );
    bind(
        &cluster,
        "deletes",
        of("resolver"),
        &fixture::guest(&fixture::remove()),
    );
    let check = |bucket: &str, status: u16, ran: &str| check_policy(&cluster, bucket, status, ran);
    check("write-wins", 200, "");
    check("delete-wins", 404, "");
    check("picks-write", 200, "; outcome=picked");
    check("deletes", 404, "; outcome=deleted");
    // A deleted sibling has no value to pick: that is a failure, and failures leave everything.
    check("picks-delete", 300, "; outcome=failed");
}

#[test]
fn explain_says_who_holds_what_and_why() {
    let cluster = Cluster::shared(&CLUSTER);
    cluster.nodes[0]
        .ask(&put_bucket("why", &json!({ "n": 2 })))
        .expect(201);
    let path = key("why", "k");
    let writes = [0, 1].map(|at| cluster.nodes[at].ask(&put(&path, at.to_string())));
    let explain = || get(format!("{path}?explain=true"));
    for node in &cluster.nodes {
        let body = node.ask(&explain()).expect(200).json();
        assert_eq!(
            (&body["bucket"], &body["key"]),
            (&json!("why"), &json!("k"))
        );
        assert!(body["partition"].as_u64() < Some(16), "{body}");
        let owners = body["preference_list"].as_array().unwrap();
        let roles: Vec<_> = owners.iter().map(|owner| text(&owner["role"])).collect();
        assert_eq!(roles, ["primary", "primary", "fallback"], "{body}");
        let [first, second, third] = &owners[..] else {
            panic!("three nodes: {body}")
        };
        assert_eq!(first["object_digest"], second["object_digest"], "{body}");
        assert!(
            text(&first["object_digest"]).starts_with("sha256:"),
            "{body}"
        );
        assert_eq!(third["object_digest"], Value::Null, "it holds nothing");
        assert_eq!(first["siblings"], 2);
        assert!(owners.iter().all(|owner| owner["state"] == "alive"));
        let siblings = body["siblings"].as_array().unwrap();
        let dots: Vec<_> = siblings.iter().map(|one| text(&one["dot"])).collect();
        let minted = writes
            .each_ref()
            .map(|write| write.header("sibyl-dot").to_owned());
        assert_eq!(dots, minted, "{body}");
        let traces: Vec<_> = siblings.iter().map(|one| text(&one["trace_id"])).collect();
        let traced = writes
            .each_ref()
            .map(|write| write.header("sibyl-trace-id").to_owned());
        assert_eq!(traces, traced, "{body}");
        assert_eq!(siblings[0]["dots"], json!([dots[0]]));
        assert_eq!(
            (&body["resolver"], &body["journal"]),
            (&Value::Null, &json!([]))
        );
    }
}
