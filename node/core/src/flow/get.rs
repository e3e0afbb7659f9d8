//! A read, as its coordinator sees it: ask all n, join, answer at R, repair whoever was behind.
//!
//! One replica is asked for the object and the others for its digest; an object is fetched only where the
//! digest is new, so a quiet key costs one value. A replica counts towards R once its state is inside the
//! join. A replica that is rebuilding contributes what it has and never counts. After the answer the flow
//! goes on until everyone has spoken, and then sends the joined object to those who lack part of it: whole
//! objects, to be joined there, so a repair can race with anything. Spare replicas (their node is suspected, and
//! there are enough others) are asked only once another one fails or is slow.

use std::collections::BTreeSet;

use crate::codec;
use crate::id::{Digest, NodeId};
use crate::object::Object;
use crate::quorum::{Standing, Tally};

#[cfg(test)]
mod tests;

/// What a replica is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The object.
    Object,
    /// Its digest.
    Digest,
}

/// What a replica said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its object; an empty one if it holds nothing.
    Object(Object, Digest),
    /// The digest of its object.
    Digest(Digest),
    /// It could not say, or cannot be reached. Never the same as an empty object.
    Failed,
}

/// What happened to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A replica answered.
    Said {
        /// Which one.
        from: &'a NodeId,
        /// What.
        said: Said,
        /// Whether its answer counts: not while it is rebuilding.
        counts: bool,
    },
    /// The first replica is slow: ask another for the object.
    Hedge,
    /// The client's time is up.
    Deadline,
}

/// What to do for a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a replica.
    Ask(NodeId, Ask),
    /// Tell the client.
    Answer(Outcome),
    /// Send this object to a replica that lacks part of it.
    Repair(NodeId, Object),
}

/// How a read went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The join of what was found.
    pub object: Object,
    /// Its digest.
    pub digest: Digest,
    /// Whether R replicas are inside the join.
    pub met: bool,
    /// How many replicas are inside the join.
    pub replies: usize,
    /// How many could not answer.
    pub failed: usize,
    /// Whether replicas differed.
    pub differed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is asked if others fail.
    Spare,
    AskedObject,
    AskedDigest,
    /// Its digest is known and its object is not.
    Said {
        digest: Digest,
        counts: bool,
    },
    /// Its state is inside the join.
    Inside(Digest),
    Failed,
}

/// A read under way.
#[derive(Clone, Debug)]
pub struct Get {
    replicas: Vec<(NodeId, State)>,
    tally: Tally<NodeId>,
    joined: Object,
    /// Digests of the objects inside the join.
    inside: BTreeSet<Digest>,
    answered: bool,
    finished: bool,
}

impl Get {
    /// A read of these replicas, best first, to be answered when `r` of them are inside the join.
    pub fn new(replicas: &[NodeId], r: usize) -> (Self, Vec<Effect>) {
        Self::with_spares(replicas, 0, r)
    }

