//! The proposer of single-decree Paxos: one ballot for one document number.
//!
//! First it asks every voter for a promise; with enough of them it proposes the document accepted in
//! the highest ballot it was told of, and its own only if there is none. Enough accepts in this ballot
//! mean chosen. A ballot that fails is over; the next one is another value of this type.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Document;
use super::forming::{Secrets, second_document};
use super::message::{Ballot, Proof, votes, votes_needed};
use super::zoo::invent_stores;
use crate::id::{Actor, NodeId};
use crate::quorum::{Standing, Tally};

/// What the proposer would like to see chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Document 2, once every first member has told its store.
    Form(Secrets),
    /// This successor.
    Document(Box<Document>),
}

/// A voter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It promised.
    Promise {
        /// With this store.
        store: Actor,
        /// It had accepted this.
        accepted: Option<(Ballot, Box<Document>)>,
    },
    /// It accepted, with this store.
    Accepted(Actor),
    /// It has promised a higher ballot.
    Refused,
    /// It abstained or cannot be reached.
    No,
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Ask every voter to accept this document.
    Propose(Box<Document>),
    /// The document is chosen.
    Chosen(Box<Document>, Proof),
    /// This ballot can no longer succeed.
    Lost,
}

/// One ballot.
#[derive(Clone, Debug)]
pub struct Proposer {
    /// The ballot.
    pub ballot: Ballot,
    /// The number of the document to be chosen.
    pub number: u64,
    /// Who votes, as the document before names them.
    pub voters: BTreeMap<NodeId, Option<Actor>>,
    before: Document,
    tally: Tally<NodeId>,
    refusals: BTreeSet<NodeId>,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Promises {
        wish: Wish,
        stores: BTreeMap<NodeId, Actor>,
        heard: Option<(Ballot, Box<Document>)>,
    },
    Accepts {
        document: Box<Document>,
        accepts: BTreeMap<NodeId, Actor>,
    },
}

impl Proposer {
    /// Starts a ballot for the successor of `before`.
    pub fn new(before: &Document, ballot: Ballot, wish: Wish) -> Self {
        let need = votes_needed(before.number + 1, before.layout.members.len());
        Self::with_need(before, ballot, wish, need)
    }

    /// The same with another number of votes; only the zoo wants one.
    pub(super) fn with_need(before: &Document, ballot: Ballot, wish: Wish, need: usize) -> Self {
        let voters = before.voters();
        Self {
            ballot,
            number: before.number + 1,
            tally: Tally::new(voters.len(), need),
            refusals: BTreeSet::new(),
            phase: Phase::Promises {
                wish,
                stores: BTreeMap::new(),
                heard: None,
            },
            before: before.clone(),
            voters,
        }
    }

    /// How many more voters had to answer in this phase, be it with a refusal, to make a quorum.
    pub fn missing(&self) -> usize {
        self.tally
            .need()
            .saturating_sub(self.tally.acks() + self.refusals.len())
    }

    /// The document being proposed, once the first phase is over.
    pub fn proposed(&self) -> Option<&Document> {
        match &self.phase {
            Phase::Promises { .. } => None,
            Phase::Accepts { document, .. } => Some(document),
        }
    }

    /// Whether this voter is still to answer in this phase.
    pub fn awaits(&self, voter: &NodeId) -> bool {
        self.voters.contains_key(voter) && !self.tally.heard(voter)
    }

    /// Takes a voter's answer to this ballot.
    pub fn handle(&mut self, from: &NodeId, answer: Answer) -> Step {
        let Some(&named) = self.voters.get(from) else {
            return Step::Wait;
        };
        let before = self.tally.standing();
        let standing = match (&mut self.phase, answer) {
            (_, Answer::No) => self.tally.fail(from.clone()),
            (_, Answer::Refused) => {
                self.refusals.insert(from.clone());
                self.tally.fail(from.clone())
            }
            (Phase::Promises { stores, heard, .. }, Answer::Promise { store, accepted })
                if votes(self.number, named, store) =>
            {
                stores.insert(from.clone(), store);
                *heard = highest(heard.take(), accepted);
                self.tally.ack(from.clone())
            }
            (Phase::Accepts { accepts, .. }, Answer::Accepted(store))
                if votes(self.number, named, store) =>
            {
                accepts.insert(from.clone(), store);
                self.tally.ack(from.clone())
            }
            _ => return Step::Wait,
        };
        match standing {
            Standing::Met if before != Standing::Met => self.advance(),
            Standing::Lost if before != Standing::Lost => Step::Lost,
            _ => Step::Wait,
        }
    }

    fn advance(&mut self) -> Step {
        match &self.phase {
            Phase::Promises {
                wish,
                stores,
                heard,
            } => {
                let chosen = match (heard, wish) {
                    (Some((_, document)), _) => Some(document.clone()),
                    (None, Wish::Document(own)) => Some(own.clone()),
                    (None, Wish::Form(secrets)) => {
                        let stores = invent_stores(&self.before, stores);
                        second_document(&self.before, &stores, secrets).map(Box::new)
                    }
                };
                let Some(document) = chosen else {
                    return Step::Lost;
                };
                self.tally = Tally::new(self.voters.len(), self.tally.need());
                self.refusals.clear();
                self.phase = Phase::Accepts {
                    document: document.clone(),
                    accepts: BTreeMap::new(),
                };
                Step::Propose(document)
            }
            Phase::Accepts { document, accepts } => {
                let proof = Proof {
                    ballot: self.ballot,
                    voters: self.voters.clone(),
                    accepts: accepts.clone(),
                };
                Step::Chosen(document.clone(), proof)
            }
        }
    }
}

fn highest(
    a: Option<(Ballot, Box<Document>)>,
    b: Option<(Ballot, Box<Document>)>,
) -> Option<(Ballot, Box<Document>)> {
    let ballot = |x: &Option<(Ballot, Box<Document>)>| x.as_ref().map(|(ballot, _)| *ballot);
    if ballot(&b) > ballot(&a) { b } else { a }
}
