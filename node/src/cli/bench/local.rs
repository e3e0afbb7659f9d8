//! `sibyl bench --local`: three nodes of this build and the server that stores nothing, measured in one run.
//!
//! One run, one machine, one load generator: only ratios from the same run can be trusted. Nodes write to
//! `--dir`, since temporary folders are often memory and a sync there costs nothing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::cell::{Bench, Subject};
use super::load::{Op, Values};
use super::report::Report;
use super::usage::Servers;
use super::{Args, REQUEST_TIMEOUT, create_bucket, merged, target};
use crate::cli::client::{Client, bucket_path};
use crate::cli::dev::executable;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::local_cluster::{LocalCluster, Plan};
use crate::cli::output;

/// Nodes of the cluster, as in all figures of the design.
const NODES: usize = 3;

/// Forming takes a second; a debug build on a busy machine more.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How many bytes a block of `st_blocks` has, whatever the file system.
const BLOCK_BYTES: u64 = 512;

/// Measures the baseline, then the cluster synced and buffered.
pub(super) fn measure(args: &Args, interrupt: &Interrupt) -> Result<Report, Failure> {
    let folder = folder(args)?;
    let mut report =
        Report::new("what does a quorum operation cost, against HTTP that stores nothing?");
    let mut bench = Bench::new(args, interrupt);
    baseline(args, folder.path(), &mut bench, interrupt, &mut report)?;
    let mut cluster = LocalCluster::start(&plan(folder.path(), &[])?)?;
    wait(&mut cluster, interrupt)?;
    for durability in ["synced", "buffered"] {
        durable(args, &cluster, durability, &mut bench, &mut report)?;
    }
    ratios(&mut report);
    merged::measure(args, &cluster, &bench, &mut report)?;
    Ok(report)
}

/// Gives a cluster of its own, with these flags too, to something that measures it, with a synced bucket.
pub(super) fn with_cluster(
    args: &Args,
    flags: &[&str],
    interrupt: &Interrupt,
    measure: impl FnOnce(&LocalCluster, Subject) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let folder = folder(args)?;
    let mut cluster = LocalCluster::start(&plan(folder.path(), flags)?)?;
    wait(&mut cluster, interrupt)?;
    let bucket = "bench-synced";
    let client = Client::new(&cluster.nodes()[0].url, REQUEST_TIMEOUT)?;
    create_bucket(&client, bucket, Some("synced"))?;
    let path = format!("{}/keys", bucket_path(bucket));
    let subject = subject("synced", &cluster, path)?;
    measure(&cluster, subject)
}

fn folder(args: &Args) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("sibyl-bench-")
        .tempdir_in(&args.dir);
    folder.map_err(|source| Failure::File {
        doing: "create a folder in",
        path: args.dir.clone(),
        source,
    })
}

fn plan(folder: &Path, flags: &[&str]) -> Result<Plan, Failure> {
    let common = ["--log", "warn", "--trace-ratio", "0"];
    Ok(Plan {
        executable: executable()?,
        nodes: NODES,
        folder: folder.to_owned(),
        ports: None,
        cluster_id: "bench".to_owned(),
        flags: [&common, flags]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        outlive: false,
    })
}

fn wait(cluster: &mut LocalCluster, interrupt: &Interrupt) -> Result<(), Failure> {
    let waiting = output::spinner("processes get ready");
    let ready = cluster.wait_ready(READY_LIMIT, || interrupt.came());
    waiting.finish_and_clear();
    interrupt.check()?;
    Ok(ready?)
}

fn baseline(
    args: &Args,
    folder: &Path,
    bench: &mut Bench<'_>,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), Failure> {
    let server = stores_nothing(args, folder, interrupt)?;
    let subject = subject("baseline", &server, "/baseline".to_owned())?;
    bench.measure(&subject, report)
}

/// The server that stores nothing, in a folder of its own.
pub(super) fn other(
    args: &Args,
    interrupt: &Interrupt,
) -> Result<(tempfile::TempDir, LocalCluster), Failure> {
    let folder = folder(args)?;
    let server = stores_nothing(args, folder.path(), interrupt)?;
    Ok((folder, server))
}

fn stores_nothing(
    args: &Args,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<LocalCluster, Failure> {
    let size = args.value_bytes.to_string();
    let flags = ["bench", "baseline", "--value-bytes", &size];
    let mut server = LocalCluster::start_other(&executable()?, folder, "baseline", &flags)?;
    wait(&mut server, interrupt)?;
    Ok(server)
}

fn durable(
    args: &Args,
    cluster: &LocalCluster,
    durability: &str,
    bench: &mut Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let bucket = format!("bench-{durability}");
    let first = &cluster.nodes()[0];
    create_bucket(
        &Client::new(&first.url, REQUEST_TIMEOUT)?,
        &bucket,
        Some(durability),
    )?;
    let subject = subject(
        durability,
        cluster,
        format!("{}/keys", bucket_path(&bucket)),
    )?;
    let before = disk_bytes(cluster);
    if args.op.iter().any(|op| *op != Op::Put) {
        bench.preload(&subject)?;
        let used = disk_bytes(cluster).saturating_sub(before) as f64;
        let name = format!(
            "{durability}: disk bytes per key and replica, right after {} keys",
            args.keys
        );
        report
            .figures
            .insert(name, used / args.keys as f64 / NODES as f64);
    }
    bench.measure_loaded(&subject, report)
}

/// A cluster as something to measure, by its processes.
pub(super) fn subject(
    what: &str,
    cluster: &LocalCluster,
    path: String,
) -> Result<Subject, Failure> {
    Ok(Subject {
        what: what.to_owned(),
        targets: cluster
            .nodes()
            .iter()
            .map(|node| target(&node.url))
            .collect::<Result<_, _>>()?,
        path,
        values: Values::Random,
        servers: Servers::Pids(
            cluster
                .nodes()
                .iter()
                .map(crate::cli::local_cluster::LocalNode::pid)
                .collect(),
        ),
    })
}

/// CPU of each cell over that of the baseline's cell of the same kind.
fn ratios(report: &mut Report) {
    let cost =
        |cell: &super::report::Cell| cell.server_cpu_us_per_operation.filter(|cost| *cost > 0.0);
    let (base, measured): (Vec<_>, Vec<_>) = report
        .cells
        .iter()
        .partition(|cell| cell.what == "baseline");
    let base: HashMap<_, _> = base
        .into_iter()
        .filter_map(|cell| Some(((cell.op.as_str(), cell.connections), cost(cell)?)))
        .collect();
    let ratios = measured.into_iter().filter_map(|cell| {
        let ratio = cost(cell)? / base.get(&(cell.op.as_str(), cell.connections))?;
        Some((
            format!(
                "{} {} at {}: CPU over baseline",
                cell.what, cell.op, cell.connections
            ),
            ratio,
        ))
    });
    let ratios: Vec<_> = ratios.collect();
    report.figures.extend(ratios);
}

/// Bytes that the nodes' folders take on disk: allocated blocks, so a sparse file counts as what it holds.
fn disk_bytes(cluster: &LocalCluster) -> u64 {
    cluster
        .nodes()
        .iter()
        .map(|node| folder_bytes(&node.data_dir))
        .sum()
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A file may go between listing and asking, when the store compacts; then it takes no bytes.
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    });
    bytes.sum()
}
