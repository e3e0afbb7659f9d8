//! What does a resolver cost over native Rust? (goal 10 of the performance page)
//!
//! Two siblings of 1 KiB, the newest wins, a fresh instance for every call. The guest is hand-written WAT;
//! `resolvers/prebuilt/lww.wasm`, a shipped Rust resolver, is measured beside it when it is there. The same
//! pick in native Rust is the floor. Figures also go to `target/figures/resolver.txt` with their
//! circumstances; only a release build (`cargo bench`) answers the question.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use sibyl::resolver::{Call, Input, Limits, Platform, Report, Resolution, Settings};
use sibyl_core::id::Digest;

/// Calls whose mean is written down.
const CALLS: u32 = 20_000;

/// The newest wins; siblings come sorted, so that is a comparison of two numbers and an index.
const NEWEST: &str = r#"(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "resolve")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $siblings i32) (param $count i32) (result i32)
    (i32.store8 (i32.const 20) (i32.const 1))
    (i32.store (i32.const 24) (i64.ge_u
      (i64.load offset=48 (local.get $siblings))
      (i64.load offset=16 (local.get $siblings))))
    (i32.const 16)))"#;

fn main() {
    println!(
        "question: what does a resolver cost over native Rust, 2 siblings of 1 KiB, fresh instance per call?"
    );
    let dir = tempfile::tempdir().expect("a temporary directory");
    let platform =
        Platform::open(Settings::new(dir.path(), env!("CARGO_BIN_EXE_sibyl"))).expect("it starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut criterion = Criterion::default().configure_from_args();
    let call = call();
    let mut figures = circumstances();

    criterion.bench_function("resolver/native", |bencher| {
        bencher.iter(|| native(black_box(&call)));
    });
    note(&mut figures, "native", 0, mean(|| native(black_box(&call))));
    for (name, module) in guests() {
        let digest = runtime
            .block_on(platform.admit(module.into()))
            .expect("it is taken")
            .digest;
        let run = || merged(&platform, &digest, &call);
        criterion.bench_function(&format!("resolver/{name}"), |bencher| bencher.iter(run));
        note(&mut figures, &name, run().fuel, mean(run));
    }
    criterion.final_summary();
    write(&figures);
}

fn call() -> Call {
    let input = |byte, modified_at| Input {
        value: Some(Bytes::from(vec![byte; 1024])),
        modified_at,
        attributes: vec![(
            "content-type".to_owned(),
            "application/octet-stream".to_owned(),
        )],
    };
    Call {
        bucket: "carts".to_owned(),
        key: Bytes::from_static(b"cart:17"),
        config: None,
        siblings: vec![input(b'a', 1), input(b'b', 2)],
        limits: Limits::default(),
    }
}

fn native(call: &Call) -> Option<usize> {
    call.siblings
        .iter()
        .enumerate()
        .max_by_key(|(_, sibling)| sibling.modified_at)
        .map(|(index, _)| index)
}

fn merged(platform: &Platform, digest: &Digest, call: &Call) -> Report {
    let report = platform.resolve_now(digest, black_box(call));
    assert_eq!(report.outcome, Ok(Resolution::Pick(1)), "{:?}", report.log);
    report
}

fn guests() -> Vec<(String, Vec<u8>)> {
    let mut guests = vec![("hand-written".to_owned(), NEWEST.as_bytes().to_vec())];
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resolvers/prebuilt/lww.wasm");
    match std::fs::read(&shipped) {
        Ok(module) => guests.push(("shipped-lww".to_owned(), module)),
        Err(_) => println!(
            "resolvers/prebuilt/lww.wasm is not there: the shipped resolver is not measured"
        ),
    }
    guests
}

fn mean<T>(run: impl Fn() -> T) -> Duration {
    let started = Instant::now();
    for _ in 0..CALLS {
        black_box(run());
    }
    started.elapsed() / CALLS
}

fn circumstances() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let build = if cfg!(debug_assertions) {
        "dev: these figures mean little"
    } else {
        "release"
    };
    format!(
        "command  cargo bench -p sibyl --bench resolver\ncommit   {}\nmachine  {} cores, {}\nbuild    {build}\n",
        commit.unwrap_or_default(),
        cores,
        cpu.trim_start_matches([' ', '\t', ':'])
    )
}

fn note(figures: &mut String, name: &str, fuel: u64, mean: Duration) {
    writeln!(figures, "{name:<14} mean of {CALLS}: {mean:?}, fuel {fuel}")
        .expect("a string takes all");
}

fn write(figures: &str) {
    print!("{figures}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .map(Path::to_path_buf);
    let file = target
        .map(|target: PathBuf| target.join("figures/resolver.txt"))
        .expect("it is below target");
    std::fs::create_dir_all(file.parent().expect("it is in a directory")).expect("created");
    std::fs::write(file, figures).expect("written");
}
