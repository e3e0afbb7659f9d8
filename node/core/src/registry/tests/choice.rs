//! One chosen document per number, whatever happens; and progress when nothing does.
//!
//! Statement 8 of `design/merge-model.md`. Every known bug of the zoo must break it: a property that
//! passes with a bug switched on proves nothing. Runs are seeded; a failure names its seed.

use super::super::{Faults, Outcome};
use super::world::{Trouble, World};

const SOUND: Trouble = Trouble {
    crashes: 15,
    proposals: 15,
    wipes: 8,
    faults: Faults {
        poll: false,
        amnesiac_votes: false,
        form_by_majority: false,
        own_vote_unasked: false,
    },
    early_answers: false,
};

const SIZES: [usize; 6] = [1, 2, 3, 3, 4, 5];

fn run(seed: u64, trouble: Trouble, steps: usize) -> World {
    let members = SIZES[(seed % 6) as usize];
    let mut world = World::new(seed, members, trouble);
    (0..steps).for_each(|_| world.step());
    world
}

fn forked(world: &World) -> bool {
    world
        .chosen
        .values()
        .any(|same_number| same_number.len() > 1)
}

/// Runs until a seed ends with two documents of one number; a bug that hides from 3,000 is not found.
fn check_forks(trouble: Trouble, steps: usize, why: &str) {
    let found = (0..3000).find(|seed| forked(&run(*seed, trouble, steps)));
    assert!(found.is_some(), "{why} should fork the registry");
}

#[test]
fn one_document_is_chosen_per_number() {
    let mut numbers = 0;
    for seed in 0..200 {
        let world = run(seed, SOUND, 1500);
        assert!(!forked(&world), "seed {seed}: two documents of one number");
        for same_number in world.chosen.values() {
            let document = same_number.values().next().expect("at least one");
            numbers += 1;
            let before = world
                .chosen
                .get(&(document.number - 1))
                .and_then(|d| d.keys().next());
            assert!(
                before.is_none() || document.previous == before.copied(),
                "seed {seed}"
            );
        }
    }
    assert!(
        numbers > 500,
        "only {numbers} documents were chosen: the runs test too little"
    );
}

#[test]
fn what_was_told_is_true() {
    for seed in 0..150 {
        let mut world = run(seed, Trouble { wipes: 0, ..SOUND }, 1500);
        world.calm(20_000);
        world.gossip();
        world.calm(20_000);
        for (id, outcome) in &world.outcomes {
            let there = world.latest().buckets.contains_key(&format!("b{id}"));
            match outcome {
                Outcome::Done { .. } => assert!(there, "seed {seed}: change {id} is lost"),
                Outcome::GaveUp { unknown: false, .. } | Outcome::Busy | Outcome::Refused(_) => {
                    assert!(
                        !there,
                        "seed {seed}: change {id} came after all: {outcome:?}"
                    );
                }
                Outcome::GaveUp { .. } | Outcome::Unknown => {}
            }
        }
    }
}

#[test]
fn an_undisturbed_majority_makes_progress() {
    let mut stuck = 0;
    for seed in 0..150 {
        let mut world = run(seed, Trouble { wipes: 4, ..SOUND }, 600);
        for _ in 0..2 {
            world.calm(20_000);
            world.gossip();
        }
        world.calm(20_000);
        let latest = world.latest().clone();
        assert!(
            latest.number >= 2,
            "seed {seed}: all members are up and nothing has formed"
        );
        let all_same = world
            .names()
            .iter()
            .all(|id| world.machine(id).held().document == latest);
        assert!(
            all_same,
            "seed {seed}: not everybody learns the latest document"
        );
        if 2 * world.electorate() <= latest.layout.members.len() {
            stuck += 1; // a majority lost its disks: an operator's decision
            continue;
        }
        check_all_can_change(seed, &mut world);
    }
    assert!(
        stuck < 50,
        "{stuck} of 150 runs lost their majority: the runs test too little"
    );
}

/// Names every lost store, then lets all nodes propose at once: all get through.
fn check_all_can_change(seed: u64, world: &mut World) {
    let through = world
        .names()
        .into_iter()
        .find(|id| !world.machine(id).amnesiac())
        .expect("a voter");
    for lost in world.names() {
        if world.machine(&lost).amnesiac() {
            world.remember(&through, &lost);
        }
    }
    world.calm(20_000);
    assert_eq!(
        world.electorate(),
        world.names().len(),
        "seed {seed}: somebody still may not vote"
    );
    let changes: Vec<u64> = world
        .names()
        .iter()
        .map(|id| world.propose_at(id))
        .collect();
    world.calm(50_000);
    for change in changes {
        let outcome = world.outcomes.get(&change);
        assert!(
            matches!(outcome, Some(Outcome::Done { .. })),
            "seed {seed}: {outcome:?}"
        );
    }
}

#[test]
fn the_zoo_polls() {
    let faults = Faults {
        poll: true,
        ..Faults::default()
    };
    check_forks(
        Trouble {
            faults,
            wipes: 0,
            ..SOUND
        },
        1500,
        "opinions instead of promises",
    );
}

#[test]
fn the_zoo_answers_before_it_persists() {
    let trouble = Trouble {
        early_answers: true,
        wipes: 0,
        ..SOUND
    };
    check_forks(trouble, 1500, "promises that a crash takes back");
}

#[test]
fn the_zoo_votes_without_memory() {
    let faults = Faults {
        amnesiac_votes: true,
        ..Faults::default()
    };
    check_forks(
        Trouble { faults, ..SOUND },
        1500,
        "votes of a store that forgot its promises",
    );
}

#[test]
fn the_zoo_counts_its_own_vote_unasked() {
    let faults = Faults {
        own_vote_unasked: true,
        ..Faults::default()
    };
    let trouble = Trouble {
        faults,
        wipes: 0,
        ..SOUND
    };
    check_forks(
        trouble,
        1500,
        "a proposer that ignores what its acceptor promised",
    );
}

#[test]
fn the_zoo_forms_by_majority() {
    let faults = Faults {
        form_by_majority: true,
        ..Faults::default()
    };
    check_forks(
        Trouble {
            faults,
            wipes: 20,
            ..SOUND
        },
        400,
        "a first member wiped while forming",
    );
}
