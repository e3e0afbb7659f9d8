//! A cluster of memberships in one clock: what a transport would do, as simple as it can be done.
//!
//! A message takes no time unless a link is lossy; a node that is stopped refuses at once, one that is paused or
//! behind a cut says nothing, and the call times out. Every node's wall clock may be wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Answer, Effect, Event, Faults, Life, Marks, Membership, Message, Moment, Question, Standing,
    State, Timing, View, Why, decode, encode,
};
use crate::id::{Actor, NodeId};

pub(super) fn node(name: &str) -> NodeId {
    name.parse().expect("tests use good names")
}

/// Splitmix64: small, seeded, the same everywhere.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }
}

enum Happening {
    Question(NodeId, NodeId, u64, u64, Message<Question>),
    Answer(NodeId, u64, u64, Message<Answer>),
    Timeout(NodeId, u64, u64),
}

/// One node's place: its process, if it runs, and what its disk keeps.
pub(super) struct Place {
    pub(super) value: Option<Membership>,
    pub(super) paused: bool,
    pub(super) incarnation: u64,
    pub(super) store: Actor,
    pub(super) marks: Marks,
    pub(super) wall_ahead_ms: i64,
    life: u64,
    /// When it was paused, and how long it slept in all.
    fell_ms: u64,
    slept_ms: u64,
    /// Questions it has to answer: who asked, and the call.
    asks: BTreeMap<u64, (NodeId, u64, u64)>,
    /// What it missed while it was paused.
    missed: Vec<Happening>,
}

pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) places: BTreeMap<NodeId, Place>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) rng: Rng,
    /// Of 1,000 messages so many are lost; the rest take up to this long.
    pub(super) lost: u64,
    pub(super) slow_ms: u64,
    pub(super) faults: Faults,
    /// What was said and what happened, if somebody listens.
    pub(super) told: Vec<(u64, String)>,
    pub(super) listens: bool,
    /// How long each suspicion for silence had really been silent, by the awake time of who suspects.
    pub(super) silences: Vec<(NodeId, NodeId, u64)>,
    /// Whether that is looked at: it costs a view per event.
    pub(super) watches: bool,
    learnt: BTreeMap<(NodeId, NodeId), (Life, u64)>,
    /// Everything that is no message, by node.
    pub(super) effects: Vec<(u64, NodeId, Effect)>,
    timing: Timing,
    members: BTreeMap<NodeId, Standing>,
    number: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    asked: u64,
}

impl World {
    pub(super) fn new(names: &[&str], timing: Timing, seed: u64) -> Self {
        let place = |(at, name): (u64, &&str)| {
            let place = Place {
                value: None,
                paused: false,
                incarnation: 0,
                store: Actor(100 + at),
                marks: Marks::default(),
                wall_ahead_ms: 0,
                life: 0,
                fell_ms: 0,
                slept_ms: 0,
                asks: BTreeMap::new(),
                missed: Vec::new(),
            };
            (node(name), place)
        };
        let members = names.iter().map(|name| (node(name), Standing::Member));
        Self {
            now_ms: 0,
            places: (0..).zip(names).map(place).collect(),
            cut: BTreeSet::new(),
            rng: Rng(seed),
            lost: 0,
            slow_ms: 0,
            faults: Faults::default(),
            told: Vec::new(),
            listens: false,
            silences: Vec::new(),
            watches: false,
            learnt: BTreeMap::new(),
            effects: Vec::new(),
            timing,
            members: members.collect(),
            number: 2,
            queue: BTreeMap::new(),
            queued: 0,
            asked: 0,
        }
    }

    fn moment(&mut self, who: &NodeId) -> Moment {
        let ahead = self.places[who].wall_ahead_ms;
        Moment {
            now_ms: self.now_ms,
            wall_ms: (1_000_000 + self.now_ms).saturating_add_signed(ahead),
            draw: self.rng.word(),
        }
    }

