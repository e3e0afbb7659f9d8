//! What one owner has sealed: keys whose synced copy is exactly an object of tombstones.
//!
//! A seal names the digest of the object and the epoch it was sealed in. Any change breaks it. Seals lie in memory
//! alone: after a restart there are none. Which object may be sealed is decided here, too: nothing but tombstones,
//! and no receipt of a write that its client may still repeat.

use std::collections::BTreeMap;

use crate::id::Digest;
use crate::object::Object;

/// How long a client may repeat a write with its `Idempotency-Key`, at least: 24 hours. A deleted object keeps its
/// receipts, and with them its tombstones, until the youngest is so old.
pub const RETRY_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// Whether an object holds nothing but tombstones, and nobody needs its receipts any more. A receipt whose time
/// lies ahead (a clock went wrong) is kept.
pub fn may_be_sealed(object: &Object, now_ms: u64, window_ms: u64) -> bool {
    let deleted = !object.siblings().is_empty() && object.live().next().is_none();
    let old = |at: u64| at.saturating_add(window_ms) <= now_ms;
    deleted && object.receipts().iter().all(|receipt| old(receipt.at))
}

/// Sealed copies by key.
#[derive(Clone, Debug)]
pub struct Seals<K> {
    sealed: BTreeMap<K, (Digest, u64)>,
    most: usize,
}

impl<K: Ord + Clone> Seals<K> {
    /// None yet, and at most so many.
    pub fn new(most: usize) -> Self {
        let sealed = BTreeMap::new();
        Self { sealed, most }
    }

    /// Seals a copy in an epoch. A seal that holds keeps its older epoch. Answers whether there was room.
    pub fn seal(&mut self, key: K, digest: Digest, epoch: u64) -> bool {
        match self.sealed.get(&key) {
            Some((held, _)) if *held == digest => true,
            None if self.sealed.len() >= self.most => false,
            _ => {
                self.sealed.insert(key, (digest, epoch));
                true
            }
        }
    }

    /// The copy changes, or goes.
    pub fn break_one<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.sealed.remove(key);
    }

    /// Owners changed: nothing that was agreed on before holds.
    pub fn break_all(&mut self) {
        self.sealed.clear();
    }

    /// The epoch in which exactly this object was sealed, if it was and nothing changed since.
    pub fn sealed_in<Q: Ord + ?Sized>(&self, key: &Q, digest: Digest) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (held, epoch) = self.sealed.get(key)?;
        (*held == digest).then_some(*epoch)
    }

    /// Seals of this epoch or earlier ones, in the order of keys, behind one of them.
    pub fn until(&self, epoch: u64, after: Option<&K>) -> impl Iterator<Item = (&K, Digest)> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.sealed.range::<K, _>((from, Bound::Unbounded));
        let old = behind.filter(move |(_, (_, sealed))| *sealed <= epoch);
        old.map(|(key, (digest, _))| (key, *digest))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }
}
