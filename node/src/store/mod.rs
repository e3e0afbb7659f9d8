//! What a replica stands on: bytes by key in spaces, batches that are atomic, and one sync for many.
//!
//! One trait, two stores: [`fjall`] on disk and [`memory`] for the simulator and tests; one contract test
//! holds both. Beside the engine lies the [`watermark`], a small file that remembers what the engine must
//! not forget. [`open`] compares the two and decides whether this is the same store or a new actor.
//! Nothing here knows objects, dots or quorums.
//!
//! Invariant: a read gives the bytes last written under exactly that key, `None` only if the key was
//! never written or deleted, and an error in every other case. `Err` is never "absent".

pub mod batch;
pub mod counters;
pub mod disk;
pub mod engine;
pub mod fjall;
mod journal;
pub mod memory;
pub mod open;
pub mod salvage;
pub mod watermark;

use bytes::Bytes;
use sibyl_core::record;

pub use batch::Batch;
pub use counters::Counters;
pub use open::{Cause, OpenError, Opened, Start, open, renew, restored};
pub use watermark::Watermark;

/// A key space. The number is its prefix on disk: never reuse one, never renumber; 0 is the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Objects by partition, bucket incarnation and key.
    Objects = 1,
    /// What the node itself remembers: chosen registry documents, rebuilding marks.
    Meta = 2,
    /// Leaves of Merkle trees by partition, n and leaf, and what is known about them.
    Leaves = 3,
    /// Hints by the same keys as objects: what is kept for owners that could not take it.
    Hints = 4,
    /// What a restored store held of partitions that were reaped since, under the number of its space and its key:
    /// nobody sees it but an operator.
    Aside = 5,
}

impl Space {
    /// The space of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        let all = [
            Self::Objects,
            Self::Meta,
            Self::Leaves,
            Self::Hints,
            Self::Aside,
        ];
        all.into_iter().find(|space| *space as u8 == number)
    }

    /// The key as the engine sees it: the space's number, then the key.
    pub(crate) fn place(self, key: &[u8]) -> Vec<u8> {
        let mut placed = Vec::with_capacity(1 + key.len());
        placed.push(self as u8);
        placed.extend_from_slice(key);
        placed
    }

    /// The engine's range for `from` (inclusive) until `until` (exclusive; empty: the end of the space).
    pub(crate) fn range(self, from: &[u8], until: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let end = if until.is_empty() {
            vec![self as u8 + 1]
        } else {
            self.place(until)
        };
        (self.place(from), end)
    }
}

/// Among the node's own records of a store that was made of an older state: the reaping epoch in which that was
/// taken, 0 if nobody knows.
pub const IMAGE: &str = "reap/image";

/// The longest key in bytes: 1 KiB of the user's, and room for prefixes.
pub const MAX_KEY_BYTES: usize = 4 * 1024;

/// What one scan brings into memory: it ends with the record that reaches this. With an object of
/// 16 MiB at its end a scan holds 24 MiB, where 256 of them would have been 4 GiB.
pub const SCAN_BYTES: usize = 8 * 1024 * 1024;

/// Why a read gave nothing. It never means that the key is absent.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The record fails its own checksum. Fence the key and fetch it from peers.
    #[error("the record of a {}-byte key in {space:?} is damaged: {why}", key.len())]
    Corrupt {
        /// Where the record lies.
        space: Space,
        /// Its key.
        key: Bytes,
        /// What is wrong with it.
        why: record::Unsealed,
    },
    /// The engine could not read; which keys are affected is not known.
    #[error("the storage engine cannot read")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a batch was not applied, or not made durable.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The batch breaks a limit; nothing was applied, the store goes on.
    #[error(transparent)]
    Refused(#[from] batch::OverLimit),
    /// A write or a sync failed now. What the disk holds is unknown: stop the node.
    #[error("the disk did not take a write")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An earlier write or sync failed. Nothing is written until the process starts anew.
    #[error("an earlier write or sync failed; the node must stop and start again")]
    Poisoned,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes allocated on disk (or held in memory), journals included.
    pub bytes: u64,
    /// Records of all spaces, about: overwritten versions not yet compacted count too.
    pub records: u64,
}

