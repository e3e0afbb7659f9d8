//! The door of a node: where requests of clients wait for their turn, and background work for the clients.
//!
//! The line is a value of the core; this gives it a clock, a lock and somebody to tell. Only what clients ask comes
//! through it: health and operation are answered however long the line is, and what peers ask was accepted by
//! another node, so it is let in and can finish. A request that is dropped while it waits or runs gives its place
//! back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sibyl_core::admission::{Limits, Line, Load, Ticket, Turn, Verdict};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::replica::Replica;

/// Requests of clients that run at once, unless the node is told otherwise: at 10 ms each 25,600 a second, far more
/// than a node does; with values of 1 MiB as much memory as bodies may take.
pub const MAX_REQUESTS: usize = 256;
/// Requests that wait, for each that may run: a second of a node that takes a quarter of one for all that run.
const WAITING_PER_RUNNING: usize = 4;
/// How long one waits in a burst: a tenth of a client's usual patience.
const PATIENCE_MS: u64 = 500;
/// How long one waits under overload: some group commits.
const OVERLOAD_PATIENCE_MS: u64 = 50;
/// A line that did not empty for so long is no burst.
const OVERLOAD_AFTER_MS: u64 = 100;
/// Between two looks of background work whether clients are done.
const YIELD_STEP: Duration = Duration::from_millis(5);

/// Why a request was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// As many wait as may.
    #[error(
        "this node has as many requests as it can serve: try again after the time in Retry-After, or another node"
    )]
    Full,
    /// It waited, and no place came free in time.
    #[error(
        "this node could not begin the request in time: try again after the time in Retry-After, or another node"
    )]
    Waited,
}

/// The door. Clones are one.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    began: Instant,
    replica: Replica,
}

struct State {
    line: Line,
    waiting: BTreeMap<Ticket, oneshot::Sender<Told>>,
}

/// What one who waits is told. It carries the place, so that a place nobody takes goes on.
type Told = Result<Pass, Shed>;

/// A place among those that run; given back when it is dropped.
pub struct Pass {
    door: Option<Arc<Inner>>,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass")
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(door) = self.door.take() {
            door.leave();
        }
    }
}

/// One in line; gives its ticket back if it goes before it is told.
struct InLine<'a> {
    door: &'a Arc<Inner>,
    ticket: Ticket,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = self.door.state();
        state.line.withdraw(self.ticket);
        state.waiting.remove(&self.ticket);
    }
}

impl Door {
    /// The door of the node with these copies.
    pub fn new(replica: Replica, max_requests: usize) -> Self {
        let line = Line::new(Limits {
            running: max_requests,
            waiting: max_requests.saturating_mul(WAITING_PER_RUNNING),
            patience_ms: PATIENCE_MS,
            overload_patience_ms: OVERLOAD_PATIENCE_MS,
            overload_after_ms: OVERLOAD_AFTER_MS,
        });
        let state = State {
            line,
            waiting: BTreeMap::new(),
        };
        let inner = Inner {
            state: Mutex::new(state),
            began: Instant::now(),
            replica,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Lets a client's request in, whose client waits for so long: at once, when a place comes free, or not at all.
    ///
    /// # Errors
    /// [`Shed`]; nothing was begun.
    pub async fn enter(&self, patience: Duration) -> Result<Pass, Shed> {
        let inner = &self.inner;
        let (ticket, wait_ms, told) = {
            let mut state = inner.state();
            let now_ms = inner.now_ms();
            match state
                .line
                .arrive(now_ms, now_ms.saturating_add(whole_ms(patience)))
            {
                Verdict::Begin => return Ok(inner.pass()),
                Verdict::Shed => return Err(Shed::Full),
                Verdict::Wait(ticket, wait_ms) => {
                    let (tell, told) = oneshot::channel();
                    state.waiting.insert(ticket, tell);
                    (ticket, wait_ms, told)
                }
            }
        };
        let _in_line = InLine {
            door: inner,
            ticket,
        };
        match timeout(Duration::from_millis(wait_ms), told).await {
            Ok(Ok(told)) => told,
            _ => Err(Shed::Waited),
        }
    }

    /// What the node is busy with.
    pub fn load(&self) -> Load {
        let state = self.inner.state();
        Load {
            running: state.line.running(),
            waiting: state.line.waiting(),
            writes: self.inner.replica.queued(),
        }
    }

    /// Lets clients go first, for a while. Each step of background work comes through here.
    pub async fn yield_to_clients(&self) {
        let began = Instant::now();
        while self.load().holds_back(whole_ms(began.elapsed())) {
            sleep(YIELD_STEP).await;
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        whole_ms(self.began.elapsed())
    }

    fn pass(self: &Arc<Self>) -> Pass {
        Pass {
            door: Some(Arc::clone(self)),
        }
    }

    fn leave(self: &Arc<Self>) {
        let mut unheard = Vec::new();
        let mut state = self.state();
        for turn in state.line.leave(self.now_ms()) {
            let (ticket, told) = match turn {
                Turn::Begin(ticket) => (ticket, Ok(self.pass())),
                Turn::Shed(ticket) => (ticket, Err(Shed::Waited)),
            };
            match state.waiting.remove(&ticket) {
                Some(waiting) => unheard.extend(waiting.send(told).err()),
                None => unheard.push(told),
            }
        }
        // Dropped without the lock: a place that nobody took is given back, which takes it. Ends, because each of
        // them was in line once.
        drop(state);
        drop(unheard);
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
