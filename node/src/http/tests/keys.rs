//! Keys: paths, writes, reads, siblings, deletes.

use axum::body::Body;
use sibyl_core::id::Digest;

use super::{Reply, setup};
use crate::coordinator::{Resolved, ResolverNote};

const K: &str = "/v1/buckets/default/keys/k";

#[tokio::test]
async fn a_key_is_any_bytes_decoded_once() {
    let setup = setup();
    let check = async |raw: &str, same: &[&str], listed: &str| {
        setup
            .put(&format!("/v1/buckets/default/keys/{raw}"), "v")
            .await;
        for other in same.iter().chain([&raw]) {
            let reply = setup
                .get(&format!("GET /v1/buckets/default/keys/{other}"))
                .await;
            assert_eq!((reply.status, &reply.body[..]), (200, &b"v"[..]), "{other}");
        }
        let page = setup
            .get("GET /v1/buckets/default/keys?limit=1000")
            .await
            .json();
        let listed: serde_json::Value = serde_json::from_str(listed).expect("JSON");
        assert!(
            page["keys"].as_array().expect("keys").contains(&listed),
            "{raw}: {page}"
        );
    };
    check("a%2Fb", &["a/b", "a%2fb", "%61/b"], r#""a/b""#).await;
    check("a//b", &["a%2F/b"], r#""a//b""#).await;
    check("/lead", &["%2Flead"], r#""/lead""#).await;
    check("trail/", &["trail%2F"], r#""trail/""#).await;
    check("%00", &[], r#""\u0000""#).await;
    check("%ff%fe", &["%FF%FE"], r#"{"base64":"//4="}"#).await;
    check("..", &["%2e%2E"], r#""..""#).await;
    check("a/../b", &[], r#""a/../b""#).await;
    check("%252F", &[], r#""%2F""#).await;
    check("a+b", &["a%2Bb"], r#""a+b""#).await;
    check("q%3Fx", &[], r#""q?x""#).await;
    check("%C3%A9", &[], "\"\u{e9}\"").await;
    check(&"x".repeat(1024), &[], &format!("{:?}", "x".repeat(1024))).await;
}

#[tokio::test]
async fn malformed_names_are_refused() {
    let setup = setup();
    let check = async |target: &str, expected| {
        setup
            .check(&format!("GET {target}"), &[], Body::empty(), expected)
            .await;
    };
    check(
        &format!("/v1/buckets/default/keys/{}", "x".repeat(1025)),
        (414, "key_too_long"),
    )
    .await;
    check(
        "/v1/buckets/default/keys/%zz",
        (400, "bad_percent_encoding"),
    )
    .await;
    check("/v1/buckets/default/keys/", (400, "bad_key")).await;
    check("/key/", (400, "bad_key")).await;
    check("/v1/buckets/Default/keys/k", (400, "bad_bucket_name")).await;
    check("/v1/buckets/_own/keys/k", (400, "bad_bucket_name")).await;
    check("/v1/buckets/%ff/keys/k", (400, "bad_path")).await;
    check("/v1/buckets/none/keys/k", (404, "no_bucket")).await;
    check("/v1/buckets/none/keys", (404, "no_bucket")).await;
    check("/v1/buckets/none/conflicts", (404, "no_bucket")).await;
}

#[tokio::test]
async fn a_value_comes_back_as_it_was_written() {
    let setup = setup();
    let headers = [
        "content-type: application/x.y; a=b",
        "sibyl-attr-owner: ann",
        "sibyl-attr-n: 1",
    ];
    let body = Body::from(&b"\0\xff bytes"[..]);
    let written = setup
        .check(&format!("PUT {K}"), &headers, body, (204, ""))
        .await;
    assert!(!written.header("sibyl-context").is_empty());
    assert_eq!(written.header("sibyl-acks"), "owners=2 fallbacks=0");
    let read = setup.get(&format!("GET {K}")).await;
    assert_eq!((read.status, &read.body[..]), (200, &b"\0\xff bytes"[..]));
    let expected = [
        ("content-type", "application/x.y; a=b"),
        ("sibyl-attr-owner", "ann"),
        ("sibyl-attr-n", "1"),
        ("sibyl-siblings", "1"),
        ("sibyl-acks", "owners=2 fallbacks=0"),
        ("sibyl-coordinator", "n1"),
        ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("sibyl-resolver", ""),
    ];
    for (name, value) in expected {
        assert_eq!(read.header(name), value, "{name}");
    }
    let head = setup.get(&format!("HEAD {K}")).await;
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), "8");
    for name in [
        "etag",
        "sibyl-context",
        "content-type",
        "sibyl-attr-owner",
        "last-modified",
    ] {
        assert_eq!(head.header(name), read.header(name), "{name}");
    }
    setup.put("/v1/buckets/default/keys/empty", "").await;
    let empty = setup.get("GET /v1/buckets/default/keys/empty").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[tokio::test]
async fn an_unchanged_view_is_304() {
    let setup = setup();
    setup.put(K, "v").await;
    let etag = setup
        .get(&format!("GET {K}"))
        .await
        .header("etag")
        .to_owned();
    let line = format!("GET {K}");
    let none_match = format!("if-none-match: {etag}");
    let same = setup
        .check(&line, &[&none_match], Body::empty(), (304, ""))
        .await;
    assert_eq!((same.header("etag"), same.body.len()), (etag.as_str(), 0));
    setup.put(K, "w").await;
    setup
        .check(&line, &[&none_match], Body::empty(), (300, ""))
        .await;
    setup
        .check(
            "GET /v1/buckets/default/keys/none",
            &["if-none-match: *"],
            Body::empty(),
            (404, "no_value"),
        )
        .await;
}

#[tokio::test]
async fn only_if_absent_is_412() {
    let setup = setup();
    let line = format!("PUT {K}");
    let absent = ["if-none-match: *"];
    setup.check(&line, &absent, "v", (204, "")).await;
    setup
        .check(&line, &absent, "w", (412, "precondition_failed"))
        .await;
    setup
        .check(&line, &["if-none-match: \"e\""], "w", (400, "bad_header"))
        .await;
    let returned = setup
        .check(&format!("{line}2?return=value"), &absent, "v", (200, ""))
        .await;
    assert_eq!(&returned.body[..], b"v");
}

#[tokio::test]
async fn siblings_are_300_until_a_context_replaces_them() {
    let setup = setup();
    setup.put(K, "a").await;
    let first = setup.put(K, "b").await;
    let several = setup
        .check(&format!("GET {K}"), &[], Body::empty(), (300, ""))
        .await;
    check_list(&several, &["a", "b"]);
    assert_eq!(several.header("sibyl-siblings"), "2");
    assert_eq!(several.header("vary"), "accept");
    assert_eq!(several.at("/context"), several.header("sibyl-context"));
    assert_eq!(several.at("/siblings/0/trace_id"), "ab".repeat(16));
    assert_eq!(several.at("/siblings/0/deleted"), "false");
    assert_eq!(
        several.at("/siblings/0/modified_at"),
        "2023-11-14T22:13:20.002Z"
    );

    let own = format!("sibyl-context: {first}");
    setup
        .check(&format!("PUT {K}"), &[&own], "c", (204, ""))
        .await;
    let several = setup
        .check(&format!("GET {K}"), &[], Body::empty(), (300, ""))
        .await;
    check_list(&several, &["a", "c"]);

    let all = format!("sibyl-context: {}", several.header("sibyl-context"));
    setup
        .check(&format!("PUT {K}"), &[&all], "d", (204, ""))
        .await;
    let one = setup
        .check(&format!("GET {K}"), &[], Body::empty(), (200, ""))
        .await;
    assert_eq!(&one.body[..], b"d");
    let list = setup
        .check(
            &format!("GET {K}?siblings=true"),
            &[],
            Body::empty(),
            (200, ""),
        )
        .await;
    check_list(&list, &["d"]);
    let list = setup
        .check(
            "GET /v1/buckets/default/keys/none?siblings=true",
            &[],
            Body::empty(),
            (200, ""),
        )
        .await;
    check_list(&list, &[]);
}

fn check_list(reply: &Reply, values: &[&str]) {
    let list = reply.json();
    let found: Vec<_> = list["siblings"]
        .as_array()
        .expect("siblings")
        .iter()
        .map(|s| s["value"].clone())
        .collect();
    assert_eq!(found, values, "{list}");
}

#[tokio::test]
async fn siblings_come_as_parts_if_asked() {
    let setup = setup();
    setup
        .ask(
            &format!("PUT {K}"),
            &["content-type: text/a", "sibyl-attr-x: 1"],
            "--a\r\n",
        )
        .await;
    setup
        .ask(&format!("PUT {K}"), &["content-type: text/b"], "b")
        .await;
    let check = async |accept: &str, kind: &str| {
        let accept = format!("accept: {accept}");
        let reply = setup
            .check(&format!("GET {K}"), &[&accept], Body::empty(), (300, ""))
            .await;
        assert!(
            reply.header("content-type").starts_with(kind),
            "{accept}: {:?}",
            reply.headers
        );
        reply
    };
    check("*/*", "application/json").await;
    check(
        "application/json, multipart/mixed;q=0.5",
        "application/json",
    )
    .await;
    check("multipart/mixed;q=0", "application/json").await;
    check("application/json;q=0.1, multipart/*", "multipart/mixed").await;
    let reply = check("multipart/mixed", "multipart/mixed").await;
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    let boundary = reply
        .header("content-type")
        .split_once("boundary=")
        .expect("a boundary")
        .1;
    let text = std::str::from_utf8(&reply.body).expect("text here");
    let parts: Vec<_> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(
        (parts.len(), parts[0], parts[3]),
        (4, "", "--\r\n"),
        "{text}"
    );
    let (head, value) = parts[1].split_once("\r\n\r\n").expect("head and value");
    assert_eq!(value, "--a\r\n\r\n");
    for line in [
        "Content-Type: text/a",
        "Content-Length: 5",
        "sibyl-attr-x: 1",
        "sibyl-dot: 0000000000000007:2",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[tokio::test]
async fn a_delete_removes_what_its_client_saw() {
    let setup = setup();
    let line = format!("DELETE {K}");
    setup
        .check(&line, &[], Body::empty(), (400, "context_required"))
        .await;
    let never = setup
        .check(
            &format!("{line}?blind=true"),
            &[],
            Body::empty(),
            (404, "no_value"),
        )
        .await;
    assert_eq!(never.header("sibyl-context"), "");
    let context = format!("sibyl-context: {}", setup.put(K, "a").await);
    setup
        .check(
            &format!("{line}?blind=true"),
            &[&context],
            Body::empty(),
            (400, "bad_parameter"),
        )
        .await;
    setup.put(K, "b").await;
    setup
        .check(&line, &[&context], Body::empty(), (204, ""))
        .await;
    let left = setup
        .check(&format!("GET {K}"), &[], Body::empty(), (200, ""))
        .await;
    assert_eq!(&left.body[..], b"b");
    setup
        .check(&format!("{line}?blind=true"), &[], Body::empty(), (204, ""))
        .await;
    let gone = setup
        .check(&format!("GET {K}"), &[], Body::empty(), (404, "no_value"))
        .await;
    assert!(
        !gone.header("sibyl-context").is_empty(),
        "a re-create must be causal"
    );
    assert_eq!(
        (gone.header("etag"), gone.header("sibyl-siblings")),
        ("", "0")
    );
    let list = setup.get(&format!("GET {K}?siblings=true")).await;
    assert_eq!(
        (list.at("/siblings/0/value"), list.at("/siblings/0/deleted")),
        ("null".into(), "true".into())
    );
    let listed = setup.get("GET /v1/buckets/default/keys").await.json();
    assert_eq!(listed, serde_json::json!({"keys": [], "next": null}));
}

#[tokio::test]
async fn a_write_can_return_the_view() {
    let setup = setup();
    let line = format!("PUT {K}?return=value");
    let one = setup
        .check(&line, &["content-type: text/a"], "a", (200, ""))
        .await;
    assert_eq!(
        (&one.body[..], one.header("content-type")),
        (&b"a"[..], "text/a")
    );
    check_list(&setup.check(&line, &[], "b", (300, "")).await, &["a", "b"]);
    let none = setup
        .check(&format!("PUT {K}?return=none"), &[], "b", (204, ""))
        .await;
    assert!(none.body.is_empty());
    let all = format!(
        "sibyl-context: {}",
        setup.get(&format!("GET {K}")).await.header("sibyl-context")
    );
    let gone = setup
        .check(
            &format!("DELETE {K}?return=value"),
            &[&all],
            Body::empty(),
            (204, ""),
        )
        .await;
    assert!(!gone.header("sibyl-context").is_empty());
}

#[tokio::test]
async fn a_context_is_good_for_one_key_only() {
    let setup = setup();
    let context = setup.put(K, "v").await;
    let check = async |context: &str, expected| {
        let header = format!("sibyl-context: {context}");
        setup
            .check(
                "PUT /v1/buckets/default/keys/other",
                &[&header],
                "v",
                expected,
            )
            .await;
    };
    check(&context, (400, "bad_context")).await;
    check("AAAA", (400, "bad_context")).await;
    check("?", (400, "bad_context")).await;
    setup.fake.state().faults.expired = true;
    let header = format!("sibyl-context: {context}");
    setup
        .check(
            &format!("PUT {K}"),
            &[&header],
            "v",
            (412, "context_expired"),
        )
        .await;
}

#[tokio::test]
async fn parameters_reach_the_node() {
    let setup = setup();
    setup.put(K, "v").await;
    let query = "r=2&timeout_ms=70&partial=true&sloppy=false&resolve=false";
    setup
        .check(&format!("GET {K}?{query}"), &[], Body::empty(), (200, ""))
        .await;
    let get = setup.fake.state().last_get.clone().expect("a read");
    assert_eq!(
        (
            get.r.map(|r| r.to_string()).as_deref(),
            get.partial,
            get.resolve
        ),
        (Some("2"), true, false)
    );
    assert_eq!(get.timeout.map(|time| time.as_millis()), Some(70));
    setup
        .check(&format!("PUT {K}?w=all"), &[], "v", (204, ""))
        .await;
    let put = setup.fake.state().last_put.clone().expect("a write");
    assert_eq!(
        (put.w.map(|w| w.to_string()).as_deref(), put.r_is_default()),
        (Some("all"), true)
    );
    assert_eq!(put.content_type, "application/octet-stream");
    setup.fake.state().faults.unmet = true;
    let partial = setup.get(&format!("GET {K}?partial=true")).await;
    assert_eq!(partial.header("sibyl-partial"), "true");
}

trait Defaults {
    fn r_is_default(&self) -> bool;
}

impl Defaults for crate::coordinator::PutRequest {
    fn r_is_default(&self) -> bool {
        self.idempotency_key.is_none() && self.context.is_none()
    }
}

#[tokio::test]
async fn a_resolver_is_named() {
    let setup = setup();
    setup.put(K, "v").await;
    let version = Digest::of(b"x");
    setup.fake.state().faults.note = Some(ResolverNote {
        name: "cart".into(),
        version,
        outcome: Resolved::Failed,
        failure: Some("trap".into()),
    });
    let reply = setup.get(&format!("GET {K}")).await;
    assert_eq!(
        reply.header("sibyl-resolver"),
        format!("cart@{version}; outcome=failed")
    );
    let explained = setup
        .check(
            &format!("GET {K}?explain=true"),
            &[],
            Body::empty(),
            (200, ""),
        )
        .await;
    let expected = [
        ("/bucket", "default"),
        ("/key", "k"),
        ("/partition", "5"),
        ("/preference_list/0/node_id", "n1"),
        ("/preference_list/0/role", "primary"),
        ("/preference_list/0/state", "alive"),
        ("/preference_list/0/siblings", "1"),
        ("/siblings/0/bytes", "1"),
        ("/siblings/0/dots/0", "0000000000000007:2"),
        ("/siblings/0/folded_from", "null"),
        ("/resolver/name", "cart"),
        ("/resolver/outcome", "failed"),
        ("/journal", "[]"),
    ];
    for (pointer, value) in expected {
        assert_eq!(explained.at(pointer), value, "{pointer}");
    }
    setup
        .check(
            &format!("GET {K}?explain=true&siblings=true"),
            &[],
            Body::empty(),
            (400, "bad_parameter"),
        )
        .await;
}

/// A write gets what the read before it left of the time.
#[tokio::test]
async fn a_request_has_one_deadline_for_all_it_does() {
    use std::time::Duration;
    let delay = Duration::from_millis(5);
    let setup = setup();
    setup.put("/v1/buckets/default/keys/there", "v").await;
    setup.fake.state().faults.delays = delay;
    let check = async |line: &str, headers: &[&str], body: &'static str, whole_ms: u64| {
        let reply = setup.ask(line, headers, body).await;
        assert!(reply.status < 300, "{line}: {}", reply.status);
        let last = setup.fake.state().last_put.take().expect("it wrote");
        let left = last.timeout.expect("a deadline");
        assert!(
            left <= Duration::from_millis(whole_ms) - delay,
            "{line}: {left:?}"
        );
    };
    let absent = &["if-none-match: *"];
    check("PUT /v1/buckets/default/keys/new", absent, "v", 5000).await;
    check(
        "PUT /v1/buckets/default/keys/newer?timeout_ms=60000",
        absent,
        "v",
        60_000,
    )
    .await;
    let delete = "DELETE /v1/buckets/default/keys/there?blind=true&timeout_ms=9000";
    check(delete, &[], "", 9000).await;
    check("POST /key", &[], r#"{"key":"k","value":"v"}"#, 5000).await;
}
