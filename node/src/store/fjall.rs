//! The store on disk: fjall behind our trait. The only file that imports it.
//!
//! All spaces share one keyspace under a one-byte prefix. So a batch lies in one memtable and one journal,
//! is flushed as a whole, and its marker (number and checksum) proves the whole of it; with a keyspace per
//! space, one could be flushed beyond a journal that lost the other's share, and idle ones pin journals.
//! A failed write or sync poisons the store until the process starts anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::fjall::config::{BlockSizePolicy, CompressionPolicy, PinningPolicy};
use ::fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode,
    Readable as _,
};
use bytes::Bytes;
use sibyl_core::record;

use super::disk::{FolderLock, allocated_bytes};
use super::journal::{self, JournalError, MARKER_KEY, Marker, chain, fingerprint};
use super::{Batch, Picture, ReadError, Size, Space, Store, WriteError, within_budget};

/// Blocks kept in memory; the measured figures of the reference are with this.
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
/// Flush size. The journal rotates at the first flush past 64 MB of it, so this bounds both recovery time
/// (about 0.1 s per 64 MiB) and the memory of two memtables.
const MEMTABLE_BYTES: u64 = 64 * 1024 * 1024;
/// Two sealed journals and the active one at most, before stragglers are flushed.
const JOURNALS_BYTES: u64 = 128 * 1024 * 1024;
/// One for flushes, so that writes never wait behind a compaction, and one for compaction.
const WORKERS: usize = 2;
/// Data block: three records of 1 KiB. Larger ones save nothing on incompressible values and make every
/// cold read dearer.
const BLOCK_BYTES: u32 = 4 * 1024;
/// How often a retained journal is looked for, in bytes applied.
const JOURNAL_CHECK_BYTES: u64 = 4 * 1024 * 1024;

const KEYSPACE: &str = "records";
/// What the engine's version file says: disk format 3.
const ENGINE_VERSION: [u8; 4] = *b"FJL\x03";

/// The store on disk.
pub struct Fjall {
    database: Database,
    records: Keyspace,
    folder: PathBuf,
    /// Held while a batch is written: bytes applied since the last look at retained journals.
    writer: Mutex<u64>,
    last_batch: AtomicU64,
    poisoned: AtomicBool,
    damage: Arc<OnceLock<String>>,
    _lock: Option<Arc<FolderLock>>,
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            folder, last_batch, ..
        } = self;
        write!(f, "Fjall({}, batch {last_batch:?})", folder.display())
    }
}

/// Why an engine's folder does not open as what it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Another process has it.
    #[error("the storage engine is locked by another process")]
    Locked,
    /// Made by a newer build.
    #[error("the storage engine's files are of another format version")]
    Version,
    /// The surroundings are at fault (rights, room, descriptors, the device), not the content.
    #[error("the system does not let the storage engine open")]
    Surroundings(#[source] io::Error),
    /// The content is damaged, incomplete or gone.
    #[error(transparent)]
    Content(#[from] Damage),
}

/// What is wrong with an engine's content.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The folder or its version file is gone.
    #[error("the store folder is missing or empty")]
    Missing,
    /// The journals have a gap.
    #[error(transparent)]
    Journal(JournalError),
    /// The engine refuses.
    #[error("the storage engine refuses to open")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine panicked over its files.
    #[error("the storage engine panicked while opening")]
    Panicked,
    /// The engine opened, but not with what its journals say.
    #[error("a key reads otherwise than its journal says")]
    Differs,
    /// Synced batches are missing.
    #[error("batch {synced} was synced, the engine has only {recovered}")]
    Behind {
        /// What the watermark says.
        synced: u64,
        /// What the engine says.
        recovered: u64,
    },
}

impl Fjall {
    /// Makes a new, empty store.
    pub(crate) fn create(folder: &Path, lock: Option<Arc<FolderLock>>) -> Result<Self, Refusal> {
        Self::start(folder, lock)
    }

