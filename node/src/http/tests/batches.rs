//! Batches: each operation is answered on its own, in order.

use serde_json::{Value, json};

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
        {"op": "delete", "key": "old"},
        {"op": "delete", "key": "old", "context": context},
        {"op": "get", "key": "old"},
        {"op": "put", "key": "k"},
        {"op": "get", "key": "k", "value": "v"},
        {"op": "put", "key": "", "value": "v"},
        {"op": "put", "key": {"base64": "/w=="}, "value": ""},
        {"op": "put", "key": "k", "value": "v", "content_type": "x"},
        {"op": "put", "key": "k", "value": "v", "context": "AAAA"},
    ]});
    let reply = setup.check(BATCH, &[], ops.to_string(), (200, "")).await;
    let results = reply.json();
    let results = results["results"].as_array().expect("results");
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_u64().expect("a status"))
        .collect();
    assert_eq!(
        statuses,
        [
            204, 200, 404, 204, 300, 400, 204, 404, 400, 400, 400, 204, 400, 400
        ]
    );
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
    check(5, "/problem/code", json!("context_required"));
    check(8, "/problem/code", json!("bad_op"));
    check(11, "/key/base64", json!("/w=="));
    check(13, "/problem/code", json!("bad_context"));
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
