//! `sibyl cluster` and `sibyl health`: what one node says about the cluster and about itself.
//!
//! Every answer is one node's view; ask another with `--url` to compare. `cut` exists for tests on one machine.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Error, Parts};
use super::connection::Connection;
use super::failure::Failure;
use super::{members, output, recover};

/// Show members, ring and registry as one node sees them
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Members with their state
    #[command(after_help = "Example:\n  sibyl cluster status --url http://127.0.0.1:7071")]
    Status {
        #[command(flatten)]
        connection: Connection,
    },
    /// How the ring is shared among the nodes
    #[command(
        after_help = "Examples:\n  sibyl cluster ring\n  sibyl cluster ring --output json | jq '.owners[17]'"
    )]
    Ring {
        #[command(flatten)]
        connection: Connection,
    },
    /// Number, hash and pending proposal of the registry
    #[command(after_help = "Example:\n  sibyl cluster registry")]
    Registry {
        #[command(flatten)]
        connection: Connection,
    },
    /// What the asked node compares with other owners
    #[command(
        after_help = "Examples:\n  sibyl cluster anti-entropy\n  sibyl cluster anti-entropy --start --url http://127.0.0.1:7071"
    )]
    AntiEntropy {
        /// Compare everything with everybody now.
        #[arg(long)]
        start: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// What a node keeps for others that are away, and whether it is delivered
    #[command(after_help = "\
A node shows what it keeps itself: ask each with --url. With --wait it answers once all it kept at that moment is
delivered, and exits with 1 if that takes longer.

Examples:
  sibyl cluster handoff
  sibyl cluster handoff --wait 30s --url http://127.0.0.1:7071")]
    Handoff {
        /// Wait until what is kept now is delivered, at most so long (up to 60s, and less than --timeout).
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take in a node that waits (sibyl serve --join … --spare)
    #[command(
        after_help = "Examples:\n  sibyl cluster join n4 --plan\n  sibyl cluster join n4 --yes --url http://127.0.0.1:7071"
    )]
    Join(members::Args),
    /// Let a member hand over what it owns and go
    #[command(after_help = "Examples:\n  sibyl cluster leave n2 --plan\n  sibyl cluster leave n2")]
    Leave(members::Args),
    /// Give up a member that is gone for good; others fetch what it owned
    #[command(after_help = "\
A member that answers is not removed: let it leave, or stop it first. A removed store never comes back: if the node
is started again, it gives what it holds to the owners of now (--salvage), puts its store aside, and is a newcomer.

Examples:
  sibyl cluster remove n3 --plan
  sibyl cluster remove n3 --yes")]
    Remove(members::Args),
    /// Let a node that waits take the places of a member, which hands over if it answers
    #[command(after_help = "Example:\n  sibyl cluster replace n3 --with n7 --plan")]
    Replace {
        /// The node that takes its places.
        #[arg(long, value_name = "NODE")]
        with: String,
        #[command(flatten)]
        args: members::Args,
    },
    /// Go on with one member that is left, alone, after a majority was lost for good
    #[command(after_help = "\
Without a majority nothing can be changed any more: no bucket, no member. If the others are gone for good, say so to
exactly one member that is left; best the one with the highest registry number (sibyl cluster registry). It becomes
the only member of a new lineage and keeps buckets, resolvers, context keys and its copies; then let new nodes join.
Whoever of the old members comes back is fenced: it gives what it holds and starts empty. Lost is what only the lost
members knew. Refused while a majority answers.

Examples:
  sibyl cluster recover --plan --url http://127.0.0.1:7070
  sibyl cluster recover --accept-loss --url http://127.0.0.1:7070")]
    Recover(recover::Args),
    /// Cut the link from the asked node to a peer (needs --allow-cuts; do it on both sides)
    #[command(
        after_help = "Examples:\n  sibyl cluster cut n2 --url http://127.0.0.1:7070\n  sibyl cluster cut n2 --heal"
    )]
    Cut {
        /// The peer's node id.
        peer: String,
        /// Mend the link instead.
        #[arg(long)]
        heal: bool,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Ask a node whether it is ready to serve
#[derive(clap::Args)]
#[command(after_help = "\
Exit code 0 only if it is.

Examples:
  sibyl health
  sibyl health --url http://127.0.0.1:7071 --output json")]
pub(super) struct HealthArgs {
    #[command(flatten)]
    connection: Connection,
}

/// `sibyl cluster`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Status { connection } => status(connection),
        Command::Ring { connection } => ring(connection),
        Command::Registry { connection } => {
            let body = connection
                .client()?
                .get("/v1/registry", Parts::default())?
                .json()?;
            if connection.json() {
                return output::print_json(&body);
            }
            let fields = body.as_object().into_iter().flatten();
            let rows: Vec<_> = fields
                .map(|(name, value)| (name.as_str(), output::cell(value)))
                .collect();
            output::print_table(&output::facts(&rows))
        }
        Command::AntiEntropy { start, connection } => anti_entropy(connection, *start),
        Command::Handoff { wait, connection } => handoff(connection, *wait),
        Command::Join(args) => members::change(args, "join", None),
        Command::Leave(args) => members::change(args, "leave", None),
        Command::Remove(args) => members::change(args, "remove", None),
        Command::Replace { with, args } => members::change(args, "replace", Some(with)),
        Command::Recover(args) => recover::recover(args),
        Command::Cut {
            peer,
            heal,
            connection,
        } => {
            cut(&connection.client()?, peer, !heal)?;
            let done = if *heal { "mended" } else { "cut" };
            output::print(format!(
                "{} has {done} its link to {peer}\n",
                connection.url
            ))
        }
    }
}

