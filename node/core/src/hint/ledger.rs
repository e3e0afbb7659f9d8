//! How many hints are kept, of how many bytes, for whom and since when; and whether one more may be.
//!
//! Changed beside every batch, read at any time, filled by a scan at start. It costs the same for a million
//! hints as for one: of ages only how many hints began in each second is kept. Over the quota new hints are
//! refused and counted; what is kept is never dropped for it.

use std::collections::BTreeMap;

use super::Head;
use crate::id::NodeId;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    quota_bytes: u64,
    records: u64,
    bytes: u64,
    targets: BTreeMap<NodeId, Kept>,
}

/// What is kept for one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many hints.
    pub count: u64,
    /// How many bytes their records have.
    pub bytes: u64,
    /// How many were refused since the start.
    pub refused: u64,
    /// How many began in each second.
    since: BTreeMap<u64, u64>,
}

impl Kept {
    /// When the oldest came, milliseconds since the Unix epoch, to the second.
    pub fn oldest_ms(&self) -> Option<u64> {
        let (second, _) = self.since.first_key_value()?;
        Some(second.saturating_mul(1000))
    }
}

impl Ledger {
    /// Nothing kept; at most so many bytes of new hints will be.
    pub fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            ..Self::default()
        }
    }

    /// From now on at most so many bytes.
    pub fn set_quota(&mut self, quota_bytes: u64) {
        self.quota_bytes = quota_bytes;
    }

    /// Whether a new hint of so many bytes fits beside what is kept.
    pub fn admits(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.quota_bytes
    }

    /// A hint for these was refused.
    pub fn refuse<'a>(&mut self, targets: impl IntoIterator<Item = &'a NodeId>) {
        for target in targets {
            self.targets.entry(target.clone()).or_default().refused += 1;
        }
    }

    /// A record of so many bytes is there now.
    pub fn add(&mut self, head: &Head, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
        for (target, since_ms) in &head.targets {
            let kept = self.targets.entry(target.clone()).or_default();
            kept.count += 1;
            kept.bytes += bytes;
            *kept.since.entry(since_ms / 1000).or_default() += 1;
        }
    }

    /// It is gone, or about to be written anew.
    pub fn remove(&mut self, head: &Head, bytes: u64) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        for (target, since_ms) in &head.targets {
            let Some(kept) = self.targets.get_mut(target) else {
                continue;
            };
            kept.count = kept.count.saturating_sub(1);
            kept.bytes = kept.bytes.saturating_sub(bytes);
            let second = since_ms / 1000;
            let left = kept.since.get(&second).map_or(0, |hints| hints - 1);
            match left {
                0 => kept.since.remove(&second),
                left => kept.since.insert(second, left),
            };
        }
    }

    /// Every target that something is kept for, or was refused for, by name.
    pub fn targets(&self) -> impl Iterator<Item = (&NodeId, &Kept)> {
        self.targets.iter()
    }

    /// How many hints are kept for this node.
    pub fn count(&self, target: &NodeId) -> u64 {
        self.targets.get(target).map_or(0, |kept| kept.count)
    }

    /// How many records there are, whomever they are for.
    pub fn records(&self) -> u64 {
        self.records
    }
}
