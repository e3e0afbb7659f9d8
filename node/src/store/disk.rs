//! Room on the disk, durable folders, and the lock that keeps two processes out of one folder.
//!
//! Thin over the operating system. What a level of room means decides `core: room`; the [`Gauge`] remembers it
//! between two looks, so that everything on the node goes by one answer.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use sibyl_core::room::{Level, Marks};

/// Free below this, a node refuses values, unless it is told otherwise: four journals or memtables of 64 MiB, two
/// of which are left below half of it, where a node takes nothing: one to be flushed and one to be written.
pub const LOW_WATER_BYTES: u64 = 256 * 1024 * 1024;

/// What the file system under a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that a process without privileges may still take.
    pub available_bytes: u64,
    /// Bytes of the whole file system.
    pub total_bytes: u64,
}

/// Asks the file system under `folder`.
///
/// # Errors
/// That of `statvfs`.
pub fn room(folder: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(Room {
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Asks how many bytes are free.
type Ask = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Knows how full the disk is: a look costs one system call, reading the last one nothing.
pub struct Gauge {
    ask: Ask,
    marks: Marks,
    level: AtomicU8,
}

impl std::fmt::Debug for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gauge({:?}, {:?})", self.marks, self.level())
    }
}

impl Gauge {
    /// Of the file system under `folder`.
    pub fn of(folder: PathBuf, low_water_bytes: u64) -> Self {
        let ask = move || room(&folder).map(|room| room.available_bytes);
        Self::asking(Box::new(ask), low_water_bytes)
    }

    /// Of whatever `ask` says is free.
    pub fn asking(ask: Ask, low_water_bytes: u64) -> Self {
        Self {
            ask,
            marks: Marks { low_water_bytes },
            level: AtomicU8::new(Level::Enough as u8),
        }
    }

    /// Of a store that needs no disk.
    pub fn boundless() -> Self {
        Self::asking(Box::new(|| Ok(u64::MAX)), 0)
    }

    /// Where the levels begin.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// What the last look found.
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Enough,
            1 => Level::Low,
            _ => Level::Out,
        }
    }

    /// Looks. If the system does not say, the last answer stands.
    ///
    /// # Errors
    /// That of the system.
    pub fn look(&self) -> io::Result<Level> {
        let level = self.marks.level(self.level(), (self.ask)()?);
        self.level.store(level as u8, Ordering::Relaxed);
        Ok(level)
    }
}

/// Bytes allocated to the files of a folder; files that vanish meanwhile count as nothing.
pub(crate) fn allocated_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            // `blocks` counts units of 512 bytes, so the unwritten part of a sparse journal is free.
            Ok(data) if data.is_file() => data.blocks() * 512,
            Ok(data) if data.is_dir() => allocated_bytes(&entry.path()),
            _ => 0,
        })
        .sum()
}

/// Makes the names in a folder durable.
///
/// # Errors
/// That of the system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Held by a store and its watermark for as long as either lives.
#[derive(Debug)]
pub(crate) struct FolderLock(#[allow(dead_code, reason = "held for its lock")] File);

/// Takes the folder for this process: `None` if another one (or another part of this one) has it.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<FolderLock>> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Some(FolderLock(file)))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_asked_of_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path()).unwrap();
        assert!(room.total_bytes >= room.available_bytes && room.total_bytes > 0);
    }

    #[test]
    fn a_gauge_that_cannot_look_keeps_its_answer() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicU64;

        let free = Arc::new(AtomicU64::new(99));
        let asked = Arc::clone(&free);
        let ask = move || match asked.load(Ordering::Relaxed) {
            u64::MAX => Err(io::Error::other("no answer")),
            free => Ok(free),
        };
        let gauge = Gauge::asking(Box::new(ask), 100);
        assert_eq!(gauge.look().unwrap(), Level::Low);
        free.store(u64::MAX, Ordering::Relaxed);
        gauge.look().unwrap_err();
        assert_eq!(gauge.level(), Level::Low);
        free.store(200, Ordering::Relaxed);
        assert_eq!(gauge.look().unwrap(), Level::Enough);
    }

    #[test]
    fn a_sparse_file_takes_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("sparse")).unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(allocated_bytes(folder.path()) < 1 << 20);
    }
}
