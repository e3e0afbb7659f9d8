//! Buckets and resolvers.

use axum::body::Body;
use serde_json::json;
use sibyl_core::id::Digest;

use super::super::Form;
use super::fake::form_of;
use super::{Setup, setup};

const B: &str = "/v1/buckets/b";

#[tokio::test]
async fn a_bucket_has_every_default_and_can_be_sent_back() {
    let setup = setup();
    let put = format!("PUT {B}");
    let made = setup.check(&put, &[], "{}", (201, "")).await;
    let expected = json!({
        "name": "b", "n": 3, "r": "quorum", "w": "quorum", "sloppy": true, "durability": "synced",
        "deletes": "write_wins", "max_siblings": 100, "max_value_bytes": 1_048_576,
        "max_object_bytes": 16_777_216, "resolver": null,
    });
    assert_eq!(made.json(), expected);
    let read = setup.get(&format!("GET {B}")).await;
    assert_eq!(
        (read.json(), read.header("etag")),
        (expected.clone(), made.header("etag"))
    );
    let if_match = format!("if-match: {}", read.header("etag"));
    setup
        .check(&put, &[&if_match], read.body.clone(), (200, ""))
        .await;
    setup
        .check(&put, &[&if_match], "{}", (412, "precondition_failed"))
        .await;
    setup.check(&put, &["if-match: *"], "{}", (200, "")).await;
    setup
        .check(
            &put,
            &["if-none-match: *"],
            "{}",
            (412, "precondition_failed"),
        )
        .await;
    setup
        .check("PUT /v1/buckets/c", &["if-none-match: *"], "", (201, ""))
        .await;
    setup
        .check(
            "PUT /v1/buckets/d",
            &["if-match: *"],
            "{}",
            (412, "precondition_failed"),
        )
        .await;
    setup
        .check(&put, &["if-match: 7"], "{}", (400, "bad_header"))
        .await;
    let all = setup.get("GET /v1/buckets").await;
    assert_eq!(all.at("/buckets/0"), expected.to_string());
    assert_eq!(all.at("/buckets/2/name"), "default");
}

/// What is wrong in form is said before what the bucket's state says, and contradictions are no errors of form.
#[tokio::test]
async fn form_comes_before_preconditions() {
    let setup = setup();
    let check = async |line: &str, headers: &[&str], body: &'static str, expected| {
        setup.check(line, headers, body, expected).await
    };
    let put = &format!("PUT {B}");
    check(put, &["if-match: \"7\""], "{\"n\":0}", (400, "bad_config")).await;
    check(put, &["if-match: \"7\""], "{", (400, "bad_json")).await;
    check(put, &["if-match: *"], "{\"x\":0}", (400, "unknown_field")).await;
    let unready = r#"{"resolver":{"name":"none"}}"#;
    check(put, &["if-match: *"], unready, (412, "precondition_failed")).await;
    check(put, &[], unready, (404, "no_resolver")).await;
    let bad = (400, "bad_config");
    check(
        put,
        &[],
        r#"{"resolver":{"name":"none"},"max_siblings":0}"#,
        bad,
    )
    .await;
    let both = &["if-match: *", "if-none-match: *"];
    check(put, both, "{}", (412, "precondition_failed")).await;
    check(
        put,
        &["if-match: 7", "if-none-match: *"],
        "{}",
        (400, "bad_header"),
    )
    .await;
    check(
        put,
        &[],
        r#"{"n":2.0,"w":1.0,"max_siblings":7.0}"#,
        (201, ""),
    )
    .await;
    check(put, both, "{}", (412, "precondition_failed")).await;
    let unknown = "PUT /v1/buckets/none/keys/k";
    check(unknown, &["sibyl-context: ?"], "v", (400, "bad_context")).await;
    check(unknown, &["sibyl-context: "], "v", (400, "bad_context")).await;
    let delete = "DELETE /v1/buckets/none/keys/k?blind=true";
    check(delete, &["sibyl-context: AAAA"], "", (400, "bad_parameter")).await;
}

