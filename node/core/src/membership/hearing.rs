//! What others say: records, wants, suspicions, and what they know of this node.
//!
//! A word counts only from a member of the registry, under its own name, in a record that is whole. What anyone
//! says of a third is that third's own record or an opinion; an opinion makes this node look for itself.

use super::event::{Effect, Why};
use super::limits::{MAX_DELTA_BYTES, MAX_DIGEST, MAX_INCARNATION};
use super::machine::Membership;
use super::message::{About, Answer, Header, Message, Question};
use super::probe::{Begun, Call};
use super::record::{Life, Record};
use super::view::State;
use crate::id::NodeId;

impl Membership {
    /// A member asks.
    pub(super) fn asked(&mut self, ask: u64, from: &NodeId, message: Message<Question>) {
        let known = self.hear(from, message.header);
        let answer = match message.body {
            // Who is no member is answered, and neither learns nor teaches anything.
            Question::Exchange { .. } | Question::Tell { .. } if !known => Answer::Heard,
            Question::Exchange { digest } => self.exchanged(digest),
            Question::Tell { records } => {
                self.merge_all(records);
                Answer::Heard
            }
            Question::Ping => Answer::Pong,
            Question::PingFor { target } => return self.relay(ask, from, &target),
        };
        self.answer(ask, from, answer);
    }

    /// A member answers.
    pub(super) fn answered(&mut self, call: u64, message: Message<Answer>) {
        let Some(Begun { call, to, .. }) = self.calls.remove(&call) else {
            return;
        };
        let record = message.header.mine.clone();
        self.hear(&to, message.header);
        match (call, message.body) {
            (Call::Exchange, Answer::Exchanged { records, wants }) => {
                self.merge_all(records);
                self.tell(&to, wants);
            }
            (Call::Ping, _) => drop(self.probes.remove(&to)),
            (Call::PingFor(target), Answer::PongFor { record }) => match record {
                Some(record) if record.node == target && record.is_whole() => {
                    self.probes.remove(&target);
                    self.merge(*record);
                }
                _ => self.not_reached(&target),
            },
            (Call::PingFor(target), _) => self.not_reached(&target),
            (Call::Relay(ask, from), _) => {
                let record = Some(Box::new(record));
                self.answer(ask, &from, Answer::PongFor { record });
            }
            (Call::Exchange | Call::Tell, _) => {}
        }
    }

    pub(super) fn answer(&mut self, ask: u64, to: &NodeId, body: Answer) {
        let header = self.header(to);
        let message = Box::new(Message { header, body });
        self.effects.push(Effect::Answer { ask, message });
    }

    /// What stands above everything that is said to a member.
    pub(super) fn header(&self, to: &NodeId) -> Header {
        let about = self.others.get(to).map_or_else(About::default, |known| {
            let newest = known
                .record
                .clone()
                .filter(|_| known.is_behind)
                .map(Box::new);
            About {
                suspected: known.owed.filter(|_| !self.faults.tells_nobody),
                record: known.witness.clone().or(newest),
            }
        });
        Header {
            mine: self.mine.clone(),
            wall_ms: self.moment.wall_ms,
            about,
        }
    }

    /// Hears who speaks; whether it is a member that speaks for itself.
    fn hear(&mut self, from: &NodeId, header: Header) -> bool {
        let Header {
            mine,
            wall_ms,
            about,
        } = header;
        let ours = self.moment.wall_ms;
        let listed = self.others.get_mut(from).filter(|known| known.is_member());
        if let Some(known) = listed {
            known.skew_ms = Some(difference(wall_ms, ours));
        } else if !self.faults.resurrects {
            return false;
        }
        if mine.node != *from {
            return false;
        }
        self.merge(mine);
        if let Some(record) = about.record.filter(|record| record.node == *self.me()) {
            self.reminded(from, *record);
        }
        if let Some(at) = about.suspected {
            self.suspected(from, at);
        }
        true
    }

    fn merge_all(&mut self, records: Vec<Record>) {
        records.into_iter().for_each(|record| self.merge(record));
    }

    /// Takes what somebody says of itself, by whatever way it came.
    pub(super) fn merge(&mut self, record: Record) {
        if !record.is_whole() {
            return;
        }
        let node = record.node.clone();
        if node == *self.me() {
            return self.reminded(&node, record);
        }
        let (now_ms, faults) = (self.moment.now_ms, self.faults);
        let Some(known) = self.others.get_mut(&node) else {
            return;
        };
        if faults.resurrects && !known.is_member() && record.life > known.life() {
            let from = known.state();
            known.standing = super::Standing::Member;
            self.changed(&node, from, Why::Heard);
        }
        let Some(known) = self.others.get_mut(&node).filter(|known| known.is_member()) else {
            return;
        };
        let (life, number, opinions) = (record.life, record.registry, record.suspects.clone());
        let Some(taken) = known.take(record, now_ms, faults.forgives) else {
            return;
        };
        self.is_stale |= taken.before == State::Suspect;
        self.changed(&node, taken.before, Why::Heard);
        if taken.returned {
            let incarnation = life.incarnation;
            let member = node.clone();
            self.effects.push(Effect::Returned {
                member,
                incarnation,
            });
        }
        if number > self.number() {
            let member = node.clone();
            self.effects.push(Effect::Behind { member, number });
        }
        for (member, at) in opinions {
            self.opinion(&node, &member, at);
        }
    }

