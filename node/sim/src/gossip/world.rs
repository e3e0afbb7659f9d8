//! The transport, the disks and the clocks around the core's memberships; and what is checked after every event.
//!
//! As `tasks/gossip.rs` does it: effects in order, a call ends by its timeout, a store that has forgotten is begun
//! anew under another actor. A node that is paused hears what it missed when it wakes; one that is stopped refuses.

use std::collections::{BTreeMap, BTreeSet};

use sibyl_core::id::{Actor, NodeId};
use sibyl_core::membership::{
    Answer, Effect, Event, Marks, Membership, Message, Moment, Question, Standing, State, Timing,
    Why,
};

use super::plan::{CALM_US, END_US, INTERVAL_MS, Plan, SUSPECT_AFTER_MS, What};
use crate::checks::{Held, Violation, agreed, incarnations, removed, silence};
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
enum Happening {
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
struct Disk {
    store: u64,
    incarnation: u64,
    marks: Marks,
}

struct Node {
    id: NodeId,
    value: Option<Membership>,
    paused: bool,
    missed: Vec<Happening>,
    disk: Disk,
    /// As it was before the last start.
    image: Disk,
    /// It runs on an older image.
    is_older: bool,
    /// The highest incarnation that anyone knew of its present store.
    ever_known: u64,
    life: u64,
    turn: u64,
    rate: u64,
    steady_ahead_ms: u64,
    wall_ahead_ms: i64,
    asks: BTreeMap<u64, (usize, u64, u64)>,
    /// How long it slept, in all; and when it learnt something newer of each member. Both by its steady clock.
    slept_ms: u64,
    /// When it was paused.
    fell_ms: u64,
    learnt_ms: BTreeMap<NodeId, (u64, u64, u64)>,
    /// The number of the document it holds.
    number: u64,
}

struct World<'a> {
    plan: &'a Plan,
    bug: Option<Bug>,
    nodes: Vec<Node>,
    network: Network,
    scheduler: Scheduler<Happening>,
    trace: Trace,
    sights: Sights,
    violation: Option<(u64, Violation)>,
    asked: u64,
    draws: u64,
    stores: u64,
    /// Removed members, and the standing that the document gives them; `None`: it does not name them.
    removed: BTreeMap<usize, Option<Standing>>,
    over: bool,
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

    fn steady_ms(&self, node: usize) -> u64 {
        let Node {
            rate,
            steady_ahead_ms,
            ..
        } = self.nodes[node];
        self.scheduler.now_us() * rate / 1_000_000 + steady_ahead_ms
    }

    /// The steady clock without what the node slept through.
    fn awake_ms(&self, node: usize) -> u64 {
        self.steady_ms(node)
            .saturating_sub(self.nodes[node].slept_ms)
    }

    fn moment(&mut self, node: usize) -> Moment {
        self.draws += 1;
        let wall_ms = WALL_MS + self.scheduler.now_us() / 1_000;
        Moment {
            now_ms: self.steady_ms(node),
            wall_ms: wall_ms.saturating_add_signed(self.nodes[node].wall_ahead_ms),
            draw: mix(&[self.plan.seed, PURPOSE, self.draws]),
        }
    }

