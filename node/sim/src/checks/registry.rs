//! **One chosen registry document per number.** What was reported done is in force in the end.
//!
//! Source: merge-model, *What must always hold*, 8; cluster, *The registry*. Continuous, over every document
//! that any node takes as chosen.

use std::collections::BTreeMap;

use sibyl_core::id::Digest;
use sibyl_core::registry::Document;

use super::{Held, broken};

const CHECK: &str = "one document per number";

/// Every document taken as chosen, by number.
#[derive(Debug, Default)]
pub struct Chosen {
    documents: BTreeMap<u64, Digest>,
}

impl Chosen {
    /// The highest number chosen so far.
    pub fn highest(&self) -> u64 {
        self.documents.keys().next_back().copied().unwrap_or(1)
    }

    /// A node takes a document as chosen.
    pub fn take(&mut self, number: u64, digest: Digest) -> Held {
        let first = *self.documents.entry(number).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        broken(CHECK, format!("document {number} is {first} and {digest}"))
    }
}

/// An alarm that no run without a bug gives.
pub fn alarm(alarm: &impl std::fmt::Display) -> Held {
    broken(CHECK, format!("a node raised an alarm: {alarm}"))
}

/// The last documents of all nodes, and the buckets whose creation was reported done.
pub fn last(documents: &[&Document], done: &[String]) -> Held {
    let Some(first) = documents.first() else {
        return Ok(());
    };
    if let Some(other) = documents.iter().find(|other| **other != *first) {
        let found = format!(
            "nodes rest at documents {} and {}",
            first.number, other.number
        );
        return broken(CHECK, found);
    }
    match done.iter().find(|name| !first.buckets.contains_key(*name)) {
        Some(name) => broken(
            CHECK,
            format!("bucket {name} was reported done and is not there"),
        ),
        None => Ok(()),
    }
}
