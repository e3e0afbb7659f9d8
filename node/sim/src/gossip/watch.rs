//! What is looked at: news as they come, every view after every event, everyone's at the end.
//!
//! The promises themselves are in `checks`; here is what they are asked about.

use std::collections::BTreeSet;

use sibyl_core::id::NodeId;
use sibyl_core::membership::{Effect, Membership, State, Why};

use super::plan::SUSPECT_AFTER_MS;
use super::world::World;
use crate::checks::{agreed, incarnations, removed, silence};
use crate::sight::Sight;

impl World<'_> {
    pub(super) fn news(&mut self, node: usize, effect: Effect) {
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

    /// What holds at every moment, of the view of a node that has just changed.
    pub(super) fn check(&mut self, node: usize) {
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

    pub(super) fn end(&mut self) {
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
