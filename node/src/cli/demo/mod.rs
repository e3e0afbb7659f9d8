//! `sibyl demo`: the main job on real input, told as a story and checked at every step.
//!
//! Three real nodes, one link between two of them really cut, the same key written on both sides, the cut
//! mended, both writes shown, a WebAssembly resolver uploaded and bound through the public API, and the same
//! merged value read from every node; once with a shopping cart, once with Automerge documents. Exit code 0 only
//! if all of that was seen. Nodes are stopped and data removed on every path, unless `--keep`.

pub(super) mod cart;
mod documents;
mod scene;
mod stage;
mod story;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::dev::executable;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::local_cluster::{LocalCluster, Plan};
use super::output::{self, Format};
use stage::Stage;
use story::Story;

/// Forming takes a second; a debug build on a busy machine more.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How often the end of the story and Ctrl-C are looked for.
const WATCH: Duration = Duration::from_millis(50);

/// Watch three nodes take conflicting writes and merge them
///
/// Needs no server, no Docker and no WebAssembly toolchain.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl demo
  sibyl demo --keep                                     leave the cluster running to look around
  sibyl demo --otlp-endpoint http://127.0.0.1:4317      see the traces in Jaeger or Tempo")]
pub(super) struct Args {
    /// Leave the nodes running and their data in place.
    #[arg(long)]
    keep: bool,
    /// Send spans there over OTLP.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// table: a story; json: what was seen, as one document at the end.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// Something was not as it must be.
#[derive(Debug, thiserror::Error)]
#[error(
    "{doing}: expected {expected}, but saw {saw}\n  read {log} ({node_id}); all logs are in {folder}"
)]
pub(super) struct Unexpected {
    /// The step.
    pub(super) doing: String,
    /// What should have been seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) saw: String,
    /// The node that was asked.
    pub(super) node_id: String,
    /// Its log.
    pub(super) log: PathBuf,
    /// Where all logs are.
    pub(super) folder: PathBuf,
}

/// `sibyl demo`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let folder = tempfile::Builder::new().prefix("sibyl-demo-").tempdir();
    let folder = folder.map_err(|source| Failure::File {
        doing: "create",
        path: std::env::temp_dir(),
        source,
    })?;
    let mut cluster = None;
    let told = tell(args, folder.path(), &mut cluster, &interrupt);
    match (told, cluster) {
        (Ok(mut story), Some(cluster)) if args.keep => {
            leave(cluster, folder, &mut story)?;
            story.finish()
        }
        (Ok(story), cluster) => {
            drop(cluster);
            story.finish()
        }
        (Err(failure), cluster) => {
            drop(cluster);
            if !interrupt.came() {
                keep_only_logs(folder);
            }
            Err(failure)
        }
    }
}

/// Starts the cluster and tells the story on another thread, so that Ctrl-C is heard during long requests.
fn tell(
    args: &Args,
    folder: &Path,
    slot: &mut Option<LocalCluster>,
    interrupt: &Interrupt,
) -> Result<Story, Failure> {
    let mut story = Story::new(args.output);
    story.title("Sibyl demo: a cut, two writes of one key, one merge")?;
    story.step("Three nodes, each its own process, form a cluster")?;
    let started = Instant::now();
    let cluster = slot.insert(LocalCluster::start(&plan(args, folder)?)?);
    let waiting = output::spinner("the nodes form a cluster");
    let ready = cluster.wait_ready(READY_LIMIT, || interrupt.came());
    waiting.finish_and_clear();
    interrupt.check()?;
    ready?;
    let urls: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| format!("{} {}", node.node_id, node.url))
        .collect();
    story.seen(&format!(
        "{} (ready after {})",
        urls.join(", "),
        story::duration(started.elapsed())
    ))?;
    let stage = Stage::new(cluster, folder)?;
    let play = move || play(&stage, story);
    let telling = std::thread::Builder::new()
        .name("story".to_owned())
        .spawn(play);
    let telling = telling.map_err(|source| Failure::File {
        doing: "start",
        path: "a thread".into(),
        source,
    })?;
    while !telling.is_finished() {
        if interrupt.wait(WATCH) {
            cluster.stop();
            return Err(Failure::Interrupted);
        }
    }
    telling
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn play(stage: &Stage, mut story: Story) -> Result<Story, Failure> {
    for scene in [cart::scene(), documents::scene()] {
        scene::play(&scene, stage, &mut story)?;
    }
    story.title("All of it was seen: both writes survived the cut, and every node merged them to the same value")?;
    Ok(story)
}

fn plan(args: &Args, folder: &Path) -> Result<Plan, Failure> {
    let mut flags = vec!["--allow-cuts".to_owned()];
    flags.extend(
        args.otlp_endpoint
            .iter()
            .map(|url| format!("--otlp-endpoint={url}")),
    );
    Ok(Plan {
        executable: executable()?,
        nodes: 3,
        folder: folder.to_owned(),
        ports: None,
        cluster_id: "demo".to_owned(),
        flags,
        outlive: args.keep,
    })
}

fn leave(cluster: LocalCluster, folder: TempDir, story: &mut Story) -> Result<(), Failure> {
    let folder = folder.keep();
    let pids: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.pid().to_string())
        .collect();
    cluster.leave_running();
    story.note(&format!(
        "the nodes run on; stop them with: kill {}",
        pids.join(" ")
    ))?;
    story.note(&format!("their data and logs: {}", folder.display()))
}

/// Data goes, logs stay: the failure names one of them.
fn keep_only_logs(folder: TempDir) {
    for entry in std::fs::read_dir(folder.keep())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.path().is_dir() {
            // What cannot be removed is in the temporary folder of the system, which gets cleaned anyway.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
