//! `sibyl cluster join|leave|remove|replace`: who is a member, and what that moves.
//!
//! Each shows the plan first and asks; a script says `--yes`. With `--plan` nothing is changed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::client::{Client, Parts};
use super::connection::Connection;
use super::failure::Failure;
use super::output;

/// What all of them take.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The node.
    pub(super) node: String,
    /// Only say what would move.
    #[arg(long)]
    plan: bool,
    /// Do not ask.
    #[arg(long, conflicts_with = "plan")]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Plans a change, asks, makes it. `what` is the route's last word; `with` who takes a member's places.
pub(super) fn change(args: &Args, what: &str, with: Option<&str>) -> Result<(), Failure> {
    let Args {
        node,
        plan,
        yes,
        connection,
    } = args;
    let client = connection.client()?;
    let ask = |plan| ask(&client, what, node, with, plan);
    if *plan {
        return show(connection, &ask(true)?);
    }
    if !yes {
        let planned = output::table_text(&summary(&ask(true)?));
        confirm(&sentence(what, node, with), &planned)?;
    }
    show(connection, &ask(false)?)
}

fn ask(
    client: &Client,
    what: &str,
    node: &str,
    with: Option<&str>,
    plan: bool,
) -> Result<Value, Failure> {
    let mut body = json!({ "node": node });
    if let Some(with) = with {
        body["with"] = with.into();
    }
    let parts = Parts::default().query("plan", plan).json(&body);
    Ok(client.post(&format!("/v1/cluster/{what}"), parts)?.json()?)
}

fn sentence(what: &str, node: &str, with: Option<&str>) -> String {
    match (what, with) {
        ("join", _) => format!("{node} is taken in"),
        ("leave", _) => format!("{node} hands over what it owns and goes"),
        ("remove", _) => {
            format!(
                "{node} is given up: what only its store holds is lost, and the store never comes back"
            )
        }
        (_, with) => format!("{} takes the places of {node}", with.unwrap_or("-")),
    }
}

/// Shows on standard error what would happen, and goes on only if the answer is yes.
pub(super) fn confirm(sentence: &str, plan: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "{sentence}: look at it with --plan, then say --yes"
        )));
    }
    let said = |source| Failure::File {
        doing: "read",
        path: "standard input".into(),
        source,
    };
    let mut err = std::io::stderr().lock();
    let asked = format!("{plan}\n{sentence}. Go on? [y/N] ");
    err.write_all(asked.as_bytes()).map_err(said)?;
    err.flush().map_err(said)?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(said)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was changed".to_owned())),
    }
}

fn show(connection: &Connection, body: &Value) -> Result<(), Failure> {
    if connection.json() {
        return output::print_json(body);
    }
    output::print_table(&summary(body))?;
    let (registry, moves) = (
        output::field(body, "registry"),
        output::entries(body, "moves").len(),
    );
    output::print(match body.get("plan").and_then(Value::as_bool) {
        Some(true) => format!(
            "planned on registry {registry}: {moves} partitions move; nothing was changed\n"
        ),
        _ => format!(
            "registry {registry}: {moves} partitions move; sibyl cluster status says how far that is\n"
        ),
    })
}

fn summary(body: &Value) -> output::Table {
    let mut table = output::table(&["node", "gains", "gives"]);
    for share in output::entries(body, "summary") {
        let field = |name: &str| output::field(share, name);
        table.add_row([field("node"), field("gains"), field("gives")]);
    }
    table
}
