//! Reaping as the rest of the node sees it: what is asked of the writer, and what of the store.
//!
//! The writer's part is in `reaper`. Nothing here knows when something may be forgotten.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::id::{Digest, Partition};
use sibyl_core::message::{Failure, Place};
use tokio::sync::oneshot;

use super::reaper::{self, Asked, FLOOR, number};
use super::{Command, Done, Replica, Slot, record, unreadable};
use crate::store::{IMAGE, Space, following};

/// Records set aside, or looked at again, at a time.
const PAGE: usize = 256;

/// When copies are sealed.
#[derive(Clone, Copy, Debug)]
pub struct Sealing {
    /// The epoch.
    pub epoch: u64,
    /// The clock.
    pub now_ms: u64,
    /// For how long receipts are kept.
    pub window_ms: u64,
}

impl Replica {
    async fn reaping<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Done<T>) -> Asked,
    ) -> Result<T, Failure> {
        let (done, told) = oneshot::channel();
        // The waiter may be gone; it is done all the same.
        let asked = ask(Box::new(move |result| drop(done.send(result))));
        let sent = self.queue.send(Command::Reaping(asked)).await;
        sent.map_err(|_| self.stopped())?;
        told.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Seals copies that hold nothing but tombstones; answers how many of these are sealed, once they are on disk.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed; so everywhere here.
    pub async fn seal(&self, slots: Vec<Slot>, when: Sealing) -> Result<usize, Failure> {
        self.reaping(|done| Asked::Seal {
            slots,
            epoch: when.epoch,
            now_ms: when.now_ms,
            window_ms: when.window_ms,
            done,
        })
        .await
    }

    /// In which epochs exactly these objects were sealed here.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn sealed(
        &self,
        partition: Partition,
        places: Vec<(Place, Digest)>,
    ) -> Result<Vec<Option<u64>>, Failure> {
        self.reaping(|done| Asked::Sealed {
            partition,
            places,
            done,
        })
        .await
    }

    /// What was sealed here in this epoch or before, behind a key, at most so many.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn ripe(
        &self,
        until: u64,
        after: Option<&Slot>,
        limit: usize,
    ) -> Result<Vec<(Slot, Digest)>, Failure> {
        let after = after.map(Slot::record);
        self.reaping(|done| Asked::Ripe {
            until,
            after,
            limit,
            done,
        })
        .await
    }

    /// Forgets copies whose seals hold; answers how many, once that is on disk.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn reap(
        &self,
        partition: Partition,
        places: Vec<(Place, Digest)>,
        epoch: u64,
    ) -> Result<usize, Failure> {
        self.reaping(|done| Asked::Reap {
            partition,
            places,
            epoch,
            done,
        })
        .await
    }

    /// The epoch of a partition's last reap here, behind everything that was asked before; 0: there was none.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn horizon(&self, partition: Partition) -> Result<u64, Failure> {
        self.reaping(|done| Asked::Horizon { partition, done })
            .await
    }

    /// Copies that hold nothing but tombstones, from a place in the store on; where to go on, if anywhere. Blocks.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn deleted(
        &self,
        from: &[u8],
        limit: usize,
    ) -> Result<(Vec<Slot>, Option<Vec<u8>>), Failure> {
        reaper::deleted(self.store.as_ref(), from, limit)
    }

    /// The node entered an epoch.
    pub fn entered(&self, epoch: u64) {
        let order = std::sync::atomic::Ordering::SeqCst;
        self.facts.reaping.epoch.store(epoch, order);
    }

    /// This store is filled from now on: what was reaped before, by anybody, it did not see.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn filled_since(&self, epoch: u64) -> Result<(), Failure> {
        let order = std::sync::atomic::Ordering::Relaxed;
        self.facts.reaping.floor.fetch_max(epoch, order);
        let value = Bytes::copy_from_slice(&epoch.to_le_bytes());
        self.remember(FLOOR, value).await
    }

    /// How many copies are sealed.
    pub fn seals(&self) -> u64 {
        self.facts.reaping.sealed()
    }

    /// How many copies were reaped since the start.
    pub fn reaped(&self) -> u64 {
        self.facts.reaping.reaped()
    }

    /// Whether what lies here of a partition may be shown to others. Not while the store holds an older state that
    /// nobody has held against the partition's horizon.
    pub fn is_judged(&self, partition: Partition) -> bool {
        self.facts.reaping.is_judged(partition)
    }

    /// Whether some partition is not judged yet.
    pub fn is_judging(&self) -> bool {
        self.facts.reaping.is_judging()
    }

    /// The epoch of the older state that this store was made of.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn image(&self) -> Result<Option<u64>, Failure> {
        let kept = self.kept(IMAGE)?;
        Ok(kept.map(|value| number(&value).unwrap_or_default()))
    }

    /// A partition's older state may be shown.
    pub fn judge(&self, partition: Partition) {
        self.facts.reaping.judge(partition);
    }

    /// Every partition is judged: the store is like any other.
    ///
    /// # Errors
    /// As [`Replica::seal`].
    pub async fn judge_all(&self) -> Result<(), Failure> {
        let (space, keys) = (Space::Meta, vec![Bytes::from_static(IMAGE.as_bytes())]);
        self.reaping(|done| Asked::Drop { space, keys, done })
            .await?;
        self.facts.reaping.judge_all();
        Ok(())
    }

    /// Whether objects or hints lie in a partition. Blocks.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn has_records(&self, partition: Partition) -> Result<bool, Failure> {
        let (from, until) = range(partition);
        let mut found = false;
        for space in [Space::Objects, Space::Hints] {
            let keys = reaper::keys(self.store.as_ref(), space, &from, &until, 1)?;
            found |= !keys.is_empty();
        }
        Ok(found)
    }

    /// Puts everything of a partition out of sight; answers how many records. Ends: what was set aside is not
    /// found again.
    ///
    /// # Errors
    /// [`Failure`] if the store cannot be read or written.
    pub async fn set_aside(&self, partition: Partition) -> Result<usize, Failure> {
        let (from, until) = range(partition);
        let mut moved = 0;
        for space in [Space::Objects, Space::Hints] {
            loop {
                let records = reaper::keys(self.store.as_ref(), space, &from, &until, PAGE)?;
                if records.is_empty() {
                    break;
                }
                moved += records.len();
                self.reaping(|done| Asked::SetAside {
                    space,
                    records,
                    done,
                })
                .await?;
            }
        }
        Ok(moved)
    }

    /// Forgets what was set aside and is known by now: nothing of it is missing in this node's copy. Answers how
    /// many records are left. Ends: every page begins behind the last.
    ///
    /// # Errors
    /// [`Failure`] if the store cannot be read or written.
    pub async fn review_aside(&self) -> Result<usize, Failure> {
        let (mut from, mut left) = (Vec::new(), 0);
        loop {
            let page = self.store.scan(Space::Aside, &from, b"", PAGE);
            let page = page.map_err(|error| unreadable(&error))?;
            let Some((last, _)) = page.last() else {
                return Ok(left);
            };
            from = following(last);
            let (total, mut keys) = (page.len(), Vec::new());
            for (key, value) in page {
                if self.is_known(&key, &value) {
                    keys.push(key);
                }
            }
            left += total - keys.len();
            if !keys.is_empty() {
                let space = Space::Aside;
                self.reaping(|done| Asked::Drop { space, keys, done })
                    .await?;
            }
        }
    }

    fn is_known(&self, key: &Bytes, value: &Bytes) -> bool {
        let Some((space, record)) = key.split_first() else {
            return true;
        };
        let object = match Space::of(*space) {
            Some(Space::Hints) => sibyl_core::hint::Hint::decode(value)
                .map(|hint| hint.object)
                .ok(),
            _ => codec::decode(value).ok(),
        };
        let own = self.store.get(Space::Objects, record);
        let own = own
            .ok()
            .flatten()
            .and_then(|bytes| codec::decode(&bytes).ok());
        match (object, own) {
            (Some(object), Some(mut own)) => !own.join(&object),
            _ => false,
        }
    }
}

fn range(partition: Partition) -> (Vec<u8>, Vec<u8>) {
    use sibyl_core::id::Incarnation;
    let until = Partition(partition.0 + 1);
    (
        record(partition, Incarnation(0), b""),
        record(until, Incarnation(0), b""),
    )
}