    /// Opens what was given up, to read what can be read: nothing of it is checked.
    pub(super) fn open_damaged(folder: &Path) -> Result<Self, Refusal> {
        Self::start(folder, None)
    }

    /// Opens a store that holds at least batch `synced`.
    pub(crate) fn recover(
        folder: &Path,
        synced: u64,
        lock: Option<Arc<FolderLock>>,
    ) -> Result<Self, Refusal> {
        // Without its version file fjall would make a new, empty database in the folder.
        if !folder.join("version").try_exists().map_err(at_fault)? {
            return Err(Damage::Missing.into());
        }
        mend_version(folder).map_err(at_fault)?;
        let journals = journal::inspect(folder).map_err(|error| match error {
            JournalError::Io(error) => at_fault(error),
            gap @ JournalError::Gap { .. } => Damage::Journal(gap).into(),
        })?;
        if let Some(recovered) = journals.last.filter(|last| *last < synced) {
            return Err(Damage::Behind { synced, recovered }.into());
        }
        journal::cut(&journals).map_err(at_fault)?;
        let store = Self::start(folder, lock)?;
        let recovered = store.recovered_batch()?;
        if recovered < synced {
            return Err(Damage::Behind { synced, recovered }.into());
        }
        for (key, expected) in &journals.latest {
            let found = store.records.get(key).map_err(refusal)?;
            if found.as_deref().map(fingerprint) != *expected {
                return Err(Damage::Differs.into());
            }
        }
        store.last_batch.store(recovered, Ordering::Release);
        Ok(store)
    }

    fn start(folder: &Path, lock: Option<Arc<FolderLock>>) -> Result<Self, Refusal> {
        // Damaged files make the engine panic in places; that is a refusal like any other.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Database::builder(folder)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNALS_BYTES)
                .worker_threads(WORKERS)
                // `journal.rs` reads the journals and does not decompress.
                .journal_compression(CompressionType::None)
                .open()?;
            let records = database.keyspace(KEYSPACE, options)?;
            Ok((database, records))
        }));
        let (database, records) = opened.map_err(|_| Damage::Panicked)?.map_err(refusal)?;
        Ok(Self {
            database,
            records,
            folder: folder.to_owned(),
            writer: Mutex::new(0),
            last_batch: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            damage: Arc::default(),
            _lock: lock,
        })
    }

    fn recovered_batch(&self) -> Result<u64, Refusal> {
        let Some(sealed) = self.records.get(MARKER_KEY).map_err(refusal)? else {
            return Ok(0);
        };
        let content = record::unseal(MARKER_KEY, &sealed);
        let content = content.map_err(|error| Damage::Engine(Box::new(error)))?;
        let marker = Marker::decode(content).ok_or(Damage::Differs)?;
        Ok(marker.number)
    }

    fn write(&self, batch: Batch, number: u64) -> ::fjall::Result<u64> {
        let mut write = self.database.batch();
        let mut checksum = 0;
        let mut bytes = 0;
        for (key, value) in batch.into_changes() {
            bytes += key.len() as u64;
            if let Some(value) = value {
                let sealed = record::seal(&key, &value);
                bytes += sealed.len() as u64;
                checksum = chain(checksum, &key, Some(&sealed));
                write.insert(&self.records, key, sealed);
            } else {
                checksum = chain(checksum, &key, None);
                write.remove(&self.records, key);
            }
        }
        let marker = record::seal(MARKER_KEY, &Marker { number, checksum }.encode());
        write.insert(&self.records, MARKER_KEY, marker);
        write.commit()?;
        Ok(bytes)
    }

    /// A journal sealed in mid-stream keeps the first writes of the next memtable and would stay, with its
    /// 64 MiB, until that is full too. A small early flush lets it go (goal 8).
    fn release_journals(&self, written: &mut u64, bytes: u64) -> ::fjall::Result<()> {
        *written += bytes;
        if *written < JOURNAL_CHECK_BYTES {
            return Ok(());
        }
        *written = 0;
        if self.database.journal_count() > 1 && self.records.sealed_memtable_count() == 0 {
            self.records.rotate_memtable()?;
        }
        Ok(())
    }

    /// Gives the records of a range from its front or its back until one cannot be read; whether all could be. One
    /// whose seal is broken is left out.
    pub(super) fn walk(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        back: bool,
        take: &mut dyn FnMut(Bytes, Bytes),
    ) -> bool {
        let (from, until) = space.range(from, until);
        if from >= until {
            return true;
        }
        let mut records = self.records.range(from..until);
        // Ends with the range: every turn takes a record of it.
        loop {
            let next = match back {
                false => records.next(),
                true => records.next_back(),
            };
            let Some(guard) = next else {
                return true;
            };
            let Ok((placed, sealed)) = guard.into_inner() else {
                return false;
            };
            if let Ok(content) = unseal(space, &placed, &sealed) {
                take(Bytes::copy_from_slice(&placed[1..]), content);
            }
        }
    }

    fn poison(&self, error: ::fjall::Error) -> WriteError {
        self.poisoned.store(true, Ordering::Release);
        if matches!(error, ::fjall::Error::Poisoned) {
            self.examine();
        }
        WriteError::Failed(Box::new(error))
    }

    /// The engine gave up in the background and does not say why: a block that it could not compact, or a disk that
    /// failed. Reads everything, once and for the last time, to know; ends with the first thing that is damaged.
    fn examine(&self) {
        let mut records = self.records.iter();
        let damaged = records.find_map(|guard| guard.into_inner().err());
        if let Some(error) = damaged {
            unreadable(&self.damage, error);
        }
    }

    fn check_poison(&self) -> Result<(), WriteError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(WriteError::Poisoned);
        }
        Ok(())
    }
}

