//! One node's part in the registry: acceptor, proposer and learner wired together.
//!
//! A value: it takes an [`Event`] and returns [`Effect`]s, which the caller performs **in order**. A
//! persist effect is synced before anything behind it is performed; a caller that crashes in between
//! may drop the rest, and opens the machine again from what it synced. This file holds the acceptor's
//! and the learner's side; `rounds` holds the proposer's.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::acceptor::{Acceptor, Vote};
use super::document::Document;
use super::event::{Alarm, Effect, Event, OpenError, Slot};
use super::forming::{describe_difference, follows};
use super::held::{Held, Learned};
use super::message::{Abstention, Ballot, LearnError, Message, Proof, votes};
use super::proposer::Answer;
use super::recovery::RecoverError;
use super::rounds::{Job, Outcome, Stage};
use super::zoo::Faults;
use crate::id::{Actor, Digest, NodeId};

/// The format of the persisted promises.
const PROMISES_FORMAT: u8 = 1;

/// A node's part in the registry.
#[derive(Debug)]
pub struct Machine {
    pub(super) me: NodeId,
    pub(super) store: Actor,
    pub(super) held: Held,
    pub(super) acceptor: Acceptor,
    /// The highest ballot counter used or heard of, in any number.
    pub(super) counter: u64,
    pub(super) jobs: VecDeque<Job>,
    pub(super) stage: Stage,
    pub(super) timer: u64,
    pub(super) faults: Faults,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Promises {
    format: u8,
    pub(super) number: u64,
    counter: u64,
    pub(super) acceptor: Acceptor,
}

impl Promises {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let promises: Option<Self> = postcard::from_bytes(bytes).ok();
        let readable = promises.filter(|promises| promises.format == PROMISES_FORMAT);
        readable.ok_or(OpenError::Promises)
    }
}

impl Machine {
    /// A node that holds nothing on disk yet; `first` is document 1, made from its flags.
    pub fn new(me: NodeId, store: Actor, first: Document) -> Self {
        Self::with(me, store, Held::first(first), Acceptor::default(), 0)
    }

    /// A node that has persisted. `first` is document 1 from its flags and counts only while no chosen
    /// document is stored. Unreadable or contradicting records mean amnesia: continue as a new store.
    pub fn open(
        me: NodeId,
        store: Actor,
        first: Document,
        chosen: Option<&[u8]>,
        promises: Option<&[u8]>,
    ) -> Result<Self, OpenError> {
        let held = chosen.map_or_else(|| Ok(Held::first(first)), Held::decode)?;
        let Some(bytes) = promises else {
            return Ok(Self::with(me, store, held, Acceptor::default(), 0));
        };
        let promises = Promises::decode(bytes)?;
        let next = held.document.number + 1;
        if promises.number > next {
            let held = held.document.number;
            return Err(OpenError::Ahead {
                promised: promises.number,
                held,
            });
        }
        let current = promises.number == next;
        let acceptor = if current {
            promises.acceptor
        } else {
            Acceptor::default()
        };
        Ok(Self::with(me, store, held, acceptor, promises.counter))
    }

    fn with(me: NodeId, store: Actor, held: Held, acceptor: Acceptor, counter: u64) -> Self {
        let (jobs, stage, faults) = (VecDeque::new(), Stage::Idle, Faults::default());
        Self {
            me,
            store,
            held,
            acceptor,
            counter,
            jobs,
            stage,
            timer: 0,
            faults,
        }
    }

    /// The next document as far as this node accepted one: it may be chosen, and nobody may know.
    pub fn accepted(&self) -> Option<&Document> {
        let accepted = self.acceptor.accepted.as_ref();
        accepted.map(|(_, document)| document.as_ref())
    }

    /// The chosen document that is in force here.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whether document 2 is still to be chosen: no contexts, no mints.
    pub fn forming(&self) -> bool {
        self.held.document.number < 2
    }

    /// Whether the registry names another store for this node: it does not vote until a change
    /// ([`Change::NameStore`]) names this one.
    pub fn amnesiac(&self) -> bool {
        self.abstention() == Some(Abstention::Amnesiac)
    }

    /// Whether a change waits to be decided, and how many wait behind it.
    pub fn pending(&self) -> usize {
        self.jobs.len()
    }

    /// The first document of a new lineage, if this node were to recover now: made of what it holds, or of what it
    /// accepted and never heard of again, which may have been chosen.
    pub fn recovery(
        &self,
        present: &BTreeSet<NodeId>,
        epoch: u64,
    ) -> Result<Document, RecoverError> {
        let held = &self.held.document;
        let mut present = present.clone();
        match self.abstention() {
            None => present.insert(self.me.clone()),
            Some(_) => present.remove(&self.me),
        };
        held.check_lost(&self.me, &present)?;
        self.recovers_from().recovered(&self.me, self.store, epoch)
    }

    /// The document that a recovery by this node goes on from.
    pub fn recovers_from(&self) -> &Document {
        let accepted = self.accepted();
        let accepted = accepted.filter(|next| next.layout.members.contains_key(&self.me));
        accepted.unwrap_or(&self.held.document)
    }

