//! **A leaf is the sum over exactly the objects that its store holds, and equal copies have equal roots.**
//!
//! Source: cluster, *Anti-entropy*: leaves change in the write's own batch. So it holds on every disk at every
//! moment, also right after a crash that kept any subset of what was not synced.

use std::collections::BTreeMap;

use bytes::Bytes;
use sibyl::replica::Slot;
use sibyl::replica::leaves::read;
use sibyl::store::Store;
use sibyl_core::merkle::{self, Leaves, Node, Sum, Tagger, Tree};

use super::{Held, broken};

/// The leaves of some objects.
pub fn sums<'a>(
    tagger: &Tagger,
    objects: impl Iterator<Item = (&'a Slot, Bytes)>,
) -> BTreeMap<Tree, Leaves> {
    let mut sums: BTreeMap<Tree, Leaves> = BTreeMap::new();
    for (slot, object) in objects {
        let tree = Tree {
            partition: slot.partition,
            n: slot.n,
        };
        let (bucket, key) = (slot.place.bucket, &slot.place.key);
        let tag = tagger.tag(bucket, key, &object);
        sums.entry(tree)
            .or_default()
            .change(merkle::leaf(bucket, key), Sum::ZERO, tag);
    }
    sums
}

/// Compares a store's leaves with what they must be.
///
/// # Errors
/// The violation.
pub fn check(store: &dyn Store, right: &BTreeMap<Tree, Leaves>) -> Held {
    for (tree, right) in right {
        match read::leaves(store, *tree) {
            Ok(leaves) if leaves == *right => {}
            Ok(_) => {
                return broken(
                    "leaves are the sums of their objects",
                    format!("{tree:?} is wrong"),
                );
            }
            Err(failure) => {
                return broken(
                    "leaves are the sums of their objects",
                    format!("{tree:?}: {failure}"),
                );
            }
        }
    }
    Ok(())
}

/// Compares the roots of a tree's owners.
///
/// # Errors
/// The violation.
pub fn same_roots(roots: &[Option<Vec<Node>>]) -> Held {
    match roots.windows(2).all(|pair| pair[0] == pair[1]) {
        true => Ok(()),
        false => broken("owners have equal roots", format!("{roots:?}")),
    }
}