/// Bytes by key, in spaces, with atomic batches. One writer at a time; readers are free.
pub trait Store: Send + Sync + 'static {
    /// The value last applied under this key.
    ///
    /// # Errors
    /// [`ReadError`], if that cannot be said for sure.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Pairs in key order, `from` inclusive, `until` exclusive (empty: the end of the space). The scan ends early
    /// after `limit` pairs, or with the one that reaches [`SCAN_BYTES`]: only **no pair at all** means that there is
    /// nothing left.
    ///
    /// # Errors
    /// A damaged record ends the scan with [`ReadError::Corrupt`], which names its key: what lies before
    /// it can be scanned with `until` set to that key, what lies behind with `from` set to
    /// [`following`] of it. An unreadable block is [`ReadError::Failed`], never the end of the range.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError>;

    /// Applies all of a batch or nothing: visible to reads at once and handed to the operating system,
    /// **not** durable. The batch number grows by one, also for an empty batch.
    ///
    /// # Errors
    /// [`WriteError`]; after [`WriteError::Failed`] the store refuses all further writes.
    fn apply(&self, batch: Batch) -> Result<(), WriteError>;

    /// Puts everything applied before this call on disk; gives the last batch number that now is.
    ///
    /// # Errors
    /// [`WriteError`]; a failed sync is fatal: all further writes are refused.
    fn sync(&self) -> Result<u64, WriteError>;

    /// The number of the last batch applied; 0 before the first.
    fn last_batch(&self) -> u64;

    /// How much is held; walks the folder, so ask seconds apart.
    fn size(&self) -> Size;

    /// What is wrong with the store's own files, once a read or a write met it. Which keys are affected cannot be
    /// said and nothing in the store can mend it: it has to be begun anew and filled from other owners.
    fn damage(&self) -> Option<String> {
        None
    }

    /// A picture of everything as it is between two batches; later ones do not change it. What is overwritten
    /// meanwhile stays on disk until it is dropped, so let it go.
    ///
    /// # Errors
    /// [`ReadError`], if the number of its batch cannot be read.
    fn picture(&self) -> Result<Box<dyn Picture>, ReadError>;

    /// Writes what is in memory out as a table, as if it were full.
    #[cfg(test)]
    fn flush(&self) {}
}

impl std::fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store(batch {})", self.last_batch())
    }
}

/// A store between two batches.
pub trait Picture: Send {
    /// The last batch in it.
    fn batch(&self) -> u64;

    /// As [`Store::scan`].
    ///
    /// # Errors
    /// As [`Store::scan`].
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError>;
}

/// All pairs of a range, for ranges that are small by nature. Ends: every scan begins behind the last pair.
///
/// # Errors
/// As [`Store::scan`].
pub fn scan_all(
    store: &dyn Store,
    space: Space,
    from: &[u8],
    until: &[u8],
) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let (mut all, mut from) = (Vec::new(), from.to_vec());
    loop {
        let pairs = store.scan(space, &from, until, usize::MAX)?;
        let Some((last, _)) = pairs.last() else {
            return Ok(all);
        };
        from = following(last);
        all.extend(pairs);
    }
}

/// Takes pairs until there are `limit`, or one reaches [`SCAN_BYTES`].
fn within_budget(
    pairs: impl Iterator<Item = Result<(Bytes, Bytes), ReadError>>,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for pair in pairs.take(limit) {
        let (key, value) = pair?;
        bytes += key.len() + value.len();
        taken.push((key, value));
        if bytes >= SCAN_BYTES {
            break;
        }
    }
    Ok(taken)
}

/// The smallest key after this one: where a scan goes on behind a damaged record.
#[must_use]
pub fn following(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// Makes everything applied so far durable: the engine first, then its watermark. Run completions only
/// after this. The order matters: a watermark ahead of its engine would mean amnesia.
///
/// # Errors
/// [`WriteError`]; it is fatal.
pub fn commit(store: &dyn Store, watermark: &Watermark) -> Result<u64, WriteError> {
    let batch = store.sync()?;
    watermark.synced(batch)?;
    Ok(batch)
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod damage_tests;
