//! **A write acknowledged with W is on W synced replicas, continuously, not only at the end.**
//!
//! Source: merge-model, *What must always hold*, 1. A replica holds a write if its synced copy contains the
//! write's dot: as a sibling, or superseded. Wipes are budgeted so that the promise can be kept, hence
//! every report is a bug.

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

/// Each node's synced copies of the key, as sets of writes.
pub fn check(oracle: &Oracle, acknowledged: Writes, synced: &[Writes]) -> Held {
    for write in acknowledged.iter() {
        let copies = synced.iter().filter(|copy| copy.contains(write)).count();
        let promised = oracle.writes[write].promised.unwrap_or(0);
        if copies < promised {
            let name = oracle.name(write);
            let found = format!(
                "{name} was acknowledged with {promised}, and {copies} synced copies hold it"
            );
            return broken("acknowledged writes are durable", found);
        }
    }
    Ok(())
}