    fn note(&mut self, words: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.scheduler.now_us(), words, text);
    }

    fn hold(&mut self, held: Held) {
        if let (Err(violation), None) = (held, &self.violation) {
            let now_us = self.scheduler.now_us();
            self.trace
                .note(now_us, &[99], || format!("BROKEN {violation}"));
            self.violation = Some((now_us, violation));
        }
    }

    fn happen(&mut self, happening: Happening) {
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

    fn perform_plan(&mut self, what: What) {
        self.note(&[1], || format!("{what:?}"));
        match what {
            What::Cut { from, to } => self.network.cut(from, to),
            What::Heal { from, to } => self.network.heal(from, to),
            What::Stop { node, down_us } => self.stop(node, Some(down_us)),
            What::End { node } => self.stop(node, None),
            What::Wipe { node, down_us } => {
                self.stop(node, Some(down_us));
                self.lose(node);
            }
            What::Older { node, down_us } => {
                self.stop(node, Some(down_us));
                let node = &mut self.nodes[node];
                // An image of another store is no older disk of this one.
                if node.image.store == node.disk.store && node.image.incarnation > 0 {
                    node.is_older = true;
                    node.disk = node.image;
                }
            }
            What::Pause { node, for_us } => {
                if !self.nodes[node].paused {
                    self.nodes[node].fell_ms = self.steady_ms(node);
                }
                self.nodes[node].paused = true;
                self.scheduler.after(for_us, Happening::Resume { node });
                if for_us > SUSPECT_AFTER_MS * 1_000 {
                    self.sights.met(Sight::Slept);
                }
            }
            What::WallJump { node, by_ms } => self.nodes[node].wall_ahead_ms += by_ms,
            What::SteadyJump { node, by_ms } => {
                self.sights.met(Sight::ClockJumped);
                self.nodes[node].steady_ahead_ms += by_ms;
                self.slept(node, by_ms);
                self.wake(node);
            }
            What::Outcome {
                node,
                member,
                answered,
            } => {
                let member = self.nodes[member].id.clone();
                if !self.nodes[node].paused {
                    self.feed(node, Event::Outcome { member, answered });
                }
            }
            What::Remove { node, heard, kind } => {
                let standing = [None, Some(Standing::Down), Some(Standing::Left)];
                self.removed.insert(node, standing[(kind % 3) as usize]);
                let nodes = 0..self.nodes.len();
                let hears = |at: &usize| heard >> at & 1 == 1 && *at != node;
                let hearers: Vec<usize> = nodes.filter(hears).collect();
                if hearers.len() + 1 < self.nodes.len() {
                    self.sights.met(Sight::RemovedUnheard);
                }
                hearers.into_iter().for_each(|at| self.document(at));
            }
        }
    }

    /// A new store in place of the one that is lost.
    fn lose(&mut self, node: usize) {
        self.stores += 1;
        self.nodes[node].disk = Disk {
            store: self.stores,
            ..Disk::default()
        };
        (self.nodes[node].ever_known, self.nodes[node].is_older) = (0, false);
    }

    fn stop(&mut self, node: usize, down_us: Option<u64>) {
        let one = &mut self.nodes[node];
        (one.value, one.paused) = (None, false);
        one.missed.clear();
        one.asks.clear();
        one.life += 1;
        if let Some(down_us) = down_us {
            self.scheduler.after(down_us, Happening::Start { node });
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].value.is_some() {
            return;
        }
        let moment = self.moment(node);
        let faults = self.bug.and_then(Bug::gossip).unwrap_or_default();
        let keeps = self.bug == Some(Bug::IncarnationKept);
        let one = &mut self.nodes[node];
        one.image = one.disk;
        if !keeps || one.disk.incarnation == 0 {
            one.disk.incarnation += 1;
        }
        let Disk {
            store,
            incarnation,
            marks,
        } = one.disk;
        let held = if one.is_older {
            Ok(())
        } else {
            incarnations::started(&one.id, incarnation, one.ever_known)
        };
        let timing = Timing {
            interval_ms: INTERVAL_MS,
            suspect_after_ms: SUSPECT_AFTER_MS,
        };
        let id = one.id.clone();
        let value = Membership::new(id, Actor(store), incarnation, marks, timing, moment);
        one.value = Some(value.with_faults(faults));
        one.life += 1;
        one.number = 0;
        one.learnt_ms.clear();
        self.note(&[2, node as u64, incarnation], || {
            format!("n{node} starts in incarnation {incarnation}")
        });
        self.hold(held);
        self.document(node);
    }

    /// The newest document comes into force at a node.
    fn document(&mut self, node: usize) {
        let number = if self.removed.is_empty() { 2 } else { 3 };
        let standing = |at: usize| match self.removed.get(&at) {
            Some(standing) => *standing,
            None => Some(Standing::Member),
        };
        let all = self.nodes.iter().enumerate();
        let listed = all.filter_map(|(at, one)| Some((one.id.clone(), standing(at)?)));
        let members = listed.collect();
        if self.nodes[node].value.is_some() {
            self.nodes[node].number = number;
            self.feed(node, Event::Registry { number, members });
        }
    }

    fn resume(&mut self, node: usize) {
        if !self.nodes[node].paused {
            return;
        }
        let slept_ms = self.steady_ms(node) - self.nodes[node].fell_ms;
        self.nodes[node].paused = false;
        self.slept(node, slept_ms);
        for happening in std::mem::take(&mut self.nodes[node].missed) {
            self.happen(happening);
        }
        self.wake(node);
    }

    /// A node knows of a nap but for one interval; a shorter one looks like a tick that came late.
    fn slept(&mut self, node: usize, ms: u64) {
        if ms > 2 * INTERVAL_MS {
            self.nodes[node].slept_ms += ms - INTERVAL_MS;
        }
    }

    fn feed(&mut self, node: usize, event: Event) {
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
    fn wake(&mut self, node: usize) {
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

    fn news(&mut self, node: usize, effect: Effect) {
        self.note(&[3, node as u64], || format!("n{node}: {effect:?}"));
        match effect {
            Effect::Changed {
                member, to, why, ..
            } => {
                let at = self.index(&member);
                let runs = self.nodes[at].value.is_some();
                if to == State::Suspect && runs && why != Why::Registry {
                    self.sights.met(Sight::FalselySuspected);
                }
                if why == Why::Silence {
                    self.silent(node, &member);
                }
            }
            Effect::Returned { .. } => self.sights.met(Sight::CameBack),
            Effect::WasSuspected { .. } => self.sights.met(Sight::Refuted),
            Effect::Agreed { .. } => self.sights.met(Sight::Agreed),
            Effect::Forgotten { .. } => {
                let one = &self.nodes[node];
                let held = incarnations::forgotten(&one.id, one.is_older);
                self.hold(held);
                self.sights.met(Sight::Forgot);
                self.stop(node, Some(200_000));
                self.lose(node);
            }
            _ => {}
        }
    }

    /// A node suspects a member for silence.
    fn silent(&mut self, node: usize, member: &NodeId) {
        let now_ms = self.awake_ms(node);
        let one = &self.nodes[node];
        let learnt = one.learnt_ms.get(member).map_or(0, |(_, _, at)| *at);
        let silent_ms = now_ms.saturating_sub(learnt);
        let id = one.id.clone();
        let held = silence::suspected(&id, member, silent_ms, SUSPECT_AFTER_MS);
        self.hold(held);
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

    fn index(&self, id: &NodeId) -> usize {
        let found = self.nodes.iter().position(|one| one.id == *id);
        found.expect("messages go to members only")
    }

    /// What holds at every moment, of the view of a node that has just changed.
    fn check(&mut self, node: usize) {
        let now_ms = self.awake_ms(node);
        let Some(value) = &self.nodes[node].value else {
            return;
        };
        let (me, view) = (self.nodes[node].id.clone(), value.view());
        let mut words = vec![4, node as u64];
        for (of, member) in view.members {
            let at = self.index(&of);
            let (incarnation, counter) = (member.life.incarnation, member.life.counter);
            words.extend([incarnation, counter, member.state as u64]);
            let learnt = self.nodes[node].learnt_ms.entry(of.clone());
            let learnt = learnt.or_insert((0, 0, now_ms));
            if (incarnation, counter) > (learnt.0, learnt.1) {
                *learnt = (incarnation, counter, now_ms);
            }
            let disk = self.nodes[at].disk;
            // What was known of a store that is lost, or of a disk as it was before, is above the present one.
            let whole = !self.nodes[at].is_older && disk.store < 100;
            let known = match whole {
                true => incarnations::known(&me, &of, incarnation, disk.incarnation),
                false => Ok(()),
            };
            let ever = &mut self.nodes[at].ever_known;
            *ever = if whole { incarnation.max(*ever) } else { *ever };
            let heard = self.nodes[node].number > 2 && self.removed.contains_key(&at);
            let held = removed::view(&me, &of, member.state, heard);
            self.hold(known);
            if of != me {
                self.hold(held);
            }
        }
        self.trace.note(self.scheduler.now_us(), &words, || {
            format!("n{node} goes on")
        });
    }

    /// Everything heals, everybody hears of the document.
    fn calm(&mut self) {
        self.network.calm();
        for node in 0..self.nodes.len() {
            self.resume(node);
            self.document(node);
        }
    }

    fn end(&mut self) {
        self.over = true;
        let members: BTreeSet<usize> = (0..self.nodes.len())
            .filter(|at| !self.removed.contains_key(at))
            .collect();
        let truth = members.iter().map(|at| {
            let one = &self.nodes[*at];
            let truth = agreed::Truth {
                runs: one.value.is_some(),
                incarnation: one.disk.incarnation,
            };
            (one.id.clone(), truth)
        });
        let truth = truth.collect();
        let running: Vec<&Membership> = members
            .iter()
            .filter_map(|at| self.nodes[*at].value.as_ref())
            .collect();
        let held = agreed::end(&truth, &running);
        self.hold(held);
    }
}
