//! `sibyl resolver build`: runs what a project's manifest says, then lets the node's own compile child judge the result.
//!
//! A missing tool is named before anything is run, with the command that gets it. What the tools print goes to standard
//! error; standard output has what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output::{self, Format};
use super::super::resolver::read_file;
use super::local::Local;
use super::project::{Need, Project};
use crate::resolver::Admitted;

/// Build a resolver's project and see whether a node would take the module
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver build
  sibyl resolver build my-resolver --output json

It runs the commands of the project's resolver.json, with .venv/bin and node_modules/.bin in front of PATH.")]
pub(in super::super) struct Args {
    /// The project's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// `sibyl resolver build`.
pub(in super::super) fn run(args: &Args) -> Result<(), Failure> {
    let project = Project::open(&args.dir)?;
    let missing = missing(&project)?;
    if !missing.is_empty() {
        return Err(Failure::Failed(format!(
            "building needs what is not here:\n{}",
            missing.join("\n")
        )));
    }
    for command in &project.manifest.build {
        eprintln!("$ {command}");
        build(&project, command)?;
    }
    let module = project.output();
    if !module.is_file() {
        return Err(Failure::Failed(format!(
            "the build made no {}: its commands and `output` in resolver.json do not fit",
            module.display()
        )));
    }
    let waiting = output::spinner("checking and compiling as a node does");
    let local = Local::admit(Bytes::from(read_file(&module)?));
    waiting.finish_and_clear();
    show(args, &project, &module, &local?.admitted)
}

/// The tools that are not there, each with how to get it.
fn missing(project: &Project) -> Result<Vec<String>, Failure> {
    let mut missing = Vec::new();
    for Need { tool, check, get } in &project.manifest.needs {
        let mut shell = project.shell(check)?;
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        if !succeeds(&mut shell)? {
            missing.push(format!("  {tool}; get it with: {get}"));
        }
    }
    Ok(missing)
}

fn build(project: &Project, command: &str) -> Result<(), Failure> {
    let mut shell = project.shell(command)?;
    shell.stdout(std::io::stderr());
    if succeeds(&mut shell)? {
        return Ok(());
    }
    Err(Failure::Failed(format!("`{command}` failed, see above")))
}

fn succeeds(shell: &mut Command) -> Result<bool, Failure> {
    let status = shell.stdin(Stdio::null()).status();
    let status = status.map_err(|source| Failure::File {
        doing: "start",
        path: "sh".into(),
        source,
    })?;
    Ok(status.success())
}

fn show(args: &Args, project: &Project, module: &Path, admitted: &Admitted) -> Result<(), Failure> {
    if args.output == Format::Json {
        return output::print_json(&json!({
            "name": project.manifest.name,
            "language": project.manifest.language,
            "module": module,
            "digest": admitted.digest.to_string(),
            "kind": admitted.kind.as_str(),
            "bytes": admitted.bytes,
            "interfaces": admitted.optional,
            "compile_ms": u64::try_from(admitted.compile.as_millis()).unwrap_or(u64::MAX),
            "summary": admitted.description.as_ref().map_or(Value::Null, |said| said.summary.clone().into()),
        }));
    }
    let summary = admitted
        .description
        .as_ref()
        .map_or("", |said| &said.summary);
    output::print_table(&output::facts(&[
        ("module", module.display().to_string()),
        ("version", admitted.digest.to_string()),
        ("kind", admitted.kind.to_string()),
        ("size", output::size(admitted.bytes)),
        (
            "exports",
            [&["merge"], &admitted.optional[..]].concat().join(", "),
        ),
        ("says", output::printable(summary)),
        (
            "compiled in",
            format!("{} ms", admitted.compile.as_millis()),
        ),
    ]))?;
    let (dir, name) = (args.dir.display(), &project.manifest.name);
    output::print(format!(
        "\nnext: sibyl resolver test {dir} && sibyl resolver check {dir} && sibyl resolver push {name} {dir}\n"
    ))
}
