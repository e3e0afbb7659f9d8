//! `sibyl bucket list|get|set|delete`, and how any command changes one field of a configuration.
//!
//! A change reads the configuration with its ETag, changes what was asked for and writes all of it back with
//! `If-Match`, so that two operators cannot undo each other unseen.

use clap::Subcommand;
use serde_json::{Map, Value};

use super::client::{Answer, Client, Error, Parts, bucket_path};
use super::connection::Connection;
use super::failure::Failure;
use super::output;

/// What a client may set; everything else in an answer is the node's own and is not sent back.
const SETTABLE: &[&str] = &[
    "n",
    "r",
    "w",
    "sloppy",
    "durability",
    "deletes",
    "max_siblings",
    "max_value_bytes",
    "max_object_bytes",
    "resolver",
    "journal",
];

/// What a client may set of a binding.
const SETTABLE_OF_RESOLVER: &[&str] = &[
    "name", "version", "config", "mode", "laws", "shadow", "limits",
];

/// List, read, create, change and delete buckets
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All buckets
    #[command(after_help = "Example:\n  sibyl bucket list --output json")]
    List {
        #[command(flatten)]
        connection: Connection,
    },
    /// One bucket's configuration
    #[command(after_help = "Example:\n  sibyl bucket get carts")]
    Get {
        /// The bucket.
        bucket: String,
        #[command(flatten)]
        connection: Connection,
    },
    Set(Box<SetArgs>),
    /// Delete a bucket
    #[command(
        after_help = "Examples:\n  sibyl bucket delete carts\n  sibyl bucket delete carts --purge"
    )]
    Delete {
        /// The bucket.
        bucket: String,
        #[command(flatten)]
        connection: Connection,
        /// Delete it with all its keys.
        #[arg(long)]
        purge: bool,
    },
}

/// Create a bucket or change its configuration
///
/// What is not named stays as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl bucket set carts
  sibyl bucket set metrics --n 3 --w 1 --durability buffered
  sibyl bucket set carts --json '{\"max_siblings\": 50}'")]
struct SetArgs {
    /// The bucket.
    bucket: String,
    #[command(flatten)]
    connection: Connection,
    /// Copies of each key; fixed once the bucket exists.
    #[arg(long)]
    n: Option<u32>,
    /// Answers that a read waits for: a number, one, quorum or all.
    #[arg(long)]
    r: Option<String>,
    /// Copies that a write waits for: a number, one, quorum or all.
    #[arg(long)]
    w: Option<String>,
    /// Whether stand-ins count towards w.
    #[arg(long, value_name = "BOOL")]
    sloppy: Option<bool>,
    /// synced: on disk; buffered: handed to the operating system.
    #[arg(long, value_parser = ["synced", "buffered"])]
    durability: Option<String>,
    /// What wins when a delete meets a concurrent write.
    #[arg(long, value_parser = ["write_wins", "delete_wins", "resolver"])]
    deletes: Option<String>,
    /// Most siblings of a key.
    #[arg(long, value_name = "COUNT")]
    max_siblings: Option<u32>,
    /// Largest value.
    #[arg(long, value_name = "BYTES")]
    max_value_bytes: Option<u64>,
    /// Further fields as a JSON object; they win over the other options.
    #[arg(long, value_name = "OBJECT", value_parser = object)]
    json: Option<Map<String, Value>>,
}

/// `sibyl bucket`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::List { connection } => list(connection),
        Command::Get { bucket, connection } => {
            let body = connection
                .client()?
                .get(&bucket_path(bucket), Parts::default())?
                .json()?;
            print_config(connection, &body)
        }
        Command::Set(set) => {
            let client = set.connection.client()?;
            let answer = change(&client, &set.bucket, &fields_of(set))?;
            if answer.body.is_empty() {
                let body = client
                    .get(&bucket_path(&set.bucket), Parts::default())?
                    .json()?;
                return print_config(&set.connection, &body);
            }
            print_config(&set.connection, &answer.json()?)
        }
        Command::Delete {
            bucket,
            connection,
            purge,
        } => {
            let parts = if *purge {
                Parts::default().query("purge", true)
            } else {
                Parts::default()
            };
            let answer = connection.client()?.delete(&bucket_path(bucket), parts)?;
            output::print(format!(
                "deleted bucket {bucket} (trace id {})\n",
                answer.trace_id()
            ))
        }
    }
}

