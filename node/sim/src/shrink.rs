//! A failing plan, made small: entries are dropped as long as the same promise still breaks.
//!
//! Works because an entry's randomness hangs on its own number and a message's on its link, not on what
//! else is in the plan. Ends: every round halves the piece that is dropped, or makes the plan shorter.

use crate::batch::{careful, careful_gossip};
use crate::gossip;
use crate::plan::Plan;
use crate::zoo::Bug;

/// The most runs a shrinking may take: some ten seconds.
const MAX_RUNS: usize = 1_000;

/// The smallest plan found that breaks the same promise.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let with = |entries: &[_]| Plan {
        entries: entries.to_vec(),
        ..plan.clone()
    };
    let broken = |entries: &[_]| {
        let found = careful(&with(entries), bug).violation;
        found.map(|(_, violation)| violation.check)
    };
    with(&smallest(&plan.entries, broken))
}

/// The same for the room of gossip.
pub fn shrink_gossip(plan: &gossip::Plan, bug: Option<Bug>) -> gossip::Plan {
    let with = |entries: &[_]| gossip::Plan {
        entries: entries.to_vec(),
        ..plan.clone()
    };
    let broken = |entries: &[_]| {
        let found = careful_gossip(&with(entries), bug).violation;
        found.map(|(_, violation)| violation.check)
    };
    with(&smallest(&plan.entries, broken))
}

/// The smallest part of these entries that breaks what all of them break.
fn smallest<E: Clone>(entries: &[E], broken: impl Fn(&[E]) -> Option<&'static str>) -> Vec<E> {
    let mut best = entries.to_vec();
    let Some(first) = broken(&best) else {
        return best;
    };
    let mut runs = 0;
    let mut piece = best.len().div_ceil(2);
    while piece > 0 && runs < MAX_RUNS {
        let mut at = 0;
        let mut dropped = false;
        while at < best.len() && runs < MAX_RUNS {
            let mut smaller = best.clone();
            let end = (at + piece).min(smaller.len());
            smaller.drain(at..end);
            runs += 1;
            if broken(&smaller) == Some(first) {
                (best, dropped) = (smaller, true);
            } else {
                at += piece;
            }
        }
        if !dropped {
            piece /= 2;
        }
    }
    best
}
