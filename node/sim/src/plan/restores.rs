//! Older states and unsynced ones, where what is deleted is reaped: a backup that holds what was deleted since, and a
//! disk so slow that its node dies before its tombstone is on it.
//!
//! Drawn apart, as `troubles` are.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{CALM_US, Drawn, FORMED_US, Setting, What, Wish};
use crate::world::owners;
use crate::zoo::Bug;

/// Tells this stream from the others of a seed.
const PURPOSE: u64 = 0x7265_7374_6f72_6573;

/// Adds what a seed draws of them; always, for a bug that shows nowhere else.
pub(super) fn draw(seed: u64, bug: Option<Bug>, setting: &mut Setting, drawn: &mut Drawn) {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed ^ PURPOSE);
    let chosen = setting.nodes >= 3 && !setting.polite && rng.random_bool(0.06);
    let slow = rng.random_bool(0.4);
    let slow = match bug {
        None if !chosen => return,
        None => slow,
        Some(bug) => bug == Bug::SealUnsynced,
    };
    setting.nodes = setting.nodes.max(3);
    (setting.reaps, setting.polite, setting.reads_mend) = (true, false, false);
    (setting.delay_us, setting.lost) = (setting.delay_us.min(1_000), 0);
    let who = owners(setting.nodes, 0)[rng.random_range(0..3)];
    let deleted_us = rng.random_range(FORMED_US + 300_000..FORMED_US + 800_000);
    drawn.retain(|(at_us, what)| match what {
        What::Ask { .. } => *at_us < deleted_us,
        What::Change { .. } => true,
        _ => false,
    });
    if slow {
        unsynced(rng, who, deleted_us, setting, drawn);
    } else {
        restored(rng, who, deleted_us, setting, drawn);
    }
}

/// A client reads and deletes through a node.
fn delete(client: usize, node: usize, key: usize, at_us: u64, drawn: &mut Drawn) {
    for (wish, later_us) in [(Wish::Read, 0), (Wish::Delete, 1_000)] {
        let sloppy = false;
        let ask = What::Ask {
            client,
            node,
            key,
            wish,
            sloppy,
        };
        drawn.push((at_us + later_us, ask));
    }
}

fn restored(
    rng: &mut ChaCha8Rng,
    node: usize,
    deleted_us: u64,
    setting: &mut Setting,
    drawn: &mut Drawn,
) {
    setting.sync_us = setting.sync_us.min(2_000);
    let taken_us = rng.random_range(FORMED_US + 50_000..deleted_us + 100_000);
    drawn.push((taken_us, What::Backup { node }));
    for key in 0..setting.keys {
        if rng.random_bool(0.8) {
            let client = rng.random_range(0..setting.clients);
            let through = rng.random_range(0..setting.nodes);
            let at_us = deleted_us + rng.random_range(0..100_000);
            delete(client, through, key, at_us, drawn);
        }
    }
    let restored_us = deleted_us + rng.random_range(200_000..900_000);
    let down_us = rng.random_range(1_000..60_000);
    drawn.push((restored_us, What::Restore { node, down_us }));
    for _ in 0..rng.random_range(0..=2) {
        let at_us = restored_us + down_us + rng.random_range(5_000..150_000);
        let node = match rng.random_bool(0.5) {
            true => node,
            false => rng.random_range(0..setting.nodes),
        };
        drawn.push((at_us, What::Crash { node, down_us }));
    }
    // Somebody writes while it is judged.
    for _ in 0..rng.random_range(0..=4) {
        let ask = What::Ask {
            client: rng.random_range(0..setting.clients),
            node: rng.random_range(0..setting.nodes),
            key: rng.random_range(0..setting.keys),
            wish: [Wish::Blind, Wish::Read, Wish::Modify][rng.random_range(0..3)],
            sloppy: rng.random_bool(0.3),
        };
        drawn.push((restored_us + rng.random_range(0..400_000), ask));
    }
    drawn.retain(|(at_us, _)| *at_us < CALM_US);
}

fn unsynced(
    rng: &mut ChaCha8Rng,
    node: usize,
    deleted_us: u64,
    setting: &mut Setting,
    drawn: &mut Drawn,
) {
    setting.sync_us = 15_000;
    (setting.w, setting.exchanges) = (setting.w.min(2), true);
    let for_us = 1_000_000;
    drawn.push((deleted_us - 5_000, What::SlowDisk { node, for_us }));
    let through = (node + rng.random_range(1..setting.nodes)) % setting.nodes;
    for key in 0..setting.keys {
        let client = rng.random_range(0..setting.clients);
        let at_us = deleted_us + rng.random_range(0..20_000);
        delete(client, through, key, at_us, drawn);
    }
    let (crash_us, down_us) = (deleted_us + rng.random_range(150_000..600_000), 20_000);
    drawn.push((crash_us, What::Crash { node, down_us }));
}
