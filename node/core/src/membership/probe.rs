//! Looking for oneself: a ping, and if it stays unanswered, pings by others.
//!
//! A probe begins because something was odd: a call failed, a member was quiet, somebody suspects it. It ends with
//! the first word from the member by whatever way, or with a suspicion. There is one probe per member at a time,
//! and a pause between two, so that a storm of failing requests costs a ping now and then.

use super::event::Why;
use super::limits::{HELPERS, MAX_PROBES, MAX_RELAYS};
use super::machine::Membership;
use super::message::{Answer, Question};
use super::record::Life;
use super::table::Known;
use crate::id::NodeId;

/// What the end of a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Records were exchanged.
    Exchange,
    /// Records were told.
    Tell,
    /// A member is probed.
    Ping,
    /// A member is probed through the one that is called.
    PingFor(NodeId),
    /// A member is probed for another one, whose question waits.
    Relay(u64, NodeId),
}

/// A call under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) call: Call,
    /// Whom.
    pub(super) to: NodeId,
    /// After how many naps.
    pub(super) nap: u64,
}

/// A probe under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The member's newest life when it began.
    began: Life,
    /// Helpers that have not answered; 0 while the member itself is asked.
    helpers: usize,
}

impl Membership {
    /// Somebody's request to a member ended. It is a reason to look where it contradicts what is thought.
    pub(super) fn outcome(&mut self, member: &NodeId, answered: bool) {
        let contradicts = |alive: bool| alive != answered;
        let known = self.others.get(member);
        if known.is_some_and(|known| known.is_member() && contradicts(known.is_alive())) {
            self.probe(member);
        }
    }

    /// Begins to look for a member, unless that is under way or was just done.
    pub(super) fn probe(&mut self, member: &NodeId) {
        let (now_ms, pause_ms) = (self.moment.now_ms, self.urgent_ms());
        if self.probes.len() >= MAX_PROBES || self.probes.contains_key(member) {
            return;
        }
        let Some(known) = self
            .others
            .get_mut(member)
            .filter(|known| known.is_member())
        else {
            return;
        };
        if known
            .probed_ms
            .is_some_and(|probed| now_ms < probed + pause_ms)
        {
            return;
        }
        known.probed_ms = Some(now_ms);
        let probe = Probe {
            began: known.life(),
            helpers: 0,
        };
        self.probes.insert(member.clone(), probe);
        self.call(Call::Ping, member, Question::Ping);
    }

    /// A call was not answered.
    pub(super) fn unanswered(&mut self, call: u64) {
        let Some(begun) = self.calls.remove(&call) else {
            return;
        };
        let slept = begun.nap != self.naps;
        match begun.call {
            Call::Relay(ask, from) => self.answer(ask, &from, Answer::PongFor { record: None }),
            _ if slept => {}
            Call::Exchange | Call::Tell => self.outcome(&begun.to, false),
            Call::Ping => self.ask_helpers(&begun.to),
            Call::PingFor(target) => self.not_reached(&target),
        }
    }

    fn ask_helpers(&mut self, target: &NodeId) {
        if !self.probes.contains_key(target) || self.ended_well(target) {
            return;
        }
        let others = self.others.iter();
        let others = others.filter(|(node, known)| *node != target && known.is_alive());
        let others: Vec<_> = others.map(|(node, _)| node.clone()).collect();
        let helpers = self.some_of(others, HELPERS);
        if helpers.is_empty() {
            return self.suspect(target, Why::Probes);
        }
        if let Some(probe) = self.probes.get_mut(target) {
            probe.helpers = helpers.len();
        }
        for helper in helpers {
            let target = target.clone();
            let question = Question::PingFor {
                target: target.clone(),
            };
            self.call(Call::PingFor(target), &helper, question);
        }
    }

    /// A helper could not reach the member, or could not be reached itself.
    pub(super) fn not_reached(&mut self, target: &NodeId) {
        if self.ended_well(target) {
            return;
        }
        let Some(probe) = self.probes.get_mut(target) else {
            return;
        };
        if probe.helpers == 0 {
            // A late answer of an earlier probe says nothing about this one: its own ping is under way.
            return;
        }
        probe.helpers -= 1;
        if probe.helpers == 0 {
            self.suspect(target, Why::Probes);
        }
    }

    /// Ends a probe of a member of whom something newer was heard since it began.
    fn ended_well(&mut self, target: &NodeId) -> bool {
        let Some(probe) = self.probes.get(target) else {
            return true;
        };
        let life = self.others.get(target).map_or(Life::NONE, Known::life);
        let well = life > probe.began;
        if well {
            self.probes.remove(target);
        }
        well
    }

    /// Probes a member for another one.
    pub(super) fn relay(&mut self, ask: u64, from: &NodeId, target: &NodeId) {
        let record = if *target == *self.me() {
            Some(Box::new(self.mine.clone()))
        } else {
            let relays = self.calls.values();
            let relays = relays.filter(|begun| matches!(begun.call, Call::Relay(..)));
            let listed = self.others.get(target).is_some_and(Known::is_member);
            if listed && target != from && relays.count() < MAX_RELAYS {
                return self.call(Call::Relay(ask, from.clone()), target, Question::Ping);
            }
            None
        };
        self.answer(ask, from, Answer::PongFor { record });
    }
}
