//! What a client sees of one key on a real cluster: reads, writes, contexts, deletes, conditions, attributes.
//!
//! Three processes, shared by the tests of this file; every test has keys of its own. Requests go to whichever
//! node, on purpose: no test may depend on talking to one.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serde_json::json;

use crate::ask::{Answer, Ask, delete, get, head, key, put, put_bucket};
use crate::nodes::{Cluster, Shared};

static CLUSTER: Shared = Shared::new();

/// One client's step in the story of a key. Contexts are kept under names.
enum Step {
    /// Writes a value without a context; the answer's context gets a name.
    Blind(&'static str, &'static str),
    /// Reads; the answer's context gets a name.
    Read(&'static str),
    /// Writes a value with a context; the answer's context takes the same name.
    With(&'static str, &'static str),
    /// Deletes with a context; the answer's context takes the same name.
    Delete(&'static str),
    /// What every node now shows: nothing, one value, or siblings.
    Shows(&'static [&'static str]),
}

use Step::{Blind, Delete, Read, Shows, With};

/// Plays the steps on a key of a bucket, each through the next node.
fn check(cluster: &Cluster, bucket: &str, name: &str, steps: &[Step]) {
    let path = key(bucket, name);
    let mut contexts = std::collections::HashMap::new();
    let mut nodes = cluster.nodes.iter().cycle();
    let mut ask = |ask: Ask| nodes.next().expect("a cycle").ask(&ask);
    for step in steps {
        match step {
            Blind(value, kept) => {
                let answer = ask(put(&path, value)).expect(204);
                contexts.insert(*kept, answer.context().to_owned());
            }
            Read(kept) => {
                let answer = ask(get(&path));
                contexts.insert(*kept, answer.context().to_owned());
            }
            With(value, kept) => {
                let answer =
                    ask(put(&path, value).with("sibyl-context", &contexts[kept])).expect(204);
                contexts.insert(*kept, answer.context().to_owned());
            }
            Delete(kept) => {
                let answer = ask(delete(&path).with("sibyl-context", &contexts[kept])).expect(204);
                contexts.insert(*kept, answer.context().to_owned());
            }
            Shows(values) => cluster
                .nodes
                .iter()
                .for_each(|node| shows(&node.ask(&get(&path)), name, values)),
        }
    }
}

#[track_caller]
fn shows(answer: &Answer, name: &str, values: &[&str]) {
    let (status, found) = match answer.status {
        300 => (300, answer.values()),
        200 => (200, vec![answer.text()]),
        status => (status, Vec::new()),
    };
    let wanted = match values.len() {
        0 => 404,
        1 => 200,
        _ => 300,
    };
    assert_eq!(
        (status, found),
        (
            wanted,
            values.iter().map(|&value| value.to_owned()).collect()
        ),
        "{name}: {answer}"
    );
    let live = answer.header("sibyl-siblings");
    assert!(
        values.is_empty() || live.parse().is_ok_and(|live: usize| live >= values.len()),
        "{answer}"
    );
}

#[test]
fn contexts_say_what_a_write_replaces() {
    let cluster = Cluster::shared(&CLUSTER);
    let check = |name: &str, steps: &[Step]| check(&cluster, "default", name, steps);
    check(
        "ctx/blind",
        &[Blind("a", "x"), Blind("b", "y"), Shows(&["a", "b"])],
    );
    check(
        "ctx/equal",
        &[Blind("a", "x"), Blind("a", "y"), Shows(&["a"])],
    );
    check(
        "ctx/read",
        &[
            Blind("a", "x"),
            Blind("b", "y"),
            Read("r"),
            With("c", "r"),
            Shows(&["c"]),
        ],
    );
    check(
        "ctx/own",
        &[
            Blind("a", "x"),
            With("b", "x"),
            With("c", "x"),
            Shows(&["c"]),
        ],
    );
    // The answer to a write names what its client wrote, never what others did meanwhile.
    check(
        "ctx/unseen",
        &[
            Blind("a1", "a"),
            Blind("b1", "b"),
            With("a2", "a"),
            Shows(&["a2", "b1"]),
        ],
    );
    check(
        "ctx/after-read",
        &[
            Blind("a", "x"),
            Read("r"),
            Blind("b", "y"),
            With("c", "r"),
            Shows(&["b", "c"]),
        ],
    );
    // An old context again: what came between stays.
    check(
        "ctx/old",
        &[
            Blind("a", "x"),
            Read("r"),
            With("b", "x"),
            With("c", "r"),
            Shows(&["b", "c"]),
        ],
    );
}

#[test]
fn deletes_remove_what_was_seen_and_nothing_else() {
    let cluster = Cluster::shared(&CLUSTER);
    let check = |name: &str, steps: &[Step]| check(&cluster, "default", name, steps);
    check("del/one", &[Blind("a", "x"), Delete("x"), Shows(&[])]);
    check(
        "del/all",
        &[
            Blind("a", "x"),
            Blind("b", "y"),
            Read("r"),
            Delete("r"),
            Shows(&[]),
        ],
    );
    check(
        "del/unseen",
        &[Blind("a", "x"), Blind("b", "y"), Delete("x"), Shows(&["b"])],
    );
    check(
        "del/again",
        &[Blind("a", "x"), Delete("x"), With("b", "x"), Shows(&["b"])],
    );
    check(
        "del/read",
        &[
            Blind("a", "x"),
            Delete("x"),
            Read("r"),
            With("b", "r"),
            Shows(&["b"]),
        ],
    );
    // A blind write covers the tombstones that are there.
    check(
        "del/blind",
        &[Blind("a", "x"), Delete("x"), Blind("b", "y"), Shows(&["b"])],
    );
    check(
        "del/twice",
        &[
            Blind("a", "x"),
            Delete("x"),
            Read("r"),
            Delete("r"),
            Shows(&[]),
        ],
    );
}

#[test]
fn writers_that_pass_contexts_never_see_more_siblings_than_there_are_writers() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "writers");
    let mut writers = [String::new(), String::new(), String::new()];
    for round in 0..8 {
        for (at, context) in writers.iter_mut().enumerate() {
            let ask = put(&path, format!("{at}/{round}"));
            let ask = if context.is_empty() {
                ask
            } else {
                ask.with("sibyl-context", context)
            };
            *context = cluster.nodes[(at + round) % 3]
                .ask(&ask)
                .expect(204)
                .context()
                .to_owned();
        }
        let all = cluster.nodes[round % 3]
            .ask(&get(format!("{path}?siblings=true")))
            .expect(200);
        assert_eq!(
            all.values(),
            (0..3).map(|at| format!("{at}/{round}")).collect::<Vec<_>>()
        );
    }
}

