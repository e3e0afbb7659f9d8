//! What does a resolver cost over native Rust? (goal 10 of the performance page)
//!
//! Two siblings of 1 KiB, a fresh instance for every call. Hand-written WAT and the shipped `lww` pick the
//! newest, and the same pick in native Rust is the floor; `set-union` and `cart` stand beside them because
//! what they do with JSON inside the guest is a cost of its own. Figures also go to
//! `target/figures/resolver.txt` with their circumstances; only a release build (`cargo bench`) answers.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use sibyl::resolver::{Call, Input, Limits, Platform, Report, Settings};
use sibyl_core::id::Digest;

/// Calls of one round: a millisecond or so, too short for others on the machine to interrupt most rounds.
const CALLS: u32 = 200;

/// How often each is measured, taking turns; the median round is the figure.
const ROUNDS: usize = 401;

/// Size of each of the two siblings.
const VALUE_BYTES: usize = 1024;

/// What the performance page asks of the hand-written guest and of a shipped one, in microseconds.
const MUST: [(&str, f64); 2] = [("hand-written", 5.0), ("lww", 15.0)];

/// The node's own: a merge takes and gives back memory some hundred times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// A guest, ready to be called, and what it is called with.
struct Subject {
    name: &'static str,
    digest: Digest,
    call: Call,
}

fn main() {
    println!(
        "question: what does a resolver cost over native Rust, 2 siblings of 1 KiB, fresh instance per call?"
    );
    let dir = tempfile::tempdir().expect("a temporary directory");
    let platform =
        Platform::open(Settings::new(dir.path(), env!("CARGO_BIN_EXE_sibyl"))).expect("it starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut criterion = Criterion::default().configure_from_args();
    let bytes = call(&[vec![b'a'; VALUE_BYTES], vec![b'b'; VALUE_BYTES]]);
    let subjects = subjects(&platform, &runtime, &bytes);

    criterion.bench_function("resolver/native", |bencher| {
        bencher.iter(|| native(black_box(&bytes)));
    });
    for subject in &subjects {
        criterion.bench_function(&format!("resolver/{}", subject.name), |bencher| {
            bencher.iter(|| merged(&platform, subject));
        });
    }
    criterion.final_summary();
    write(&(circumstances() + &figures(&platform, &subjects, &bytes)));
}

/// Medians over rounds that take turns, so that a busy moment of the machine hits all alike.
fn figures(platform: &Platform, subjects: &[Subject], bytes: &Call) -> String {
    let mut natives = Vec::new();
    let mut guests = vec![Vec::new(); subjects.len()];
    for _ in 0..ROUNDS {
        natives.push(mean(|| native(black_box(bytes))));
        for (subject, means) in subjects.iter().zip(&mut guests) {
            means.push(mean(|| merged(platform, subject)));
        }
    }
    let native = median(natives);
    let mut figures = String::new();
    note(&mut figures, "native", 0, native, native);
    for (subject, means) in subjects.iter().zip(guests) {
        let fuel = merged(platform, subject).fuel;
        note(&mut figures, subject.name, fuel, median(means), native);
    }
    figures
}

fn subjects(platform: &Platform, runtime: &tokio::runtime::Runtime, bytes: &Call) -> Vec<Subject> {
    let carts = call(&[cart(VALUE_BYTES, 7), cart(VALUE_BYTES, 11)]);
    let tags = call(&[tags(VALUE_BYTES, 0), tags(VALUE_BYTES, 20)]);
    let guests = [
        ("hand-written", NEWEST.as_bytes().to_vec(), bytes.clone()),
        ("lww", shipped("lww"), bytes.clone()),
        ("set-union", shipped("set-union"), tags),
        ("cart", shipped("cart"), carts),
    ];
    let admit = |(name, module, call): (_, Vec<u8>, _)| Subject {
        name,
        digest: runtime
            .block_on(platform.admit(module.into()))
            .expect("it is taken")
            .digest,
        call,
    };
    guests.into_iter().map(admit).collect()
}

fn shipped(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resolvers/prebuilt");
    std::fs::read(folder.join(name).with_extension("wasm")).expect("it is in the repository")
}

fn call(values: &[Vec<u8>]) -> Call {
    let input = |(value, modified_at): (&Vec<u8>, u64)| Input {
        value: Some(Bytes::copy_from_slice(value)),
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
        siblings: values.iter().zip(1..).map(input).collect(),
        limits: Limits::default(),
    }
}

/// A cart of at most `size` bytes: the same items for every `step`, in other quantities.
fn cart(size: usize, step: usize) -> Vec<u8> {
    let items: Vec<String> = (0..(size - 12) / 14)
        .map(|item| format!("\"item-{}\":{}", 10 + item, 100 + item * step % 900))
        .collect();
    format!("{{\"items\":{{{}}}}}", items.join(",")).into_bytes()
}

/// A sorted set of at most `size` bytes; `first` says where it begins, so that two share some elements.
fn tags(size: usize, first: usize) -> Vec<u8> {
    let tags: Vec<String> = (0..(size - 2) / 14)
        .map(|tag| format!("\"tag-{:07}\"", first + tag))
        .collect();
    format!("[{}]", tags.join(",")).into_bytes()
}

fn native(call: &Call) -> Option<usize> {
    call.siblings
        .iter()
        .enumerate()
        .max_by_key(|(_, sibling)| sibling.modified_at)
        .map(|(index, _)| index)
}

fn merged(platform: &Platform, subject: &Subject) -> Report {
    let report = platform.resolve_now(&subject.digest, black_box(&subject.call));
    assert!(report.outcome.is_ok(), "{:?}", report.outcome);
    report
}

fn mean<T>(run: impl Fn() -> T) -> Duration {
    let started = Instant::now();
    for _ in 0..CALLS {
        black_box(run());
    }
    started.elapsed() / CALLS
}

fn median(mut means: Vec<Duration>) -> Duration {
    means.sort();
    means[means.len() / 2]
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

fn note(figures: &mut String, name: &str, fuel: u64, median: Duration, native: Duration) {
    let over = median.saturating_sub(native).as_secs_f64() * 1e6;
    let goal = MUST.iter().find(|(guest, _)| *guest == name);
    let goal = goal.map_or(String::new(), |(_, must)| {
        let verdict = if over <= *must { "met" } else { "missed" };
        format!(", at most {must} µs: {verdict}")
    });
    writeln!(
        figures,
        "{name:<14} {median:?}, {over:.2} µs over native Rust, fuel {fuel}{goal}"
    )
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
