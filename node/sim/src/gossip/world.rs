//! The transport, the disks and the clocks around the core's memberships.
//!
//! As `tasks/gossip.rs` does it: effects in order, a call ends by its timeout, a store that has forgotten is begun
//! anew under another actor. A node that is paused hears what it missed when it wakes; one that is stopped refuses.

use std::collections::BTreeMap;

use sibyl_core::id::NodeId;
use sibyl_core::membership::{
    Answer, Effect, Event, Marks, Membership, Message, Moment, Question, Standing,
};

use super::plan::{CALM_US, END_US, Plan};
use crate::checks::{Held, Violation};
use crate::draw::mix;
use crate::network::{Fate, Links, Network};
use crate::scheduler::Scheduler;
use crate::sight::{Sight, Sights};
use crate::trace::Trace;
use crate::world::Report;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 40;
/// The wall clock at the start of a run.
const WALL_MS: u64 = 1_000_000_000;

#[derive(Clone)]
pub(super) enum Happening {
    Plan(usize),
    Wake {
        node: usize,
        turn: u64,
    },
    Start {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Question {
        from: usize,
        to: usize,
        life: u64,
        call: u64,
        message: Box<Message<Question>>,
    },
    Answer {
        to: usize,
        life: u64,
        call: u64,
        message: Box<Message<Answer>>,
    },
    Timeout {
        to: usize,
        life: u64,
        call: u64,
    },
    Calm,
    End,
}

/// What a disk keeps.
#[derive(Clone, Copy, Default)]
pub(super) struct Disk {
    pub(super) store: u64,
    pub(super) incarnation: u64,
    pub(super) marks: Marks,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) value: Option<Membership>,
    pub(super) paused: bool,
    pub(super) missed: Vec<Happening>,
    pub(super) disk: Disk,
    /// As it was before the last start.
    pub(super) image: Disk,
    /// It runs on an older image.
    pub(super) is_older: bool,
    /// The highest incarnation that anyone knew of its present store.
    pub(super) ever_known: u64,
    pub(super) life: u64,
    pub(super) turn: u64,
    pub(super) rate: u64,
    pub(super) steady_ahead_ms: u64,
    pub(super) wall_ahead_ms: i64,
    pub(super) asks: BTreeMap<u64, (usize, u64, u64)>,
    /// How long it slept, in all; and when it learnt something newer of each member. Both by its steady clock.
    pub(super) slept_ms: u64,
    /// When it was paused.
    pub(super) fell_ms: u64,
    pub(super) learnt_ms: BTreeMap<NodeId, (u64, u64, u64)>,
    /// The number of the document it holds.
    pub(super) number: u64,
}

pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) bug: Option<Bug>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) scheduler: Scheduler<Happening>,
    pub(super) trace: Trace,
    pub(super) sights: Sights,
    pub(super) violation: Option<(u64, Violation)>,
    pub(super) asked: u64,
    pub(super) draws: u64,
    pub(super) stores: u64,
    /// Removed members, and the standing that the document gives them; `None`: it does not name them.
    pub(super) removed: BTreeMap<usize, Option<Standing>>,
    pub(super) over: bool,
}

