//! A removed node gives away what its store holds, as `node/giving.rs` does it.
//!
//! The flow is the core's, what lies in the store is read and set aside by the node's own code. One member is asked at
//! a time; an answer that does not come is a failure. What was given is noted partition by partition, so that a start
//! goes on where the last one was. In the end the store is put aside, and what comes after is another actor's.

use sibyl::replica::salvage::remains;
use sibyl::store::{Space, Store as _};
use sibyl_core::id::Partition;
use sibyl_core::salvage::{Answer, Ask, Effect, Event as Told, Giving};

use super::{Event, World};
use crate::checks::Violation;
use crate::draw::Draw;
use crate::oracle::Writes;
use crate::plan::{CALM_US, PATIENCE_US};
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 16;
/// Partitions of the cluster.
const PARTITIONS: u32 = 8;
/// The largest object that can be sent: larger than any of a run.
const MOST_BYTES: usize = 1 << 20;
/// From then on who waits is woken by the end of the run: an owner may be filled by that alone.
const LAST_US: u64 = CALM_US + 3_000_000;
/// How soon a node asks to be taken in at most.
const REJOIN_US: u64 = 50_000;

/// A process that gives.
pub(crate) struct Giver {
    pub(crate) life: u64,
    flow: Giving,
    asks: u64,
    /// Whom it asked what.
    asked: Option<(usize, u64)>,
    /// It waits, and nothing but the end of the run wakes it.
    parked: bool,
}

/// What a process that gives waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A pause is over.
    Woken,
    /// What was set aside is on disk.
    SetAside,
    /// The note is.
    Noted(Partition),
    /// A question has no answer.
    Over(u64),
}

impl World {
    /// A node that knows of its removal starts.
    pub(crate) fn start_giving(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(note) = &mut this.disk.fenced else {
            return;
        };
        this.lives += 1;
        note.begun += 1;
        if note.begun > 1 {
            self.sights.met(Sight::SalvageResumed);
        }
        let mut left = remains::partitions(&this.disk.store, PARTITIONS);
        left.retain(|at| !note.done.contains(at));
        let epoch = this.disk.epoch.unwrap_or(0);
        let (life, members) = (
            this.lives,
            self.nodes.iter().map(|node| node.id.to_string()),
        );
        let me = self.nodes[node].id.to_string();
        let members: Vec<String> = members.filter(|member| *member != me).collect();
        let giver = Giver {
            life,
            flow: Giving::new(epoch, false, members, left),
            asks: 0,
            asked: None,
            parked: false,
        };
        self.nodes[node].giver = Some(giver);
        self.note(&[23, node as u64], || {
            format!("n{node} gives what it holds, from epoch {epoch}")
        });
        self.give(node, Told::Woken);
    }

    /// Something happens to a process that gives. Ends: all but reading waits for an event.
    fn give(&mut self, node: usize, told: Told) {
        let mut told = told;
        loop {
            let Some(giver) = &mut self.nodes[node].giver else {
                return;
            };
            match giver.flow.handle(told) {
                Effect::Read(at, after) => {
                    let store = &self.nodes[node].disk.store;
                    let page = remains::page(store, at, after.as_ref(), MOST_BYTES);
                    told = Told::Read {
                        records: page.records,
                        damaged: page.damaged,
                        next: page.next,
                    };
                }
                Effect::Ask(address, ask) => return self.ask_member(node, &address, ask),
                Effect::SetAside(ids) => {
                    self.sights.met(Sight::SalvageAside);
                    self.note(&[24, node as u64], || {
                        format!("n{node} sets {} aside", ids.len())
                    });
                    let kept = remains::set_aside(&self.nodes[node].disk.store, &ids);
                    kept.expect("a store that failed has stopped its node");
                    return self.step_later(node, self.plan.setting.sync_us, Step::SetAside);
                }
                Effect::Done(at, _) => {
                    return self.step_later(node, self.plan.setting.sync_us, Step::Noted(at));
                }
                Effect::Pause(least_ms, most_ms) => return self.pause(node, least_ms, most_ms),
                Effect::End => return self.given(node),
            }
        }
    }

    fn step_later(&mut self, node: usize, mean_us: u64, step: Step) {
        let (seed, now_us) = (self.plan.seed, self.scheduler.now_us());
        let mut draw = Draw::of(seed, PURPOSE + node as u64 * 64, now_us);
        let life = self.nodes[node].lives;
        let after_us = mean_us / 2 + draw.around(mean_us);
        self.scheduler
            .after(after_us, Event::Give { node, life, step });
    }

    fn pause(&mut self, node: usize, least_ms: u64, most_ms: u64) {
        if self.scheduler.now_us() >= LAST_US {
            if let Some(giver) = &mut self.nodes[node].giver {
                giver.parked = true;
            }
            return;
        }
        self.sights.met(Sight::SalvageWaits);
        let (seed, now_us) = (self.plan.seed, self.scheduler.now_us());
        let mut draw = Draw::of(seed, PURPOSE + 1 + node as u64 * 64, now_us);
        let (life, step) = (self.nodes[node].lives, Step::Woken);
        let after_us = least_ms * 1000 + draw.below((most_ms - least_ms) * 1000 + 1);
        self.scheduler
            .after(after_us, Event::Give { node, life, step });
    }

