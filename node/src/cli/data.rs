//! `sibyl get`, `put`, `delete` and `list`: the data API for people and scripts.
//!
//! What a node answers is shown, never interpreted: no merging, no choosing among siblings. A context is what
//! the node gave, passed back as it is.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::{Answer, Parts, key_path};
use super::connection::{Bucket, Connection};
use super::failure::Failure;
use super::output;

/// Most bytes `put` reads: the largest value a bucket can be configured for.
const MAX_VALUE_BYTES: u64 = 16 << 20;

/// Most keys of one page of `list`, as the API has it.
const MAX_PAGE: u32 = 1000;

/// Read a key
///
/// Shows the value, or all siblings if writes conflict and nothing merged them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl get greeting
  sibyl get greeting --raw > greeting.txt
  sibyl get cart --bucket carts --siblings --output json")]
pub(super) struct GetArgs {
    /// The key.
    key: String,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
    /// Print the value's bytes and nothing else; fails if there are several.
    #[arg(long, conflicts_with_all = ["siblings", "output"])]
    raw: bool,
    /// Show all siblings even if a resolver merges them.
    #[arg(long)]
    siblings: bool,
    /// How many nodes must answer: 1 to n, one, quorum or all.
    #[arg(long, short, value_name = "COUNT")]
    r: Option<String>,
    /// Answer with what was found if too few nodes answer.
    #[arg(long)]
    partial: bool,
}

/// Write a key
///
/// The value is the argument, a file, or standard input.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl put greeting hello
  echo hello | sibyl put greeting
  sibyl put photo --file photo.jpg --content-type image/jpeg
  sibyl put order/17 paid --idempotency-key payment-4711
  sibyl put greeting hi --context \"$(sibyl get greeting --output json | jq -r .context)\"")]
pub(super) struct PutArgs {
    /// The key.
    key: String,
    /// The value; without it and --file, standard input.
    value: Option<String>,
    /// Read the value from this file; `-` is standard input.
    #[arg(long, short, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
    /// Replace exactly what was read with this context. Without it the write stands beside what is there.
    #[arg(long, short, value_name = "CONTEXT")]
    context: Option<String>,
    /// What the value is.
    #[arg(long, short = 't', value_name = "TYPE")]
    content_type: Option<String>,
    /// An attribute kept with the value; may be given 16 times.
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// Write only if there is no live value (advisory, not atomic).
    #[arg(long)]
    if_absent: bool,
    /// Your name for this request, so that it may be repeated: the same write again is no second one.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How many copies must be safe: 1 to n, one, quorum or all.
    #[arg(long, short, value_name = "COUNT")]
    w: Option<String>,
}

/// Delete a key
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl delete greeting --context \"$(sibyl get greeting --output json | jq -r .context)\"
  sibyl delete greeting --blind")]
pub(super) struct DeleteArgs {
    /// The key.
    key: String,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
    /// Delete exactly what was read with this context.
    #[arg(
        long,
        short,
        value_name = "CONTEXT",
        required_unless_present = "blind",
        conflicts_with = "blind"
    )]
    context: Option<String>,
    /// Delete whatever the node sees now.
    #[arg(long)]
    blind: bool,
    /// Your name for this request, so that it may be repeated: the same write again is no second one.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How many copies must be safe: 1 to n, one, quorum or all.
    #[arg(long, short, value_name = "COUNT")]
    w: Option<String>,
}

/// List the keys of a bucket in byte order
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl list --bucket carts --prefix user/
  sibyl list --all --output json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
    /// Only keys that start with this.
    #[arg(long, short, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only keys after this one.
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// At most so many keys per page.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PAGE)))]
    limit: u32,
    /// All pages.
    #[arg(long)]
    all: bool,
}

