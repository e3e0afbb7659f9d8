//! The leaves of this node's Merkle trees: kept on disk, changed in the batch of the write they belong to.
//!
//! A write costs the hash of the object that goes and of the one that comes, and one leaf record. Batches are
//! atomic, so leaves and objects agree after any crash; a tree is *unclean* when that cannot be said: the store
//! was not closed in order, a build without leaves wrote it, a leaf is damaged, an object was replaced. An unclean partition is computed anew by the writer itself, in small steps
//! between batches: the sums of what lies up to a cursor are gathered beside the tree, a write at or before
//! the cursor changes them too, a write behind it will be met later, and the end replaces the leaves in one
//! batch. So no write is missed or counted twice, and a crash in the middle only means to begin again.
//! Invariant: in a clean partition each leaf is the sum over exactly the objects that reads see. A record that
//! could not be read is remembered as not counted: if it can be read again, the partition is unclean.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::merkle::{self, LEAVES, Sum, Tagger, Tree};

use super::{Slot, record};
use crate::store::{Batch, ReadError, Space, Store, following, scan_all};

mod cache;
mod marks;
pub mod read;
#[cfg(test)]
mod tests;

use cache::Cache;
pub use marks::Marks;

/// Records one step of a rebuild reads: at 1 KiB about 0.2 ms in which no write is taken.
const STEP_RECORDS: usize = 32;
/// Unreadable records remembered as not counted: with keys of 1 KiB 64 MiB. A partition beyond it stays unclean.
const MAX_UNCOUNTED: usize = 64 * 1024;

/// Where a leaf lies: partition, n, leaf; all leaves of a partition are neighbours.
fn leaf_record(tree: Tree, leaf: u16) -> Vec<u8> {
    let mut record = tree.partition.0.to_be_bytes().to_vec();
    record.push(tree.n);
    record.extend(leaf.to_be_bytes());
    record
}

/// Reads a leaf's key and content.
pub(super) fn parse(record: &[u8], content: &[u8]) -> Option<(u8, u16, Sum)> {
    let [n, high, low]: [u8; 3] = record.get(4..)?.try_into().ok()?;
    Some((n, u16::from_be_bytes([high, low]), sum(content)?))
}

fn sum(content: &[u8]) -> Option<Sum> {
    content.try_into().ok().map(Sum::from_bytes)
}

/// The range of a partition's leaves, or of one tree's.
pub(super) fn range(partition: Partition, n: Option<u8>) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut until) = (partition.0.to_be_bytes().to_vec(), Vec::new());
    match n {
        Some(n) => {
            from.push(n);
            until.extend(partition.0.to_be_bytes());
            until.push(n.saturating_add(1));
        }
        None => until.extend((partition.0 + 1).to_be_bytes()),
    }
    (from, until)
}

/// The leaf changes of one batch.
#[derive(Debug, Default)]
pub struct Changes {
    leaves: BTreeMap<(Tree, u16), Sum>,
}

/// How a step of a rebuild went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether the partition is done.
    pub done: bool,
    /// How many leaves were wrong, once it is done.
    pub wrong: usize,
    /// Records that could not be read and were stepped over.
    pub damaged: Vec<Bytes>,
}

/// A partition that is being computed anew.
#[derive(Debug)]
struct Rebuild {
    partition: Partition,
    /// Everything up to and including this record is in the sums; `None`: nothing is.
    through: Option<Bytes>,
    sums: BTreeMap<u8, merkle::Leaves>,
    /// What could not be read and is not in the sums.
    missing: BTreeSet<Bytes>,
}

/// The leaves of one store, and what is known about them. Owned by the writer.
#[derive(Debug)]
pub struct Leaves {
    tagger: Option<Tagger>,
    marks: Marks,
    /// Buckets and their copies: an erased record's tree must be known after the bucket is gone.
    copies: BTreeMap<Incarnation, u8>,
    cache: Cache,
    rebuild: Option<Rebuild>,
    /// Records that no leaf counts, because they could not be read when their partition was computed.
    uncounted: BTreeSet<Bytes>,
}

