//! A small append-only file outside the engine that remembers what the engine must not forget.
//!
//! It holds the store's actor, the end of the reserved counters, the last synced batch number, the node's
//! incarnation and the registry's promises. Each append is one write and one fdatasync into preallocated space. At every start,
//! and when it is full, the file is written anew beside itself and renamed over. `entry.rs` has the format
//! and says which damage is a torn tail and which is amnesia.
//!
//! Invariant: what a method returned `Ok` for is read back after any crash.

mod entry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sibyl_core::id::Actor;

use super::WriteError;
use super::disk::{FolderLock, sync_folder};
pub use entry::Damage;
use entry::Entry;

/// Room for appends after the snapshot: 8,192 group commits of 32 bytes between two rewrites.
const APPEND_BYTES: usize = 256 * 1024;
/// The longest promise: a registry document of some thousand buckets.
pub const MAX_PROMISE_BYTES: usize = 8 * 1024 * 1024;
/// The most numbers with promises: the registry votes on one at a time and forgets the older.
pub const MAX_PROMISES: usize = 8;
/// The longest file read: every promise twice in a snapshot and once more appended, and room.
const MAX_FILE_BYTES: u64 = (3 * MAX_PROMISES * MAX_PROMISE_BYTES + 4 * APPEND_BYTES) as u64;

const NAME: &str = "watermark";
const NEW_NAME: &str = "watermark.new";

/// Everything the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Whose store this is.
    pub(crate) actor: Actor,
    /// The store was begun because an earlier one could not prove that it remembers.
    pub(crate) after_amnesia: bool,
    /// The store folder is complete; before that nothing was ever written.
    pub(crate) ready: bool,
    /// A store begun after amnesia has been refilled from its peers.
    pub(crate) rebuilt: bool,
    /// This store learned that it has forgotten: the next start begins a new one.
    pub(crate) disowned: bool,
    /// Counters below this may have been used.
    pub(crate) reserved_end: u64,
    /// The engine holds at least this batch.
    pub(crate) synced: u64,
    /// The highest incarnation this node may have told anyone; each start raises it.
    pub(crate) incarnation: u64,
    /// The registry's promises by document number, opaque here.
    pub(crate) promises: BTreeMap<u64, Bytes>,
}

impl State {
    /// A store that is about to be made.
    pub(crate) fn unborn(actor: Actor, after_amnesia: bool, reserved_end: u64) -> Self {
        Self {
            actor,
            after_amnesia,
            ready: false,
            rebuilt: false,
            disowned: false,
            reserved_end,
            synced: 0,
            incarnation: 1,
            promises: BTreeMap::new(),
        }
    }

