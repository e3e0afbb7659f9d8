//! A read, as its coordinator sees it: ask all n, join, answer at R, repair whoever was behind.
//!
//! One replica is asked for the object and the others for its digest; an object is fetched only where the
//! digest is new, so a quiet key costs one value. A replica counts towards R once its state is inside the
//! join. A replica that is rebuilding contributes what it has and never counts. For a primary that is away or
//! fails a fallback is asked too: it counts if it holds a hint of the key, and its "absent" never does. After
//! the answer the flow goes on until everyone has spoken, and then sends the joined object to the primaries
//! that lack part of it: whole objects, to be joined there, so a repair can race with anything. Primaries that are
//! spared (their node is suspected) are asked only once another one fails or is slow, or if the others are too few.

use std::collections::{BTreeSet, VecDeque};

use super::Replicas;
use crate::codec;
use crate::id::{Digest, NodeId};
use crate::object::Object;
use crate::quorum::Standing;

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
    /// How many replicas are inside the join and count.
    pub replies: usize,
    /// How many of them stand in for an owner.
    pub fallbacks: usize,
    /// How many owners could not answer, or do not count.
    pub failed: usize,
    /// Whether replicas differed.
    pub differed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AskedObject,
    AskedDigest,
    /// Its digest is known and its object is not.
    Said {
        digest: Digest,
        counts: bool,
    },
    /// Its state is inside the join.
    Inside {
        digest: Digest,
        counts: bool,
    },
    /// It failed, or is a fallback that holds nothing.
    Failed,
    /// It is asked if others fail.
    Spared,
}

impl State {
    fn is_over(self) -> bool {
        matches!(self, Self::Inside { .. } | Self::Failed | Self::Spared)
    }

    fn counts(self) -> bool {
        matches!(self, Self::Inside { counts: true, .. })
    }
}

/// Somebody who was asked.
#[derive(Clone, Debug)]
struct Replica {
    node: NodeId,
    state: State,
    stands_in: bool,
}

/// A read under way.
#[derive(Clone, Debug)]
pub struct Get {
    need: usize,
    replicas: Vec<Replica>,
    /// Fallbacks that were not asked yet.
    spare: VecDeque<NodeId>,
    joined: Object,
    /// Digests of the objects inside the join.
    inside: BTreeSet<Digest>,
    answered: bool,
    finished: bool,
}

impl Get {
    /// A read of these replicas, the owners best first, to be answered when `r` of them are inside the join.
    pub fn new(replicas: Replicas<'_>, r: usize) -> (Self, Vec<Effect>) {
        let mut get = Self {
            need: r,
            replicas: Vec::with_capacity(replicas.owners.len()),
            spare: replicas.fallbacks.iter().cloned().collect(),
            joined: Object::default(),
            inside: BTreeSet::new(),
            answered: false,
            finished: false,
        };
        let mut effects = Vec::with_capacity(replicas.owners.len());
        for owner in replicas.owners {
            if get.replicas.len() >= r && replicas.spared.contains(owner) {
                get.spare_owner(owner.clone());
            } else {
                effects.push(get.ask(owner.clone(), false));
            }
        }
        for _ in replicas.away {
            effects.extend(get.ask_fallback());
        }
        (get, effects)
    }

    /// The first is asked for the object, the others for its digest.
    fn ask(&mut self, node: NodeId, stands_in: bool) -> Effect {
        let (state, ask) = if self.replicas.is_empty() {
            (State::AskedObject, Ask::Object)
        } else {
            (State::AskedDigest, Ask::Digest)
        };
        self.replicas.push(Replica {
            node: node.clone(),
            state,
            stands_in,
        });
        Effect::Ask(node, ask)
    }

    fn spare_owner(&mut self, node: NodeId) {
        self.replicas.push(Replica {
            node,
            state: State::Spared,
            stands_in: false,
        });
    }

