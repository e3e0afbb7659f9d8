//! Every failure of the node, as HTTP says it; and what every route refuses.

use axum::body::Body;
use sibyl_core::message::Failure;
use sibyl_core::object::Refused;
use sibyl_core::retry::Key;

use super::super::{AdminError, BucketRefused};
use super::fake::Faults;
use super::setup;
use crate::coordinator::{GetError, ListError, PutError};
use crate::door::Shed;

const GET: &str = "GET /v1/buckets/default/keys/k";
const PUT: &str = "PUT /v1/buckets/default/keys/k";

/// One failure, one request: status, code, and fields of the problem.
async fn check(faults: Faults, line: &str, expected: (u16, &str), fields: &[(&str, &str)]) {
    let setup = setup();
    setup.fake.state().faults = faults;
    let reply = setup.check(line, &[], Body::from("{}"), expected).await;
    for (pointer, value) in fields {
        assert_eq!(reply.at(pointer), *value, "{line}: {pointer}");
    }
}

#[tokio::test]
async fn reads_fail_as_documented() {
    let get = |error| Faults {
        get: Some(error),
        ..Faults::default()
    };
    let quorum = GetError::Quorum {
        replies: 1,
        need: 2,
        failed: 1,
    };
    let counts = [("/replies", "1"), ("/need", "2"), ("/failed", "1")];
    check(
        get(quorum.clone()),
        GET,
        (503, "quorum_not_reached"),
        &counts,
    )
    .await;
    check(
        get(quorum.clone()),
        "GET /key/k",
        (503, "quorum_not_reached"),
        &counts,
    )
    .await;
    check(
        get(quorum.clone()),
        &format!("{PUT}?return=value"),
        (204, ""),
        &[],
    )
    .await;
    check(
        get(quorum),
        "DELETE /v1/buckets/default/keys/k?blind=true",
        (503, "quorum_not_reached"),
        &[],
    )
    .await;
    let level = GetError::Level {
        asked: 3,
        members: 1,
    };
    check(
        get(level),
        GET,
        (503, "too_few_nodes"),
        &[("/need", "3"), ("/members", "1")],
    )
    .await;
    check(
        get(GetError::Shed(Shed::Waited)),
        GET,
        (503, "overloaded"),
        &[],
    )
    .await;
    check(
        get(GetError::NotServing("forming".into())),
        GET,
        (503, "not_serving"),
        &[("/detail", "forming")],
    )
    .await;
    let list = |error| Faults {
        list: Some(error),
        ..Faults::default()
    };
    let keys = "GET /v1/buckets/default/keys";
    check(
        list(ListError::Uncovered("partition 7".into())),
        keys,
        (503, "partition_uncovered"),
        &[],
    )
    .await;
    check(
        list(ListError::NotServing("forming".into())),
        keys,
        (503, "not_serving"),
        &[],
    )
    .await;
    let read = ListError::Read(GetError::Quorum {
        replies: 0,
        need: 2,
        failed: 0,
    });
    check(list(read), keys, (503, "quorum_not_reached"), &[]).await;
}

