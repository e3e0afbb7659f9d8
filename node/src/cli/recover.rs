//! `sibyl cluster recover`: one member goes on alone after a majority was lost for good.
//!
//! Shows the plan first and asks; a script says `--yes`. Without `--accept-loss` nothing but the plan is ever shown.

use serde_json::{Value, json};

use super::client::Parts;
use super::connection::Connection;
use super::failure::Failure;
use super::{members, output};

/// What it takes.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only say who is given up and what may be lost.
    #[arg(long)]
    plan: bool,
    /// What only the lost members knew may be lost: without this word nothing is done.
    #[arg(long, conflicts_with = "plan")]
    accept_loss: bool,
    /// Do not ask.
    #[arg(long, conflicts_with = "plan")]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Plans, asks, recovers.
pub(super) fn recover(args: &Args) -> Result<(), Failure> {
    let Args {
        plan,
        accept_loss,
        yes,
        connection,
    } = args;
    let client = connection.client()?;
    let ask = |plan: bool| -> Result<Value, Failure> {
        let body = json!({ "accept_loss": *accept_loss });
        let parts = Parts::default().query("plan", plan).json(&body);
        Ok(client.post("/v1/cluster/recover", parts)?.json()?)
    };
    if *plan {
        return show(connection, &ask(true)?);
    }
    if !accept_loss {
        return Err(Failure::Usage(
            "what only the lost members knew would be lost: look at it with --plan, then say --accept-loss".into(),
        ));
    }
    if !yes {
        let planned = ask(true)?;
        let shown = format!(
            "{}\n{}",
            output::table_text(&table(&planned)),
            said(&planned)
        );
        let sentence = format!(
            "{} goes on alone, and every other member is given up",
            connection.url
        );
        members::confirm(&sentence, &shown)?;
    }
    show(connection, &ask(false)?)
}

fn show(connection: &Connection, body: &Value) -> Result<(), Failure> {
    if connection.json() {
        return output::print_json(body);
    }
    output::print_table(&table(body))?;
    output::print(said(body))?;
    let field = |name: &str| output::field(body, name);
    output::print(match body.get("plan").and_then(Value::as_bool) {
        Some(true) => format!(
            "planned on registry {}; nothing was changed\n",
            field("registry")
        ),
        _ => format!(
            "registry {}: this node is the only member of lineage {}; start others with --join\n",
            field("registry"),
            field("lineage")
        ),
    })
}

fn said(body: &Value) -> String {
    let notes = output::entries(body, "notes");
    notes
        .iter()
        .map(|note| format!("- {}\n", output::cell(note)))
        .collect()
}

fn table(body: &Value) -> output::Table {
    let mut table = output::table(&["given up", "state", "reachable", "registry", "store"]);
    for member in output::entries(body, "given_up") {
        let field = |name: &str| output::field(member, name);
        table.add_row([
            field("node_id"),
            field("state"),
            field("reachable"),
            field("registry"),
            field("store"),
        ]);
    }
    table
}