/// Changes these fields of a bucket's configuration and keeps the others; creates the bucket if needed. A
/// `null` takes a field out.
///
/// # Errors
/// The node's refusal; 412 if someone else changed the bucket in between.
pub(super) fn change(
    client: &Client,
    bucket: &str,
    fields: &Map<String, Value>,
) -> Result<Answer, Error> {
    let path = bucket_path(bucket);
    let (mut config, etag) = match client.get(&path, Parts::default()) {
        Ok(answer) => (settable(&answer.json()?), answer.header("etag").to_owned()),
        Err(Error::Refused(problem)) if problem.status == 404 => (Map::new(), String::new()),
        Err(error) => return Err(error),
    };
    for (name, value) in fields {
        match value {
            Value::Null => drop(config.remove(name)),
            value => drop(config.insert(name.clone(), value.clone())),
        }
    }
    let condition = (!etag.is_empty()).then_some(etag.as_str());
    client.put(
        &path,
        Parts::default()
            .maybe_header("if-match", condition)
            .json(&Value::Object(config)),
    )
}

/// The part of a configuration that may be sent back. Nodes may answer with it inside `config` or as it is.
fn settable(body: &Value) -> Map<String, Value> {
    let known = |value: &Value, names: &[&str]| -> Map<String, Value> {
        let fields = value.as_object().into_iter().flatten();
        let kept =
            fields.filter(|(name, value)| names.contains(&name.as_str()) && !value.is_null());
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let mut config = known(body.get("config").unwrap_or(body), SETTABLE);
    if let Some(resolver) = config.get_mut("resolver") {
        *resolver = Value::Object(known(resolver, SETTABLE_OF_RESOLVER));
    }
    config
}

fn fields_of(args: &SetArgs) -> Map<String, Value> {
    let quorum = |text: &String| {
        text.parse::<u32>()
            .map_or_else(|_| Value::from(text.clone()), Value::from)
    };
    let named = [
        ("n", args.n.map(Value::from)),
        ("r", args.r.as_ref().map(quorum)),
        ("w", args.w.as_ref().map(quorum)),
        ("sloppy", args.sloppy.map(Value::from)),
        ("durability", args.durability.clone().map(Value::from)),
        ("deletes", args.deletes.clone().map(Value::from)),
        ("max_siblings", args.max_siblings.map(Value::from)),
        ("max_value_bytes", args.max_value_bytes.map(Value::from)),
    ];
    let mut fields: Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    fields.extend(args.json.clone().unwrap_or_default());
    fields
}

/// A JSON object from the command line.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("expected a JSON object, for example {\"max_siblings\": 50}".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

fn list(connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get("/v1/buckets", Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    let mut table = output::table(&["bucket", "n", "r", "w", "durability", "deletes", "resolver"]);
    let buckets = output::entries(&body, "buckets");
    for bucket in buckets {
        let config = bucket.get("config").unwrap_or(bucket);
        let name = ["name", "bucket"]
            .iter()
            .find_map(|field| bucket.get(field))
            .unwrap_or(bucket);
        let field = |name: &str| output::field(config, name);
        let resolver = config
            .pointer("/resolver/name")
            .map_or_else(|| "-".to_owned(), output::cell);
        let columns = [
            field("n"),
            field("r"),
            field("w"),
            field("durability"),
            field("deletes"),
            resolver,
        ];
        table.add_row(std::iter::once(output::cell(name)).chain(columns));
    }
    output::print_table(&table)
}

fn print_config(connection: &Connection, body: &Value) -> Result<(), Failure> {
    if connection.json() {
        return output::print_json(body);
    }
    let fields = body.get("config").unwrap_or(body).as_object();
    let rows: Vec<(&str, String)> = fields
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), output::cell(value)))
        .collect();
    output::print_table(&output::facts(&rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{object, settable};

    #[test]
    fn only_what_a_client_may_set_is_sent_back() {
        let flat = json!({ "name": "carts", "incarnation": 7, "n": 3, "resolver": { "name": "cart", "epoch": 4 },
                           "journal": null });
        let nested = json!({ "name": "carts", "config": { "n": 3, "resolver": { "name": "cart", "epoch": 4 } } });
        let expected = json!({ "n": 3, "resolver": { "name": "cart" } });
        for body in [flat, nested] {
            assert_eq!(
                serde_json::Value::Object(settable(&body)),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn json_options_must_be_objects() {
        assert!(object("{\"n\": 3}").is_ok());
        assert!(object("3").is_err_and(|reason| reason.contains("JSON object")));
        assert!(object("{").is_err_and(|reason| reason.contains("not JSON")));
    }
}