    /// Starts a node: another incarnation, on the disk that it left.
    pub(super) fn start(&mut self, who: &NodeId) {
        let moment = self.moment(who);
        let (timing, faults) = (self.timing, self.faults);
        let place = self.places.get_mut(who).expect("a node");
        place.incarnation += 1;
        place.life += 1;
        (place.paused, place.asks) = (false, BTreeMap::new());
        // A new process knows nobody.
        self.learnt.retain(|(by, _), _| by != who);
        let value = Membership::new(
            who.clone(),
            place.store,
            place.incarnation,
            place.marks,
            timing,
            moment,
        );
        place.value = Some(value.with_faults(faults));
        let (number, members) = (self.number, self.members.clone());
        self.feed(who, Event::Registry { number, members });
    }

    pub(super) fn stop(&mut self, who: &NodeId) {
        self.places.get_mut(who).expect("a node").value = None;
    }

    /// A document of this number reaches these nodes, or all.
    pub(super) fn document(
        &mut self,
        members: BTreeMap<NodeId, Standing>,
        reaches: Option<&[NodeId]>,
    ) {
        self.number += 1;
        self.members = members.clone();
        let all: Vec<NodeId> = self.places.keys().cloned().collect();
        let number = self.number;
        for who in reaches.unwrap_or(&all) {
            let members = members.clone();
            self.feed(who, Event::Registry { number, members });
        }
    }

