//! What a node is told before it starts: one table of flags, three layers, one checked result.
//!
//! [`FLAGS`] is the only list. A flag `--gossip-interval` is also `SIBYL_GOSSIP_INTERVAL` in the environment and
//! `gossip_interval` in `sibyl.toml`; flags win over the environment, the environment over the file, the file
//! over the defaults. [`Settings`] keeps each value as text with the place it came from, so that a refusal can
//! name that place. [`Config`] is what the rest of the node sees.
//!
//! Invariant: a [`Config`] that exists is consistent; nobody behind it checks again.

mod flags;
mod parse;
mod settings;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{FLAGS, Flag, Kind};
pub use settings::{Layer, Settings, environment_name, file_name};

/// Longest node id, cluster id or zone name, in bytes: it travels in every handshake and metric label.
pub const MAX_NAME_BYTES: usize = 64;

/// Most first members: all of them must accept document 2, and every node keeps one connection to each.
pub const MAX_MEMBERS: usize = 128;

/// Most partitions: a Merkle tree of 4,096 leaves for each is still affordable.
pub const MAX_PARTITIONS: u32 = 1 << 16;

/// Most tokens of one node: 128 members of 1,024 are 131,072 points, sorted once per layout.
pub const MAX_TOKENS: u32 = 1024;

/// Heartbeats that must be missing before a member is suspected: one may be lost, and one is always under way.
pub const LEAST_SILENT_INTERVALS: u32 = 3;

/// Shortest gossip interval: ten rounds a second among a few peers are still noise.
pub const MIN_GOSSIP_INTERVAL: Duration = Duration::from_millis(100);

/// Shortest reaping interval: a question to each member, ten times a second.
pub const MIN_REAP_INTERVAL: Duration = Duration::from_millis(100);

/// Everything a node needs to know to start. Built by [`Config::resolve`] and consistent from then on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node's name, unique in its cluster.
    pub node_id: String,
    /// Where clients are served over HTTP.
    pub listen: SocketAddr,
    /// Where operation is served over HTTP; `None`: on `listen` with everything else.
    pub admin_listen: Option<SocketAddr>,
    /// Where other nodes connect.
    pub peer_listen: SocketAddr,
    /// The folder of this node's store; nothing outside it is written.
    pub data_dir: PathBuf,
    /// How the cluster comes to be, if the store does not know it yet.
    pub forming: Forming,
    /// Zone of this node, for spreading replicas.
    pub zone: Option<String>,
    /// Base URL that clients are told; `http://HOST:PORT`.
    pub advertise: String,
    /// `HOST:PORT` that other nodes are told.
    pub peer_advertise: String,
    /// Points on the ring per node, 1 to [`MAX_TOKENS`].
    pub tokens: u32,
    /// Slices of the ring, a power of two up to [`MAX_PARTITIONS`]; fixed at forming.
    pub partitions: u32,
    /// Time between two gossip rounds.
    pub gossip_interval: Duration,
    /// Silence after which a member is suspected.
    pub suspect_after: Duration,
    /// Suspicion after which a member is removed; zero: only an operator removes members.
    pub down_after: Duration,
    /// Whether `POST /v1/cluster/cut` exists. Only on loopback.
    pub allow_cuts: bool,
    /// Whether a listener may face a network without TLS; shown in `/health/ready`.
    pub insecure: bool,
    /// Where spans go over OTLP; `None`: what the standard `OTEL_*` variables say.
    pub otlp_endpoint: Option<String>,
    /// Share of traces kept, 0 to 1.
    pub trace_ratio: f64,
    /// The most bytes of hints for other nodes that are taken in; `None`: a tenth of the disk.
    pub hint_quota_bytes: Option<u64>,
    /// Requests of clients that run at once; `None`: 256.
    pub max_requests: Option<usize>,
    /// Free below this on the disk of `data_dir`, values are refused; `None`: 256 MiB.
    pub low_water_bytes: Option<u64>,
    /// Whether copies are compared with other owners without being asked.
    pub anti_entropy: bool,
    /// Time between two rounds of reaping; `None`: this node takes no part.
    pub reap_interval: Option<Duration>,
    /// What becomes of what this node holds if it was removed.
    pub salvage: Salvage,
    /// The peer address of a member of the lineage that this node's own is given up for.
    pub yield_to: Option<String>,
    /// Threads of the runtime; `None`: one per core.
    pub workers: Option<usize>,
    /// Filter of log lines, as `tracing` understands it.
    pub log: String,
    /// How log lines look; `None`: text on a terminal, JSON elsewhere.
    pub log_format: Option<LogFormat>,
}

/// What a node gives to the owners of now when it comes back after its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Salvage {
    /// What cannot have been deleted and forgotten since.
    Judged,
    /// Everything: what was deleted and forgotten comes back.
    All,
    /// Nothing.
    Nothing,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How a node without a store gets a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forming {
    /// It is a cluster of one.
    Alone {
        /// The cluster's name, if the operator wants one.
        cluster_id: Option<String>,
    },
    /// It is one of the first members; all of them are given the same list.
    Members {
        /// The cluster's name, the same for all.
        cluster_id: String,
        /// Every first member, this node among them, ordered by node id.
        members: Vec<Member>,
    },
    /// It asks a running cluster.
    Join {
        /// The cluster's name, if the operator wants to be sure.
        cluster_id: Option<String>,
        /// Peer addresses of members, at least one.
        addresses: Vec<String>,
        /// Whether it only waits until an operator names it.
        spare: bool,
    },
}