impl Leaves {
    /// Reads what the store says about its leaves; what it does not say, or cannot, is unclean.
    pub fn open(store: &dyn Store) -> Self {
        Self {
            tagger: None,
            marks: Marks::read(store),
            copies: marks::read_copies(store),
            cache: Cache::default(),
            rebuild: None,
            uncounted: BTreeSet::new(),
        }
    }

    /// From now on tags can be made: the cluster key is known before the first object is.
    pub fn use_tagger(&mut self, tagger: &Tagger) {
        self.tagger.get_or_insert_with(|| tagger.clone());
    }

    /// What is clean and what is not.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The tag of an object as it lies in the store.
    pub fn tag(&self, bucket: Incarnation, key: &[u8], object: &[u8]) -> Sum {
        let tagger = self.tagger.as_ref();
        tagger.map_or(Sum::ZERO, |tagger| tagger.tag(bucket, key, object))
    }

    /// An object takes the place of another (of none: zero) in this batch.
    pub fn change(
        &mut self,
        changes: &mut Changes,
        batch: &mut Batch,
        slot: &Slot,
        gone: Sum,
        come: Sum,
    ) {
        if self.tagger.is_none() {
            return self.spoil(slot.partition, batch);
        }
        let bucket = slot.place.bucket;
        if self.copies.insert(bucket, slot.n) != Some(slot.n) {
            marks::put_copies(batch, bucket, slot.n);
        }
        let record = slot.record();
        if self.is_uncounted(&record) {
            return self.spoil(slot.partition, batch);
        }
        self.shift(changes, &record, slot.n, bucket, gone, come);
    }

    /// Whether a record's leaf does not count it, because it could not be read.
    fn is_uncounted(&self, record: &[u8]) -> bool {
        let rebuild = self.rebuild.as_ref();
        self.uncounted.contains(record)
            || rebuild.is_some_and(|rebuild| rebuild.missing.contains(record))
    }

    /// A record that could not be read can be read again: if it was not counted, its partition is unclean.
    pub fn readable(&mut self, partition: Partition, record: &[u8], batch: &mut Batch) {
        if self.is_uncounted(record) {
            self.spoil(partition, batch);
        }
    }

    /// A record goes for good; its tree is the one that its bucket had.
    pub fn erase(
        &mut self,
        changes: &mut Changes,
        batch: &mut Batch,
        record: &[u8],
        object: Option<&[u8]>,
    ) {
        let Some((partition, bucket, key)) = super::taken_apart(record) else {
            return;
        };
        match (self.copies.get(&bucket).copied(), object) {
            _ if self.is_uncounted(record) => self.spoil(partition, batch),
            (Some(n), Some(object)) => {
                let gone = self.tag(bucket, key, object);
                self.shift(changes, record, n, bucket, gone, Sum::ZERO);
            }
            // Nobody has counted it.
            (None, Some(_)) => {}
            (_, None) => self.spoil(partition, batch),
        }
    }

    fn shift(
        &mut self,
        changes: &mut Changes,
        record: &[u8],
        n: u8,
        bucket: Incarnation,
        gone: Sum,
        come: Sum,
    ) {
        let Some((partition, _, key)) = super::taken_apart(record) else {
            return;
        };
        let leaf = merkle::leaf(bucket, key);
        let change = changes
            .leaves
            .entry((Tree { partition, n }, leaf))
            .or_default();
        *change = change.minus(gone).plus(come);
        let rebuild = self
            .rebuild
            .as_mut()
            .filter(|rebuild| rebuild.partition == partition);
        if let Some(rebuild) = rebuild
            && rebuild
                .through
                .as_ref()
                .is_some_and(|through| record <= &through[..])
        {
            rebuild.sums.entry(n).or_default().change(leaf, gone, come);
        }
    }

