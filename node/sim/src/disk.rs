//! What a node keeps when its process dies: the store's memory twin and what lies in the watermark file.
//!
//! The store's batches are ordered and unsynced until a sync; a crash keeps any subset of the unsynced
//! ones. The watermark (actor, reserved counters, promises) is small and synced on its own. A wipe takes
//! all of it: what comes after is another actor. So does an engine that is behind its watermark, or does not open;
//! a backup that is restored is a new store with memories. A record may fail its checksum until it is replaced.

use std::collections::BTreeSet;

use bytes::Bytes;
use sibyl::store::memory::Memory;
use sibyl::store::{Batch, ReadError, Space, Store};
use sibyl_core::codec;
use sibyl_core::hint::Hint;
use sibyl_core::id::{Actor, Partition};
use sibyl_core::object::Object;

use crate::draw::Draw;
use crate::world::Note;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 2;
/// Counters per reservation: few, so that restarts skip some and runs cross blocks.
const BLOCK: u64 = 16;

/// A node's disk.
#[derive(Debug)]
pub struct Disk {
    /// The engine.
    pub store: Memory,
    /// Whose store it is.
    pub actor: Actor,
    /// Counters below this may have been used.
    pub reserved: u64,
    /// The registry's promises.
    pub promises: Option<Bytes>,
    /// Whether what was here is lost and has not come back.
    pub rebuilding: bool,
    /// Partitions that have come back.
    pub filled: BTreeSet<Partition>,
    /// The reaping epoch.
    pub epoch: Option<u64>,
    /// What was reaped until then this store may not have seen.
    pub floor: u64,
    /// The epoch of the older state that this store was made of, until all of it is judged.
    pub image: Option<u64>,
    /// What of that was judged once.
    pub shown: BTreeSet<Partition>,
    /// What its node knows of its removal.
    pub(crate) fenced: Option<Note>,
    /// Until when syncs are slow.
    pub slow_until_us: u64,
    /// Until when there is no room.
    pub full_until_us: u64,
    /// Partitions whose leaves are not known to be right, and say so.
    pub spoiled: BTreeSet<Partition>,
    /// Records that fail their checksum.
    pub damaged: BTreeSet<Vec<u8>>,
    backup: Option<Backup>,
    crashes: u64,
}

/// What a backup keeps: objects, hints and the registry document of a store, and whose it was.
#[derive(Clone, Debug)]
pub struct Backup {
    records: Vec<(Space, Bytes, Bytes)>,
    actor: Actor,
    reserved: u64,
    epoch: Option<u64>,
}

fn horizon_key(partition: Partition) -> Vec<u8> {
    [b"reap/horizon/", &partition.0.to_be_bytes()[..]].concat()
}

/// A record that fails its checksum: never the same as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced;

impl Disk {
    /// An empty disk of a new actor.
    pub fn new(actor: Actor) -> Self {
        Self {
            store: Memory::new(),
            actor,
            reserved: 1,
            promises: None,
            rebuilding: false,
            filled: BTreeSet::new(),
            epoch: None,
            floor: 0,
            image: None,
            shown: BTreeSet::new(),
            fenced: None,
            slow_until_us: 0,
            full_until_us: 0,
            spoiled: BTreeSet::new(),
            damaged: BTreeSet::new(),
            backup: None,
            crashes: 0,
        }
    }

    /// Takes everything away; the next store is another actor's. Whether it is to come back the caller knows.
    pub fn wipe(&mut self, actor: Actor) {
        self.store = Memory::new();
        self.actor = actor;
        self.reserved = 1;
        self.promises = None;
        self.rebuilding = false;
        self.filled.clear();
        self.spoiled.clear();
        self.damaged.clear();
        self.epoch = None;
        self.floor = 0;
        self.image = None;
        self.shown.clear();
        self.fenced = None;
    }

    /// The epoch of a partition's last reap here, or of its coming here; 0: neither.
    pub fn horizon(&self, partition: Partition) -> u64 {
        let kept = self.store.get(Space::Meta, &horizon_key(partition));
        let kept = kept.expect("only copies are damaged here");
        kept.map_or(0, |kept| {
            let bytes = kept.as_ref().try_into();
            u64::from_le_bytes(bytes.expect("only horizons lie there"))
        })
    }

    /// Keeps one in a batch.
    pub fn keep_horizon(partition: Partition, horizon: u64, batch: &mut Batch) {
        let key = horizon_key(partition);
        batch.put(Space::Meta, &key, horizon.to_le_bytes().to_vec());
    }

