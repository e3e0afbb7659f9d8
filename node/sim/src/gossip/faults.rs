//! What a plan does to nodes, disks, clocks and links; and the calm at its end.
//!
//! A store that is lost is another actor; an older disk is what it was before its last start.

use sibyl_core::id::Actor;
use sibyl_core::membership::{Event, Membership, Standing, Timing};

use super::plan::{INTERVAL_MS, SUSPECT_AFTER_MS, What};
use super::world::{Disk, Happening, World};
use crate::checks::incarnations;
use crate::sight::Sight;
use crate::zoo::Bug;

impl World<'_> {
    pub(super) fn perform_plan(&mut self, what: What) {
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
                // Who sleeps already wakes up later, by that clock.
                if !self.nodes[node].paused {
                    self.slept(node, by_ms);
                }
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
    pub(super) fn lose(&mut self, node: usize) {
        self.stores += 1;
        self.nodes[node].disk = Disk {
            store: self.stores,
            ..Disk::default()
        };
        (self.nodes[node].ever_known, self.nodes[node].is_older) = (0, false);
    }

    pub(super) fn stop(&mut self, node: usize, down_us: Option<u64>) {
        let one = &mut self.nodes[node];
        (one.value, one.paused) = (None, false);
        one.missed.clear();
        one.asks.clear();
        one.life += 1;
        if let Some(down_us) = down_us {
            self.scheduler.after(down_us, Happening::Start { node });
        }
    }

    pub(super) fn start(&mut self, node: usize) {
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

    pub(super) fn resume(&mut self, node: usize) {
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

    /// Everything heals, everybody hears of the document.
    pub(super) fn calm(&mut self) {
        self.network.calm();
        for node in 0..self.nodes.len() {
            self.resume(node);
            self.document(node);
        }
    }
}