    fn has_room_for(&self, number: u64) -> bool {
        self.promises.len() < MAX_PROMISES || self.promises.contains_key(&number)
    }
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is none.
    #[error("there is no watermark file")]
    Missing,
    /// Synced content is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The operating system refuses.
    #[error("the watermark file cannot be read")]
    Io(#[from] io::Error),
}

/// The file, open for appending. Shared by the writer and the registry.
#[derive(Debug)]
pub struct Watermark {
    folder: PathBuf,
    inner: Mutex<Inner>,
    actor: Actor,
    /// The durable end of the reserved counters, readable without waiting for a sync.
    reserved_end: AtomicU64,
    /// The last batch known to be on disk, readable likewise.
    synced_batch: AtomicU64,
    /// What the next [`Watermark::synced`] reserves on the side.
    wanted_end: AtomicU64,
    poisoned: AtomicBool,
    _lock: Option<Arc<FolderLock>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    file: File,
    next_write: u64,
    position: usize,
    capacity: usize,
}

/// More promises than the file keeps; forget the older numbers first.
#[derive(Debug, thiserror::Error)]
pub enum PromiseError {
    /// Too long.
    #[error("a promise takes {MAX_PROMISE_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// Too many numbers.
    #[error("{MAX_PROMISES} numbers hold promises already; forget the older ones first")]
    TooMany,
    /// Not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads what a folder's watermark file says.
pub(crate) fn load(folder: &Path) -> Result<State, LoadError> {
    let path = folder.join(NAME);
    let length = match std::fs::metadata(&path) {
        Ok(data) => data.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LoadError::Missing),
        Err(error) => return Err(error.into()),
    };
    if length > MAX_FILE_BYTES {
        return Err(Damage::TooLong(length).into());
    }
    Ok(entry::read(&std::fs::read(path)?)?)
}

impl Watermark {
    /// Writes the file anew with this state: beside the old one, synced, renamed, folder synced.
    pub(crate) fn create(
        folder: &Path,
        state: State,
        lock: Option<Arc<FolderLock>>,
    ) -> io::Result<Self> {
        let inner = Inner::create(folder, state)?;
        Ok(Self {
            folder: folder.to_owned(),
            actor: inner.state.actor,
            reserved_end: AtomicU64::new(inner.state.reserved_end),
            wanted_end: AtomicU64::new(inner.state.reserved_end),
            synced_batch: AtomicU64::new(inner.state.synced),
            inner: Mutex::new(inner),
            poisoned: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Whose store this is.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// Counters below this are reserved, durably.
    #[must_use]
    pub fn reserved_end(&self) -> u64 {
        self.reserved_end.load(Ordering::Acquire)
    }

    /// The last batch that the engine is known to hold on disk.
    #[must_use]
    pub fn synced_batch(&self) -> u64 {
        self.synced_batch.load(Ordering::Acquire)
    }

    /// This node's incarnation: higher than at any earlier start of this store.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.inner().state.incarnation
    }

    /// Remembers a higher incarnation, before anybody hears of it.
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn raise_incarnation(&self, incarnation: u64) -> Result<(), WriteError> {
        self.append(vec![Entry::Incarnation(incarnation)])
    }

    /// Asks the next [`Watermark::synced`] to reserve counters up to `end` in the same write.
    pub fn want_reserved(&self, end: u64) {
        self.wanted_end.fetch_max(end, Ordering::AcqRel);
    }

    /// Remembers that the engine holds this batch on disk (and reserves what was wanted).
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn synced(&self, batch: u64) -> Result<(), WriteError> {
        let mut entries = vec![Entry::Synced(batch)];
        let wanted = self.wanted_end.load(Ordering::Acquire);
        if wanted > self.reserved_end() {
            entries.push(Entry::Reserved(wanted));
        }
        self.append(entries)
    }

    /// Reserves counters up to `end` now.
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn reserve(&self, end: u64) -> Result<(), WriteError> {
        self.append(vec![Entry::Reserved(end)])
    }

    /// Keeps the registry's promise for a document number, in place of an earlier one.
    ///
    /// # Errors
    /// [`PromiseError`] if it does not fit; a failed write is fatal.
    pub fn promise(&self, number: u64, bytes: Bytes) -> Result<(), PromiseError> {
        if bytes.len() > MAX_PROMISE_BYTES {
            return Err(PromiseError::TooLong(bytes.len()));
        }
        if !self.inner().state.has_room_for(number) {
            return Err(PromiseError::TooMany);
        }
        Ok(self.append(vec![Entry::Promise(number, bytes)])?)
    }

    /// The promise kept for a document number.
    #[must_use]
    pub fn promised(&self, number: u64) -> Option<Bytes> {
        self.inner().state.promises.get(&number).cloned()
    }

    /// Forgets the promises below a document number: call it once that number is chosen and kept.
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn forget_promises_below(&self, number: u64) -> Result<(), WriteError> {
        self.append(vec![Entry::ForgetBelow(number)])
    }

    /// Whether this store was begun after amnesia and has not been refilled: it survives restarts.
    #[must_use]
    pub fn is_rebuilding(&self) -> bool {
        let state = &self.inner().state;
        state.after_amnesia && !state.rebuilt
    }

    /// Remembers that a store begun after amnesia has been refilled from its peers.
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn rebuilt(&self) -> Result<(), WriteError> {
        self.append(vec![Entry::Rebuilt])
    }

    /// Remembers that this store has forgotten something (a peer knows a higher counter of ours): stop the
    /// node; its next start begins a new store with a new actor.
    ///
    /// # Errors
    /// [`WriteError`]; it is fatal.
    pub fn disown(&self) -> Result<(), WriteError> {
        self.append(vec![Entry::Disowned])
    }

    /// The folder is complete and holds its first batch.
    pub(crate) fn ready(&self, batch: u64) -> Result<(), WriteError> {
        self.append(vec![Entry::Ready, Entry::Synced(batch)])
    }

    fn append(&self, entries: Vec<Entry>) -> Result<(), WriteError> {
        let mut inner = self.inner();
        if self.poisoned.load(Ordering::Acquire) {
            return Err(WriteError::Poisoned);
        }
        match inner.append(&self.folder, entries) {
            Ok(()) => {
                self.reserved_end
                    .fetch_max(inner.state.reserved_end, Ordering::AcqRel);
                self.synced_batch
                    .fetch_max(inner.state.synced, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                self.poisoned.store(true, Ordering::Release);
                Err(WriteError::Failed(Box::new(error)))
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while appending leaves at worst entries in the file that memory does not have; the
        // next append then fails to continue them and a restart reads them: nothing is claimed falsely.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn create(folder: &Path, state: State) -> io::Result<Self> {
        let mut image = entry::snapshot(&state);
        let position = image.len();
        let capacity = position + APPEND_BYTES;
        // Zeros written now are blocks allocated now: an append then changes no metadata, and its
        // fdatasync is one write to the disk.
        image.resize(capacity, 0);
        let new = folder.join(NEW_NAME);
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&new)?;
        file.write_all_at(&image, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, folder.join(NAME))?;
        sync_folder(folder)?;
        Ok(Self {
            state,
            file,
            next_write: 1,
            position,
            capacity,
        })
    }

    fn append(&mut self, folder: &Path, entries: Vec<Entry>) -> io::Result<()> {
        let bytes = entry::encode(self.next_write, &entries);
        let mut state = self.state.clone();
        for entry in entries {
            entry::apply(&mut state, entry);
        }
        if self.position + bytes.len() > self.capacity {
            *self = Self::create(folder, state)?;
            return Ok(());
        }
        self.file.write_all_at(&bytes, self.position as u64)?;
        self.file.sync_data()?;
        self.state = state;
        self.next_write += 1;
        self.position += bytes.len();
        Ok(())
    }
}