#[test]
fn any_node_takes_any_request_and_an_owner_mints() {
    let cluster = Cluster::shared(&CLUSTER);
    for n in 1..=3 {
        let bucket = format!("n{n}");
        cluster.nodes[0]
            .ask(&put_bucket(&bucket, &json!({ "n": n })))
            .expect(201);
        for (at, node) in cluster.nodes.iter().cycle().take(9).enumerate() {
            let (name, value) = (format!("k{at}"), format!("v{at}"));
            let path = key(&bucket, &name);
            let owners = cluster.owners(&bucket, &name);
            let answer = node.ask(&put(&path, &value)).expect(204);
            assert_eq!(answer.header("sibyl-coordinator"), owners[0], "{answer}");
            let acks = answer.header("sibyl-acks");
            let least = n / 2 + 1;
            assert!(
                (least..=n).any(|owners| acks == format!("owners={owners} fallbacks=0")),
                "{answer}"
            );
            assert_eq!(answer.header("sibyl-trace-id").len(), 32, "{answer}");
            for reader in &cluster.nodes {
                let answer = reader.ask(&get(&path)).expect(200);
                assert_eq!(answer.text(), value);
                assert_eq!(
                    answer.header("sibyl-coordinator"),
                    reader.id,
                    "a read is coordinated where it came in"
                );
                assert!(
                    !answer.header("etag").is_empty() && !answer.header("last-modified").is_empty(),
                    "{answer}"
                );
            }
        }
    }
}

