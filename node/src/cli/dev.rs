//! `sibyl dev`: a whole local cluster in the foreground, until Ctrl-C.
//!
//! Data stays in the folder between runs, so the folder remembers which cluster it holds. It restarts nothing:
//! a node that ends is reported with its log, the others go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::local_cluster::{LocalCluster, LocalNode, Plan, Ports};
use super::output;

/// Peer ports start so far above the client ports, as the defaults of `serve` do.
const PEER_PORT_OFFSET: u16 = 100;

/// Forming takes a second; recovery of large folders more.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How often the processes are looked at.
const WATCH: Duration = Duration::from_millis(500);

/// The file by which a folder remembers its cluster.
const MARK: &str = "dev.json";

/// Run a whole local cluster until Ctrl-C
///
/// Each node is its own process with its own folder and log. Cuts are allowed: see `sibyl cluster cut`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl dev
  sibyl dev --nodes 5 --port 8080 --data-dir /tmp/five
  sibyl dev --nodes 6 -- --tokens 4 --down-after 5m
  sibyl dev --otlp-endpoint http://127.0.0.1:4317")]
pub(super) struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    nodes: usize,
    /// Client port of the first node; the others follow, peers are 100 above.
    #[arg(long, default_value_t = 7070, value_name = "PORT")]
    port: u16,
    /// Where folders and logs go.
    #[arg(long, default_value = "sibyl-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Send spans there over OTLP.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Further flags for every node, after `--`.
    #[arg(last = true, value_name = "SERVE FLAGS")]
    serve_flags: Vec<String>,
}

/// Which cluster a folder holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    nodes: usize,
    port: u16,
}

/// `sibyl dev`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let mark = Mark {
        nodes: args.nodes,
        port: args.port,
    };
    let plan = plan(args)?;
    mark.check(&args.data_dir)?;
    let mut cluster = LocalCluster::start(&plan)?;
    // Only now: ports that were taken must not bind the folder to them.
    mark.write(&args.data_dir)?;
    let waiting = output::spinner(format!("{} nodes form a cluster", args.nodes));
    let ready = cluster.wait_ready(READY_LIMIT, || interrupt.came());
    waiting.finish_and_clear();
    match ready {
        Err(_) if interrupt.came() => return stop(cluster),
        ready => ready?,
    }
    announce(&cluster)?;
    watch(&mut cluster, &interrupt);
    let all_running = cluster.nodes_mut().iter_mut().all(LocalNode::is_running);
    stop(cluster)?;
    if all_running {
        Ok(())
    } else {
        Err(Failure::Reported)
    }
}

fn plan(args: &Args) -> Result<Plan, Failure> {
    let peers = args
        .port
        .checked_add(PEER_PORT_OFFSET)
        .filter(|_| args.port > 0);
    let peers = peers.ok_or_else(|| {
        Failure::Usage(format!(
            "--port {}: choose one from 1 to {}",
            args.port,
            u16::MAX - PEER_PORT_OFFSET
        ))
    })?;
    let mut flags = vec!["--allow-cuts".to_owned()];
    flags.extend(
        args.otlp_endpoint
            .iter()
            .map(|url| format!("--otlp-endpoint={url}")),
    );
    flags.extend(args.serve_flags.iter().cloned());
    Ok(Plan {
        executable: executable()?,
        nodes: args.nodes,
        folder: args.data_dir.clone(),
        ports: Some(Ports {
            clients: args.port,
            peers,
        }),
        cluster_id: "dev".to_owned(),
        flags,
        outlive: false,
    })
}

/// This very program, so that nodes are of the same build.
pub(super) fn executable() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|source| Failure::File {
        doing: "find",
        path: "this executable".into(),
        source,
    })
}

impl Mark {
    /// Refuses a folder that holds another cluster.
    fn check(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(MARK);
        let found = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Mark>(&bytes).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        let found = found.map_err(|source| Failure::File {
            doing: "read",
            path,
            source,
        })?;
        if found == *self {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "{} holds a cluster of {} nodes at port {}: use --nodes {} --port {}, another --data-dir, or delete it",
            folder.display(),
            found.nodes,
            found.port,
            found.nodes,
            found.port
        )))
    }

    fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(MARK);
        std::fs::write(&path, output::to_json(self)).map_err(|source| Failure::File {
            doing: "write",
            path,
            source,
        })
    }
}

fn announce(cluster: &LocalCluster) -> Result<(), Failure> {
    let mut table = output::table(&["node", "clients", "peers", "pid", "log"]);
    for node in cluster.nodes() {
        let log = node.log.display().to_string();
        table.add_row([
            node.node_id.clone(),
            node.url.clone(),
            node.peer_listen.to_string(),
            node.pid().to_string(),
            log,
        ]);
    }
    output::print_table(&table)?;
    let first = cluster.nodes().first().map_or("", |node| node.url.as_str());
    output::print(format!(
        "ready. Try: sibyl put greeting hello --url {first}\nCtrl-C stops all nodes.\n"
    ))
}

/// Watches until a signal comes or no node is left.
fn watch(cluster: &mut LocalCluster, interrupt: &Interrupt) {
    let mut gone = Vec::new();
    while !interrupt.wait(WATCH) && gone.len() < cluster.nodes().len() {
        for node in cluster.nodes_mut() {
            if gone.contains(&node.node_id) {
                continue;
            }
            if let Err(error) = node.check_running() {
                eprintln!("{error}");
                gone.push(node.node_id.clone());
            }
        }
    }
}

fn stop(mut cluster: LocalCluster) -> Result<(), Failure> {
    eprintln!("stopping…");
    let killed = cluster.stop();
    if killed.is_empty() {
        return Ok(());
    }
    eprintln!("killed after a grace period: {}", killed.join(", "));
    Err(Failure::Reported)
}

#[cfg(test)]
mod tests {
    use super::Mark;

    #[test]
    fn a_folder_remembers_its_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let three = Mark {
            nodes: 3,
            port: 7070,
        };
        three.check(folder.path()).unwrap();
        three.write(folder.path()).unwrap();
        three.check(folder.path()).unwrap();
        let five = Mark {
            nodes: 5,
            port: 7070,
        };
        let message = five.check(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("3 nodes at port 7070") && message.contains("--data-dir"),
            "{message}"
        );
    }

    #[test]
    fn a_damaged_mark_is_an_error_and_not_a_new_cluster() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(super::MARK), "{").unwrap();
        assert!(
            Mark {
                nodes: 3,
                port: 7070
            }
            .check(folder.path())
            .is_err()
        );
    }
}