/// `sibyl get`.
pub(super) fn get(args: &GetArgs) -> Result<(), Failure> {
    let mut parts = Parts::default().maybe_query("r", args.r.as_ref());
    if args.siblings {
        parts = parts.query("siblings", true);
    }
    if args.partial {
        parts = parts.query("partial", true);
    }
    let path = key_path(&args.bucket.bucket, &args.key)?;
    let answer = args.connection.client()?.get(&path, parts)?;
    let several = answer.status == 300 || args.siblings;
    match (args.raw, several) {
        (true, false) => output::print(&answer.body),
        (true, true) => Err(Failure::Failed(format!(
            "{} has {} siblings, so there is no one value; look at them without --raw",
            args.key,
            answer.header("sibyl-siblings")
        ))),
        (false, _) if args.connection.json() => {
            output::print_json(&read_as_json(&args.key, &answer, several)?)
        }
        (false, false) => print_value(&args.key, &answer),
        (false, true) => print_siblings(&args.key, &answer),
    }
}

/// `sibyl put`.
pub(super) fn put(args: &PutArgs) -> Result<(), Failure> {
    let mut parts = Parts::default().maybe_query("w", args.w.as_ref());
    parts = parts.maybe_header("sibyl-context", args.context.as_deref());
    parts = parts.maybe_header("content-type", args.content_type.as_deref());
    for attribute in &args.attributes {
        let Some((name, value)) = attribute.split_once('=') else {
            return Err(Failure::Usage(format!(
                "--attribute {attribute}: expected NAME=VALUE"
            )));
        };
        parts = parts.header(format!("sibyl-attr-{name}"), value);
    }
    if args.if_absent {
        parts = parts.header("if-none-match", "*");
    }
    parts = parts.maybe_header("idempotency-key", args.idempotency_key.as_deref());
    let path = key_path(&args.bucket.bucket, &args.key)?;
    let answer = args
        .connection
        .client()?
        .put(&path, parts.body(value_of(args)?))?;
    print_write(&args.connection, &args.key, &answer)
}

/// `sibyl delete`.
pub(super) fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let mut parts = Parts::default().maybe_query("w", args.w.as_ref());
    parts = parts.maybe_header("sibyl-context", args.context.as_deref());
    if args.blind {
        parts = parts.query("blind", true);
    }
    parts = parts.maybe_header("idempotency-key", args.idempotency_key.as_deref());
    let path = key_path(&args.bucket.bucket, &args.key)?;
    let answer = args.connection.client()?.delete(&path, parts)?;
    print_write(&args.connection, &args.key, &answer)
}

/// `sibyl list`. With `--all` it ends because every page starts after the last key of the one before.
pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let path = format!("{}/keys", super::client::bucket_path(&args.bucket.bucket));
    let mut start = args.start.clone();
    loop {
        let limit = if args.all { MAX_PAGE } else { args.limit };
        let parts = Parts::default()
            .query("limit", limit)
            .maybe_query("prefix", args.prefix.as_ref());
        let page = client
            .get(&path, parts.maybe_query("start", start.as_ref()))?
            .json()?;
        print_page(args, &page)?;
        let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if !args.all || next.is_none() || next == start {
            if let (Some(next), false, false) = (next, args.all, args.connection.json()) {
                eprintln!("more with --start {next} or --all");
            }
            return Ok(());
        }
        start = next;
    }
}

fn print_page(args: &ListArgs, page: &Value) -> Result<(), Failure> {
    if args.connection.json() {
        return output::print_json(page);
    }
    let keys = page
        .get("keys")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    output::print(
        keys.iter()
            .map(|key| output::cell(key) + "\n")
            .collect::<String>(),
    )
}

fn value_of(args: &PutArgs) -> Result<Vec<u8>, Failure> {
    if let Some(value) = &args.value {
        return Ok(value.clone().into_bytes());
    }
    let file = args.file.as_deref().filter(|path| path.as_os_str() != "-");
    match file {
        Some(path) => {
            let open = std::fs::File::open(path);
            open.and_then(bounded).map_err(|source| Failure::File {
                doing: "read",
                path: path.to_owned(),
                source,
            })
        }
        None if args.file.is_none() && std::io::stdin().is_terminal() => Err(Failure::Usage(
            "no value: give it as an argument, with --file, or on standard input".to_owned(),
        )),
        None => bounded(std::io::stdin()).map_err(|source| Failure::File {
            doing: "read",
            path: "standard input".into(),
            source,
        }),
    }
}