#[tokio::test]
async fn a_configuration_is_typed() {
    let setup = setup();
    let check = async |body: &'static str, expected, says: &str| {
        let reply = setup.check(&format!("PUT {B}"), &[], body, expected).await;
        let text = String::from_utf8(reply.body.to_vec()).expect("text");
        assert!(text.contains(says), "{body}: {text}");
    };
    let all = r#"{"n":2,"r":1,"w":"all","sloppy":false,"durability":"buffered","deletes":"delete_wins",
        "max_siblings":7,"max_value_bytes":16777216,"max_object_bytes":33554432}"#;
    check(all, (201, ""), r#""w":"all""#).await;
    check(r#"{"r":2}"#, (200, ""), r#""n":2"#).await;
    check(r#"{"n":3}"#, (409, "fixed_n"), "cannot change").await;
    check(r#"{"n":0}"#, (400, "bad_config"), "n must be").await;
    check(r#"{"r":16}"#, (400, "bad_config"), "r must be").await;
    check(r#"{"w":0}"#, (400, "bad_config"), "w must be").await;
    check(r#"{"r":"two"}"#, (400, "bad_json"), "one, quorum, all").await;
    check(
        r#"{"max_value_bytes":16777217}"#,
        (400, "bad_config"),
        "max_value_bytes",
    )
    .await;
    check(r#"{"durability":"fsync"}"#, (400, "bad_json"), "fsync").await;
    check(r#"{"ttl":1}"#, (400, "unknown_field"), "ttl").await;
    check(r#"{"name":"c"}"#, (400, "bad_config"), "path").await;
    check(
        r#"{"journal":{"retention_hours":72}}"#,
        (400, "unsupported_field"),
        r#""field":"journal""#,
    )
    .await;
    check(
        r#"{"resolver":{"name":"r","shadow":{}}}"#,
        (400, "unsupported_field"),
        "resolver.shadow",
    )
    .await;
    check(
        r#"{"resolver":{"name":"r","laws":"strict"}}"#,
        (400, "bad_json"),
        "strict",
    )
    .await;
    check(
        r#"{"resolver":{"name":"R"}}"#,
        (400, "bad_config"),
        "resolver.name",
    )
    .await;
    check(
        r#"{"resolver":{"name":"none"}}"#,
        (404, "no_resolver"),
        "none",
    )
    .await;
    check("{", (400, "bad_json"), "EOF").await;
}

#[tokio::test]
async fn buckets_are_deleted_when_empty_or_purged() {
    let setup = setup();
    let check = async |line: &str, expected| setup.check(line, &[], Body::empty(), expected).await;
    check("DELETE /v1/buckets/default", (409, "default_bucket")).await;
    check(&format!("DELETE {B}"), (404, "no_bucket")).await;
    check(&format!("GET {B}"), (404, "no_bucket")).await;
    check(&format!("PUT {B}"), (201, "")).await;
    check(&format!("DELETE {B}"), (204, "")).await;
    check(&format!("PUT {B}"), (201, "")).await;
    let context = format!(
        "sibyl-context: {}",
        setup.put("/v1/buckets/b/keys/k", "v").await
    );
    check(&format!("DELETE {B}"), (409, "bucket_not_empty")).await;
    check(&format!("DELETE {B}?purge=true"), (204, "")).await;
    check(&format!("PUT {B}"), (201, "")).await;
    setup
        .check(
            "PUT /v1/buckets/b/keys/k",
            &[&context],
            "v",
            (400, "bad_context"),
        )
        .await;
}

async fn upload(
    setup: &Setup,
    kind: &str,
    body: &'static [u8],
    expected: (u16, &str),
) -> super::Reply {
    let kind = format!("content-type: {kind}");
    setup
        .check("PUT /v1/resolvers/r", &[&kind], body, expected)
        .await
}

#[tokio::test]
async fn resolvers_are_uploaded_bound_and_deleted() {
    let setup = setup();
    upload(
        &setup,
        "application/json",
        b"(module)",
        (415, "unsupported_media_type"),
    )
    .await;
    upload(&setup, "text/plain", b"nonsense", (415, "not_wasm")).await;
    setup
        .check(
            "PUT /v1/resolvers/r?check=slow",
            &["content-type: text/plain"],
            "()",
            (400, "bad_parameter"),
        )
        .await;
    setup
        .check(
            "PUT /v1/resolvers/R",
            &["content-type: text/plain"],
            "()",
            (400, "bad_resolver_name"),
        )
        .await;
    let made = upload(&setup, "text/plain; charset=utf-8", b"(module)", (201, "")).await;
    assert_eq!(form_of(&setup.fake, "r"), Some(Form::Wat));
    let digest = Digest::of(b"(module)").to_string();
    assert_eq!(made.at("/digest"), digest);
    assert_eq!(
        made.header("location"),
        format!("/v1/resolvers/r/versions/{digest}")
    );
    upload(&setup, "text/plain", b"(module)", (200, "")).await;
    upload(&setup, "application/wasm", b"\0asm1", (201, "")).await;
    assert_eq!(form_of(&setup.fake, "r"), Some(Form::Wasm));

    let bind = format!(
        r#"{{"resolver":{{"name":"r","version":"{digest}","config":{{"b":1}},"limits":{{"fuel":10000}}}}}}"#
    );
    let bound = setup.check(&format!("PUT {B}"), &[], bind, (201, "")).await;
    let resolver = &bound.json()["resolver"];
    assert_eq!(
        resolver["limits"],
        json!({"fuel": 10_000, "memory_bytes": 67_108_864, "output_bytes": 1_048_576})
    );
    assert_eq!(
        (&resolver["config"], &resolver["mode"], &resolver["laws"]),
        (&json!({"b": 1}), &json!("active"), &json!("enforce"))
    );
    let newest = setup
        .check(
            "PUT /v1/buckets/c",
            &[],
            r#"{"resolver":{"name":"r","mode":"paused"}}"#,
            (201, ""),
        )
        .await;
    assert_eq!(
        newest.at("/resolver/version"),
        Digest::of(b"\0asm1").to_string()
    );

    let check = async |line: &str, expected| setup.check(line, &[], Body::empty(), expected).await;
    let version = format!("/v1/resolvers/r/versions/{digest}");
    assert_eq!(
        check("GET /v1/resolvers/r", (200, ""))
            .await
            .at("/versions/0/bound/0"),
        "b"
    );
    assert_eq!(
        check("GET /v1/resolvers", (200, ""))
            .await
            .at("/resolvers/0/name"),
        "r"
    );
    assert_eq!(
        check(&format!("GET {version}"), (200, ""))
            .await
            .at("/certificate/tier"),
        "unchecked"
    );
    let bytes = check(&format!("GET {version}/wasm"), (200, "")).await;
    assert_eq!(
        (&bytes.body[..], bytes.header("content-type")),
        (&b"(module)"[..], "text/plain; charset=utf-8")
    );
    check(&format!("DELETE {version}"), (409, "resolver_bound")).await;
    setup.check(&format!("PUT {B}"), &[], "{}", (200, "")).await;
    check(&format!("DELETE {version}"), (204, "")).await;
    check(&format!("GET {version}"), (404, "no_version")).await;
    check(&format!("GET {version}/wasm"), (404, "no_version")).await;
    let log = check("GET /v1/resolvers/r/logs", (200, "")).await;
    assert_eq!(
        (log.at("/lines/0/level"), log.at("/lines/0/message")),
        ("warn".into(), "seen".into())
    );
    check("GET /v1/resolvers/none/logs", (404, "no_resolver")).await;
    check("GET /v1/resolvers/none", (404, "no_resolver")).await;
    check(
        "GET /v1/resolvers/r/versions/sha256:00",
        (400, "bad_digest"),
    )
    .await;
}

#[tokio::test]
async fn laws_are_checked_when_asked_for() {
    let setup = setup();
    upload(&setup, "text/plain", b"(module)", (201, "")).await;
    let check = async |body: serde_json::Value, expected| {
        let body = body.to_string();
        setup
            .check("POST /v1/resolvers/r/check", &[], body, expected)
            .await
    };
    let asked = json!({"samples": ["[1]", {"base64": "/w=="}], "cases": 9, "seed": "12"});
    let checked = check(asked, (200, "")).await;
    assert_eq!(checked.at("/certificate/seed"), "12");
    assert_eq!(checked.at("/certificate/reason"), "2 samples");
    check(json!({}), (200, "")).await;
    check(json!({"deletes": true}), (422, "laws_unknown")).await;
    check(json!({"cases": 0}), (400, "bad_check")).await;
    check(json!({"cases": 4097}), (400, "bad_check")).await;
    check(json!({"seed": "-1"}), (400, "bad_check")).await;
    check(json!({"samples": vec![""; 65]}), (400, "bad_check")).await;
    check(json!({"law": "closure"}), (400, "unknown_field")).await;

    let upload = async |query: &str, expected| {
        let line = format!("PUT /v1/resolvers/r{query}");
        setup
            .check(&line, &["content-type: text/plain"], "(module)", expected)
            .await
    };
    let digest = Digest::of(b"(module)");
    let job = format!("/v1/resolvers/r/versions/{digest}/check");
    let begun = upload("?check=thorough", (202, "")).await;
    assert_eq!(begun.header("location"), job);
    upload("?check=off", (200, "")).await;
    upload("?check=maybe", (400, "bad_parameter")).await;
    let how_far = setup.check(&format!("GET {job}"), &[], "", (200, "")).await;
    assert_eq!(
        (how_far.at("/state"), how_far.at("/cases")),
        ("running".into(), "17".into())
    );
    setup
        .check(
            "PUT /v1/resolvers/r",
            &["content-type: text/plain"],
            "(short)",
            (201, ""),
        )
        .await;
    let none = format!(
        "GET /v1/resolvers/r/versions/{}/check",
        Digest::of(b"(short)")
    );
    setup.check(&none, &[], "", (404, "no_check")).await;
}

#[tokio::test]
async fn a_trial_is_checked_and_answered() {
    let setup = setup();
    upload(&setup, "text/plain", b"(module)", (201, "")).await;
    let check = async |body: serde_json::Value, expected| {
        setup
            .check("POST /v1/resolvers/r/try", &[], body.to_string(), expected)
            .await
    };
    let two =
        json!([{"value": "a", "modified_at": "2026-01-01T00:00:00+01:00"}, {"deleted": true}]);
    let tried = check(
        json!({"siblings": two, "config": {"a": 1}, "key": "k"}),
        (200, ""),
    )
    .await;
    let expected = [
        ("/outcome", "merged"),
        ("/value", "a"),
        ("/index", "null"),
        ("/fuel", "391"),
        ("/duration_us", "9"),
        ("/log/0/level", "info"),
    ];
    for (pointer, value) in expected {
        assert_eq!(tried.at(pointer), value, "{pointer}");
    }
    let failed = check(
        json!({"siblings": [{"deleted": true}, {"value": ""}]}),
        (200, ""),
    )
    .await;
    assert_eq!(
        (failed.at("/outcome"), failed.at("/failure/kind")),
        ("failed".into(), "declined".into())
    );
    check(json!({"siblings": [{"value": "a"}]}), (400, "bad_trial")).await;
    check(
        json!({"siblings": vec![json!({"value": "a"}); 101]}),
        (400, "bad_trial"),
    )
    .await;
    check(json!({"siblings": [{"value": "a"}, {}]}), (400, "bad_json")).await;
    check(
        json!({"siblings": [{"value": "a"}, {"value": "b", "deleted": true}]}),
        (400, "bad_json"),
    )
    .await;
    check(
        json!({"siblings": [{"value": "a"}, {"value": "b", "modified_at": "now"}]}),
        (400, "bad_trial"),
    )
    .await;
    check(json!({"siblings": two, "version": "x"}), (400, "bad_trial")).await;
    check(json!({"siblings": two, "fuel": 1}), (400, "unknown_field")).await;
    setup
        .check(
            "POST /v1/resolvers/none/try",
            &[],
            json!({"siblings": two}).to_string(),
            (404, "no_resolver"),
        )
        .await;
}