    /// This partition's leaves are no longer known to be right; says so in the batch.
    pub fn spoil(&mut self, partition: Partition, batch: &mut Batch) {
        if self
            .rebuild
            .as_ref()
            .is_some_and(|rebuild| rebuild.partition == partition)
        {
            self.rebuild = None;
        }
        self.mark(partition, batch);
    }

    fn mark(&mut self, partition: Partition, batch: &mut Batch) {
        if self.marks.spoil(partition) {
            self.marks.put(batch);
        }
    }

    /// Puts the changed leaves into the batch, each once.
    pub fn seal(&mut self, store: &dyn Store, changes: Changes, batch: &mut Batch) {
        for ((tree, leaf), change) in changes.leaves {
            if change == Sum::ZERO {
                continue;
            }
            match self.cache.get(store, tree, leaf) {
                Some(sum) => self.put(batch, tree, leaf, sum.plus(change)),
                // A rebuild under way goes on: it does not look at leaves, and replaces this one at its end. To
                // begin again with every write of a hot key would be never to end.
                None => self.mark(tree.partition, batch),
            }
        }
    }

    fn put(&mut self, batch: &mut Batch, tree: Tree, leaf: u16, sum: Sum) {
        let record = leaf_record(tree, leaf);
        if sum == Sum::ZERO {
            batch.delete(Space::Leaves, &record);
        } else {
            batch.put(Space::Leaves, &record, sum.to_bytes().to_vec());
        }
        self.cache.put(tree, leaf, sum);
    }

    /// The store is being closed: what the next start finds after exactly this batch can be believed.
    pub fn close(&mut self, store: &dyn Store, batch: &mut Batch) {
        self.marks.closed_at(store.last_batch() + 1);
        self.marks.put(batch);
    }
}

impl Leaves {
    /// One step of computing a partition's leaves from its objects. Call it between batches only: everything
    /// changed so far must be visible in the store. `known` are the copies of the buckets that there are.
    ///
    /// # Errors
    /// [`ReadError::Failed`]: which objects there are cannot be said.
    pub fn step(
        &mut self,
        store: &dyn Store,
        partition: Partition,
        known: &BTreeMap<Incarnation, u8>,
        batch: &mut Batch,
    ) -> Result<Step, ReadError> {
        if self.tagger.is_none() {
            return Ok(Step {
                done: false,
                wrong: 0,
                damaged: Vec::new(),
            });
        }
        for (bucket, n) in known {
            if self.copies.insert(*bucket, *n) != Some(*n) {
                marks::put_copies(batch, *bucket, *n);
            }
        }
        let under_way = self
            .rebuild
            .take()
            .filter(|rebuild| rebuild.partition == partition);
        let mut rebuild = under_way.unwrap_or_else(|| Rebuild {
            partition,
            through: None,
            sums: BTreeMap::new(),
            missing: BTreeSet::new(),
        });
        let from = match &rebuild.through {
            Some(through) => following(through),
            None => record(partition, Incarnation(0), b""),
        };
        let until = record(Partition(partition.0 + 1), Incarnation(0), b"");
        let (records, damaged) = scan_over(store, &from, &until, STEP_RECORDS)?;
        let last = records
            .last()
            .map(|(key, _)| key)
            .max(damaged.last())
            .cloned();
        for (key, content) in &records {
            self.count(&mut rebuild.sums, key, content);
        }
        rebuild.missing.extend(damaged.iter().cloned());
        match last {
            Some(last) => {
                rebuild.through = Some(last);
                self.rebuild = Some(rebuild);
                Ok(Step {
                    done: false,
                    wrong: 0,
                    damaged,
                })
            }
            // Nothing is left: only that is the end.
            None => {
                let wrong = self.finish(store, rebuild, batch);
                Ok(Step {
                    done: true,
                    wrong,
                    damaged,
                })
            }
        }
    }

