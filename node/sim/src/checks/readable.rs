//! **An acknowledged write stays readable, or superseded by a write whose client saw it.**
//!
//! Source: merge-model, *What must always hold*, 2. Checked on what all owners agree on in the end.

use sibyl_core::object::Object;

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

/// The final object of a key holds or rightly supersedes every acknowledged write.
pub fn check(oracle: &Oracle, acknowledged: Writes, last: &Object) -> Held {
    let known = oracle.known(oracle.surviving(last));
    let lost = acknowledged.without(known);
    if lost.is_empty() {
        return Ok(());
    }
    broken(
        "acknowledged writes stay readable",
        format!("lost: {}", oracle.names(lost)),
    )
}
