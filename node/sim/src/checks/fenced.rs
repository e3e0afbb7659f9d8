//! **A store that was removed never acknowledges, coordinates or votes.** Whoever goes by the document that removed it,
//! or a later one, counts no answer of it, takes no vote and does nothing for it; the store itself mints nothing once
//! it holds that document.
//!
//! Source: simulation-and-security, I10; cluster, *A node that was removed*; failure catalogue, 2.6. Continuous.

use sibyl_core::message::{Reply, Request};
use sibyl_core::registry::Message;

use super::{Held, broken};

const CHECK: &str = "a removed store has no say";

/// A question of a removed store is about to be acted on.
pub fn asks(by: usize, from: usize, request: &Request) -> Held {
    // What tells a node about documents does no harm; votes are judged as such.
    if matches!(
        request,
        Request::Registry | Request::Collect | Request::Epoch(_)
    ) {
        return Ok(());
    }
    let what = format!("{request:?}");
    let what: String = what.chars().take(60).collect();
    broken(
        CHECK,
        format!("n{by} acts on {what} of n{from}, whose store it knows to be removed"),
    )
}

/// An answer of a removed store is about to be counted.
pub fn answers(by: usize, from: usize, reply: &Reply) -> Held {
    let counts = match reply {
        Reply::Joined | Reply::Delivered { .. } | Reply::Written(_) => true,
        Reply::Object { counts } | Reply::Digest { counts, .. } => *counts,
        _ => false,
    };
    if !counts {
        return Ok(());
    }
    broken(
        CHECK,
        format!("n{by} counts an answer of n{from}, whose store it knows to be removed"),
    )
}

/// A vote of a removed store is about to be counted.
pub fn votes(by: usize, from: usize, message: &Message) -> Held {
    if !matches!(message, Message::Promise { .. } | Message::Accepted { .. }) {
        return Ok(());
    }
    broken(
        CHECK,
        format!("n{by} counts a vote of n{from}, whose store it knows to be removed"),
    )
}

/// A store mints, and its own document says whether it was removed.
pub fn mints(node: usize, removed: bool) -> Held {
    if !removed {
        return Ok(());
    }
    broken(
        CHECK,
        format!("n{node} mints, and its own document removed its store"),
    )
}