    pub(super) fn members(&self) -> BTreeMap<NodeId, Standing> {
        self.members.clone()
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let runs = |(_, place): &(&NodeId, &Place)| place.value.is_some() && !place.paused;
        self.places
            .iter()
            .filter(runs)
            .map(|(who, _)| who.clone())
            .collect()
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let due = self.running().into_iter().map(|who| {
                let value = self.places[&who].value.as_ref().expect("it runs");
                (value.due().max(self.now_ms), who)
            });
            let due = due.min();
            let next = self.queue.keys().next().copied();
            let first = due.as_ref().map(|(at, _)| *at);
            match (first, next) {
                (at, Some((when, _))) if when <= at.unwrap_or(u64::MAX) && when <= until => {
                    self.now_ms = self.now_ms.max(when);
                    let (_, happening) = self.queue.pop_first().expect("there is one");
                    self.happen(happening);
                }
                (Some(at), _) if at <= until => {
                    self.now_ms = at;
                    let (_, who) = due.expect("it is due");
                    let marks = self.places[&who].marks;
                    self.feed(&who, Event::Tick { marks });
                }
                _ => break,
            }
        }
        self.now_ms = until;
    }

    /// A node stands still; its clock goes on.
    pub(super) fn pause(&mut self, who: &NodeId) {
        let now_ms = self.now_ms;
        let place = self.places.get_mut(who).expect("a node");
        (place.paused, place.fell_ms) = (true, now_ms);
    }

    /// A paused node hears what it missed; its clock went on without it.
    pub(super) fn resume(&mut self, who: &NodeId) {
        let place = self.places.get_mut(who).expect("a node");
        place.paused = false;
        let slept_ms = self.now_ms - place.fell_ms;
        // It knows of a nap but for one interval; a shorter one looks like a tick that came late.
        if slept_ms > 2 * self.timing.interval_ms {
            place.slept_ms += slept_ms - self.timing.interval_ms;
        }
        for happening in std::mem::take(&mut place.missed) {
            self.happen(happening);
        }
    }

    pub(super) fn feed(&mut self, who: &NodeId, event: Event) {
        let moment = self.moment(who);
        let place = self.places.get_mut(who).expect("a node");
        let Some(value) = &mut place.value else {
            return;
        };
        let (life, awake_ms) = (place.life, self.now_ms - place.slept_ms);
        let effects = value.handle(event, moment);
        if self.watches {
            self.watch(who, awake_ms, &effects);
        }
        for effect in effects {
            self.perform(who, life, effect);
        }
    }

    /// Notes when something newer was learnt, and how long whoever is suspected for silence was silent.
    fn watch(&mut self, who: &NodeId, awake_ms: u64, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Changed {
                member,
                why: Why::Silence,
                ..
            } = effect
            {
                let learnt = self.learnt.get(&(who.clone(), member.clone()));
                let silent_ms = awake_ms - learnt.map_or(0, |(_, at)| *at);
                self.silences.push((who.clone(), member.clone(), silent_ms));
            }
        }
        let view = self.view(who).expect("it runs");
        for (member, seen) in view.members {
            let learnt = self.learnt.entry((who.clone(), member));
            let learnt = learnt.or_insert((Life::NONE, awake_ms));
            if seen.life > learnt.0 {
                *learnt = (seen.life, awake_ms);
            }
        }
    }

    fn perform(&mut self, who: &NodeId, life: u64, effect: Effect) {
        match effect {
            Effect::Send {
                call,
                to,
                message,
                timeout_ms,
                cause: _,
            } => {
                let said = question(&message);
                let bytes = encode(&message);
                let message = decode(&bytes).expect("what is encoded can be read");
                if self.places[&to].value.is_none() {
                    self.tell(format!("{who} -> {to}  {said}; refused"));
                    self.later(0, Happening::Timeout(who.clone(), life, call));
                    return;
                }
                self.tell(format!("{who} -> {to}  {said}"));
                self.later(timeout_ms, Happening::Timeout(who.clone(), life, call));
                if let Some(after) = self.way() {
                    let way = Happening::Question(who.clone(), to, life, call, message);
                    self.later(after, way);
                }
            }
            Effect::Answer { ask, message } => {
                let place = self.places.get_mut(who).expect("a node");
                let Some((to, its_life, call)) = place.asks.remove(&ask) else {
                    return;
                };
                self.tell(format!("{to} <- {who}  {}", answer(&message)));
                let after = self
                    .way()
                    .filter(|_| !self.cut.contains(&(who.clone(), to.clone())));
                if let Some(after) = after {
                    let bytes = encode(&message);
                    let message = decode(&bytes).expect("what is encoded can be read");
                    self.later(after, Happening::Answer(to, its_life, call, message));
                }
            }
            Effect::Persist { incarnation } => {
                let place = self.places.get_mut(who).expect("a node");
                assert!(
                    incarnation > place.incarnation,
                    "{who} lowers its incarnation"
                );
                place.incarnation = incarnation;
                self.tell(format!("{who} raises its incarnation to {incarnation}"));
            }
            effect => {
                self.tell(news(who, &effect));
                self.effects.push((self.now_ms, who.clone(), effect));
            }
        }
    }

    fn way(&mut self) -> Option<u64> {
        let lost = self.rng.below(1000) < self.lost;
        (!lost).then(|| self.rng.below(self.slow_ms + 1))
    }

    fn later(&mut self, after: u64, happening: Happening) {
        self.queued += 1;
        self.queue
            .insert((self.now_ms + after, self.queued), happening);
    }

    fn happen(&mut self, happening: Happening) {
        let whose = match &happening {
            Happening::Question(_, to, ..) => to,
            Happening::Answer(to, ..) | Happening::Timeout(to, ..) => to,
        };
        let place = self.places.get_mut(whose).expect("a node");
        if place.value.is_some() && place.paused {
            place.missed.push(happening);
            return;
        }
        match happening {
            Happening::Question(from, to, life, call, message) => {
                let whole = !self.cut.contains(&(from.clone(), to.clone()));
                if self.places[&to].value.is_none() || !whole {
                    return;
                }
                self.asked += 1;
                let ask = self.asked;
                let place = self.places.get_mut(&to).expect("a node");
                place.asks.insert(ask, (from.clone(), life, call));
                self.feed(&to, Event::Asked { ask, from, message });
            }
            Happening::Answer(to, life, call, message) if self.places[&to].life == life => {
                self.feed(&to, Event::Answered { call, message });
            }
            Happening::Timeout(to, life, call) if self.places[&to].life == life => {
                self.feed(&to, Event::Unanswered { call });
            }
            Happening::Answer(..) | Happening::Timeout(..) => {}
        }
    }

    fn tell(&mut self, text: String) {
        if self.listens {
            self.told.push((self.now_ms, text));
        }
    }

    pub(super) fn view(&self, who: &NodeId) -> Option<View> {
        self.places[who].value.as_ref().map(Membership::view)
    }

    /// What everyone who runs thinks of everyone: states and incarnations.
    pub(super) fn views(&self) -> BTreeMap<NodeId, BTreeMap<NodeId, (State, u64)>> {
        let views = self.running().into_iter().map(|who| {
            let view = self.view(&who).expect("it runs");
            let members = view.members.into_iter();
            let brief =
                members.map(|(node, member)| (node, (member.state, member.life.incarnation)));
            (who, brief.collect())
        });
        views.collect()
    }
}

