//! Clients that repeat writes: through other nodes, after restarts, after somebody wrote over them.
//!
//! Every retry here is the same request, sent again as it was. What tells a twin from a recognised retry is the dot
//! that the answers name, and how many values a read of all copies finds.

use std::thread;

use serde_json::{Value, json};

use crate::ask::{Answer, Ask, delete, get, key, post, put, put_bucket};
use crate::nodes::{Cluster, Node, Shared, until};

static SHARED: Shared = Shared::new();

/// A write, or its retry, was acknowledged: the dot, and whether it was recognised.
#[track_caller]
fn written(answer: Answer) -> (String, bool) {
    let answer = answer.expect(204);
    let repeated = answer.header("sibyl-repeated") == "true";
    (answer.header("sibyl-dot").to_owned(), repeated)
}

/// Every copy together holds these values, and a read shows them.
#[track_caller]
fn check_values(node: &Node, path: &str, values: &[&str]) {
    let read = node.ask(&get(format!("{path}?r=all")));
    let shown = match read.status {
        200 => vec![read.text()],
        300 => read.values(),
        404 => vec![],
        _ => panic!("{read}"),
    };
    assert_eq!(shown, values, "{path}");
}

#[track_caller]
fn check_refused(node: &Node, ask: &Ask, status: u16, code: &str) -> Value {
    node.ask(ask).refused(status, code).json()
}

#[test]
fn a_retry_through_any_node_is_the_same_write_also_once_it_was_superseded() {
    let cluster = Cluster::shared(&SHARED);
    let path = key("default", "retried");
    let first = put(&path, "a").with("idempotency-key", "first");
    let (dot, repeated) = written(cluster.nodes[0].ask(&first));
    assert!(!repeated);
    for node in &cluster.nodes {
        assert_eq!(written(node.ask(&first)), (dot.clone(), true));
        check_values(node, &path, &["a"]);
    }

    let seen = cluster.nodes[1].ask(&get(&path)).expect(200);
    let over = put(&path, "b")
        .seen(&seen)
        .with("idempotency-key", "second");
    assert!(!written(cluster.nodes[1].ask(&over)).1);
    for node in &cluster.nodes {
        assert_eq!(written(node.ask(&first)), (dot.clone(), true));
        assert!(written(node.ask(&over)).1);
        check_values(node, &path, &["b"]);
    }
    let page = |node: &Node| node.ask(&get("/metrics")).expect(200).text();
    let counted = |page: String| {
        let line = page
            .lines()
            .find(|line| line.starts_with("sibyl_repeated_writes_total"));
        let count = line.and_then(|line| line.split(' ').next_back());
        count.and_then(|count| count.parse::<f64>().ok())
    };
    let counts = cluster.nodes.iter().filter_map(|node| counted(page(node)));
    assert!(counts.sum::<f64>() >= 9.0, "nine retries were recognised");

    // The answer to a retry names its own write, so its client erases nothing that it did not see.
    let answer = cluster.nodes[2].ask(&first).expect(204);
    written(cluster.nodes[2].ask(&put(&path, "c").seen(&answer)));
    check_values(&cluster.nodes[0], &path, &["b", "c"]);
}

#[test]
fn a_key_names_one_write_of_one_key_in_one_bucket() {
    let cluster = Cluster::shared(&SHARED);
    let node = &cluster.nodes[0];
    let path = key("default", "named");
    let first = put(&path, "a").with("idempotency-key", "name");
    let (dot, _) = written(node.ask(&first));
    let other = |ask: Ask| ask.with("idempotency-key", "name");
    let reused = "idempotency_key_reused";
    for node in &cluster.nodes {
        check_refused(node, &other(put(&path, "b")), 422, reused);
        let kind = other(put(&path, "a")).with("content-type", "text/plain");
        check_refused(node, &kind, 422, reused);
        let attribute = other(put(&path, "a")).with("sibyl-attr-a", "1");
        check_refused(node, &attribute, 422, reused);
        check_refused(
            node,
            &other(delete(format!("{path}?blind=true"))),
            422,
            reused,
        );
    }
    check_values(node, &path, &["a"]);
    assert!(!written(node.ask(&other(put(key("default", "named-too"), "a")))).1);
    node.ask(&put_bucket("named", &json!({}))).expect(201);
    for node in &cluster.nodes {
        until("the bucket is known", || {
            let answer = node.ask(&get("/v1/buckets/named"));
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        });
    }
    assert!(!written(node.ask(&other(put(key("named", "named"), "a")))).1);
    // The context is what the client saw, not what it writes: it may have read again.
    let seen = node.ask(&get(&path)).expect(200);
    assert_eq!(written(node.ask(&first.seen(&seen))), (dot, true));
}

#[test]
fn retries_at_once_are_minted_once() {
    let cluster = Cluster::shared(&SHARED);
    let path = key("default", "at-once");
    let write = put(&path, "v").with("idempotency-key", "at once");
    check_refused(&cluster.nodes[0], &write, 400, "bad_idempotency_key");
    let write = put(&path, "v").with("idempotency-key", "at-once");
    let ask = |at: usize| written(cluster.nodes[at % 3].ask(&write));
    let answers: Vec<(String, bool)> = thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|at| scope.spawn(move || ask(at))).collect();
        asked
            .into_iter()
            .map(|asked| asked.join().expect("it answers"))
            .collect()
    });
    let new = answers.iter().filter(|(_, repeated)| !repeated).count();
    assert_eq!(new, 1, "{answers:?}");
    assert!(
        answers.iter().all(|(dot, _)| *dot == answers[0].0),
        "{answers:?}"
    );
    check_values(&cluster.nodes[0], &path, &["v"]);
}

