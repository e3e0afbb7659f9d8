//! CPU time of processes and of the machine, from `/proc`, or of nodes elsewhere from their `/metrics`.
//!
//! Throughput on a shared machine says little; CPU per operation is the figure to trust. Where the system has no
//! `/proc`, figures are absent, never zero.

use std::time::Duration;

use crate::cli::client::{Client, Parts};

/// Clock ticks per second in `/proc`: fixed at 100 for user space on every Linux platform we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at a node's metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose CPU time is the servers'.
#[derive(Clone, Debug)]
pub(super) enum Servers {
    /// Processes of this machine.
    Pids(Vec<u32>),
    /// Nodes that tell by `process_cpu_seconds_total`.
    Metrics(Vec<String>),
}

/// CPU seconds used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// By all servers.
    pub(super) servers: Option<f64>,
    /// By this process.
    pub(super) own: Option<f64>,
    /// By everything on this machine.
    pub(super) machine: Option<f64>,
}

impl Servers {
    /// Looks now.
    pub(super) fn usage(&self) -> Usage {
        let servers = match self {
            Servers::Pids(pids) => pids
                .iter()
                .map(|pid| process_seconds(&pid.to_string()))
                .sum(),
            Servers::Metrics(urls) => urls.iter().map(|url| node_seconds(url)).sum(),
        };
        Usage {
            servers,
            own: process_seconds("self"),
            machine: machine_seconds(),
        }
    }
}

impl Usage {
    /// What was used between an earlier look and this one.
    pub(super) fn since(&self, earlier: &Usage) -> Usage {
        let between = |now: Option<f64>, then: Option<f64>| Some((now? - then?).max(0.0));
        Usage {
            servers: between(self.servers, earlier.servers),
            own: between(self.own, earlier.own),
            machine: between(self.machine, earlier.machine),
        }
    }
}

fn process_seconds(pid: &str) -> Option<f64> {
    parse_process(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time, fields 14 and 15. The name in field 2 may hold anything, so count from its last `)`.
fn parse_process(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn machine_seconds() -> Option<f64> {
    parse_machine(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// All but idle and waiting for disks, which are the 4th and 5th figure.
fn parse_machine(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let busy: f64 = ticks
        .iter()
        .enumerate()
        .filter(|(index, _)| ![3, 4].contains(index))
        .map(|(_, t)| t)
        .sum();
    (ticks.len() == 8).then_some(busy / TICKS_PER_SECOND)
}

fn node_seconds(url: &str) -> Option<f64> {
    sum_of_metric(url, "process_cpu_seconds_total")
}

/// The sum of all samples of a node that begin like this: a name, or a name and its labels. `None` if there is none.
pub(super) fn sum_of_metric(url: &str, begin: &str) -> Option<f64> {
    let answer = Client::new(url, METRICS_TIMEOUT)
        .ok()?
        .get("/metrics", Parts::default())
        .ok()?;
    parse_metrics(std::str::from_utf8(&answer.body).ok()?, begin)
}

fn parse_metrics(text: &str, begin: &str) -> Option<f64> {
    let samples = text.lines().filter(|line| line.starts_with(begin));
    let value = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let values: Vec<f64> = samples.filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::{Usage, parse_machine, parse_metrics, parse_process};

    #[test]
    fn reads_proc_and_metrics() {
        let process = "42 (a) b (c)) S 1 42 42 0 -1 4194560 99 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse_process(process), Some(2.0));
        assert_eq!(parse_process("garbage"), None);
        assert_eq!(
            parse_machine("cpu  100 0 100 900 50 0 10 0 0 0\ncpu0 1"),
            Some(2.1)
        );
        assert_eq!(parse_machine("cpu 1 2"), None);
        assert_eq!(
            parse_metrics("# HELP x\nx_total 12.5\n# EOF", "x_total"),
            Some(12.5)
        );
        let two = "x_total{result=\"ok\"} 1\nx_total{result=\"failed\"} 2";
        assert_eq!(parse_metrics(two, "x_total"), Some(3.0));
        assert_eq!(parse_metrics(two, "x_total{result=\"failed\"}"), Some(2.0));
        assert_eq!(parse_metrics("other 1", "x_total"), None);
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let known = Usage {
            servers: Some(1.0),
            own: Some(2.0),
            machine: None,
        };
        let later = Usage {
            servers: None,
            own: Some(3.5),
            machine: Some(1.0),
        };
        let between = later.since(&known);
        assert_eq!(
            (between.servers, between.own, between.machine),
            (None, Some(1.5), None)
        );
    }
}
