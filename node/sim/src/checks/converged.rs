//! **After a cut heals, all owners reach byte-identical objects.**
//!
//! Source: merge-model, *What must always hold*, 4. Checked once everything is calm and every owner compared
//! its copies with every other one: no read has repaired anything by then.

use sibyl_core::codec;
use sibyl_core::object::Object;

use super::{Violation, broken};

/// The copies must be equal. Answers what they agree on.
///
/// # Errors
/// The violation, if they do not.
pub fn check(key: usize, copies: &[Object]) -> Result<Object, Violation> {
    let first = copies.first().cloned().unwrap_or_default();
    let bytes = codec::encode(&first);
    if copies.iter().all(|copy| codec::encode(copy) == bytes) {
        return Ok(first);
    }
    let found = format!("the owners of k{key} differ after all exchanges: {copies:?}");
    broken("owners converge", found).map(|()| first)
}
