//! What holds in any history: nodes stop, start, pause and lose messages, links break, clocks are wrong, documents
//! remove members and not everybody hears of it.
//!
//! Each law is also broken on purpose: a property that finds no known bug proves nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{Effect, Faults, Standing, State, Timing};
use super::world::{Rng, World, node};
use crate::id::NodeId;

const TIMING: Timing = Timing {
    interval_ms: 1_000,
    suspect_after_ms: 3_000,
};
/// Far longer than it takes: silence, probes, and news by way of everybody.
const CALM_MS: u64 = 30_000;

struct History {
    world: World,
    rng: Rng,
    names: Vec<NodeId>,
    /// The highest incarnation that each node ever knew of each, and of itself.
    known: BTreeMap<(NodeId, NodeId), u64>,
    /// Who was removed, and by which nodes' documents.
    removed: BTreeMap<NodeId, Vec<NodeId>>,
}

impl History {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng(seed);
        let count = 3 + usize::try_from(rng.below(4)).expect("small");
        let names = &["a", "b", "c", "d", "e", "f"][..count];
        let mut world = World::new(names, TIMING, seed ^ 1);
        world.faults = faults;
        world.watches = true;
        world.lost = [0, 0, 100, 300][usize::try_from(rng.below(4)).expect("small")];
        world.slow_ms = rng.below(300);
        let names: Vec<NodeId> = names.iter().map(|name| node(name)).collect();
        for name in &names {
            let ahead = i64::try_from(rng.below(200_000)).expect("small") - 100_000;
            world.places.get_mut(name).expect("a node").wall_ahead_ms = ahead;
            world.start(name);
        }
        Self {
            world,
            rng,
            names,
            known: BTreeMap::new(),
            removed: BTreeMap::new(),
        }
    }

    fn any(&mut self) -> NodeId {
        let at = self.rng.below(self.names.len() as u64);
        self.names[usize::try_from(at).expect("small")].clone()
    }

    fn step(&mut self) -> Result<(), String> {
        let (one, other) = (self.any(), self.any());
        let (runs, paused) = {
            let place = &self.world.places[&one];
            (place.value.is_some(), place.paused)
        };
        match self.rng.below(10) {
            0 if runs => self.world.stop(&one),
            0 | 1 if !runs => {
                self.world.start(&one);
                // Who starts learns the document that is in force.
                let removed = self.removed.values_mut();
                removed.for_each(|heard| heard.push(one.clone()));
            }
            2 if runs && !paused => self.world.pause(&one),
            2..=4 if paused => {
                self.world.resume(&one);
            }
            5 => drop(self.world.cut.insert((one, other))),
            6 => {
                let name = self.any();
                let ahead = i64::try_from(self.rng.below(200_000)).expect("small") - 100_000;
                self.world
                    .places
                    .get_mut(&name)
                    .expect("a node")
                    .wall_ahead_ms = ahead;
            }
            7 => self.world.cut.clear(),
            8 if self.removed.is_empty() && self.names.len() > 3 => self.remove(one),
            _ => {}
        }
        let ms = self.rng.below(4_000);
        self.world.wait(ms);
        self.check()
    }

    /// A document removes a member; only half of the others hear of it now.
    fn remove(&mut self, who: NodeId) {
        let mut members = self.world.members();
        let standing = [Standing::Down, Standing::Left][usize::from(self.rng.below(2) == 0)];
        if self.rng.below(3) == 0 {
            members.remove(&who);
        } else {
            members.insert(who.clone(), standing);
        }
        let heard: Vec<NodeId> = self
            .names
            .iter()
            .filter(|name| **name != who)
            .cloned()
            .collect();
        let heard: Vec<_> = heard
            .into_iter()
            .filter(|_| self.rng.below(2) == 0)
            .collect();
        let heard: Vec<_> = heard
            .into_iter()
            .filter(|name| self.world.places[name].value.is_some())
            .collect();
        self.world.document(members, Some(&heard));
        self.removed.insert(who, heard);
    }

    /// What holds at every moment.
    fn check(&mut self) -> Result<(), String> {
        for who in self.world.running() {
            let view = self.world.view(&who).expect("it runs");
            for (whom, member) in &view.members {
                let seen = member.life.incarnation;
                let own = self.world.places[whom].incarnation;
                if seen > own {
                    return Err(format!(
                        "{who} knows incarnation {seen} of {whom}, whose disk says {own}"
                    ));
                }
                let highest = self.known.entry((who.clone(), whom.clone())).or_default();
                // A process knows nothing at its start but itself.
                if whom == &who && seen < *highest {
                    return Err(format!("{who} fell from incarnation {highest} to {seen}"));
                }
                *highest = seen.max(*highest);
                let heard = self
                    .removed
                    .get(whom)
                    .is_some_and(|heard| heard.contains(&who));
                let gone = matches!(member.state, State::Down | State::Left);
                if heard != gone && who != *whom {
                    let state = member.state.as_str();
                    return Err(format!(
                        "{who} sees {whom} {state}; told that it was removed: {heard}"
                    ));
                }
            }
        }
        for (who, whom, silent_ms) in std::mem::take(&mut self.world.silences) {
            if silent_ms < TIMING.suspect_after_ms {
                return Err(format!(
                    "{who} blames {whom} for silence, after {silent_ms} ms awake"
                ));
            }
        }
        for (_, who, effect) in std::mem::take(&mut self.world.effects) {
            if let Effect::Forgotten { .. } = effect {
                return Err(format!("{who} believes that it has forgotten"));
            }
        }
        Ok(())
    }

    /// Everything heals, everybody hears of the document; then all views are equal, and true.
    fn settle(&mut self) -> Result<(), String> {
        self.world.cut.clear();
        (self.world.lost, self.world.slow_ms) = (0, self.world.slow_ms.min(20));
        for name in self.names.clone() {
            if self.world.places[&name].paused {
                self.world.resume(&name);
            }
        }
        let members = self.world.members();
        self.world.document(members, None);
        let everyone = self.names.clone();
        self.removed
            .values_mut()
            .for_each(|heard| heard.extend(everyone.iter().cloned()));
        self.world.wait(CALM_MS);
        self.check()?;
        for (who, view) in self.world.views() {
            if self.removed.contains_key(&who) {
                continue;
            }
            for (whom, (state, incarnation)) in view {
                let runs = self.world.places[&whom].value.is_some();
                let own = self.world.places[&whom].incarnation;
                let wanted = if runs { State::Alive } else { State::Suspect };
                let removed = self.removed.contains_key(&whom);
                if !removed && (state != wanted || runs && incarnation != own) {
                    let state = state.as_str();
                    return Err(format!(
                        "{who} sees {whom} {state} {incarnation}; it runs: {runs}, {own}"
                    ));
                }
            }
            let value = self.world.places[&who].value.as_ref().expect("it runs");
            let owed = value.others.iter().find(|(whom, known)| {
                let runs = self.world.places[*whom].value.is_some();
                runs && known.is_member() && known.owed.is_some()
            });
            if let Some((whom, _)) = owed {
                return Err(format!("{whom} never learnt that {who} suspected it"));
            }
        }
        Ok(())
    }
}

