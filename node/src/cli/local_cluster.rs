//! A whole cluster on this machine: each node its own process of one executable, with its own folder and log.
//!
//! Used by `dev`, `demo`, `bench` and by integration tests. It starts, waits, and stops; it restarts nothing and
//! reads nothing of what nodes store. Invariant: a [`LocalCluster`] that is dropped leaves no process behind,
//! unless it was told to [`LocalCluster::leave_running`]; nodes also stop by themselves when the process that
//! started them dies, because their standard input then closes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{self, Client, Parts};

/// Most nodes of a local cluster: each is a process with its own store and caches.
pub const MAX_NODES: usize = 16;

/// Time a node has to drain after SIGTERM; longer than its own drain limit, then it is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How often a starting or stopping process is looked at.
const POLL: Duration = Duration::from_millis(25);

/// Time of one readiness question; a node that is busy starting may not answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of a log's end is shown when a node dies.
const LOG_TAIL_BYTES: u64 = 2048;

/// Why a local cluster is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More nodes than a machine should carry, or none.
    #[error("a local cluster has 1 to {MAX_NODES} nodes, not {0}")]
    Size(usize),
    /// A port is in use.
    #[error(
        "port {port} is taken ({reason}); stop what listens there or choose other ports with --port"
    )]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A folder or log file could not be made.
    #[error("cannot create {path}: {source}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The executable could not be started.
    #[error("cannot start {executable}: {source}")]
    Spawn {
        /// The executable.
        executable: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node ended by itself.
    #[error("node {node_id} ended with {status}; its log {log} ends with:\n{tail}")]
    Exited {
        /// The node.
        node_id: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A node runs but does not become ready.
    #[error("node {node_id} is not ready after {} s: {reason}; its log is {log}", .waited.as_secs())]
    NotReady {
        /// The node.
        node_id: String,
        /// How long was waited.
        waited: Duration,
        /// What it answered last.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The caller asked to stop waiting.
    #[error("interrupted while waiting for node {node_id}")]
    Interrupted {
        /// The node waited for.
        node_id: String,
    },
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `sibyl` executable.
    pub executable: PathBuf,
    /// How many nodes, 1 to [`MAX_NODES`]; they are called n1, n2, …
    pub nodes: usize,
    /// Folder that gets one folder and one log per node. Must outlive the cluster.
    pub folder: PathBuf,
    /// The ports; `None`: whatever is free.
    pub ports: Option<Ports>,
    /// Name of the cluster.
    pub cluster_id: String,
    /// Further flags of `sibyl serve`, the same for every node.
    pub flags: Vec<String>,
    /// Keep nodes running when this process ends. Else they stop when it does, however it ends.
    pub outlive: bool,
}

/// Fixed ports: node i (from 0) serves clients on `clients + i` and peers on `peers + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// First client port.
    pub clients: u16,
    /// First peer port.
    pub peers: u16,
}

/// One node's process.
#[derive(Debug)]
pub struct LocalNode {
    /// Its id: n1, n2, …
    pub node_id: String,
    /// Base URL for clients.
    pub url: String,
    /// Where it listens for peers.
    pub peer_listen: SocketAddr,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Where its standard output and error go.
    pub log: PathBuf,
    child: Child,
}

/// Several nodes that were started together.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<LocalNode>,
    stop_on_drop: bool,
}