    /// The same, but the last so many are spared as long as the others do well, and are at least `r`.
    pub fn with_spares(replicas: &[NodeId], spares: usize, r: usize) -> (Self, Vec<Effect>) {
        let first_spare = replicas.len().saturating_sub(spares).max(r).max(1);
        let asked = |at| match at {
            0 => State::AskedObject,
            at if at >= first_spare => State::Spare,
            _ => State::AskedDigest,
        };
        let states = replicas
            .iter()
            .enumerate()
            .map(|(at, replica)| (replica.clone(), asked(at)));
        let get = Self {
            replicas: states.collect(),
            tally: Tally::new(replicas.len(), r),
            joined: Object::default(),
            inside: BTreeSet::new(),
            answered: false,
            finished: false,
        };
        let ask = |at| if at == 0 { Ask::Object } else { Ask::Digest };
        let effects = replicas.iter().enumerate().take(first_spare);
        let effects = effects.map(|(at, replica)| Effect::Ask(replica.clone(), ask(at)));
        (get, effects.collect())
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Said { from, said, counts } => self.hear(from, said, counts),
            Event::Hedge => effects.extend(self.ask_one_more()),
            Event::Deadline => {
                effects.extend(self.answer(false));
                effects.extend(self.finish());
                return effects;
            }
        }
        effects.extend(self.place_digests());
        if self.tally.fails() > 0 {
            effects.extend(self.ask_spares());
        }
        match self.tally.standing() {
            Standing::Met => effects.extend(self.answer(true)),
            Standing::Lost => effects.extend(self.answer(false)),
            Standing::Pending => {}
        }
        if self.is_settled() {
            effects.extend(self.answer(false));
            effects.extend(self.finish());
        }
        effects
    }

    /// What has been found by now: after the answer it may be more than that said.
    pub fn found(&self) -> Outcome {
        self.outcome(self.tally.standing() == Standing::Met)
    }

    /// Whether nothing more will happen.
    pub fn is_done(&self) -> bool {
        self.finished
    }

    fn is_settled(&self) -> bool {
        self.replicas
            .iter()
            .all(|(_, state)| matches!(state, State::Inside(_) | State::Failed | State::Spare))
    }

    fn hear(&mut self, from: &NodeId, said: Said, counts: bool) {
        let Some((_, state)) = self
            .replicas
            .iter_mut()
            .find(|(replica, _)| replica == from)
        else {
            return;
        };
        let asked = *state;
        match (asked, said) {
            (State::AskedObject | State::AskedDigest, Said::Object(object, digest)) => {
                *state = State::Inside(digest);
                self.joined.join(&object);
                self.inside.insert(digest);
                self.count(from, counts);
            }
            (State::AskedDigest, Said::Digest(digest)) => *state = State::Said { digest, counts },
            // A hedge asked for the object while the digest was still on its way.
            (State::AskedObject, Said::Digest(_)) => {}
            (State::AskedObject | State::AskedDigest, Said::Failed) => {
                *state = State::Failed;
                self.tally.fail(from.clone());
            }
            (State::Spare | State::Said { .. } | State::Inside(_) | State::Failed, _) => {}
        }
    }

    fn count(&mut self, replica: &NodeId, counts: bool) {
        let _standing = match counts {
            true => self.tally.ack(replica.clone()),
            false => self.tally.fail(replica.clone()),
        };
    }

    /// Digests that the join holds count; new ones are fetched, once it is clear that the join lacks them.
    fn place_digests(&mut self) -> Vec<Effect> {
        let waiting = self
            .replicas
            .iter()
            .any(|(_, state)| *state == State::AskedObject);
        let mut fetch = Vec::new();
        for at in 0..self.replicas.len() {
            let State::Said { digest, counts } = self.replicas[at].1 else {
                continue;
            };
            if self.inside.contains(&digest) {
                self.replicas[at].1 = State::Inside(digest);
                let replica = self.replicas[at].0.clone();
                self.count(&replica, counts);
            } else if !self.inside.is_empty() || (!waiting && fetch.is_empty()) {
                self.replicas[at].1 = State::AskedObject;
                fetch.push(Effect::Ask(self.replicas[at].0.clone(), Ask::Object));
            }
        }
        fetch
    }

    /// The first of those whose object is unknown and was not asked for.
    fn ask_one_more(&mut self) -> Option<Effect> {
        if !self.inside.is_empty() {
            return None;
        }
        let not_asked = |state: &State| {
            matches!(
                state,
                State::AskedDigest | State::Said { .. } | State::Spare
            )
        };
        let (replica, state) = self
            .replicas
            .iter_mut()
            .find(|(_, state)| not_asked(state))?;
        *state = State::AskedObject;
        Some(Effect::Ask(replica.clone(), Ask::Object))
    }

    /// Somebody failed: the spares are needed after all.
    fn ask_spares(&mut self) -> Vec<Effect> {
        let spares = self.replicas.iter_mut();
        let spares = spares.filter(|(_, state)| *state == State::Spare);
        spares
            .map(|(replica, state)| {
                *state = State::AskedDigest;
                Effect::Ask(replica.clone(), Ask::Digest)
            })
            .collect()
    }

    fn answer(&mut self, met: bool) -> Option<Effect> {
        if std::mem::replace(&mut self.answered, true) {
            return None;
        }
        Some(Effect::Answer(self.outcome(met)))
    }

    fn outcome(&self, met: bool) -> Outcome {
        Outcome {
            object: self.joined.clone(),
            digest: self.digest(),
            met,
            replies: self.tally.acks(),
            failed: self.tally.fails(),
            differed: self.inside.len() > 1,
        }
    }

    fn digest(&self) -> Digest {
        match self.inside.first() {
            Some(only) if self.inside.len() == 1 => *only,
            _ => codec::digest(&self.joined),
        }
    }

    /// Everyone has spoken, or the time is up: repair those who lack part of the join.
    fn finish(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.finished, true) || self.inside.len() < 2 {
            return Vec::new();
        }
        let whole = self.digest();
        let behind = self.replicas.iter().filter(|(_, state)| match state {
            State::Inside(digest) => *digest != whole,
            _ => false,
        });
        behind
            .map(|(replica, _)| Effect::Repair(replica.clone(), self.joined.clone()))
            .collect()
    }
}
