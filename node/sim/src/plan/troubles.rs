//! Bad disks, tired processes, wrong clocks and clogged links: drawn apart, so that the rest of a plan is as it was
//! without them.
//!
//! Swarm testing goes on here: each kind is on or off for a whole run, and in some runs reads alone bring owners
//! together in the end, because a repair that is always there hides what it repairs.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{CALM_US, Drawn, FORMED_US, Setting, What, Wish};
use crate::world::owners;

/// Tells this stream from the others of a seed.
const PURPOSE: u64 = 0x7472_6f75_626c_6573;
/// More batches than a run has.
const ALL_BATCHES: u64 = 10_000;
/// How long a clogged link or a full disk lasts at most.
const LONGEST_US: u64 = 500_000;

/// Adds what a seed draws of them.
pub(super) fn draw(seed: u64, setting: &mut Setting, drawn: &mut Drawn) {
    if setting.nodes == 5 && late_comer(seed, setting, drawn) {
        return;
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(seed ^ PURPOSE);
    if setting.nodes == 5 && rng.random_bool(0.1) {
        return match rng.random_bool(0.3) {
            true => stand_ins(rng, setting, drawn),
            false => drill(rng, setting, drawn),
        };
    }
    if rng.random_bool(0.5) {
        setting.skew_ms = [10, 1_000, 100_000][rng.random_range(0..3)];
    }
    // A node that lost its copies needs exchanges; so does a change of owners.
    let grows = |(_, what): &(u64, What)| {
        matches!(
            what,
            What::Wipe { .. } | What::Leave { .. } | What::Join { .. } | What::Remove { .. }
        )
    };
    if rng.random_bool(0.2) && !drawn.iter().any(grows) {
        (setting.read_repair, setting.reads_mend) = (true, true);
        setting.exchanges = false;
        drawn.retain(|(_, what)| !matches!(what, What::Refill { .. } | What::Compare { .. }));
    }
    let loses = !setting.reads_mend && rng.random_bool(0.3);
    if loses {
        losses(rng, setting, drawn);
    }
    if rng.random_bool(0.2) {
        damage(rng, setting, drawn);
    }
    if rng.random_bool(0.15) {
        for _ in 0..rng.random_range(1..=3) {
            let (node, for_us) = (any(rng, setting.nodes), span(rng));
            drawn.push((when(rng), What::Full { node, for_us }));
        }
    }
    if rng.random_bool(0.2) {
        for _ in 0..rng.random_range(1..=4) {
            let (node, for_us) = (any(rng, setting.nodes), span(rng));
            drawn.push((when(rng), What::Pause { node, for_us }));
        }
    }
    if setting.nodes > 1 && rng.random_bool(0.2) {
        for _ in 0..rng.random_range(1..=4) {
            let from = any(rng, setting.nodes);
            let to = (from + rng.random_range(1..setting.nodes)) % setting.nodes;
            let for_us = span(rng);
            drawn.push((when(rng), What::Clog { from, to, for_us }));
        }
    }
}

/// All owners but one take writes; then that one is on the side of the majority, which the others cannot reach. In
/// such a run nothing else brings copies together, and every write and read counts owners only. What happens there
/// must not believe the one that is behind: a leaver's place is filled, or a lost store.
fn drill(rng: &mut ChaCha8Rng, setting: &mut Setting, drawn: &mut Drawn) {
    let owners = owners(setting.nodes, 0);
    let [first, second, behind] = owners[..] else {
        return;
    };
    (setting.r, setting.w, setting.frail, setting.senses) = (2, 2, true, true);
    (setting.read_repair, setting.exchanges, setting.handoff) = (false, false, false);
    drawn.retain(|(_, what)| matches!(what, What::Ask { .. } | What::Change { .. }));
    for (_, what) in drawn.iter_mut() {
        if let What::Ask { sloppy, .. } = what {
            *sloppy = false;
        }
    }
    let apart_us = rng.random_range(FORMED_US..FORMED_US + 200_000);
    let split_us = rng.random_range(CALM_US / 2..CALM_US - 800_000);
    for (from, to) in across(&[first, second], setting.nodes) {
        let is_behind = from == behind || to == behind;
        let from_us = if is_behind { apart_us } else { split_us };
        drawn.push((from_us, What::Cut { from, to }));
    }
    let then_us = split_us + rng.random_range(50_000..100_000);
    let kind = rng.random_range(0..4);
    if kind < 2 {
        let (node, who) = (behind, first);
        drawn.push((then_us, What::Leave { node, who }));
    } else {
        let (node, down_us) = (first, rng.random_range(1_000..20_000));
        let batches = ALL_BATCHES;
        let loses = match kind {
            2 => What::Wipe { node, down_us },
            _ => What::Truncate {
                node,
                batches,
                down_us,
            },
        };
        drawn.push((split_us + 1, loses));
        for (from, to) in across(&[first], setting.nodes) {
            if from != second && to != second {
                drawn.push((then_us, What::Heal { from, to }));
            }
        }
        drawn.push((then_us + 150_000, What::Refill { node: first }));
    }
    for _ in 0..12 {
        let ask = What::Ask {
            client: any(rng, setting.clients),
            node: [behind, first][any(rng, 2)],
            key: 0,
            wish: Wish::Read,
            sloppy: false,
        };
        drawn.push((rng.random_range(then_us..CALM_US), ask));
    }
}

/// A node stands in for all owners and mints twice, delivers what it kept and forgets it; then it keeps what somebody
/// wrote who had seen the first of those only, and mints on that.
fn stand_ins(rng: &mut ChaCha8Rng, setting: &mut Setting, drawn: &mut Drawn) {
    let owners = owners(setting.nodes, 0);
    let Some(node) = (0..setting.nodes).find(|node| !owners.contains(node)) else {
        return;
    };
    (setting.r, setting.w, setting.senses, setting.handoff) = (1, 1, true, true);
    (setting.lost, setting.delay_us, setting.hint_quota) = (0, 1_000, u64::MAX);
    (setting.sync_us, setting.polite) = (2_000, false);
    setting.clients = setting.clients.max(2);
    drawn.retain(|(_, what)| matches!(what, What::Change { .. }));
    let mut ask = |at_us: u64, client: usize, node: usize, wish: Wish| {
        let at_us = at_us + rng.random_range(0..40_000);
        let (key, sloppy) = (0, true);
        let ask = What::Ask {
            client,
            node,
            key,
            wish,
            sloppy,
        };
        drawn.push((at_us, ask));
    };
    let (first_us, second_us) = (FORMED_US + 100_000, FORMED_US + 1_000_000);
    ask(first_us + 100_000, 0, node, Wish::Blind);
    ask(first_us + 150_000, 1, node, Wish::Blind);
    ask(second_us + 100_000, 0, owners[0], Wish::Reuse);
    ask(second_us + 300_000, 1, node, Wish::Blind);
    let (gone, down_us) = (owners[1], 800_000);
    drawn.push((
        second_us,
        What::Crash {
            node: gone,
            down_us,
        },
    ));
    for (from, to) in across(&owners, setting.nodes) {
        for begin_us in [first_us, second_us + 200_000] {
            drawn.push((begin_us, What::Cut { from, to }));
            drawn.push((begin_us + 300_000, What::Heal { from, to }));
        }
    }
}

/// An owner is cut off while it loses its place, and then reaches one of those who still have theirs: what it asks by
/// its old document would be a quorum of owners of before, and of none of now. Drawn apart from all else; says whether
/// this seed is one of those.
fn late_comer(seed: u64, setting: &mut Setting, drawn: &mut Drawn) -> bool {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed.rotate_left(17) ^ PURPOSE);
    let owners = owners(setting.nodes, 0);
    let [late, stays, other] = owners[..] else {
        return false;
    };
    if !rng.random_bool(0.05) {
        return false;
    }
    (setting.r, setting.w, setting.frail, setting.senses) = (2, 2, true, true);
    (setting.read_repair, setting.exchanges, setting.handoff) = (false, false, false);
    (setting.lost, setting.delay_us, setting.sync_us) = (0, 1_000, 2_000);
    (setting.polite, setting.clients) = (false, setting.clients.max(2));
    drawn.retain(|(_, what)| matches!(what, What::Change { .. }));
    let mut ask = |at_us: u64, client: usize, node: usize, wish: Wish| {
        let (key, sloppy) = (0, false);
        let ask = What::Ask {
            client,
            node,
            key,
            wish,
            sloppy,
        };
        drawn.push((at_us + rng.random_range(0..50_000), ask));
    };
    let (cut_us, healed_us) = (CALM_US / 2, CALM_US - 500_000);
    for _ in 0..4 {
        ask(FORMED_US, 0, stays, Wish::Blind);
        ask(healed_us, 0, late, Wish::Blind);
        ask(healed_us + 20_000, 1, other, Wish::Read);
    }
    let (node, who) = (stays, late);
    drawn.push((cut_us + 20_000, What::Leave { node, who }));
    for (from, to) in across(&[late], setting.nodes) {
        drawn.push((cut_us, What::Cut { from, to }));
        if [from, to].contains(&stays) {
            drawn.push((healed_us, What::Heal { from, to }));
        }
    }
    true
}

