//! The operating system's view of this process, under the names every Prometheus dashboard knows, and the
//! runtime's view of its tasks.
//!
//! Read from `/proc` at each scrape; where there is none (not Linux) the metrics are absent, not zero. Of the
//! runtime only what it counts without `tokio_unstable`, so the list does not depend on build flags.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::gauges::gauge;

/// Ticks per second in `/proc`: part of the kernel's interface on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let status = fs::read_to_string("/proc/self/status").ok();
        let limits = fs::read_to_string("/proc/self/limits").ok();
        let boot = fs::read_to_string("/proc/stat").ok();
        let fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count() as u64);
        let (stat, status) = (stat.as_deref(), status.as_deref());
        times(&mut to, stat, boot.as_deref())?;
        let bytes = Some(&Unit::Bytes);
        let line = |key| status.and_then(|text| kibibytes(text, key));
        let help = "Memory in use that is in RAM";
        gauge(
            &mut to,
            "process_resident_memory",
            help,
            bytes,
            line("VmRSS:"),
        )?;
        let help = "Address space";
        gauge(
            &mut to,
            "process_virtual_memory",
            help,
            bytes,
            line("VmSize:"),
        )?;
        let threads = status.and_then(|text| field(text, "Threads:"));
        gauge(&mut to, "process_threads", "Threads", None, threads)?;
        gauge(
            &mut to,
            "process_open_fds",
            "Open files and sockets",
            None,
            fds,
        )?;
        let most = limits
            .as_deref()
            .and_then(|text| field(text, "Max open files"));
        let help = "Most files and sockets that may be open";
        gauge(&mut to, "process_max_fds", help, None, most)?;
        runtime(&mut to)
    }
}

/// The runtime that answers the scrape.
fn runtime(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Ok(handle) = tokio::runtime::Handle::try_current() else {
        return Ok(());
    };
    let metrics = handle.metrics();
    let known = |count: usize| Some(count as u64);
    let help = "Threads that run tasks";
    let workers = known(metrics.num_workers());
    gauge(to, "tokio_workers_count", help, None, workers)?;
    let help = "Tasks that have not ended";
    let tasks = known(metrics.num_alive_tasks());
    gauge(to, "tokio_live_tasks_count", help, None, tasks)?;
    let help = "Tasks waiting for any worker";
    let depth = known(metrics.global_queue_depth());
    gauge(to, "tokio_global_queue_depth", help, None, depth)
}

fn times(to: &mut DescriptorEncoder<'_>, stat: Option<&str>, boot: Option<&str>) -> fmt::Result {
    let Some(stat) = stat else { return Ok(()) };
    let seconds = Some(&Unit::Seconds);
    let ticks = |at: usize| stat_field(stat, at).map(|ticks| ticks as f64 / TICKS_PER_SECOND);
    if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
        let help = "Time on processors, user and system.";
        let encoder = to.encode_descriptor("process_cpu", help, seconds, MetricType::Counter)?;
        ConstCounter::new(user + system).encode(encoder)?;
    }
    if let (Some(began), Some(boot)) = (ticks(22), boot.and_then(|text| field(text, "btime"))) {
        let help = "When the process began, since 1970.";
        let encoder =
            to.encode_descriptor("process_start_time", help, seconds, MetricType::Gauge)?;
        ConstGauge::new(boot as f64 + began).encode(encoder)?;
    }
    Ok(())
}

/// Field `at` of `/proc/self/stat`, counted from 1 as its manual page does. The second field is the
/// program's name in brackets and may contain anything, so counting begins behind it.
fn stat_field(stat: &str, at: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(at.checked_sub(3)?)?
        .parse()
        .ok()
}

/// The first number after `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    field(text, key).map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_files_of_proc() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 4200 1 2";
        assert_eq!(stat_field(stat, 14), Some(250));
        assert_eq!(stat_field(stat, 15), Some(50));
        assert_eq!(stat_field(stat, 22), Some(4200));
        assert_eq!(stat_field("", 14), None);
        let status = "Name:\tsibyl\nVmSize:\t  100 kB\nVmRSS:\t   10 kB\nThreads:\t9\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(10_240));
        assert_eq!(field(status, "Threads:"), Some(9));
        assert_eq!(
            field(
                "Max open files            1024    524288    files",
                "Max open files"
            ),
            Some(1024)
        );
        assert_eq!(
            field(
                "Max open files            unlimited  unlimited",
                "Max open files"
            ),
            None
        );
    }
}
