//! Members that are removed while their store is whole, and come back with it: drawn apart, as `troubles` are.
//!
//! A member dies or is cut off, perhaps after it alone took some writes; the others remove it, go on writing and
//! deleting, and reap; then it returns. It gives what it holds while it, those who take it, and owners are disturbed.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{CALM_US, Drawn, FORMED_US, Setting, What, Wish};
use crate::world::owners;

/// Tells this stream from the others of a seed.
const PURPOSE: u64 = 0x7265_6d6f_7661_6c73;

/// Adds what a seed draws of them; `always`: for bugs that show nowhere else.
pub(super) fn draw(seed: u64, always: bool, setting: &mut Setting, drawn: &mut Drawn) {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed ^ PURPOSE);
    let drawn_so = setting.nodes >= 4 && !setting.polite && rng.random_bool(0.25);
    if !drawn_so && !always {
        return;
    }
    setting.nodes = setting.nodes.max(4);
    (setting.reads_mend, setting.polite) = (false, false);
    if rng.random_bool(0.5) {
        setting.w = 1;
        setting.r = rng.random_range(1..=3);
    }
    setting.reaps |= rng.random_bool(0.7);
    let who = owners(setting.nodes, 0)[rng.random_range(0..3)];
    quieten(rng, who, setting, drawn);
    let gone_us = rng.random_range(FORMED_US + 150_000..FORMED_US + 500_000);
    let back_us = rng.random_range(gone_us + 400_000..CALM_US + 200_000);
    if setting.reaps && rng.random_bool(0.5) {
        // Reaping takes many words, each of everybody: what is drawn below is trouble enough.
        drawn.retain(|(_, what)| matches!(what, What::Ask { .. } | What::Change { .. }));
        setting.delay_us = setting.delay_us.min(1_000);
        setting.sync_us = setting.sync_us.min(2_000);
    }
    let dies = rng.random_bool(0.5);
    if rng.random_bool(0.7) {
        alone(rng, who, gone_us, setting, drawn);
    }
    for attempt in 0..2 {
        let node = (who + rng.random_range(1..setting.nodes)) % setting.nodes;
        let at_us = gone_us + rng.random_range(0..100_000) + attempt * 150_000;
        drawn.push((at_us, What::Expel { node, who, dies }));
    }
    if !dies && rng.random_bool(0.8) {
        apart(rng, who, (gone_us, back_us), setting, drawn);
    }
    if setting.reaps && rng.random_bool(0.8) {
        deletes(rng, who, gone_us, setting, drawn);
    }
    if back_us < CALM_US {
        drawn.push((back_us, What::Return { node: who }));
        disturb(rng, who, back_us, setting, drawn);
    }
}

/// Leaves time in which nothing is written, and what else becomes of that member out.
fn quieten(rng: &mut ChaCha8Rng, who: usize, setting: &Setting, drawn: &mut Drawn) {
    let share = match setting.reaps {
        true => [0.1, 0.3, 0.6][rng.random_range(0..3)],
        false => 0.8,
    };
    let changes = rng.random_bool(0.4);
    drawn.retain(|(_, what)| match what {
        What::Ask { .. } => rng.random_bool(share),
        What::Leave { who: other, .. }
        | What::Remove { who: other, .. }
        | What::Join { who: other, .. } => changes && *other != who,
        _ => true,
    });
}

/// Writes that this member takes alone, or as one of few: nobody hears it meanwhile.
fn alone(rng: &mut ChaCha8Rng, who: usize, gone_us: u64, setting: &Setting, drawn: &mut Drawn) {
    let from_us = gone_us - rng.random_range(20_000..120_000);
    for other in (0..setting.nodes).filter(|other| *other != who) {
        drawn.push((
            from_us,
            What::Cut {
                from: who,
                to: other,
            },
        ));
        drawn.push((
            gone_us,
            What::Heal {
                from: who,
                to: other,
            },
        ));
    }
    for _ in 0..rng.random_range(1..=3) {
        let ask = What::Ask {
            client: rng.random_range(0..setting.clients),
            node: who,
            key: rng.random_range(0..setting.keys),
            wish: [Wish::Blind, Wish::Blind, Wish::Reuse, Wish::DeleteBlind]
                [rng.random_range(0..4)],
            sloppy: rng.random_bool(0.3),
        };
        drawn.push((rng.random_range(from_us..gone_us), ask));
    }
}

/// It runs on, and hears nobody or is heard by nobody.
fn apart(
    rng: &mut ChaCha8Rng,
    who: usize,
    (gone_us, back_us): (u64, u64),
    setting: &Setting,
    drawn: &mut Drawn,
) {
    let both = rng.random_bool(0.7);
    let end_us = back_us.min(CALM_US);
    for other in (0..setting.nodes).filter(|other| *other != who) {
        let ways = [(who, other), (other, who)];
        for (from, to) in ways.into_iter().take(if both { 2 } else { 1 }) {
            drawn.push((gone_us, What::Cut { from, to }));
            drawn.push((end_us, What::Heal { from, to }));
        }
    }
}

/// The others delete what it still holds.
pub(super) fn deletes(
    rng: &mut ChaCha8Rng,
    who: usize,
    gone_us: u64,
    setting: &Setting,
    drawn: &mut Drawn,
) {
    for key in 0..setting.keys {
        let client = rng.random_range(0..setting.clients);
        let node = (who + rng.random_range(1..setting.nodes)) % setting.nodes;
        let at_us = gone_us + rng.random_range(100_000..400_000);
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
    if rng.random_bool(0.7) {
        // Nobody writes any more: what was deleted can be reaped.
        drawn.retain(|(at_us, what)| {
            *at_us < gone_us + 410_000 || !matches!(what, What::Ask { .. })
        });
    }
}

/// Who gives, and who takes, dies in the middle.
fn disturb(rng: &mut ChaCha8Rng, who: usize, back_us: u64, setting: &Setting, drawn: &mut Drawn) {
    for _ in 0..rng.random_range(0..=2) {
        let at_us = back_us + rng.random_range(5_000..150_000);
        let down_us = rng.random_range(1_000..100_000);
        drawn.push((at_us, What::Crash { node: who, down_us }));
    }
    for _ in 0..rng.random_range(0..=2) {
        let node = rng.random_range(0..setting.nodes);
        let at_us = back_us + rng.random_range(5_000..200_000);
        let down_us = rng.random_range(1_000..150_000);
        drawn.push((at_us, What::Crash { node, down_us }));
    }
    drawn.retain(|(at_us, _)| *at_us < CALM_US);
}
