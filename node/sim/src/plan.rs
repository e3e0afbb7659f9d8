//! What a run does, drawn from its seed before it begins: the setting, and every request and fault with
//! its time.
//!
//! Swarm testing: each seed draws its own cluster, levels, and which kinds of faults exist at all; also
//! whether read repair and hinted handoff are on, because a repair that is always there hides what it
//! repairs. A plan is data: an entry can be dropped and the rest means the same, see `shrink`.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::script::{self, Script};
use crate::world::owners;
use crate::zoo::Bug;

mod removals;
mod restores;
mod troubles;

/// Forming is left alone until here, unless the setting says otherwise.
pub const FORMED_US: u64 = 400_000;
/// Requests and faults come until here; then everything heals.
pub const CALM_US: u64 = 2_400_000;
/// A client's patience with one request.
pub const PATIENCE_US: u64 = 300_000;
/// The most requests of a run: what a ledger's sets can name, with room for the last reads.
const MAX_REQUESTS: u32 = 90;

/// The world a plan happens in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setting {
    /// Nodes, 1 to 5; copies are at most 3.
    pub nodes: usize,
    /// Clients; each does one thing at a time.
    pub clients: usize,
    /// Keys; few, so that clients meet.
    pub keys: usize,
    /// Copies that must answer a read.
    pub r: usize,
    /// Copies that must hold a write.
    pub w: usize,
    /// Messages lost, of 1,000.
    pub lost: u64,
    /// Messages that come twice, of 1,000.
    pub doubled: u64,
    /// Mean delay of a message.
    pub delay_us: u64,
    /// Mean time of a sync.
    pub sync_us: u64,
    /// Whether reads repair.
    pub read_repair: bool,
    /// How many of 1,000 requests are sloppy.
    pub sloppy: u64,
    /// Whether hints are delivered, or only lie where they are.
    pub handoff: bool,
    /// How many bytes of hints a node takes in.
    pub hint_quota: u64,
    /// Whether clients only write with the context of their own last answer.
    pub polite: bool,
    /// Whether nodes notice cuts and crashes, or only run into deadlines.
    pub senses: bool,
    /// Whether a wipe need leave only one copy of an acknowledged write, not W.
    pub frail: bool,
    /// Whether nodes compare copies before the end.
    pub exchanges: bool,
    /// Whether trees are believed after a crash instead of computed anew.
    pub believes: bool,
    /// Whether faults begin before the cluster has formed.
    pub troubled_forming: bool,
    /// How far the clocks of two nodes may be apart.
    pub skew_ms: u64,
    /// Whether reads alone bring owners together in the end: nodes compare no copies but to fill a new one.
    pub reads_mend: bool,
    /// Whether deleted keys are reaped; then more is deleted.
    pub reaps: bool,
}

/// Three calm nodes: what a kept plan does not say.
impl Default for Setting {
    fn default() -> Self {
        Self {
            nodes: 3,
            clients: 1,
            keys: 1,
            r: 2,
            w: 2,
            lost: 0,
            doubled: 0,
            delay_us: 1_000,
            sync_us: 2_000,
            read_repair: true,
            sloppy: 0,
            handoff: true,
            hint_quota: u64::MAX,
            polite: false,
            senses: true,
            frail: false,
            exchanges: false,
            believes: false,
            troubled_forming: false,
            skew_ms: 0,
            reads_mend: false,
            reaps: false,
        }
    }
}

/// A client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Read, and keep the answer's context.
    Read,
    /// Write without a context.
    Blind,
    /// Read, then write with what was read.
    Modify,
    /// Write with the context of the own last answer.
    Reuse,
    /// Write with any earlier context.
    Stale,
    /// Delete with the context of the own last answer.
    Delete,
    /// Delete without one.
    DeleteBlind,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum What {
    /// A client asks a node.
    Ask {
        client: usize,
        node: usize,
        key: usize,
        wish: Wish,
        sloppy: bool,
    },
    /// Messages of this direction are lost.
    Cut { from: usize, to: usize },
    /// They pass again.
    Heal { from: usize, to: usize },
    /// A node dies, and starts again later.
    Crash { node: usize, down_us: u64 },
    /// A node dies, loses its store, and starts again later.
    Wipe { node: usize, down_us: u64 },
    /// A node compares its copies with all other owners.
    Refill { node: usize },
    /// A node compares its copies with a peer.
    Compare { node: usize, peer: usize },
    /// A node's syncs take 20 times as long, for a while.
    SlowDisk { node: usize, for_us: u64 },
    /// A node's next sync fails.
    BadSync { node: usize },
    /// A node's record of a key fails its checksum from now on.
    Damage { node: usize, key: usize },
    /// A node dies, and its engine comes back without the last so many batches, synced or not.
    Truncate {
        node: usize,
        batches: u64,
        down_us: u64,
    },
    /// A node dies, and its engine refuses to open.
    Refuse { node: usize, down_us: u64 },
    /// A backup of a node is taken.
    Backup { node: usize },
    /// A node dies, and its operator restores its last backup.
    Restore { node: usize, down_us: u64 },
    /// A node's disk is full for a while.
    Full { node: usize, for_us: u64 },
    /// A node stands still for a while, and then does all at once.
    Pause { node: usize, for_us: u64 },
    /// What is sent in this direction waits, and then comes at once.
    Clog { from: usize, to: usize, for_us: u64 },
    /// A registry change is asked of a node.
    Change { node: usize, which: u64 },
    /// A node is asked to let a member leave.
    Leave { node: usize, who: usize },
    /// A node is asked to take in somebody who is no member, with an empty disk.
    Join { node: usize, who: usize },
    /// A member is taken for gone, dead or only unheard of, and a node is asked to remove it; its store stays.
    Expel { node: usize, who: usize, dies: bool },
    /// Whoever was taken for gone and is dead starts on its old store.
    Return { node: usize },
    /// A member fails for good, and a node is asked to remove it.
    Remove { node: usize, who: usize },
}

