//! `sibyl explain`: why a key says what it says.
//!
//! Shows what a node's explain answer holds: where the key lives, who holds which copy, which writes made its
//! siblings, and what a resolver did. Nothing is computed here.

use serde_json::Value;

use super::client::{Parts, key_path};
use super::connection::{Bucket, Connection};
use super::failure::Failure;
use super::output;

/// Show where a key lives, who wrote its siblings and what merged them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl explain cart --bucket carts
  sibyl explain cart --bucket carts --output json | jq '.siblings[].trace_id'")]
pub(super) struct Args {
    /// The key.
    key: String,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
}

/// `sibyl explain`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = key_path(&args.bucket.bucket, &args.key)?;
    let body = args
        .connection
        .client()?
        .get(&path, Parts::default().query("explain", true))?
        .json()?;
    if args.connection.json() {
        return output::print_json(&body);
    }
    let resolver = body.get("resolver").filter(|resolver| !resolver.is_null());
    output::print_table(&output::facts(&[
        ("bucket", output::field(&body, "bucket")),
        ("key", output::field(&body, "key")),
        ("partition", output::field(&body, "partition")),
        (
            "resolver",
            resolver
                .map(|r| {
                    format!(
                        "{} {}",
                        output::field(r, "name"),
                        output::field(r, "version")
                    )
                })
                .unwrap_or_default(),
        ),
        (
            "outcome",
            resolver
                .map(|r| output::field(r, "outcome"))
                .unwrap_or_default(),
        ),
    ]))?;
    let titles = ["node_id", "role", "state", "siblings", "object_digest"];
    print_rows(
        "\npreference list\n",
        &titles,
        rows(&body, "preference_list"),
    )?;
    let titles = [
        "dot",
        "bytes",
        "content_type",
        "modified_at",
        "deleted",
        "trace_id",
    ];
    print_rows("\nsiblings\n", &titles, rows(&body, "siblings"))?;
    if rows(&body, "journal").is_empty() {
        return Ok(());
    }
    print_rows(
        "\njournal\n",
        &["fold", "at", "resolver"],
        rows(&body, "journal"),
    )
}

fn rows<'a>(body: &'a Value, name: &str) -> &'a [Value] {
    body.get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn print_rows(heading: &str, titles: &[&str], rows: &[Value]) -> Result<(), Failure> {
    output::print(heading)?;
    let mut table = output::table(titles);
    for row in rows {
        table.add_row(titles.iter().map(|title| output::field(row, title)));
    }
    output::print_table(&table)
}