/// Holds every node to the same refusal.
fn check_refused(cluster: &Cluster, ask: &Ask, status: u16, code: &str) {
    for node in &cluster.nodes {
        node.ask(ask).refused(status, code);
    }
}

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "rules");
    let refused = |ask: Ask, status: u16, code: &str| check_refused(&cluster, &ask, status, code);
    refused(get(&path), 404, "no_value");
    assert!(
        !cluster.nodes[0].ask(&get(&path)).has("sibyl-context"),
        "nothing was written, so nothing was seen"
    );
    refused(delete(&path), 400, "context_required");
    refused(delete(format!("{path}?blind=true")), 404, "no_value");
    refused(get(key("nowhere", "a")), 404, "no_bucket");
    refused(put(key("nowhere", "a"), "v"), 404, "no_bucket");
    refused(put(key("_own", "a"), "v"), 400, "bad_bucket_name");
    refused(
        put(&path, "v").with("if-match", "\"x\""),
        400,
        "unsupported_header",
    );
    refused(
        put(&path, "v").with("idempotency-key", "x y"),
        400,
        "bad_idempotency_key",
    );
    refused(
        put(&path, "v").with("if-none-match", "\"x\""),
        400,
        "bad_header",
    );
    refused(get(format!("{path}?colour=red")), 400, "unknown_parameter");
    refused(
        get(format!("{path}?siblings=true&explain=true")),
        400,
        "bad_parameter",
    );
    refused(
        put(&path, "v").with("sibyl-context", "AAAA"),
        400,
        "bad_context",
    );
    refused(
        put(&path, "v").with("sibyl-context", "?"),
        400,
        "bad_context",
    );
}

#[test]
fn a_context_is_good_for_the_key_it_was_given_for() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "sealed");
    let refused = |ask: Ask, status: u16, code: &str| check_refused(&cluster, &ask, status, code);
    let there = cluster.nodes[1].ask(&put(&path, "v")).expect(204);
    refused(
        delete(format!("{path}?blind=true")).seen(&there),
        400,
        "bad_parameter",
    );
    refused(
        put(key("default", "other"), "v").seen(&there),
        400,
        "bad_context",
    );
    refused(
        delete(key("default", "other")).seen(&there),
        400,
        "bad_context",
    );
    let mut forged = there.context().to_owned().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    refused(
        put(&path, "v").with("sibyl-context", &String::from_utf8_lossy(&forged)),
        400,
        "bad_context",
    );

    cluster.nodes[2]
        .ask(&delete(format!("{path}?blind=true")))
        .expect(204);
    let gone = cluster.nodes[0].ask(&get(&path)).refused(404, "no_value");
    cluster.nodes[1]
        .ask(&put(&path, "w").seen(&gone))
        .expect(204);
    assert_eq!(cluster.nodes[2].ask(&get(&path)).expect(200).text(), "w");
}

#[test]
fn a_value_keeps_its_type_and_attributes() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "typed");
    let bytes: Vec<u8> = (0..=255).collect();
    let ask = put(&path, &bytes).with("content-type", "image/x-odd; level=9");
    let ask = ask
        .with("Sibyl-Attr-Owner", "ann")
        .with("sibyl-attr-a-b", "c, d");
    cluster.nodes[0].ask(&ask).expect(204);
    for node in &cluster.nodes {
        let (read, headers) = (
            node.ask(&get(&path)).expect(200),
            node.ask(&head(&path)).expect(200),
        );
        assert_eq!(read.body, bytes);
        assert!(headers.body.is_empty());
        assert_eq!(headers.header("content-length"), "256");
        for answer in [read, headers] {
            assert_eq!(answer.header("content-type"), "image/x-odd; level=9");
            assert_eq!(answer.header("sibyl-attr-owner"), "ann");
            assert_eq!(answer.header("sibyl-attr-a-b"), "c, d");
            assert_eq!(answer.header("sibyl-siblings"), "1");
        }
    }
    let plain = cluster.nodes[1]
        .ask(&put(key("default", "untyped"), ""))
        .expect(204);
    assert!(plain.has("last-modified"));
    let empty = cluster.nodes[2]
        .ask(&get(key("default", "untyped")))
        .expect(200);
    assert_eq!(
        (empty.body.len(), empty.header("content-type")),
        (0, "application/octet-stream")
    );
}

#[test]
fn conditions_hold_on_reads_and_writes() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "conditions");
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let first = put(&path, "a").with("if-none-match", "*");
    one.ask(&first).expect(204);
    two.ask(&first).refused(412, "precondition_failed");
    let read = three.ask(&get(&path)).expect(200);
    assert_eq!(read.text(), "a", "the refused write left nothing");
    let etag = read.header("etag").to_owned();
    for node in &cluster.nodes {
        let same = node
            .ask(&get(&path).with("if-none-match", &etag))
            .expect(304);
        assert_eq!((same.header("etag"), same.body.len()), (etag.as_str(), 0));
        assert!(same.has("sibyl-context"));
        node.ask(&head(&path).with("if-none-match", &etag))
            .expect(304);
        node.ask(&get(&path).with("if-none-match", "\"other\""))
            .expect(200);
    }
    let changed = two.ask(&put(&path, "b").seen(&read)).expect(204);
    let after = one
        .ask(&get(&path).with("if-none-match", &etag))
        .expect(200);
    assert_ne!(after.header("etag"), etag);
    three.ask(&delete(&path).seen(&changed)).expect(204);
    one.ask(&put(&path, "c").with("if-none-match", "*"))
        .expect(204);
    assert_eq!(two.ask(&get(&path)).expect(200).text(), "c");
}

