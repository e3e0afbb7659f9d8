//! A majority that is lost for good: how one member that is left begins a new lineage, alone.
//!
//! Nobody can choose a successor any more, so what follows is no choice but the operator's word: a document that
//! names this member and no other, under another lineage and a number that the old one never reaches. Everything
//! else stays: buckets, resolver versions, context keys. The other members' stores are given up, so whoever of them
//! comes back is fenced as after a removal, and gives what it holds. The document is a pure function of the one
//! before and of who recovers: done twice it is the same, and two members that recover apart make two lineages, which
//! refuse each other. `node/docs/decisions/0015` tells it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::document::{Beginning, Document, Lineage, Member};
use super::message::votes_needed;
use super::owners::{Farewell, Former};
use super::rules::Malformed;
use crate::id::{Actor, Digest, NodeId, Partition};

/// The most earlier lineages that are remembered, 32 bytes each: a node of an older one must be led by hand.
pub const MAX_PAST: usize = 64;
/// By how many bits of its number a lineage is behind the next one: what the lost majority chose stays below.
const ERA_BITS: u32 = 32;
/// Under what name the hash of a new lineage is made.
const NAME: &[u8] = b"sibyl recovery";

/// How a lineage began that was recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Its name; every handshake compares it.
    pub lineage: Digest,
    /// Its first document.
    pub number: u64,
    /// The last one of the lineage before that it knows of.
    pub before: u64,
    /// The store that recovered: it is the one whose memory goes back beyond that document.
    pub by: Actor,
    /// The reaping epoch that store was in.
    pub epoch: u64,
    /// The lineages before it, the oldest first.
    pub past: Vec<Digest>,
    /// Where the members that it gave up were reached: one of them may have recovered, too.
    pub others: BTreeMap<NodeId, String>,
}

/// Why a member may not recover.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// There is nothing to recover.
    #[error("the cluster is still forming: there is nothing to recover")]
    Forming,
    /// It has no say in this cluster.
    #[error("{0} is not a member of this cluster")]
    NoMember(NodeId),
    /// A majority can be reached, and decides.
    #[error(
        "{} of {members} members answer, {}: that is a majority, so nothing is lost for good; remove or replace who is gone (sibyl cluster remove)",
        present.len(),
        list(present)
    )]
    Majority {
        /// Who answers, with the store that votes.
        present: Vec<NodeId>,
        /// How many members there are.
        members: usize,
    },
    /// The document would break a bound.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A member that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Its name.
    pub node: NodeId,
    /// The store that never speaks again.
    pub store: Option<Actor>,
}

impl Document {
    /// Says whether so few voters are `present` (this node among them, if its store votes) that nobody can choose.
    ///
    /// # Errors
    /// [`RecoverError`] if a majority can, or there is nothing to recover.
    pub fn check_lost(&self, me: &NodeId, present: &BTreeSet<NodeId>) -> Result<(), RecoverError> {
        let members = &self.layout.members;
        if self.number < 2 {
            return Err(RecoverError::Forming);
        }
        if !members.contains_key(me) {
            return Err(RecoverError::NoMember(me.clone()));
        }
        let present = present.iter().filter(|node| members.contains_key(node));
        let present: Vec<NodeId> = present.cloned().collect();
        match present.len() >= votes_needed(self.number + 1, members.len()) {
            true => Err(RecoverError::Majority {
                present,
                members: members.len(),
            }),
            false => Ok(()),
        }
    }

