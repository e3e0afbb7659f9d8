//! `sibyl resolver check`: the law check on this machine, with the node's own engine and limits, before anything is
//! uploaded.
//!
//! It needs no node: see `author/local.rs`. `FILE` may be a project's folder, too.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::author::{self, local::Local};
use super::failure::Failure;
use super::output::{self, Format};
use super::{bucket, resolver};
use crate::laws::{
    self, Certificate, Finding, Module, Plan, Progress, QUICK_CASES, THOROUGH_CASES, Tier, shown,
};
use crate::resolver::{Admitted, FUEL_SCHEDULE, Lane, Limits};

/// Siblings of this many bytes are the size that fuel is extrapolated to.
const LARGE_BYTES: u64 = 1 << 20;

/// Find out what a resolver may be trusted with, on this machine
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver check target/wasm32-unknown-unknown/release/cart.wasm
  sibyl resolver check my-resolver
  sibyl resolver check merge.wat --sample one.json --sample two.json
  sibyl resolver check merge.wasm --thorough --at-least lattice --output json

It exits with 1 if a law that --at-least needs is broken. The same seed draws the same cases.")]
pub(super) struct Args {
    /// The module (a component, a core module or WAT), or a project's folder.
    #[arg(value_name = "FILE|DIR")]
    file: PathBuf,
    /// Cases of each law.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(laws::MOST_CASES)))]
    cases: Option<u32>,
    /// Sixteen times the cases.
    #[arg(long, conflicts_with = "cases")]
    thorough: bool,
    /// Where drawing begins.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    seed: u64,
    /// The resolver's configuration.
    #[arg(long, value_name = "JSON", value_parser = bucket::object)]
    config: Option<Map<String, Value>>,
    /// A file with a real value; edits of it are tried. May be given several times.
    #[arg(long, value_name = "FILE")]
    sample: Vec<PathBuf>,
    /// What the values are; otherwise the first that the module describes.
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Show it deleted siblings too, as a bucket with `deletes: resolver` does.
    #[arg(long)]
    deletes: bool,
    /// The least that it must be: deterministic, foldable or lattice.
    #[arg(long, default_value = "foldable", value_parser = ["none", "deterministic", "foldable", "lattice"])]
    at_least: String,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// `sibyl resolver check`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let samples = args
        .sample
        .iter()
        .map(|file| resolver::read_file(file).map(Bytes::from));
    let samples = samples.collect::<Result<Vec<_>, _>>()?;
    let bytes = Bytes::from(resolver::read_file(&author::module(&args.file)?)?);
    let waiting = output::spinner(format!("checking {}", args.file.display()));
    let checked = check(args, bytes, samples);
    waiting.finish_and_clear();
    let (admitted, certificate) = checked?;
    match args.output {
        Format::Json => output::print_json(&to_json(&admitted, &certificate))?,
        Format::Table => print(args, &admitted, &certificate)?,
    }
    if certificate.tier.name() == args.at_least || certificate.tier > tier(&args.at_least) {
        Ok(())
    } else {
        Err(Failure::Reported)
    }
}

fn tier(name: &str) -> Tier {
    let all = [Tier::Lattice, Tier::Foldable, Tier::Deterministic];
    all.into_iter()
        .find(|tier| tier.name() == name)
        .unwrap_or(Tier::None)
}

fn check(
    args: &Args,
    bytes: Bytes,
    samples: Vec<Bytes>,
) -> Result<(Admitted, Certificate), Failure> {
    let failed = |what: String| Failure::Failed(what);
    let local = Local::admit(bytes)?;
    let (platform, admitted) = (&local.platform, &local.admitted);
    let config = args
        .config
        .clone()
        .map(|config| Value::Object(config).to_string());
    if let Some(config) = &config {
        let verdict = local
            .runtime
            .block_on(platform.check_config(admitted.digest, config.clone()));
        let verdict = verdict.map_err(|failure| failed(format!("check-config: {failure}")))?;
        verdict
            .map_err(|why| Failure::Usage(format!("--config: the resolver refuses it: {why}")))?;
    }
    let checker = local
        .runtime
        .block_on(platform.checker(&admitted.digest, Lane::Long));
    let checker = checker.map_err(|failure| failed(failure.to_string()))?;
    let module = Module::new(checker, config.as_deref().unwrap_or("{}"));
    let values = module.values(args.media_type.as_deref(), samples);
    let plan = Plan {
        cases: args.cases.unwrap_or(if args.thorough {
            THOROUGH_CASES
        } else {
            QUICK_CASES
        }),
        seed: args.seed,
        deletes: args.deletes,
        until: None,
    };
    let certificate = laws::check(&module, &values, plan, &Progress::default());
    if let Some(why) = module.broken_sampling() {
        return Err(failed(format!("the module's sampling fails: {why}")));
    }
    let certificate = certificate.map_err(|inconclusive| failed(inconclusive.to_string()))?;
    Ok((local.admitted, certificate))
}