/// Both directions between some nodes and all others.
fn across(some: &[usize], nodes: usize) -> Vec<(usize, usize)> {
    let others = (0..nodes).filter(|node| !some.contains(node));
    let pairs = others.flat_map(|other| some.iter().map(move |one| (*one, other)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// Stores that come back with less than they had, or with what they had once.
fn losses(rng: &mut ChaCha8Rng, setting: &Setting, drawn: &mut Drawn) {
    for _ in 0..rng.random_range(1..=2) {
        let (node, at_us) = (any(rng, setting.nodes), when(rng));
        let down_us = rng.random_range(1_000..100_000);
        let what = match rng.random_range(0..4) {
            0 => What::Refuse { node, down_us },
            1 => What::Truncate {
                node,
                batches: rng.random_range(1..20),
                down_us,
            },
            _ => {
                let taken_us = rng.random_range(FORMED_US..=at_us);
                drawn.push((taken_us, What::Backup { node }));
                What::Restore { node, down_us }
            }
        };
        drawn.push((at_us, what));
        if rng.random_bool(0.7) {
            let filled_us = at_us + down_us + rng.random_range(1_000..400_000);
            drawn.push((filled_us.min(CALM_US), What::Refill { node }));
        }
    }
}

fn damage(rng: &mut ChaCha8Rng, setting: &Setting, drawn: &mut Drawn) {
    for _ in 0..rng.random_range(1..=4) {
        let (node, key) = (any(rng, setting.nodes), any(rng, setting.keys));
        drawn.push((when(rng), What::Damage { node, key }));
    }
}

fn any(rng: &mut ChaCha8Rng, of: usize) -> usize {
    rng.random_range(0..of)
}

fn when(rng: &mut ChaCha8Rng) -> u64 {
    rng.random_range(FORMED_US..CALM_US)
}

fn span(rng: &mut ChaCha8Rng) -> u64 {
    rng.random_range(10_000..LONGEST_US)
}
