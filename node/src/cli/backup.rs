//! `sibyl backup` and `sibyl restore`: a node's data as one file, and a node's folder made of it.
//!
//! A backup is checked while it arrives and appears under its name only when it is whole. Restoring needs no node
//! and touches nothing but a folder that is empty. Files are readable by their owner alone: a backup holds every
//! value, and the cluster's secret keys.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use sibyl_core::backup::{Counts, Header};

use super::connection::Connection;
use super::failure::Failure;
use super::output;
use crate::backup::{self, Parts};

/// Take a backup of a node while it runs
///
/// The file is one moment of that node: what is written later is not in it. It is checked while it arrives, and
/// appears under its name only when it is whole. Keep it as safe as the node's disk: it holds every value, and the
/// cluster's secret keys.
#[derive(clap::Args)]
#[command(after_help = "\
Each node has its own copies: back up all of them, or as many as you could lose.

Examples:
  sibyl backup n1.backup --url http://127.0.0.1:7070
  sibyl backup n1.backup --verify")]
pub(super) struct BackupArgs {
    /// The file to write; it must not be there yet.
    file: PathBuf,
    /// Check this file instead: read all of it and say whether it is whole.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Make a node's data folder of a backup
///
/// The node comes back as one that lost its disk: with a new store that never uses the old one's name or counters,
/// rebuilding until enough other owners were asked. What is in the backup is joined with what they have. The only
/// node of a cluster serves at once. Stop the old node for good before you start the restored one.
#[derive(clap::Args)]
#[command(after_help = "\
Then start it as before: `sibyl serve` with the same --node-id, --cluster-id and --members.

Examples:
  sibyl restore n1.backup --data-dir /var/lib/sibyl-new
  sibyl restore n1.backup --check")]
pub(super) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// The folder to make; it must be empty or not there yet.
    #[arg(
        long,
        value_name = "FOLDER",
        required_unless_present = "check",
        conflicts_with = "check"
    )]
    data_dir: Option<PathBuf>,
    /// Check the file and write nothing.
    #[arg(long)]
    check: bool,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = output::Format::Table, value_name = "FORMAT")]
    output: output::Format,
}

/// `sibyl backup`.
pub(super) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let (header, counts) = if args.verify {
        backup::verify(&args.file)?
    } else {
        take(args)?
    };
    warn_unreadable(&counts);
    show(args.connection.json(), &about(&args.file, &header, &counts))
}

/// `sibyl restore`.
pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let json = args.output == output::Format::Json;
    let Some(data_dir) = &args.data_dir else {
        let (header, counts) = backup::verify(&args.file)?;
        warn_unreadable(&counts);
        return show(json, &about(&args.file, &header, &counts));
    };
    let spinner = output::spinner("restoring");
    let restored = backup::restore(&args.file, data_dir);
    spinner.finish_and_clear();
    let restored = restored?;
    warn_unreadable(&restored.counts);
    if restored.alone {
        eprintln!(
            "note: the backup is that of a cluster of one; if it has grown since, do not start this node: its others have newer data"
        );
    }
    let mut facts = about(&args.file, &restored.header, &restored.counts);
    facts.push(("new store", json!(restored.actor.to_string())));
    facts.push(("data folder", json!(data_dir.display().to_string())));
    show(json, &facts)
}

fn take(args: &BackupArgs) -> Result<(Header, Counts), Failure> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File {
            doing,
            path,
            source,
        }
    };
    if args
        .file
        .try_exists()
        .map_err(failed("look at", &args.file))?
    {
        let file = args.file.display();
        return Err(Failure::Failed(format!(
            "{file} is there already: name a new file"
        )));
    }
    let mut part = args.file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed("write", &part))?;
    let taken = receive(args, target);
    if taken.is_err() {
        // It stays if it cannot be removed; it has no last part.
        let _stays = std::fs::remove_file(&part);
    }
    let taken = taken?;
    std::fs::rename(&part, &args.file).map_err(failed("write", &args.file))?;
    let folder = args
        .file
        .parent()
        .filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("sync", folder))?;
    Ok(taken)
}

/// Writes a backup down as it arrives, and checks it on the way.
fn receive(args: &BackupArgs, target: File) -> Result<(Header, Counts), Failure> {
    let failed = |source| Failure::File {
        doing: "write",
        path: args.file.clone(),
        source,
    };
    let kept = target.try_clone().map_err(failed)?;
    let source = args.connection.client()?.download("/v1/backup")?;
    let bar = output::spinner("taking a backup");
    let tee = Tee {
        source,
        target,
        bar: bar.clone(),
        bytes: 0,
    };
    let checked = check(&args.file, tee);
    bar.finish_and_clear();
    let checked = checked?;
    kept.sync_all().map_err(failed)?;
    Ok(checked)
}

fn check(path: &Path, tee: Tee) -> Result<(Header, Counts), Failure> {
    let mut parts = Parts::new(path, Box::new(tee))?;
    while parts.part()?.is_some() {}
    Ok((parts.header().clone(), parts.counts()))
}

/// Gives the bytes of a node, and writes them to a file first.
struct Tee {
    source: reqwest::blocking::Response,
    target: File,
    bar: output::Bar,
    bytes: u64,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.target.write_all(&buffer[..length])?;
        self.bytes += length as u64;
        let size = output::size(self.bytes);
        self.bar.set_message(format!("taking a backup, {size}"));
        Ok(length)
    }
}

fn warn_unreadable(counts: &Counts) {
    if counts.unreadable > 0 {
        eprintln!(
            "warning: {} records could not be read by the node itself and are not in the backup; their other owners hold them",
            counts.unreadable
        );
    }
}

fn about(file: &Path, header: &Header, counts: &Counts) -> Vec<(&'static str, Value)> {
    let taken = UNIX_EPOCH + Duration::from_millis(header.taken_at_ms);
    vec![
        ("file", json!(file.display().to_string())),
        ("cluster", json!(header.cluster_id)),
        ("node", json!(header.node_id.as_str())),
        ("members", json!(header.members)),
        (
            "taken at",
            json!(humantime::format_rfc3339_seconds(taken).to_string()),
        ),
        ("store", json!(header.actor.to_string())),
        ("registry", json!(header.registry)),
        ("batch", json!(header.batch)),
        ("records", json!(counts.records)),
        ("unreadable", json!(counts.unreadable)),
        ("resolvers", json!(counts.modules)),
        ("bytes", json!(counts.bytes)),
    ]
}

fn show(json: bool, facts: &[(&'static str, Value)]) -> Result<(), Failure> {
    if json {
        let pairs = facts.iter();
        let object: serde_json::Map<String, Value> = pairs
            .map(|(name, value)| (name.replace(' ', "_"), value.clone()))
            .collect();
        return output::print_json(&object);
    }
    let rows: Vec<(&str, String)> = facts
        .iter()
        .map(|(name, value)| (*name, output::cell(value)))
        .collect();
    output::print_table(&output::facts(&rows))
}
