//! **After a cut heals, all owners reach byte-identical objects.**
//!
//! Source: merge-model, *What must always hold*, 4. Anti-entropy comes later; until then a full pairwise
//! join of all owners' copies stands in for it, in every order it finds.

use sibyl_core::codec;
use sibyl_core::object::Object;

use super::{Violation, broken};

/// Joins the copies pairwise, twice round; they must be equal then. Answers what they agree on.
///
/// # Errors
/// The violation, if they do not.
pub fn check(key: usize, copies: &[Object]) -> Result<Object, Violation> {
    let mut copies = copies.to_vec();
    for round in 0..2 {
        for to in 0..copies.len() {
            for from in (0..copies.len()).filter(|from| *from != to) {
                let from = if round == 0 {
                    from
                } else {
                    copies.len() - 1 - from
                };
                let other = copies[from].clone();
                copies[to].join(&other);
            }
        }
    }
    let first = copies.first().cloned().unwrap_or_default();
    let bytes = codec::encode(&first);
    if copies.iter().all(|copy| codec::encode(copy) == bytes) {
        return Ok(first);
    }
    let found = format!("the owners of k{key} differ after joining: {copies:?}");
    broken("owners converge", found).map(|()| first)
}
