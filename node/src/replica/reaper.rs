//! The writer's side of reaping: seals, what they are asked for, and the deletion of what all owners sealed.
//!
//! Seals lie in the writer's memory, so whatever changes a copy breaks its seal in the same step. A reaped copy goes
//! in one batch with its leaf, the count of tombstones and the partition's horizon: the epoch of its last reap. What
//! a restored store holds of a partition with a younger horizon is set aside here, out of sight of everybody. When
//! to ask for what is `tasks/reap`'s; what may be sealed is the core's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::id::{Digest, Partition};
use sibyl_core::message::{Failure, Place};
use sibyl_core::object::Object;
use sibyl_core::reap::{Seals, may_be_sealed};

use super::writer::{Round, Writer};
use super::{Done, Slot, taken_apart};
use crate::store::{IMAGE, ReadError, Space, Store, following, scan_all};

/// The most seals: with keys of 64 bytes some 128 MiB. What is beyond it is sealed when others are gone.
const MAX_SEALS: usize = 512 * 1024;
/// Where horizons lie among the node's own records, each under its partition.
const HORIZON: &[u8] = b"reap/horizon/";
/// Where a store says that it was filled in this epoch: what was reaped before it did not see.
pub(crate) const FLOOR: &str = "reap/floor";

/// What is asked of the writer.
pub(super) enum Asked {
    /// Seal what is deleted; answers how many copies of these are sealed once they are on disk.
    Seal {
        slots: Vec<Slot>,
        epoch: u64,
        now_ms: u64,
        window_ms: u64,
        done: Done<usize>,
    },
    /// In which epochs exactly these objects were sealed.
    Sealed {
        partition: Partition,
        places: Vec<(Place, Digest)>,
        done: Done<Vec<Option<u64>>>,
    },
    /// What was sealed in this epoch or before.
    Ripe {
        until: u64,
        after: Option<Vec<u8>>,
        limit: usize,
        done: Done<Vec<(Slot, Digest)>>,
    },
    /// Delete these, if their seals hold; answers how many were deleted.
    Reap {
        partition: Partition,
        places: Vec<(Place, Digest)>,
        epoch: u64,
        done: Done<usize>,
    },
    /// The epoch of a partition's last reap, behind everything that was asked before; 0: there was none.
    Horizon {
        partition: Partition,
        done: Done<u64>,
    },
    /// Put records of a space out of sight.
    SetAside {
        space: Space,
        records: Vec<Bytes>,
        done: Done<()>,
    },
    /// Forget these: what was set aside, or that there is something to judge.
    Drop {
        space: Space,
        keys: Vec<Bytes>,
        done: Done<()>,
    },
}

impl Asked {
    pub(super) fn refuse(self, failure: Failure) {
        match self {
            Self::Seal { done, .. } | Self::Reap { done, .. } => done(Err(failure)),
            Self::Sealed { done, .. } => done(Err(failure)),
            Self::Ripe { done, .. } => done(Err(failure)),
            Self::Horizon { done, .. } => done(Err(failure)),
            Self::SetAside { done, .. } | Self::Drop { done, .. } => done(Err(failure)),
        }
    }
}

/// What the writer knows of reaping.
pub(super) struct Reaper {
    pub(super) seals: Seals<Vec<u8>>,
    horizons: BTreeMap<Partition, u64>,
}

impl Reaper {
    pub(super) fn open(store: &dyn Store) -> Self {
        Self {
            seals: Seals::new(MAX_SEALS),
            horizons: horizons(store),
        }
    }
}

/// What a store remembers of its reaps. A record that cannot be read means that anything may have been reaped.
fn horizons(store: &dyn Store) -> BTreeMap<Partition, u64> {
    let mut until = HORIZON.to_vec();
    until.push(0xff);
    let records = scan_all(store, Space::Meta, HORIZON, &until);
    let records = records.unwrap_or_else(|error| {
        tracing::error!(%error, "the horizons of reaping cannot be read");
        Vec::new()
    });
    let horizon = |(key, value): (Bytes, Bytes)| {
        let partition = key.get(HORIZON.len()..)?.try_into().ok()?;
        let partition = Partition(u32::from_be_bytes(partition));
        Some((partition, number(&value).unwrap_or(u64::MAX)))
    };
    records.into_iter().filter_map(horizon).collect()
}

