//! `sibyl bench`: how much a cluster does, how long it takes, and what it costs in CPU.
//!
//! It measures and writes down; it asserts nothing about time. Figures come with the command, the commit and the
//! machine, since without them they mean nothing.

mod baseline;
mod cell;
mod histogram;
mod hostile;
mod load;
mod local;
mod merged;
mod report;
mod scenario;
mod tracing;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::client::{Client, Parts, bucket_path};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::output::{self, Format};
use cell::{Bench, Subject};
use load::{Op, Values};
use report::Report;
use usage::Servers;

/// Most connections of one run: each is a socket here and on a node.
const MAX_CONNECTIONS: u64 = 4096;

/// Most preloaded keys: at 1 KiB and three copies 10 GB and more.
const MAX_KEYS: u64 = 10_000_000;

/// Largest value a bucket can be configured for.
const MAX_VALUE_BYTES: u64 = 16 << 20;

/// One look at a node before the load starts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Load a running cluster, or one of its own, and report throughput, latency and CPU
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  sibyl bench --url http://127.0.0.1:7070,http://127.0.0.1:7071,http://127.0.0.1:7072
  sibyl bench --op get --connections 64 --seconds 10 --output json
  sibyl bench --local --keys 100000 --out results.json
  sibyl bench --local --scenario overload --op put --connections 256
  sibyl bench --local --scenario tracing --op put,get --connections 64
  sibyl bench --local --scenario hostile --connections 16

Writes go to new keys, so that no siblings pile up; reads choose among --keys preloaded keys."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Nodes to load, separated by commas; connections are spread over them.
    #[arg(
        long,
        env = "SIBYL_URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7070",
        value_name = "URL,…"
    )]
    url: Vec<String>,
    /// The bucket; created if it does not exist. With --local, one per durability.
    #[arg(long, short, default_value = "bench", value_name = "BUCKET")]
    bucket: String,
    /// Start three nodes of this build and an axum server that stores nothing, and measure those.
    #[arg(long, conflicts_with_all = ["url", "bucket", "pids"])]
    local: bool,
    /// With --local: where the nodes' folders go. It should be on a real disk.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// With --local: measure what is left when something is wrong.
    #[arg(long, value_enum, requires = "local", value_name = "SCENARIO")]
    scenario: Option<scenario::Scenario>,
    /// What to do, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Op::Put, Op::Get, Op::Mix])]
    op: Vec<Op>,
    /// How many connections, separated by commas; each has one request in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64],
          value_parser = clap::value_parser!(u64).range(1..=MAX_CONNECTIONS), value_name = "COUNT,…")]
    connections: Vec<u64>,
    /// Size of values.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(0..=MAX_VALUE_BYTES), value_name = "BYTES")]
    value_bytes: u64,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    seconds: u64,
    /// How long the load runs before anything counts.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    warm_up: Duration,
    /// How many keys are written before reads are measured.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=MAX_KEYS), value_name = "COUNT")]
    keys: u64,
    /// Process ids of the nodes on this machine, for their CPU; else their /metrics are asked.
    #[arg(long, value_delimiter = ',', value_name = "PID,…")]
    pids: Vec<u32>,
    /// Write the JSON report to this file too.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    Baseline(baseline::Args),
}

/// `sibyl bench`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(Command::Baseline(args)) = &args.command {
        return baseline::run(args);
    }
    let interrupt = Interrupt::listen()?;
    let report = if let Some(scenario) = args.scenario {
        scenario::measure(scenario, args, &interrupt)?
    } else if args.local {
        local::measure(args, &interrupt)?
    } else {
        measure(args, &interrupt)?
    };
    if let Some(file) = &args.out {
        let written = std::fs::write(file, output::to_json(&report) + "\n");
        written.map_err(|source| Failure::File {
            doing: "write",
            path: file.clone(),
            source,
        })?;
    }
    match args.output {
        Format::Json => output::print_json(&report)?,
        Format::Table => report.print()?,
    }
    let nothing_done = report.cells.iter().any(|cell| cell.operations == 0);
    if nothing_done {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn measure(args: &Args, interrupt: &Interrupt) -> Result<Report, Failure> {
    for url in &args.url {
        let client = Client::new(url, REQUEST_TIMEOUT)?;
        client.get("/health/ready", Parts::default())?;
        if url == &args.url[0] {
            create_bucket(&client, &args.bucket, None)?;
        }
    }
    let servers = match args.pids.is_empty() {
        true => Servers::Metrics(args.url.clone()),
        false => Servers::Pids(args.pids.clone()),
    };
    let subject = Subject {
        what: args.bucket.clone(),
        targets: args
            .url
            .iter()
            .map(|url| target(url))
            .collect::<Result<_, _>>()?,
        path: format!("{}/keys", bucket_path(&args.bucket)),
        values: Values::Random,
        servers,
    };
    let mut report = Report::new("how much does this cluster do, and what does an operation cost?");
    Bench::new(args, interrupt).measure(&subject, &mut report)?;
    Ok(report)
}

/// Creates the bucket unless it is there; then it stays as it is.
fn create_bucket(client: &Client, bucket: &str, durability: Option<&str>) -> Result<(), Failure> {
    if client.get(&bucket_path(bucket), Parts::default()).is_ok() {
        return Ok(());
    }
    let fields = durability.map(|durability| ("durability".to_owned(), durability.into()));
    super::bucket::change(client, bucket, &fields.into_iter().collect())?;
    Ok(())
}

/// `HOST:PORT` of a base URL.
fn target(url: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{url:?} is not a URL of a node; expected http://HOST:PORT"
        ))
    };
    let rest = url
        .trim_end_matches('/')
        .strip_prefix("http://")
        .filter(|rest| !rest.contains('/'))
        .ok_or_else(wrong)?;
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:80")
    })
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn targets_have_a_port() {
        assert_eq!(target("http://127.0.0.1:7070/").unwrap(), "127.0.0.1:7070");
        assert_eq!(target("http://sibyl").unwrap(), "sibyl:80");
        assert_eq!(target("http://[::1]:7").unwrap(), "[::1]:7");
        assert!(target("https://x").is_err());
        assert!(target("http://x/y").is_err());
    }
}
