//! **No value covered by an acknowledged delete becomes live again.**
//!
//! Source: merge-model, *What must always hold*, 5. On one copy what is dead stays dead, whoever killed it
//! (continuous); in the end, and in reads that must see the delete, nothing that its context claims is live.

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

const CHECK: &str = "the dead stay dead";

/// A copy before and after a change: what it knew, and what of it was a sibling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copy {
    /// Writes that its context claims.
    pub known: Writes,
    /// Those that are siblings.
    pub surviving: Writes,
}

/// A copy that changed forgets nothing and wakes nothing.
pub fn step(oracle: &Oracle, before: Copy, after: Copy) -> Held {
    let forgotten = before.known.without(after.known);
    if !forgotten.is_empty() {
        return broken(CHECK, format!("a copy forgot {}", oracle.names(forgotten)));
    }
    let dead = before.known.without(before.surviving);
    let woken = after.surviving.common(dead);
    if woken.is_empty() {
        return Ok(());
    }
    broken(
        CHECK,
        format!("live again on a copy: {}", oracle.names(woken)),
    )
}

/// What was reaped lives nowhere.
pub fn reaped(oracle: &Oracle, live: Writes) -> Held {
    let woken = live.common(oracle.reaped());
    if woken.is_empty() {
        return Ok(());
    }
    broken(
        CHECK,
        format!("reaped, and live again: {}", oracle.names(woken)),
    )
}

/// What lives, against these acknowledged writes.
pub fn check(oracle: &Oracle, acknowledged: Writes, live: Writes) -> Held {
    for delete in acknowledged.iter() {
        let Some(minted) = oracle
            .writes
            .get(delete)
            .filter(|minted| minted.payload.is_none())
        else {
            continue;
        };
        let woken = live.common(minted.covers);
        if !woken.is_empty() {
            let found = format!("{} covered {}", oracle.name(delete), oracle.names(woken));
            return broken(CHECK, found);
        }
    }
    Ok(())
}
