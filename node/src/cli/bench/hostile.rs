//! `sibyl bench --local --scenario hostile`: what readers of one bucket notice of another bucket's resolver that wants
//! to do harm.
//!
//! Attackers write conflicts in a bucket of their own and read them, so that every read runs the resolver until a limit
//! ends it. Beside that, keys of the measured bucket are read as always. Their requests are load like any other: so the
//! same is done with a resolver that merges well, and latencies are told as shares of those beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Map;

use super::cell::{Bench, Subject};
use super::load::{Op, Patience};
use super::report::{Cell, Report};
use super::{Args, create_bucket};
use crate::cli::client::{Client, Parts, bucket_path};
use crate::cli::failure::Failure;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::{bucket, resolver};

/// Clients that attack at once, each with one request in flight.
const ATTACKERS: usize = 8;
/// Between two conflicts of one attacker: their requests alone shall not fill the machine.
const PAUSE: Duration = Duration::from_millis(50);
/// Compiling is quick, but every node does it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a guest begins with: memory, an allocator, and a body to come.
const BEFORE: &str = r#"(module
  (import "sibyl:resolver/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
  (func (export "resolve") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    "#;

/// Merges: answers the first sibling.
const GOOD: (&str, &str) = (
    "well-behaved",
    "(i32.store8 (i32.const 20) (i32.const 1)) (i32.const 16)))",
);
/// What each resolver does instead of merging.
const HOSTILE: [(&str, &str); 4] = [
    ("endless-loop", "(loop $again (br $again)) unreachable))"),
    (
        "memory-bomb",
        "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) unreachable))",
    ),
    (
        "log-flood",
        "(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 1024)) (br $again)) unreachable))",
    ),
    ("deep-recursion", "(call $deep (i32.const 0))))"),
];

/// Measures it on a cluster whose subject has its keys.
pub(super) fn measure(
    args: &Args,
    cluster: &LocalCluster,
    subject: &Subject,
    bench: &mut Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    for connections in &args.connections {
        let few = usize::try_from(*connections).unwrap_or(usize::MAX);
        let calm = bench.named(subject, "undisturbed", Op::Get, few, Patience::None)?;
        report.cells.push(calm);
        let (good, _) = beside(GOOD, cluster, subject, few, bench)?;
        for guest in HOSTILE {
            let (cell, merges) = beside(guest, cluster, subject, few, bench)?;
            let name = guest.0;
            let figure = |what: &str| format!("get at {few} beside {name}: {what}");
            for (what, share) in [
                ("p50, of well-behaved", cell.p50_us / good.p50_us),
                ("p99, of well-behaved", cell.p99_us / good.p99_us),
                ("conflicts that were attacked with", merges as f64),
            ] {
                report.figures.insert(figure(what), share);
            }
            report.cells.push(cell);
        }
        report.cells.push(good);
    }
    Ok(())
}

/// The load while this resolver is attacked with, and how many conflicts that were.
fn beside(
    (name, body): (&str, &str),
    cluster: &LocalCluster,
    subject: &Subject,
    connections: usize,
    bench: &mut Bench<'_>,
) -> Result<(Cell, u64), Failure> {
    prepare(cluster, name, body)?;
    let attack = Attack::begin(cluster, name)?;
    let cell = bench.named(subject, name, Op::Get, connections, Patience::None);
    let merges = attack.end();
    Ok((cell?, merges))
}

/// A bucket of the resolver's name that it is bound to.
fn prepare(cluster: &LocalCluster, name: &str, body: &str) -> Result<(), Failure> {
    let client = Client::new(&cluster.nodes()[0].url, PATIENCE)?;
    create_bucket(&client, name, Some("buffered"))?;
    let wat = format!("{BEFORE}{body}");
    let version = resolver::upload(&client, name, "text/plain", wat.as_bytes(), "off")?;
    let digest = version.get("digest").and_then(serde_json::Value::as_str);
    let digest = digest.unwrap_or_default();
    let fields: Map<_, _> = resolver::binding(name, digest, None, "active", "off");
    bucket::change(&client, name, &fields)?;
    Ok(())
}

/// Clients that make conflicts and read them, until it ends.
struct Attack {
    over: Arc<AtomicBool>,
    merges: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn begin(cluster: &LocalCluster, bucket: &str) -> Result<Self, Failure> {
        let mut attack = Self {
            over: Arc::default(),
            merges: Arc::default(),
            threads: Vec::new(),
        };
        for attacker in 0..ATTACKERS {
            let node = &cluster.nodes()[attacker % cluster.nodes().len()];
            let client = Client::new(&node.url, PATIENCE)?;
            let (over, merges) = (Arc::clone(&attack.over), Arc::clone(&attack.merges));
            let path = format!("{}/keys/{attacker}", bucket_path(bucket));
            attack.threads.push(std::thread::spawn(move || {
                // A failure is cached for a set of siblings: each turn has a key of its own.
                for turn in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{path}-{turn}");
                    let wrote =
                        ["a", "b"].map(|value| client.put(&key, Parts::default().body(value)));
                    let read = client.get(&key, Parts::default());
                    // 300 is no refusal: the siblings stay.
                    if wrote.iter().all(Result::is_ok) && read.is_ok() {
                        merges.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(PAUSE);
                }
            }));
        }
        Ok(attack)
    }

    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
        self.merges.load(Ordering::Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
