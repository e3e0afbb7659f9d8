//! The simulator's command line: run many seeds, or replay one.
//!
//! A failing batch prints the seed, what broke, the smallest plan that still breaks it, and the command
//! that replays it; it exits with 1. A batch that never met something that it should also fails.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sibyl_sim::batch::{Batch, Failure, Room, run_batch};
use sibyl_sim::gossip;
use sibyl_sim::plan::Plan;
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
    /// Runs one seed and says what happened.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
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
        Command::Replay {
            seed,
            zoo,
            verbose,
            gossip,
            shrink,
        } => {
            let gossip = gossip || zoo.is_some_and(|bug| bug.gossip().is_some());
            let report = if gossip {
                replay_gossip(seed, zoo, verbose, shrink)
            } else {
                replay(seed, zoo, verbose, shrink)
            };
            show(report)
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
            report(failure);
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

fn report(failure: &Failure) {
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
        Room::World => (quietly(|| shrink(&Plan::draw(*seed), None).to_string()), ""),
        Room::Gossip => (
            quietly(|| shrink_gossip(&gossip::Plan::draw(*seed), None).to_string()),
            "--gossip ",
        ),
    };
    println!("the smallest plan that breaks it:\n{small}");
    println!("replay: cargo run -p sibyl-sim -- replay {flag}--seed {seed} --shrink -v");
}

/// Shrinks a plan without a word of each panic that it meets on the way.
fn quietly<T>(shrink: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let small = shrink();
    std::panic::set_hook(hook);
    small
}

fn replay(seed: u64, bug: Option<Bug>, verbose: bool, smaller: bool) -> Report {
    let drawn = Plan::for_bug(seed, bug);
    let plan = if smaller {
        quietly(|| shrink(&drawn, bug))
    } else {
        drawn
    };
    print!("{plan}");
    run(&plan, bug, verbose)
}

fn replay_gossip(seed: u64, bug: Option<Bug>, verbose: bool, smaller: bool) -> Report {
    let drawn = gossip::Plan::draw(seed);
    let plan = if smaller {
        quietly(|| shrink_gossip(&drawn, bug))
    } else {
        drawn
    };
    print!("{plan}");
    gossip::run(&plan, bug, verbose)
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