/// A number as it lies among the node's own records.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// What others may ask without waiting for the writer.
#[derive(Default)]
pub(super) struct Shared {
    sealed: AtomicU64,
    reaped: AtomicU64,
    /// The epoch the node is in.
    pub(super) epoch: AtomicU64,
    /// What was reaped until then this store may not have seen.
    pub(super) floor: AtomicU64,
    judging: Mutex<Judging>,
}

/// Which partitions of a store with an older state may be shown to others.
#[derive(Default)]
enum Judging {
    /// It holds no older state.
    #[default]
    Over,
    /// Only these.
    Judged(BTreeSet<Partition>),
}

impl Shared {
    pub(super) fn open(store: &dyn Store) -> Self {
        let shared = Self::default();
        let floor = store.get(Space::Meta, FLOOR.as_bytes()).ok().flatten();
        let floor = floor.map_or(0, |value| number(&value).unwrap_or(u64::MAX));
        shared.floor.store(floor, Ordering::Relaxed);
        // What cannot be read is there.
        if !matches!(store.get(Space::Meta, IMAGE.as_bytes()), Ok(None)) {
            *shared.lock() = Judging::Judged(BTreeSet::new());
        }
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Judging> {
        self.judging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_judged(&self, partition: Partition) -> bool {
        match &*self.lock() {
            Judging::Over => true,
            Judging::Judged(judged) => judged.contains(&partition),
        }
    }

    pub(super) fn judge(&self, partition: Partition) {
        if let Judging::Judged(judged) = &mut *self.lock() {
            judged.insert(partition);
        }
    }

    pub(super) fn judge_all(&self) {
        *self.lock() = Judging::Over;
    }

    pub(super) fn is_judging(&self) -> bool {
        matches!(*self.lock(), Judging::Judged(_))
    }

    pub(super) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    pub(super) fn reaped(&self) -> u64 {
        self.reaped.load(Ordering::Relaxed)
    }
}

/// Tells this once the batch counts.
fn then<T: Send + 'static>(done: Done<T>, value: T) -> Done<()> {
    Box::new(move |result| done(result.map(|()| value)))
}

fn slot(partition: Partition, place: Place) -> Slot {
    let n = 0;
    Slot {
        partition,
        n,
        place,
    }
}

impl Writer {
    pub(super) fn reaping(&mut self, asked: Asked, round: &mut Round) {
        match asked {
            Asked::Seal {
                slots,
                epoch,
                now_ms,
                window_ms,
                done,
            } => {
                let seal = |slot: &Slot| self.seal(slot, epoch, (now_ms, window_ms), round);
                let sealed = slots.iter().map(seal).filter(|sealed| *sealed).count();
                round.done.synced(then(done, sealed));
            }
            Asked::Sealed {
                partition,
                places,
                done,
            } => {
                let sealed = |(place, digest): (Place, Digest)| {
                    let record = slot(partition, place).record();
                    self.reaper.seals.sealed_in(&record[..], digest)
                };
                let sealed: Vec<_> = places.into_iter().map(sealed).collect();
                round.done.synced(then(done, sealed));
            }
            Asked::Ripe {
                until,
                after,
                limit,
                done,
            } => {
                let ripe = self.reaper.seals.until(until, after.as_ref());
                let ripe = ripe.filter_map(|(record, digest)| {
                    Some((Slot::of_hint(&Bytes::copy_from_slice(record))?, digest))
                });
                done(Ok(ripe.take(limit).collect()));
            }
            Asked::Reap {
                partition,
                places,
                epoch,
                done,
            } => {
                let reaped = self.reap_all(partition, places, epoch, round);
                round.done.synced(then(done, reaped));
            }
            Asked::Horizon { partition, done } => {
                let horizon = self.horizon(partition);
                round.done.buffered.push(then(done, horizon));
            }
            Asked::SetAside {
                space,
                records,
                done,
            } => {
                for record in &records {
                    self.set_aside(space, record, round);
                }
                round.done.synced(done);
            }
            Asked::Drop { space, keys, done } => {
                keys.iter().for_each(|key| round.batch.delete(space, key));
                round.done.synced(done);
            }
        }
        let sealed = self.reaper.seals.len() as u64;
        self.facts.reaping.sealed.store(sealed, Ordering::Relaxed);
    }

    /// Until when something of a partition was forgotten here, or was before it came here; 0: never.
    pub(super) fn horizon(&self, partition: Partition) -> u64 {
        let horizon = self.reaper.horizons.get(&partition);
        let floor = self.facts.reaping.floor.load(Ordering::Relaxed);
        horizon.copied().unwrap_or_default().max(floor)
    }

