//! The simulator's command line: run many seeds, or replay one.
//!
//! A failing batch prints the seed, what broke, the smallest plan that still breaks it, and the command
//! that replays it; it exits with 1. A batch that never met something that it should also fails.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sibyl_sim::batch::{Batch, Failure, Room, run_batch};
use sibyl_sim::gossip;
use sibyl_sim::plan::Plan;
use sibyl_sim::regression::{Kept, ReadError, Regression};
use sibyl_sim::shrink::{shrink, shrink_gossip};
use sibyl_sim::world::{Report, run};
use sibyl_sim::zoo::Bug;

/// Fewer seeds than this need not meet everything.
const ENOUGH: u64 = 500;

#[derive(Parser)]
#[command(name = "sibyl-sim", about = "Runs Sibyl's core under simulated faults")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; stops at the first that breaks a promise.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many of 100 seeds run twice, to compare their traces.
        #[arg(long, default_value_t = 1)]
        twice_percent: u64,
        /// Plays every seed in the room of gossip, and nowhere else.
        #[arg(long)]
        gossip: bool,
        /// A known bug to switch on; then the batch succeeds if it is found within its budget.
        #[arg(long)]
        zoo: Option<Bug>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Names the known bugs, each of which `run --zoo` must find.
    Zoo,
    /// Runs one seed, or a kept plan, and says what happened.
    Replay {
        /// The seed.
        #[arg(long, required_unless_present = "plan", conflicts_with = "plan")]
        seed: Option<u64>,
        /// A file of `regressions/` instead of a seed.
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Keeps what was replayed as such a file.
        #[arg(long)]
        save: Option<PathBuf>,
        /// A known bug to switch on.
        #[arg(long)]
        zoo: Option<Bug>,
        /// Prints every event.
        #[arg(short, long)]
        verbose: bool,
        /// Replays it in the room of gossip.
        #[arg(long)]
        gossip: bool,
        /// Replays the smallest plan that breaks the same promise.
        #[arg(long)]
        shrink: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            seeds,
            from,
            twice_percent,
            gossip,
            zoo,
            jobs,
        } => {
            let seeds = zoo.map_or(seeds, Bug::budget);
            run_many(Batch {
                from,
                seeds,
                twice_percent,
                room: gossip.then_some(Room::Gossip),
                bug: zoo,
                jobs,
            })
        }
        Command::Zoo => {
            Bug::ALL.iter().for_each(|bug| println!("{bug}"));
            ExitCode::SUCCESS
        }
        Command::Replay {
            seed,
            plan,
            save,
            zoo,
            verbose,
            gossip,
            shrink,
        } => {
            let gossip = gossip || zoo.is_some_and(|bug| bug.gossip().is_some());
            let drawn = match (plan, seed.unwrap_or_default()) {
                (Some(path), _) => Regression::read(&path).map(|kept| kept.plan),
                (None, seed) if gossip => Ok(Kept::Gossip(gossip::Plan::draw(seed))),
                (None, seed) => Ok(Kept::World(Plan::for_bug(seed, zoo))),
            };
            let replayed = drawn.and_then(|drawn| {
                let plan = if shrink { smaller(drawn, zoo) } else { drawn };
                keep(save.as_deref(), &plan, zoo)?;
                Ok(replay(&plan, zoo, verbose))
            });
            replayed.map_or_else(
                |error| {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                },
                show,
            )
        }
    }
}

fn run_many(batch: Batch) -> ExitCode {
    let outcome = run_batch(batch);
    println!(
        "{} seeds, {} events, {:.0} seeds/s",
        outcome.ran,
        outcome.events,
        outcome.rate()
    );
    match (outcome.failure.as_ref(), batch.bug) {
        (Some(failure), Some(bug)) if !bug.breaks().contains(&failure.violation.check) => {
            println!("{bug} is known for breaking {:?}", bug.breaks());
            report(failure, Some(bug));
            ExitCode::FAILURE
        }
        (Some(failure), Some(bug)) => {
            println!(
                "{bug} found with seed {}: {}",
                failure.seed, failure.violation
            );
            ExitCode::SUCCESS
        }
        (None, Some(bug)) => {
            println!(
                "{bug} NOT FOUND in {} seeds: the simulator has lost an eye",
                batch.seeds
            );
            ExitCode::FAILURE
        }
        (Some(failure), None) => {
            report(failure, None);
            ExitCode::FAILURE
        }
        (None, None) => {
            let missing = outcome.missing();
            for sight in sibyl_sim::sight::Sight::ALL {
                println!("{:>10}  {sight}", outcome.sights.count(*sight));
            }
            if batch.seeds < ENOUGH || batch.room.is_some() || missing.is_empty() {
                return ExitCode::SUCCESS;
            }
            missing
                .iter()
                .for_each(|sight| println!("NEVER MET: {sight}"));
            ExitCode::FAILURE
        }
    }
}

fn report(failure: &Failure, bug: Option<Bug>) {
    let Failure {
        room,
        seed,
        at_us,
        violation,
    } = failure;
    println!(
        "FAILED after {:.3} ms of seed {seed}\n{violation}",
        *at_us as f64 / 1000.0
    );
    let (small, flag) = match room {
        Room::World => (
            quietly(|| shrink(&Plan::for_bug(*seed, bug), bug).to_string()),
            "",
        ),
        Room::Gossip => (
            quietly(|| shrink_gossip(&gossip::Plan::draw(*seed), bug).to_string()),
            "--gossip ",
        ),
    };
    println!("the smallest plan that breaks it:\n{small}");
    let zoo = bug.map_or(String::new(), |bug| format!("--zoo {bug} "));
    println!("replay: cargo run -p sibyl-sim -- replay {flag}{zoo}--seed {seed} --shrink -v");
}

/// Shrinks a plan without a word of each panic that it meets on the way.
fn quietly<T>(shrink: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let small = shrink();
    std::panic::set_hook(hook);
    small
}

fn smaller(plan: Kept, bug: Option<Bug>) -> Kept {
    quietly(|| match plan {
        Kept::World(plan) => Kept::World(shrink(&plan, bug)),
        Kept::Gossip(plan) => Kept::Gossip(shrink_gossip(&plan, bug)),
    })
}

fn keep(path: Option<&Path>, plan: &Kept, bug: Option<Bug>) -> Result<(), ReadError> {
    let Some(path) = path else { return Ok(()) };
    let kept = Regression {
        story: "tell here what went wrong, and why it cannot any more".into(),
        catches: bug.map(|bug| bug.to_string()),
        plan: plan.clone(),
    };
    kept.write(path)
}

fn replay(plan: &Kept, bug: Option<Bug>, verbose: bool) -> Report {
    match plan {
        Kept::World(plan) => {
            print!("{plan}");
            run(plan, bug, verbose)
        }
        Kept::Gossip(plan) => {
            print!("{plan}");
            gossip::run(plan, bug, verbose)
        }
    }
}

fn show(report: Report) -> ExitCode {
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("{} events, trace {:016x}", report.events, report.hash);
    match report.violation {
        Some((at_us, violation)) => {
            println!("FAILED after {:.3} ms\n{violation}", at_us as f64 / 1000.0);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