#[tokio::test]
async fn writes_say_whether_they_may_still_become_visible() {
    let put = |error| Faults {
        put: Some(error),
        ..Faults::default()
    };
    let not_written = |failure| put(PutError::NotWritten(failure));
    let unknown = [
        ("/outcome", "unknown"),
        ("/acks", "1"),
        ("/need", "2"),
        ("/failed", "1"),
    ];
    check(
        put(PutError::Unknown {
            copies: 1,
            failed: 1,
            w: 2,
        }),
        PUT,
        (503, "quorum_not_reached"),
        &unknown,
    )
    .await;
    let (copies, failed, w) = (1, 1, 2);
    check(
        not_written(Failure::Quorum { copies, failed, w }),
        PUT,
        (503, "quorum_not_reached"),
        &unknown,
    )
    .await;
    let certain = [("/outcome", "not_written")];
    check(
        put(PutError::Unreachable { owners: 3 }),
        PUT,
        (503, "quorum_not_reached"),
        &certain,
    )
    .await;
    check(
        put(PutError::Level {
            asked: 3,
            members: 1,
        }),
        PUT,
        (503, "too_few_nodes"),
        &certain,
    )
    .await;
    check(
        put(PutError::NotServing("stopping".into())),
        PUT,
        (503, "not_serving"),
        &certain,
    )
    .await;
    check(
        put(PutError::Shed(Shed::Full)),
        PUT,
        (503, "overloaded"),
        &certain,
    )
    .await;
    let read = PutError::Read(GetError::Quorum {
        replies: 0,
        need: 2,
        failed: 2,
    });
    check(put(read), PUT, (503, "quorum_not_reached"), &certain).await;
    check(
        not_written(Failure::Rebuilding),
        PUT,
        (503, "not_written"),
        &certain,
    )
    .await;
    check(
        not_written(Failure::Overloaded),
        PUT,
        (503, "not_written"),
        &certain,
    )
    .await;
    check(not_written(Failure::DiskFull), PUT, (507, "disk_full"), &[]).await;
    check(
        not_written(Failure::Bucket),
        PUT,
        (409, "bucket_recreated"),
        &[],
    )
    .await;
    let refused = |refused| not_written(Failure::Refused(refused));
    let cap = [("/cap", "2")];
    check(
        refused(Refused::Siblings {
            siblings: 3,
            cap: 2,
        }),
        PUT,
        (409, "sibling_cap"),
        &cap,
    )
    .await;
    check(
        refused(Refused::ObjectBytes { bytes: 3, cap: 2 }),
        PUT,
        (409, "object_cap"),
        &cap,
    )
    .await;
    check(
        refused(Refused::Context {
            intervals: 3,
            cap: 2,
        }),
        PUT,
        (409, "context_cap"),
        &cap,
    )
    .await;
    check(
        put(PutError::Rejected("no cart".into())),
        PUT,
        (422, "value_rejected"),
        &[],
    )
    .await;
    check(
        put(PutError::TooLarge { bytes: 3, cap: 2 }),
        PUT,
        (413, "too_large"),
        &cap,
    )
    .await;
    check(
        put(PutError::NoBucket("default".into())),
        PUT,
        (404, "no_bucket"),
        &[],
    )
    .await;
    let bucket = Faults {
        bucket: Some(BucketRefused::NotServing("forming".into())),
        ..Faults::default()
    };
    check(bucket, PUT, (503, "not_serving"), &[]).await;
}

