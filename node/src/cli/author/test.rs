//! `sibyl resolver test`: runs a module's cases with the node's own engine and default limits.
//!
//! Every case has a fresh instance, as every merge has. A failed one is shown with what differs and with what the
//! resolver logged; one failed case makes the command fail, and so does a run without any.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output::{self, Format};
use super::super::resolver::read_file;
use super::cases::{Cases, Resolve};
use super::difference;
use super::local::Local;
use super::project::Project;
use crate::resolver::{Call, Input};

/// Case files of one run.
const FILES_MAX: usize = 1_000;

/// Run a resolver's test cases as a node would
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver test
  sibyl resolver test my-resolver
  sibyl resolver test cart.wasm --cases cases/cart.json

A folder is a project: its module and every file in cases/. It exits with 1 if a case fails or if there is none.")]
pub(in super::super) struct Args {
    /// A project's folder, or a module.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    what: PathBuf,
    /// A file with cases; may be given several times. For a project the default is cases/*.json.
    #[arg(long, value_name = "FILE")]
    cases: Vec<PathBuf>,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// What became of one case.
struct Ran {
    name: String,
    /// What differs and what was logged; none if the case holds.
    wrong: Option<String>,
    fuel: u64,
    duration: Duration,
}

/// `sibyl resolver test`.
pub(in super::super) fn run(args: &Args) -> Result<(), Failure> {
    let (module, files) = what(args)?;
    let all = files.iter().map(|file| read(file));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let waiting = output::spinner("compiling as a node does");
    let local = Local::admit(Bytes::from(read_file(&module)?));
    waiting.finish_and_clear();
    let local = local?;
    let mut ran = Vec::new();
    for (file, cases) in files.iter().zip(&all) {
        let wrong = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
        play(&local, cases, &mut ran).map_err(wrong)?;
    }
    if ran.is_empty() {
        return Err(Failure::Failed(format!(
            "no case to run: put one into cases/ or name a file with --cases ({} has none)",
            args.what.display()
        )));
    }
    match args.output {
        Format::Json => output::print_json(&to_json(&ran))?,
        Format::Table => print(&ran)?,
    }
    if ran.iter().any(|ran| ran.wrong.is_some()) {
        return Err(Failure::Reported);
    }
    Ok(())
}

/// The module and the files with its cases.
fn what(args: &Args) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let module = super::module(&args.what)?;
    let files = if args.cases.is_empty() && args.what.is_dir() {
        case_files(&Project::open(&args.what)?.cases())?
    } else {
        args.cases.clone()
    };
    Ok((module, files))
}

fn case_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |source| Failure::File {
        doing: "look into",
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)?.take(FILES_MAX) {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Cases, Failure> {
    serde_json::from_slice(&read_file(file)?)
        .map_err(|error| Failure::Usage(format!("{} holds no cases: {error}", file.display())))
}

/// Runs all cases of one file; an error is a case that cannot be run.
fn play(local: &Local, cases: &Cases, ran: &mut Vec<Ran>) -> Result<(), String> {
    for case in &cases.resolve {
        ran.push(resolve(local, case).map_err(|why| format!("{}: {why}", case.name))?);
    }
    for case in &cases.check_config {
        let found = local
            .platform
            .check_config(local.admitted.digest, case.config.clone());
        let found = local.runtime.block_on(found);
        let found = found.map_err(|failure| failure.to_string());
        ran.push(checked(&case.name, case.refused.as_deref(), found));
    }
    for case in &cases.check_value {
        let sibling = Input {
            value: Some(case.value.0.clone()),
            ..Input::default()
        };
        let call = call(case.config.clone(), vec![sibling]);
        let found = local.platform.check_value(local.admitted.digest, call);
        let found = local.runtime.block_on(found);
        let found = found.map_err(|failure| failure.to_string());
        ran.push(checked(&case.name, case.refused.as_deref(), found));
    }
    Ok(())
}

fn call(config: Option<String>, siblings: Vec<Input>) -> Call {
    Call {
        bucket: "cases".to_owned(),
        key: Bytes::from_static(b"k"),
        config,
        siblings,
        ..Call::default()
    }
}

fn resolve(local: &Local, case: &Resolve) -> Result<Ran, String> {
    let siblings = case.siblings.iter().map(super::cases::Sibling::input);
    let call = call(case.config.clone(), siblings.collect::<Result<_, _>>()?);
    let report = local.platform.resolve_now(&local.admitted.digest, &call);
    let wrong = (!case.expect.is_met(&report.outcome)).then(|| {
        let mut text = difference::between(&case.expect, &report.outcome);
        for line in &report.log {
            text += &format!("  log {}: {}\n", line.level.as_str(), line.message);
        }
        text
    });
    Ok(Ran {
        name: case.name.clone(),
        wrong,
        fuel: report.fuel,
        duration: report.duration,
    })
}

/// A check's verdict beside what the case says. The outer error is a check that failed itself.
fn checked(name: &str, refused: Option<&str>, found: Result<Result<(), String>, String>) -> Ran {
    let fits = match (refused, &found) {
        (None, Ok(Ok(()))) => true,
        (Some(part), Ok(Err(message))) => message.contains(part),
        _ => false,
    };
    let wanted = refused.map_or("accepted".to_owned(), |part| format!("refused: … {part} …"));
    let came = match found {
        Ok(Ok(())) => "accepted".to_owned(),
        Ok(Err(message)) => format!("refused: {message}"),
        Err(failure) => failure,
    };
    Ran {
        name: name.to_owned(),
        wrong: (!fits).then(|| format!("- {wanted}\n+ {came}\n")),
        fuel: 0,
        duration: Duration::ZERO,
    }
}

fn to_json(ran: &[Ran]) -> Value {
    let cases = ran.iter().map(|ran| {
        json!({
            "name": ran.name,
            "holds": ran.wrong.is_none(),
            "difference": ran.wrong,
            "fuel": ran.fuel,
            "duration_us": u64::try_from(ran.duration.as_micros()).unwrap_or(u64::MAX),
        })
    });
    json!({ "cases": cases.collect::<Vec<_>>() })
}

fn print(ran: &[Ran]) -> Result<(), Failure> {
    let mut table = output::table(&["case", "", "fuel", "µs"]);
    for ran in ran {
        let verdict = if ran.wrong.is_none() {
            "holds"
        } else {
            "FAILED"
        };
        let cost = |cost: u128| {
            if ran.fuel == 0 {
                String::new()
            } else {
                cost.to_string()
            }
        };
        let (fuel, micros) = (cost(ran.fuel.into()), cost(ran.duration.as_micros()));
        table.add_row([
            output::printable(&ran.name).as_str(),
            verdict,
            &fuel,
            &micros,
        ]);
    }
    output::print_table(&table)?;
    let failed = ran
        .iter()
        .filter_map(|ran| Some((&ran.name, ran.wrong.as_ref()?)));
    for (name, wrong) in failed.clone() {
        output::print(output::printable(&format!(
            "\n{name} FAILED (- expected, + came)\n{wrong}"
        )))?;
    }
    let count = failed.count();
    output::print(format!(
        "\n{} of {} cases hold\n",
        ran.len() - count,
        ran.len()
    ))
}