fn bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_VALUE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_VALUE_BYTES {
        return Err(std::io::Error::other(format!(
            "it is larger than any value may be, {MAX_VALUE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// The headers that a read answers with, besides the value.
fn read_facts(key: &str, answer: &Answer) -> Vec<(&'static str, String)> {
    let header = |name| output::printable(answer.header(name));
    let mut facts = vec![("key", output::printable(key))];
    facts.extend([
        ("content type", header("content-type")),
        ("modified", header("last-modified")),
        ("siblings", header("sibyl-siblings")),
        ("resolver", header("sibyl-resolver")),
        ("coordinator", header("sibyl-coordinator")),
        ("trace id", header("sibyl-trace-id")),
        ("context", header("sibyl-context")),
    ]);
    facts
}

fn print_value(key: &str, answer: &Answer) -> Result<(), Failure> {
    let mut facts = read_facts(key, answer);
    facts.extend(
        answer
            .headers_with("sibyl-attr-")
            .into_iter()
            .map(|(name, value)| ("attribute", output::printable(&format!("{name}={value}")))),
    );
    facts.push(("value", output::bytes_for_people(&answer.body)));
    output::print_table(&output::facts(&facts))
}

fn print_siblings(key: &str, answer: &Answer) -> Result<(), Failure> {
    let body = answer.json()?;
    let mut table = output::table(&["dot", "value", "content type", "modified", "trace id"]);
    for sibling in body
        .get("siblings")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let field = |name: &str| {
            sibling
                .get(name)
                .map_or_else(|| "-".to_owned(), output::cell)
        };
        let deleted = sibling
            .get("deleted")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let value = if deleted {
            "(deleted)".to_owned()
        } else {
            field("value")
        };
        table.add_row([
            field("dot"),
            value,
            field("content_type"),
            field("modified_at"),
            field("trace_id"),
        ]);
    }
    output::print_table(&table)?;
    let facts: Vec<_> = read_facts(key, answer)
        .into_iter()
        .filter(|(name, _)| *name != "content type")
        .collect();
    output::print_table(&output::facts(&facts))
}

fn read_as_json(key: &str, answer: &Answer, several: bool) -> Result<Value, Failure> {
    let header = |name| match answer.header(name) {
        "" => Value::Null,
        text => Value::String(text.to_owned()),
    };
    let mut read = json!({
        "key": key,
        "status": answer.status,
        "context": header("sibyl-context"),
        "resolver": header("sibyl-resolver"),
        "coordinator": header("sibyl-coordinator"),
        "trace_id": header("sibyl-trace-id"),
    });
    let fields = read.as_object_mut().expect("built as an object above");
    if several {
        let body = answer.json()?;
        fields.insert(
            "siblings".to_owned(),
            body.get("siblings").cloned().unwrap_or(Value::Null),
        );
        return Ok(read);
    }
    let attributes = answer
        .headers_with("sibyl-attr-")
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    fields.insert("value".to_owned(), output::bytes_to_json(&answer.body));
    fields.insert("content_type".to_owned(), header("content-type"));
    fields.insert("etag".to_owned(), header("etag"));
    fields.insert("last_modified".to_owned(), header("last-modified"));
    fields.insert("attributes".to_owned(), Value::Object(attributes));
    Ok(read)
}

fn print_write(connection: &Connection, key: &str, answer: &Answer) -> Result<(), Failure> {
    let named = [
        ("acks", "sibyl-acks"),
        ("coordinator", "sibyl-coordinator"),
        ("trace_id", "sibyl-trace-id"),
        ("context", "sibyl-context"),
    ];
    let repeated = answer.header("sibyl-repeated") == "true";
    if connection.json() {
        let mut fields: serde_json::Map<String, Value> = named
            .iter()
            .map(|(name, header)| ((*name).to_owned(), answer.header(header).into()))
            .collect();
        fields.insert("key".to_owned(), key.into());
        fields.insert("repeated".to_owned(), repeated.into());
        return output::print_json(&fields);
    }
    let mut facts = vec![("key", output::printable(key))];
    if repeated {
        facts.push(("repeated", "it was written before".to_owned()));
    }
    facts.extend(
        named
            .iter()
            .map(|(name, header)| (*name, output::printable(answer.header(header)))),
    );
    output::print_table(&output::facts(&facts))
}
