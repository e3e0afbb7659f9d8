//! Reads trees: all leaves of one, and pages of the keys under some of them.
//!
//! Bounded in keys and in records looked at, whatever lies between. A damaged record is stepped over and
//! named; a leaf that cannot be read is an error, for a tree with a hole in it would agree with nobody.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sibyl_core::flow::exchange::{PAGE_KEYS, Page};
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::merkle::{self, Tagger, Tree};
use sibyl_core::message::{Failure, Place};

use super::super::{record, taken_apart, unreadable};
use super::{parse, range, scan_over};
use crate::store::{ReadError, Space, Store, following, scan_all};

/// Records one page looks at, at most: at 1 KiB some 25 ms of a thread.
const PAGE_RECORDS: usize = 8 * 1024;
/// Records read at a time: 64 KiB at 1 KiB each.
const CHUNK: usize = 64;

/// A tree's leaves.
///
/// # Errors
/// [`Failure::Unreadable`].
pub fn leaves(store: &dyn Store, tree: Tree) -> Result<merkle::Leaves, Failure> {
    let (from, until) = range(tree.partition, Some(tree.n));
    let records = scan_all(store, Space::Leaves, &from, &until);
    let mut all = merkle::Leaves::default();
    for (key, content) in records.map_err(|error| unreadable(&error))? {
        let (_, leaf, sum) =
            parse(&key, &content).ok_or_else(|| Failure::Unreadable("a leaf is damaged".into()))?;
        all.set(leaf, sum);
    }
    Ok(all)
}

/// Which page is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Which tree.
    pub tree: Tree,
    /// Which leaves of it.
    pub leaves: &'a [u16],
    /// Where to begin, inclusive.
    pub from: Option<&'a Place>,
    /// The copies of each bucket.
    pub copies: &'a BTreeMap<Incarnation, u8>,
}

/// A page of keys with their tags, and the records of its range that cannot be read.
///
/// # Errors
/// [`ReadError::Failed`]: which records there are cannot be said.
pub fn page(
    store: &dyn Store,
    tagger: &Tagger,
    asked: &Asked<'_>,
) -> Result<(Page, Vec<Bytes>), ReadError> {
    let partition = asked.tree.partition;
    let wanted: BTreeSet<u16> = asked.leaves.iter().copied().collect();
    let listed = |bucket: Incarnation, key: &[u8]| {
        asked.copies.get(&bucket) == Some(&asked.tree.n)
            && wanted.contains(&merkle::leaf(bucket, key))
    };
    let until = record(Partition(partition.0 + 1), Incarnation(0), b"");
    let mut from = match asked.from {
        Some(place) => record(partition, place.bucket, &place.key),
        None => record(partition, Incarnation(0), b""),
    };
    let (mut page, mut unread, mut looked) = (Page::default(), Vec::new(), 0);
    loop {
        let (records, damaged) = scan_over(store, &from, &until, CHUNK)?;
        for (record, object) in &records {
            if let Some((_, bucket, key)) =
                taken_apart(record).filter(|(_, bucket, key)| listed(*bucket, key))
            {
                let tag = tagger.tag(bucket, key, object).node();
                page.entries.push((place_of(bucket, key), tag));
            }
        }
        let missing = damaged.iter().filter_map(|record| taken_apart(record));
        let missing = missing
            .filter(|(_, bucket, key)| listed(*bucket, key))
            .count();
        page.damaged += u32::try_from(missing).unwrap_or(u32::MAX);
        let found = records.len() + damaged.len();
        let last = records
            .last()
            .map(|(key, _)| key)
            .max(damaged.last())
            .cloned();
        unread.extend(damaged);
        looked += found;
        let Some(last) = last else {
            return Ok((page, unread));
        };
        from = following(&last);
        if page.entries.len() + CHUNK > PAGE_KEYS || looked >= PAGE_RECORDS {
            page.next = taken_apart(&from).map(|(_, bucket, key)| place_of(bucket, key));
            return Ok((page, unread));
        }
    }
}

/// A place of its own bytes.
pub(in crate::replica) fn place_of(bucket: Incarnation, key: &[u8]) -> Place {
    Place {
        bucket,
        key: Bytes::copy_from_slice(key),
    }
}
