//! **No two payloads ever carry the same dot.**
//!
//! Source: merge-model, *What must always hold*, 3. Continuous, against a ledger of all mints.

use sibyl_core::object::Object;

use super::{Held, Violation, broken};
use crate::oracle::{Minted, Oracle};

const CHECK: &str = "a dot names one write";

/// Notes a mint; its dot must be new.
///
/// # Errors
/// The violation, if another write has the dot.
pub fn mint(oracle: &mut Oracle, minted: Minted) -> Result<usize, Violation> {
    let dot = minted.dot;
    oracle.mint(minted).map_err(|other| Violation {
        check: CHECK,
        found: format!("{dot} was minted again; it is {}", oracle.name(other)),
    })
}

/// Every sibling of a copy carries what was minted under its dot, on this key.
pub fn check(oracle: &Oracle, key: usize, object: &Object) -> Held {
    for sibling in object.siblings() {
        for dot in sibling.dots() {
            let Some(write) = oracle.find(dot) else {
                return broken(CHECK, format!("{dot} on k{key} was never minted"));
            };
            let minted = &oracle.writes[write];
            if minted.key != key || minted.payload != sibling.content.value {
                let found = format!("k{key} carries another payload than {}", oracle.name(write));
                return broken(CHECK, found);
            }
        }
    }
    Ok(())
}
