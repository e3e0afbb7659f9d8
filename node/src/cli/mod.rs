//! The command line: `sibyl serve`, `dev`, `demo`, the data and admin commands, `bench`.
//!
//! The only place that knows clap. Every command speaks to nodes through the public HTTP API and nothing else, but
//! for `serve`, which is one, and those that need none: `restore`, `backup --verify`, and `resolver new`, `build`,
//! `test` and `check`; `client.rs` is the one door to it. Exit codes: 0, 1 (the operation failed), 2 (usage).
//! It is not a library: [`local_cluster`] alone is public, for tests that need real processes.

pub mod local_cluster;

mod author;
mod backup;
mod bench;
mod bucket;
mod check;
mod client;
mod cluster;
mod connection;
mod data;
mod demo;
mod dev;
mod explain;
mod export;
mod failure;
mod import;
mod interrupt;
mod members;
mod output;
mod recover;
mod resolver;
mod rollback;
mod serve;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// A leaderless key-value store whose conflicts are merged by your WebAssembly.
#[derive(Parser)]
#[command(
    name = "sibyl",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Start here:
  sibyl demo                                a cluster, a cut, a conflict, a merge: watch it once
  sibyl dev                                 three nodes on this machine until Ctrl-C
  sibyl put greeting hello && sibyl get greeting

Exit codes: 0, 1 the operation failed, 2 usage. Colours respect NO_COLOR."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Dev(dev::Args),
    Demo(demo::Args),
    Get(data::GetArgs),
    Put(data::PutArgs),
    Delete(data::DeleteArgs),
    List(data::ListArgs),
    Explain(explain::Args),
    Bucket(bucket::Args),
    Resolver(resolver::Args),
    Cluster(cluster::Args),
    Health(cluster::HealthArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Export(export::Args),
    Import(import::Args),
    Bench(bench::Args),
}

/// Runs the command line of this process and says how it ended. Never panics on input.
pub fn run() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only if the terminal is gone; the exit code still says what happened.
            let _ = error.print();
            return if error.use_stderr() {
                failure::USAGE
            } else {
                0
            };
        }
    };
    match dispatch(cli.command) {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Get(args) => data::get(&args),
        Command::Put(args) => data::put(&args),
        Command::Delete(args) => data::delete(&args),
        Command::List(args) => data::list(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Bucket(args) => bucket::run(&args),
        Command::Resolver(args) => resolver::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Health(args) => cluster::health(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
