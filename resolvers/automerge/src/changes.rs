//! The union of histories, and the one order in which they are applied.
//!
//! Parents come before children and ties go by hash, so the bytes of a merged document do not depend on who merged
//! what first. Automerge's own `merge` and `save` do not promise that.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use automerge::{Automerge as Document, Change, ChangeHash};

/// Changes of several documents, each once. Every parent of a change is here too.
#[derive(Default)]
pub(crate) struct Changes {
    by_hash: BTreeMap<ChangeHash, Change>,
    by_author: BTreeMap<(Vec<u8>, u64), ChangeHash>,
}

impl Changes {
    /// Adds the history of a complete document.
    ///
    /// Refuses two different changes that one actor numbered alike: Automerge takes only one of them, and
    /// which one would depend on the order.
    pub(crate) fn add(&mut self, document: &Document) -> Result<(), String> {
        for change in document.get_changes(&[]) {
            let hash = change.hash();
            let Entry::Vacant(place) = self.by_hash.entry(hash) else {
                continue;
            };
            let author = (change.actor_id().to_bytes().to_vec(), change.seq());
            if let Some(other) = self.by_author.insert(author, hash) {
                return Err(format!(
                    "actor {} made two different changes number {} ({other} and {hash}): \
                     each process that edits a document needs an actor id of its own",
                    change.actor_id(),
                    change.seq()
                ));
            }
            place.insert(change);
        }
        Ok(())
    }

    /// Parents first; of those that could come next, the least hash.
    ///
    /// Ends: each step takes a change out of `ready`, and none enters twice.
    pub(crate) fn in_order(mut self) -> Vec<Change> {
        let mut missing: BTreeMap<ChangeHash, usize> = BTreeMap::new();
        let mut children: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
        let mut ready = BTreeSet::new();
        for (&hash, change) in &self.by_hash {
            let parents: BTreeSet<_> = change.deps().iter().copied().collect();
            if parents.is_empty() {
                ready.insert(hash);
            }
            missing.insert(hash, parents.len());
            for parent in parents {
                children.entry(parent).or_default().push(hash);
            }
        }
        let mut order = Vec::with_capacity(self.by_hash.len());
        while let Some(hash) = ready.pop_first() {
            order.extend(self.by_hash.remove(&hash));
            for child in children.remove(&hash).unwrap_or_default() {
                let left = missing.entry(child).or_default();
                *left -= 1;
                if *left == 0 {
                    ready.insert(child);
                }
            }
        }
        order
    }
}
