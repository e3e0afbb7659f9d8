//! **With R + W > n, a read sees every strict write acknowledged before it began.**
//!
//! Source: merge-model, *What must always hold*, 7. A write counts as strict if W of its owners held it when it
//! was acknowledged, a read if R owners answered: `sloppy=false` makes sure of both.
//! To see a write is to hold it or what supersedes it, and nothing that it superseded.

use sibyl_core::object::Object;

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

/// The answer of a read that began when `acknowledged` was what had been promised.
pub fn check(oracle: &Oracle, key: usize, acknowledged: Writes, answer: &Object) -> Held {
    let due = acknowledged.without(oracle.reaped());
    let missed = due.without(oracle.held(key, answer));
    if missed.is_empty() {
        return Ok(());
    }
    broken(
        "quorums meet",
        format!("a read of k{key} missed {}", oracle.names(missed)),
    )
}
