//! Plays a transcript: the lines that begin with `>` are done, what happens then is written below them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::{Standing, Timing};
use super::world::{World, node};
use crate::id::{Actor, NodeId};

/// As in production, unless a transcript needs less.
const TIMING: Timing = Timing {
    interval_ms: 5_000,
    suspect_after_ms: 15_000,
};

// The commands:
//
// > members a b c                    everybody starts
// > settle                           they find each other, which takes 20s and is not written down
// > wait 20s                         time passes
// > stop b | start b                 a process ends, at once; it starts again on the disk it left
// > pause b | resume b               SIGSTOP and SIGCONT
// > mints b                          its store gives out counters and syncs
// > wipe b                           its disk is gone, and with it its store and its incarnation
// > older b                          its disk is as it was at its last start
// > clock b +3600s                   its wall clock is wrong from now on
// > cut a b | cut a->b | heal        links break, or one direction, and all are mended
// > fails a b | works a b            a request of a to b ended so
// > left b | down b | back b         a registry document says so, and everyone has it
// > down b, not for c                all but c have it
// > listen | ignore                  whether messages are written down, too
// > views                            what everyone thinks of everyone, one row each

pub(super) struct Player {
    world: Option<World>,
    messages: bool,
    saved: BTreeMap<NodeId, (u64, super::super::Marks)>,
    pub(super) out: String,
}

/// Plays what a transcript does and compares what happens with what it says.
#[track_caller]
pub(super) fn check(transcript: &str) {
    let played = play(transcript);
    let wanted = transcript
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        played.trim() == wanted.trim(),
        "the transcript differs; it was:\n{played}"
    );
}

pub(super) fn play(transcript: &str) -> String {
    let mut player = Player {
        world: None,
        messages: false,
        saved: BTreeMap::new(),
        out: String::new(),
    };
    for line in transcript.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let _infallible = writeln!(player.out, "{line}");
            player.run(command.split('#').next().unwrap_or(command).trim());
        } else if line.starts_with('#') || line.is_empty() {
            let _infallible = writeln!(player.out, "{line}");
        }
    }
    player.out
}

impl Player {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("`members` comes first")
    }

    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            ["members", ..] => {
                let mut world = World::new(&words[1..], TIMING, 7);
                world.listens = true;
                words[1..].iter().for_each(|name| world.start(&node(name)));
                self.world = Some(world);
            }
            ["settle"] => {
                self.world().wait(20_000);
                self.world().told.clear();
            }
            ["wait", time] => self.world().wait(ms(time)),
            ["stop", who] => self.world().stop(&node(who)),
            ["start", who] => self.start(&node(who)),
            ["pause", who] => self.world().pause(&node(who)),
            ["resume", who] => self.world().resume(&node(who)),
            ["wipe", who] => self.wipe(&node(who)),
            ["older", who] => self.older(&node(who)),
            ["mints", who] => {
                let place = self.world().places.get_mut(&node(who)).expect("a node");
                place.marks.counter += 10;
                place.marks.synced += 10;
            }
            ["clock", who, by] => {
                let by = i64::try_from(ms(by.trim_start_matches('+'))).expect("some hours");
                self.world()
                    .places
                    .get_mut(&node(who))
                    .expect("a node")
                    .wall_ahead_ms = by;
            }
            ["cut", link] => {
                let (from, to) = link.split_once("->").expect("a direction");
                self.world().cut.insert((node(from), node(to)));
            }
            ["cut", a, b] => {
                let (a, b) = (node(a), node(b));
                self.world().cut.extend([(a.clone(), b.clone()), (b, a)]);
            }
            ["heal"] => self.world().cut.clear(),
            ["fails" | "works", a, b] => {
                let (member, answered) = (node(b), words[0] == "works");
                let event = super::super::Event::Outcome { member, answered };
                self.world().feed(&node(a), event);
            }
            ["left" | "down" | "back", who] => self.document(words[0], who, &[]),
            ["left" | "down" | "back", who, "not", "for", ..] => {
                self.document(words[0], who, &words[4..]);
            }
            ["listen"] => self.messages = true,
            ["ignore"] => self.messages = false,
            ["views"] => return self.views(),
            _ => panic!("{command:?} is no command of a transcript"),
        }
        self.write();
    }

    fn start(&mut self, who: &NodeId) {
        let place = &self.world().places[who];
        let saved = (place.incarnation, place.marks);
        self.saved.insert(who.clone(), saved);
        self.world().start(who);
    }

    fn wipe(&mut self, who: &NodeId) {
        self.world().stop(who);
        let place = self.world().places.get_mut(who).expect("a node");
        place.store = Actor(place.store.0 + 1000);
        (place.incarnation, place.marks) = (0, super::super::Marks::default());
    }

    fn older(&mut self, who: &NodeId) {
        self.world().stop(who);
        let (incarnation, marks) = self.saved.get(who).copied().unwrap_or_default();
        let place = self.world().places.get_mut(who).expect("a node");
        (place.incarnation, place.marks) = (incarnation, marks);
    }

    fn document(&mut self, word: &str, who: &str, not_for: &[&str]) {
        let world = self.world();
        let mut members = world.members();
        let standing = match word {
            "left" => Standing::Left,
            "down" => Standing::Down,
            _ => Standing::Member,
        };
        members.insert(node(who), standing);
        let reached: Vec<NodeId> = world.places.keys().cloned().collect();
        let reached = reached
            .into_iter()
            .filter(|one| !not_for.contains(&one.as_str()));
        let reached: Vec<_> = reached.collect();
        world.document(members, Some(&reached));
    }

    /// Writes down what happened.
    fn write(&mut self) {
        let messages = self.messages;
        for (at, text) in std::mem::take(&mut self.world().told) {
            let is_message = text.contains(" -> ") || text.contains(" <- ");
            if messages || !is_message {
                let _infallible = writeln!(self.out, "{:>9.3}s  {text}", at as f64 / 1000.0);
            }
        }
    }

    fn views(&mut self) {
        let views = self.world().views();
        let everyone: Vec<NodeId> = self.world().places.keys().cloned().collect();
        let head: String = everyone
            .iter()
            .map(|node| format!("{:<10}", node.as_str()))
            .collect();
        let _infallible = writeln!(self.out, "      {}", head.trim_end());
        for (who, view) in views {
            let cells = everyone.iter().map(|node| match view.get(node) {
                Some((state, incarnation)) => {
                    format!("{:<10}", format!("{} {incarnation}", state.as_str()))
                }
                None => format!("{:<10}", "-"),
            });
            let cells: String = cells.collect();
            let _infallible = writeln!(self.out, "  {:<4}{}", who.as_str(), cells.trim_end());
        }
    }
}

fn ms(time: &str) -> u64 {
    let seconds: f64 = time.trim_end_matches('s').parse().expect("seconds");
    (seconds * 1000.0) as u64
}
