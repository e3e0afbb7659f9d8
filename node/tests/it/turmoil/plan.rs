//! What goes wrong, and when: drawn from the seed before anything begins.

use std::time::Duration;

use crate::flips::Draw;

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing passes between two nodes.
    Cut(usize, usize),
    /// Nothing passes from one node to another.
    CutOneWay(usize, usize),
    /// What is sent between two nodes waits, and arrives afterwards.
    Hold(usize, usize),
    /// Messages between two nodes take long.
    Slow(usize, usize),
    /// Nothing arrives at one node from another until later; what it sends itself does.
    HoldOneWay(usize, usize),
    /// A node's power fails: what it had not synced may be gone.
    Crash(usize),
    /// The power of all nodes fails at once.
    Blackout,
}

/// A fault and how long it lasts, counted from when clients begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// How long faults come and go.
pub(super) const DURING: Duration = Duration::from_secs(12);
/// The most nodes without power at once: with three, no node could form a quorum for any key, and nothing is learned.
const MOST_DOWN: usize = 2;

/// What goes wrong with this seed. Two faults never lie on one link at once: one would end the other.
pub(super) fn plan(draw: &mut Draw, nodes: usize) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    for _ in 0..6 + draw.below(7) {
        let one = draw.below(nodes);
        let other = (one + 1 + draw.below(nodes - 1)) % nodes;
        let fault = match draw.below(15) {
            0..2 => Fault::Cut(one, other),
            2..4 => Fault::CutOneWay(one, other),
            4 => Fault::Hold(one, other),
            5 => Fault::HoldOneWay(one, other),
            6 => Fault::Slow(one, other),
            7..9 => Fault::Blackout,
            _ => Fault::Crash(one),
        };
        let most_ms = DURING.as_millis() as usize;
        let from_ms = 200 + draw.below(most_ms - 1000);
        // Many are over before anybody has noticed, some last until peers are suspected.
        // Who lost its power for a moment is missed by those only who have something to ask of it.
        let kinds = if fault.is_power() { 5 } else { 3 };
        let lasts_ms = match (draw.below(kinds) + 3) % kinds {
            0 | 3 | 4 => 20 + draw.below(300),
            1 => 300 + draw.below(1700),
            _ => 2000 + draw.below(4000),
        };
        let from = Duration::from_millis(from_ms as u64);
        let until = Duration::from_millis((from_ms + lasts_ms).min(most_ms) as u64);
        let new = Planned { fault, from, until };
        let beside: Vec<_> = planned.iter().filter(|it| it.overlaps(&new)).collect();
        let down = beside
            .iter()
            .filter(|it| matches!(it.fault, Fault::Crash(_)));
        let fits = match fault {
            Fault::Crash(_) => down.count() < MOST_DOWN,
            Fault::Blackout => down.count() == 0,
            _ => true,
        };
        let is_dark = beside.iter().any(|it| it.fault == Fault::Blackout);
        let fits = fits && !(fault.is_power() && is_dark);
        if fits && beside.iter().all(|it| it.fault.place() != fault.place()) {
            planned.push(new);
        }
    }
    planned.sort_by_key(|planned| planned.from);
    planned
}

impl Planned {
    fn overlaps(&self, other: &Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

impl Fault {
    /// The link or the node that it is about.
    fn place(self) -> (usize, usize) {
        match self {
            Self::Cut(a, b)
            | Self::CutOneWay(a, b)
            | Self::Hold(a, b)
            | Self::HoldOneWay(a, b)
            | Self::Slow(a, b) => (a.min(b), a.max(b)),
            Self::Crash(node) => (node, node),
            Self::Blackout => (usize::MAX, usize::MAX),
        }
    }

    /// Whether it ends processes.
    pub(super) fn is_power(self) -> bool {
        matches!(self, Self::Crash(_) | Self::Blackout)
    }
}