/// Something that happens, and when.
pub type Entry = script::Entry<What>;

/// A run to be.
pub type Plan = Script<Setting, What>;

/// Which kinds of faults a run has.
struct Kinds {
    /// The owners of a key are cut from all others again and again.
    drill: bool,
    cuts: bool,
    crashes: bool,
    wipes: bool,
    disks: bool,
    changes: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        Self::drawn(seed, None)
    }

    /// The plan of a seed for a known bug: most were measured before anything was reaped or removed with its store.
    pub fn for_bug(seed: u64, bug: Option<Bug>) -> Self {
        Self::drawn(seed, bug)
    }

    fn drawn(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut setting = setting(&mut rng);
        let drill = rng.random_bool(0.15);
        if drill {
            setting.drill(&mut rng);
        }
        let kinds = Kinds {
            drill,
            cuts: rng.random_bool(0.6),
            crashes: rng.random_bool(0.6),
            wipes: rng.random_bool(0.4),
            disks: rng.random_bool(0.4),
            changes: rng.random_bool(0.5),
        };
        let mut drawn = Vec::new();
        requests(&mut rng, &setting, &mut drawn);
        faults(&mut rng, &setting, &kinds, &mut drawn);
        owner_changes(seed, &setting, &mut drawn);
        troubles::draw(seed, &mut setting, &mut drawn);
        let salvages = bug.is_some_and(Bug::is_of_salvage);
        if salvages || bug.is_none_or(Bug::is_of_reaping) {
            reaping(seed, &mut setting, &mut drawn);
        }
        if bug.is_none_or(Bug::has_plans) {
            restores::draw(seed, bug, &mut setting, &mut drawn);
        }
        if salvages || bug.is_none() {
            removals::draw(seed, salvages, &mut setting, &mut drawn);
        }
        Self::of(seed, setting, drawn)
    }
}

impl Setting {
    /// Most writes are taken by nodes that own nothing of them, deliver them, and take the next.
    fn drill(&mut self, rng: &mut ChaCha8Rng) {
        (self.nodes, self.keys, self.clients) = (5, 1, rng.random_range(2..=4));
        (self.r, self.w) = (rng.random_range(1..=2), rng.random_range(1..=2));
        (self.sloppy, self.handoff, self.hint_quota) = (1000, true, u64::MAX);
        (self.lost, self.delay_us) = (0, 1_000);
        self.senses = true;
    }
}

fn setting(rng: &mut ChaCha8Rng) -> Setting {
    let nodes = [1, 2, 3, 3, 4, 4, 5, 5][rng.random_range(0..8)];
    let copies = nodes.min(3);
    let strict = rng.random_bool(0.6);
    let (r, w) = if strict {
        (copies / 2 + 1, copies / 2 + 1)
    } else {
        (rng.random_range(1..=copies), rng.random_range(1..=copies))
    };
    let noisy = rng.random_bool(0.5);
    Setting {
        nodes,
        clients: rng.random_range(1..=5),
        keys: rng.random_range(1..=3),
        r,
        w,
        lost: if noisy { rng.random_range(0..150) } else { 0 },
        doubled: if noisy { rng.random_range(0..200) } else { 0 },
        delay_us: [200, 1_000, 5_000, 20_000][rng.random_range(0..4)],
        sync_us: [300, 2_000, 15_000][rng.random_range(0..3)],
        read_repair: rng.random_bool(0.7),
        sloppy: [0, 500, 900, 1000][rng.random_range(0..4)],
        handoff: rng.random_bool(0.85),
        hint_quota: [u64::MAX, u64::MAX, 150, 300][rng.random_range(0..4)],
        polite: rng.random_bool(0.15),
        senses: rng.random_bool(0.7),
        frail: rng.random_bool(0.5),
        exchanges: rng.random_bool(0.6),
        believes: rng.random_bool(0.5),
        troubled_forming: rng.random_bool(0.2),
        skew_ms: 0,
        reads_mend: false,
        reaps: false,
    }
}

