//! The store in memory: the twin of `fjall.rs` for the simulator and tests, with the faults of real disks.
//!
//! It keeps the last batches one by one, so that a crash can drop any subset of the unsynced ones and a
//! lying disk can lose synced ones; older synced batches are folded into a base. It is deterministic and
//! touches no file. Its watermark is one number that survives what the batches do not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sibyl_core::record::Unsealed;

use super::{Batch, Picture, ReadError, SCAN_BYTES, Size, Space, Store, WriteError, within_budget};

/// Synced batches kept apart, so that [`Memory::truncate_synced`] can lose them.
const HISTORY_BATCHES: usize = 1024;

type Records = BTreeMap<Vec<u8>, Bytes>;

/// The store in memory.
#[derive(Debug, Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Everything before `log`; synced.
    base: Records,
    base_batch: u64,
    /// The last batches in order, with their numbers.
    log: VecDeque<(u64, Batch)>,
    /// What reads see: base and log.
    visible: Records,
    last_batch: u64,
    /// The watermark: survives crashes and lost batches.
    synced: u64,
    poisoned: bool,
    faults: Faults,
}

/// Switches for what disks do. All off by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The next sync fails, and with it the store.
    pub fail_next_sync: bool,
    /// Reads that touch keys of this range fail.
    pub unreadable: Option<(Space, Range<Vec<u8>>)>,
    /// Records that fail their checksum, as the engine places them; until they are taken out again.
    pub damaged: BTreeSet<Vec<u8>>,
    /// [`Memory::reopen`] is refused.
    pub refuse_to_open: bool,
}

impl Faults {
    /// The record under this key fails its checksum from now on, or does not any more.
    pub fn damage(&mut self, space: Space, key: &[u8], damaged: bool) {
        if damaged {
            self.damaged.insert(space.place(key));
        } else {
            self.damaged.remove(&space.place(key));
        }
    }
}

/// Why a store in memory does not reopen: each of them is amnesia.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgotten {
    /// The engine refuses.
    #[error("the engine refuses to open")]
    Refused,
    /// Synced batches are missing.
    #[error("batch {synced} was synced, the engine has only {recovered}")]
    Behind {
        /// What the watermark says.
        synced: u64,
        /// What the engine says.
        recovered: u64,
    },
}

/// The error behind an injected fault.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("injected fault")]
pub struct Injected;

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the fault switches.
    pub fn fault(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.inner().faults);
    }

    /// The process dies: of the unsynced batches (0: the oldest) those stay that `keep` says.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> bool) {
        let mut inner = self.inner();
        let synced = inner.synced;
        let mut index = 0;
        inner.log.retain(|(number, _)| {
            *number <= synced || {
                index += 1;
                keep(index - 1)
            }
        });
        inner.rebuild();
    }

    /// A lying disk: batches after `last` are gone, synced or not; at most the last
    /// `HISTORY_BATCHES` can be lost.
    pub fn truncate_synced(&self, last: u64) {
        let mut inner = self.inner();
        inner.log.retain(|(number, _)| *number <= last);
        inner.rebuild();
    }

    /// A new, empty disk; the watermark is gone too.
    pub fn wipe(&self) {
        *self.inner() = Inner::default();
    }

    /// Starts again after a crash, comparing the engine with its watermark.
    ///
    /// # Errors
    /// [`Forgotten`]: begin a new store under a new actor.
    pub fn reopen(&self) -> Result<(), Forgotten> {
        let mut inner = self.inner();
        if inner.faults.refuse_to_open {
            return Err(Forgotten::Refused);
        }
        let (synced, recovered) = (inner.synced, inner.last_batch);
        if recovered < synced {
            return Err(Forgotten::Behind { synced, recovered });
        }
        inner.poisoned = false;
        inner.synced = recovered;
        Ok(())
    }

    /// The last batch known to be on disk.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.inner().synced
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn rebuild(&mut self) {
        self.visible = self.base.clone();
        self.last_batch = self.base_batch;
        for (number, batch) in &self.log {
            write(&mut self.visible, batch.clone());
            self.last_batch = *number;
        }
    }

    fn fold_history(&mut self) {
        while self.log.len() > HISTORY_BATCHES {
            match self.log.pop_front() {
                Some((number, batch)) if number <= self.synced => {
                    write(&mut self.base, batch);
                    self.base_batch = number;
                }
                Some(unsynced) => {
                    self.log.push_front(unsynced);
                    return;
                }
                None => return,
            }
        }
    }

    fn check_readable(&self, from: &[u8], until: &[u8]) -> Result<(), ReadError> {
        match &self.faults.unreadable {
            Some((space, range))
                if *space.place(&range.start) < *until && *from < *space.place(&range.end) =>
            {
                Err(ReadError::Failed(Box::new(Injected)))
            }
            _ => Ok(()),
        }
    }
}

