//! **Every request has exactly one outcome; one said to be not written never shows.**
//!
//! Source: cluster, *Requests*: 503 with a true `outcome`.

use super::{Held, broken};

const CHECK: &str = "one true outcome per request";

/// How often a request was answered, when everything has come to rest.
pub fn check(request: usize, answers: usize) -> Held {
    if answers == 1 {
        return Ok(());
    }
    broken(
        CHECK,
        format!("request {request} was answered {answers} times"),
    )
}

/// A request that was told `not written` has no mint.
pub fn not_written(request: usize, minted: bool) -> Held {
    if minted {
        return broken(
            CHECK,
            format!("request {request} was told `not written`, and was minted"),
        );
    }
    Ok(())
}
