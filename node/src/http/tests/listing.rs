//! Listing, the conflict feed, and the plain form.

use axum::body::Body;

use super::{Reply, Setup, setup};

#[tokio::test]
async fn listing_goes_page_by_page() {
    let setup = setup();
    for key in ["a", "b%ff", "b0", "c"] {
        setup
            .put(&format!("/v1/buckets/default/keys/{key}"), "v")
            .await;
    }
    let check = async |query: &str, expected: serde_json::Value| {
        let page = setup
            .check(
                &format!("GET /v1/buckets/default/keys?{query}"),
                &[],
                Body::empty(),
                (200, ""),
            )
            .await;
        assert_eq!(page.json(), expected, "{query}");
    };
    let raw = serde_json::json!({"base64": "Yv8="});
    check(
        "",
        serde_json::json!({"keys": ["a", "b0", raw, "c"], "next": null}),
    )
    .await;
    check(
        "limit=2",
        serde_json::json!({"keys": ["a", "b0"], "next": "b0"}),
    )
    .await;
    check(
        "limit=2&start=b0",
        serde_json::json!({"keys": [raw, "c"], "next": null}),
    )
    .await;
    check(
        "prefix=b",
        serde_json::json!({"keys": ["b0", raw], "next": null}),
    )
    .await;
    check(
        "prefix=b%ff",
        serde_json::json!({"keys": [raw], "next": null}),
    )
    .await;
    let feed = setup
        .check(
            "GET /v1/buckets/default/conflicts?limit=5",
            &[],
            Body::empty(),
            (200, ""),
        )
        .await;
    assert_eq!(feed.at("/conflicts/0/key/base64"), "/2s=");
    assert_eq!(feed.at("/conflicts/0/since"), "2023-11-14T22:13:20.000Z");
    assert_eq!(feed.at("/conflicts/0/trace_id"), "01".repeat(16));
}

async fn post(setup: &Setup, body: &'static str, expected: (u16, &str)) -> Reply {
    setup.check("POST /key", &[], body, expected).await
}

#[tokio::test]
async fn the_plain_form_replaces_what_it_sees() {
    let setup = setup();
    let first = post(&setup, r#"{"key":"k","value":"a"}"#, (200, "")).await;
    assert_eq!(
        (first.at("/key"), first.at("/value")),
        ("k".into(), "a".into())
    );
    post(&setup, r#"{"key":"k","value":"b"}"#, (200, "")).await;
    let read = setup
        .check("GET /key/k", &[], Body::empty(), (200, ""))
        .await;
    assert_eq!(
        (read.at("/value"), read.at("/siblings")),
        ("b".into(), "1".into())
    );
    let body = serde_json::json!({"key": "k", "value": {"base64": "/w=="}, "context": first.at("/context")});
    setup
        .check("POST /key", &[], body.to_string(), (200, ""))
        .await;
    let read = setup
        .check("GET /key/k", &[], Body::empty(), (300, ""))
        .await;
    assert_eq!(
        read.json()["values"],
        serde_json::json!(["b", {"base64": "/w=="}])
    );
    assert_eq!(read.at("/siblings"), "2");
    let gone = setup
        .check("GET /key/none", &[], Body::empty(), (404, "no_value"))
        .await;
    assert!(gone.json().get("context").is_none());
    let all = format!("sibyl-context: {}", read.at("/context"));
    setup
        .check(
            "DELETE /v1/buckets/default/keys/k",
            &[&all],
            Body::empty(),
            (204, ""),
        )
        .await;
    let gone = setup
        .check("GET /key/k", &[], Body::empty(), (404, "no_value"))
        .await;
    assert!(gone.json().get("context").is_some());

    post(&setup, r#"{"key":"k"}"#, (400, "bad_json")).await;
    post(&setup, r#"{"key":"k","value":1}"#, (400, "bad_json")).await;
    post(
        &setup,
        r#"{"key":"k","value":"v","ttl":1}"#,
        (400, "unknown_field"),
    )
    .await;
    post(&setup, r#"{"key":"","value":"v"}"#, (400, "bad_key")).await;
    post(
        &setup,
        r#"{"key":"k","value":"v","context":"AAAA"}"#,
        (400, "bad_context"),
    )
    .await;
    post(&setup, "", (400, "bad_json")).await;
}
