//! Listing keys: a coverage read.
//!
//! Every reachable node streams its part of the bucket in key order. A partition is covered when R of its
//! owners have answered; an uncovered one is an error, never a short list. A page ends where the first node
//! that has more to say ends, so nothing is skipped. A key that its owners disagree on (one sees a live
//! value, another a tombstone) is left to a read of that key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{NodeId, Partition};

#[cfg(test)]
mod tests;

/// One key as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Whether this node's copy has a live sibling.
    pub live: bool,
}

/// What one node answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Its keys, in byte order.
    pub entries: Vec<Entry>,
    /// Whether it holds keys beyond the last entry.
    pub more: bool,
}

/// What the pages say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Keys in byte order, with whether their owners agree that they live. Those that all agree are dead
    /// are left out.
    pub keys: Vec<(Bytes, Agreement)>,
    /// Where the next page begins, exclusive; `None` at the end.
    pub next: Option<Bytes>,
}

/// Whether those who answered agree on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All who hold it say it lives, and all its owners who answered hold it.
    Lives,
    /// They differ: read the key.
    Differs,
}

/// A partition with too few answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition:?} is covered by {answered} of the {need} owners it needs")]
pub struct Uncovered {
    /// The first such partition.
    pub partition: Partition,
    /// How many of its owners answered.
    pub answered: usize,
    /// How many must.
    pub need: usize,
}

/// Merges the nodes' pages into one of at most `limit` keys. `owners` are the owners of each partition in
/// order of partitions, `need` how many of them must have answered, `partition_of` places a key.
///
/// # Errors
/// [`Uncovered`] names the first partition with too few answers.
pub fn merge(
    pages: &BTreeMap<NodeId, Page>,
    owners: &[Vec<NodeId>],
    need: usize,
    limit: usize,
    partition_of: impl Fn(&[u8]) -> Partition,
) -> Result<Listing, Uncovered> {
    for (at, owners) in owners.iter().enumerate() {
        let answered = owners
            .iter()
            .filter(|owner| pages.contains_key(owner))
            .count();
        if answered < need {
            let partition = Partition(u32::try_from(at).unwrap_or(u32::MAX));
            return Err(Uncovered {
                partition,
                answered,
                need,
            });
        }
    }
    let horizon = pages.values().filter(|page| page.more);
    let horizon = horizon
        .filter_map(|page| page.entries.last())
        .map(|entry| entry.key.clone())
        .min();
    let mut seen: BTreeMap<Bytes, BTreeMap<&NodeId, bool>> = BTreeMap::new();
    for (node, page) in pages {
        let within = |entry: &&Entry| horizon.as_ref().is_none_or(|end| entry.key <= *end);
        for entry in page.entries.iter().filter(within) {
            seen.entry(entry.key.clone())
                .or_default()
                .insert(node, entry.live);
        }
    }
    let mut listing = Listing {
        keys: Vec::new(),
        next: horizon,
    };
    for (key, says) in seen {
        let owners = owners
            .get(partition_of(&key).0 as usize)
            .map_or(&[][..], Vec::as_slice);
        if let Some(agreement) = agreement(&says, owners, pages) {
            if listing.keys.len() == limit {
                listing.next = listing.keys.last().map(|(key, _)| key.clone());
                break;
            }
            listing.keys.push((key, agreement));
        }
    }
    Ok(listing)
}

fn agreement(
    says: &BTreeMap<&NodeId, bool>,
    owners: &[NodeId],
    pages: &BTreeMap<NodeId, Page>,
) -> Option<Agreement> {
    let voices: BTreeSet<bool> = owners
        .iter()
        .filter(|owner| pages.contains_key(owner))
        .map(|owner| says.get(owner).copied().unwrap_or(false))
        .chain(says.values().copied())
        .collect();
    match (voices.contains(&true), voices.contains(&false)) {
        (true, false) => Some(Agreement::Lives),
        (true, true) => Some(Agreement::Differs),
        (false, _) => None,
    }
}