/// Runs a plan to its end, or to its first broken promise.
pub fn run(plan: &Plan, bug: Option<Bug>, verbose: bool) -> Report {
    let mut world = World::new(plan, bug, verbose);
    let mut events = 0;
    // Ends: the end itself is scheduled.
    while let Some(happening) = world.scheduler.pop() {
        events += 1;
        world.happen(happening);
        if world.violation.is_some() || world.over {
            break;
        }
    }
    Report {
        violation: world.violation,
        sights: world.sights,
        hash: world.trace.hash(),
        events,
        lines: world.trace.into_lines(),
    }
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, bug: Option<Bug>, verbose: bool) -> Self {
        let setting = &plan.setting;
        let node = |at: usize| Node {
            id: format!("n{at}").parse().expect("a good name"),
            value: None,
            paused: false,
            missed: Vec::new(),
            disk: Disk {
                store: at as u64,
                ..Disk::default()
            },
            image: Disk::default(),
            is_older: false,
            ever_known: 0,
            life: 0,
            turn: 0,
            rate: setting.rates[at],
            steady_ahead_ms: 0,
            wall_ahead_ms: setting.walls_ms[at],
            asks: BTreeMap::new(),
            slept_ms: 0,
            fell_ms: 0,
            learnt_ms: BTreeMap::new(),
            number: 0,
        };
        let links = Links {
            nodes: setting.nodes,
            lost: setting.lost,
            doubled: setting.doubled,
            delay_us: setting.delay_us,
        };
        let mut world = Self {
            plan,
            bug,
            nodes: (0..setting.nodes).map(node).collect(),
            network: Network::new(plan.seed, links),
            scheduler: Scheduler::default(),
            trace: Trace::new(verbose),
            sights: Sights::default(),
            violation: None,
            asked: 0,
            draws: 0,
            stores: 100,
            removed: BTreeMap::new(),
            over: false,
        };
        for at in 0..setting.nodes {
            world
                .scheduler
                .at(at as u64 * 1_000, Happening::Start { node: at });
        }
        for (at, entry) in plan.entries.iter().enumerate() {
            world.scheduler.at(entry.at_us, Happening::Plan(at));
        }
        world.scheduler.at(CALM_US, Happening::Calm);
        world.scheduler.at(END_US, Happening::End);
        world
    }

    pub(super) fn steady_ms(&self, node: usize) -> u64 {
        let Node {
            rate,
            steady_ahead_ms,
            ..
        } = self.nodes[node];
        self.scheduler.now_us() * rate / 1_000_000 + steady_ahead_ms
    }

    /// The steady clock without what the node slept through.
    pub(super) fn awake_ms(&self, node: usize) -> u64 {
        self.steady_ms(node)
            .saturating_sub(self.nodes[node].slept_ms)
    }

    pub(super) fn moment(&mut self, node: usize) -> Moment {
        self.draws += 1;
        let wall_ms = WALL_MS + self.scheduler.now_us() / 1_000;
        Moment {
            now_ms: self.steady_ms(node),
            wall_ms: wall_ms.saturating_add_signed(self.nodes[node].wall_ahead_ms),
            draw: mix(&[self.plan.seed, PURPOSE, self.draws]),
        }
    }

    pub(super) fn note(&mut self, words: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.scheduler.now_us(), words, text);
    }

    pub(super) fn hold(&mut self, held: Held) {
        if let (Err(violation), None) = (held, &self.violation) {
            let now_us = self.scheduler.now_us();
            self.trace
                .note(now_us, &[99], || format!("BROKEN {violation}"));
            self.violation = Some((now_us, violation));
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        let whose = match &happening {
            Happening::Question { to, .. }
            | Happening::Answer { to, .. }
            | Happening::Timeout { to, .. } => Some(*to),
            Happening::Wake { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(node) = whose.filter(|node| self.nodes[*node].paused) {
            return self.nodes[node].missed.push(happening);
        }
        match happening {
            Happening::Plan(at) => self.perform_plan(self.plan.entries[at].what),
            Happening::Wake { node, turn } if self.nodes[node].turn == turn => self.tick(node),
            Happening::Wake { .. } => {}
            Happening::Start { node } => self.start(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Question {
                from,
                to,
                life,
                call,
                message,
            } => self.ask(from, to, life, call, *message),
            Happening::Answer {
                to,
                life,
                call,
                message,
            } if self.nodes[to].life == life => {
                let message = *message;
                self.feed(to, Event::Answered { call, message });
            }
            Happening::Timeout { to, life, call } if self.nodes[to].life == life => {
                self.feed(to, Event::Unanswered { call });
            }
            Happening::Answer { .. } | Happening::Timeout { .. } => {}
            Happening::Calm => self.calm(),
            Happening::End => self.end(),
        }
    }

    fn tick(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        // The store works on.
        disk.marks.counter += 3;
        disk.marks.synced += 1;
        let marks = disk.marks;
        self.feed(node, Event::Tick { marks });
    }

    fn ask(&mut self, from: usize, to: usize, life: u64, call: u64, message: Message<Question>) {
        if self.nodes[to].value.is_none() {
            return;
        }
        let knows = self.removed.contains_key(&from) && self.nodes[to].number > 2;
        if knows {
            self.sights.met(Sight::RemovedSpoke);
        }
        self.asked += 1;
        let ask = self.asked;
        self.nodes[to].asks.insert(ask, (from, life, call));
        let from = self.nodes[from].id.clone();
        self.feed(to, Event::Asked { ask, from, message });
    }

    pub(super) fn feed(&mut self, node: usize, event: Event) {
        let moment = self.moment(node);
        let Some(value) = &mut self.nodes[node].value else {
            return;
        };
        let effects = value.handle(event, moment);
        let life = self.nodes[node].life;
        for effect in effects {
            self.perform(node, life, effect);
        }
        self.check(node);
        self.wake(node);
    }

    /// Schedules the next tick.
    pub(super) fn wake(&mut self, node: usize) {
        let now_ms = self.steady_ms(node);
        let Some(value) = &self.nodes[node].value else {
            return;
        };
        // At least a millisecond: a known bug may be due forever.
        let left_ms = value.due().saturating_sub(now_ms).max(1);
        self.nodes[node].turn += 1;
        let turn = self.nodes[node].turn;
        let after_us = left_ms * 1_000_000 / self.nodes[node].rate + 1;
        self.scheduler
            .after(after_us, Happening::Wake { node, turn });
    }

    fn perform(&mut self, node: usize, life: u64, effect: Effect) {
        match effect {
            Effect::Send {
                call,
                to,
                message,
                timeout_ms,
                cause: _,
            } => {
                let to = self.index(&to);
                let refused = self.nodes[to].value.is_none();
                let after_us = if refused { 100 } else { timeout_ms * 1_000 };
                let timeout = Happening::Timeout {
                    to: node,
                    life,
                    call,
                };
                self.scheduler.after(after_us, timeout);
                let question = Happening::Question {
                    from: node,
                    to,
                    life,
                    call,
                    message,
                };
                self.travel(node, to, question);
            }
            Effect::Answer { ask, message } => {
                let Some((to, life, call)) = self.nodes[node].asks.remove(&ask) else {
                    return;
                };
                let answer = Happening::Answer {
                    to,
                    life,
                    call,
                    message,
                };
                self.travel(node, to, answer);
            }
            Effect::Persist { incarnation } => {
                if self.nodes[node].disk.incarnation > 0 && self.nodes[node].disk.store >= 100 {
                    self.sights.met(Sight::GoneAbove);
                }
                self.nodes[node].disk.incarnation = incarnation;
            }
            effect => self.news(node, effect),
        }
    }

    fn travel(&mut self, from: usize, to: usize, happening: Happening) {
        match self.network.send(from, to, false) {
            Fate::Arrives(delays) => {
                for delay in delays {
                    self.scheduler.after(delay, happening.clone());
                }
            }
            Fate::Lost => self.sights.met(Sight::Lost),
            Fate::Cut if self.network.passes(to, from) => self.sights.met(Sight::OneWay),
            Fate::Cut => {}
        }
    }

    pub(super) fn index(&self, id: &NodeId) -> usize {
        let found = self.nodes.iter().position(|one| one.id == *id);
        found.expect("messages go to members only")
    }
}
