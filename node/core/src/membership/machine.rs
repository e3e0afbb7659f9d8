//! The value itself: one event in, effects out.
//!
//! Here are time, the own record and what the registry says; `hearing` is what others say, `probe` is looking for
//! oneself. The invariants: the own record changes only together with its life; nobody's life is changed by
//! anyone else; a state beyond `suspect` comes from the registry alone and only a later document ends it.

use std::collections::BTreeMap;

use super::event::{Cause, Effect, Event, Moment, Standing, Timing, Why};
use super::limits::{
    FANOUT, MAX_OPINIONS, MIN_SILENT_INTERVALS, PROBE_AFTER_INTERVALS, PROBE_MS, URGENT_PART,
};
use super::message::{Message, Question};
use super::probe::{Begun, Call, Probe};
use super::record::{Life, Marks, Record};
use super::table::Known;
use super::view::{MemberView, State, View};
use super::zoo::Faults;
use crate::id::{Actor, NodeId};

/// One node's membership.
#[derive(Clone, Debug)]
pub struct Membership {
    pub(super) timing: Timing,
    /// The last moment, its clock never going back.
    pub(super) moment: Moment,
    pub(super) mine: Record,
    /// What the own record says once it is made anew: how far the store has come, the registry document in force,
    /// the newest own life known to have been suspected.
    pub(super) marks: Marks,
    registry: u64,
    pub(super) told: Life,
    standing: Standing,
    pub(super) others: BTreeMap<NodeId, Known>,
    pub(super) calls: BTreeMap<u64, Begun>,
    pub(super) probes: BTreeMap<NodeId, Probe>,
    next_call: u64,
    /// How often this node slept: what it asked before says nothing of others.
    pub(super) naps: u64,
    last_beat_ms: Option<u64>,
    next_beat_ms: u64,
    /// The own record lacks something.
    pub(super) is_stale: bool,
    /// It is known that an earlier process of this node was suspected.
    pub(super) past_told: bool,
    pub(super) has_forgotten: bool,
    pub(super) effects: Vec<Effect>,
    pub(super) faults: Faults,
}

