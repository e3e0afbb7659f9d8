//! What a node keeps when its process dies: the store's memory twin and what lies in the watermark file.
//!
//! The store's batches are ordered and unsynced until a sync; a crash keeps any subset of the unsynced
//! ones. The watermark (actor, reserved counters, promises) is small and synced on its own. A wipe takes
//! all of it: what comes after is another actor.

use std::collections::BTreeSet;

use bytes::Bytes;
use sibyl::store::memory::Memory;
use sibyl::store::{Space, Store as _};
use sibyl_core::codec;
use sibyl_core::hint::Hint;
use sibyl_core::id::{Actor, Partition};
use sibyl_core::object::Object;

use crate::draw::Draw;

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
    /// Until when syncs are slow.
    pub slow_until_us: u64,
    crashes: u64,
}

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
            slow_until_us: 0,
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
        self.epoch = None;
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

    /// What lies under a record.
    pub fn encoded(&self, record: &[u8]) -> Option<Bytes> {
        let bytes = self.store.get(Space::Objects, record);
        bytes.expect("no read fault is switched on")
    }

    /// What is kept of a key for its owners.
    pub fn hint(&self, record: &[u8]) -> Option<Hint> {
        let bytes = self.store.get(Space::Hints, record);
        let bytes = bytes.expect("no read fault is switched on")?;
        Some(Hint::decode(&bytes).expect("only encoded hints are stored"))
    }

    /// The object under a record.
    pub fn object(&self, record: &[u8]) -> Object {
        self.encoded(record).map_or_else(Object::default, |bytes| {
            codec::decode(&bytes).expect("only encoded objects are stored")
        })
    }
}