type Drawn = Vec<(u64, What)>;

fn requests(rng: &mut ChaCha8Rng, setting: &Setting, drawn: &mut Drawn) {
    let likes_deletes = rng.random_bool(0.5);
    for _ in 0..rng.random_range(20..=MAX_REQUESTS) {
        let wish = match rng.random_range(0..100) {
            _ if setting.polite => Wish::Reuse,
            0..25 => Wish::Read,
            25..45 => Wish::Blind,
            45..65 => Wish::Modify,
            65..80 => Wish::Reuse,
            80..88 => Wish::Stale,
            88..96 if likes_deletes => Wish::Delete,
            96.. if likes_deletes => Wish::DeleteBlind,
            _ => Wish::Blind,
        };
        let ask = What::Ask {
            client: rng.random_range(0..setting.clients),
            node: rng.random_range(0..setting.nodes),
            key: rng.random_range(0..setting.keys),
            wish,
            sloppy: rng.random_range(0..1000) < setting.sloppy,
        };
        drawn.push((rng.random_range(FORMED_US..CALM_US), ask));
    }
}

fn faults(rng: &mut ChaCha8Rng, setting: &Setting, kinds: &Kinds, drawn: &mut Drawn) {
    let from_us = if setting.troubled_forming {
        0
    } else {
        FORMED_US
    };
    let nodes = setting.nodes;
    let at = |rng: &mut ChaCha8Rng| rng.random_range(from_us..CALM_US);
    if kinds.cuts && nodes > 1 {
        for _ in 0..rng.random_range(1..=6) {
            cut(rng, nodes, from_us, drawn);
        }
        for _ in 0..rng.random_range(0..=3) {
            split(rng, setting, from_us, drawn);
        }
    }
    if kinds.drill {
        drills(rng, setting, from_us, drawn);
    }
    if kinds.crashes {
        for _ in 0..rng.random_range(1..=6) {
            let (node, down_us) = (rng.random_range(0..nodes), rng.random_range(1_000..200_000));
            drawn.push((at(rng), What::Crash { node, down_us }));
        }
    }
    if kinds.wipes {
        wipes(rng, nodes, from_us, drawn);
    }
    if setting.exchanges && nodes > 1 {
        for _ in 0..rng.random_range(1..=8) {
            let node = rng.random_range(0..nodes);
            let peer = (node + rng.random_range(1..nodes)) % nodes;
            drawn.push((at(rng), What::Compare { node, peer }));
        }
    }
    if kinds.disks {
        for _ in 0..rng.random_range(1..=3) {
            let (node, for_us) = (
                rng.random_range(0..nodes),
                rng.random_range(10_000..400_000),
            );
            drawn.push((at(rng), What::SlowDisk { node, for_us }));
            if rng.random_bool(0.3) {
                drawn.push((at(rng), What::BadSync { node }));
            }
        }
    }
    if kinds.changes {
        for which in 0..rng.random_range(1..=6) {
            let (at_us, node) = (at(rng), rng.random_range(0..nodes));
            drawn.push((at_us, What::Change { node, which }));
            if rng.random_bool(0.6) {
                let rival = What::Change {
                    node: rng.random_range(0..nodes),
                    which: which + 100,
                };
                drawn.push((at_us + rng.random_range(0..10_000), rival));
            }
        }
    }
}

/// In some runs much is deleted, and what is deleted is reaped. Drawn apart, as below.
fn reaping(seed: u64, setting: &mut Setting, drawn: &mut Drawn) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.rotate_left(32) ^ 0x7ea9);
    setting.reaps = !setting.polite && rng.random_bool(0.4);
    if !setting.reaps {
        return;
    }
    // Fewer requests leave time between two of them, in which a key is deleted and nothing else.
    let share = [0.2, 0.5, 1.0][rng.random_range(0..3)];
    drawn.retain_mut(|(_, what)| {
        let What::Ask { wish, .. } = what else {
            return true;
        };
        if matches!(wish, Wish::Blind | Wish::Modify | Wish::Stale) && rng.random_bool(0.4) {
            *wish = Wish::Delete;
        }
        rng.random_bool(share)
    });
}

