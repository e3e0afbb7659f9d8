//! Real nodes for tests: each its own process and folder, to be stopped, killed and started again one by one.
//!
//! `local_cluster` of the library starts whole clusters; this exists because tests treat nodes differently.
//! Every wait has a limit and looks at what a node says of itself. Invariant: what a test started is gone when
//! it ends, however it ends: a node also stops when its standard input closes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sibyl::cli::local_cluster::log_tail;
use tempfile::TempDir;

use crate::ask::{Answer, Ask, get, post};

pub(crate) const SIBYL: &str = env!("CARGO_BIN_EXE_sibyl");

/// Far beyond what a busy machine needs: running out means that it never happens.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something observable.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` is content; it says what it saw instead.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(saw) if began.elapsed() > PATIENCE => panic!("waited for: {what}; saw: {saw}"),
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) http: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) folder: PathBuf,
    flags: Vec<String>,
    /// Variables of its environment, beside what it inherits.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

/// Nodes of one cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Goes with the cluster.
    folder: TempDir,
}

impl Node {
    /// Starts it, or starts it again on what it left.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.id);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new(SIBYL);
        command
            .args(["serve", "--stop-with-stdin", "--node-id", &self.id])
            .args(["--listen", &self.http.to_string()])
            .args(["--peer-listen", &self.peer.to_string()])
            .arg("--data-dir")
            .arg(&self.folder)
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let inherited = std::env::vars().filter(|(name, _)| name.starts_with("SIBYL_"));
        for (name, _) in inherited {
            command.env_remove(name);
        }
        let env = self.env.iter();
        command.envs(env.map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().unwrap());
    }

    /// Another process with the same id, addresses and flags, and a folder beside this one's.
    pub(crate) fn like(&self, folder: &str) -> Self {
        let (id, flags, folder) = (
            self.id.clone(),
            self.flags.clone(),
            self.folder.with_file_name(folder),
        );
        Self {
            id,
            http: self.http,
            peer: self.peer,
            folder,
            flags,
            env: Vec::new(),
            child: None,
        }
    }

    /// Starts it with `--name=value` from now on.
    pub(crate) fn set_flag(&mut self, name: &str, value: &str) {
        let name = format!("--{name}=");
        self.flags.retain(|flag| !flag.starts_with(&name));
        self.flags.push(format!("{name}{value}"));
    }

    /// If nobody is left of those whom it is told to ask at its start, it asks these from now on.
    pub(crate) fn ask_at_start(&mut self, peers: &[String]) {
        let asks = |flag: &&String| flag.starts_with("--members=") || flag.starts_with("--join=");
        let asked = self.flags.iter().find(asks).expect("it has others");
        if !peers.iter().any(|peer| asked.contains(peer)) {
            let gone = ["--members=", "--cluster-id=", "--join="];
            self.flags
                .retain(|flag| !gone.iter().any(|gone| flag.starts_with(gone)));
            self.flags.push(format!("--join={}", peers.join(",")));
        }
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Everything it said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop, as an operator would, without waiting.
    pub(crate) fn tell_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop and waits until it did.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.tell_to_stop();
        self.ended()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = until("the process ends", || {
            child.try_wait().unwrap().ok_or_else(|| self.tail())
        });
        child.wait().unwrap();
        status
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn tail(&self) -> String {
        format!(
            "the log of {} ends with:\n{}",
            self.id,
            log_tail(&self.log())
        )
    }

    /// Asks it something; fails if it does not answer at all.
    #[track_caller]
    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        match ask.send(self.http) {
            Ok(answer) => answer,
            Err(error) => panic!("{} does not answer: {error}", self.id),
        }
    }

    /// Cuts its side of the link to a peer, or mends it.
    pub(crate) fn cut(&self, peer: &Node, cut: bool) {
        let body = serde_json::json!({ "peer": peer.id, "cut": cut });
        self.ask(&post("/v1/cluster/cut", &body)).expect(200);
    }

    /// Which other members it says it can reach, and believes to be alive.
    pub(crate) fn reaches(&self) -> Result<Vec<String>, String> {
        let answer = get("/v1/cluster")
            .send(self.http)
            .map_err(|error| format!("{}: {error}", self.id))?;
        let alive = |member: &serde_json::Value| {
            member["state"] == "alive"
                && member["reachable"] == true
                && member["node_id"] != self.id
        };
        let members = answer.json()["members"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(members
            .iter()
            .filter(|member| alive(member))
            .map(|member| crate::ask::text(&member["node_id"]))
            .collect())
    }

    /// Waits until it reaches exactly these.
    #[track_caller]
    pub(crate) fn wait_reaches(&self, wanted: &[&str]) {
        let what = format!("{} reaches {wanted:?}", self.id);
        until(&what, || match self.reaches()? {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}; {}", self.tail())),
        });
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        until(&format!("{} is ready", self.id), || self.is_ready());
    }

    fn is_ready(&self) -> Result<(), String> {
        match get("/health/ready").send(self.http) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{answer}; {}", self.tail())),
            Err(error) => Err(format!("{error}; {}", self.tail())),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it is gone already.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Cluster {
    /// Nodes that are not started yet, called n1, n2, …
    pub(crate) fn plan(count: usize, flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let peers: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
        let members = peers
            .iter()
            .enumerate()
            .map(|(at, peer)| format!("n{}={peer}", at + 1));
        let members = members.collect::<Vec<_>>().join(",");
        let node = |(at, peer): (usize, SocketAddr)| {
            let id = format!("n{}", at + 1);
            let mut all = vec![
                "--cluster-id=test".to_owned(),
                format!("--members={members}"),
            ];
            all.extend(flags.iter().map(|flag| (*flag).to_owned()));
            Node {
                folder: folder.path().join(&id),
                id,
                http: free_address(),
                peer,
                flags: all,
                env: Vec::new(),
                child: None,
            }
        };
        let nodes = peers.into_iter().enumerate().map(node).collect();
        Self { nodes, folder }
    }

    /// One more node, not started, that asks this cluster to take it in.
    pub(crate) fn joiner(&self, id: &str, flags: &[&str]) -> Node {
        let peers: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.peer.to_string())
            .collect();
        let mut all = vec![format!("--join={}", peers.join(","))];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Node {
            folder: self.folder.path().join(id),
            id: id.to_owned(),
            http: free_address(),
            peer: free_address(),
            flags: all,
            env: Vec::new(),
            child: None,
        }
    }

    /// Three nodes, started, ready and connected. `--partitions 16`: few enough to be small, enough to
    /// give every node every role.
    pub(crate) fn three() -> Self {
        let mut cluster = Self::plan(3, &["--allow-cuts", "--partitions=16"]);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_whole();
        cluster
    }

    /// The cluster that the tests of a module share while they run.
    pub(crate) fn shared(slot: &Shared) -> Arc<Self> {
        let mut slot = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::three());
            *slot = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// Waits until every node that runs is ready and reaches exactly those that run.
    #[track_caller]
    pub(crate) fn wait_whole(&self) {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.runs()).collect();
        for node in &running {
            node.wait_ready();
            let others = running.iter().filter(|other| other.id != node.id);
            node.wait_reaches(&others.map(|other| other.id.as_str()).collect::<Vec<_>>());
        }
    }

    /// Sends it to a node by its id.
    #[track_caller]
    pub(crate) fn node(&self, id: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.id == id)
            .expect("a member")
    }

    /// The preference list of a key, as ids.
    pub(crate) fn owners(&self, bucket: &str, key: &str) -> Vec<String> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.runs())
            .expect("one runs");
        let path = crate::ask::key(bucket, key) + "?explain=true&r=1";
        let body = node.ask(&get(path)).expect(200).json();
        let list = body["preference_list"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .map(|owner| crate::ask::text(&owner["node_id"]))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes
                .iter()
                .for_each(|node| eprintln!("{}", node.tail()));
        }
    }
}

/// A cluster that lives while some test holds it.
pub(crate) struct Shared(Mutex<Weak<Cluster>>);

impl Shared {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }
}

/// A free address.
pub(crate) fn free_address() -> SocketAddr {
    free_addresses(&[0])
}

/// The first of several addresses, free at these distances from it. They lie below the ports that the system
/// hands out, so that no outgoing connection takes one before its node does, and no two calls in this process
/// overlap.
pub(crate) fn free_addresses(distances: &[u16]) -> SocketAddr {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of the tests on this machine begins elsewhere.
    let spread = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    let length = distances.iter().max().unwrap() + 1;
    loop {
        let next = NEXT.fetch_add(length, Ordering::Relaxed);
        let first = FIRST + spread.wrapping_add(next) % COUNT;
        let at = |distance: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, first + distance));
        if distances
            .iter()
            .all(|distance| TcpListener::bind(at(*distance)).is_ok())
        {
            return at(0);
        }
    }
}