/// Cuts or mends the link from a node to one of its peers.
pub(super) fn cut(client: &Client, peer: &str, cut: bool) -> Result<(), Error> {
    let parts = Parts::default().json(&json!({ "peer": peer, "cut": cut }));
    client.post("/v1/cluster/cut", parts).map(drop)
}

fn handoff(connection: &Connection, wait: Option<Duration>) -> Result<(), Failure> {
    let client = connection.client()?;
    let body = match wait {
        None => client
            .get("/v1/cluster/handoff", Parts::default())?
            .json()?,
        Some(wait) => {
            let parts = Parts::default().query("timeout_ms", wait.as_millis());
            client.post("/v1/cluster/handoff", parts)?.json()?
        }
    };
    if connection.json() {
        output::print_json(&body)?;
    } else {
        let mut table = output::table(&["target", "hints", "bytes", "oldest", "refused"]);
        let hints = body.get("hints").and_then(Value::as_array);
        for hint in hints.map(Vec::as_slice).unwrap_or_default() {
            let field = |name: &str| hint.get(name).map(output::cell).unwrap_or_default();
            let age = hint.get("oldest_age_ms").and_then(Value::as_u64);
            let age = age.map_or_else(|| "-".to_owned(), |age| format!("{} s", age / 1000));
            table.add_row([
                field("target"),
                field("count"),
                field("bytes"),
                age,
                field("refused"),
            ]);
        }
        output::print_table(&table)?;
    }
    match body.get("delivered").and_then(Value::as_bool) {
        Some(false) => Err(Failure::Failed(format!(
            "{} still keeps hints: is their target up, and does it take writes?",
            connection.url
        ))),
        _ => Ok(()),
    }
}