    fn seal(
        &mut self,
        slot: &Slot,
        epoch: u64,
        (now_ms, window_ms): (u64, u64),
        round: &Round,
    ) -> bool {
        // The epoch of this moment, not of that when it was asked: nobody may be two ahead of it.
        let epoch = epoch.max(self.facts.reaping.epoch.load(Ordering::SeqCst));
        let Ok(held) = self.load(slot, round) else {
            return false;
        };
        let object = held.into_object();
        may_be_sealed(&object, now_ms, window_ms)
            && self
                .reaper
                .seals
                .seal(slot.record(), codec::digest(&object), epoch)
    }

    fn reap_all(
        &mut self,
        partition: Partition,
        places: Vec<(Place, Digest)>,
        epoch: u64,
        round: &mut Round,
    ) -> usize {
        let reap = |(place, digest)| self.reap(&slot(partition, place), digest, round);
        let reaped = places.into_iter().map(reap);
        let reaped = reaped.filter(|reaped| *reaped).count();
        if reaped > 0 {
            self.raise_horizon(partition, epoch, round);
        }
        reaped
    }

    /// Forgets a copy whose seal holds. The line stays: whatever this node minted for the key was covered by what
    /// goes, and a fresh dot claims nothing below itself on a key that is not there.
    fn reap(&mut self, slot: &Slot, digest: Digest, round: &mut Round) -> bool {
        let record = slot.record();
        if self.reaper.seals.sealed_in(&record[..], digest).is_none() {
            return false;
        }
        let is_it = |object: &Object| codec::digest(object) == digest;
        if !self
            .load(slot, round)
            .is_ok_and(|held| is_it(&held.into_object()))
        {
            return false;
        }
        self.erase(&record, round);
        self.facts.reaping.reaped.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// What was reaped of a partition before this node became its owner it did not see.
    pub(super) fn gained(&mut self, partition: Partition, round: &mut Round) {
        let epoch = self.facts.reaping.epoch.load(Ordering::Relaxed);
        if epoch > 0 {
            self.raise_horizon(partition, epoch, round);
        }
    }

    fn raise_horizon(&mut self, partition: Partition, epoch: u64, round: &mut Round) {
        let horizon = self.reaper.horizons.entry(partition).or_default();
        *horizon = epoch.max(*horizon);
        let mut key = HORIZON.to_vec();
        key.extend(partition.0.to_be_bytes());
        let value = horizon.to_le_bytes().to_vec();
        round.batch.put(Space::Meta, &key, value);
    }

    /// What cannot be read is not worth keeping: it goes.
    fn set_aside(&mut self, space: Space, record: &Bytes, round: &mut Round) {
        let mut key = vec![space as u8];
        key.extend_from_slice(record);
        if let Ok(Some(value)) = self.ground.store.get(space, record) {
            round.batch.put(Space::Aside, &key, value);
        }
        match space {
            Space::Hints => self.forget_hint(record, round),
            _ => self.erase(record, round),
        }
        if let Some((partition, ..)) = taken_apart(record) {
            self.raise_line(partition);
        }
    }
}

/// The next keys of a space under a prefix, damaged ones included.
pub(super) fn keys(
    store: &dyn Store,
    space: Space,
    from: &[u8],
    until: &[u8],
    limit: usize,
) -> Result<Vec<Bytes>, Failure> {
    match store.scan(space, from, until, limit) {
        Ok(found) => Ok(found.into_iter().map(|(key, _)| key).collect()),
        Err(ReadError::Corrupt { key, .. }) => Ok(vec![key]),
        Err(error) => Err(super::unreadable(&error)),
    }
}

/// What of a store's objects holds nothing but tombstones, from a record on: their slots, and where to go on.
pub(super) fn deleted(
    store: &dyn Store,
    from: &[u8],
    limit: usize,
) -> Result<(Vec<Slot>, Option<Vec<u8>>), Failure> {
    let (records, damaged) = super::leaves::scan_over(store, from, b"", limit)
        .map_err(|error| super::unreadable(&error))?;
    let last = records.last().map(|(key, _)| key).max(damaged.last());
    let next = last.map(|key| following(key));
    let is_deleted =
        |bytes: &Bytes| codec::decode(bytes).is_ok_and(|object| super::census::is_deleted(&object));
    let deleted = records.iter().filter(|(_, bytes)| is_deleted(bytes));
    let slots = deleted
        .filter_map(|(record, _)| Slot::of_hint(record))
        .collect();
    Ok((slots, next))
}
