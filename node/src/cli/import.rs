//! `sibyl import`: writes what `sibyl export` wrote down, as ordinary writes.
//!
//! Every write has a new dot and no context, so the siblings of a line stay siblings and stand beside what is
//! there already. A sibling that is there with the same value, content type and attributes is not written again,
//! which makes a second run go on where the first one stopped. That is looked up before the write and not in it:
//! while others write the same keys, a repeated run may leave a value twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Error, Parts, key_bytes_path};
use super::connection::{Bucket, Connection};
use super::export::{WINDOW, beside, siblings};
use super::failure::Failure;
use super::output;

/// The longest line: a hundred siblings that fill the largest object, in base64.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// How often a line is tried that a node cannot take now.
const TRIES: u32 = 5;
/// The first pause before another try; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Write JSON lines into a bucket
///
/// Takes what `sibyl export` writes. Siblings of a line stay siblings, and stand beside what is there. A sibling that
/// is there already is not written again, so an import that stopped can be run again. Tombstones are not written,
/// and every write has its own time.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl import carts.jsonl --bucket carts
  sibyl export --bucket carts | sibyl import --bucket carts-copy")]
pub(super) struct Args {
    /// The file to read; without it, or as `-`, standard input.
    file: Option<PathBuf>,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    connection: Connection,
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Value,
    siblings: Vec<Sibling>,
}

#[derive(Clone, Debug, Deserialize)]
struct Sibling {
    #[serde(default)]
    value: Value,
    content_type: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    modified_at: String,
    #[serde(default)]
    deleted: bool,
}

/// A key to write.
struct Entry {
    line: u64,
    key: Vec<u8>,
    /// Live ones, the oldest first: where the last write wins, the same one does.
    siblings: Vec<Sibling>,
}

#[derive(Default)]
struct Totals {
    keys: u64,
    written: u64,
    there: u64,
}

/// `sibyl import`. Ends because every turn reads further.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let (mut lines, length) = source(args)?;
    let bar = match length {
        Some(length) => output::progress(length, "importing"),
        None => output::spinner("importing"),
    };
    let mut totals = Totals::default();
    loop {
        let (window, trouble) = lines.window();
        let ended = window.is_empty();
        for done in beside(&window, |entry| import(&client, &args.bucket.bucket, entry)) {
            let (written, there) = done?;
            totals.keys += 1;
            totals.written += written;
            totals.there += there;
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        bar.set_position(lines.bytes);
        if ended {
            break;
        }
    }
    bar.finish_and_clear();
    let Totals {
        keys,
        written,
        there,
    } = totals;
    eprintln!("{keys} keys imported: {written} values written, {there} were there already");
    Ok(())
}

struct Lines {
    source: Box<dyn BufRead>,
    name: PathBuf,
    number: u64,
    bytes: u64,
}

fn source(args: &Args) -> Result<(Lines, Option<u64>), Failure> {
    let file = args.file.as_deref().filter(|path| path.as_os_str() != "-");
    let (source, name, length): (Box<dyn BufRead>, _, _) = match file {
        None => {
            let input = BufReader::new(io::stdin());
            (Box::new(input), PathBuf::from("standard input"), None)
        }
        Some(path) => {
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(|source| Failure::File {
                doing: "read",
                path: path.to_owned(),
                source,
            })?;
            (
                Box::new(BufReader::new(file)),
                path.to_owned(),
                Some(length),
            )
        }
    };
    let lines = Lines {
        source,
        name,
        number: 0,
        bytes: 0,
    };
    Ok((lines, length))
}

impl Lines {
    /// The next few lines, and what is wrong with the one behind them.
    fn window(&mut self) -> (Vec<Entry>, Option<Failure>) {
        let mut window = Vec::new();
        while window.len() < WINDOW {
            match self.next() {
                Ok(Some(entry)) => window.push(entry),
                Ok(None) => break,
                Err(failure) => return (window, Some(failure)),
            }
        }
        (window, None)
    }

    fn next(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            let mut text = Vec::new();
            let mut limited = io::Read::take(&mut self.source, MAX_LINE_BYTES + 1);
            let read = limited.read_until(b'\n', &mut text);
            let length = read.map_err(|source| Failure::File {
                doing: "read",
                path: self.name.clone(),
                source,
            })? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += length;
            if length > MAX_LINE_BYTES {
                return Err(self.wrong(&format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            if !text.trim_ascii().is_empty() {
                return self.parse(&text).map(Some);
            }
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Entry, Failure> {
        let line: Line =
            serde_json::from_slice(text).map_err(|error| self.wrong(&error.to_string()))?;
        let key = output::bytes_from_json(&line.key);
        let key = key.ok_or_else(|| self.wrong("`key` must be text or {\"base64\": …}"))?;
        key_bytes_path("b", &key).map_err(|error| self.wrong(&error.to_string()))?;
        let mut siblings = line.siblings;
        siblings.retain(|sibling| !sibling.deleted);
        let good = |sibling: &Sibling| output::bytes_from_json(&sibling.value).is_some();
        if !siblings.iter().all(good) {
            return Err(self.wrong("`value` must be text or {\"base64\": …}"));
        }
        siblings.sort_by(|one, other| one.modified_at.cmp(&other.modified_at));
        Ok(Entry {
            line: self.number,
            key,
            siblings,
        })
    }

    fn wrong(&self, why: &str) -> Failure {
        stopped(self.number, why)
    }
}

fn stopped(line: u64, why: &str) -> Failure {
    Failure::Failed(format!(
        "line {line}: {why}; lines before it are imported, some behind it may be: mend it and run the import again"
    ))
}

/// Writes what is missing of a line; how many siblings that were, and how many were there.
fn import(client: &Client, bucket: &str, entry: &Entry) -> Result<(u64, u64), Failure> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match write(client, bucket, entry) {
            // Whatever of it was written is found by the next try.
            Err(Error::Refused(problem)) if problem.status == 503 => std::thread::sleep(pause),
            done => return done.map_err(|error| stopped(entry.line, &error.to_string())),
        }
        pause *= 2;
    }
    write(client, bucket, entry).map_err(|error| stopped(entry.line, &error.to_string()))
}

fn write(client: &Client, bucket: &str, entry: &Entry) -> Result<(u64, u64), Error> {
    let mut there = siblings(client, bucket, &entry.key)?;
    let path = key_bytes_path(bucket, &entry.key)?;
    let mut counts = (0, 0);
    for sibling in &entry.siblings {
        // Each one that is there stands for one of the line.
        if let Some(at) = there.iter().position(|other| is_same(sibling, other)) {
            there.swap_remove(at);
            counts.1 += 1;
            continue;
        }
        let value = output::bytes_from_json(&sibling.value).unwrap_or_default();
        let mut parts = Parts::default()
            .maybe_header("content-type", sibling.content_type.as_deref())
            .body(value);
        for (name, value) in &sibling.attributes {
            parts = parts.header(format!("sibyl-attr-{name}"), value);
        }
        client.put(&path, parts)?;
        counts.0 += 1;
    }
    Ok(counts)
}

fn is_same(sibling: &Sibling, other: &Value) -> bool {
    let Ok(other) = serde_json::from_value::<Sibling>(other.clone()) else {
        return false;
    };
    let kind = |sibling: &Sibling| sibling.content_type.clone();
    !other.deleted
        && output::bytes_from_json(&sibling.value) == output::bytes_from_json(&other.value)
        && (sibling.content_type.is_none() || kind(sibling) == kind(&other))
        && sibling.attributes == other.attributes
}
