//! Limits on a real cluster: what fits exactly is kept on every node, one more is refused and changes nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::ask::{Answer, Ask, delete, get, key, put, put_bucket};
use crate::nodes::{Cluster, Node, Shared};

static CLUSTER: Shared = Shared::new();

/// A write that fits is read back everywhere.
fn fits(cluster: &Cluster, path: &str, ask: &Ask, value: &[u8]) {
    cluster.nodes[0].ask(ask).expect(204);
    for node in &cluster.nodes {
        assert!(
            node.ask(&get(path)).expect(200).body == value,
            "{} bytes through {}",
            value.len(),
            node.id
        );
    }
}

/// A write that does not is refused everywhere and leaves nothing behind.
fn refused(cluster: &Cluster, path: &str, ask: &Ask, status: u16, code: &str) -> Value {
    let answers: Vec<Answer> = cluster
        .nodes
        .iter()
        .map(|node| node.ask(ask).refused(status, code))
        .collect();
    cluster.nodes[0].ask(&get(path)).refused(404, "no_value");
    answers[0].json()
}

#[test]
fn keys_values_and_attributes() {
    let cluster = Cluster::shared(&CLUSTER);
    let long = |length: usize| key("default", &"k".repeat(length));
    fits(&cluster, &long(1024), &put(long(1024), "v"), b"v");
    for node in &cluster.nodes {
        for ask in [get(long(1025)), put(long(1025), "v"), delete(long(1025))] {
            node.ask(&ask).refused(414, "key_too_long");
        }
    }

    let (value, path) = (vec![7; 1 << 20], key("default", "large"));
    fits(&cluster, &path, &put(&path, &value), &value);
    let (value, path) = (vec![7; (1 << 20) + 1], key("default", "larger"));
    let body = refused(&cluster, &path, &put(&path, &value), 413, "too_large");
    assert_eq!(body["cap"], 1 << 20, "{body}");
    cluster.nodes[1]
        .ask(&put_bucket("small", &json!({ "max_value_bytes": 10 })))
        .expect(201);
    let path = key("small", "k");
    refused(
        &cluster,
        &path,
        &put(&path, "01234567890"),
        413,
        "too_large",
    );
    fits(&cluster, &path, &put(&path, "0123456789"), b"0123456789");

    let many = |path: &str, count: usize| {
        (0..count).fold(put(path, "v"), |ask, at| {
            ask.with(&format!("sibyl-attr-a{at}"), "x")
        })
    };
    let path = key("default", "attributes");
    refused(&cluster, &path, &many(&path, 17), 400, "bad_attributes");
    // The name `a` and 1,023 bytes of value are 1 KiB together.
    let long = |length: usize| put(&path, "v").with("sibyl-attr-a", &"x".repeat(length));
    refused(&cluster, &path, &long(1024), 400, "bad_attributes");
    fits(&cluster, &path, &many(&path, 16), b"v");
    let path = key("default", "attribute");
    fits(
        &cluster,
        &path,
        &put(&path, "v").with("sibyl-attr-a", &"x".repeat(1023)),
        b"v",
    );
}

#[test]
fn heads_of_requests() {
    let cluster = Cluster::shared(&CLUSTER);
    let node = &cluster.nodes[0];
    let path = key("default", "heads");
    let filled = |bytes: usize| {
        // Lines of a KiB, as a client with many headers has them.
        (0..bytes >> 10).fold(put(&path, "v"), |ask, at| {
            ask.with(&format!("x-{at:04}"), &"x".repeat(1 << 10))
        })
    };
    node.ask(&filled(30 << 10)).expect(204);
    let answer = node
        .ask(&filled(34 << 10))
        .refused(431, "headers_too_large");
    assert_eq!(answer.header("sibyl-trace-id").len(), 32);
    assert_eq!(node.ask(&filled(80 << 10)).status, 431);
}

/// Sends only the head of a request and hears what the node says to that.
fn announced(node: &Node, path: &str, kind: &str, length: u64) -> String {
    let mut stream = TcpStream::connect(node.http).unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: sibyl\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn bodies_too_large_are_refused_before_they_come() {
    let cluster = Cluster::shared(&CLUSTER);
    let check = |path: &str, kind: &str, length: u64, status: &str, code: &str| {
        let answer = announced(&cluster.nodes[0], path, kind, length);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{path}: {answer}"
        );
    };
    check(
        "/v1/resolvers/large",
        "application/wasm",
        (32 << 20) + 1,
        "413",
        "\"too_large\"",
    );
    check(
        "/v1/resolvers/large",
        "text/plain",
        (32 << 20) + 1,
        "413",
        "\"too_large\"",
    );
    check(
        "/v1/buckets/default/keys/k",
        "text/plain",
        u64::MAX >> 1,
        "413",
        "\"too_large\"",
    );
    check(
        "/v1/buckets/b",
        "application/json",
        1 << 20,
        "413",
        "\"too_large\"",
    );
    let odd = put("/v1/resolvers/odd", "not wasm").with("content-type", "text/html");
    cluster.nodes[0].ask(&odd).expect(415);
    let none = put("/v1/resolvers/odd", "not wasm").with("content-type", "application/wasm");
    cluster.nodes[0].ask(&none).expect(415);
    cluster.nodes[0]
        .ask(&get("/v1/resolvers/odd"))
        .refused(404, "no_resolver");
}

#[test]
fn siblings_and_objects_have_caps_that_never_stop_who_has_seen_them() {
    let cluster = Cluster::shared(&CLUSTER);
    let config = json!({ "max_siblings": 3, "max_object_bytes": 1 << 20 });
    cluster.nodes[0]
        .ask(&put_bucket("capped", &config))
        .expect(201);
    let check = |name: &str, value: &dyn Fn(usize) -> String, fit: usize, code: &str| {
        let path = key("capped", name);
        for at in 0..fit {
            cluster.nodes[at % 3]
                .ask(&put(&path, value(at)))
                .expect(204);
        }
        for node in &cluster.nodes {
            let body = node.ask(&put(&path, value(fit))).refused(409, code).json();
            assert!(
                body["cap"].is_u64()
                    && body["detail"]
                        .as_str()
                        .is_some_and(|text| text.contains("read the key")),
                "{body}"
            );
        }
        let seen = cluster.nodes[1].ask(&get(&path)).expect(300);
        assert_eq!(seen.values().len(), fit, "the refused writes left nothing");
        cluster.nodes[2]
            .ask(&put(&path, "merged").seen(&seen))
            .expect(204);
        assert_eq!(
            cluster.nodes[0].ask(&get(&path)).expect(200).text(),
            "merged"
        );
    };
    check("siblings", &|at| at.to_string(), 3, "sibling_cap");
    check(
        "object",
        &|at| at.to_string().repeat(400_000),
        2,
        "object_cap",
    );
    // A delete that has seen them is a write that covers them.
    let path = key("capped", "deleted");
    let writes: Vec<_> = (0..3)
        .map(|at| {
            cluster.nodes[at]
                .ask(&put(&path, at.to_string()))
                .expect(204)
        })
        .collect();
    cluster.nodes[0]
        .ask(&delete(&path).seen(&writes[1]))
        .expect(204);
    assert_eq!(
        cluster.nodes[1].ask(&get(&path)).expect(300).values(),
        ["0", "2"]
    );
    cluster.nodes[2].ask(&put(&path, "3")).expect(204);
}
