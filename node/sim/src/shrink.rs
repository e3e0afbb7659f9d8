//! A failing plan, made small: entries are dropped as long as the same promise still breaks.
//!
//! Works because an entry's randomness hangs on its own number and a message's on its link, not on what
//! else is in the plan. Ends: every round halves the piece that is dropped, or makes the plan shorter. Then the
//! setting is made simpler, one thing after the other.

use crate::batch::{careful, careful_gossip};
use crate::gossip;
use crate::plan::{Plan, Setting};
use crate::script::{Entry, Script};
use crate::zoo::Bug;

/// The most runs a shrinking may take: some ten seconds.
const MAX_RUNS: usize = 1_000;

/// The smallest plan found that breaks the same promise.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let broken = |plan: &Plan| {
        let found = careful(plan, bug).violation;
        found.map(|(_, violation)| violation.check)
    };
    let Some(first) = broken(plan) else {
        return plan.clone();
    };
    let mut best = smallest(plan, |smaller| broken(smaller) == Some(first));
    for simplify in SIMPLER {
        let mut simpler = best.clone();
        simplify(&mut simpler.setting);
        if simpler != best && broken(&simpler) == Some(first) {
            best = simpler;
        }
    }
    best
}

/// What a setting can do without.
const SIMPLER: &[fn(&mut Setting)] = &[
    |setting| setting.lost = 0,
    |setting| setting.doubled = 0,
    |setting| setting.hint_quota = u64::MAX,
    |setting| setting.skew_ms = 0,
    |setting| setting.sync_us = 2_000,
    |setting| setting.delay_us = 1_000,
];

/// The same for the room of gossip.
pub fn shrink_gossip(plan: &gossip::Plan, bug: Option<Bug>) -> gossip::Plan {
    let broken = |plan: &gossip::Plan| {
        let found = careful_gossip(plan, bug).violation;
        found.map(|(_, violation)| violation.check)
    };
    match broken(plan) {
        Some(first) => smallest(plan, |smaller| broken(smaller) == Some(first)),
        None => plan.clone(),
    }
}

/// The plan with the fewest of these entries that is still broken.
fn smallest<S: Clone, W: Clone>(
    plan: &Script<S, W>,
    broken: impl Fn(&Script<S, W>) -> bool,
) -> Script<S, W> {
    let mut best: Vec<Entry<W>> = plan.entries.clone();
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
            if broken(&plan.with(smaller.clone())) {
                (best, dropped) = (smaller, true);
            } else {
                at += piece;
            }
        }
        if !dropped {
            piece /= 2;
        }
    }
    plan.with(best)
}
