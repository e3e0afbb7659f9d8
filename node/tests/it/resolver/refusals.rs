//! Every refusal, with the words that tell an author what to do.

use sibyl::resolver::{ModuleState, Refusal, UPLOAD_BYTES_MAX};

use super::Bench;
use super::fixture::{RESOLVE, component, embedded, guest, module, odd_component, pick, replaced};

/// Uploads, and wants this code and all these words.
async fn check(upload: impl Into<Vec<u8>>, code: &str, words: &[&str]) {
    let refusal = refused(upload.into()).await;
    let text = refusal.to_string();
    assert_eq!(refusal.code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

async fn refused(upload: Vec<u8>) -> Refusal {
    Bench::new().upload(upload).await.expect_err("refused")
}

fn importing(module: &str, field: &str) -> String {
    guest(&pick(0)).replace(
        "(memory (export",
        &format!(
            "(import \"{module}\" \"{field}\" (func (param i32) (result i64))) (memory (export"
        ),
    )
}

#[tokio::test]
async fn nothing_and_too_much() {
    check("", "resolver_empty", &["empty", "WAT"]).await;
    let large = vec![0; usize::try_from(UPLOAD_BYTES_MAX).expect("fits") + 1];
    check(
        large,
        "resolver_too_large",
        &["33554433", "33554432", "strip"],
    )
    .await;
}

#[tokio::test]
async fn what_is_not_webassembly() {
    check(
        "hello",
        "not_wasm",
        &[
            "As a binary",
            "\\0asm",
            "As WAT text",
            "expected `(`",
            "-->",
        ],
    )
    .await;
    check([0xff, 0xfe, 0x00], "not_wasm", &["not UTF-8 from byte 0"]).await;
    check(
        "(module\n  (func $f (i32.cons 1)))",
        "not_wasm",
        &["does not parse", ":2:", "^", "i32.cons"],
    )
    .await;
}

#[tokio::test]
async fn what_is_cut_off_or_broken() {
    let whole = wat::parse_str(guest(&pick(0))).expect("parses");
    check(
        &whole[..3],
        "resolver_truncated",
        &["core module", "byte 3", "whole file"],
    )
    .await;
    check(
        &whole[..whole.len() - 5],
        "resolver_truncated",
        &["core module is cut off"],
    )
    .await;
    let whole_component = component(&module(RESOLVE, &pick(0), ""));
    check(
        &whole_component[..whole_component.len() - 5],
        "resolver_truncated",
        &["component is cut off"],
    )
    .await;
    check(*b"\0asm\x07\0\0\0", "resolver_invalid", &["version", "07"]).await;
    let wrong = guest(&pick(0)).replace(
        "(i32.const 16))\n  (func (export \"resolve",
        "(i64.const 16))\n  (func (export \"resolve",
    );
    check(
        wrong,
        "resolver_invalid",
        &["type mismatch", "wasm-tools validate"],
    )
    .await;
}

#[tokio::test]
async fn features_that_are_off() {
    let threads = guest(&pick(0)).replace(
        "(memory (export \"memory\") 2)",
        "(memory (export \"memory\") 2 3 shared)",
    );
    check(threads, "resolver_feature", &["threads", "switch it off"]).await;
    let memory64 = guest(&pick(0)).replace(
        "(memory (export \"memory\") 2)",
        "(memory (export \"memory\") 2) (memory i64 1)",
    );
    check(memory64, "resolver_feature", &["memory64"]).await;
}

#[tokio::test]
async fn the_asynchronous_abi() {
    let wat = module(
        "[async-lift]sibyl:resolver/merge@0.1.0#resolve",
        &pick(0),
        "",
    );
    check(wat, "resolver_async", &["[async-lift]", "--sync"]).await;
    let wat = r#"(component
        (core module $m (func (export "r") (param i32) (result i32) unreachable)
            (func (export "cb") (param i32 i32 i32) (result i32) unreachable))
        (core instance $i (instantiate $m))
        (func (export "f") async (param "a" u32) (canon lift (core func $i "r") async (callback (func $i "cb")))))"#;
    check(wat, "resolver_async", &["async"]).await;
}

#[tokio::test]
async fn imports_of_core_modules() {
    let imports = "resolver_imports";
    let p1 = importing("wasi_snapshot_preview1", "path_open");
    check(
        p1,
        imports,
        &[
            "`wasi_snapshot_preview1.path_open`",
            "a resolver has no files",
            "wasm32-unknown-unknown",
            "sibyl:resolver/logging",
        ],
    )
    .await;
    check(
        importing("wasi_snapshot_preview1", "sock_accept"),
        imports,
        &["`wasi_snapshot_preview1.sock_accept`", "network"],
    )
    .await;
    check(
        importing("env", "abort"),
        imports,
        &["`env.abort`", "--use abort="],
    )
    .await;
    check(
        importing("env", "now"),
        imports,
        &["`env.now`", "undefined"],
    )
    .await;
    check(
        importing("__wbindgen_placeholder__", "x"),
        imports,
        &["wasm-pack"],
    )
    .await;
    check(importing("gojs", "runtime.wasmExit"), imports, &["GOOS"]).await;
    check(
        importing("sibyl:resolver/logging@0.1.0", "shout"),
        imports,
        &["shout", "GET /v1/wit"],
    )
    .await;
    check(
        importing("sibyl:resolver/logging@0.2.0", "log"),
        "resolver_contract_version",
        &["@0.2.0", "0.1.x"],
    )
    .await;
}

#[tokio::test]
async fn imports_of_components_all_of_them() {
    let wat = r#"(component
        (import "wasi:sockets/instance-network@0.2.0" (instance (export "instance-network" (func (result u32)))))
        (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func (result u64)))))
        (import "wasi:cli/environment@0.2.0" (instance (export "get" (func))))
        (import "wasi:io/error@0.2.0" (instance (export "error" (type (sub resource)))))
        (import "frobnicate" (func)))"#;
    let words = [
        "`wasi:sockets/instance-network@0.2.0`: a resolver cannot reach the network",
        "`wasi:clocks/wall-clock@0.2.0`: a resolver has no clock",
        "`wasi:cli/environment@0.2.0`, `wasi:io/error@0.2.0`: a resolver has no files",
        "--stub-wasi",
        "`frobnicate`: remove it",
    ];
    check(wat, "resolver_imports", &words).await;
}

