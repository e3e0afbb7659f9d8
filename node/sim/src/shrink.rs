//! A failing plan, made small: entries are dropped as long as the same promise still breaks.
//!
//! Works because an entry's randomness hangs on its own number and a message's on its link, not on what
//! else is in the plan. Ends: every round halves the piece that is dropped, or makes the plan shorter.

use crate::batch::careful;
use crate::plan::Plan;
use crate::zoo::Bug;

/// The most runs a shrinking may take: some ten seconds.
const MAX_RUNS: usize = 1_000;

/// The smallest plan found that breaks the same promise.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let mut best = plan.clone();
    let Some((_, first)) = careful(&best, bug).violation else {
        return best;
    };
    let breaks = |plan: &Plan| {
        let found = careful(plan, bug).violation;
        found.is_some_and(|(_, violation)| violation.check == first.check)
    };
    let mut runs = 0;
    let mut piece = best.entries.len().div_ceil(2);
    while piece > 0 && runs < MAX_RUNS {
        let mut at = 0;
        let mut dropped = false;
        while at < best.entries.len() && runs < MAX_RUNS {
            let mut smaller = best.clone();
            let end = (at + piece).min(smaller.entries.len());
            smaller.entries.drain(at..end);
            runs += 1;
            if breaks(&smaller) {
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