    /// Takes an event; perform the effects in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Form(secrets) => self.form(secrets, &mut out),
            Event::Propose { id, change } => self.propose(id, change, &mut out),
            Event::Recover { id, present, epoch } => self.recover(id, &present, epoch, &mut out),
            Event::Message { from, message } => self.hear(&from, message, &mut out),
            Event::Timer { token } => self.run_off(token, &mut out),
            Event::Reached(peer) => self.reached(&peer, &mut out),
            Event::Unreachable(peer) => self.answered(&peer, Answer::No, &mut out),
            Event::Seen { from, number } if number > self.held.document.number => {
                out.push(send(&from, self.fetch()));
            }
            Event::Seen { .. } => {}
        }
        out
    }

    /// One record changes, so a crash leaves the old lineage or the new one. Promises about the old one's next
    /// document are void: nobody asks for that any more.
    fn recover(&mut self, id: u64, present: &BTreeSet<NodeId>, epoch: u64, out: &mut Vec<Effect>) {
        let document = match self.recovery(present, epoch) {
            Ok(document) => document,
            Err(error) => {
                let outcome = Outcome::Refused(error.into());
                return out.push(Effect::Finished { id, outcome });
            }
        };
        let number = document.number;
        self.held = Held::first(document);
        self.acceptor = Acceptor::default();
        out.push(self.persist_chosen());
        out.push(Effect::Chosen(Box::new(self.held.clone())));
        let outcome = Outcome::Done { number };
        out.push(Effect::Finished { id, outcome });
        self.succeeded(out);
    }

    fn persist_chosen(&self) -> Effect {
        Effect::Persist {
            slot: Slot::Chosen,
            bytes: self.held.encode(),
        }
    }

    fn hear(&mut self, from: &NodeId, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Prepare {
                number,
                previous,
                ballot,
            } => {
                if self.in_step(from, number, previous, out) {
                    self.on_prepare(from, ballot, out);
                }
            }
            Message::Accept { ballot, document } => {
                let previous = document.previous.unwrap_or(self.held.digest);
                if self.in_step(from, document.number, previous, out) {
                    self.on_accept(from, ballot, &document, out);
                }
            }
            Message::Promise {
                number,
                ballot,
                store,
                accepted,
            } => {
                if self.is_current(number, ballot) {
                    self.answered(from, Answer::Promise { store, accepted }, out);
                }
            }
            Message::Accepted {
                number,
                ballot,
                store,
            } => {
                if self.is_current(number, ballot) {
                    self.answered(from, Answer::Accepted(store), out);
                }
            }
            Message::Refused {
                number,
                ballot,
                promised,
            } => {
                self.hear_of(promised, out);
                if self.is_current(number, ballot) {
                    self.answered(from, Answer::Refused, out);
                }
            }
            Message::Abstain { number, ballot, .. } => {
                if self.is_current(number, ballot) {
                    self.answered(from, Answer::No, out);
                }
            }
            Message::Fetch { number } => self.on_fetch(from, number, out),
            Message::Chosen { document, proof } => self.learn(from, &document, &proof, out),
            Message::Differs { document } => self.on_differs(from, &document, out),
        }
    }

    /// Whether a proposal is for the number after the one held here; if not, whoever is behind is helped.
    fn in_step(&self, from: &NodeId, number: u64, previous: Digest, out: &mut Vec<Effect>) -> bool {
        let next = self.held.document.number + 1;
        if number > next {
            out.push(send(from, self.fetch()));
        } else if number < next {
            out.extend(self.latest().map(|message| send(from, message)));
        } else if previous != self.held.digest {
            let document = Box::new(self.held.document.clone());
            out.push(send(from, Message::Differs { document }));
        } else {
            return true;
        }
        false
    }

    fn on_prepare(&mut self, from: &NodeId, ballot: Ballot, out: &mut Vec<Effect>) {
        let number = self.held.document.number + 1;
        if let Some(reason) = self.abstention() {
            out.push(send(
                from,
                Message::Abstain {
                    number,
                    ballot,
                    reason,
                },
            ));
            return;
        }
        let message = match self.vote_prepare(ballot) {
            Vote::Yes => {
                out.push(self.persist_promises());
                let accepted = self.told();
                Message::Promise {
                    number,
                    ballot,
                    store: self.voting_store(),
                    accepted,
                }
            }
            Vote::No { promised } => Message::Refused {
                number,
                ballot,
                promised,
            },
        };
        out.push(send(from, message));
    }

    fn on_accept(
        &mut self,
        from: &NodeId,
        ballot: Ballot,
        document: &Document,
        out: &mut Vec<Effect>,
    ) {
        let number = document.number;
        let fits = follows(&self.held.document, document) && document.check().is_ok();
        let malformed = (!fits).then_some(Abstention::Malformed);
        if let Some(reason) = self.abstention().or(malformed) {
            out.push(send(
                from,
                Message::Abstain {
                    number,
                    ballot,
                    reason,
                },
            ));
            return;
        }
        let message = match self.vote_accept(ballot, document) {
            Vote::Yes => {
                out.push(self.persist_promises());
                Message::Accepted {
                    number,
                    ballot,
                    store: self.voting_store(),
                }
            }
            Vote::No { promised } => Message::Refused {
                number,
                ballot,
                promised,
            },
        };
        out.push(send(from, message));
    }

    /// Sends what is newer here, and asks again what this peer was too far behind to answer.
    fn on_fetch(&self, from: &NodeId, number: u64, out: &mut Vec<Effect>) {
        if number < self.held.document.number {
            out.extend(self.latest().map(|message| send(from, message)));
        }
        self.ask_again(from, out);
    }

    fn on_differs(&self, from: &NodeId, theirs: &Document, out: &mut Vec<Effect>) {
        let mine = &self.held.document;
        if mine.number != theirs.number || self.held.digest == theirs.digest() {
            return;
        }
        let peer = from.clone();
        out.push(Effect::Alarm(match describe_difference(mine, theirs) {
            Some(difference) if mine.number == 1 => Alarm::FlagsDiffer { peer, difference },
            _ => {
                let (mine, theirs) = (self.held.digest, theirs.digest());
                let error = LearnError::Fork {
                    number: self.held.document.number,
                    mine,
                    theirs,
                };
                Alarm::Rejected { peer, error }
            }
        }));
    }

    fn learn(&mut self, from: &NodeId, document: &Document, proof: &Proof, out: &mut Vec<Effect>) {
        if self.take(from, document, proof, out) {
            self.succeeded(out);
        }
    }

    /// Takes a chosen document, from a peer or from the own proposer; says whether it is new.
    pub(super) fn take(
        &mut self,
        from: &NodeId,
        document: &Document,
        proof: &Proof,
        out: &mut Vec<Effect>,
    ) -> bool {
        let learned = if self.faults.form_by_majority {
            self.held.learn_unproven(document, proof)
        } else {
            self.held.learn(document, proof)
        };
        match learned {
            Ok(Learned::Known) => false,
            Ok(Learned::New) => {
                self.acceptor = Acceptor::default();
                out.push(self.persist_chosen());
                out.push(Effect::Chosen(Box::new(self.held.clone())));
                true
            }
            Err(error) => {
                out.push(Effect::Alarm(Alarm::Rejected {
                    peer: from.clone(),
                    error,
                }));
                false
            }
        }
    }

    /// Why this node does not vote on the next document; none if it does.
    pub(super) fn abstention(&self) -> Option<Abstention> {
        let document = &self.held.document;
        match document.layout.members.get(&self.me) {
            None => Some(Abstention::NotAMember),
            Some(member) if votes(document.number + 1, member.store, self.store) => None,
            Some(_) if self.faults.amnesiac_votes => None,
            Some(_) => Some(Abstention::Amnesiac),
        }
    }

    pub(super) fn vote_prepare(&mut self, ballot: Ballot) -> Vote {
        self.counter = self.counter.max(ballot.counter);
        if self.faults.poll {
            Vote::Yes
        } else {
            self.acceptor.prepare(ballot)
        }
    }

    pub(super) fn vote_accept(&mut self, ballot: Ballot, document: &Document) -> Vote {
        if self.faults.poll {
            Vote::Yes
        } else {
            self.acceptor.accept(ballot, document)
        }
    }

    /// What this node tells of earlier accepts when it promises.
    pub(super) fn told(&self) -> Option<(Ballot, Box<Document>)> {
        self.acceptor.accepted.clone()
    }

    /// The store this node votes with; an amnesiac of the zoo pretends to be what it was.
    pub(super) fn voting_store(&self) -> Actor {
        let named = self
            .held
            .document
            .layout
            .members
            .get(&self.me)
            .and_then(|m| m.store);
        named
            .filter(|_| self.faults.amnesiac_votes)
            .unwrap_or(self.store)
    }

    pub(super) fn persist_promises(&self) -> Effect {
        let promises = Promises {
            format: PROMISES_FORMAT,
            number: self.held.document.number + 1,
            counter: self.counter,
            acceptor: self.acceptor.clone(),
        };
        let bytes = postcard::to_stdvec(&promises).expect("writing to memory cannot fail");
        Effect::Persist {
            slot: Slot::Promises,
            bytes,
        }
    }

    /// The latest chosen document as a message; none while there is only document 1.
    pub(super) fn latest(&self) -> Option<Message> {
        let proof = self.held.proof.clone()?;
        Some(Message::Chosen {
            document: Box::new(self.held.document.clone()),
            proof,
        })
    }

    /// Notes a ballot that somebody has promised, so that the next one here is higher.
    fn hear_of(&mut self, promised: Ballot, out: &mut Vec<Effect>) {
        if promised.store == self.store && promised.counter > self.counter {
            out.push(Effect::Alarm(Alarm::Forgotten(promised)));
        }
        self.counter = self.counter.max(promised.counter);
    }

    fn fetch(&self) -> Message {
        Message::Fetch {
            number: self.held.document.number,
        }
    }
}

pub(super) fn send(to: &NodeId, message: Message) -> Effect {
    Effect::Send {
        to: to.clone(),
        message,
    }
}