/// Members that go, fail for good and come. Drawn apart, so that the rest of a plan is as it was without.
fn owner_changes(seed: u64, setting: &Setting, drawn: &mut Drawn) {
    let mut rng = ChaCha8Rng::seed_from_u64(!seed);
    let nodes = setting.nodes;
    if nodes < 4 || rng.random_bool(0.5) {
        return;
    }
    for _ in 0..rng.random_range(1..=3) {
        let who = rng.random_range(0..nodes);
        let node = (who + rng.random_range(1..nodes)) % nodes;
        let at_us = rng.random_range(FORMED_US..CALM_US);
        let goes = match rng.random_bool(0.6) {
            true => What::Leave { node, who },
            false => What::Remove { node, who },
        };
        drawn.push((at_us, goes));
        for _ in 0..2 {
            let node = (who + rng.random_range(1..nodes)) % nodes;
            let back_us = rng.random_range(at_us..CALM_US + 1);
            drawn.push((back_us, What::Join { node, who }));
        }
    }
}

/// Nodes that lose their disk; most are compared with everybody later, and some come back cut off from one.
fn wipes(rng: &mut ChaCha8Rng, nodes: usize, from_us: u64, drawn: &mut Drawn) {
    for _ in 0..rng.random_range(1..=2) {
        let (node, down_us) = (rng.random_range(0..nodes), rng.random_range(1_000..100_000));
        let at_us = rng.random_range(from_us..CALM_US);
        drawn.push((at_us, What::Wipe { node, down_us }));
        if nodes > 2 && rng.random_bool(0.5) {
            // It comes back and cannot ask everybody.
            let other = (node + rng.random_range(1..nodes)) % nodes;
            let heal_us = (at_us + down_us + rng.random_range(100_000..800_000)).min(CALM_US);
            for (from, to) in [(node, other), (other, node)] {
                drawn.push((at_us, What::Cut { from, to }));
                drawn.push((heal_us, What::Heal { from, to }));
            }
        }
        if rng.random_bool(0.7) {
            let filled_us = at_us + down_us + rng.random_range(1_000..400_000);
            drawn.push((filled_us.min(CALM_US), What::Refill { node }));
        }
    }
}

/// All owners of a key are cut off from all others, again and again.
fn drills(rng: &mut ChaCha8Rng, setting: &Setting, from_us: u64, drawn: &mut Drawn) {
    for _ in 0..rng.random_range(2..=5) {
        let begin_us = split(rng, setting, from_us, drawn);
        // An owner is gone first: what is kept for it is there when the others are cut off, too.
        let owner = owners(setting.nodes, 0)[rng.random_range(0..3)];
        let (at_us, down_us) = (
            begin_us.saturating_sub(rng.random_range(20_000..200_000)),
            rng.random_range(100_000..400_000),
        );
        let (node, at_us) = (owner, at_us.max(from_us));
        drawn.push((at_us, What::Crash { node, down_us }));
    }
}

/// Two sides that do not hear each other; often all owners of a key are on one of them.
fn split(rng: &mut ChaCha8Rng, setting: &Setting, from_us: u64, drawn: &mut Drawn) -> u64 {
    let nodes = setting.nodes;
    let begin_us = rng.random_range(from_us..CALM_US);
    let end_us = (begin_us + rng.random_range(50_000..800_000)).min(CALM_US);
    let owners = owners(nodes, rng.random_range(0..setting.keys));
    let sides: Vec<bool> = match owners.len() < nodes && rng.random_bool(0.7) {
        true => (0..nodes).map(|node| owners.contains(&node)).collect(),
        false => (0..nodes).map(|_| rng.random_bool(0.5)).collect(),
    };
    for (from, side) in sides.iter().enumerate() {
        let other = sides.iter().enumerate().filter(|(_, other)| *other != side);
        for (to, _) in other {
            drawn.push((begin_us, What::Cut { from, to }));
            drawn.push((end_us, What::Heal { from, to }));
        }
    }
    begin_us
}

/// One node alone, or one link; both directions or one.
fn cut(rng: &mut ChaCha8Rng, nodes: usize, from_us: u64, drawn: &mut Drawn) {
    let (begin_us, for_us) = (
        rng.random_range(from_us..CALM_US),
        rng.random_range(5_000..600_000),
    );
    let end_us = (begin_us + for_us).min(CALM_US);
    let one = rng.random_range(0..nodes);
    let others: Vec<usize> = match rng.random_bool(0.5) {
        true => (0..nodes).filter(|other| *other != one).collect(),
        false => vec![(one + rng.random_range(1..nodes)) % nodes],
    };
    let directions = rng.random_range(0..3);
    for other in others {
        for (from, to) in [(one, other), (other, one)] {
            if directions == 2 || (directions == 0) == (from == one) {
                drawn.push((begin_us, What::Cut { from, to }));
                drawn.push((end_us, What::Heal { from, to }));
            }
        }
    }
}