#[tokio::test]
async fn other_worlds_and_versions() {
    let no_merge = "resolver_no_merge";
    check("(component)", no_merge, &["exports nothing", "resolve"]).await;
    check("(module)", no_merge, &["exports nothing", "GET /v1/wit"]).await;
    let wat = r#"(module (memory (export "memory") 1) (func (export "run")))"#;
    check(wat, no_merge, &["found: memory, run"]).await;
    let version = "resolver_contract_version";
    let words = [
        "sibyl:resolver/merge@0.2.0",
        "sibyl:resolver@0.1.x",
        "upgrade the cluster",
    ];
    check(odd_component("sibyl:resolver/merge@0.2.0"), version, &words).await;
    check(
        module("sibyl:resolver/merge@0.2.0#resolve", &pick(0), ""),
        version,
        &words,
    )
    .await;
    check(
        odd_component("sibyl:resolver/merge"),
        version,
        &["sibyl:resolver/merge"],
    )
    .await;
    let newer = replaced(
        &embedded(&module(RESOLVE, &pick(0), ""), "resolver"),
        "@0.1.0",
        "@0.2.0",
    );
    check(newer, version, &["@0.2.0"]).await;
}

#[tokio::test]
async fn wrong_signatures() {
    let signature = "resolver_signature";
    check(
        odd_component("sibyl:resolver/merge@0.1.0"),
        signature,
        &["expected", "GET /v1/wit"],
    )
    .await;
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 8)
        (func (export "resolve") (param i32 i32) (result i32) i32.const 0))"#;
    check(wat, signature, &["resolve", "eleven i32"]).await;
    let optional = module(
        "resolve",
        &pick(0),
        r#"(func (export "describe") (param i32))"#,
    );
    check(optional, signature, &["describe"]).await;
}

#[tokio::test]
async fn core_modules_without_what_lists_need() {
    let resolve = r#"(func (export "resolve") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)"#;
    check(format!("(module {resolve})"), "resolver_wrap", &["memory"]).await;
    check(
        format!("(module (memory (export \"memory\") 1) {resolve})"),
        "resolver_wrap",
        &["cabi_realloc"],
    )
    .await;
}

#[tokio::test]
async fn modules_that_are_too_large_to_start() {
    let wat = guest(&pick(0)).replace("\"memory\") 2", "\"memory\") 4097");
    check(
        wat,
        "resolver_resources",
        &["268500992", "256 MiB", "--initial-memory"],
    )
    .await;
}

#[tokio::test]
async fn start_functions_and_descriptions_that_crash() {
    let start = module(
        "resolve",
        &pick(0),
        "(func $boom unreachable) (start $boom)",
    );
    check(start, "resolver_trial", &["crashed", "unreachable"]).await;
    let endless = module(
        "resolve",
        &pick(0),
        "(func $loop (loop (br 0))) (start $loop)",
    );
    check(endless, "resolver_trial", &["fuel"]).await;
    let describe = module(
        "resolve",
        &pick(0),
        r#"(func (export "describe") (result i32) unreachable)"#,
    );
    check(
        describe.as_str(),
        "resolver_trial",
        &["describe", "unreachable"],
    )
    .await;
    // Nothing of it stays.
    let bench = Bench::new();
    bench.upload(describe.clone()).await.expect_err("refused");
    let digest = sibyl_core::id::Digest::of(describe.as_bytes());
    assert_eq!(bench.platform.state(&digest), ModuleState::Absent);
    assert!(bench.compiled_files().is_empty());
}
