//! The one table of what `sibyl serve` can be told.
//!
//! The command line builds its options from it, the environment and `sibyl.toml` take their names from it, and
//! a test holds the parser to it. It knows nothing of how values are read.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value; the text is its name in `--help`.
    Value(&'static str),
    /// Several values, separated by commas or given again; a list in the file.
    List(&'static str),
    /// Present or not; `true` or `false` in the environment and the file.
    Switch,
}

/// One setting under its three names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Name on the command line, without the dashes in front.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What applies when nobody sets it, for `--help`; empty: nothing.
    pub default: &'static str,
    /// One sentence for `--help`.
    pub help: &'static str,
}

const fn value(
    name: &'static str,
    shown: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind: Kind::Value(shown),
        default,
        help,
    }
}

const fn list(name: &'static str, shown: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind: Kind::List(shown),
        default: "",
        help,
    }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind: Kind::Switch,
        default: "",
        help,
    }
}

/// Every setting, in the order of `--help`.
pub const FLAGS: &[Flag] = &[
    value(
        "node-id",
        "ID",
        "n1",
        "Name of this node, unique in its cluster",
    ),
    value(
        "listen",
        "HOST:PORT",
        "127.0.0.1:7070",
        "Where clients are served over HTTP",
    ),
    value(
        "peer-listen",
        "HOST:PORT",
        "127.0.0.1:7170",
        "Where other nodes connect",
    ),
    value(
        "admin-listen",
        "HOST:PORT",
        "",
        "Serve operation here instead of on --listen",
    ),
    value(
        "data-dir",
        "DIR",
        "./sibyl-data/<node-id>",
        "Folder of this node's store",
    ),
    value(
        "cluster-id",
        "NAME",
        "",
        "Name of the cluster, the same on all first members",
    ),
    list(
        "members",
        "ID=HOST:PORT[/ZONE],…",
        "Peer addresses of all first members, the same on all; they form the cluster in any order of start",
    ),
    list(
        "join",
        "HOST:PORT,…",
        "Peer addresses of members of a running cluster: ask it to take this node in",
    ),
    switch(
        "spare",
        "With --join: only wait until an operator names this node (sibyl cluster join or replace)",
    ),
    value("tokens", "COUNT", "64", "Points on the ring per node"),
    value(
        "partitions",
        "COUNT",
        "256",
        "Slices of the ring, a power of two, fixed when the cluster forms",
    ),
    value(
        "zone",
        "ZONE",
        "",
        "Zone of this node: copies are spread over zones first",
    ),
    value("advertise", "URL", "", "Base URL that clients are told"),
    value(
        "peer-advertise",
        "HOST:PORT",
        "",
        "Address that other nodes are told",
    ),
    value(
        "gossip-interval",
        "TIME",
        "5s",
        "Time between two gossip rounds",
    ),
    value(
        "suspect-after",
        "TIME",
        "15s",
        "Silence after which a member is suspected; at least three gossip intervals",
    ),
    value(
        "down-after",
        "TIME",
        "24h",
        "Suspicion after which a member is removed and others fetch what it owned; 0: only by an operator",
    ),
    value(
        "otlp-endpoint",
        "URL",
        "",
        "Send spans there over OTLP, for example http://127.0.0.1:4317",
    ),
    value(
        "trace-ratio",
        "SHARE",
        "1",
        "Share of traces kept, from 0 to 1",
    ),
    value(
        "hint-quota-bytes",
        "BYTES",
        "",
        "The most that is kept for other nodes while they are away; left out: a tenth of the disk. Over it new hints are refused, none is dropped",
    ),
    value(
        "max-requests",
        "COUNT",
        "",
        "Requests of clients that run at once, left out: 256; four times as many wait for their turn, and the others are told at once (503 overloaded)",
    ),
    value(
        "low-water-bytes",
        "BYTES",
        "",
        "Free below this on the disk, left out: 268435456 (256 MiB), values are refused (507) and below half of it deletes, too; 0: nothing is, and the node stops when a write fails",
    ),
    value(
        "anti-entropy",
        "active|passive",
        "active",
        "Whether copies are compared with other owners all the time, or only when asked for (POST /v1/cluster/anti-entropy). A node that lost its data is refilled either way",
    ),
    value(
        "reap-interval",
        "TIME",
        "60s",
        "How often members tell each other what is over, so that deleted keys can be forgotten after some ten of these; 0: this node takes no part, and so no node forgets any",
    ),
    value(
        "salvage",
        "judged|all|nothing",
        "judged",
        "What this node gives to the owners of now if it comes back after it was removed: what cannot have been deleted and forgotten meanwhile; all, and deleted keys may come back; or nothing. Its old store is put aside then, and it starts empty",
    ),
    value(
        "yield",
        "HOST:PORT",
        "",
        "If one cluster was recovered on two members: give this node's part of it up for the one that is reached at this peer address, give what it holds, and start empty",
    ),
    value(
        "workers",
        "COUNT",
        "one per core",
        "Threads that serve requests",
    ),
    value(
        "log",
        "FILTER",
        "info",
        "Which log lines are written, for example info,sibyl=debug",
    ),
    value(
        "log-format",
        "text|json",
        "",
        "How log lines look; left out: text on a terminal, else JSON",
    ),
    switch(
        "allow-cuts",
        "Allow POST /v1/cluster/cut, which cuts the link to a peer; for tests on one machine",
    ),
    switch(
        "insecure",
        "Allow listeners that face a network although there is no TLS; shown in /health/ready",
    ),
];

/// The flag of that name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}
