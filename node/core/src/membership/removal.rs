//! When a member that stays away is given up without an operator.
//!
//! A suspicion is an opinion; that a member is gone for good is a registry document, and this decides when one is
//! worth proposing: after this node saw the member away, without a break, for `down_after`. Only the first member
//! that is alive proposes, so that not all do at once; if two take themselves for the first, the registry chooses
//! once. A minority proposes in vain. At most one removal goes through in [`REMOVAL_EVERY_MS`], counted by what this
//! process saw: half a cluster that loses its network shall not be thrown out one after the other.

use std::collections::BTreeMap;

use super::view::{State, View};
use crate::id::{Actor, NodeId};

/// The least time between two removals: new owners fill up meanwhile, and an operator wakes up.
pub const REMOVAL_EVERY_MS: u64 = 10 * 60 * 1000;
/// Looks that are further apart than this do not add up: this node slept, and what it sees now may be old.
pub const MAX_GAP_MS: u64 = 30_000;

/// What this node sees at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// By its steady clock.
    pub now_ms: u64,
    /// This node.
    pub me: &'a NodeId,
    /// Its opinion of everyone.
    pub view: &'a View,
    /// The members by the registry, with their stores.
    pub members: &'a BTreeMap<NodeId, Actor>,
    /// How many members were removed, ever.
    pub removed: usize,
    /// Whether owners are changing.
    pub owners_change: bool,
    /// The most copies that a bucket has.
    pub copies: usize,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has been away for so long, or another member sees to it.
    Nothing,
    /// Propose to remove it.
    Remove {
        /// Whom.
        node: NodeId,
        /// Only if this is its store.
        store: Actor,
    },
    /// Somebody should go and cannot: an operator has to look.
    Held {
        /// Who.
        node: NodeId,
        /// Why it cannot, in words.
        why: String,
    },
}

/// How long members have been away, and when one was removed last.
#[derive(Clone, Debug)]
pub struct Removal {
    /// 0: only an operator removes.
    down_after_ms: u64,
    /// Since when a member, with this store, has been seen away at every look.
    away: BTreeMap<NodeId, (Actor, u64)>,
    looked_ms: Option<u64>,
    removed: Option<usize>,
    last_removal_ms: Option<u64>,
}

impl Removal {
    /// Nothing was seen yet.
    pub fn new(down_after_ms: u64) -> Self {
        Self {
            down_after_ms,
            away: BTreeMap::new(),
            looked_ms: None,
            removed: None,
            last_removal_ms: None,
        }
    }

    /// Looks again.
    pub fn look(&mut self, seen: &Seen<'_>) -> Verdict {
        self.count(seen);
        if self.down_after_ms == 0 || !is_first_alive(seen) {
            return Verdict::Nothing;
        }
        let over = self.away.iter().filter(|(_, (_, since_ms))| {
            seen.now_ms.saturating_sub(*since_ms) >= self.down_after_ms
        });
        let longest = over.min_by_key(|(node, (_, since_ms))| (*since_ms, *node));
        let Some((node, (store, _))) = longest else {
            return Verdict::Nothing;
        };
        match self.hindrance(seen) {
            None => Verdict::Remove {
                node: node.clone(),
                store: *store,
            },
            Some(why) => Verdict::Held {
                node: node.clone(),
                why,
            },
        }
    }

    fn count(&mut self, seen: &Seen<'_>) {
        let now_ms = seen.now_ms;
        let slept = self
            .looked_ms
            .is_some_and(|looked_ms| now_ms.saturating_sub(looked_ms) > MAX_GAP_MS);
        self.looked_ms = Some(now_ms);
        if slept {
            self.away.clear();
        }
        if self.removed.is_some_and(|removed| seen.removed > removed) {
            self.last_removal_ms = Some(now_ms);
        }
        self.removed = Some(seen.removed);
        let is_away = |node: &NodeId| {
            let member = seen.view.members.get(node);
            node != seen.me && member.is_some_and(|member| member.state == State::Suspect)
        };
        let away = seen.members.iter().filter(|(node, _)| is_away(node));
        let since = |(node, store): (&NodeId, &Actor)| {
            let known = self.away.get(node).filter(|(known, _)| known == store);
            let since_ms = known.map_or(now_ms, |(_, since_ms)| *since_ms);
            (node.clone(), (*store, since_ms))
        };
        self.away = away.map(since).collect();
    }

    fn hindrance(&self, seen: &Seen<'_>) -> Option<String> {
        let left = seen.members.len().saturating_sub(1);
        let lately = self
            .last_removal_ms
            .map(|last_ms| seen.now_ms.saturating_sub(last_ms))
            .filter(|since_ms| *since_ms < REMOVAL_EVERY_MS);
        if left < seen.copies {
            Some(format!(
                "{left} members would be left for {} copies: add a node, or replace it",
                seen.copies
            ))
        } else if seen.owners_change {
            Some("owners are changing".to_owned())
        } else {
            lately.map(|since_ms| {
                let wait_s = (REMOVAL_EVERY_MS - since_ms).div_ceil(1000);
                format!("another one was removed lately: it is its turn in {wait_s} s")
            })
        }
    }
}

/// Whether this node is the first member, by name, that is alive.
fn is_first_alive(seen: &Seen<'_>) -> bool {
    let is_alive = |node: &&NodeId| {
        let member = seen.view.members.get(*node);
        *node == seen.me || member.is_some_and(|member| member.state == State::Alive)
    };
    seen.members.keys().find(is_alive) == Some(seen.me)
}

#[cfg(test)]
mod tests;
