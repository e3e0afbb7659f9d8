//! A small batch, every bug of the zoo, and the machinery itself.
//!
//! The batch is what a laptop runs in seconds; CI runs the binary with many more seeds. Seeds of the zoo are
//! seeds of the batch: without its bug each of them keeps all promises.

use std::path::PathBuf;

use sibyl_sim::batch::{Batch, Outcome, Room, run_batch};
use sibyl_sim::gossip;
use sibyl_sim::plan::Plan;
use sibyl_sim::regression::{Kept, Regression};
use sibyl_sim::shrink::{shrink, shrink_gossip};
use sibyl_sim::world::run;
use sibyl_sim::zoo::Bug;

fn batch(seeds: u64, twice_percent: u64, bug: Option<Bug>) -> Outcome {
    run_batch(Batch {
        from: 0,
        seeds,
        twice_percent,
        room: None,
        bug,
        jobs: 2,
    })
}

#[test]
fn many_seeds_keep_every_promise_and_meet_every_trouble() {
    let outcome = batch(500, 4, None);
    assert_eq!(outcome.failure, None);
    assert_eq!(
        outcome.missing(),
        [],
        "a trouble that no seed met is not simulated"
    );
}

fn check_found(bug: Bug) {
    let outcome = batch(bug.budget(), 0, Some(bug));
    let found = outcome
        .failure
        .as_ref()
        .map(|failure| failure.violation.check);
    assert!(
        found.is_some_and(|check| bug.breaks().contains(&check)),
        "{bug} within {} seeds: {found:?}",
        bug.budget()
    );
}

#[test]
fn the_zoo_is_caught() {
    Bug::ALL.iter().copied().for_each(check_found);
}

#[test]
fn a_failing_plan_shrinks_to_a_few_entries() {
    let bug = Some(Bug::AckBeforeSync);
    let failure = batch(20, 0, bug)
        .failure
        .expect("the zoo test finds it too");
    let drawn = Plan::for_bug(failure.seed, bug);
    let small = shrink(&drawn, bug);
    assert!(
        small.entries.len() <= 6 && small.entries.len() < drawn.entries.len(),
        "{small}"
    );
    let found = run(&small, bug, false)
        .violation
        .map(|(_, violation)| violation.check);
    assert_eq!(found, Some(failure.violation.check));
}

#[test]
fn many_seeds_of_gossip_keep_every_promise() {
    let outcome = run_batch(Batch {
        from: 0,
        seeds: 200,
        twice_percent: 4,
        room: Some(Room::Gossip),
        bug: None,
        jobs: 2,
    });
    assert_eq!(outcome.failure, None);
}

#[test]
fn a_failing_plan_of_gossip_shrinks_to_a_few_entries() {
    let bug = Some(Bug::Resurrection);
    let failure = batch(bug.map_or(0, Bug::budget), 0, bug).failure;
    let failure = failure.expect("the zoo test finds it too");
    let small = shrink_gossip(&gossip::Plan::draw(failure.seed), bug);
    assert!(small.entries.len() <= 3, "{small}");
}

#[test]
fn a_trace_is_text_only_if_somebody_reads_it() {
    let plan = Plan::draw(3);
    let (quiet, told) = (run(&plan, None, false), run(&plan, None, true));
    assert_eq!(quiet.hash, told.hash);
    assert!(quiet.lines.is_empty() && told.lines.len() > 100);
}

/// Every plan of the folder holds today, and catches what it is there for.
#[test]
fn what_once_went_wrong_stays_right() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let files = std::fs::read_dir(&folder).expect("the folder is beside the sources");
    let mut paths: Vec<PathBuf> = files
        .map(|file| file.expect("it can be listed").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        let kept = Regression::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let held = kept.plan.run(None);
        assert_eq!(held.violation, None, "{path:?}: {}", kept.story);
        let bug = kept.bug().expect("it is in the zoo");
        if let Some(bug) = bug {
            let broken = kept.plan.run(Some(bug)).violation;
            let check = broken.map(|(_, violation)| violation.check);
            assert_eq!(
                check,
                bug.breaks().first().copied(),
                "{path:?} no longer catches {bug}"
            );
        }
    }
}

#[test]
fn a_plan_comes_back_from_its_file_and_runs_the_same() {
    let path = std::env::temp_dir().join(format!("sibyl-sim-plan-{}.json", std::process::id()));
    for seed in 0..40 {
        let plans = [
            Kept::World(Plan::draw(seed)),
            Kept::Gossip(gossip::Plan::draw(seed)),
        ];
        for plan in plans {
            let kept = Regression {
                story: "a story".into(),
                catches: None,
                plan,
            };
            kept.write(&path).expect("a folder for temporary files");
            let read = Regression::read(&path).expect("what was written can be read");
            assert_eq!(read, kept);
            if seed == 0 {
                assert_eq!(read.plan.run(None).hash, kept.plan.run(None).hash);
            }
        }
    }
    std::fs::remove_file(&path).expect("it was written");
}
