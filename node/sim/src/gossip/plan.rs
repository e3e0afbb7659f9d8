//! What happens in a run, drawn from its seed before it begins; entries can be dropped, see `shrink`.
//!
//! Times are true microseconds; what a node's clocks make of them is the world's affair.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::script::Script;

/// A heartbeat's interval and the silence that is suspect: the shape of production, five times as fast.
pub(super) const INTERVAL_MS: u64 = 1_000;
/// See [`INTERVAL_MS`].
pub(super) const SUSPECT_AFTER_MS: u64 = 3_000;
/// Faults come until here; then everything heals.
pub(super) const CALM_US: u64 = 25_000_000;
/// All is over here: silence, probes, and news by way of everybody take less.
pub(super) const END_US: u64 = CALM_US + 14_000_000;

/// The world a plan happens in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Nodes, 2 to 6.
    pub nodes: usize,
    /// Messages lost, of 1,000.
    pub lost: u64,
    /// Messages that come twice, of 1,000.
    pub doubled: u64,
    /// Mean delay of a message.
    pub delay_us: u64,
    /// How fast each node's steady clock runs, in thousandths.
    pub rates: Vec<u64>,
    /// How far each wall clock is ahead.
    pub walls_ms: Vec<i64>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum What {
    /// Messages of this direction are lost.
    Cut { from: usize, to: usize },
    /// They pass again.
    Heal { from: usize, to: usize },
    /// A node ends, and starts again later.
    Stop { node: usize, down_us: u64 },
    /// A node ends for good.
    End { node: usize },
    /// A node ends, loses its disk, and starts again later.
    Wipe { node: usize, down_us: u64 },
    /// A node ends, and starts again on its disk as it was at its last start.
    Older { node: usize, down_us: u64 },
    /// A node stands still for a while; its clocks do not.
    Pause { node: usize, for_us: u64 },
    /// A wall clock jumps.
    WallJump { node: usize, by_ms: i64 },
    /// A steady clock jumps ahead, as after a machine was moved.
    SteadyJump { node: usize, by_ms: u64 },
    /// A request to a member ended so.
    Outcome {
        node: usize,
        member: usize,
        answered: bool,
    },
    /// A document removes a member; only these hear of it now, as bits, the rest later.
    Remove { node: usize, heard: u64, kind: u64 },
}

/// A run to be.
pub type Plan = Script<Setting, What>;

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6055_1900);
        let setting = setting(&mut rng);
        let mut drawn = Vec::new();
        faults(&mut rng, setting.nodes, &mut drawn);
        Self::of(seed, setting, drawn)
    }
}

fn setting(rng: &mut ChaCha8Rng) -> Setting {
    let nodes = [2, 3, 3, 4, 4, 5, 6][rng.random_range(0..7)];
    let noisy = rng.random_bool(0.5);
    let drifting = rng.random_bool(0.5);
    let wrong = rng.random_bool(0.6);
    let rate = |rng: &mut ChaCha8Rng| {
        if drifting {
            rng.random_range(900..1100)
        } else {
            1000
        }
    };
    let rates = (0..nodes).map(|_| rate(rng)).collect();
    let wall = |rng: &mut ChaCha8Rng| {
        if wrong {
            rng.random_range(-100_000..100_000)
        } else {
            0
        }
    };
    let walls_ms = (0..nodes).map(|_| wall(rng)).collect();
    Setting {
        nodes,
        lost: if noisy { rng.random_range(0..250) } else { 0 },
        doubled: if noisy { rng.random_range(0..200) } else { 0 },
        delay_us: [200, 2_000, 20_000, 80_000][rng.random_range(0..4)],
        rates,
        walls_ms,
    }
}

fn faults(rng: &mut ChaCha8Rng, nodes: usize, drawn: &mut Vec<(u64, What)>) {
    let kinds: Vec<usize> = (0..8).filter(|_| rng.random_bool(0.4)).collect();
    for _ in 0..rng.random_range(2..=12) {
        let at_us = rng.random_range(1_000_000..CALM_US);
        let node = rng.random_range(0..nodes);
        let for_us = rng.random_range(50_000..9_000_000);
        let kind = kinds.get(rng.random_range(0..kinds.len().max(1))).copied();
        let what = match kind.unwrap_or(0) {
            0 | 1 => {
                cut(rng, nodes, at_us, drawn);
                continue;
            }
            2 => What::Stop {
                node,
                down_us: for_us,
            },
            3 if rng.random_bool(0.2) => What::End { node },
            3 => What::Pause { node, for_us },
            4 if rng.random_bool(0.5) => What::Wipe {
                node,
                down_us: for_us,
            },
            4 => What::Older {
                node,
                down_us: for_us,
            },
            5 => What::WallJump {
                node,
                by_ms: rng.random_range(-50_000..50_000),
            },
            6 => What::SteadyJump {
                node,
                by_ms: rng.random_range(100..20_000),
            },
            _ => What::Outcome {
                node,
                member: (node + rng.random_range(1..nodes)) % nodes,
                answered: rng.random_bool(0.3),
            },
        };
        drawn.push((at_us, what));
    }
    if nodes > 2 && rng.random_bool(0.3) {
        let what = What::Remove {
            node: rng.random_range(0..nodes),
            heard: rng.random_range(0..64),
            kind: rng.random_range(0..3),
        };
        drawn.push((rng.random_range(2_000_000..CALM_US), what));
    }
}

/// One node alone, or one link; both directions or one.
fn cut(rng: &mut ChaCha8Rng, nodes: usize, begin_us: u64, drawn: &mut Vec<(u64, What)>) {
    let end_us = (begin_us + rng.random_range(500_000..15_000_000)).min(CALM_US);
    let one = rng.random_range(0..nodes);
    let others: Vec<usize> = match rng.random_bool(0.6) {
        true => (0..nodes).filter(|other| *other != one).collect(),
        false => vec![(one + rng.random_range(1..nodes)) % nodes],
    };
    let directions = rng.random_range(0..4);
    for other in others {
        for (from, to) in [(one, other), (other, one)] {
            if directions >= 2 || (directions == 0) == (from == one) {
                drawn.push((begin_us, What::Cut { from, to }));
                drawn.push((end_us, What::Heal { from, to }));
            }
        }
    }
}
