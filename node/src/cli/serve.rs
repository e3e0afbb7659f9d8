//! `sibyl serve`: from the command line, the environment and `sibyl.toml` to a running node.
//!
//! The options are built from [`FLAGS`], so that the three names of a setting cannot drift apart. The node
//! itself starts behind [`run_node`], the one seam between the command line and `node.rs`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use rustix::process::{Signal, getpid, kill_process};

use super::failure::Failure;
use crate::config::{Config, FLAGS, Kind, Layer, Settings, environment_name};
use crate::node::Ended;

/// Read from the working directory if it is there and `--config` is not given.
const DEFAULT_FILE: &str = "sibyl.toml";

const ABOUT: &str = "Run a node";

const EXAMPLES: &str = "\
Every option is also a variable SIBYL_<OPTION> and a line in sibyl.toml (gossip_interval = \"5s\"); the command
line wins over the environment, the environment over the file.

Examples:
  sibyl serve                                                       a cluster of one under ./sibyl-data
  sibyl serve --node-id n1 --cluster-id shop --members n1=10.0.0.1:7170,n2=10.0.0.2:7170,n3=10.0.0.3:7170 \\
              --listen 10.0.0.1:7070 --peer-listen 10.0.0.1:7170 --insecure
  sibyl serve --node-id n4 --join 10.0.0.1:7170,10.0.0.2:7170 --listen 10.0.0.4:7070 --peer-listen 10.0.0.4:7170 --insecure
  SIBYL_DATA_DIR=/var/lib/sibyl sibyl serve --config /etc/sibyl/sibyl.toml";

/// What the command line said.
pub(super) struct Args {
    settings: Settings,
    file: Option<PathBuf>,
    stop_with_stdin: bool,
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let command = command
            .about(ABOUT)
            .after_help(EXAMPLES)
            .args(FLAGS.iter().map(option));
        command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("Read settings from this file [env: SIBYL_CONFIG] [default: ./sibyl.toml if it exists]"),
            )
            .arg(Arg::new("stop-with-stdin").long("stop-with-stdin").action(ArgAction::SetTrue).hide(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Args::augment_args(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Args, clap::Error> {
        let mut settings = Settings::default();
        for flag in FLAGS {
            if let Some(value) = given(matches, flag.name, flag.kind) {
                settings.set(flag, Layer::Flag, value);
            }
        }
        let file = matches.get_one::<PathBuf>("config").cloned();
        Ok(Args {
            settings,
            file,
            stop_with_stdin: matches.get_flag("stop-with-stdin"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Args::from_arg_matches(matches)?;
        Ok(())
    }
}

fn option(flag: &'static crate::config::Flag) -> Arg {
    let mut help = format!("{} [env: {}]", flag.help, environment_name(flag.name));
    if !flag.default.is_empty() {
        help += &format!(" [default: {}]", flag.default);
    }
    let arg = Arg::new(flag.name).long(flag.name).help(help);
    match flag.kind {
        Kind::Value(shown) => arg.value_name(shown),
        Kind::List(shown) => arg.value_name(shown).action(ArgAction::Append),
        Kind::Switch => arg.action(ArgAction::SetTrue),
    }
}

fn given(matches: &ArgMatches, name: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Value(_) => matches.get_one::<String>(name).cloned(),
        Kind::List(_) => {
            let values: Vec<&str> = matches
                .get_many::<String>(name)?
                .map(String::as_str)
                .collect();
            Some(values.join(","))
        }
        Kind::Switch => matches.get_flag(name).then(|| "true".to_owned()),
    }
}

/// Runs a node until it is told to stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let config = configuration(
        args,
        &std::env::vars_os().filter_map(text).collect::<Vec<_>>(),
    )?;
    if args.stop_with_stdin {
        stop_with_stdin()?;
    }
    run_node(config)
}

fn configuration(args: &Args, environment: &[(String, String)]) -> Result<Config, Failure> {
    let mut settings = args.settings.clone();
    let variable = || {
        environment
            .iter()
            .find(|(name, value)| name == "SIBYL_CONFIG" && !value.is_empty())
    };
    let named = args
        .file
        .clone()
        .or_else(|| variable().map(|(_, file)| file.into()));
    match named {
        Some(file) => settings.add_file(&file)?,
        None if Path::new(DEFAULT_FILE).is_file() => settings.add_file(Path::new(DEFAULT_FILE))?,
        None => {}
    }
    for name in settings.add_environment(environment.iter().cloned()) {
        eprintln!("warning: the variable {name} is not a setting of sibyl and is ignored");
    }
    Ok(Config::resolve(&settings)?)
}

/// The seam to the node: everything before it is the command line, everything after it is `node.rs`.
fn run_node(config: Config) -> Result<(), Failure> {
    match crate::node::run(config).map_err(|error| Failure::Failed(format!("{error:#}")))? {
        Ended::Told => Ok(()),
        Ended::GivenUp | Ended::Fenced => Err(start_again()),
    }
}

/// Becomes the process that it was at its start, so that a node repairs itself whoever started it. Ends: every start
/// sets a store aside, of which a folder takes only so many.
fn start_again() -> Failure {
    let executable = match std::env::current_exe() {
        Ok(executable) => executable,
        Err(error) => return Failure::Failed(format!("cannot start again: {error}")),
    };
    let mut command = std::process::Command::new(executable);
    let error = command.args(std::env::args_os().skip(1)).exec();
    Failure::Failed(format!("cannot start again: {error}"))
}

/// Ends the node, with its usual drain, when standard input closes: then whoever started it is gone.
pub(super) fn stop_with_stdin() -> Result<(), Failure> {
    let watch = || {
        let mut ignored = [0; 64];
        while std::io::stdin()
            .read(&mut ignored)
            .is_ok_and(|count| count > 0)
        {}
        // Signalling oneself cannot fail; the handler then drains as after any SIGTERM.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    let spawned = std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(watch);
    spawned.map(drop).map_err(|source| Failure::File {
        doing: "watch",
        path: "standard input".into(),
        source,
    })
}