#[test]
fn deletes_and_conditional_writes_may_be_repeated() {
    let cluster = Cluster::shared(&SHARED);
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let path = key("default", "conditional");
    let create = |name| {
        put(&path, "a")
            .with("if-none-match", "*")
            .with("idempotency-key", name)
    };
    let (dot, _) = written(one.ask(&create("create")));
    assert_eq!(written(two.ask(&create("create"))), (dot.clone(), true));
    check_refused(three, &create("another"), 412, "precondition_failed");

    let blind = delete(format!("{path}?blind=true"));
    let gone = blind.clone().with("idempotency-key", "delete");
    assert!(!written(one.ask(&gone)).1);
    assert!(
        written(two.ask(&gone)).1,
        "nothing lives there, and it did that"
    );
    check_refused(two, &blind, 404, "no_value");
    assert_eq!(written(three.ask(&create("create"))), (dot, true));
    check_values(one, &path, &[]);

    // What was written since is not what the delete saw.
    written(three.ask(&create("later")));
    assert!(written(three.ask(&gone)).1);
    check_values(one, &path, &["a"]);
}

#[test]
fn the_plain_form_and_batches_may_be_repeated() {
    let cluster = Cluster::shared(&SHARED);
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let plain = |value: &str, name: &str| {
        post("/key", &json!({"key": "plain", "value": value})).with("idempotency-key", name)
    };
    let repeated = |answer: Answer| answer.expect(200).header("sibyl-repeated") == "true";
    assert!(!repeated(one.ask(&plain("a", "1"))));
    assert!(repeated(two.ask(&plain("a", "1"))));
    assert!(!repeated(two.ask(&plain("b", "2"))));
    assert!(repeated(three.ask(&plain("a", "1"))));
    check_values(one, &key("default", "plain"), &["b"]);

    let op = |key: &str, value: &str| json!({"op": "put", "key": key, "value": value});
    let mut own = op("batch-b", "own");
    own["idempotency_key"] = json!("own");
    let ops =
        json!({"ops": [op("batch-a", "1"), op("batch-a", "1"), own, {"op": "get", "key": "none"}]});
    let batch = post("/v1/buckets/default/batch", &ops).with("idempotency-key", "batch");
    let results = |node: &Node| -> Vec<(Value, Value)> {
        let body = node.ask(&batch).expect(200).json();
        let results = body["results"].as_array().expect("results");
        let result = |result: &Value| (result["status"].clone(), result["repeated"].clone());
        results.iter().map(result).collect()
    };
    let (done, none) = (json!(204), (json!(404), Value::Null));
    let new = (done.clone(), Value::Null);
    assert_eq!(results(one), [new.clone(), new.clone(), new, none.clone()]);
    let again = (done, json!(true));
    let repeated = [again.clone(), again.clone(), again, none];
    assert_eq!(results(two), repeated);
    assert_eq!(results(three), repeated);
    let read = one.ask(&get(format!("{}?siblings=true", key("default", "batch-a"))));
    assert_eq!(
        read.expect(200).header("sibyl-siblings"),
        "2",
        "two places, two writes"
    );
    check_values(one, &key("default", "batch-b"), &["own"]);
}

#[test]
fn what_was_written_is_recognised_after_every_node_was_killed() {
    let mut cluster = Cluster::three();
    let path = key("default", "killed");
    let first = put(format!("{path}?w=all"), "a").with("idempotency-key", "first");
    let (dot, _) = written(cluster.nodes[0].ask(&first));
    let seen = cluster.nodes[0].ask(&get(&path)).expect(200);
    written(cluster.nodes[1].ask(&put(&path, "b").seen(&seen)));
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    for node in &cluster.nodes {
        assert_eq!(written(node.ask(&first)), (dot.clone(), true));
        check_values(node, &path, &["b"]);
    }
}

#[test]
fn a_retry_after_an_unknown_outcome_counts_once() {
    let mut cluster = Cluster::three();
    let path = key("default", "unknown");
    let write = put(&path, "v").with("idempotency-key", "unknown");
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.wait_whole();
    let strict = put(format!("{path}?sloppy=false"), "v").with("idempotency-key", "strict");
    let body = check_refused(&cluster.nodes[0], &strict, 503, "quorum_not_reached");
    assert_eq!(body["outcome"], "not_written", "{body}");
    assert_eq!((&body["replies"], &body["need"]), (&json!(1), &json!(2)));
    let body = check_refused(&cluster.nodes[0], &write, 503, "quorum_not_reached");
    assert_eq!(body["outcome"], "unknown", "{body}");
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_whole();
    // Only n1 has it, so two others do not know it: it may be minted again. It counts once all the same, and whoever
    // writes over one of the two has written over both.
    let answer = cluster.nodes[2].ask(&write).expect(204);
    check_values(&cluster.nodes[1], &path, &["v"]);
    written(cluster.nodes[1].ask(&put(&path, "w").seen(&answer)));
    for node in &cluster.nodes {
        check_values(node, &path, &["w"]);
        assert!(written(node.ask(&write)).1);
        check_values(node, &path, &["w"]);
    }
    // What was refused was not written, so this is the first try.
    assert!(!written(cluster.nodes[1].ask(&strict)).1);
}
