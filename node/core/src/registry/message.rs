//! What nodes say to each other about the registry, and what proves that a document was chosen.
//!
//! A proof is the ballot, who could vote and who accepted. It carries no signatures: peers are told
//! apart by the handshake and trusted to say what they saw; it guards against mistakes, not forgery.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::rules::Malformed;
use crate::id::{Actor, Digest, NodeId};
use crate::quorum::majority;

/// The name of one attempt at choosing a document: higher ones win over lower ones, and no two attempts
/// share one, because the counter is synced before it is used and no two stores have one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The proposer's counter.
    pub counter: u64,
    /// The proposer's store.
    pub store: Actor,
}

/// A message of the registry. `number` is that of the document to be chosen, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// First phase: vote for nothing below this ballot, and tell what you accepted.
    Prepare {
        /// The document to be chosen.
        number: u64,
        /// The hash of the one before, as the proposer holds it.
        previous: Digest,
        /// The attempt.
        ballot: Ballot,
    },
    /// Yes to `Prepare`.
    Promise {
        /// The document to be chosen.
        number: u64,
        /// The attempt.
        ballot: Ballot,
        /// The voter's store.
        store: Actor,
        /// What the voter accepted, and in which attempt.
        accepted: Option<(Ballot, Box<Document>)>,
    },
    /// Second phase: accept this document.
    Accept {
        /// The attempt.
        ballot: Ballot,
        /// The document; it says its number.
        document: Box<Document>,
    },
    /// Yes to `Accept`.
    Accepted {
        /// The document to be chosen.
        number: u64,
        /// The attempt.
        ballot: Ballot,
        /// The voter's store.
        store: Actor,
    },
    /// No to either: the voter has promised a higher ballot.
    Refused {
        /// The document to be chosen.
        number: u64,
        /// The attempt.
        ballot: Ballot,
        /// What the voter has promised.
        promised: Ballot,
    },
    /// Neither yes nor no to either.
    Abstain {
        /// The document to be chosen.
        number: u64,
        /// The attempt.
        ballot: Ballot,
        /// Why.
        reason: Abstention,
    },
    /// Send me what was chosen after document `number`.
    Fetch {
        /// The latest document that the sender holds.
        number: u64,
    },
    /// The latest chosen document.
    Chosen {
        /// The document.
        document: Box<Document>,
        /// Why it is chosen.
        proof: Proof,
    },
    /// Your predecessor is not mine; here is mine.
    Differs {
        /// The document that the sender holds under the number before.
        document: Box<Document>,
    },
}

/// Why a node does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Abstention {
    /// The document names another store for it: it may have forgotten promises.
    Amnesiac,
    /// The document does not name it.
    NotAMember,
    /// The proposed document breaks a rule or does not follow the one before.
    Malformed,
}

/// Why a document is chosen: so many of the voters accepted it in one ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The ballot.
    pub ballot: Ballot,
    /// The members and stores that the document before named.
    pub voters: BTreeMap<NodeId, Option<Actor>>,
    /// Who accepted, and with which store.
    pub accepts: BTreeMap<NodeId, Actor>,
}

/// A proof that does not prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// The voters are not those of the document before.
    #[error("the proof counts votes of other members than document {0} names")]
    OtherVoters(u64),
    /// A vote that does not count.
    #[error("{node} voted with store {store}, which does not vote on document {number}")]
    Stranger {
        /// Who voted.
        node: NodeId,
        /// The store.
        store: Actor,
        /// The document.
        number: u64,
    },
    /// Too few votes.
    #[error("{accepts} of {voters} members accepted document {number}, {need} must")]
    TooFew {
        /// How many accepted.
        accepts: usize,
        /// How many could.
        voters: usize,
        /// How many must.
        need: usize,
        /// The document.
        number: u64,
    },
}

/// How many of so many voters must accept document `number`: all for document 2, else a majority.
pub fn votes_needed(number: u64, voters: usize) -> usize {
    if number == 2 {
        voters
    } else {
        majority(voters)
    }
}

/// Whether a member's store votes on document `number`: on document 2 any, as document 1 names none.
/// A first member that was wiped while forming votes again then; since all must accept, it cannot outvote
/// what a single other one remembers.
pub fn votes(number: u64, named: Option<Actor>, store: Actor) -> bool {
    number == 2 || named == Some(store)
}

impl Proof {
    /// Checks the proof of document `number`; `before` is document `number` - 1 where it is known.
    pub fn check(&self, number: u64, before: Option<&Document>) -> Result<(), BadProof> {
        if before.is_some_and(|before| before.voters() != self.voters) {
            return Err(BadProof::OtherVoters(number - 1));
        }
        let counts = |node, store| {
            self.voters
                .get(node)
                .is_some_and(|named| votes(number, *named, store))
        };
        if let Some((node, store)) = self
            .accepts
            .iter()
            .find(|(node, store)| !counts(node, **store))
        {
            return Err(BadProof::Stranger {
                node: node.clone(),
                store: *store,
                number,
            });
        }
        let (accepts, voters) = (self.accepts.len(), self.voters.len());
        let need = votes_needed(number, voters);
        if accepts < need {
            return Err(BadProof::TooFew {
                accepts,
                voters,
                need,
                number,
            });
        }
        Ok(())
    }
}

/// A document that cannot be learned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// Two documents with one number.
    #[error("document {number} is {mine} here and {theirs} there: the registry has forked")]
    Fork {
        /// Their number.
        number: u64,
        /// The one held.
        mine: Digest,
        /// The other one.
        theirs: Digest,
    },
    /// It does not descend from what is held.
    #[error("document {0} belongs to another cluster or lineage")]
    OtherLineage(u64),
    /// The proof fails.
    #[error(transparent)]
    Proof(#[from] BadProof),
    /// The document breaks a rule.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
