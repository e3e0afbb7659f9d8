//! Takes over what can still be read of a store that was given up because its files are damaged.
//!
//! A damaged block hides its keys, so nobody can say what was in it; everything before and behind it can be read. The
//! new store is another actor that is filled from the other owners like any other: what is taken over spares them
//! most of the work, and keeps writes that only this node had. Objects and hints only, which join; what the node
//! knew of itself is not believed.
//!
//! Invariant: a record is taken over as its seal says it was written, or not at all.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use sibyl_core::id::Actor;

use super::fjall::Fjall;
use super::{Batch, IMAGE, Space, Store, WriteError, disk, following};

/// Beside a watermark that disowned its store: the store that is to be salvaged.
const MARK: &str = "salvage";
/// The most partitions of a cluster, each looked at alone where blocks are damaged.
const PARTITIONS: u32 = 1 << 16;

/// Says which store is to be salvaged by the start that begins the next one. Call it before disowning.
///
/// # Errors
/// That of the system.
pub fn mark(folder: &Path, actor: Actor) -> io::Result<()> {
    std::fs::write(folder.join(MARK), actor.to_string())?;
    std::fs::File::open(folder.join(MARK))?.sync_all()?;
    disk::sync_folder(folder)
}

/// Whether this store was given up for its damage alone. One that was disowned for what it had forgotten is not:
/// its writes may carry names that others have seen on other ones.
pub(super) fn is_marked(folder: &Path, actor: Actor) -> bool {
    std::fs::read_to_string(folder.join(MARK)).is_ok_and(|marked| marked == actor.to_string())
}

/// Copies what can be read; how many records that were.
pub(super) fn salvage(old: &Path, new: &dyn Store) -> Result<u64, WriteError> {
    // The engine panics over damaged files in places; then nothing more is to be had.
    let opened = catch_unwind(AssertUnwindSafe(|| Fjall::open_damaged(old)));
    let Ok(Ok(old)) = opened else {
        return Ok(0);
    };
    let mut copy = Copy {
        new,
        batch: Batch::new(),
        records: 0,
        failed: None,
    };
    let read = catch_unwind(AssertUnwindSafe(|| {
        for space in [Space::Objects, Space::Hints] {
            copy.space(&old, space);
        }
    }));
    if read.is_err() {
        tracing::error!(
            "the storage engine panicked over its damaged files: what was read of them stays"
        );
    }
    copy.end()
}

struct Copy<'a> {
    new: &'a dyn Store,
    batch: Batch,
    records: u64,
    failed: Option<WriteError>,
}

impl Copy<'_> {
    /// From the front and from the back to the damage; where several are, each partition between alone.
    fn space(&mut self, old: &Fjall, space: Space) {
        let Some((first, last)) = self.range(old, space, b"", b"") else {
            return;
        };
        let partition = |key: &[u8]| {
            let head = key.first_chunk::<4>();
            head.map_or(0, |head| u32::from_be_bytes(*head))
        };
        let until = last.map_or(PARTITIONS, |key| partition(&key) + 1);
        for at in partition(&first.unwrap_or_default())..until.min(PARTITIONS) {
            let (from, until) = (at.to_be_bytes(), (at + 1).to_be_bytes());
            self.range(old, space, &from, &until);
        }
    }

    /// Takes a range from both ends; the last records before and behind the damage, `None` if there is none.
    fn range(
        &mut self,
        old: &Fjall,
        space: Space,
        from: &[u8],
        until: &[u8],
    ) -> Option<(Option<Bytes>, Option<Bytes>)> {
        let mut front = None;
        let whole = old.walk(space, from, until, false, &mut |key, value| {
            front = Some(key.clone());
            self.take(space, &key, value);
        });
        if whole {
            return None;
        }
        let from = front
            .as_ref()
            .map_or_else(|| from.to_vec(), |key| following(key));
        let mut back = None;
        old.walk(space, &from, until, true, &mut |key, value| {
            back = Some(key.clone());
            self.take(space, &key, value);
        });
        Some((front, back))
    }

    fn take(&mut self, space: Space, key: &[u8], value: Bytes) {
        self.batch.put(space, key, value);
        self.records += 1;
        if self.batch.is_full() {
            self.write();
        }
    }

    fn write(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if self.failed.is_none() {
            self.failed = self.new.apply(batch).err();
        }
    }

    fn end(mut self) -> Result<u64, WriteError> {
        if self.records > 0 {
            // What had been deleted may be read again where the engine's files are damaged.
            let unknown = 0_u64.to_le_bytes().to_vec();
            self.batch.put(Space::Meta, IMAGE.as_bytes(), unknown);
        }
        self.write();
        self.failed.map_or(Ok(self.records), Err)
    }
}
