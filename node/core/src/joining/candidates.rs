//! Who knocks at a member: a short list that forgets whoever has not knocked for a while.
//!
//! Kept in memory by every member that is knocked at. It proves nothing: whoever is named from it was there a moment
//! ago, and the registry has the last word.

use std::collections::BTreeMap;

use super::knock::{Knock, Refusal, Wish};
use crate::id::NodeId;
use crate::registry::Joiner;

/// The most nodes that are remembered: more spares than any cluster keeps, at half a KiB each.
pub const MAX_CANDIDATES: usize = 32;
/// Whoever has not knocked for so long is forgotten: a node knocks at every member it knows every few seconds.
pub const CANDIDATE_MS: u64 = 20_000;

/// A node that knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it says of itself.
    pub joiner: Joiner,
    /// Where its HTTP API is.
    pub url: String,
    /// What it wants.
    pub wish: Wish,
    /// When it knocked last, by the member's steady clock.
    pub heard_ms: u64,
}

/// Who knocks.
#[derive(Clone, Debug, Default)]
pub struct Candidates(BTreeMap<NodeId, Candidate>);

impl Candidates {
    /// Somebody knocks.
    ///
    /// # Errors
    /// [`Refusal`] if another store does so under the same name, or too many do.
    pub fn note(&mut self, knock: &Knock, now_ms: u64) -> Result<(), Refusal> {
        self.expire(now_ms);
        let Knock {
            joiner, url, wish, ..
        } = knock;
        match self.0.get(&joiner.node) {
            Some(other) if other.joiner.store != joiner.store => {
                return Err(Refusal::Knocks(joiner.node.clone()));
            }
            None if self.0.len() >= MAX_CANDIDATES => return Err(Refusal::Full(MAX_CANDIDATES)),
            _ => {}
        }
        let candidate = Candidate {
            joiner: joiner.clone(),
            url: url.clone(),
            wish: *wish,
            heard_ms: now_ms,
        };
        self.0.insert(joiner.node.clone(), candidate);
        Ok(())
    }

    /// It was taken in, or sent away.
    pub fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// Who knocked lately, by name.
    pub fn list(&mut self, now_ms: u64) -> Vec<Candidate> {
        self.expire(now_ms);
        self.0.values().cloned().collect()
    }

    fn expire(&mut self, now_ms: u64) {
        self.0
            .retain(|_, candidate| now_ms.saturating_sub(candidate.heard_ms) < CANDIDATE_MS);
    }
}
