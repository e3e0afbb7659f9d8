//! Changes that are applied together or not at all.
//!
//! A batch holds at most one change per key: a later one replaces an earlier one, because an engine gives
//! all changes of a batch one sequence number and could not tell them apart.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{MAX_KEY_BYTES, Space};

/// Changes that are applied together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: BTreeMap<Vec<u8>, Option<Bytes>>,
    bytes: usize,
}

/// A batch that no store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    /// Too many keys.
    #[error("a batch takes {max} changes, not {0}", max = Batch::MAX_CHANGES)]
    Changes(usize),
    /// Too many bytes.
    #[error("a batch takes {max} bytes, not {0}", max = Batch::MAX_BYTES)]
    Bytes(usize),
    /// A key is too long.
    #[error("a key takes {MAX_KEY_BYTES} bytes, not {0}")]
    Key(usize),
}

impl Batch {
    /// The most changes: a commit of 64 writes with their bookkeeping has a few hundred.
    pub const MAX_CHANGES: usize = 65_536;
    /// The most bytes of keys and values: a few of the largest objects (16 MiB, and joins may exceed it).
    pub const MAX_BYTES: usize = 256 * 1024 * 1024;
    /// Past this a writer stops collecting: 8 MiB is about 10 ms of a disk.
    pub const FULL_BYTES: usize = 8 * 1024 * 1024;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value under a key.
    pub fn put(&mut self, space: Space, key: &[u8], value: impl Into<Bytes>) {
        self.change(space, key, Some(value.into()));
    }

    /// Forgets a key.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.change(space, key, None);
    }

    fn change(&mut self, space: Space, key: &[u8], value: Option<Bytes>) {
        let placed = space.place(key);
        let weight = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += placed.len() + weight(&value);
        let length = placed.len();
        if let Some(replaced) = self.changes.insert(placed, value) {
            self.bytes -= length + weight(&replaced);
        }
    }

    /// How many keys change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a writer should stop collecting and apply.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= Self::FULL_BYTES || self.changes.len() >= Self::MAX_CHANGES / 2
    }

    /// Whether a store takes it.
    ///
    /// # Errors
    /// [`OverLimit`] names the limit.
    pub fn check(&self) -> Result<(), OverLimit> {
        if self.changes.len() > Self::MAX_CHANGES {
            return Err(OverLimit::Changes(self.changes.len()));
        }
        if self.bytes > Self::MAX_BYTES {
            return Err(OverLimit::Bytes(self.bytes));
        }
        let longest = self.changes.keys().map(|key| key.len() - 1).max();
        match longest {
            Some(length) if length > MAX_KEY_BYTES => Err(OverLimit::Key(length)),
            _ => Ok(()),
        }
    }

    /// The changes in key order: placed key, and the value or its deletion.
    pub(crate) fn into_changes(self) -> BTreeMap<Vec<u8>, Option<Bytes>> {
        self.changes
    }
}