    /// A record fails its checksum from now on, or was replaced.
    pub fn damage(&mut self, record: &[u8], damaged: bool) {
        match damaged {
            true => self.damaged.insert(record.to_vec()),
            false => self.damaged.remove(record),
        };
        self.store
            .fault(|faults| faults.damage(Space::Objects, record, damaged));
    }

    /// A lying disk: the last so many batches are gone. Answers whether the next start may go on with the rest.
    pub fn truncate(&mut self, batches: u64) -> bool {
        let last = self.store.synced().saturating_sub(batches);
        self.store.truncate_synced(last);
        self.store.reopen().is_ok()
    }

    /// The engine does not open. Answers whether the next start may go on all the same.
    pub fn refuse(&mut self) -> bool {
        self.store.fault(|faults| faults.refuse_to_open = true);
        self.store.reopen().is_ok()
    }

    /// Takes a backup: what a picture of the engine shows, unreadable records left out.
    pub fn back_up(&mut self, chosen: &[u8], records: &[Vec<u8>]) {
        let picture = self.store.picture().expect("a picture in memory is a copy");
        let read = |space: Space, key: &[u8]| {
            let found = picture.scan(space, key, &[key, &[0]].concat(), 1).ok()?;
            let (_, value) = found.into_iter().next()?;
            Some((space, Bytes::copy_from_slice(key), value))
        };
        let objects = records.iter().filter_map(|key| read(Space::Objects, key));
        let hints = records.iter().filter_map(|key| read(Space::Hints, key));
        let kept = objects.chain(hints).chain(read(Space::Meta, chosen));
        self.backup = Some(Backup {
            records: kept.collect(),
            actor: self.actor,
            reserved: self.reserved,
            epoch: self.epoch,
        });
    }

    /// Whether there is something to restore.
    pub fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// Puts the backup into the empty store of another actor, as `sibyl restore` does.
    pub fn restore(&mut self) {
        let Some(backup) = &self.backup else { return };
        let mut batch = Batch::new();
        for (space, key, value) in &backup.records {
            batch.put(*space, key, value.clone());
        }
        let restored = self.store.apply(batch).and_then(|()| self.store.sync());
        restored.expect("an empty store takes what a store held");
        self.rebuilding = true;
        self.image = Some(backup.epoch.unwrap_or(0));
    }

    /// A known bug: the restored store goes on as the one that was backed up.
    pub fn pretend(&mut self) {
        if let Some(backup) = &self.backup {
            (self.actor, self.reserved) = (backup.actor, backup.reserved);
            self.rebuilding = false;
            self.image = None;
        }
    }

    /// Makes sure that this counter may be used.
    pub fn reserve(&mut self, counter: u64) {
        if counter >= self.reserved {
            self.reserved = counter + BLOCK;
        }
    }

    /// The process dies: keeps what was synced and any of the rest. Answers whether a batch was lost.
    pub fn crash(&mut self, seed: u64, node: usize) -> bool {
        self.crashes += 1;
        let mut draw = Draw::of(seed, PURPOSE + node as u64 * 64, self.crashes);
        let (all, nothing) = (draw.chance(200), draw.chance(400));
        let mut lost = false;
        self.store.crash(|_| {
            let keep = all || (!nothing && draw.chance(500));
            lost |= !keep;
            keep
        });
        self.store.reopen().expect("a crash keeps what was synced");
        lost
    }

    /// What lies under a record, as its node reads it.
    ///
    /// # Errors
    /// [`Fenced`].
    pub fn read(&self, record: &[u8]) -> Result<Option<Bytes>, Fenced> {
        self.store
            .get(Space::Objects, record)
            .map_err(|_: ReadError| Fenced)
    }

    /// What lies under a record, as the ledger counts it: one that cannot be read is no copy.
    pub fn encoded(&self, record: &[u8]) -> Option<Bytes> {
        self.read(record).ok().flatten()
    }

    /// What is kept of a key for its owners.
    pub fn hint(&self, record: &[u8]) -> Option<Hint> {
        let bytes = self.store.get(Space::Hints, record);
        let bytes = bytes.expect("only copies are damaged here")?;
        Some(Hint::decode(&bytes).expect("only encoded hints are stored"))
    }

    /// The object under a record.
    pub fn object(&self, record: &[u8]) -> Object {
        self.encoded(record).map_or_else(Object::default, |bytes| {
            codec::decode(&bytes).expect("only encoded objects are stored")
        })
    }
}