#[tokio::test]
async fn changes_of_the_control_plane_fail_as_documented() {
    let line = "PUT /v1/buckets/b";
    let admin = |error| Faults {
        admin: Some(error),
        ..Faults::default()
    };
    let missing = [
        ("/missing", "2"),
        ("/members", "3"),
        ("/outcome", "not_written"),
    ];
    check(
        admin(AdminError::NoMajority {
            missing: 2,
            members: 3,
        }),
        line,
        (503, "no_majority"),
        &missing,
    )
    .await;
    check(
        admin(AdminError::Unknown("timed out".into())),
        line,
        (503, "change_unknown"),
        &[("/outcome", "unknown")],
    )
    .await;
    check(
        admin(AdminError::InProgress("another".into())),
        line,
        (409, "change_under_way"),
        &[],
    )
    .await;
    check(
        admin(AdminError::Precondition("moved".into())),
        line,
        (412, "precondition_failed"),
        &[],
    )
    .await;
    let detail = String::from("x");
    check(
        admin(AdminError::Invalid {
            code: "bad_config",
            detail: detail.clone(),
        }),
        line,
        (400, "bad_config"),
        &[],
    )
    .await;
    check(
        admin(AdminError::Busy {
            code: "resolver_compiler_busy",
            detail: detail.clone(),
        }),
        line,
        (503, "resolver_compiler_busy"),
        &[],
    )
    .await;
    check(
        admin(AdminError::NotServing("forming".into())),
        "GET /v1/buckets",
        (503, "not_serving"),
        &[],
    )
    .await;
    check(
        admin(AdminError::NotServing("forming".into())),
        "GET /v1/cluster/ring",
        (503, "not_serving"),
        &[],
    )
    .await;
    check(
        admin(AdminError::NotServing("forming".into())),
        "POST /v1/cluster/anti-entropy",
        (503, "not_serving"),
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_panic_is_a_500_with_its_trace() {
    let setup = setup();
    setup.fake.state().faults.panics = true;
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = setup
        .check(GET, &[parent], Body::empty(), (500, "internal"))
        .await;
    assert_eq!(
        reply.header("sibyl-trace-id"),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    let ended = setup.fake.state().ended.clone();
    assert_eq!(
        ended
            .last()
            .map(|(route, end)| (route.as_str(), end.status)),
        Some(("GET /v1/buckets/{bucket}/keys/{key}", 500))
    );
}

#[tokio::test]
async fn what_does_not_exist_is_404_or_405() {
    let setup = setup();
    let check = async |line: &str, expected| setup.check(line, &[], Body::empty(), expected).await;
    for line in [
        "GET /",
        "GET /v1/buckets/default/watch",
        "POST /v1/buckets/default/undo",
        "POST /v1/resolvers/r/replay",
        "GET /v1/resolvers/r/shadow",
        "GET /console/",
    ] {
        check(line, (404, "no_route")).await;
    }
    let reply = check("PATCH /v1/buckets/default/keys/k", (405, "no_method")).await;
    let mut allow: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
    allow.sort_unstable();
    assert_eq!(allow, ["DELETE", "GET", "HEAD", "PUT"]);
    assert_eq!(
        check("GET /key", (405, "no_method")).await.header("allow"),
        "POST"
    );
    check("TRACE /version", (405, "no_method")).await;
    check("OPTIONS /v1/buckets", (405, "no_method")).await;
}

#[tokio::test]
async fn headers_of_missing_features_are_refused_by_name() {
    let setup = setup();
    let check = async |line: &str, header: &str, expected| {
        let reply = setup.check(line, &[header], Body::empty(), expected).await;
        if expected.0 == 400 {
            assert_eq!(
                reply.at("/header"),
                header.split(':').next().expect("a name")
            );
        }
    };
    check(GET, "idempotency-key: 1", (400, "unsupported_header")).await;
    check(
        "PUT /v1/buckets/default",
        "idempotency-key: 1",
        (400, "unsupported_header"),
    )
    .await;
    check(GET, "authorization: Bearer x", (400, "unsupported_header")).await;
    check(PUT, "if-match: \"x\"", (400, "unsupported_header")).await;
    check("GET /health/live", "authorization: Bearer x", (200, "")).await;
    check("GET /metrics", "authorization: Bearer x", (200, "")).await;
}

#[tokio::test]
async fn an_idempotency_key_keeps_its_bounds_and_reaches_the_node() {
    let setup = setup();
    let check = async |headers: &[&str], expected| {
        setup.check(PUT, headers, "v", expected).await;
    };
    check(&["idempotency-key: "], (400, "bad_idempotency_key")).await;
    check(&["idempotency-key: a b"], (400, "bad_idempotency_key")).await;
    let long = format!("idempotency-key: {}", "k".repeat(256));
    check(&[&long], (400, "bad_idempotency_key")).await;
    check(
        &["idempotency-key: 1", "idempotency-key: 2"],
        (400, "bad_header"),
    )
    .await;
    check(&["idempotency-key: order-17"], (204, "")).await;
    let given = Key::new("order-17").expect("visible");
    let last = setup.fake.state().last_put.take().expect("it wrote");
    assert_eq!(last.idempotency_key, Some(given));
    setup.fake.state().faults.put = Some(PutError::NotWritten(Failure::Reused));
    let reused = (422, "idempotency_key_reused");
    check(&["idempotency-key: order-17"], reused).await;
}

#[tokio::test]
async fn headers_of_values_keep_their_bounds() {
    let setup = setup();
    let check = async |headers: &[&str], expected| {
        setup.check(PUT, headers, "v", expected).await;
    };
    check(&["content-type: nonsense"], (400, "bad_content_type")).await;
    check(
        &["content-type: a/b", "content-type: a/c"],
        (400, "bad_header"),
    )
    .await;
    check(&["sibyl-attr-a: 1", "sibyl-attr-a: 2"], (400, "bad_header")).await;
    check(
        &[&format!("sibyl-attr-a: {}", "x".repeat(1024))],
        (400, "bad_attributes"),
    )
    .await;
    let names: Vec<_> = (0..17).map(|i| format!("sibyl-attr-{i}: 1")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    check(&names, (400, "bad_attributes")).await;
    check(&names[1..], (204, "")).await;
    let large = format!("x-large: {}", "x".repeat(33 << 10));
    check(&[&large], (431, "headers_too_large")).await;
}
