//! **A write acknowledged with W is on W synced replicas, continuously, not only at the end.**
//!
//! Source: merge-model, *What must always hold*, 1. A hint that counted is a copy, until its targets have theirs.
//! A replica holds a write if its synced copy contains the
//! write's dot, as a sibling or superseded, and none of what the write superseded. Wipes are budgeted: in most runs one must leave W copies, in
//! frail ones it must leave one, and only then does the promise count less. Hence every report is a bug.

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

/// Each node's synced copies of the key, as sets of writes.
pub fn check(oracle: &Oracle, acknowledged: Writes, synced: &[Writes]) -> Held {
    for write in acknowledged.iter() {
        let copies = synced.iter().filter(|copy| copy.contains(write)).count();
        let minted = &oracle.writes[write];
        let promised = minted.promised.unwrap_or(0);
        if copies + minted.destroyed < promised || copies == 0 {
            let name = oracle.name(write);
            let found = format!(
                "{name} was acknowledged with {promised}, and {copies} synced copies hold it"
            );
            return broken("acknowledged writes are durable", found);
        }
    }
    Ok(())
}
