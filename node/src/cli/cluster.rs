//! `sibyl cluster` and `sibyl health`: what one node says about the cluster and about itself.
//!
//! Every answer is one node's view; ask another with `--url` to compare. `cut` exists for tests on one machine.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Error, Parts};
use super::connection::Connection;
use super::failure::Failure;
use super::output;

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

fn status(connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get("/v1/cluster", Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
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
    let accusers = member.get("suspected_by").map(output::cell);
    let accusers = accusers.filter(|accusers| state == "alive" && !accusers.is_empty());
    let reachable = member.get("reachable").and_then(Value::as_bool);
    match (accusers, reachable) {
        (Some(accusers), _) => format!("{state} (suspected by {accusers})"),
        (None, Some(false)) if state == "alive" => format!("{state} (not reachable from here)"),
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
