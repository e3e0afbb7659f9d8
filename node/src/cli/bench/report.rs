//! What a benchmark leaves behind: figures with the command, the commit and the machine that made them.
//!
//! A table for people and one JSON document; without the machine and the commit a figure means nothing. It
//! computes nothing but what a table needs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::load::Seen;
use super::usage::Usage;
use crate::cli::failure::Failure;
use crate::cli::output;

/// All figures of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was asked, in words.
    pub(super) question: String,
    command: String,
    version: &'static str,
    commit: Option<&'static str>,
    profile: &'static str,
    started_at: String,
    machine: Machine,
    /// One line of the table each.
    pub(super) cells: Vec<Cell>,
    /// Further figures by name.
    pub(super) figures: BTreeMap<String, f64>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
struct Machine {
    cores: Option<usize>,
    cpu: Option<String>,
    memory: Option<String>,
    kernel: Option<String>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    /// Who was measured: a durability, `baseline`, or a bucket.
    pub(super) what: String,
    /// put, get or mix.
    pub(super) op: String,
    pub(super) connections: usize,
    pub(super) value_bytes: usize,
    pub(super) seconds: f64,
    pub(super) operations: u64,
    pub(super) operations_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
    /// By status, or by what broke.
    pub(super) errors: BTreeMap<String, u64>,
    /// CPU of all server processes.
    pub(super) server_cpu_us_per_operation: Option<f64>,
    /// CPU of the load generator.
    pub(super) client_cpu_us_per_operation: Option<f64>,
    /// Cores that neither of them used, but others on this machine: noise.
    pub(super) other_cores: Option<f64>,
}

impl Report {
    /// An empty report of this process, on this machine.
    pub(super) fn new(question: &str) -> Report {
        Report {
            question: question.to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("SIBYL_COMMIT"),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            started_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::here(),
            cells: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    /// Prints the table of all cells and the further figures.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let titles = [
            "what",
            "op",
            "conns",
            "ops/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "server CPU µs/op",
            "own µs/op",
            "others",
            "errors",
        ];
        let mut table = output::table(&titles);
        for cell in &self.cells {
            let micros = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
            };
            let millis = |value: f64| format!("{:.2}", value / 1e3);
            let errors: Vec<String> = cell
                .errors
                .iter()
                .map(|(what, count)| format!("{what}: {count}"))
                .collect();
            table.add_row([
                cell.what.clone(),
                cell.op.clone(),
                cell.connections.to_string(),
                format!("{:.0}", cell.operations_per_second),
                millis(cell.p50_us),
                millis(cell.p99_us),
                millis(cell.p999_us),
                micros(cell.server_cpu_us_per_operation),
                micros(cell.client_cpu_us_per_operation),
                micros(cell.other_cores),
                errors.join(", "),
            ]);
        }
        output::print(format!("{}\n", self.question))?;
        output::print_table(&table)?;
        let figures: Vec<(&str, String)> = self
            .figures
            .iter()
            .map(|(name, value)| (name.as_str(), format!("{value:.2}")))
            .collect();
        if figures.is_empty() {
            Ok(())
        } else {
            output::print_table(&output::facts(&figures))
        }
    }
}

impl Cell {
    /// A measurement from what was seen and used during `seconds`.
    pub(super) fn new(
        what: &str,
        op: &str,
        connections: usize,
        value_bytes: usize,
        seconds: f64,
        seen: &Seen,
        used: &Usage,
    ) -> Cell {
        let operations = seen.latencies.count();
        let quantile = |share| seen.latencies.quantile(share) as f64 / 1e3;
        let per_operation = |cpu: Option<f64>| {
            cpu.filter(|_| operations > 0)
                .map(|cpu| cpu * 1e6 / operations as f64)
        };
        let known = used.servers.unwrap_or(0.0) + used.own.unwrap_or(0.0);
        Cell {
            what: what.to_owned(),
            op: op.to_owned(),
            connections,
            value_bytes,
            seconds,
            operations,
            operations_per_second: operations as f64 / seconds,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: seen.latencies.greatest() as f64 / 1e3,
            errors: seen.errors.clone(),
            server_cpu_us_per_operation: per_operation(used.servers),
            client_cpu_us_per_operation: per_operation(used.own),
            other_cores: used
                .machine
                .map(|machine| (machine - known).max(0.0) / seconds),
        }
    }
}

impl Machine {
    fn here() -> Machine {
        let field = |file: &str, name: &str| -> Option<String> {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        Machine {
            cores: std::thread::available_parallelism().ok().map(usize::from),
            cpu: field("/proc/cpuinfo", "model name"),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: field("/proc/sys/kernel/osrelease", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cell;
    use crate::cli::bench::load::Seen;
    use crate::cli::bench::usage::Usage;

    #[test]
    fn a_cell_divides_by_what_was_done() {
        let mut seen = Seen::default();
        (0..1000).for_each(|_| seen.latencies.record(1_000_000));
        seen.errors.insert("503".to_owned(), 3);
        let used = Usage {
            servers: Some(0.05),
            own: Some(0.01),
            machine: Some(1.06),
        };
        let cell = Cell::new("synced", "put", 16, 1024, 2.0, &seen, &used);
        assert_eq!((cell.operations, cell.operations_per_second), (1000, 500.0));
        assert_eq!(cell.server_cpu_us_per_operation, Some(50.0));
        assert_eq!(cell.client_cpu_us_per_operation, Some(10.0));
        assert!(
            cell.other_cores
                .is_some_and(|cores| (cores - 0.5).abs() < 1e-9)
        );
        assert!((cell.p99_us - 1000.0).abs() < 10.0);
        let idle = Cell::new("synced", "put", 16, 1024, 2.0, &Seen::default(), &used);
        assert_eq!(idle.server_cpu_us_per_operation, None);
    }
}