impl Membership {
    /// A node that has just started, with an incarnation that it never had before and that is on disk. It knows
    /// nobody until the registry says who there is.
    pub fn new(
        me: NodeId,
        store: Actor,
        incarnation: u64,
        marks: Marks,
        timing: Timing,
        moment: Moment,
    ) -> Self {
        let life = Life {
            incarnation,
            counter: 0,
        };
        let mine = Record {
            node: me,
            store,
            life,
            stamp_ms: moment.wall_ms,
            registry: 0,
            marks,
            told: Life::NONE,
            suspects: Vec::new(),
            seal: 0,
        };
        let interval_ms = timing.interval_ms.max(1);
        let suspect_after_ms = timing
            .suspect_after_ms
            .max(interval_ms * MIN_SILENT_INTERVALS);
        Self {
            timing: Timing {
                interval_ms,
                suspect_after_ms,
            },
            moment,
            mine: mine.sealed(),
            marks,
            registry: 0,
            told: Life::NONE,
            standing: Standing::Member,
            others: BTreeMap::new(),
            calls: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_call: 0,
            naps: 0,
            last_beat_ms: None,
            next_beat_ms: moment.now_ms,
            is_stale: false,
            past_told: false,
            has_forgotten: false,
            effects: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// Takes an event; what must be done then, in this order.
    pub fn handle(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        self.pass(moment);
        match event {
            Event::Tick { marks } => self.tick(marks),
            Event::Asked { ask, from, message } => self.asked(ask, &from, message),
            Event::Answered { call, message } => self.answered(call, message),
            Event::Unanswered { call } => self.unanswered(call),
            Event::Outcome { member, answered } => self.outcome(&member, answered),
            Event::Registry { number, members } => self.registry(number, members),
        }
        self.agree();
        if std::mem::take(&mut self.is_stale) {
            self.restate();
            let soonest = self.last_beat_ms.map_or(0, |last| last + self.urgent_ms());
            let urgent = soonest.max(self.moment.now_ms);
            self.next_beat_ms = self.next_beat_ms.min(urgent);
        }
        std::mem::take(&mut self.effects)
    }

    /// When to tick next, by the node's steady clock.
    pub fn due(&self) -> u64 {
        let silent = self.others.values().filter(|known| self.may_turn(known));
        let turns = silent.map(|known| known.learnt_ms + self.timing.suspect_after_ms);
        turns
            .chain([self.next_beat_ms])
            .min()
            .unwrap_or(self.next_beat_ms)
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.mine.node
    }

    /// Its own life.
    pub fn life(&self) -> Life {
        self.mine.life
    }

    /// Whether it suspected a member that has not shown to know of it.
    pub fn owes(&self, member: &NodeId) -> bool {
        let known = self.others.get(member);
        known.is_some_and(|known| known.is_member() && known.owed.is_some())
    }

    /// What it thinks of everyone.
    pub fn view(&self) -> View {
        let mine = MemberView {
            state: match self.standing {
                Standing::Member => State::Alive,
                Standing::Down => State::Down,
                Standing::Left => State::Left,
            },
            life: self.mine.life,
            learnt_ms: self.last_beat_ms,
            stamp_ms: self.mine.stamp_ms,
            registry: self.mine.registry,
            suspected_ms: None,
            suspected_by: self.accusers(self.me(), self.mine.life),
            skew_ms: None,
        };
        let others = self.others.iter().map(|(node, known)| {
            let record = known.record.as_ref();
            let view = MemberView {
                state: known.state(),
                life: known.life(),
                learnt_ms: record.map(|_| known.learnt_ms),
                stamp_ms: record.map_or(0, |record| record.stamp_ms),
                registry: record.map_or(0, |record| record.registry),
                suspected_ms: known.suspicion.map(|suspicion| suspicion.since_ms),
                suspected_by: self.accusers(node, known.life()),
                skew_ms: known.skew_ms,
            };
            (node.clone(), view)
        });
        View {
            members: others.chain([(self.me().clone(), mine)]).collect(),
        }
    }

    /// Time goes on, never back. Whoever was not looked after for longer than an interval has slept: the silence of
    /// others meanwhile was its own.
    fn pass(&mut self, moment: Moment) {
        let due = self.due();
        let now_ms = moment.now_ms.max(self.moment.now_ms);
        self.moment = Moment { now_ms, ..moment };
        if now_ms > due + self.timing.interval_ms && !self.faults.blames_others {
            let slept = now_ms - due;
            let members = self.others.values_mut();
            members.for_each(|known| known.learnt_ms = (known.learnt_ms + slept).min(now_ms));
            self.probes.clear();
            self.naps += 1;
        }
    }

    fn tick(&mut self, marks: Marks) {
        self.marks = marks;
        let now_ms = self.moment.now_ms;
        let overdue = self
            .others
            .iter()
            .filter(|(_, known)| self.is_overdue(known));
        let overdue: Vec<NodeId> = overdue.map(|(node, _)| node.clone()).collect();
        overdue
            .iter()
            .for_each(|node| self.suspect(node, Why::Silence));
        if now_ms >= self.next_beat_ms {
            self.beat();
        }
    }

    fn may_turn(&self, known: &Known) -> bool {
        known.is_member() && known.suspicion.is_none()
    }

    fn is_overdue(&self, known: &Known) -> bool {
        let Moment {
            now_ms, wall_ms, ..
        } = self.moment;
        let mut silent_ms = now_ms.saturating_sub(known.learnt_ms);
        if let Some(record) = known
            .record
            .as_ref()
            .filter(|_| self.faults.believes_stamps)
        {
            silent_ms = wall_ms.saturating_sub(record.stamp_ms);
        }
        self.may_turn(known) && silent_ms >= self.timing.suspect_after_ms
    }

    /// A heartbeat: a new life, told to a few.
    fn beat(&mut self) {
        let now_ms = self.moment.now_ms;
        self.restate();
        self.is_stale = false;
        self.last_beat_ms = Some(now_ms);
        self.next_beat_ms = now_ms + self.timing.interval_ms;
        if self.standing != Standing::Member {
            return;
        }
        for node in self.chosen() {
            let digest = self.digest();
            self.call(Call::Exchange, &node, Question::Exchange { digest });
        }
        let quiet_ms = self.timing.interval_ms * PROBE_AFTER_INTERVALS;
        let quiet = self.others.iter().filter(|(_, known)| {
            known.is_alive() && now_ms.saturating_sub(known.learnt_ms) > quiet_ms
        });
        let quiet: Vec<NodeId> = quiet.map(|(node, _)| node.clone()).collect();
        quiet.iter().for_each(|node| self.probe(node));
    }

    /// Whom to tell this time: some who are alive, and one who is not, so that a healed cut is noticed; more of
    /// those if there are too few others.
    fn chosen(&mut self) -> Vec<NodeId> {
        let members = self.others.iter().filter(|(_, known)| known.is_member());
        let (alive, away): (Vec<_>, Vec<_>) = members.partition(|(_, known)| known.is_alive());
        let names = |members: Vec<(&NodeId, &Known)>| -> Vec<NodeId> {
            members.into_iter().map(|(node, _)| node.clone()).collect()
        };
        let (alive, away) = (names(alive), names(away));
        let mut chosen = self.some_of(alive, FANOUT);
        let rest = (FANOUT - chosen.len()).max(1);
        chosen.extend(self.some_of(away, rest));
        chosen
    }

    /// Up to `count` of them, drawn. Ends: each turn takes one out.
    pub(super) fn some_of(&mut self, mut from: Vec<NodeId>, count: usize) -> Vec<NodeId> {
        let mut some = Vec::new();
        while some.len() < count && !from.is_empty() {
            let at = self.below(from.len());
            some.push(from.swap_remove(at));
        }
        some
    }

    /// A number below `bound`, which is not 0, from what was drawn for this moment (splitmix64).
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.moment.draw = self.moment.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = self.moment.draw;
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = (mixed ^ (mixed >> 31)) % bound as u64;
        usize::try_from(mixed).unwrap_or(0)
    }

    /// The own record as of now, under a new life.
    pub(super) fn restate(&mut self) {
        let suspicions = self.others.iter().filter(|(_, known)| known.is_member());
        let suspects = suspicions.filter_map(|(node, known)| {
            let at = known.suspicion?.at;
            Some((node.clone(), at))
        });
        let suspects = suspects.take(MAX_OPINIONS).collect();
        self.mine.life.counter += 1;
        self.mine.stamp_ms = self.moment.wall_ms;
        (self.mine.marks, self.mine.registry, self.mine.told) =
            (self.marks, self.registry, self.told);
        self.mine.suspects = suspects;
        self.mine.seal = self.mine.clone().sealed().seal;
    }

    /// A higher incarnation: this node alone does that, and first of all on disk.
    pub(super) fn raise(&mut self, above: u64) {
        let incarnation = above.max(self.mine.life.incarnation) + 1;
        self.mine.life.incarnation = incarnation;
        self.effects.push(Effect::Persist { incarnation });
        self.restate();
        self.is_stale = true;
    }

    /// The registry document in force here.
    pub(super) fn number(&self) -> u64 {
        self.registry
    }

    pub(super) fn suspect(&mut self, node: &NodeId, why: Why) {
        let now_ms = self.moment.now_ms;
        let Some(known) = self.others.get_mut(node).filter(|known| known.is_member()) else {
            return;
        };
        if known.suspicion.is_some() {
            return;
        }
        let from = known.state();
        known.suspect(now_ms);
        self.probes.remove(node);
        self.is_stale = true;
        self.changed(node, from, why);
    }

    pub(super) fn changed(&mut self, node: &NodeId, from: State, why: Why) {
        let now_ms = self.moment.now_ms;
        let Some(known) = self.others.get_mut(node) else {
            return;
        };
        let (to, life) = (known.state(), known.life());
        if from == to {
            return;
        }
        known.changed_ms = known.is_member().then_some(now_ms);
        self.effects.push(Effect::Changed {
            member: node.clone(),
            from,
            to,
            life,
            why,
        });
    }

    fn registry(&mut self, number: u64, mut members: BTreeMap<NodeId, Standing>) {
        if number < self.registry {
            return;
        }
        self.registry = number;
        self.is_stale = true;
        let me = self.mine.node.clone();
        self.standing = members.remove(&me).unwrap_or(Standing::Down);
        let now_ms = self.moment.now_ms;
        let gone = self
            .others
            .keys()
            .filter(|node| !members.contains_key(*node));
        let gone: Vec<_> = gone.map(|node| (node.clone(), None)).collect();
        let listed = members
            .into_iter()
            .map(|(node, standing)| (node, Some(standing)));
        for (node, standing) in listed.chain(gone) {
            let Some(known) = self.others.get_mut(&node) else {
                let fresh = Known::new(standing.unwrap_or(Standing::Down), now_ms);
                self.others.insert(node, fresh);
                continue;
            };
            let from = known.state();
            // Who left is not removed once more because a later document has forgotten it.
            let ended = match known.standing {
                Standing::Member => Standing::Down,
                ended => ended,
            };
            let standing = standing.unwrap_or(ended);
            if known.standing == standing {
                continue;
            }
            // What comes back by a document has to speak up itself: its old record proves nothing.
            known.standing = standing;
            known.learnt_ms = now_ms;
            known.suspicion = None;
            if known.is_member() && known.record.is_some() {
                known.suspect(now_ms);
            }
            (known.owed, known.changed_ms) = (None, None);
            self.probes.remove(&node);
            self.changed(&node, from, Why::Registry);
        }
    }

    /// Calls a member, if there is any sense in it.
    pub(super) fn call(&mut self, call: Call, to: &NodeId, question: Question) {
        let timeout_ms = match &question {
            Question::Ping => self.probe_ms(),
            _ => 2 * self.probe_ms(),
        };
        self.next_call += 1;
        let message = Message {
            header: self.header(to),
            body: question,
        };
        let cause = match &call {
            Call::Exchange | Call::Tell => Cause::Round,
            Call::Ping => Cause::Probe(to.clone()),
            Call::PingFor(target) => Cause::Probe(target.clone()),
            Call::Relay(ask, _) => Cause::Relay(*ask),
        };
        let begun = Begun {
            call,
            to: to.clone(),
            nap: self.naps,
        };
        self.calls.insert(self.next_call, begun);
        self.effects.push(Effect::Send {
            call: self.next_call,
            to: to.clone(),
            message: Box::new(message),
            timeout_ms,
            cause,
        });
    }

    pub(super) fn urgent_ms(&self) -> u64 {
        self.timing.interval_ms.div_ceil(URGENT_PART)
    }

    fn probe_ms(&self) -> u64 {
        let (least, most) = PROBE_MS;
        (self.timing.interval_ms / 2).clamp(least, most)
    }

    fn digest(&self) -> Vec<(NodeId, Life)> {
        let members = self.others.iter().filter(|(_, known)| known.is_member());
        members
            .map(|(node, known)| (node.clone(), known.life()))
            .collect()
    }
}