    /// The first document of the lineage that this member begins with its present store.
    ///
    /// # Errors
    /// [`RecoverError`] if it cannot be.
    pub fn recovered(&self, me: &NodeId, store: Actor, epoch: u64) -> Result<Self, RecoverError> {
        let before = self.lineage().ok_or(RecoverError::Forming)?;
        let members = &self.layout.members;
        let own = members.get(me);
        let own = own.filter(|_| !self.layout.former.contains_key(&store));
        let own = own.ok_or_else(|| RecoverError::NoMember(me.clone()))?;
        let previous = self.digest();
        let lineage = name(before, previous, store);
        let number = first_number(self.number, lineage);
        let mut past = match &self.lineage.second {
            Beginning::Recovered(recovery) => recovery.past.clone(),
            Beginning::Forming | Beginning::Formed(_) => Vec::new(),
        };
        past.push(before);
        past.drain(..past.len().saturating_sub(MAX_PAST));
        let recovery = Recovery {
            lineage,
            number,
            before: self.number,
            by: store,
            epoch,
            past,
            others: members
                .iter()
                .filter(|(node, _)| *node != me)
                .map(|(node, member)| (node.clone(), member.peer_addr.clone()))
                .collect(),
        };
        let mut next = self.clone();
        next.number = number;
        next.previous = Some(previous);
        next.lineage = Lineage {
            first: Some(self.first()),
            second: Beginning::Recovered(Box::new(recovery)),
        };
        let alone = Member {
            store: Some(store),
            incarnation: own.incarnation + u64::from(own.store != Some(store)),
            leaving: false,
            ..own.clone()
        };
        let lost = members.iter().filter_map(|(node, member)| {
            let former = Former {
                node: node.clone(),
                incarnation: member.incarnation,
                why: Farewell::Lost,
                number,
            };
            Some((member.store.filter(|lost| *lost != store)?, former))
        });
        next.layout.former.extend(lost);
        next.layout.members = BTreeMap::from([(me.clone(), alone)]);
        next.layout.since = number;
        next.layout.change = None;
        next.check()?;
        Ok(next)
    }

    /// How this lineage began, if it was recovered.
    pub fn recovery(&self) -> Option<&Recovery> {
        match &self.lineage.second {
            Beginning::Recovered(recovery) => Some(recovery),
            Beginning::Forming | Beginning::Formed(_) => None,
        }
    }

    /// Whether the lost majority may have given this number to a bucket, which this lineage never heard of then.
    pub fn is_unheard(&self, number: u64) -> bool {
        let recovery = self.recovery();
        recovery.is_some_and(|recovery| recovery.before < number && number < recovery.number)
    }

    /// Whether a lineage was given up for this one, by this recovery or an earlier one.
    pub fn follows_from(&self, lineage: Digest) -> bool {
        let recovery = self.recovery();
        recovery.is_some_and(|recovery| recovery.past.contains(&lineage))
    }

    /// Whom a recovery by this member gives up: everybody else.
    pub fn given_up(&self, me: &NodeId) -> Vec<GivenUp> {
        let others = self.layout.members.iter().filter(|(node, _)| *node != me);
        let given_up = |(node, member): (&NodeId, &Member)| GivenUp {
            node: node.clone(),
            store: member.store,
        };
        others.map(given_up).collect()
    }

    /// The partitions of which this member holds no copy, or not of all buckets: what lies there is lost with the
    /// others, unless one of them comes back.
    pub fn not_held_by(&self, me: &NodeId) -> Vec<Partition> {
        let (owners, ns) = (self.owners(), self.ns());
        let change = self.layout.change.as_ref();
        let missing = change.and_then(|change| change.missing.get(me));
        let holds = |at: Partition| {
            let fetched = missing.is_none_or(|missing| !missing.contains(at));
            fetched && ns.iter().all(|n| owners.holds(me, at, *n))
        };
        let all = (0..self.layout.partitions).map(Partition);
        all.filter(|at| !holds(*at)).collect()
    }
}

/// The name of a lineage: nobody else makes the same one, and who does it twice makes no other.
fn name(before: Digest, previous: Digest, by: Actor) -> Digest {
    let parts = [NAME, &before.0, &previous.0, &by.0.to_be_bytes()];
    Digest::of(&parts.concat())
}

/// Numbers name buckets' incarnations, too, so no two lineages may share one: each begins in an era of its own, and
/// within it where its name says, or two that began with the same document would.
fn first_number(before: u64, lineage: Digest) -> u64 {
    let era = (before >> ERA_BITS) + 1;
    let [a, b, c, d, ..] = lineage.0;
    let place = u32::from_be_bytes([a, b, c, d]) >> 1;
    (era << ERA_BITS) + u64::from(place)
}

fn list(nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
    names.join(", ")
}
