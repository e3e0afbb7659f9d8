//! `sibyl export`: a bucket as JSON lines, one key a line with all its siblings.
//!
//! Through the public API alone: keys are listed a page at a time and read beside each other, and stand in the
//! output in byte order. It is no moment of the bucket: each key is what it was when it was read. Contexts are left
//! out, for an import writes anew.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::client::{Client, Error, Parts, bucket_path, key_bytes_path};
use super::connection::{Bucket, Connection};
use super::failure::Failure;
use super::output;

/// Keys of one page, as the API has it.
const PAGE: usize = 1000;
/// Keys read before they are written down: as many of the largest objects are 512 MiB of base64.
pub(super) const WINDOW: usize = 32;
/// Requests at once: what keeps a small node busy and leaves it room for others.
pub(super) const AT_ONCE: usize = 8;

/// Write a bucket down as JSON lines
///
/// A line holds a key and all its siblings with content type, attributes and time of writing. Deleted keys are left
/// out. Keys and values that are no text stand there as {"base64": …}.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl export --bucket carts > carts.jsonl
  sibyl export --bucket carts --prefix user/ --file carts.jsonl")]
pub(super) struct Args {
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
    /// The file to write; without it, standard output.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only keys that start with this.
    #[arg(long, short, value_name = "TEXT")]
    prefix: Option<String>,
}

/// `sibyl export`. Ends because every page starts after the last key of the one before.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut out = target(args)?;
    let bar = output::spinner("exporting");
    let path = format!("{}/keys", bucket_path(&args.bucket.bucket));
    let (mut start, mut keys): (Option<Vec<u8>>, u64) = (None, 0);
    loop {
        let parts = Parts::default()
            .query("limit", PAGE)
            .maybe_query("prefix", args.prefix.as_ref())
            .maybe_bytes("start", start.as_deref());
        let page = client.get(&path, parts)?.json()?;
        let found: Vec<Vec<u8>> = output::entries(&page, "keys")
            .iter()
            .filter_map(output::bytes_from_json)
            .collect();
        for window in found.chunks(WINDOW) {
            for line in beside(window, |key| read(&client, &args.bucket.bucket, key)) {
                if let Some(line) = line? {
                    write_line(args, &mut out, &line)?;
                    keys += 1;
                }
            }
            bar.set_message(format!("exporting, {keys} keys"));
        }
        start = page.get("next").and_then(output::bytes_from_json);
        if start.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    out.flush().map_err(|source| unwritten(args, source))?;
    eprintln!("{keys} keys exported");
    Ok(())
}

fn target(args: &Args) -> Result<Box<dyn Write>, Failure> {
    Ok(match &args.file {
        None => Box::new(BufWriter::new(io::stdout())),
        Some(path) => {
            let file = File::create_new(path).map_err(|source| unwritten(args, source))?;
            Box::new(BufWriter::new(file))
        }
    })
}

fn unwritten(args: &Args, source: io::Error) -> Failure {
    if args.file.is_none() && source.kind() == io::ErrorKind::BrokenPipe {
        return Failure::ReaderGone;
    }
    let path = args.file.clone();
    Failure::File {
        doing: "write",
        path: path.unwrap_or_else(|| "standard output".into()),
        source,
    }
}

fn write_line(args: &Args, out: &mut dyn Write, line: &Value) -> Result<(), Failure> {
    let written = writeln!(out, "{line}");
    written.map_err(|source| unwritten(args, source))
}

/// Does something with each of a few items, several at once; answers in their order.
pub(super) fn beside<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        // Ends: every turn takes another item.
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            let result = work(item);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A key's line; `None` if it was deleted since it was listed.
fn read(client: &Client, bucket: &str, key: &[u8]) -> Result<Option<Value>, Failure> {
    let siblings: Vec<Value> = siblings(client, bucket, key)?
        .iter()
        .map(without_names)
        .collect();
    let live = siblings.iter().any(|sibling| sibling["deleted"] != true);
    Ok(live.then(|| json!({ "key": output::bytes_to_json(key), "siblings": siblings })))
}

/// All siblings of a key as the API shows them; none if there is no live one.
pub(super) fn siblings(client: &Client, bucket: &str, key: &[u8]) -> Result<Vec<Value>, Error> {
    let path = key_bytes_path(bucket, key)?;
    match client.get(&path, Parts::default().query("siblings", true)) {
        Ok(answer) => Ok(output::entries(&answer.json()?, "siblings").to_vec()),
        Err(Error::Refused(problem)) if problem.status == 404 && problem.code != "no_bucket" => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// A sibling without what names the write it came from: an import is another one.
fn without_names(sibling: &Value) -> Value {
    let kept = [
        "value",
        "content_type",
        "attributes",
        "modified_at",
        "deleted",
    ];
    let fields = sibling.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| kept.contains(&name.as_str()));
    Value::Object(
        fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<_, _>>(),
    )
}