    fn ask_member(&mut self, node: usize, address: &str, ask: Ask) {
        let peer = self
            .nodes
            .iter()
            .position(|peer| peer.id.as_str() == address);
        let Some(peer) = peer else {
            return self.give(node, Told::Failed("nobody is there".into()));
        };
        let Some(giver) = &mut self.nodes[node].giver else {
            return;
        };
        giver.asks += 1;
        let (life, asked) = (giver.life, (giver.life << 32) + giver.asks);
        giver.asked = Some((peer, asked));
        let step = Step::Over(asked);
        self.scheduler
            .after(PATIENCE_US, Event::Give { node, life, step });
        self.bring(node, peer, asked, ask);
    }

    /// A member answered.
    pub(crate) fn brought(&mut self, node: usize, asked: u64, answer: Answer) {
        let Some(giver) = &mut self.nodes[node].giver else {
            return;
        };
        if giver.asked.is_some_and(|(_, waits)| waits == asked) {
            giver.asked = None;
            self.give(node, Told::Answered(answer));
        }
    }

    /// What a process that gives waited for is there.
    pub(crate) fn give_on(&mut self, node: usize, life: u64, step: Step) {
        let this = &mut self.nodes[node];
        let Some(giver) = this.giver.as_mut().filter(|giver| giver.life == life) else {
            return;
        };
        let told = match step {
            Step::Woken => Told::Woken,
            Step::Over(asked) => match giver.asked.take_if(|(_, waits)| *waits == asked) {
                Some((peer, _)) => Told::Failed(format!("n{peer} does not answer")),
                None => return,
            },
            Step::Noted(at) => {
                if let Some(note) = &mut this.disk.fenced {
                    note.done.insert(at);
                }
                Told::Kept
            }
            Step::SetAside if this.disk.store.sync().is_err() => {
                self.sights.met(Sight::SyncFailed);
                let down_us = self.plan.setting.sync_us * 10;
                return self.crash(node, down_us);
            }
            Step::SetAside => Told::Kept,
        };
        self.give(node, told);
    }

    /// Everything was given: the store is put aside, and an empty one is begun.
    fn given(&mut self, node: usize) {
        self.nodes[node].giver = None;
        for key in 0..self.keys.len() {
            let aside = self.aside_of(node, key);
            let this = &mut self.nodes[node];
            this.aside[key] = this.aside[key].and(aside);
        }
        self.note(&[25, node as u64], || {
            format!("n{node} gave everything, and puts its store aside")
        });
        self.forget_disk(node);
        let this = &mut self.nodes[node];
        (this.parted, this.gone) = (false, true);
        self.sights.met(Sight::Emptied);
        let (seed, now_us) = (self.plan.seed, self.scheduler.now_us());
        let mut draw = Draw::of(seed, PURPOSE + 2 + node as u64 * 64, now_us);
        if now_us < CALM_US && draw.chance(600) {
            let after_us = draw.below(REJOIN_US);
            self.scheduler.after(after_us, Event::Rejoin { node });
        }
    }

    /// What of a key lies set aside in a node's store.
    pub(crate) fn aside_of(&self, node: usize, key: usize) -> Writes {
        let spaces = [Space::Objects, Space::Hints];
        let found = spaces.into_iter().filter_map(|space| {
            let at = [&[space as u8], &self.keys[key].record[..]].concat();
            let kept = self.nodes[node].disk.store.get(Space::Aside, &at).ok()??;
            let object = match space {
                Space::Hints => sibyl_core::hint::split(&kept).ok()?.1,
                _ => kept,
            };
            let object = sibyl_core::codec::decode(&object).ok()?;
            Some(self.oracle.held(key, &object))
        });
        found.fold(Writes::default(), Writes::and)
    }

    /// Whoever waits for an owner to be filled looks again; in the end all have given everything.
    pub(crate) fn finish_giving(&mut self, events: &mut u64) {
        for _ in 0..3 {
            let waits = |node: &usize| {
                let giver = self.nodes[*node].giver.as_ref();
                giver.is_some_and(|giver| giver.parked)
            };
            let waiting: Vec<usize> = (0..self.nodes.len()).filter(waits).collect();
            if waiting.is_empty() {
                break;
            }
            for node in waiting {
                if let Some(giver) = &mut self.nodes[node].giver {
                    giver.parked = false;
                }
                self.give(node, Told::Woken);
            }
            self.go(events);
            self.compare_all(events);
        }
        let left = (0..self.nodes.len()).find(|node| self.nodes[*node].disk.fenced.is_some());
        if let Some(node) = left.filter(|_| self.bug != Some(Bug::FencedCounts)) {
            let giver = self.nodes[node].giver.as_ref();
            let why = giver.and_then(|giver| giver.flow.waits_for());
            let found = format!("n{node} still holds what it should give: {why:?}");
            self.hold(Err(Violation {
                check: "calm ends salvage",
                found,
            }));
        }
    }
}
