//! Erases what deleted buckets left in the store, and partitions that are not this node's any more.
//!
//! A damaged record stops nothing: the key of such a record says whose it was, and it goes with its bucket. What
//! the engine cannot read at all is left for another time, and the rest is swept.

use std::collections::BTreeSet;

use bytes::Bytes;
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::message::Failure;

use super::{Command, RECORD_HEAD, Replica, record, unreadable};
use crate::store::{ReadError, Space};

/// How many records are erased at a time.
const ERASE: usize = 512;

/// What became of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records erased, damaged ones included.
    pub erased: usize,
    /// Damaged records among them.
    pub damaged: usize,
    /// Partitions that could not be read to their end, and why the last of them could not.
    pub unread: usize,
    /// Why, for the last of them.
    pub why: Option<Failure>,
}

impl Replica {
    /// Erases the records of buckets that are gone: every incarnation that is not `known` and not newer
    /// than the registry document that says so. Blocks.
    ///
    /// # Errors
    /// If the store cannot be written: then it never will be.
    pub fn sweep(
        &self,
        partitions: u32,
        known: &BTreeSet<Incarnation>,
        number: u64,
    ) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        for partition in (0..partitions).map(Partition) {
            match self.sweep_one(partition, known, number, &mut swept) {
                Err(failure @ (Failure::Unreadable(_) | Failure::Fenced(_))) => {
                    swept.unread += 1;
                    swept.why = Some(failure);
                }
                done => done?,
            }
        }
        Ok(swept)
    }

    /// Ends because every turn begins behind the bucket of the one before.
    fn sweep_one(
        &self,
        partition: Partition,
        known: &BTreeSet<Incarnation>,
        number: u64,
        swept: &mut Swept,
    ) -> Result<(), Failure> {
        let mut from = record(partition, Incarnation(0), b"");
        let end = record(Partition(partition.0 + 1), Incarnation(0), b"");
        while let Some(bucket) = self.first_bucket(&from, &end)? {
            if !known.contains(&bucket) && bucket.0 <= number {
                let end = record(partition, Incarnation(bucket.0 + 1), b"");
                self.erase(&record(partition, bucket, b""), &end, None, swept)?;
            }
            from = record(partition, Incarnation(bucket.0 + 1), b"");
        }
        Ok(())
    }

    fn first_bucket(&self, from: &[u8], end: &[u8]) -> Result<Option<Incarnation>, Failure> {
        let key = match self.store.scan(Space::Objects, from, end, 1) {
            Ok(found) => found.into_iter().next().map(|(key, _)| key),
            Err(ReadError::Corrupt { key, .. }) => Some(key),
            Err(error) => return Err(unreadable(&error)),
        };
        let bucket = |key: Bytes| {
            let number = key.get(4..RECORD_HEAD)?.try_into().ok()?;
            Some(Incarnation(u64::from_be_bytes(number)))
        };
        Ok(key.and_then(bucket))
    }

    /// Ends because every turn erases at least one record.
    fn erase(
        &self,
        start: &[u8],
        end: &[u8],
        number: Option<u64>,
        swept: &mut Swept,
    ) -> Result<(), Failure> {
        loop {
            let records: Vec<Bytes> = match self.store.scan(Space::Objects, start, end, ERASE) {
                Ok(found) => found.into_iter().map(|(key, _)| key).collect(),
                Err(ReadError::Corrupt { key, .. }) => {
                    swept.damaged += 1;
                    vec![key]
                }
                Err(error) => return Err(unreadable(&error)),
            };
            if records.is_empty() {
                return Ok(());
            }
            swept.erased += records.len();
            self.in_turn(|counts| Command::Erase {
                records,
                number,
                counts,
            })?;
        }
    }

    /// Whether anything lies in a partition.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn has_any(&self, partition: Partition) -> Result<bool, Failure> {
        let from = record(partition, Incarnation(0), b"");
        let end = record(Partition(partition.0 + 1), Incarnation(0), b"");
        Ok(self.first_bucket(&from, &end)?.is_some())
    }

    /// Forgets a partition that is not this node's any more by registry document `number`. Blocks.
    ///
    /// # Errors
    /// [`Failure::Stale`] if owners changed since: then it may be this node's again, and what is left of it stays.
    pub fn forget(&self, partition: Partition, number: u64) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        let end = record(Partition(partition.0 + 1), Incarnation(0), b"");
        let start = record(partition, Incarnation(0), b"");
        self.erase(&start, &end, Some(number), &mut swept)?;
        Ok(swept)
    }
}
