//! What lies in a store that is no replica any more: the objects and hints that a removed node gives away.
//!
//! Read without a writer, batch by batch, in the order of records; what cannot be read is gone past and counted.
//! Nothing is deleted here: what nobody takes is only copied to where it is found again.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::hint;
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::salvage::{MAX_BATCH, MAX_BATCH_BYTES, MAX_BATCH_KEY_BYTES, Record};

use super::super::{Slot, record};
use crate::store::{Batch, ReadError, Space, Store, WriteError, following};

/// Where objects lie, in the order in which they are given away.
const SPACES: [Space; 2] = [Space::Objects, Space::Hints];

/// A batch of what is left.
#[derive(Debug, Default)]
pub struct Page {
    /// The objects.
    pub records: Vec<Record>,
    /// Records on the way that cannot be read.
    pub damaged: u64,
    /// Where to go on, if there may be more.
    pub next: Option<Bytes>,
}

/// The partitions of which something is left.
pub fn partitions(store: &dyn Store, count: u32) -> Vec<Partition> {
    let holds = |at: &Partition| {
        let (from, until) = range(*at);
        // What cannot be read is there, and is counted when its turn comes.
        let empty =
            |space| matches!(store.scan(space, &from, &until, 1), Ok(found) if found.is_empty());
        !SPACES.into_iter().all(empty)
    };
    (0..count).map(Partition).filter(holds).collect()
}

/// The next objects of a partition behind one of them. An object that is larger than `most_bytes` cannot be sent and
/// is as good as damaged.
pub fn page(
    store: &dyn Store,
    partition: Partition,
    after: Option<&Bytes>,
    most_bytes: usize,
) -> Page {
    let (first, until) = range(partition);
    let (mut at, mut from) = match after.and_then(|id| id.split_first()) {
        None => (0, first.clone()),
        Some((space, key)) => {
            let at = SPACES.iter().position(|it| *it as u8 == *space);
            (at.unwrap_or(SPACES.len()), following(key))
        }
    };
    let mut page = Page::default();
    // Ends: there are two spaces.
    while let Some(space) = SPACES.get(at).copied() {
        let scanned = store.scan(space, &from, &until, MAX_BATCH);
        let found = match scanned {
            Err(ReadError::Corrupt { key, .. }) => {
                match store.scan(space, &from, &key, MAX_BATCH) {
                    Ok(before) if !before.is_empty() => before,
                    _ => {
                        page.damaged += 1;
                        page.next = Some(id(space, &key));
                        return page;
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "a part of the store cannot be read: what lies there stays");
                page.damaged += 1;
                Vec::new()
            }
            Ok(found) => found,
        };
        if !found.is_empty() {
            take(&mut page, space, found, most_bytes);
            return page;
        }
        (at, from) = (at + 1, first.clone());
    }
    page
}

/// Puts as much on a page as a batch takes.
fn take(page: &mut Page, space: Space, found: Vec<(Bytes, Bytes)>, most_bytes: usize) {
    let (mut bytes, mut keys) = (0, 0);
    for (key, value) in found {
        (bytes, keys) = (bytes + value.len(), keys + key.len());
        let full = bytes > MAX_BATCH_BYTES || keys > MAX_BATCH_KEY_BYTES;
        if full && page.next.is_some() {
            return;
        }
        page.next = Some(id(space, &key));
        match object(space, &value).filter(|object| object.len() <= most_bytes) {
            Some(object) => page.records.extend(Slot::of_hint(&key).map(|slot| Record {
                id: id(space, &key),
                place: slot.place,
                object,
            })),
            None => page.damaged += 1,
        }
    }
}

/// The object of a record, if it is one.
fn object(space: Space, value: &Bytes) -> Option<Bytes> {
    let object = match space {
        Space::Hints => hint::split(value).ok()?.1,
        _ => value.clone(),
    };
    codec::decode(&object).ok()?;
    Some(object)
}

/// Copies these to where they are found again; not durable until the store is synced.
///
/// # Errors
/// [`WriteError`].
pub fn set_aside(store: &dyn Store, ids: &[Bytes]) -> Result<(), WriteError> {
    let mut batch = Batch::new();
    for id in ids {
        let Some((space, key)) = id.split_first() else {
            continue;
        };
        let value = Space::of(*space).map(|space| store.get(space, key));
        if let Some(Ok(Some(value))) = value {
            batch.put(Space::Aside, id, value);
        }
        if batch.is_full() {
            store.apply(std::mem::take(&mut batch))?;
        }
    }
    store.apply(batch)
}

fn id(space: Space, key: &[u8]) -> Bytes {
    let mut id = vec![space as u8];
    id.extend_from_slice(key);
    id.into()
}

fn range(partition: Partition) -> (Vec<u8>, Vec<u8>) {
    let start = |at| record(Partition(at), Incarnation(0), b"");
    (start(partition.0), start(partition.0 + 1))
}
