//! `sibyl bench --local --scenario …`: what a cluster does when something is wrong, against what it does when
//! nothing is, in one run.
//!
//! `overload` asks with ten times the connections that the peak was measured with, first by clients that wait as
//! `Retry-After` says, then by clients that do not, and then looks how long it takes until the first load gets what
//! it got before. `slow-replica` stops one of three processes for 99 of every 100 milliseconds; its clients ask the
//! other two, since a client of a slow node is slow whatever the cluster does.
//! `tracing` is in [`super::tracing`], `hostile` in [`super::hostile`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use super::Args;
use super::cell::{Bench, Subject};
use super::load::{Op, Patience};
use super::report::Report;
use super::{hostile, local, tracing};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::local_cluster::LocalCluster;

/// How much more the overload is.
const TIMES: u64 = 10;
/// Stopped and running parts of a slow node's time.
const STOPPED: Duration = Duration::from_millis(99);
const RUNNING: Duration = Duration::from_millis(1);
/// Back to normal is this share of the peak.
const NORMAL: f64 = 0.9;
/// Looks for it, each of a second; then the report says that it did not happen.
const LOOKS: u32 = 60;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Ten times the connections of the peak.
    Overload,
    /// One of three nodes a hundred times slower.
    SlowReplica,
    /// Spans of no, some and all requests to a collector, and one that is silent or gone.
    Tracing,
    /// Reads beside a bucket whose resolver wants to do harm.
    Hostile,
}

/// Plays it on a cluster of its own.
pub(super) fn measure(
    scenario: Scenario,
    args: &Args,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    let question = match scenario {
        Scenario::Overload => "what is left of the peak under ten times its load, and afterwards?",
        Scenario::SlowReplica => "what do clients notice of one replica that is 100 times slower?",
        Scenario::Hostile => "what do readers notice of another bucket's hostile resolver?",
        Scenario::Tracing => "what does tracing cost, by the share of requests that is traced?",
    };
    let mut report = Report::new(question);
    if scenario == Scenario::Tracing {
        tracing::measure(args, interrupt, &mut report)?;
        return Ok(report);
    }
    let mut bench = Bench::new(args, interrupt);
    local::with_cluster(args, &[], interrupt, |cluster, subject| {
        bench.preload(&subject)?;
        match scenario {
            Scenario::Overload => overload(args, &subject, &mut bench, &mut report),
            Scenario::Hostile => hostile::measure(args, cluster, &subject, &mut bench, &mut report),
            _ => slow_replica(args, cluster, subject, &mut bench, &mut report),
        }
    })?;
    Ok(report)
}

fn overload(
    args: &Args,
    subject: &Subject,
    bench: &mut Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    for op in &args.op {
        for connections in &args.connections {
            overload_one(subject, *op, *connections, bench, report)?;
        }
    }
    Ok(())
}

fn overload_one(
    subject: &Subject,
    op: Op,
    connections: u64,
    bench: &mut Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let few = usize::try_from(connections).unwrap_or(usize::MAX);
    let many = usize::try_from(connections * TIMES).unwrap_or(usize::MAX);
    let peak = bench.named(subject, "peak", op, few, Patience::None)?;
    let normal = peak.operations_per_second;
    let name = |what: &str| format!("{} at {connections}: {what}", peak.op);
    let share = |report: &mut Report, what: &str, rate: f64| {
        report.figures.insert(name(what), rate / normal);
    };
    for (what, patience) in [
        ("overload, patient", Patience::RetryAfter),
        ("overload, impatient", Patience::None),
    ] {
        let cell = bench.named(subject, what, op, many, patience)?;
        share(
            report,
            &format!("goodput under {what}, of the peak"),
            cell.operations_per_second,
        );
        report.cells.push(cell);
    }
    let ended = Instant::now();
    let mut back = f64::INFINITY;
    for _ in 0..LOOKS {
        let cell = bench.glance(subject, "after", op, few)?;
        if cell.operations_per_second >= NORMAL * normal {
            back = ended.elapsed().as_secs_f64();
            report.cells.push(cell);
            break;
        }
    }
    report
        .figures
        .insert(name("seconds until 90 % of the peak"), back);
    report.cells.push(peak);
    Ok(())
}

fn slow_replica(
    args: &Args,
    cluster: &LocalCluster,
    mut subject: Subject,
    bench: &mut Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let last = cluster.nodes().last();
    let slow = last.ok_or_else(|| Failure::Failed("the cluster has no nodes".to_owned()))?;
    subject.targets.pop();
    for op in &args.op {
        for connections in &args.connections {
            let few = usize::try_from(*connections).unwrap_or(usize::MAX);
            let healthy = bench.named(&subject, "healthy", *op, few, Patience::None)?;
            let slowed = Slow::down(slow.pid())?;
            let cell = bench.named(&subject, "one slow", *op, few, Patience::None);
            drop(slowed);
            let cell = cell?;
            for (what, of) in [
                ("p50", cell.p50_us / healthy.p50_us),
                ("p99", cell.p99_us / healthy.p99_us),
            ] {
                let name = format!("{} at {few}: {what} with one slow, of healthy", cell.op);
                report.figures.insert(name, of);
            }
            report.cells.extend([healthy, cell]);
        }
    }
    Ok(())
}

/// A process that runs one hundredth of the time; as before once this is dropped.
struct Slow {
    pid: Pid,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slow {
    fn down(pid: u32) -> Result<Slow, Failure> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::Failed("a node has no process".to_owned()))?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // Fails only if the process is gone, and then the cells say so.
                let _stopped = kill_process(pid, Signal::STOP);
                std::thread::sleep(STOPPED);
                let _runs = kill_process(pid, Signal::CONT);
                std::thread::sleep(RUNNING);
            }
        });
        Ok(Slow {
            pid,
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        let _runs = kill_process(self.pid, Signal::CONT);
    }
}
