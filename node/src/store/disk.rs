//! Room on the disk, durable folders, and the lock that keeps two processes out of one folder.
//!
//! Thin over the operating system: no decisions here but one, that below the low-water mark a node
//! refuses writes (507) while handoff, deletes and compaction go on.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Free below this, a node refuses writes: four journals or memtables of 64 MiB that compaction may need.
pub const LOW_WATER_BYTES: u64 = 256 * 1024 * 1024;

/// What the file system under a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that a process without privileges may still take.
    pub available_bytes: u64,
    /// Bytes of the whole file system.
    pub total_bytes: u64,
}

impl Room {
    /// Whether writes must be refused.
    #[must_use]
    pub fn is_low(&self, low_water_bytes: u64) -> bool {
        self.available_bytes < low_water_bytes
    }
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
        assert!(room.is_low(u64::MAX) && !room.is_low(0));
    }

    #[test]
    fn a_sparse_file_takes_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("sparse")).unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(allocated_bytes(folder.path()) < 1 << 20);
    }
}
