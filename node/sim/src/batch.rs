//! Many seeds, in parallel: which one fails first, how fast, and what was never met.
//!
//! Each run is one thread's own; results are gathered in the order of seeds, so a batch is as deterministic
//! as its runs. The first percent (or whatever is asked for) runs twice and must give the same trace.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checks::Violation;
use crate::gossip;
use crate::plan::Plan;
use crate::sight::{Sight, Sights};
use crate::world::{Report, run};
use crate::zoo::Bug;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many of 100 run twice; the first ones.
    pub twice_percent: u64,
    /// Where to play; `None`: every seed in the world, and one of [`GOSSIP_EVERY`] in the room of gossip, too.
    pub room: Option<Room>,
    /// A known bug to have.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: usize,
}

/// A run of gossip costs twice as much as one of the world: so many seeds share one.
pub const GOSSIP_EVERY: u64 = 8;

/// Where a seed is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Keys, copies and the registry.
    World,
    /// Membership.
    Gossip,
}

impl Room {
    /// The rooms in which a batch plays a seed: with a bug, where that can show.
    fn of(batch: Batch, seed: u64) -> &'static [Self] {
        match (batch.bug, batch.room) {
            (Some(bug), _) if bug.gossip().is_some() => &[Self::Gossip],
            (Some(_), _) | (None, Some(Self::World)) => &[Self::World],
            (None, Some(Self::Gossip)) => &[Self::Gossip],
            (None, None) if seed.is_multiple_of(GOSSIP_EVERY) => &[Self::World, Self::Gossip],
            (None, None) => &[Self::World],
        }
    }

    fn play(self, seed: u64, bug: Option<Bug>) -> Report {
        match self {
            Self::World => careful(&Plan::for_bug(seed, bug), bug),
            Self::Gossip => careful_gossip(&gossip::Plan::draw(seed), bug),
        }
    }
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub room: Room,
    /// The seed.
    pub seed: u64,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// What.
    pub violation: Violation,
}

/// What a batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// The failed seed with the lowest number, among those run.
    pub failure: Option<Failure>,
    /// How many seeds ran.
    pub ran: u64,
    /// How many events they had.
    pub events: u64,
    /// What they met.
    pub sights: Sights,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What no seed has met.
    pub fn missing(&self) -> Vec<Sight> {
        self.sights.missing()
    }

    /// Seeds per second, all threads together.
    pub fn rate(&self) -> f64 {
        self.ran as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

#[derive(Default)]
struct Gathered {
    failures: BTreeMap<u64, Failure>,
    ran: u64,
    events: u64,
    sights: Sights,
}

/// Runs a batch; stops at the first failure.
pub fn run_batch(batch: Batch) -> Outcome {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let gathered = Mutex::new(Gathered::default());
    std::thread::scope(|scope| {
        for _ in 0..batch.jobs.max(1) {
            scope.spawn(|| work(batch, &next, &gathered));
        }
    });
    let gathered = gathered
        .into_inner()
        .expect("a thread that panicked has ended the batch");
    Outcome {
        failure: gathered.failures.into_values().next(),
        ran: gathered.ran,
        events: gathered.events,
        sights: gathered.sights,
        took: began.elapsed(),
    }
}

/// Takes seeds until there are none, or one has failed. Ends: the counter only grows.
fn work(batch: Batch, next: &AtomicU64, gathered: &Mutex<Gathered>) {
    let twice = (batch.seeds * batch.twice_percent).div_ceil(100);
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= batch.seeds {
            return;
        }
        let seed = batch.from + at;
        for room in Room::of(batch, seed) {
            let report = room.play(seed, batch.bug);
            let mut violation = report.violation;
            if at < twice && violation.is_none() {
                violation = again(*room, seed, batch.bug, report.hash);
            }
            let mut gathered = gathered
                .lock()
                .expect("a thread that panicked has ended the batch");
            gathered.events += report.events;
            gathered.sights.add(&report.sights);
            if let Some((at_us, violation)) = violation {
                let failure = Failure {
                    room: *room,
                    seed,
                    at_us,
                    violation,
                };
                gathered.failures.entry(seed).or_insert(failure);
                next.store(batch.seeds, Ordering::Relaxed);
            }
        }
        let mut gathered = gathered
            .lock()
            .expect("a thread that panicked has ended the batch");
        gathered.ran += 1;
    }
}

/// A run whose panic is a failure like any other: it has a seed.
pub(crate) fn careful(plan: &Plan, bug: Option<Bug>) -> Report {
    caught(|| run(plan, bug, false))
}

/// The same in the room of gossip.
pub(crate) fn careful_gossip(plan: &gossip::Plan, bug: Option<Bug>) -> Report {
    caught(|| gossip::run(plan, bug, false))
}

fn caught(play: impl FnOnce() -> Report + std::panic::UnwindSafe) -> Report {
    let caught = std::panic::catch_unwind(play);
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let found = text.unwrap_or("it panicked").to_owned();
        let violation = Some((
            0,
            Violation {
                check: "a run does not panic",
                found,
            },
        ));
        Report {
            violation,
            sights: Sights::default(),
            hash: 0,
            events: 0,
            lines: Vec::new(),
        }
    })
}

fn again(room: Room, seed: u64, bug: Option<Bug>, hash: u64) -> Option<(u64, Violation)> {
    let second = room.play(seed, bug).hash;
    (second != hash).then(|| {
        let found = format!("two runs have the traces {hash:016x} and {second:016x}");
        (
            0,
            Violation {
                check: "a seed is one run",
                found,
            },
        )
    })
}