fn life(life: Life) -> String {
    format!("{}.{}", life.incarnation, life.counter)
}

fn about<B>(message: &Message<B>) -> String {
    let suspected = message.header.about.suspected;
    let suspected = suspected.map(|at| format!(", you were suspected at {}", life(at)));
    let kept = message.header.about.record.as_ref();
    let kept = kept.map(|record| format!(", you once were at {}", life(record.life)));
    let opinions = message.header.mine.suspects.iter();
    let opinions = opinions.map(|(node, at)| format!(", I suspect {node} at {}", life(*at)));
    let mine = format!("I am at {}", life(message.header.mine.life));
    [mine]
        .into_iter()
        .chain(opinions)
        .chain(suspected)
        .chain(kept)
        .collect()
}

fn names<'a>(nodes: impl Iterator<Item = (&'a NodeId, Life)>) -> String {
    let list: Vec<_> = nodes
        .map(|(node, at)| format!("{node} {}", life(at)))
        .collect();
    if list.is_empty() {
        "nothing".into()
    } else {
        list.join(", ")
    }
}

fn question(message: &Message<Question>) -> String {
    let body = match &message.body {
        Question::Exchange { digest } => {
            format!(
                "I know {}",
                names(digest.iter().map(|(node, at)| (node, *at)))
            )
        }
        Question::Tell { records } => {
            format!(
                "take {}",
                names(records.iter().map(|record| (&record.node, record.life)))
            )
        }
        Question::Ping => "are you there?".into(),
        Question::PingFor { target } => format!("is {target} there?"),
    };
    format!("{body} ({})", about(message))
}

fn answer(message: &Message<Answer>) -> String {
    let body = match &message.body {
        Answer::Exchanged { records, wants } => {
            let lacked = names(records.iter().map(|record| (&record.node, record.life)));
            let wants: Vec<_> = wants.iter().map(ToString::to_string).collect();
            if wants.is_empty() {
                format!("take {lacked}")
            } else {
                format!("take {lacked}; tell of {}", wants.join(", "))
            }
        }
        Answer::Heard => "heard".into(),
        Answer::Pong => "yes".into(),
        Answer::PongFor {
            record: Some(record),
        } => format!("it is, at {}", life(record.life)),
        Answer::PongFor { record: None } => "it does not answer".into(),
    };
    format!("{body} ({})", about(message))
}

pub(super) fn news(who: &NodeId, effect: &Effect) -> String {
    match effect {
        Effect::Changed {
            member, to, why, ..
        } => {
            format!("{who} sees {member} {} ({})", to.as_str(), why.as_str())
        }
        Effect::Returned {
            member,
            incarnation,
        } => {
            format!("{who} says that {member} is there, incarnation {incarnation}")
        }
        Effect::WasSuspected { by, at } => {
            format!(
                "{who} learns from {by} that it was suspected at {}",
                life(*at)
            )
        }
        Effect::Agreed { member, .. } => format!("{who} knows that all agree on {member}"),
        Effect::Behind { member, number } => format!("{who} lacks document {number} of {member}"),
        Effect::Forgotten { by, was, marks } => {
            format!(
                "{who} has forgotten: {by} knew it at {} with counter {}",
                life(*was),
                marks.counter
            )
        }
        Effect::Send { .. } | Effect::Answer { .. } | Effect::Persist { .. } => String::new(),
    }
}
