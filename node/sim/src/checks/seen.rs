//! **Nothing that a client did not see is superseded by its context; a context claims no unknown dot.**
//!
//! Source: merge-model, *What must always hold*, 3, and *Words*: a context "never claims a dot that its
//! writer did not know". Continuous. A copy's context may claim a write only if a sibling it still holds is
//! that write, or was written by somebody who saw it (or by one who saw that one). A client may be handed
//! a context that claims what it saw, and no more.

use sibyl_core::context::Context;
use sibyl_core::object::Object;

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

/// A copy supersedes only what was seen.
pub fn copy(oracle: &Oracle, key: usize, object: &Object) -> Held {
    let claimed = oracle.claimed(key, object.context());
    let unseen = claimed.without(oracle.known(oracle.surviving(object)));
    if unseen.is_empty() {
        return Ok(());
    }
    let found = format!(
        "a copy supersedes what nobody saw: {}",
        oracle.names(unseen)
    );
    broken("contexts claim what was seen", found)
}

/// A context in a client's hand claims only what it saw.
pub fn handed(oracle: &Oracle, key: usize, context: &Context, seen: Writes) -> Held {
    let unseen = oracle.claimed(key, context).without(seen);
    if unseen.is_empty() {
        return Ok(());
    }
    let found = format!(
        "a client holds a context that claims what it never saw: {}",
        oracle.names(unseen)
    );
    broken("contexts claim what was seen", found)
}