impl Store for Fjall {
    #[cfg(test)]
    fn flush(&self) {
        self.records
            .rotate_memtable_and_wait()
            .expect("a healthy disk");
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let placed = space.place(key);
        let sealed = self.records.get(&placed);
        let sealed = sealed.map_err(|error| unreadable(&self.damage, error))?;
        let content = sealed.map(|sealed| unseal(space, &placed, &sealed));
        content.transpose()
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
        pairs(space, &self.damage, self.records.range(from..until), limit)
    }

    fn apply(&self, batch: Batch) -> Result<(), WriteError> {
        batch.check()?;
        let mut written = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_poison()?;
        let number = self.last_batch() + 1;
        let bytes = self.write(batch, number).map_err(|e| self.poison(e))?;
        self.last_batch.store(number, Ordering::Release);
        self.release_journals(&mut written, bytes)
            .map_err(|e| self.poison(e))
    }

    fn sync(&self) -> Result<u64, WriteError> {
        let applied = self.last_batch();
        self.check_poison()?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(|e| self.poison(e))?;
        Ok(applied)
    }

    fn last_batch(&self) -> u64 {
        self.last_batch.load(Ordering::Acquire)
    }

    fn size(&self) -> Size {
        Size {
            bytes: allocated_bytes(&self.folder),
            records: self.records.approximate_len() as u64,
        }
    }

    fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    fn picture(&self) -> Result<Box<dyn Picture>, ReadError> {
        // A batch becomes visible as a whole, so this is what lies between two of them.
        let snapshot = self.database.snapshot();
        let marker = snapshot.get(&self.records, MARKER_KEY);
        let marker = marker.map_err(|error| unreadable(&self.damage, error))?;
        let number = |sealed: ::fjall::Slice| {
            let content = record::unseal(MARKER_KEY, &sealed).ok()?;
            Some(Marker::decode(content)?.number)
        };
        let batch = match marker {
            Some(sealed) => {
                number(sealed).ok_or_else(|| ReadError::Failed(Box::new(Damage::Differs)))?
            }
            None => 0,
        };
        Ok(Box::new(Snapshot {
            snapshot,
            records: self.records.clone(),
            damage: Arc::clone(&self.damage),
            batch,
        }))
    }
}

