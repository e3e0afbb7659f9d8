//! What a read returns when an object has several siblings: a view. Reading stores nothing.
//!
//! The bucket's policy says what a tombstone beside live siblings means; write ids count once; the
//! siblings stand in canonical order, so every replica that holds the same object shows a resolver the
//! same input. What a resolver answers becomes a [`View`] here, with everything that the outcome
//! inherits. A failed resolver leaves all siblings, never a silently chosen winner.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{Digest, Dot, WriteId};
use crate::object::{Content, Object, Sibling};
use crate::registry::Deletes;

#[cfg(test)]
mod tests;

/// What a view is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Faces<'a> {
    /// Nothing lives here.
    Gone,
    /// One sibling is the answer.
    One(&'a Sibling),
    /// Two or more, in canonical order: (modified-at, SHA-256 of the payload, content type, attributes, dot).
    Several(Vec<&'a Sibling>),
}

/// The siblings of an object that a view shows or a resolver sees.
pub fn faces(object: &Object, deletes: Deletes) -> Faces<'_> {
    let counting = |sibling: &&Sibling| !object.is_outlived(sibling);
    let counting = || object.siblings().iter().filter(counting);
    let dead = |sibling: &&Sibling| sibling.content.is_tombstone();
    if counting().all(|sibling| dead(&sibling)) {
        return Faces::Gone;
    }
    if deletes == Deletes::DeleteWins && counting().any(|sibling| dead(&sibling)) {
        return Faces::Gone;
    }
    let shown = |sibling: &&Sibling| deletes == Deletes::Resolver || !dead(sibling);
    let mut faces: Vec<_> = once_per_write(counting().filter(shown));
    if let [one] = faces[..] {
        return if one.content.is_tombstone() {
            Faces::Gone
        } else {
            Faces::One(one)
        };
    }
    in_order(&mut faces);
    Faces::Several(faces)
}

/// Sorts by [`rank`], which hashes payloads, so only those are ranked whose times are equal.
fn in_order(faces: &mut [&Sibling]) {
    let at = |sibling: &&Sibling| sibling.content.modified_at;
    faces.sort_by_key(at);
    for ties in faces.chunk_by_mut(|a, b| at(a) == at(b)) {
        if ties.len() > 1 {
            ties.sort_by_cached_key(|sibling| rank(sibling));
        }
    }
}

/// Of the surviving dots with one write id the lowest counts: a retry through another coordinator is the
/// same write. (If one of them was superseded, none counts: [`Object::is_outlived`].) Folds keep their own account in their provenance.
fn once_per_write<'a>(siblings: impl Iterator<Item = &'a Sibling>) -> Vec<&'a Sibling> {
    let mut writes: BTreeMap<(WriteId, Option<Dot>), &Sibling> = BTreeMap::new();
    for sibling in siblings {
        let alone = sibling.fold.is_some().then(|| sibling.dot());
        let first = writes
            .entry((sibling.content.write_id, alone))
            .or_insert(sibling);
        if sibling.dot() < first.dot() {
            *first = sibling;
        }
    }
    writes.into_values().collect()
}

type Rank = (u64, Option<Digest>, String, BTreeMap<String, String>, Dot);

fn rank(sibling: &Sibling) -> Rank {
    let Content {
        value,
        content_type,
        attributes,
        modified_at,
        ..
    } = &sibling.content;
    let payload = value.as_ref().map(|value| Digest::of(value));
    (
        *modified_at,
        payload,
        content_type.clone(),
        attributes.clone(),
        sibling.dot(),
    )
}

/// The one payload that all these siblings carry, if they do: without a resolver that is the answer.
pub fn unanimous<'a>(siblings: &[&'a Sibling]) -> Option<&'a Sibling> {
    let (first, rest) = siblings.split_first()?;
    let payload = |sibling: &'a Sibling| (&sibling.content.value, &sibling.content.content_type);
    rest.iter()
        .all(|sibling| payload(sibling) == payload(first))
        .then_some(*first)
}

/// What a resolver made of the siblings it was shown; indices count in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// A new value made from them.
    Merged(Bytes),
    /// One of them as it is.
    Pick(usize),
    /// Only these stay.
    Keep(Vec<usize>),
    /// The key is deleted.
    Delete,
}

/// A resolution that no sibling set allows. Counts as a failure of the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is no such sibling.
    #[error("index {index} is out of range: there are {siblings} siblings")]
    OutOfRange {
        /// The index the resolver named.
        index: usize,
        /// How many siblings it was shown.
        siblings: usize,
    },
    /// The same sibling twice.
    #[error("index {0} is named twice")]
    Twice(usize),
    /// Nothing kept: deleting has a case of its own.
    #[error("keep names no sibling: to delete, answer delete")]
    KeepsNothing,
    /// The picked sibling is a tombstone.
    #[error("sibling {0} has no value: to delete, answer delete")]
    PicksTombstone(usize),
}

/// What a read shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing lives here: 404.
    Gone,
    /// One value: 200.
    One(Content),
    /// Siblings, for the client to resolve: 300. In canonical order.
    Siblings(Vec<Sibling>),
}

/// What a resolution makes of the siblings it was given. `merged` inherits `modified-at`, content type and
/// attributes of the newest input; `pick` keeps everything of the picked one.
///
/// # Errors
/// [`Invalid`] if the resolution does not fit the siblings.
pub fn resolved(siblings: &[&Sibling], resolution: &Resolution) -> Result<View, Invalid> {
    let at = |index: usize| {
        siblings.get(index).copied().ok_or(Invalid::OutOfRange {
            index,
            siblings: siblings.len(),
        })
    };
    match resolution {
        Resolution::Merged(value) => {
            // Canonical order ends with the newest; a tombstone has no content type to hand on.
            let newest = at(siblings.len().saturating_sub(1))?;
            let live = siblings
                .iter()
                .rev()
                .find(|sibling| !sibling.content.is_tombstone());
            let content = live.unwrap_or(&newest).content.clone();
            let modified_at = newest.content.modified_at;
            Ok(View::One(Content {
                value: Some(value.clone()),
                modified_at,
                ..content
            }))
        }
        Resolution::Pick(index) => {
            let picked = at(*index)?;
            if picked.content.is_tombstone() {
                return Err(Invalid::PicksTombstone(*index));
            }
            Ok(View::One(picked.content.clone()))
        }
        Resolution::Keep(indices) => keep(indices, at),
        Resolution::Delete => Ok(View::Gone),
    }
}

fn keep<'a>(
    indices: &[usize],
    at: impl Fn(usize) -> Result<&'a Sibling, Invalid>,
) -> Result<View, Invalid> {
    let mut seen = std::collections::BTreeSet::new();
    for index in indices {
        at(*index)?;
        if !seen.insert(*index) {
            return Err(Invalid::Twice(*index));
        }
    }
    if seen.is_empty() {
        return Err(Invalid::KeepsNothing);
    }
    let kept = seen.into_iter().map(|index| at(index).cloned());
    Ok(View::Siblings(kept.collect::<Result<_, _>>()?))
}
