//! Kept bytes, compiled code on disk, one compilation for many callers, and compilers that misbehave.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use sibyl::resolver::{Limits, ModuleState, PrepareError, Refusal, Resolution};
use sibyl_core::id::Digest;

use super::fixture::{guest, pick};
use super::{Bench, call};

async fn check_works(bench: &Bench, digest: Digest) {
    bench.platform.prepare(digest).await.expect("ready");
    let report = bench
        .platform
        .resolve_now(&digest, &call(&["a", "b"], Limits::default()));
    assert_eq!(report.outcome, Ok(Resolution::Pick(1)));
}

#[tokio::test]
async fn a_restart_finds_the_compiled_code() {
    let bench = Bench::new();
    let digest = bench.accepted(guest(&pick(1))).await;
    assert_eq!(bench.platform.compilations(), 1);
    let bench = bench.restarted();
    assert_eq!(bench.platform.state(&digest), ModuleState::Kept);
    check_works(&bench, digest).await;
    assert_eq!(bench.platform.compilations(), 0);
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_again() {
    let bench = Bench::new();
    let digest = bench.accepted(guest(&pick(1))).await;
    let [file] = &bench.compiled_files()[..] else {
        panic!("one entry")
    };
    let whole = std::fs::read(file).expect("the entry");
    let mut bench = bench;
    for place in [0, 8, 40, 41, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        std::fs::write(file, damaged).expect("written");
        bench = bench.restarted();
        check_works(&bench, digest).await;
        assert_eq!(bench.platform.compilations(), 1, "byte {place}");
    }
    for length in [0, 7, 39, 41, whole.len() - 1] {
        std::fs::write(file, &whole[..length]).expect("written");
        bench = bench.restarted();
        check_works(&bench, digest).await;
        assert_eq!(bench.platform.compilations(), 1, "{length} bytes");
    }
}

#[tokio::test]
async fn code_of_another_module_is_not_believed() {
    let bench = Bench::new();
    let first = bench.accepted(guest(&pick(0))).await;
    let file = bench.compiled_files().remove(0);
    let second = bench.accepted(guest(&pick(1))).await;
    let other = bench
        .compiled_files()
        .into_iter()
        .find(|path| *path != file)
        .expect("two entries");
    std::fs::copy(&file, &other).expect("copied");
    let bench = bench.restarted();
    check_works(&bench, second).await;
    assert_eq!(bench.platform.compilations(), 1);
    bench.platform.prepare(first).await.expect("ready");
    assert_eq!(bench.platform.compilations(), 1);
}

#[tokio::test]
async fn the_key_is_private_and_another_key_believes_nothing() {
    let bench = Bench::new();
    let digest = bench.accepted(guest(&pick(1))).await;
    let key = bench.dir.path().join("compiled.key");
    let mode =
        |path: &PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let bench = bench.restarted();
    assert_eq!(mode(&key), 0o600);
    check_works(&bench, digest).await;
    assert_eq!(bench.platform.compilations(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_one_compilation() {
    let bench = Bench::new();
    let uploads: Vec<_> = (0..8)
        .map(|_| {
            let platform = bench.platform.clone();
            tokio::spawn(async move { platform.admit(guest(&pick(1)).into()).await })
        })
        .collect();
    let mut digests = Vec::new();
    for upload in uploads {
        digests.push(upload.await.expect("no panic").expect("taken").digest);
    }
    assert_eq!(bench.platform.compilations(), 1);
    digests.dedup();
    assert_eq!(digests.len(), 1);
    check_works(&bench, digests[0]).await;
}

#[tokio::test]
async fn bytes_from_another_node_are_kept_and_prepared() {
    let bench = Bench::new();
    let bytes = guest(&pick(1)).into_bytes();
    let digest = Digest::of(&bytes);
    assert_eq!(bench.platform.state(&digest), ModuleState::Absent);
    assert_eq!(
        bench.platform.prepare(digest).await,
        Err(PrepareError::Absent)
    );
    let error = bench
        .platform
        .keep(digest, b"other bytes")
        .expect_err("they are not these");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    bench.platform.keep(digest, &bytes).expect("kept");
    assert_eq!(bench.platform.state(&digest), ModuleState::Kept);
    check_works(&bench, digest).await;
    assert_eq!(bench.platform.state(&digest), ModuleState::Ready);
    bench.platform.forget(&digest).expect("forgotten");
    assert_eq!(bench.platform.state(&digest), ModuleState::Absent);
    assert!(bench.compiled_files().is_empty());
}

#[tokio::test]
async fn kept_bytes_that_rot_are_not_given_out() {
    let bench = Bench::new();
    let digest = bench.accepted(guest(&pick(1))).await;
    let modules = std::fs::read_dir(bench.dir.path().join("modules")).expect("the directory");
    let file = modules
        .map(|entry| entry.expect("an entry").path())
        .next()
        .expect("one module");
    std::fs::write(&file, "rotten").expect("written");
    assert_eq!(bench.platform.bytes(&digest).expect("readable"), None);
    assert!(!file.exists());
}

#[tokio::test]
async fn kept_bytes_that_are_no_resolver_fail_once() {
    let bench = Bench::new();
    let digest = Digest::of(b"(module)");
    bench.platform.keep(digest, b"(module)").expect("kept");
    for _ in 0..2 {
        let refused = bench.platform.prepare(digest).await;
        assert!(
            matches!(refused, Err(PrepareError::Refused(Refusal::NoMerge { .. }))),
            "{refused:?}"
        );
    }
    assert_eq!(bench.platform.compilations(), 1);
    assert!(
        matches!(bench.platform.state(&digest), ModuleState::Failed(text) if text.contains("exports no"))
    );
}

#[tokio::test]
async fn code_beyond_the_memory_limit_leaves_and_comes_back() {
    let bench = Bench::with(|settings| settings.loaded_bytes = 1);
    let first = bench.accepted(guest(&pick(1))).await;
    let second = bench.accepted(guest(&pick(0))).await;
    assert_eq!(bench.platform.state(&first), ModuleState::Kept);
    assert_eq!(bench.platform.state(&second), ModuleState::Ready);
    check_works(&bench, first).await;
    assert_eq!(bench.platform.compilations(), 2);
}

/// A platform whose compiler is this shell script.
fn with_compiler(script: &str, timeout: Duration) -> Bench {
    Bench::with(|settings| {
        let program = settings.dir.join("compiler.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
            .expect("changed");
        settings.compiler = program;
        settings.compile_timeout = timeout;
    })
}

async fn check_compiler(script: &str, code: &str, says: &str) {
    check_compiler_within(Duration::from_secs(60), script, code, says).await;
}

async fn check_compiler_within(timeout: Duration, script: &str, code: &str, says: &str) {
    let bench = with_compiler(script, timeout);
    let refusal = bench.upload(guest(&pick(1))).await.expect_err("refused");
    assert_eq!(refusal.code(), code, "{refusal}");
    assert!(refusal.to_string().contains(says), "{refusal}");
    assert!(bench.compiled_files().is_empty());
    // Nothing is stored of what was refused, and the platform takes the next one.
    assert_eq!(bench.platform.compilations(), 1);
    bench
        .upload(guest(&pick(0)))
        .await
        .expect_err("refused too");
    assert_eq!(bench.platform.compilations(), 2);
}

#[tokio::test]
async fn compilers_that_die() {
    check_compiler("kill -SEGV $$", "resolver_compiler_crashed", "signal: 11").await;
    check_compiler(
        "cat > /dev/null; exit 3",
        "resolver_compiler_crashed",
        "exit status: 3",
    )
    .await;
    let words = "echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$";
    check_compiler(words, "resolver_compile_memory", "4294967296 bytes").await;
    check_compiler("kill -XCPU $$", "resolver_compile_time", "60000 ms").await;
}

#[tokio::test]
async fn compilers_that_lie() {
    check_compiler(
        "cat > /dev/null; echo hello",
        "resolver_compiler_crashed",
        "exit status: 0",
    )
    .await;
    check_compiler(
        "cat > /dev/null; printf SIBYLC01",
        "resolver_compiler_crashed",
        "exit status: 0",
    )
    .await;
    check_compiler("exec cat", "resolver_compiler_crashed", "exit status: 0").await;
}

#[tokio::test]
async fn a_compiler_that_hangs_is_killed() {
    check_compiler_within(
        Duration::from_secs(1),
        "exec sleep 600",
        "resolver_compile_time",
        "1000 ms",
    )
    .await;
}

#[tokio::test]
async fn a_compiler_that_is_not_there_is_the_nodes_fault() {
    let bench = Bench::with(|settings| settings.compiler = settings.dir.join("nothing"));
    let refusal = bench.upload(guest(&pick(1))).await.expect_err("refused");
    assert!(refusal.is_transient(), "{refusal}");
    assert_eq!(refusal.code(), "resolver_compiler_unavailable");
}

#[tokio::test]
async fn a_module_that_needs_too_much_memory_to_compile() {
    let bench = Bench::with(|settings| settings.compile_memory_bytes = 256 << 20);
    let data = "x".repeat(30 << 20);
    let wat = guest(&pick(1)).replace("\"memory\") 2", "\"memory\") 600");
    let wat = wat.replace(
        "(global $next",
        &format!("(data (i32.const 2048) \"{data}\") (global $next"),
    );
    let refusal = bench.upload(wat).await.expect_err("refused");
    assert_eq!(refusal.code(), "resolver_compile_memory", "{refusal}");
    bench.accepted(guest(&pick(1))).await;
}
