//! **Interleaved writers that pass contexts never see more siblings than there are writers.**
//!
//! Source: merge-model, *Write*. A writer that was not answered cannot pass the context of that write, so
//! each of those may add one. Checked on every copy and answer of a run whose clients are all polite.

use super::{Held, broken};

/// A copy's siblings, against its writers and their unanswered writes.
pub fn check(key: usize, siblings: usize, writers: usize, unanswered: usize) -> Held {
    if siblings <= writers + unanswered {
        return Ok(());
    }
    let found = format!(
        "k{key} has {siblings} siblings of {writers} writers and {unanswered} unanswered writes"
    );
    broken("polite writers bound siblings", found)
}
