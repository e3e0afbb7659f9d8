//! **Once all is calm, everybody sees the same, and it is true.** Who runs is alive to everybody, at the incarnation
//! that its own disk holds; who does not is suspected; and whoever was suspected knows it.
//!
//! Source: cluster, *Membership and failure*: a returning node is alive again everywhere and sees that it was
//! suspected. Checked at the end, over the members of the last document.

use std::collections::BTreeMap;

use sibyl_core::id::NodeId;
use sibyl_core::membership::{Membership, State};

use super::{Held, broken};

const CHECK: &str = "everybody sees the same in the end";

/// What is true of a member.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// Whether it runs.
    pub runs: bool,
    /// The incarnation on its disk.
    pub incarnation: u64,
}

/// Every running member's view against the truth.
pub fn end(truth: &BTreeMap<NodeId, Truth>, running: &[&Membership]) -> Held {
    for one in running {
        let (me, view) = (one.me(), one.view());
        for (node, true_of) in truth {
            let Some(seen) = view.members.get(node) else {
                return broken(CHECK, format!("{me} does not know {node}"));
            };
            let wanted = if true_of.runs {
                State::Alive
            } else {
                State::Suspect
            };
            let incarnation = seen.life.incarnation;
            if seen.state != wanted || true_of.runs && incarnation != true_of.incarnation {
                let state = seen.state.as_str();
                let found = format!("{me} sees {node} {state} at {incarnation}: {true_of:?}");
                return broken(CHECK, found);
            }
            if true_of.runs && one.owes(node) {
                let found = format!("{me} suspected {node}, which never learnt it");
                return broken(CHECK, found);
            }
        }
    }
    Ok(())
}
