//! How many keys hold nothing but tombstones, kept by the writer beside the keys themselves.
//!
//! The count is part of the batch that changes it, so after a crash it is that of the copies that are there. A
//! store without one is counted once, when it is opened. What a damaged record held is not known: it counts as
//! living, and its erasure changes nothing.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::object::Object;

use crate::store::{Batch, ReadError, Space, Store, following};

/// Where the count lies among the node's own records.
const RECORD: &[u8] = b"census/tombstones";
/// How many records are read at a time when a store is counted: of 1 KiB, some 4 MiB.
const CHUNK: usize = 4096;

/// The count, as the batch in the making leaves it.
pub(super) struct Census {
    tombstones: u64,
    /// What the store says.
    kept: Option<u64>,
}

impl Census {
    /// What the store remembers; a store that remembers nothing is counted.
    pub(super) fn open(store: &dyn Store) -> Self {
        let record = store.get(Space::Meta, RECORD).ok().flatten();
        let number = |bytes: Bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?));
        let kept = record.and_then(number);
        Self {
            tombstones: kept.unwrap_or_else(|| count(store)),
            kept,
        }
    }

    /// Keys with nothing but tombstones.
    pub(super) fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// A key held nothing but tombstones, or does now.
    pub(super) fn change(&mut self, before: bool, now: bool) {
        match (before, now) {
            (false, true) => self.tombstones += 1,
            (true, false) => self.tombstones = self.tombstones.saturating_sub(1),
            _ => {}
        }
    }

    /// Puts the count into a batch if it is another than the store has.
    pub(super) fn put(&mut self, batch: &mut Batch) {
        if self.kept != Some(self.tombstones) {
            let bytes = self.tombstones.to_le_bytes().to_vec();
            batch.put(Space::Meta, RECORD, bytes);
            self.kept = Some(self.tombstones);
        }
    }
}

/// Whether a key holds nothing but tombstones.
pub(super) fn is_deleted(object: &Object) -> bool {
    !object.siblings().is_empty() && object.live().next().is_none()
}

/// The same of a record as it lies in the store.
pub(super) fn is_deleted_record(record: &[u8]) -> bool {
    codec::decode(&Bytes::copy_from_slice(record)).is_ok_and(|object| is_deleted(&object))
}

/// Goes past damaged records; an engine that cannot read ends it, and says so elsewhere.
fn count(store: &dyn Store) -> u64 {
    let (mut from, mut until) = (Vec::new(), Vec::new());
    let mut found = 0;
    loop {
        match store.scan(Space::Objects, &from, &until, CHUNK) {
            Ok(records) => {
                found += records
                    .iter()
                    .filter(|(_, bytes)| is_deleted_record(bytes))
                    .count() as u64;
                match (records.last(), until.is_empty()) {
                    (Some((key, _)), _) => from = following(key),
                    (None, false) => (from, until) = (following(&until), Vec::new()),
                    (None, true) => return found,
                }
            }
            Err(ReadError::Corrupt { key, .. }) => until = key.to_vec(),
            Err(ReadError::Failed(error)) => {
                tracing::warn!(%error, "the store's tombstones cannot all be counted");
                return found;
            }
        }
    }
}
