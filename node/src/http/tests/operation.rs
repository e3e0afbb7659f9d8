//! Cluster, health, metrics, tracing; and what the edge tells the node.

use axum::body::Body;
use sibyl_core::registry::ChangeError;

use super::super::{AdminError, SalvageView, Surface, Waiting, waiting};
use super::{Setup, setup, surface};

#[tokio::test]
async fn the_shapes_of_the_design_are_there() {
    let setup = setup();
    let check = async |line: &str, fields: &[(&str, &str)]| {
        let reply = setup.check(line, &[], Body::empty(), (200, "")).await;
        for (pointer, value) in fields {
            assert_eq!(reply.at(pointer), *value, "{line} {pointer}");
        }
    };
    let cluster = [
        ("/cluster_id", "c"),
        ("/healthy", "true"),
        ("/members/0/state", "alive"),
        ("/members/0/zone", "null"),
        ("/members/0/leaving", "false"),
        ("/owner_change/began", "6"),
        ("/owner_change/missing/n4", "57"),
        ("/candidates/0/node_id", "n4"),
        ("/candidates/0/spare", "true"),
    ];
    check("GET /v1/cluster", &cluster).await;
    let ring = [
        ("/partitions", "1"),
        ("/nodes/0/tokens/0", "18446744073709551615"),
        ("/owners/0/0", "n1"),
    ];
    check("GET /v1/cluster/ring", &ring).await;
    let exchanges = [
        ("/totals/exchanges", "9"),
        ("/totals/keys_repaired", "3"),
        ("/peers/0/node_id", "n2"),
        ("/peers/0/last_success_ms_ago", "40"),
        ("/peers/0/dirty_partitions", "2"),
        ("/running/0/partition", "5"),
        ("/rebuilding", "null"),
    ];
    check("GET /v1/cluster/anti-entropy", &exchanges).await;
    check("POST /v1/cluster/anti-entropy", &exchanges).await;
    check(
        "GET /v1/registry",
        &[
            ("/number", "7"),
            ("/pending", "null"),
            ("/owner_change", "null"),
            ("/members/0/leaving", "true"),
        ],
    )
    .await;
    let hints = [
        ("/hints/0/target", "n3"),
        ("/hints/0/count", "12"),
        ("/hints/0/bytes", "40960"),
        ("/hints/0/oldest_age_ms", "9000"),
        ("/hints/0/refused", "0"),
        ("/transfers", "[]"),
    ];
    check("GET /v1/cluster/handoff", &hints).await;
    let delivered = [("/delivered", "true"), ("/hints", "[]")];
    check("POST /v1/cluster/handoff", &delivered).await;
    let left = [("/delivered", "false"), ("/hints/0/count", "12")];
    check("POST /v1/cluster/handoff?timeout_ms=5", &left).await;
    check("GET /health/live", &[("/live", "true")]).await;
    check(
        "GET /health/ready",
        &[("/ready", "true"), ("/reasons", "[]")],
    )
    .await;
    check("GET /version", &[("/version", env!("CARGO_PKG_VERSION"))]).await;
    check("GET /v1/trace", &[("/ratio", "1.0")]).await;
    check("GET /v1/log", &[("/filter", "info")]).await;
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why() {
    let setup = setup();
    setup.fake.state().faults.unready = true;
    let reply = setup
        .check("GET /health/ready", &[], Body::empty(), (503, "not_ready"))
        .await;
    assert_eq!(
        (reply.at("/ready"), reply.at("/reasons/0")),
        ("false".into(), "forming".into())
    );
    assert_eq!(reply.header("retry-after"), "1");
    setup
        .check("GET /health/live", &[], Body::empty(), (200, ""))
        .await;
}

#[tokio::test]
async fn metrics_have_two_forms() {
    let setup = setup();
    let check = async |accept: &str, kind: &str, ends: bool| {
        let accept = format!("accept: {accept}");
        let reply = setup
            .check("GET /metrics", &[&accept], Body::empty(), (200, ""))
            .await;
        assert!(reply.header("content-type").starts_with(kind), "{accept}");
        assert_eq!(reply.body.ends_with(b"# EOF\n"), ends, "{accept}");
    };
    check(
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        "application/openmetrics-text",
        true,
    )
    .await;
    check("text/plain", "text/plain", false).await;
    check("*/*", "text/plain", false).await;
}

#[tokio::test]
async fn the_ratio_can_be_changed() {
    let setup = setup();
    let check = async |body: &'static str, expected| {
        setup.check("PUT /v1/trace", &[], body, expected).await
    };
    check(r#"{"ratio":0.25}"#, (200, "")).await;
    assert_eq!(setup.get("GET /v1/trace").await.at("/ratio"), "0.25");
    check(r#"{"ratio":1.5}"#, (400, "bad_ratio")).await;
    check(r#"{"ratio":-0.1}"#, (400, "bad_ratio")).await;
    check(r#"{"ratio":"all"}"#, (400, "bad_json")).await;
    check(r#"{"ratio":1,"x":1}"#, (400, "unknown_field")).await;
}

#[tokio::test]
async fn links_are_cut_by_name() {
    let setup = setup();
    let check = async |body: &'static str, expected| {
        setup
            .check("POST /v1/cluster/cut", &[], body, expected)
            .await
    };
    check(r#"{"peer":"n2","cut":true}"#, (200, "")).await;
    check(r#"{"peer":"n9","cut":true}"#, (404, "no_peer")).await;
    check(r#"{"peer":"","cut":true}"#, (400, "bad_node_id")).await;
    check(r#"{"peer":"n2"}"#, (400, "bad_json")).await;
}

#[tokio::test]
async fn members_come_and_go_by_name() {
    let setup = setup();
    let check = async |line: &str, body: &'static str, expected| {
        let line = format!("POST /v1/cluster/{line}");
        setup.check(&line, &[], body, expected).await
    };
    let planned = check("join?plan=true", r#"{"node":"n4"}"#, (200, "")).await;
    let fields = [
        ("/registry", "7"),
        ("/plan", "true"),
        ("/moves/0/partition", "12"),
        ("/moves/0/to", "n4"),
        ("/moves/0/from/0", "n3"),
        ("/summary/0/node", "n4"),
        ("/summary/0/gains", "1"),
        ("/summary/0/gives", "0"),
    ];
    for (pointer, value) in fields {
        assert_eq!(planned.at(pointer), value, "{pointer}");
    }
    let joined = check("join", r#"{"node":"n4"}"#, (200, "")).await;
    assert_eq!(
        (joined.at("/registry"), joined.at("/plan")),
        ("8".into(), "false".into())
    );
    check("leave", r#"{"node":"n2"}"#, (200, "")).await;
    check("remove", r#"{"node":"n3"}"#, (200, "")).await;
    check("replace", r#"{"node":"n3","with":"n4"}"#, (200, "")).await;

    let planned = check("recover?plan=true", r#"{"accept_loss":false}"#, (200, "")).await;
    assert_eq!(planned.at("/given_up/0/node_id"), "n2");
    assert_eq!(planned.at("/notes/0"), "some may be lost");
    check(
        "recover",
        r#"{"accept_loss":false}"#,
        (409, "loss_not_accepted"),
    )
    .await;
    check(
        "recover",
        r#"{"accept_loss":true}"#,
        (409, "majority_answers"),
    )
    .await;
    check("recover", "{}", (400, "bad_json")).await;
    check("join", r#"{"node":"n5"}"#, (404, "no_candidate")).await;
    check("leave", r#"{"node":"n9"}"#, (404, "no_member")).await;
    let refused = check("remove", r#"{"node":"n2"}"#, (409, "member_answers")).await;
    assert!(
        refused
            .at("/detail")
            .starts_with("n2 answers: let it leave")
    );
    check(
        "replace",
        r#"{"node":"n3","with":"n5"}"#,
        (404, "no_candidate"),
    )
    .await;
    check("replace", r#"{"node":"n3"}"#, (400, "bad_json")).await;
    check("leave", r#"{"node":"n 2"}"#, (400, "bad_node_id")).await;
    check(
        "leave",
        r#"{"node":"n2","with":"n4"}"#,
        (400, "unknown_field"),
    )
    .await;
    check(
        "leave?plan=perhaps",
        r#"{"node":"n2"}"#,
        (400, "bad_parameter"),
    )
    .await;
    check("join", "", (400, "bad_json")).await;
}

#[tokio::test]
async fn what_the_registry_refuses_has_a_code() {
    let setup = setup();
    let check = async |error: AdminError, expected| {
        setup.fake.state().faults.admin = Some(error);
        let line = "POST /v1/cluster/leave";
        setup.check(line, &[], r#"{"node":"n2"}"#, expected).await
    };
    let n2 = || "n2".parse().expect("a name");
    let under_way = ChangeError::UnderWay { began: 6 };
    check(under_way.into(), (409, "change_under_way")).await;
    let few = ChangeError::TooFew {
        left: 2,
        bucket: "default".to_owned(),
        n: 3,
    };
    check(few.into(), (409, "too_few_members")).await;
    check(ChangeError::NameTaken(n2()).into(), (409, "name_taken")).await;
    let fenced = ChangeError::Fenced {
        node: n2(),
        number: 12,
    };
    check(fenced.into(), (409, "fenced")).await;
    let no_majority = AdminError::NoMajority {
        missing: 1,
        members: 3,
    };
    check(no_majority, (503, "no_majority")).await;
}

/// A node that is told to join serves health, says why, and nothing else.
#[tokio::test]
async fn a_node_that_joins_serves_only_health() {
    let first = Waiting {
        reasons: vec!["joining: nobody answers".to_owned()],
        salvage: None,
    };
    let (tell, told) = tokio::sync::watch::channel(first);
    let setup = Setup {
        router: waiting(told),
        fake: setup().fake,
    };
    let check = async |line: &str, expected| setup.check(line, &[], Body::empty(), expected).await;
    check("GET /health/live", (200, "")).await;
    let ready = check("GET /health/ready", (503, "not_ready")).await;
    assert_eq!(ready.at("/reasons/0"), "joining: nobody answers");
    assert_eq!(ready.header("retry-after"), "1");
    let other = check("PUT /v1/buckets/default/keys/k", (503, "not_serving")).await;
    assert_eq!(other.at("/outcome"), "not_written");
    check("GET /v1/cluster", (503, "not_serving")).await;
    let salvage = SalvageView {
        node_id: "n4".to_owned(),
        quarantined: 3,
        waits_for: Some("n1 cannot be reached".to_owned()),
        ..SalvageView::default()
    };
    tell.send_modify(|told| told.salvage = Some(salvage));
    let cluster = check("GET /v1/cluster", (200, "")).await;
    assert_eq!(cluster.at("/salvage/node_id"), "n4");
    assert_eq!(cluster.at("/salvage/quarantined"), "3");
    assert_eq!(cluster.at("/salvage/waits_for"), "n1 cannot be reached");
    assert_eq!(cluster.at("/ready"), "false");
}

#[tokio::test]
async fn the_contract_is_served() {
    let wit = setup().get("GET /v1/wit").await;
    assert!(wit.body.starts_with(b"package sibyl:resolver@"));
}

#[tokio::test]
async fn listeners_share_only_health() {
    let check = async |part: Surface, line: &str, status: u16| {
        let reply = surface(part).get(line).await;
        assert_eq!(reply.status, status, "{part:?} {line}");
    };
    for part in [Surface::Clients, Surface::Admin] {
        check(part, "GET /health/live", 200).await;
        check(part, "GET /openapi.json", 200).await;
    }
    check(Surface::Clients, "GET /v1/buckets", 200).await;
    check(Surface::Clients, "GET /v1/cluster", 404).await;
    check(Surface::Clients, "GET /metrics", 404).await;
    check(Surface::Admin, "GET /v1/buckets", 404).await;
    check(Surface::Admin, "GET /v1/cluster", 200).await;
    check(Surface::Admin, "GET /metrics", 200).await;
}

#[tokio::test]
async fn the_node_hears_of_every_request() {
    let setup = setup();
    setup
        .put("/v1/buckets/default/keys/secret%2Fkey", "v")
        .await;
    setup.get("GET /v1/buckets/default/keys/secret%2Fkey").await;
    setup.get("GET /nowhere/secret").await;
    setup.get("PATCH /version").await;
    let ended = setup.fake.state().ended.clone();
    let ended: Vec<_> = ended
        .iter()
        .map(|(route, end)| (route.as_str(), end.status, end.response_bytes))
        .collect();
    let key = "/v1/buckets/{bucket}/keys/{key}";
    assert_eq!(ended[0], (format!("PUT {key}").as_str(), 204, 0));
    assert_eq!(ended[1], (format!("GET {key}").as_str(), 200, 1));
    assert_eq!((ended[2].0, ended[2].1), ("GET unmatched", 404));
    assert_eq!((ended[3].0, ended[3].1), ("PATCH /version", 405));
}

#[tokio::test]
async fn what_is_logged_can_be_changed() {
    let setup = setup();
    let check = async |body: &str, expected| {
        let body = body.to_owned();
        setup.check("PUT /v1/log", &[], body, expected).await
    };
    check(r#"{"filter":"info,sibyl::peer=debug"}"#, (200, "")).await;
    let shown = setup.get("GET /v1/log").await;
    assert_eq!(shown.at("/filter"), "info,sibyl::peer=debug");
    check(r#"{"filter":"sibyl=loudly"}"#, (400, "bad_filter")).await;
    check(r#"{"filter":""}"#, (400, "bad_filter")).await;
    let long = format!(r#"{{"filter":"{}"}}"#, "x".repeat(1025));
    check(&long, (400, "bad_filter")).await;
    check(r#"{"filter":1}"#, (400, "bad_json")).await;
    let shown = setup.get("GET /v1/log").await;
    assert_eq!(shown.at("/filter"), "info,sibyl::peer=debug");
}
