//! Batches: each operation is answered on its own, in order.

use serde_json::{Value, json};
use sibyl_core::retry::Key;

use super::setup;

const BATCH: &str = "POST /v1/buckets/default/batch";

#[tokio::test]
async fn each_operation_has_its_own_result_in_order() {
    let setup = setup();
    let context = setup.put("/v1/buckets/default/keys/old", "v").await;
    let ops = json!({"ops": [
        {"op": "put", "key": "k", "value": "a", "content_type": "text/plain", "attributes": {"x": "1"}},
        {"op": "get", "key": "k"},
        {"op": "get", "key": "none"},
        {"op": "put", "key": "k", "value": {"base64": "/w=="}},
        {"op": "get", "key": "k"},
        {"op": "delete", "key": "old", "context": context},
        {"op": "get", "key": "old"},
        {"op": "put", "key": {"base64": "/w=="}, "value": ""},
        {"op": "put", "key": "k", "value": "v", "context": "AAAA"},
        {"op": "put", "key": "k", "value": "v", "attributes": {"x": "v".repeat(1024)}},
    ]});
    let reply = setup.check(BATCH, &[], ops.to_string(), (200, "")).await;
    let results = reply.json();
    let results = results["results"].as_array().expect("results");
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_u64().expect("a status"))
        .collect();
    assert_eq!(statuses, [204, 200, 404, 204, 300, 204, 404, 204, 400, 400]);
    let check = |at: usize, pointer: &str, value: Value| {
        assert_eq!(
            results[at].pointer(pointer),
            Some(&value),
            "{at} {pointer}: {}",
            results[at]
        );
    };
    check(1, "/value", json!("a"));
    check(1, "/content_type", json!("text/plain"));
    check(1, "/attributes/x", json!("1"));
    check(2, "/problem/code", json!("no_value"));
    check(4, "/siblings/siblings/1/value/base64", json!("/w=="));
    check(7, "/key/base64", json!("/w=="));
    check(8, "/problem/code", json!("bad_context"));
    check(9, "/problem/code", json!("bad_attributes"));
}

/// One key for the whole batch, told apart by places; or an operation's own.
#[tokio::test]
async fn operations_of_a_batch_may_be_repeated() {
    let setup = setup();
    let key = |text| Key::new(text).expect("visible");
    let put = json!({"op": "put", "key": "k", "value": "v"});
    let own = json!({"op": "put", "key": "k", "value": "v", "idempotency_key": "mine"});
    let get = json!({"op": "get", "key": "k"});
    let check = async |ops: Value, headers: &[&str], expected: Option<Key>| {
        let body = json!({"ops": ops}).to_string();
        setup.check(BATCH, headers, body, (200, "")).await;
        let last = setup.fake.state().last_put.take().expect("it wrote");
        assert_eq!(last.idempotency_key, expected, "{ops}");
    };
    check(json!([put]), &[], None).await;
    let header = ["idempotency-key: all"];
    check(json!([put]), &header, Some(key("all").of_op(0))).await;
    check(json!([get, put]), &header, Some(key("all").of_op(1))).await;
    check(json!([own]), &header, Some(key("mine"))).await;
    check(json!([own]), &[], Some(key("mine"))).await;
    let body = json!({"ops": [{"op": "put", "key": "k", "value": "v", "idempotency_key": "a b"}]});
    setup
        .check(BATCH, &[], body.to_string(), (400, "bad_json"))
        .await;
    let body = json!({"ops": [{"op": "get", "key": "k", "idempotency_key": "a"}]});
    setup
        .check(BATCH, &[], body.to_string(), (400, "unknown_field"))
        .await;
}

/// A batch that breaks its schema is refused whole, whatever else would be true of it, and nothing of it runs.
#[tokio::test]
async fn what_is_wrong_in_form_refuses_the_whole_batch() {
    let setup = setup();
    let check = async |op: Value, expected: (u16, &str)| {
        let body = json!({"ops": [{"op": "put", "key": "first", "value": "v"}, op]}).to_string();
        setup.check(BATCH, &[], body.clone(), expected).await;
        let unknown = "POST /v1/buckets/none/batch";
        setup.check(unknown, &[], body, expected).await;
    };
    let json = (400, "bad_json");
    check(json!({"op": "put", "key": "k"}), json).await;
    check(json!({"op": "delete", "key": "k"}), json).await;
    check(json!({"key": "k"}), json).await;
    check(
        json!({"op": "put", "key": "k", "value": "v", "content_type": "x"}),
        json,
    )
    .await;
    check(
        json!({"op": "put", "key": "k", "value": "v", "attributes": {"X": ""}}),
        json,
    )
    .await;
    check(
        json!({"op": "put", "key": "k", "value": "v", "attributes": {"x": "\n"}}),
        json,
    )
    .await;
    check(
        json!({"op": "put", "key": "k", "value": {"base64": "?"}}),
        json,
    )
    .await;
    check(
        json!({"op": "get", "key": "k", "value": "v"}),
        (400, "unknown_field"),
    )
    .await;
    check(
        json!({"op": "get", "key": "k", "context": "AAAA"}),
        (400, "unknown_field"),
    )
    .await;
    check(
        json!({"op": "delete", "key": "k", "context": "?"}),
        (400, "bad_context"),
    )
    .await;
    check(
        json!({"op": "delete", "key": "k", "context": ""}),
        (400, "bad_context"),
    )
    .await;
    check(json!({"op": "get", "key": ""}), (400, "bad_key")).await;
    check(
        json!({"op": "get", "key": "k".repeat(1025)}),
        (414, "key_too_long"),
    )
    .await;
    setup
        .check("POST /v1/buckets/none/batch", &[], "", (400, "bad_json"))
        .await;
    setup
        .check(
            "GET /v1/buckets/default/keys/first",
            &[],
            "",
            (404, "no_value"),
        )
        .await;
}

#[tokio::test]
async fn a_batch_is_bounded_and_understood() {
    let setup = setup();
    let many =
        |count: usize| json!({"ops": vec![json!({"op": "get", "key": "k"}); count]}).to_string();
    let full = setup.check(BATCH, &[], many(128), (200, "")).await;
    assert_eq!(full.json()["results"].as_array().map(Vec::len), Some(128));
    setup
        .check(BATCH, &[], many(129), (400, "too_many_ops"))
        .await;
    setup
        .check(
            BATCH,
            &[],
            r#"{"ops":[{"op":"cas","key":"k"}]}"#,
            (400, "bad_json"),
        )
        .await;
    setup
        .check(
            BATCH,
            &[],
            r#"{"ops":[{"op":"get","key":"k","ttl":1}]}"#,
            (400, "unknown_field"),
        )
        .await;
    setup
        .check(
            BATCH,
            &[],
            r#"{"ops":[],"atomic":true}"#,
            (400, "unknown_field"),
        )
        .await;
    setup
        .check(
            "POST /v1/buckets/none/batch",
            &[],
            r#"{"ops":[]}"#,
            (404, "no_bucket"),
        )
        .await;
}