impl LocalCluster {
    /// Starts all processes. They are not ready yet.
    ///
    /// # Errors
    /// Ports, folders or the executable; whatever had been started is stopped again.
    pub fn start(plan: &Plan) -> Result<LocalCluster, Error> {
        if plan.nodes == 0 || plan.nodes > MAX_NODES {
            return Err(Error::Size(plan.nodes));
        }
        let addresses = addresses(plan)?;
        let members: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(i, (_, peers))| format!("n{}={peers}", i + 1))
            .collect();
        let members = members.join(",");
        let mut cluster = LocalCluster {
            nodes: Vec::new(),
            stop_on_drop: true,
        };
        for (index, (clients, peers)) in addresses.into_iter().enumerate() {
            cluster
                .nodes
                .push(LocalNode::start(plan, index, clients, peers, &members)?);
        }
        Ok(cluster)
    }

    /// Starts one other server of the executable: `args` and then `--listen ADDRESS --stop-with-stdin`. It counts as
    /// a node called `name`.
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub fn start_other(
        executable: &Path,
        folder: &Path,
        name: &str,
        args: &[&str],
    ) -> Result<LocalCluster, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|reason| Error::Port { port: 0, reason })?;
        let address = listener
            .local_addr()
            .map_err(|reason| Error::Port { port: 0, reason })?;
        drop(listener);
        let mut command = Command::new(executable);
        command
            .args(args)
            .args(["--listen", &address.to_string(), "--stop-with-stdin"])
            .stdin(Stdio::piped());
        let node = LocalNode::spawn(command, name, folder, address, address)?;
        Ok(LocalCluster {
            nodes: vec![node],
            stop_on_drop: true,
        })
    }

    /// Waits until every node answers `/health/ready` with 200. Blocks; not for use inside an async runtime.
    ///
    /// # Errors
    /// A node ended, is not ready `within` that time, or `interrupted` says true.
    pub fn wait_ready(
        &mut self,
        within: Duration,
        interrupted: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let started = Instant::now();
        for node in &mut self.nodes {
            loop {
                let reason = match ask_ready(&node.url) {
                    Ok(()) => break,
                    Err(reason) => reason,
                };
                node.check_running()?;
                if interrupted() {
                    return Err(Error::Interrupted {
                        node_id: node.node_id.clone(),
                    });
                }
                if started.elapsed() > within {
                    return Err(Error::NotReady {
                        node_id: node.node_id.clone(),
                        waited: within,
                        reason,
                        log: node.log.clone(),
                    });
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// The nodes, n1 first.
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// The nodes, to look after their processes.
    pub fn nodes_mut(&mut self) -> &mut [LocalNode] {
        &mut self.nodes
    }

    /// Stops every node: SIGTERM to all, then a kill for who is left after [`STOP_LIMIT`]. Returns the ids of
    /// nodes that had to be killed.
    pub fn stop(&mut self) -> Vec<String> {
        self.stop_on_drop = false;
        for node in &self.nodes {
            node.signal(Signal::TERM);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline && self.nodes.iter_mut().any(LocalNode::is_running) {
            std::thread::sleep(POLL);
        }
        self.nodes
            .iter_mut()
            .filter_map(|node| node.kill().then(|| node.node_id.clone()))
            .collect()
    }

    /// Lets the processes run on when this value goes. Only sensible with [`Plan::outlive`].
    pub fn leave_running(mut self) {
        self.stop_on_drop = false;
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.stop_on_drop {
            self.stop();
        }
    }
}

impl LocalNode {
    fn start(
        plan: &Plan,
        index: usize,
        clients: SocketAddr,
        peers: SocketAddr,
        members: &str,
    ) -> Result<LocalNode, Error> {
        let node_id = format!("n{}", index + 1);
        let mut command = Command::new(&plan.executable);
        command
            .arg("serve")
            .args(["--node-id", &node_id])
            .args(["--cluster-id", &plan.cluster_id]);
        command
            .args(["--listen", &clients.to_string()])
            .args(["--peer-listen", &peers.to_string()]);
        command
            .arg("--data-dir")
            .arg(plan.folder.join(&node_id))
            .args(["--members", members])
            .args(&plan.flags);
        command.stdin(if plan.outlive {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        if !plan.outlive {
            command.arg("--stop-with-stdin");
        }
        LocalNode::spawn(command, &node_id, &plan.folder, clients, peers)
    }

    fn spawn(
        mut command: Command,
        node_id: &str,
        folder: &Path,
        clients: SocketAddr,
        peer_listen: SocketAddr,
    ) -> Result<LocalNode, Error> {
        let data_dir = folder.join(node_id);
        let log = folder.join(format!("{node_id}.log"));
        std::fs::create_dir_all(&data_dir).map_err(|source| Error::Folder {
            path: data_dir.clone(),
            source,
        })?;
        let (out, err) = log_files(&log).map_err(|source| Error::Folder {
            path: log.clone(),
            source,
        })?;
        command.stdout(out).stderr(err);
        forget_settings(&mut command);
        own_process_group(&mut command);
        let child = command.spawn().map_err(|source| Error::Spawn {
            executable: command.get_program().into(),
            source,
        })?;
        let (node_id, url) = (node_id.to_owned(), format!("http://{clients}"));
        Ok(LocalNode {
            node_id,
            url,
            peer_listen,
            data_dir,
            log,
            child,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// [`Error::Exited`] with the end of the log.
    pub fn check_running(&mut self) -> Result<(), Error> {
        let Ok(Some(status)) = self.child.try_wait() else {
            return Ok(());
        };
        let tail = log_tail(&self.log);
        Err(Error::Exited {
            node_id: self.node_id.clone(),
            status,
            log: self.log.clone(),
            tail,
        })
    }

    /// Kills the process at once, as a crash would. True if it was still running.
    pub fn kill(&mut self) -> bool {
        let running = self.is_running();
        if running {
            // Both fail only if the process is gone already, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        running
    }

    /// Sends a signal. Does nothing if the process is gone and reaped.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The child is not reaped before we ask for it, so the id is still its own.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Settings of the person's shell are for their own nodes, not for these.
fn forget_settings(command: &mut Command) {
    for flag in crate::config::FLAGS {
        command.env_remove(crate::config::environment_name(flag.name));
    }
    command.env_remove("SIBYL_CONFIG");
}

/// Ctrl-C in a terminal goes to the whole foreground group; nodes must hear of it from us, in order.
#[cfg(unix)]
fn own_process_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

fn log_files(path: &Path) -> std::io::Result<(File, File)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok((file.try_clone()?, file))
}

/// The last lines of a log, for messages. Empty if it cannot be read: the message still names the file.
pub fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default())
        .trim_end()
        .to_owned()
}

/// Client and peer address of every node.
fn addresses(plan: &Plan) -> Result<Vec<(SocketAddr, SocketAddr)>, Error> {
    // All listeners are held until every port is known, so that no port is handed out twice.
    let mut held = Vec::new();
    let mut take = |port: u16| -> Result<SocketAddr, Error> {
        let taken = |reason| Error::Port { port, reason };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        held.push(listener);
        Ok(address)
    };
    let mut found = Vec::new();
    for index in 0..plan.nodes {
        let offset = u16::try_from(index).expect("MAX_NODES fits in 16 bits");
        let (clients, peers) = match plan.ports {
            Some(ports) => (
                ports.clients.saturating_add(offset),
                ports.peers.saturating_add(offset),
            ),
            None => (0, 0),
        };
        found.push((take(clients)?, take(peers)?));
    }
    Ok(found)
}

/// Asks a node whether it is ready, and why not.
fn ask_ready(url: &str) -> Result<(), String> {
    let client = Client::new(url, PROBE_TIMEOUT).map_err(|error| error.to_string())?;
    match client.get("/health/ready", Parts::default()) {
        Ok(_) => Ok(()),
        Err(client::Error::Refused(problem)) => Err(problem.to_string()),
        Err(_) => Err("it does not answer yet".to_owned()),
    }
}