#[test]
fn a_write_can_return_the_view() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "returned");
    let returning = format!("{path}?return=value");
    let one = cluster.nodes[0].ask(&put(&returning, "a")).expect(200);
    assert_eq!(one.text(), "a");
    let both = cluster.nodes[1].ask(&put(&returning, "b")).expect(300);
    assert_eq!(both.values(), ["a", "b"]);
    // This context is the view's, so it covers both.
    cluster.nodes[2]
        .ask(&put(&path, "c").seen(&both))
        .expect(204);
    assert_eq!(cluster.nodes[0].ask(&get(&path)).expect(200).text(), "c");
}

#[test]
fn siblings_come_as_json_or_as_parts() {
    let cluster = Cluster::shared(&CLUSTER);
    let path = key("default", "forms");
    let odd = [0xff, 0x00, 0xfe];
    cluster.nodes[0]
        .ask(&put(&path, odd).with("sibyl-attr-from", "ann"))
        .expect(204);
    cluster.nodes[1]
        .ask(&put(&path, "plain").with("content-type", "text/plain"))
        .expect(204);
    let several = cluster.nodes[2].ask(&get(&path)).expect(300);
    assert_eq!(several.header("sibyl-siblings"), "2");
    let body = several.json();
    let siblings = body["siblings"].as_array().unwrap();
    let of = |kind: &str| {
        siblings
            .iter()
            .find(|sibling| sibling["content_type"] == kind)
            .unwrap()
    };
    let (binary, text) = (of("application/octet-stream"), of("text/plain"));
    assert_eq!(binary["value"], json!({ "base64": "/wD+" }));
    assert_eq!(binary["attributes"], json!({ "from": "ann" }));
    assert_eq!(
        (&text["value"], &text["deleted"]),
        (&json!("plain"), &json!(false))
    );
    assert_ne!(binary["dot"], text["dot"]);
    assert!(siblings.iter().all(|sibling| {
        sibling["trace_id"]
            .as_str()
            .is_some_and(|id| id.len() == 32)
    }));

    let parts = cluster.nodes[0]
        .ask(&get(&path).with("accept", "multipart/mixed"))
        .expect(300);
    assert!(
        parts
            .header("content-type")
            .starts_with("multipart/mixed; boundary="),
        "{parts}"
    );
    assert!(
        parts.body.windows(3).any(|three| three == odd),
        "the bytes themselves"
    );
    assert_eq!(parts.context().len(), several.context().len());
    let headers = cluster.nodes[1].ask(&head(&path)).expect(300);
    assert!(headers.body.is_empty());
    // The context in the body is as good as the one in the header.
    let merged = put(&path, "merged").with("sibyl-context", body["context"].as_str().unwrap());
    cluster.nodes[2].ask(&merged).expect(204);
    assert_eq!(
        cluster.nodes[0].ask(&get(&path)).expect(200).text(),
        "merged"
    );
}

#[test]
fn the_list_form_shows_whatever_is_there() {
    let cluster = Cluster::shared(&CLUSTER);
    let one = key("default", "forms/one");
    cluster.nodes[0].ask(&put(&one, "v")).expect(204);
    let raw = cluster.nodes[1]
        .ask(&get(format!("{one}?siblings=true")))
        .expect(200);
    assert_eq!(raw.values(), ["v"], "the list form whatever their number");
    let gone = cluster.nodes[2]
        .ask(&delete(format!("{one}?blind=true")))
        .expect(204);
    assert!(gone.has("sibyl-context"));
    let raw = cluster.nodes[1]
        .ask(&get(format!("{one}?siblings=true")))
        .expect(200)
        .json();
    assert_eq!(raw["siblings"][0]["deleted"], true);
    assert_eq!(raw["siblings"][0]["value"], serde_json::Value::Null);
}
