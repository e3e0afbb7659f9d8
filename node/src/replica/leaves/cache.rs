//! Leaves in memory, so that a write need not read the one it changes.
//!
//! Keys spread evenly, so the next write's leaf is seldom one that was seen lately: what helps is to have all of a
//! tree. A tree that is asked for again and again is read once, in one scan, and then kept whole; trees beyond the
//! limit have the leaves seen last. Only the writer changes leaves, and it is the only one who looks here.
//! Invariant: what is found here is what the store holds once the batch under way is applied.

use std::collections::HashMap;

use sibyl_core::merkle::{LEAVES, Sum, Tree};

use super::{leaf_record, parse, range, sum};
use crate::store::{Space, Store, scan_all};

/// Trees kept whole: 4,096 leaves of 32 bytes are 128 KiB, so 64 MiB. A cluster of 256 partitions and buckets of one
/// n has 256 at most on each node, and half of them with twice as many nodes as copies. Tests have few of each, so
/// that they come this way.
const MAX_WHOLE: usize = if cfg!(test) { 3 } else { 512 };
/// Leaves of one tree that are read one by one before all are: a scan of a full tree costs as much as some
/// hundred reads, one of an empty tree as a few.
const READS_BEFORE_SCAN: u16 = if cfg!(test) { 4 } else { 16 };
/// Leaves of other trees, remembered twice: 32,768 of about 64 bytes are 2 MiB. A miss costs a read.
const RECENT: usize = 32 * 1024;

/// How a tree is held.
#[derive(Debug)]
enum Held {
    /// Not; so many of its leaves were read.
    Read(u16),
    /// Not, and it will not be: some of it could not be read.
    Never,
    /// Whole.
    Whole(Box<[Sum]>),
}

/// What the writer knows of leaves without reading.
#[derive(Debug, Default)]
pub(super) struct Cache {
    trees: HashMap<Tree, Held>,
    whole: usize,
    young: HashMap<(Tree, u16), Sum>,
    old: HashMap<(Tree, u16), Sum>,
}

impl Cache {
    /// A leaf; `None` if its record is damaged.
    pub(super) fn get(&mut self, store: &dyn Store, tree: Tree, leaf: u16) -> Option<Sum> {
        if let Some(Held::Whole(leaves)) = self.trees.get(&tree) {
            return Some(leaves[usize::from(leaf)]);
        }
        if let Some(sum) = self.recent(tree, leaf) {
            return Some(sum);
        }
        if self.is_due(tree) {
            match self.whole_tree(store, tree) {
                Some(leaves) => {
                    let found = leaves[usize::from(leaf)];
                    self.trees.insert(tree, Held::Whole(leaves));
                    self.whole += 1;
                    return Some(found);
                }
                None => self.trees.insert(tree, Held::Never),
            };
        }
        match store.get(Space::Leaves, &leaf_record(tree, leaf)) {
            Ok(Some(content)) => sum(&content),
            Ok(None) => Some(Sum::ZERO),
            Err(_) => None,
        }
    }

    /// A leaf's new content is in the batch.
    pub(super) fn put(&mut self, tree: Tree, leaf: u16, sum: Sum) {
        if let Some(Held::Whole(leaves)) = self.trees.get_mut(&tree) {
            leaves[usize::from(leaf)] = sum;
            return;
        }
        self.young.insert((tree, leaf), sum);
        if self.young.len() >= RECENT {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// All leaves of a tree are written anew by this batch: it can be read again.
    pub(super) fn mended(&mut self, tree: Tree) {
        if let Some(Held::Never) = self.trees.get(&tree) {
            self.trees.remove(&tree);
        }
    }

    fn recent(&self, tree: Tree, leaf: u16) -> Option<Sum> {
        let at = (tree, leaf);
        self.young.get(&at).or_else(|| self.old.get(&at)).copied()
    }

    /// Counts a read of a tree; says whether all of it is to be read.
    fn is_due(&mut self, tree: Tree) -> bool {
        match self.trees.entry(tree).or_insert(Held::Read(0)) {
            Held::Read(reads) => {
                *reads = reads.saturating_add(1);
                *reads >= READS_BEFORE_SCAN && self.whole < MAX_WHOLE
            }
            Held::Never | Held::Whole(_) => false,
        }
    }

    /// All leaves, with what the batch under way already changed; `None` if some cannot be read.
    fn whole_tree(&self, store: &dyn Store, tree: Tree) -> Option<Box<[Sum]>> {
        let (from, until) = range(tree.partition, Some(tree.n));
        let mut leaves = vec![Sum::ZERO; usize::from(LEAVES)].into_boxed_slice();
        for (record, content) in scan_all(store, Space::Leaves, &from, &until).ok()? {
            let (_, leaf, sum) = parse(&record, &content)?;
            *leaves.get_mut(usize::from(leaf))? = sum;
        }
        for (leaf, held) in (0..LEAVES).zip(leaves.iter_mut()) {
            if let Some(sum) = self.recent(tree, leaf) {
                *held = sum;
            }
        }
        Some(leaves)
    }
}
