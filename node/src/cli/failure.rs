//! How a command fails, what a person then reads, and the exit code.
//!
//! One place turns every failure into text on standard error; commands only pass failures up. Nothing is
//! printed twice: [`Failure::Reported`] stands for what the command has already shown.

use std::path::PathBuf;

use owo_colors::{OwoColorize, Stream};

use super::{client, demo, local_cluster};
use crate::{backup, config};

/// Exit code of an operation that failed.
pub(super) const FAILED: u8 = 1;

/// Exit code of a command that was given the wrong arguments.
pub(super) const USAGE: u8 = 2;

/// Exit code after Ctrl-C, as shells have it: 128 + SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Arguments that clap cannot judge alone.
    #[error("{0}")]
    Usage(String),
    /// Settings of a node that do not hold.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A node said no, or could not be reached.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A local cluster did not start or stop.
    #[error(transparent)]
    Cluster(#[from] local_cluster::Error),
    /// A file or stream of this machine.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should be a backup is none.
    #[error(transparent)]
    NotWhole(#[from] backup::NotWhole),
    /// A backup was not restored.
    #[error(transparent)]
    Restore(#[from] backup::RestoreError),
    /// The demo saw something else than it must.
    #[error(transparent)]
    Unexpected(Box<demo::Unexpected>),
    /// What was asked for cannot be had; the text says why.
    #[error("{0}")]
    Failed(String),
    /// The command ran, and its own output says what is wrong.
    #[error("")]
    Reported,
    /// Ctrl-C or a termination signal.
    #[error("interrupted")]
    Interrupted,
    /// Whoever reads standard output has gone, as with `| head`.
    #[error("")]
    ReaderGone,
}

impl Failure {
    /// Says on standard error what happened and what to do.
    pub(super) fn report(&self) {
        match self {
            Failure::Reported | Failure::ReaderGone => {}
            Failure::Client(client::Error::Refused(problem)) => {
                eprint!("{}", problem_text(problem));
            }
            other => eprintln!("{}", with_mark(&other.to_string())),
        }
    }

    /// What the process ends with.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Config(_) => USAGE,
            Failure::Client(client::Error::Url { .. } | client::Error::Key { .. }) => USAGE,
            Failure::ReaderGone => 0,
            Failure::Interrupted => INTERRUPTED,
            _ => FAILED,
        }
    }
}

fn with_mark(message: &str) -> String {
    format!(
        "{} {message}",
        "error:".if_supports_color(Stream::Stderr, |text| text.red())
    )
}

/// A problem document for people: title, detail, code, trace id, and what else the node said.
pub(super) fn problem_text(problem: &client::Problem) -> String {
    let mut text = with_mark(&format!("{} ({})\n", problem.title, problem.status));
    if !problem.detail.is_empty() {
        text += &format!("  {}\n", problem.detail);
    }
    let named = [("code", &problem.code), ("trace id", &problem.trace_id)];
    for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("  {name}: {value}\n");
    }
    for (name, value) in &problem.more {
        text += &format!(
            "  {name}: {}\n",
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        );
    }
    text
}