    /// Somebody failed: who was spared is needed after all.
    fn ask_spared(&mut self) -> impl Iterator<Item = Effect> + '_ {
        let spared = self.replicas.iter_mut();
        let spared = spared.filter(|replica| replica.state == State::Spared);
        spared.map(|replica| {
            replica.state = State::AskedDigest;
            Effect::Ask(replica.node.clone(), Ask::Digest)
        })
    }

    fn ask_fallback(&mut self) -> Option<Effect> {
        let spare = self.spare.pop_front()?;
        Some(self.ask(spare, true))
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Said { from, said, counts } => {
                let missing = self.hear(from, said, counts);
                if missing && !self.answered {
                    effects.extend(self.ask_fallback());
                    effects.extend(self.ask_spared());
                }
            }
            Event::Hedge => {
                effects.extend(self.ask_one_more());
                // Somebody is slow: who was spared may be quicker.
                if !self.answered {
                    effects.extend(self.ask_spared());
                }
            }
            Event::Deadline => {
                effects.extend(self.answer(false));
                effects.extend(self.finish());
                return effects;
            }
        }
        effects.extend(self.place_digests());
        match self.standing() {
            Standing::Met => effects.extend(self.answer(true)),
            Standing::Lost => effects.extend(self.answer(false)),
            Standing::Pending => {}
        }
        if self.replicas.iter().all(|replica| replica.state.is_over()) && !self.answered {
            // Nobody is left who might still answer: ask those who were not asked.
            effects.extend(self.ask_fallback());
            effects.extend(self.ask_spared());
        }
        if self.replicas.iter().all(|replica| replica.state.is_over()) {
            effects.extend(self.answer(false));
            effects.extend(self.finish());
        }
        effects
    }

    /// What has been found by now: after the answer it may be more than that said.
    pub fn found(&self) -> Outcome {
        self.outcome(self.standing() == Standing::Met)
    }

    /// Whether nothing more will happen.
    pub fn is_done(&self) -> bool {
        self.finished
    }

    fn standing(&self) -> Standing {
        let counting = |replica: &&Replica| replica.state.counts();
        let counting = self.replicas.iter().filter(counting).count();
        let open = |replica: &&Replica| !replica.state.is_over() || replica.state == State::Spared;
        let open = self.replicas.iter().filter(open).count();
        if counting >= self.need {
            Standing::Met
        } else if counting + open + self.spare.len() < self.need {
            Standing::Lost
        } else {
            Standing::Pending
        }
    }

    /// Takes in what a replica said; answers whether it is one that does not count after all.
    fn hear(&mut self, from: &NodeId, said: Said, counts: bool) -> bool {
        let mut replicas = self.replicas.iter_mut();
        let Some(replica) = replicas.find(|replica| replica.node == *from) else {
            return false;
        };
        let absent = replica.stands_in && says_absent(&said);
        match (replica.state, said) {
            (State::AskedObject | State::AskedDigest, Said::Failed) => {
                replica.state = State::Failed;
            }
            (State::AskedObject | State::AskedDigest, _) if absent => {
                replica.state = State::Failed;
            }
            (State::AskedObject | State::AskedDigest, Said::Object(object, digest)) => {
                replica.state = State::Inside { digest, counts };
                self.joined.join(&object);
                self.inside.insert(digest);
            }
            (State::AskedDigest, Said::Digest(digest)) => {
                replica.state = State::Said { digest, counts };
            }
            // A hedge asked for the object while the digest was still on its way.
            (State::AskedObject, Said::Digest(_)) => return false,
            (State::Said { .. } | State::Inside { .. } | State::Failed | State::Spared, _) => {
                return false;
            }
        }
        match replica.state {
            State::Said { counts, .. } | State::Inside { counts, .. } => !counts,
            state => state == State::Failed,
        }
    }

    /// Digests that the join holds count; new ones are fetched, once it is clear that the join lacks them.
    fn place_digests(&mut self) -> Vec<Effect> {
        let asked = |replica: &Replica| replica.state == State::AskedObject;
        let waiting = self.replicas.iter().any(asked);
        let mut fetch = Vec::new();
        for replica in &mut self.replicas {
            let State::Said { digest, counts } = replica.state else {
                continue;
            };
            if self.inside.contains(&digest) {
                replica.state = State::Inside { digest, counts };
            } else if !self.inside.is_empty() || (!waiting && fetch.is_empty()) {
                replica.state = State::AskedObject;
                fetch.push(Effect::Ask(replica.node.clone(), Ask::Object));
            }
        }
        fetch
    }

    /// The first of those whose object is unknown and was not asked for.
    fn ask_one_more(&mut self) -> Option<Effect> {
        if !self.inside.is_empty() {
            return None;
        }
        let not_asked = |state: State| {
            matches!(
                state,
                State::AskedDigest | State::Said { .. } | State::Spared
            )
        };
        // Who has answered already is quicker than who has not.
        let said = |replica: &Replica| matches!(replica.state, State::Said { .. });
        let at = self.replicas.iter().position(said).or_else(|| {
            let mut replicas = self.replicas.iter();
            replicas.position(|replica| not_asked(replica.state))
        })?;
        let replica = &mut self.replicas[at];
        replica.state = State::AskedObject;
        Some(Effect::Ask(replica.node.clone(), Ask::Object))
    }

    fn answer(&mut self, met: bool) -> Option<Effect> {
        if std::mem::replace(&mut self.answered, true) {
            return None;
        }
        Some(Effect::Answer(self.outcome(met)))
    }

    fn outcome(&self, met: bool) -> Outcome {
        let number = |is: fn(&Replica) -> bool| {
            let replicas = self.replicas.iter();
            replicas.filter(|replica| is(replica)).count()
        };
        Outcome {
            object: self.joined.clone(),
            digest: self.digest(),
            met,
            replies: number(|replica| replica.state.counts()),
            fallbacks: number(|replica| replica.stands_in && replica.state.counts()),
            failed: number(|replica| {
                let uncounted = replica.state.is_over() && !replica.state.counts();
                uncounted && !replica.stands_in && replica.state != State::Spared
            }),
            differed: self.inside.len() > 1,
        }
    }

    fn digest(&self) -> Digest {
        match self.inside.first() {
            Some(only) if self.inside.len() == 1 => *only,
            _ => codec::digest(&self.joined),
        }
    }

    /// Everyone has spoken, or the time is up: repair the primaries that lack part of the join.
    fn finish(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.finished, true) || self.inside.len() < 2 {
            return Vec::new();
        }
        let whole = self.digest();
        let behind = self.replicas.iter().filter(|replica| match replica.state {
            State::Inside { digest, .. } => digest != whole && !replica.stands_in,
            _ => false,
        });
        behind
            .map(|replica| Effect::Repair(replica.node.clone(), self.joined.clone()))
            .collect()
    }
}

/// Whether a replica holds nothing of the key.
fn says_absent(said: &Said) -> bool {
    match said {
        Said::Object(object, _) => object.is_empty(),
        Said::Digest(digest) => *digest == codec::digest(&Object::default()),
        Said::Failed => false,
    }
}
