//! Delivery of hints, as `tasks/handoff.rs` does it: the core's value says when, this sends and hears.
//!
//! A batch takes one hint at a time, so that few keys make several batches. Whoever returns asks for what is
//! kept for it; whoever keeps something delivers without being asked, too.

use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::flow::handoff::{Effect, End, Event as HandoffEvent};
use sibyl_core::message::Request;

use super::command::{Command, Then, Why};
use super::frames::Waiting;
use super::{Bytes, Event, NodeId, World};
use crate::draw::Draw;
use crate::plan::PATIENCE_US;
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 8;

/// A batch under way: its end, as far as it is known.
pub(crate) struct Delivery {
    next: Option<Bytes>,
}

impl World {
    /// A process starts: it looks what it keeps, and whom it can reach.
    pub(crate) fn open_handoff(&mut self, node: usize) {
        for (_, hint) in self.hints(node) {
            for target in hint.targets.keys() {
                self.tell_handoff(node, &HandoffEvent::Kept(target));
            }
        }
        if self.plan.setting.handoff {
            let me = self.nodes[node].id.clone();
            self.tell_handoff(node, &HandoffEvent::Reachable(&me));
        }
        for peer in 0..self.nodes.len() {
            if peer != node && self.process(node).reachable[peer] {
                self.returned(node, peer);
            }
        }
    }

    /// A peer can be reached again.
    pub(crate) fn returned(&mut self, node: usize, peer: usize) {
        if !self.plan.setting.handoff {
            return;
        }
        let id = self.nodes[peer].id.clone();
        self.tell_handoff(node, &HandoffEvent::Reachable(&id));
        // Asked once: who keeps something delivers it all the same.
        let request = Request::Collect;
        let _sent = self.ask(
            node,
            peer,
            request,
            Bytes::new(),
            PATIENCE_US,
            Waiting::Collect,
        );
    }

    /// A peer that returned asks for what is kept for it.
    pub(crate) fn asked_to_deliver(&mut self, node: usize, by: usize) -> u64 {
        let by = self.nodes[by].id.clone();
        let kept = self.hints(node).into_iter();
        let hints = kept
            .filter(|(_, hint)| hint.targets.contains_key(&by))
            .count();
        if hints > 0 {
            self.sights.met(Sight::Collected);
        }
        self.tell_handoff(node, &HandoffEvent::Asked(&by));
        hints as u64
    }

    pub(crate) fn tell_handoff(&mut self, node: usize, event: &HandoffEvent<'_>) {
        if !self.plan.setting.handoff {
            return;
        }
        let now_us = self.scheduler.now_us();
        let mut draw = Draw::of(self.plan.seed, PURPOSE + node as u64 * 64, now_us);
        let process = self.process(node);
        let life = process.life;
        let effects = process
            .handoff
            .handle(event.clone(), now_us / 1000, draw.word());
        for effect in effects {
            match effect {
                Effect::WakeAt(at_ms) => {
                    let after_us = (at_ms * 1000).saturating_sub(now_us);
                    self.scheduler.after(after_us, Event::Pause { node, life });
                }
                Effect::Deliver { target, after } => self.deliver_hints(node, &target, after),
            }
        }
    }

    fn deliver_hints(&mut self, node: usize, target: &NodeId, after: Option<Bytes>) {
        let behind = |key: usize| {
            after
                .as_deref()
                .is_none_or(|after| *self.keys[key].record > *after)
        };
        let mut hints = self.hints(node).into_iter();
        let shown = |key: usize| self.is_judged(node, self.keys[key].slot.partition);
        let first = hints
            .find(|(key, hint)| behind(*key) && shown(*key) && hint.targets.contains_key(target));
        let Some((key, hint)) = first else {
            return self.delivered(node, target, None, [0, 0]);
        };
        let next = Some(Bytes::from(self.keys[key].record.clone()));
        if !self.takers(node, key).contains(target) {
            // It came after owners had changed, from a write that began before.
            let gone = target.clone();
            self.submit(node, Command::Reroute { key, target: gone });
            return self.delivered(node, target, next, [1, 0]);
        }
        let acked = hint.object.context().clone();
        if self.bug == Some(Bug::HintForgottenEarly) {
            let target = target.clone();
            self.submit(node, Command::Settle { key, target, acked });
        }
        let peer = self.index(target);
        let place = self.keys[key].place.clone();
        if peer == node && self.is_holder(node, key) {
            let delivery = Delivery { next };
            self.process(node)
                .deliveries
                .insert(target.clone(), delivery);
            let context = hint.object.context().clone();
            self.join_for(node, (None, None), &place, hint.object, Why::Handoff);
            let then = Then::Kept { key, context };
            return self.submit(node, Command::After { then });
        }
        let waiting = Waiting::Handoff { key };
        self.process(node)
            .deliveries
            .insert(target.clone(), Delivery { next: next.clone() });
        let body = codec::encode(&hint.object);
        if !self.ask(
            node,
            peer,
            Request::Handoff { place },
            body,
            PATIENCE_US,
            waiting,
        ) {
            self.hint_ended(node, target, key, None);
        }
    }

    /// A delivery has its answer: the dots that are on the target's disk, or none.
    pub(crate) fn hint_ended(
        &mut self,
        node: usize,
        target: &NodeId,
        key: usize,
        acked: Option<Context>,
    ) {
        let delivery = self.process(node).deliveries.remove(target);
        let next = delivery.and_then(|delivery| delivery.next);
        let ended = match acked {
            Some(acked) => {
                let target = target.clone();
                self.submit(node, Command::Settle { key, target, acked });
                [1, 0]
            }
            None => {
                self.sights.met(Sight::HintFailed);
                [0, 1]
            }
        };
        self.delivered(node, target, next, ended);
    }

    fn delivered(
        &mut self,
        node: usize,
        target: &NodeId,
        next: Option<Bytes>,
        [delivered, failed]: [usize; 2],
    ) {
        let end = End {
            delivered,
            failed,
            next,
            busy: false,
        };
        self.tell_handoff(node, &HandoffEvent::Ended { target, end });
    }
}
