//! **Only a member raises its incarnation, and it never falls.** Nobody knows an incarnation that is not on its owner's
//! disk; a start has one that nobody knew before; who lost nothing is never told that it did.
//!
//! Source: cluster, *Membership and failure*: "Only a node itself raises its incarnation"; failure catalogue, B5.
//! Continuous, over every view after every event.

use sibyl_core::id::NodeId;

use super::{Held, broken};

const CHECK: &str = "only a member raises its incarnation";

/// Somebody knows a member at an incarnation.
pub fn known(by: &NodeId, of: &NodeId, incarnation: u64, on_disk: u64) -> Held {
    if incarnation <= on_disk {
        return Ok(());
    }
    let found = format!("{by} knows incarnation {incarnation} of {of}, whose disk has {on_disk}");
    broken(CHECK, found)
}

/// A store starts: its incarnation is above what anyone ever knew of that store.
pub fn started(node: &NodeId, incarnation: u64, ever_known: u64) -> Held {
    if incarnation > ever_known {
        return Ok(());
    }
    let found = format!("{node} starts in incarnation {incarnation}; {ever_known} was known");
    broken(CHECK, found)
}

/// A node is told that its store has lost something.
pub fn forgotten(node: &NodeId, is_older: bool) -> Held {
    if is_older {
        return Ok(());
    }
    let found = format!("{node} is told that it has forgotten, and has not");
    broken(CHECK, found)
}
