//! Every form an upload may have, and what is found in it.

use sibyl::resolver::{Kind, Limits, ModuleState, Resolution};
use sibyl_core::id::Digest;

use super::fixture::{
    RESOLVE, SMALLEST, as_text, component, embedded, guest, module, pick, replaced,
};
use super::{Bench, call};

async fn check_taken(upload: Vec<u8>, kind: Kind, optional: &[&str]) {
    let bench = Bench::new();
    let admitted = bench.upload(upload.clone()).await.expect("taken");
    assert_eq!(admitted.kind, kind);
    assert_eq!(admitted.optional, optional);
    assert_eq!(admitted.digest, Digest::of(&upload));
    assert_eq!(admitted.bytes, upload.len() as u64);
    assert_eq!(bench.platform.state(&admitted.digest), ModuleState::Ready);
    assert_eq!(
        bench
            .platform
            .bytes(&admitted.digest)
            .expect("kept")
            .expect("kept"),
        upload
    );
    let report = bench
        .platform
        .resolve_now(&admitted.digest, &call(&["a", "b"], Limits::default()));
    assert_eq!(report.outcome, Ok(Resolution::Pick(1)), "{:?}", report.log);
}

fn binary(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).expect("the fixture parses")
}

#[tokio::test]
async fn wat_of_a_core_module() {
    check_taken(guest(&pick(1)).into_bytes(), Kind::Wat, &[]).await;
}

#[tokio::test]
async fn core_modules_with_plain_full_and_newer_patch_names() {
    for resolve in [
        "resolve",
        "sibyl:resolver/merge@0.1.0#resolve",
        "sibyl:resolver/merge@0.1.7#resolve",
    ] {
        check_taken(binary(&module(resolve, &pick(1), "")), Kind::Core, &[]).await;
    }
}

#[tokio::test]
async fn a_newer_patch_of_the_logging_import() {
    let wat = guest(&pick(1)).replace("logging@0.1.0", "logging@0.1.3");
    check_taken(binary(&wat), Kind::Core, &[]).await;
}

#[tokio::test]
async fn optional_exports_by_plain_and_full_names() {
    let check =
        r#"(param i32 i32) (result i32) (i32.store8 (i32.const 64) (i32.const 0)) i32.const 64)"#;
    for name in [
        "check-config",
        "check_config",
        "sibyl:resolver/check-config@0.1.2#check",
    ] {
        let wat = module(
            "resolve",
            &pick(1),
            &format!(r#"(func (export "{name}") {check}"#),
        );
        check_taken(binary(&wat), Kind::Core, &["check-config"]).await;
    }
}

#[tokio::test]
async fn exports_of_no_concern_and_cleanup_functions() {
    let more =
        r#"(func (export "helper") (param i32)) (func (export "cabi_post_resolve") (param i32))"#;
    check_taken(binary(&module("resolve", &pick(1), more)), Kind::Core, &[]).await;
}

#[tokio::test]
async fn a_core_module_with_its_world_embedded() {
    check_taken(
        embedded(&module(RESOLVE, &pick(1), ""), "resolver"),
        Kind::Core,
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_component_in_binary_and_as_text() {
    let component = component(&module(RESOLVE, &pick(1), ""));
    check_taken(as_text(&component).into_bytes(), Kind::Wat, &[]).await;
    check_taken(component, Kind::Component, &[]).await;
}

#[tokio::test]
async fn a_component_of_a_newer_patch() {
    let component = component(&module(RESOLVE, &pick(1), ""));
    check_taken(
        replaced(&component, "@0.1.0", "@0.1.9"),
        Kind::Component,
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_description_is_asked_for() {
    let record: String = [(256, 1), (257, 2), (259, 3), (0, 0), (0, 0)]
        .iter()
        .enumerate()
        .map(|(field, (at, length))| {
            let place = 700 + 8 * field;
            format!(
                "(i32.store (i32.const {place}) (i32.const {at}))
                 (i32.store (i32.const {}) (i32.const {length}))",
                place + 4
            )
        })
        .collect();
    let describe = format!(r#"(func (export "describe") (result i32) {record} i32.const 700)"#);
    let bench = Bench::new();
    let admitted = bench
        .upload(module("resolve", &pick(1), &describe))
        .await
        .expect("taken");
    let description = admitted.description.expect("it describes itself");
    assert_eq!(
        (description.name.as_str(), description.version.as_str()),
        ("a", " s")
    );
    assert_eq!(description.summary, "ent");
    assert_eq!(description.config_schema, None);
    assert_eq!(bench.platform.describe(&admitted.digest), Some(description));
}

#[tokio::test]
async fn a_module_cut_anywhere_is_refused_and_the_node_lives() {
    let bench = Bench::new();
    let whole = binary(SMALLEST);
    for length in 1..whole.len() {
        let refusal = bench
            .upload(whole[..length].to_vec())
            .await
            .expect_err("cut off");
        let code = refusal.code();
        let expected = [
            "resolver_truncated",
            "resolver_invalid",
            "resolver_no_merge",
            "not_wasm",
        ];
        assert!(
            expected.contains(&code),
            "{length} of {} bytes: {code}: {refusal}",
            whole.len()
        );
    }
    bench.accepted(whole).await;
}