struct Snapshot {
    snapshot: ::fjall::Snapshot,
    records: Keyspace,
    damage: Arc<OnceLock<String>>,
    batch: u64,
}

impl Picture for Snapshot {
    fn batch(&self) -> u64 {
        self.batch
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
        let records = self.snapshot.range(&self.records, from..until);
        pairs(space, &self.damage, records, limit)
    }
}

fn pairs(
    space: Space,
    damage: &OnceLock<String>,
    records: ::fjall::Iter,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let pairs = records.map(|guard| {
        let (placed, sealed) = guard
            .into_inner()
            .map_err(|error| unreadable(damage, error))?;
        let content = unseal(space, &placed, &sealed)?;
        Ok((Bytes::copy_from_slice(&placed[1..]), content))
    });
    within_budget(pairs, limit)
}

/// The version file holds four bytes that every build of ours wrote. One bit off is a damaged disk and no other
/// version, so it is put right; more is left for the engine to judge.
fn mend_version(folder: &Path) -> io::Result<()> {
    let path = folder.join("version");
    let bytes = std::fs::read(&path)?;
    let flipped: u32 = bytes
        .iter()
        .zip(ENGINE_VERSION)
        .map(|(found, right)| (found ^ right).count_ones())
        .sum();
    if bytes.len() == ENGINE_VERSION.len() && flipped == 1 {
        tracing::warn!("a bit of the storage engine's version file was flipped: it is put right");
        std::fs::write(&path, ENGINE_VERSION)?;
        std::fs::File::open(&path)?.sync_all()?;
    }
    Ok(())
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        // The young levels are read and rewritten most; from the third on text shrinks by half or more
        // for some 2 µs per block.
        .data_block_compression_policy(CompressionPolicy::new([
            CompressionType::None,
            CompressionType::None,
            CompressionType::Lz4,
        ]))
        // Bloom filters answer "not here" (most first writes) from memory: 10 bits, 1.2 MB per million keys.
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_pinning_policy(PinningPolicy::new([true, true, false]))
        // A first write reads a key that is absent: the last level needs its filters too.
        .expect_point_read_hits(false)
        // Measured: separating 1 KiB values gains nothing and costs a tenth of the disk.
        .with_kv_separation(None)
}

fn unseal(space: Space, placed: &[u8], sealed: &[u8]) -> Result<Bytes, ReadError> {
    record::unseal_copy(placed, sealed).map_err(|why| ReadError::Corrupt {
        space,
        key: Bytes::copy_from_slice(&placed[1..]),
        why,
    })
}

/// Why a read gave nothing; remembers if the content is to blame.
fn unreadable(damage: &OnceLock<String>, error: ::fjall::Error) -> ReadError {
    let why = error.to_string();
    match refusal(error) {
        Refusal::Content(content) => {
            damage.get_or_init(|| why);
            ReadError::Failed(Box::new(content))
        }
        other => ReadError::Failed(Box::new(other)),
    }
}

fn refusal(error: ::fjall::Error) -> Refusal {
    match error {
        ::fjall::Error::Locked => Refusal::Locked,
        ::fjall::Error::InvalidVersion(Some(_)) => Refusal::Version,
        ::fjall::Error::Io(error) | ::fjall::Error::Storage(LsmError::Io(error)) => at_fault(error),
        error => Damage::Engine(Box::new(error)).into(),
    }
}

/// Whether an I/O error speaks of the content or of the surroundings. Only the former is amnesia: nobody
/// wants a store set aside because the disk was full or the rights were wrong.
fn at_fault(error: io::Error) -> Refusal {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | NotFound | Other | UnexpectedEof
            if error
                .raw_os_error()
                .is_none_or(|code| code == rustix::io::Errno::NOENT.raw_os_error()) =>
        {
            Damage::Engine(Box::new(error)).into()
        }
        _ => Refusal::Surroundings(error),
    }
}
