//! `sibyl bench --local --scenario tracing`: what it costs to tell a collector what one does, at which share of
//! requests, and what a collector that is silent or gone costs.
//!
//! The collector is the server that stores nothing, a process of its own whose CPU does not count. Shares take turns,
//! so that whatever the machine does meanwhile strikes all of them. The first cluster has no collector at all.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cell::{Bench, Subject};
use super::load::{Op, Patience};
use super::report::{Cell, Report};
use super::usage::sum_of_metric;
use super::{Args, REQUEST_TIMEOUT, local};
use crate::cli::client::{Client, Parts};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::local_cluster::LocalCluster;

/// What is told, and its name in the report.
const SHARES: [(f64, &str); 3] = [(0.0, "0 %"), (0.01, "1 %"), (1.0, "100 %")];
/// How often the shares take turns; the median counts.
const ROUNDS: usize = 3;
/// Spans that are under way when a load ends have left, or are counted as lost, after this.
const SETTLED: Duration = Duration::from_secs(6);

/// Measures it.
pub(super) fn measure(
    args: &Args,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut bench = Bench::new(args, interrupt);
    local::with_cluster(args, &[], interrupt, |cluster, subject| {
        bench.preload(&subject)?;
        let asked = Asked {
            cluster,
            subject: &subject,
        };
        for kind in kinds(args) {
            for _round in 0..ROUNDS {
                report
                    .cells
                    .push(asked.at(0.0, "no collector", kind, &mut bench)?);
            }
        }
        Ok(())
    })?;
    let (_folder, collector) = local::other(args, interrupt)?;
    let endpoint = format!("{}/v1/traces", collector.nodes()[0].url);
    let flags = ["--otlp-endpoint", &endpoint];
    local::with_cluster(args, &flags, interrupt, |cluster, subject| {
        bench.preload(&subject)?;
        let asked = Asked {
            cluster,
            subject: &subject,
        };
        for kind in kinds(args) {
            for _round in 0..ROUNDS {
                for (share, name) in SHARES {
                    report.cells.push(asked.at(share, name, kind, &mut bench)?);
                }
            }
        }
        let stopped = Stopped::now(&collector)?;
        for kind in kinds(args) {
            report
                .cells
                .push(asked.at(1.0, "100 %, stalled", kind, &mut bench)?);
        }
        lost(cluster, interrupt, "after a stalled collector", report)?;
        drop(stopped);
        drop(collector);
        for kind in kinds(args) {
            report
                .cells
                .push(asked.at(1.0, "100 %, no answer", kind, &mut bench)?);
        }
        lost(cluster, interrupt, "after a collector that is gone", report)
    })?;
    ratios(args, report);
    Ok(())
}

fn kinds(args: &Args) -> impl Iterator<Item = (Op, u64)> + '_ {
    let of = |op: &Op| {
        args.connections.iter().map({
            let op = *op;
            move |count| (op, *count)
        })
    };
    args.op.iter().flat_map(of)
}

/// A cluster under load.
struct Asked<'a> {
    cluster: &'a LocalCluster,
    subject: &'a Subject,
}

impl Asked<'_> {
    fn at(
        &self,
        share: f64,
        name: &str,
        (op, connections): (Op, u64),
        bench: &mut Bench<'_>,
    ) -> Result<Cell, Failure> {
        for node in self.cluster.nodes() {
            let client = Client::new(&node.url, REQUEST_TIMEOUT)?;
            let ratio = Parts::default().json(&serde_json::json!({ "ratio": share }));
            client.put("/v1/trace", ratio)?;
        }
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        bench.named(self.subject, name, op, connections, Patience::None)
    }
}

/// A process that stands still, until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn now(collector: &LocalCluster) -> Result<Stopped, Failure> {
        let pid = i32::try_from(collector.nodes()[0].pid())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::Failed("the collector has no process".to_owned()))?;
        let stopped = kill_process(pid, Signal::STOP);
        stopped
            .map_err(|error| Failure::Failed(format!("the collector does not stop: {error}")))?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Fails only if the process is gone.
        let _runs = kill_process(self.0, Signal::CONT);
    }
}

/// What became of the spans so far, by the nodes' own counters.
fn lost(
    cluster: &LocalCluster,
    interrupt: &Interrupt,
    when: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    if interrupt.wait(SETTLED) {
        return Err(Failure::Interrupted);
    }
    for (what, metric) in [
        ("handed over", "sibyl_trace_spans_total{result=\"ok\"}"),
        ("failed", "sibyl_trace_spans_total{result=\"failed\"}"),
        ("dropped", "sibyl_trace_spans_dropped_total"),
    ] {
        let nodes = cluster.nodes().iter();
        let spans: f64 = nodes
            .filter_map(|node| sum_of_metric(&node.url, metric))
            .sum();
        report
            .figures
            .insert(format!("spans {what}, {when}"), spans);
    }
    Ok(())
}

/// CPU of each way over that without a collector, by medians.
fn ratios(args: &Args, report: &mut Report) {
    let median = |what: &str, op: &str, connections: usize| {
        let of_kind =
            |cell: &&Cell| cell.what == what && cell.op == op && cell.connections == connections;
        let cells = report.cells.iter().filter(of_kind);
        let mut costs: Vec<f64> = cells
            .filter_map(|cell| cell.server_cpu_us_per_operation)
            .collect();
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied()
    };
    let names: std::collections::BTreeSet<String> =
        report.cells.iter().map(|cell| cell.what.clone()).collect();
    let ops: std::collections::BTreeSet<String> =
        report.cells.iter().map(|cell| cell.op.clone()).collect();
    let mut found = Vec::new();
    for op in &ops {
        for connections in &args.connections {
            let connections = usize::try_from(*connections).unwrap_or(usize::MAX);
            let without = median("no collector", op, connections);
            for what in names.iter().filter(|name| *name != "no collector") {
                if let (Some(cost), Some(without)) = (median(what, op, connections), without) {
                    let name = format!("{op} at {connections}: CPU at {what}, over no collector");
                    found.push((name, cost / without));
                }
            }
        }
    }
    report.figures.extend(found);
}