    fn count(&self, sums: &mut BTreeMap<u8, merkle::Leaves>, record: &[u8], object: &[u8]) {
        let Some((_, bucket, key)) = super::taken_apart(record) else {
            return;
        };
        // A bucket that nobody knows is about to be erased.
        if let Some(n) = self.copies.get(&bucket) {
            let tag = self.tag(bucket, key, object);
            sums.entry(*n)
                .or_default()
                .change(merkle::leaf(bucket, key), Sum::ZERO, tag);
        }
    }

    /// Replaces the leaves by what was counted; answers how many were wrong.
    fn finish(&mut self, store: &dyn Store, mut rebuild: Rebuild, batch: &mut Batch) -> usize {
        let partition = rebuild.partition;
        let mut sums = std::mem::take(&mut rebuild.sums);
        let held = held(store, partition);
        let mut wrong = 0;
        let ns: BTreeSet<u8> = sums
            .keys()
            .chain(self.copies.values())
            .copied()
            .chain(held.iter().flat_map(|held| held.keys().map(|(n, _)| *n)))
            .collect();
        for n in ns {
            let (tree, right) = (Tree { partition, n }, sums.remove(&n).unwrap_or_default());
            self.cache.mended(tree);
            let leaves: BTreeSet<u16> = match &held {
                Some(held) => {
                    let held = held
                        .range((n, 0)..=(n, u16::MAX))
                        .map(|((_, leaf), _)| *leaf);
                    held.chain(right.iter().map(|(leaf, _)| leaf)).collect()
                }
                None => (0..LEAVES).collect(),
            };
            for leaf in leaves {
                let there = held
                    .as_ref()
                    .map(|held| held.get(&(n, leaf)).copied().unwrap_or_default());
                if there != Some(right.get(leaf)) {
                    wrong += usize::from(there.is_some());
                    self.put(batch, tree, leaf, right.get(leaf));
                }
            }
        }
        let (from, until) = (
            Bytes::from(record(partition, Incarnation(0), b"")),
            Bytes::from(record(Partition(partition.0 + 1), Incarnation(0), b"")),
        );
        let mut behind = self.uncounted.split_off(&from);
        self.uncounted.append(&mut behind.split_off(&until));
        let room = MAX_UNCOUNTED.saturating_sub(self.uncounted.len());
        let (holes, fits) = (!rebuild.missing.is_empty(), rebuild.missing.len() <= room);
        if fits {
            self.uncounted.append(&mut rebuild.missing);
        }
        if fits && self.marks.clean(partition, holes) {
            self.marks.put(batch);
        }
        wrong
    }
}

/// All leaves of a partition; `None` if some cannot be read.
fn held(store: &dyn Store, partition: Partition) -> Option<BTreeMap<(u8, u16), Sum>> {
    let (from, until) = range(partition, None);
    let records = scan_all(store, Space::Leaves, &from, &until).ok()?;
    let leaf = |(key, content): &(Bytes, Bytes)| {
        let (n, leaf, sum) = parse(key, content)?;
        Some(((n, leaf), sum))
    };
    records.iter().map(leaf).collect()
}

/// Records, and the keys of those that could not be read.
pub(super) type Scanned = (Vec<(Bytes, Bytes)>, Vec<Bytes>);

/// The next objects, or the key of the one record in front that fails its checksum; nothing at the end.
pub(super) fn scan_over(
    store: &dyn Store,
    from: &[u8],
    until: &[u8],
    limit: usize,
) -> Result<Scanned, ReadError> {
    match store.scan(Space::Objects, from, until, limit) {
        Ok(records) => Ok((records, Vec::new())),
        Err(ReadError::Corrupt { key, .. }) => {
            let before = store.scan(Space::Objects, from, &key, limit)?;
            let damaged = before.is_empty().then_some(key);
            Ok((before, damaged.into_iter().collect()))
        }
        Err(failed) => Err(failed),
    }
}
