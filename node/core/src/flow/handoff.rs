//! Delivering hints, as the node that keeps them sees it: for whom next, how much at a time, when again.
//!
//! Hints go in batches, in the order of their records, from where the last batch ended; so nothing has to be
//! remembered over a restart. A target that can be reached is served at once, and one that asks (it is back)
//! is not kept waiting by earlier failures. A batch that failed is tried again after a pause that doubles up
//! to a limit, with a random part, so that nodes that failed together do not come together; it goes on behind
//! what failed, so that one hint that cannot be delivered holds up no other. At most [`LANES`] targets are
//! served at a time, and between batches there is a pause while clients are served.
//! A hint goes when its target has acknowledged it, which is not decided here but by [`crate::hint::Hint`].

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::NodeId;

#[cfg(test)]
mod tests;

/// Targets served at a time: of 256 KiB batches two fill a 2 Gbit/s link; more would only crowd out clients.
pub const LANES: usize = 2;
/// Hints in a batch: at 1 KiB each 64 KiB, which a disk takes in one sync; few enough to yield often.
pub const BATCH: usize = 64;
/// The pause between two batches while clients are served: at 64 hints each, 640 hints a second and target.
pub const YIELD_MS: u64 = 100;
/// The first pause after a failure.
pub const FIRST_PAUSE_MS: u64 = 500;
/// The longest: a target that stays away costs one batch in half a minute.
pub const LONGEST_PAUSE_MS: u64 = 30_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// This node can be reached now.
    Reachable(&'a NodeId),
    /// It cannot any more.
    Gone(&'a NodeId),
    /// Something is kept for it.
    Kept(&'a NodeId),
    /// It is back and asks for what is kept for it.
    Asked(&'a NodeId),
    /// A batch came to its end.
    Ended {
        /// For whom it was.
        target: &'a NodeId,
        /// How.
        end: End,
    },
    /// A pause is over.
    Woken,
}

/// How a batch ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// How many hints the target has now.
    pub delivered: usize,
    /// How many it has not.
    pub failed: usize,
    /// The last record of the batch, if there may be more behind it.
    pub next: Option<Bytes>,
    /// Whether clients are served at the moment.
    pub busy: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Deliver up to [`BATCH`] hints to this target, from behind this record on.
    Deliver {
        /// To whom.
        target: NodeId,
        /// The last record of the batch before.
        after: Option<Bytes>,
    },
    /// Say when this moment has come.
    WakeAt(u64),
}

/// Who is served how.
#[derive(Clone, Debug, Default)]
pub struct Handoff {
    targets: BTreeMap<NodeId, Target>,
}

#[derive(Clone, Debug, Default)]
struct Target {
    reachable: bool,
    /// Something may be kept for it.
    wanted: bool,
    /// Something came since the pass under way began: it may lie before its place.
    again: bool,
    /// Something of this pass was not delivered.
    missed: bool,
    running: bool,
    after: Option<Bytes>,
    due_ms: u64,
    failures: u32,
}

impl Handoff {
    /// Takes an event. `random` is drawn anew for every event.
    pub fn handle(&mut self, event: Event<'_>, now_ms: u64, random: u64) -> Vec<Effect> {
        match event {
            Event::Reachable(node) => {
                let target = self.target(node);
                target.reachable = true;
                target.due_ms = now_ms;
            }
            Event::Gone(node) => self.target(node).reachable = false,
            Event::Kept(node) => {
                let target = self.target(node);
                target.again |= target.wanted;
                target.wanted = true;
            }
            Event::Asked(node) => {
                let target = self.target(node);
                (target.reachable, target.wanted) = (true, true);
                (target.due_ms, target.failures) = (now_ms, 0);
            }
            Event::Ended { target, end } => self.target(target).end(end, now_ms, random),
            Event::Woken => {}
        }
        self.next(now_ms)
    }

    /// Whether something may be kept for this node that is not delivered.
    pub fn is_wanted(&self, node: &NodeId) -> bool {
        self.targets.get(node).is_some_and(|target| target.wanted)
    }

    fn target(&mut self, node: &NodeId) -> &mut Target {
        self.targets.entry(node.clone()).or_default()
    }

    /// Whoever has waited longest, while there is a lane; and when the next one's pause is over.
    fn next(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut running = self
            .targets
            .values()
            .filter(|target| target.running)
            .count();
        while running < LANES {
            let due = self.targets.iter_mut();
            let due = due.filter(|(_, target)| target.waits() && target.due_ms <= now_ms);
            let Some((node, target)) = due.min_by_key(|(_, target)| target.due_ms) else {
                break;
            };
            target.running = true;
            running += 1;
            effects.push(Effect::Deliver {
                target: node.clone(),
                after: target.after.clone(),
            });
        }
        let waiting = self.targets.values().filter(|target| target.waits());
        let later = waiting
            .map(|target| target.due_ms)
            .filter(|due| *due > now_ms);
        effects.extend(later.min().map(Effect::WakeAt));
        effects
    }
}

impl Target {
    fn waits(&self) -> bool {
        self.reachable && self.wanted && !self.running
    }

    fn end(&mut self, end: End, now_ms: u64, random: u64) {
        self.running = false;
        self.missed |= end.failed > 0;
        let is_last = end.next.is_none();
        self.after = end.next;
        let fails = end.failed > 0 && (end.delivered == 0 || is_last);
        if fails || (is_last && self.missed) {
            let doubled = FIRST_PAUSE_MS << self.failures.min(16);
            let pause = doubled.min(LONGEST_PAUSE_MS);
            self.failures += 1;
            // Half of it for sure, and up to as much again.
            self.due_ms = now_ms + pause / 2 + random % (pause / 2 + 1);
        } else {
            self.failures = 0;
            self.due_ms = now_ms + if end.busy { YIELD_MS } else { 0 };
        }
        if is_last {
            self.wanted = std::mem::take(&mut self.again) | std::mem::take(&mut self.missed);
        }
    }
}