fn run(seed: u64, faults: Faults) -> Result<(), String> {
    let mut history = History::new(seed, faults);
    for _ in 0..40 {
        history.step()?;
    }
    history.settle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_history_keeps_the_laws(seed: u64) {
        prop_assert_eq!(run(seed, Faults::default()), Ok(()));
    }
}

#[track_caller]
fn check_found(faults: Faults, words: &str) {
    let found = (0..200).find_map(|seed| run(seed, faults).err());
    let found = found.unwrap_or_else(|| panic!("{faults:?} breaks no law"));
    assert!(found.contains(words), "{found}");
}

#[test]
fn the_zoo_resurrects_who_was_removed() {
    let faults = Faults {
        resurrects: true,
        ..Faults::default()
    };
    check_found(faults, "told that it was removed: true");
}

#[test]
fn the_zoo_believes_stamps() {
    let faults = Faults {
        believes_stamps: true,
        ..Faults::default()
    };
    check_found(faults, "for silence");
}

#[test]
fn the_zoo_raises_incarnations_of_others() {
    let faults = Faults {
        raises_others: true,
        ..Faults::default()
    };
    check_found(faults, "whose disk says");
}

#[test]
fn the_zoo_tells_nobody() {
    let faults = Faults {
        tells_nobody: true,
        ..Faults::default()
    };
    check_found(faults, "never learnt");
}

#[test]
fn the_zoo_blames_others_for_its_sleep() {
    let faults = Faults {
        blames_others: true,
        ..Faults::default()
    };
    check_found(faults, "for silence");
}

#[test]
fn a_large_cluster_finds_itself_and_notices_who_stops() {
    let names: Vec<String> = (0..30).map(|at| format!("n{at:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names, TIMING, 5);
    world.slow_ms = 5;
    names.iter().for_each(|name| world.start(&node(name)));
    world.wait(20_000);
    let alive = |world: &World| {
        let views = world.views();
        views
            .values()
            .map(|view| {
                view.values()
                    .filter(|(state, _)| *state == State::Alive)
                    .count()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(alive(&world), vec![30; 30]);
    world.stop(&node("n07"));
    world.wait(20_000);
    assert_eq!(alive(&world), vec![29; 29]);
}