fn to_json(admitted: &Admitted, certificate: &Certificate) -> Value {
    let laws = certificate.laws.iter().map(|finding| {
        let mut law = json!({
            "law": finding.law.name(),
            "holds": finding.broken.is_none(),
            "cases": finding.cases,
        });
        if let (Some(broken), Some(fields)) = (&finding.broken, law.as_object_mut()) {
            fields.insert("counterexample".to_owned(), broken.to_json(usize::MAX));
            fields.insert("suspicion".to_owned(), broken.suspicion.text().into());
            fields.insert("remedy".to_owned(), broken.suspicion.remedy().into());
        }
        law
    });
    let costs = certificate.costs.iter().map(|cost| {
        json!({
            "input_bytes": cost.input_bytes,
            "output_bytes": cost.output_bytes,
            "fuel": cost.fuel,
            "memory_bytes": cost.memory_bytes,
        })
    });
    json!({
        "digest": admitted.digest.to_string(),
        "certificate": {
            "tier": certificate.tier.name(),
            "laws": laws.collect::<Vec<_>>(),
            "costs": costs.collect::<Vec<_>>(),
            "seed": certificate.seed.to_string(),
            "fuel_schedule": FUEL_SCHEDULE,
        }
    })
}

fn print(args: &Args, admitted: &Admitted, certificate: &Certificate) -> Result<(), Failure> {
    let name = admitted
        .description
        .as_ref()
        .map_or("", |description| &description.name);
    let tier = certificate.tier;
    output::print_table(&output::facts(&[
        ("resolver", output::printable(name)),
        ("version", admitted.digest.to_string()),
        ("bytes", admitted.bytes.to_string()),
        ("tier", format!("{}: {}", tier.name(), tier.meaning())),
    ]))?;
    let mut table = output::table(&["law", "cases", "", "what it says"]);
    for finding in &certificate.laws {
        let verdict = if finding.broken.is_none() {
            "holds"
        } else {
            "BROKEN"
        };
        let (name, statement) = (finding.law.name(), finding.law.statement());
        table.add_row([name, &finding.cases.to_string(), verdict, statement]);
    }
    output::print("\n")?;
    output::print_table(&table)?;
    certificate.laws.iter().try_for_each(print_broken)?;
    print_costs(certificate)?;
    if certificate
        .laws
        .iter()
        .any(|finding| finding.broken.is_some())
    {
        output::print(format!("\nthe same again: {}\n", again(args)))?;
    }
    Ok(())
}

fn print_broken(finding: &Finding) -> Result<(), Failure> {
    let Some(broken) = &finding.broken else {
        return Ok(());
    };
    let gave = |gave: &Result<Vec<Option<Bytes>>, String>| match gave {
        Ok(values) => values
            .iter()
            .map(|value| shown(value.as_ref()))
            .collect::<Vec<_>>()
            .join(" and "),
        Err(failure) => failure.clone(),
    };
    let mut text = format!("\n{} is broken\n", finding.law.name());
    for given in &broken.siblings {
        let value = shown(given.value.as_ref());
        text += &format!(
            "  {} = {value}, written at {} ms\n",
            given.name, given.modified_at
        );
    }
    for step in &broken.steps {
        text += &format!("  {} gave {}\n", step.of, gave(&step.gave));
    }
    if broken.always {
        let [one, other] = &broken.sides;
        text += &format!("  {} should be {}\n", other.of, one.of);
    } else {
        text += "  tried once more, it held: answers change by themselves\n";
    }
    text += &format!("  looks as if it {}\n", broken.suspicion.text());
    text += &format!("  remedy: {}\n", broken.suspicion.remedy());
    output::print(output::printable(&text))
}

fn print_costs(certificate: &Certificate) -> Result<(), Failure> {
    let mut table = output::table(&["two siblings of", "result", "fuel", "memory"]);
    for cost in &certificate.costs {
        let bytes = |bytes: u64| format!("{bytes} bytes");
        table.add_row([
            bytes(cost.input_bytes),
            bytes(cost.output_bytes),
            cost.fuel.to_string(),
            bytes(cost.memory_bytes),
        ]);
    }
    output::print("\n")?;
    output::print_table(&table)?;
    let [.., before, last] = &certificate.costs[..] else {
        return Ok(());
    };
    let grown = last.input_bytes.saturating_sub(before.input_bytes);
    if grown == 0 {
        return Ok(());
    }
    let per_byte = last.fuel.saturating_sub(before.fuel) / grown;
    let fuel = last.fuel + per_byte * LARGE_BYTES.saturating_sub(last.input_bytes);
    let allowed = Limits::default().fuel_for(LARGE_BYTES);
    output::print(format!(
        "at this pace siblings of 1 MiB take {fuel} fuel; a bucket's default allows {allowed}\n"
    ))
}

/// The command that draws the same cases.
fn again(args: &Args) -> String {
    let mut words = vec![
        "sibyl resolver check".to_owned(),
        args.file.display().to_string(),
    ];
    words.push(format!("--seed {}", args.seed));
    words.extend(args.cases.map(|cases| format!("--cases {cases}")));
    words.extend(args.thorough.then(|| "--thorough".to_owned()));
    words.extend(
        args.config
            .clone()
            .map(|config| format!("--config '{}'", Value::Object(config))),
    );
    words.extend(
        args.sample
            .iter()
            .map(|file| format!("--sample {}", file.display())),
    );
    words.extend(
        args.media_type
            .iter()
            .map(|media_type| format!("--media-type {media_type}")),
    );
    words.extend(args.deletes.then(|| "--deletes".to_owned()));
    words.join(" ")
}
