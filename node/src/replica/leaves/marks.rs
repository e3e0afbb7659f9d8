//! What is known about the leaves as a whole: which partitions are clean, and how many copies a bucket has.
//!
//! One small record for the former and one per bucket for the latter, in the leaves' own space behind all
//! partitions. A store that was closed in order says at which batch; if the next start finds another one,
//! nothing is believed. An empty store is clean.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sibyl_core::id::{Incarnation, Partition};

use crate::store::{Batch, Space, Store, scan_all};

/// Behind every partition: there are at most 2^16.
const BESIDE: [u8; 4] = [0xff; 4];
/// The version of the marks, and of what the sums are made of.
const VERSION: u8 = 1;

/// What is clean and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The number of the batch that closed the store.
    closed_at: u64,
    /// This partition and all behind it are unclean.
    all_from: Option<u32>,
    /// These are, too.
    single: BTreeSet<u32>,
    /// Clean, but for records that could not be read: as good as can be had now, and computed anew by the next
    /// start, which does not know which records those are.
    holed: BTreeSet<u32>,
}

fn place(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut place = BESIDE.to_vec();
    place.push(kind);
    place.extend(rest);
    place
}

impl Marks {
    /// Reads a store's marks.
    pub(super) fn read(store: &dyn Store) -> Self {
        let unclean = Self {
            all_from: Some(0),
            ..Self::default()
        };
        let kept = store.get(Space::Leaves, &place(b'm', b""));
        match kept.map(|kept| kept.map(|bytes| Self::decode(&bytes))) {
            Ok(Some(Some(marks))) if marks.closed_at == store.last_batch() => marks,
            Ok(None) => match store.scan(Space::Objects, b"", b"", 1) {
                Ok(objects) if objects.is_empty() => Self::default(),
                _ => unclean,
            },
            _ => unclean,
        }
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (closed_at, rest) = rest.split_first_chunk::<8>()?;
        let mut words = rest
            .chunks_exact(4)
            .map(|word| word.try_into().map(u32::from_be_bytes).unwrap_or(0));
        let all_from = words.next()?;
        (*version == VERSION).then(|| Self {
            closed_at: u64::from_be_bytes(*closed_at),
            all_from: Some(all_from).filter(|from| *from != u32::MAX),
            single: words.collect(),
            holed: BTreeSet::new(),
        })
    }

    /// Puts them into a batch.
    pub(super) fn put(&self, batch: &mut Batch) {
        let mut bytes = vec![VERSION];
        bytes.extend(self.closed_at.to_be_bytes());
        bytes.extend(self.all_from.unwrap_or(u32::MAX).to_be_bytes());
        let unclean = self.single.union(&self.holed);
        unclean.for_each(|partition| bytes.extend(partition.to_be_bytes()));
        batch.put(Space::Leaves, &place(b'm', b""), bytes);
    }

    pub(super) fn closed_at(&mut self, batch: u64) {
        self.closed_at = batch;
    }

    /// Whether a partition's leaves are known to be right.
    pub fn is_clean(&self, partition: Partition) -> bool {
        self.all_from.is_none_or(|from| partition.0 < from) && !self.single.contains(&partition.0)
    }

    /// Unclean partitions among the first so many.
    pub fn unclean(&self, partitions: u32) -> impl Iterator<Item = Partition> + '_ {
        (0..partitions)
            .map(Partition)
            .filter(|partition| !self.is_clean(*partition))
    }

    /// A partition is unclean now; answers whether that is new.
    pub(super) fn spoil(&mut self, partition: Partition) -> bool {
        self.holed.remove(&partition.0);
        self.is_clean(partition) && self.single.insert(partition.0)
    }

    /// A partition is clean now, with or without a hole; answers whether that is new. Partitions come in order
    /// when all are unclean: those in front of this one become single marks.
    pub(super) fn clean(&mut self, partition: Partition, holed: bool) -> bool {
        let changed = match holed {
            true => self.holed.insert(partition.0),
            false => self.holed.remove(&partition.0),
        };
        let new = !self.is_clean(partition) || changed;
        self.single.remove(&partition.0);
        if let Some(from) = self.all_from.filter(|from| *from <= partition.0) {
            self.single.extend(from..partition.0);
            self.all_from = Some(partition.0 + 1);
        }
        new
    }
}

/// The copies of the buckets that wrote here.
pub(super) fn read_copies(store: &dyn Store) -> BTreeMap<Incarnation, u8> {
    let (from, until) = (place(b'n', b""), place(b'n' + 1, b""));
    // A record that cannot be read is written again with the next write of its bucket.
    let records = scan_all(store, Space::Leaves, &from, &until).unwrap_or_default();
    let copies = |(key, content): &(Bytes, Bytes)| {
        let bucket = u64::from_be_bytes(key.get(5..)?.try_into().ok()?);
        Some((Incarnation(bucket), *content.first()?))
    };
    records.iter().filter_map(copies).collect()
}

pub(super) fn put_copies(batch: &mut Batch, bucket: Incarnation, n: u8) {
    let content = Bytes::copy_from_slice(&[n]);
    batch.put(
        Space::Leaves,
        &place(b'n', &bucket.0.to_be_bytes()),
        content,
    );
}