/// What a record that fails its checksum reads as.
fn damaged(space: Space, placed: &[u8]) -> ReadError {
    ReadError::Corrupt {
        space,
        key: Bytes::copy_from_slice(&placed[1..]),
        why: Unsealed::Short(0),
    }
}

fn write(records: &mut Records, batch: Batch) {
    for (key, value) in batch.into_changes() {
        match value {
            Some(value) => records.insert(key, value),
            None => records.remove(&key),
        };
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let placed = space.place(key);
        let inner = self.inner();
        inner.check_readable(&placed, &super::following(&placed))?;
        if inner.faults.damaged.contains(&placed) {
            return Err(damaged(space, &placed));
        }
        Ok(inner.visible.get(&placed).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let (from, until) = space.range(from, until);
        if from >= until {
            return Ok(Vec::new());
        }
        let inner = self.inner();
        let records = inner.visible.range(from.clone()..until.clone());
        let bad = &inner.faults.damaged;
        let pairs = records.map(|(key, value)| match bad.contains(key) {
            true => Err(damaged(space, key)),
            false => Ok((Bytes::copy_from_slice(&key[1..]), value.clone())),
        });
        let pairs = within_budget(pairs, limit)?;
        // A scan that ends before the unreadable range never touches it.
        let bytes: usize = pairs
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let end = match pairs.last() {
            Some((last, _)) if pairs.len() == limit || bytes >= SCAN_BYTES => {
                super::following(&space.place(last))
            }
            _ => until,
        };
        inner.check_readable(&from, &end)?;
        Ok(pairs)
    }

    fn apply(&self, batch: Batch) -> Result<(), WriteError> {
        batch.check()?;
        let mut inner = self.inner();
        if inner.poisoned {
            return Err(WriteError::Poisoned);
        }
        inner.last_batch += 1;
        write(&mut inner.visible, batch.clone());
        let number = inner.last_batch;
        inner.log.push_back((number, batch));
        Ok(())
    }

    fn sync(&self) -> Result<u64, WriteError> {
        let mut inner = self.inner();
        if inner.poisoned {
            return Err(WriteError::Poisoned);
        }
        if std::mem::take(&mut inner.faults.fail_next_sync) {
            inner.poisoned = true;
            return Err(WriteError::Failed(Box::new(Injected)));
        }
        inner.synced = inner.last_batch;
        inner.fold_history();
        Ok(inner.synced)
    }

    fn last_batch(&self) -> u64 {
        self.inner().last_batch
    }

    fn size(&self) -> Size {
        let inner = self.inner();
        let records = inner.visible.iter();
        let bytes = records
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        Size {
            bytes: bytes as u64,
            records: inner.visible.len() as u64,
        }
    }

    fn picture(&self) -> Result<Box<dyn Picture>, ReadError> {
        let inner = self.inner();
        let copy = Inner {
            visible: inner.visible.clone(),
            last_batch: inner.last_batch,
            faults: inner.faults.clone(),
            ..Inner::default()
        };
        Ok(Box::new(Copy(Self {
            inner: Mutex::new(copy),
        })))
    }
}

struct Copy(Memory);

impl Picture for Copy {
    fn batch(&self) -> u64 {
        self.0.last_batch()
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        self.0.scan(space, from, until, limit)
    }
}