/// One entry of `--members`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The member's node id.
    pub node_id: String,
    /// `HOST:PORT` where it listens for other nodes.
    pub address: String,
    /// Its zone.
    pub zone: Option<String>,
}

/// Why the settings do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named with `--config` cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {message}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A line of the file names no flag.
    #[error("{place} is not a setting of sibyl; {hint}")]
    Unknown {
        /// The line.
        place: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value cannot be used.
    #[error("{place} = {value:?}: {reason}")]
    Value {
        /// Where the value was given.
        place: String,
        /// The value.
        value: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Values that are fine alone do not fit together.
    #[error("{0}")]
    Conflict(#[from] Conflict),
}

/// Values that are fine alone but not together. Each message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A listener faces a network without TLS.
    #[error(
        "--{flag} {address} is not a loopback address, and TLS and tokens are not available yet: listen on 127.0.0.1 behind a proxy that ends TLS, or pass --insecure to accept that anyone on that network reads and writes everything"
    )]
    Exposed {
        /// The flag.
        flag: &'static str,
        /// What it was set to.
        address: SocketAddr,
    },
    /// `--join` and `--members`.
    #[error(
        "--members is for the first members of a new cluster and --join for a node that comes later: give one of them"
    )]
    JoinAndMembers,
    /// `--spare` without `--join`.
    #[error("--spare waits at a running cluster: name members of it with --join")]
    SpareAlone,
    /// More addresses than anybody needs.
    #[error("--join names {count} addresses; at most {MAX_MEMBERS} are asked")]
    TooManyAddresses {
        /// How many.
        count: usize,
    },
    /// It would knock at itself.
    #[error("--join {address} is this node's own --peer-listen: name members of the cluster")]
    JoinsItself {
        /// The address.
        address: String,
    },
    /// `--members` without `--cluster-id`.
    #[error(
        "--members needs --cluster-id: every first member gets the same name, for example --cluster-id shop"
    )]
    NoClusterId,
    /// `--members` does not name this node.
    #[error(
        "--members does not name this node: it is {node_id:?}, the list has {listed}; set --node-id to one of them or add {node_id}=HOST:PORT"
    )]
    NotListed {
        /// This node.
        node_id: String,
        /// The ids of the list.
        listed: String,
    },
    /// A member or an address stands twice in the list.
    #[error("--members names {what} twice")]
    Twice {
        /// The id or address.
        what: String,
    },
    /// More first members than [`MAX_MEMBERS`].
    #[error("--members names {count} nodes; at most {MAX_MEMBERS} can form a cluster")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// `--zone` and the member list disagree.
    #[error("--zone {zone} differs from this node's entry in --members, which says {listed}")]
    Zone {
        /// From the flag.
        zone: String,
        /// From the list.
        listed: String,
    },
    /// Two listeners on one address.
    #[error("--{first} and --{second} are both {address}; each listener needs its own port")]
    SameAddress {
        /// One flag.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What both say.
        address: SocketAddr,
    },
    /// `--allow-cuts` on a network.
    #[error(
        "--allow-cuts is for tests on one machine: --listen and --peer-listen must be loopback addresses, but {address} is not"
    )]
    CutsOnNetwork {
        /// The address that is not loopback.
        address: SocketAddr,
    },
    /// Suspicion faster than gossip.
    #[error(
        "--suspect-after {} must be at least three times --gossip-interval {}: one heartbeat may be lost, and one is always under way",
        humantime::format_duration(*.suspect_after), humantime::format_duration(*.gossip_interval)
    )]
    SuspectTooSoon {
        /// From the flag.
        suspect_after: Duration,
        /// From the flag.
        gossip_interval: Duration,
    },
    /// Removal faster than suspicion.
    #[error(
        "--down-after {} is below --suspect-after {}: a member is suspected first; 0 means that only an operator removes members",
        humantime::format_duration(*.down_after), humantime::format_duration(*.suspect_after)
    )]
    DownTooSoon {
        /// From the flag.
        down_after: Duration,
        /// From the flag.
        suspect_after: Duration,
    },
    /// A wildcard address cannot be told to others.
    #[error(
        "--{listen} {address} means every interface, which others cannot connect to; say how they reach this node with --{advertise}"
    )]
    NotAdvertised {
        /// The listener.
        listen: &'static str,
        /// The wildcard.
        address: SocketAddr,
        /// The flag that helps.
        advertise: &'static str,
    },
    /// Members need a known port.
    #[error(
        "--peer-listen {address} lets the system choose a port, but other nodes must know it: give a port"
    )]
    ChosenPort {
        /// The address.
        address: SocketAddr,
    },
}

impl Config {
    /// Checks settings and fills in what they leave open.
    ///
    /// # Errors
    /// [`Error::Value`] naming the place of a bad value, [`Error::Conflict`] if values do not fit together.
    pub fn resolve(settings: &Settings) -> Result<Config, Error> {
        parse::config(settings)
    }
}