    /// Somebody suspects a member, this node perhaps.
    fn opinion(&mut self, by: &NodeId, member: &NodeId, at: Life) {
        if member == self.me() {
            return self.suspected(by, at);
        }
        let Some(known) = self.others.get(member) else {
            return;
        };
        if self.faults.raises_others && known.is_alive() && at >= known.life() {
            return self.refute_for(member);
        }
        if at >= known.life() && known.is_alive() {
            self.probe(member);
        }
    }

    /// A life of this node was suspected. The present one is refuted; of an earlier one it is enough to know.
    fn suspected(&mut self, by: &NodeId, at: Life) {
        if at <= self.told || at > self.mine.life {
            return;
        }
        self.told = at;
        self.is_stale = true;
        let present = at.incarnation == self.mine.life.incarnation;
        if present {
            self.raise(0);
        }
        if present || !std::mem::replace(&mut self.past_told, true) {
            self.past_told = true;
            let by = by.clone();
            self.effects.push(Effect::WasSuspected { by, at });
        }
    }

    /// A record of this node that somebody kept. It may be another store's, which is lost: then this node goes on
    /// above it. If it is this store's and says more than the store knows, the store has lost something.
    fn reminded(&mut self, by: &NodeId, record: Record) {
        if !record.is_whole() {
            return;
        }
        let Record {
            store, life, marks, ..
        } = record;
        if store != self.mine.store {
            // Nobody raises me to where I could not go on.
            let sane = life.incarnation < MAX_INCARNATION / 2;
            if sane && life.incarnation >= self.mine.life.incarnation {
                self.raise(life.incarnation);
            }
        } else if (life > self.mine.life || marks.exceed(self.marks))
            && !std::mem::replace(&mut self.has_forgotten, true)
        {
            let by = by.clone();
            let was = life;
            self.effects.push(Effect::Forgotten { by, was, marks });
        }
    }

    /// Answers a digest: what the asker lacks, and what this node lacks.
    fn exchanged(&mut self, digest: Vec<(NodeId, Life)>) -> Answer {
        let theirs: std::collections::BTreeMap<NodeId, Life> = digest.into_iter().collect();
        let life = |node: &NodeId| theirs.get(node).copied().unwrap_or(Life::NONE);
        let members = || self.others.iter().filter(|(_, known)| known.is_member());
        let wants = members().filter(|(node, known)| life(node) > known.life());
        let wants = wants
            .map(|(node, _)| node.clone())
            .take(MAX_DIGEST)
            .collect();
        let lacks = members().filter(|(node, known)| known.life() > life(node));
        let lacks: Vec<NodeId> = lacks.map(|(node, _)| node.clone()).collect();
        let records = self.records(lacks);
        Answer::Exchanged { records, wants }
    }

    fn tell(&mut self, to: &NodeId, wants: Vec<NodeId>) {
        let records = self.records(wants);
        if !records.is_empty() {
            self.call(Call::Tell, to, Question::Tell { records });
        }
    }

    /// The records of these members, as many as one message carries, from a drawn one on: nobody is left out
    /// forever.
    fn records(&mut self, mut of: Vec<NodeId>) -> Vec<Record> {
        if !of.is_empty() {
            let first = self.below(of.len());
            of.rotate_left(first);
        }
        let mut room = MAX_DELTA_BYTES;
        let members = of.iter().filter_map(|node| self.others.get(node));
        let members = members.filter(|known| known.is_member());
        let records = members.filter_map(|known| known.record.clone());
        let fits = |record: &Record| {
            let left = room.checked_sub(record.weight());
            room = left.unwrap_or(room);
            left.is_some()
        };
        records.take_while(fits).collect()
    }

    /// Who suspects a member at its newest life.
    pub(super) fn accusers(&self, member: &NodeId, life: Life) -> Vec<NodeId> {
        let accuses = |record: &Record| {
            let mut opinions = record.suspects.iter();
            opinions.any(|(node, at)| node == member && *at >= life)
        };
        let others = self.others.iter().filter(|(_, known)| known.is_alive());
        let accusers = others.filter(|(_, known)| known.record.as_ref().is_some_and(accuses));
        accusers.map(|(node, _)| node.clone()).collect()
    }

    /// Says which changes everybody who is alive has come to see: a suspicion once all have it, a return once
    /// nobody has it and the member knows that it was suspected.
    pub(super) fn agree(&mut self) {
        let changed = self.others.iter().filter_map(|(node, known)| {
            let since_ms = known.changed_ms?;
            let accusers = self.accusers(node, known.life()).len();
            let alive = self.others.iter();
            let alive = alive.filter(|(other, known)| *other != node && known.is_alive());
            let agreed = match known.state() {
                State::Alive => accusers == 0 && known.owed.is_none(),
                _ => accusers == alive.count(),
            };
            agreed.then(|| (node.clone(), since_ms))
        });
        for (member, since_ms) in changed.collect::<Vec<_>>() {
            let after_ms = self.moment.now_ms.saturating_sub(since_ms);
            if let Some(known) = self.others.get_mut(&member) {
                known.changed_ms = None;
            }
            self.effects.push(Effect::Agreed { member, after_ms });
        }
    }

    /// What nobody may do: a known bug.
    fn refute_for(&mut self, member: &NodeId) {
        let known = self.others.get_mut(member);
        if let Some(record) = known.and_then(|known| known.record.as_mut()) {
            record.life.incarnation += 1;
            record.seal = record.clone().sealed().seal;
        }
    }
}

fn difference(one_ms: u64, other_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(one_ms).saturating_sub(signed(other_ms))
}