fn status(connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get("/v1/cluster", Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    if let Some(salvage) = body.get("salvage") {
        return salvaged(salvage);
    }
    let field = |name: &str| body.get(name).map(output::cell).unwrap_or_default();
    let healthy = body
        .get("healthy")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    output::print_table(&output::facts(&[
        ("cluster", field("cluster_id")),
        ("seen by", field("node_id")),
        ("registry", field("registry")),
        (
            "healthy",
            if healthy {
                "yes".to_owned()
            } else {
                format!("no: {}", field("reasons"))
            },
        ),
    ]))?;
    let mut table = output::table(&[
        "node",
        "state",
        "incarnation",
        "listen",
        "peer listen",
        "zone",
        "tokens",
        "heartbeat age",
    ]);
    for member in output::entries(&body, "members") {
        table.add_row(row(member));
    }
    output::print_table(&table)?;
    coming_and_going(&body)?;
    match body.get("was_suspected").filter(|value| !value.is_null()) {
        Some(suspected) => {
            let by = suspected.get("by").map(output::cell).unwrap_or_default();
            let age = suspected.get("age_ms").and_then(Value::as_u64).unwrap_or(0);
            output::print(format!(
                "this node learnt {} s ago from {by} that it had been suspected\n",
                age / 1000
            ))
        }
        None => Ok(()),
    }
}

/// Who asks to be taken in, and how far a change of owners is.
fn coming_and_going(body: &Value) -> Result<(), Failure> {
    for candidate in output::entries(body, "candidates") {
        let field = |name: &str| output::field(candidate, name);
        let spare = candidate.get("spare").and_then(Value::as_bool);
        let wants = match spare {
            Some(true) => "waits to be named (sibyl cluster join or replace)",
            _ => "asks to be taken in",
        };
        output::print(format!(
            "{} at {} {wants}\n",
            field("node_id"),
            field("peer_listen")
        ))?;
    }
    let change = body.get("owner_change").filter(|change| change.is_object());
    let Some(change) = change else { return Ok(()) };
    let missing = change.get("missing").and_then(Value::as_object);
    let missing = missing.into_iter().flatten();
    let missing: Vec<String> = missing
        .map(|(node, count)| format!("{node} has {count} partitions to fetch"))
        .collect();
    let how_far = match missing.is_empty() {
        true => "all is fetched".to_owned(),
        false => missing.join(", "),
    };
    output::print(format!(
        "owners are changing since registry {}: {how_far}\n",
        output::field(change, "began")
    ))
}

/// What is shown of a member.
fn row(member: &Value) -> [String; 8] {
    let field = |name: &str| output::field(member, name);
    let age = member.get("heartbeat_age_ms").and_then(Value::as_u64);
    [
        field("node_id"),
        state(member),
        field("incarnation"),
        field("listen"),
        field("peer_listen"),
        field("zone"),
        field("tokens"),
        age.map_or_else(|| "-".to_owned(), |age| format!("{age} ms")),
    ]
}

/// A member's state, and who says otherwise.
fn state(member: &Value) -> String {
    let state = output::field(member, "state");
    let leaving = member.get("leaving").and_then(Value::as_bool);
    let state = match leaving {
        Some(true) => format!("{state}, leaving"),
        _ => state,
    };
    let accusers = member.get("suspected_by").map(output::cell);
    let accusers = accusers.filter(|accusers| state.starts_with("alive") && !accusers.is_empty());
    let reachable = member.get("reachable").and_then(Value::as_bool);
    match (accusers, reachable) {
        (Some(accusers), _) => format!("{state} (suspected by {accusers})"),
        (None, Some(false)) if state.starts_with("alive") => {
            format!("{state} (not reachable from here)")
        }
        _ => state,
    }
}

fn ring(connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get("/v1/cluster/ring", Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    let partitions = body.get("partitions").and_then(Value::as_u64).unwrap_or(0);
    let owners = output::entries(&body, "owners");
    let mut table = output::table(&["node", "tokens", "owned partitions", "first owner of"]);
    for node in output::entries(&body, "nodes") {
        let id = node.get("node_id").unwrap_or(&Value::Null);
        let first = owners.iter().filter(|list| list.get(0) == Some(id)).count();
        let tokens = node
            .get("tokens")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let owned = node
            .get("owned")
            .map_or_else(|| "-".to_owned(), output::cell);
        let share = (first * 100)
            .checked_div(usize::try_from(partitions).unwrap_or(usize::MAX))
            .unwrap_or(0);
        table.add_row([
            output::cell(id),
            tokens.to_string(),
            owned,
            format!("{first} ({share} %)"),
        ]);
    }
    output::print_table(&table)?;
    output::print(format!(
        "{partitions} partitions, registry {}\n",
        body.get("registry").map(output::cell).unwrap_or_default()
    ))
}

fn anti_entropy(connection: &Connection, start: bool) -> Result<(), Failure> {
    const PATH: &str = "/v1/cluster/anti-entropy";
    let client = connection.client()?;
    let answer = match start {
        true => client.post(PATH, Parts::default())?,
        false => client.get(PATH, Parts::default())?,
    };
    let body = answer.json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    let totals = body.get("totals").and_then(Value::as_object);
    let mut facts: Vec<_> = totals
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), output::cell(value)))
        .collect();
    for name in ["unclean_partitions", "damaged_records"] {
        facts.push((name, body.get(name).map(output::cell).unwrap_or_default()));
    }
    if let Some(rebuilding) = body
        .get("rebuilding")
        .filter(|rebuilding| rebuilding.is_object())
    {
        let field = |name: &str| rebuilding.get(name).map(output::cell).unwrap_or_default();
        let (filled, of) = (field("filled_partitions"), field("partitions"));
        facts.push(("filled again", format!("{filled} of {of} partitions")));
    }
    output::print_table(&output::facts(&facts))?;
    let mut table = output::table(&["peer", "last success", "dirty partitions"]);
    let peers = body.get("peers").and_then(Value::as_array);
    for peer in peers.map(Vec::as_slice).unwrap_or_default() {
        let field = |name: &str| peer.get(name).map(output::cell).unwrap_or_default();
        let ago = peer.get("last_success_ms_ago").and_then(Value::as_u64);
        let ago = ago.map_or_else(|| "-".to_owned(), |ago| format!("{ago} ms ago"));
        table.add_row([field("node_id"), ago, field("dirty_partitions")]);
    }
    output::print_table(&table)
}

/// What a node says that was removed, and is no member.
fn salvaged(salvage: &Value) -> Result<(), Failure> {
    let field = |name: &str| salvage.get(name).map(output::cell).unwrap_or_default();
    let over = salvage.get("over") == Some(&Value::Bool(true));
    let stands = match (over, salvage.get("waits_for").and_then(Value::as_str)) {
        (true, _) => "over: the node starts empty".to_owned(),
        (false, None) => format!("{} partitions are left", field("partitions_left")),
        (false, Some(why)) => {
            let left = field("partitions_left");
            format!("{left} partitions are left; it waits: {why}")
        }
    };
    output::print_table(&output::facts(&[
        ("cluster", field("cluster_id")),
        ("removed", field("node_id")),
        ("by document", field("removed_by")),
        ("salvage", stands),
        ("imported", field("imported")),
        ("known", field("known")),
        ("quarantined", field("quarantined")),
        ("of deleted buckets", field("gone")),
        ("damaged", field("damaged")),
    ]))
}

/// `sibyl health`.
pub(super) fn health(args: &HealthArgs) -> Result<(), Failure> {
    let answer = args
        .connection
        .client()?
        .get("/health/ready", Parts::default())?;
    let body = answer.json().unwrap_or(Value::Null);
    if args.connection.json() {
        return output::print_json(&body);
    }
    let reasons = body
        .get("reasons")
        .map(output::cell)
        .filter(|reasons| !reasons.is_empty());
    output::print(format!(
        "ready{}\n",
        reasons
            .map(|reasons| format!(" ({reasons})"))
            .unwrap_or_default()
    ))
}
