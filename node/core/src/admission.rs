//! Who may begin now: so many requests run, so many wait, and the others are told at once.
//!
//! Past what a node can run at a time more requests only make every answer later, until clients give up on answers
//! that were still worked on, and ask again. So the number that runs is bounded, the number that waits is bounded,
//! and so is the time: a short wait smooths bursts, and while the line does not empty (overload, not a burst) a much
//! shorter one keeps it from becoming part of every answer. Under overload the newest goes first: its client is the
//! one most likely to be there still (K. Nichols and V. Jacobson, "Controlling Queue Delay", 2012, and B. Maurer,
//! "Fail at Scale", 2015).
//!
//! Laws: at most `running` run; at most `waiting` wait; whoever waits is begun or shed exactly once, unless it
//! withdraws; nobody is begun after its deadline; a place that is given back goes to somebody who waits, if anybody
//! does. Time is what the caller says, in milliseconds.

use std::collections::VecDeque;

/// How much is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run at once.
    pub running: usize,
    /// Requests that wait at once.
    pub waiting: usize,
    /// How long one may wait in a burst.
    pub patience_ms: u64,
    /// How long one may wait under overload.
    pub overload_patience_ms: u64,
    /// A line that did not empty for so long is overload.
    pub overload_after_ms: u64,
}

/// One who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What is said on arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, and must [leave](Line::leave).
    Begin,
    /// It waits until it is told, for so long at most; then it must [withdraw](Line::withdraw).
    Wait(Ticket, u64),
    /// There is no room, and would be none in time.
    Shed,
}

/// What is said to one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It runs from now on, and must [leave](Line::leave).
    Begin(Ticket),
    /// It waited too long.
    Shed(Ticket),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    since_ms: u64,
    until_ms: u64,
}

/// The line before a node.
#[derive(Clone, Debug)]
pub struct Line {
    limits: Limits,
    running: usize,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Since when somebody always waited.
    crowded_ms: Option<u64>,
    next: u64,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: VecDeque::new(),
            crowded_ms: None,
            next: 0,
        }
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the line has not emptied for so long that this is no burst any more.
    #[must_use]
    pub fn is_overloaded(&self, now_ms: u64) -> bool {
        let crowded = self
            .crowded_ms
            .map(|since_ms| now_ms.saturating_sub(since_ms));
        crowded.is_some_and(|crowded_ms| crowded_ms >= self.limits.overload_after_ms)
    }

    fn patience_ms(&self, now_ms: u64) -> u64 {
        match self.is_overloaded(now_ms) {
            true => self.limits.overload_patience_ms,
            false => self.limits.patience_ms,
        }
    }

    /// Somebody comes, whose client waits until then.
    pub fn arrive(&mut self, now_ms: u64, until_ms: u64) -> Verdict {
        if until_ms <= now_ms {
            return Verdict::Shed;
        }
        // Nobody waits while there is a place, so nobody is overtaken here.
        if self.running < self.limits.running {
            self.running += 1;
            return Verdict::Begin;
        }
        if self.waiting.len() >= self.limits.waiting {
            return Verdict::Shed;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back(Waiting {
            ticket,
            since_ms: now_ms,
            until_ms,
        });
        self.crowded_ms.get_or_insert(now_ms);
        let wait_ms = self.limits.patience_ms.min(until_ms - now_ms);
        Verdict::Wait(ticket, wait_ms)
    }

    /// One that ran is done: its place goes on, and whoever waited too long is told.
    pub fn leave(&mut self, now_ms: u64) -> Vec<Turn> {
        debug_assert!(self.running > 0, "who leaves has begun");
        self.running = self.running.saturating_sub(1);
        let mut turns = self.shed_late(now_ms);
        // Ends: every turn fills a place.
        while self.running < self.limits.running
            && let Some(next) = self.next(now_ms)
        {
            self.running += 1;
            turns.push(Turn::Begin(next.ticket));
        }
        self.look();
        turns
    }

    /// One that waits goes, or was not told in time. Whether it was still in line: if not, it has been told.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.look();
        self.waiting.len() < before
    }

    fn next(&mut self, now_ms: u64) -> Option<Waiting> {
        match self.is_overloaded(now_ms) {
            true => self.waiting.pop_back(),
            false => self.waiting.pop_front(),
        }
    }

    fn shed_late(&mut self, now_ms: u64) -> Vec<Turn> {
        let patience_ms = self.patience_ms(now_ms);
        let mut turns = Vec::new();
        self.waiting.retain(|waiting| {
            let waited_ms = now_ms.saturating_sub(waiting.since_ms);
            let stays = waited_ms <= patience_ms && now_ms < waiting.until_ms;
            if !stays {
                turns.push(Turn::Shed(waiting.ticket));
            }
            stays
        });
        turns
    }

    fn look(&mut self) {
        if self.waiting.is_empty() {
            self.crowded_ms = None;
        }
    }
}

/// What a node is busy with, for work that can wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests of clients that run.
    pub running: usize,
    /// Requests of clients that wait.
    pub waiting: usize,
    /// Writes before the writer, those of peers among them.
    pub writes: usize,
}

/// Requests under way above which clients go first: what a node of two cores serves without a queue.
pub const BUSY_REQUESTS: usize = 32;
/// Writes before the writer above which clients go first: half a batch.
pub const BUSY_WRITES: usize = 512;
/// How long one step of background work waits for clients at most: it slows down and never stands still.
pub const MAX_YIELD_MS: u64 = 250;

impl Load {
    /// Whether clients go first.
    #[must_use]
    pub fn is_busy(self) -> bool {
        self.waiting > 0 || self.running > BUSY_REQUESTS || self.writes > BUSY_WRITES
    }

    /// Whether a step of background work that has waited for so long waits on.
    #[must_use]
    pub fn holds_back(self, waited_ms: u64) -> bool {
        self.is_busy() && waited_ms < MAX_YIELD_MS
    }
}

#[cfg(test)]
mod tests;
