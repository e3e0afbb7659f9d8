//! What is under way on this node that holds objects, by the epoch it began in.
//!
//! Whoever reads objects to send, join or keep them takes a [`Flight`] first and drops it when nothing of them is
//! left in its hands. Messages count by themselves (`sent`), under the epoch of the oldest flight there is when they
//! are written. It knows numbers alone: what an epoch is for is said by others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everything under way.
#[derive(Debug, Default)]
pub struct Flights {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    relayed: u64,
    /// How many there are of each epoch; none is zero.
    by_epoch: BTreeMap<u64, usize>,
}

/// One thing under way, until it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is over"]
pub struct Flight {
    of: Arc<Flights>,
    epoch: u64,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What begins from now on begins in this epoch.
    pub fn enter(&self, epoch: u64) {
        let mut state = self.lock();
        state.epoch = state.epoch.max(epoch);
    }

    /// Something begins.
    pub fn begin(self: &Arc<Self>) -> Flight {
        let mut state = self.lock();
        let epoch = state.epoch;
        *state.by_epoch.entry(epoch).or_default() += 1;
        drop(state);
        let of = Arc::clone(self);
        Flight { of, epoch }
    }

    /// The epoch in which the oldest of what is under way began.
    pub fn oldest(&self) -> Option<u64> {
        self.lock().by_epoch.keys().next().copied()
    }

    /// The epoch that a message written now belongs to.
    pub(super) fn tag(&self) -> u64 {
        let state = self.lock();
        state.by_epoch.keys().next().copied().unwrap_or(state.epoch)
    }

    /// A hint was kept of what was read elsewhere: it may be older than this node knows.
    pub fn relay(&self) {
        let mut state = self.lock();
        state.relayed = state.epoch;
    }

    /// The last epoch in which that happened.
    pub fn relayed(&self) -> u64 {
        self.lock().relayed
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        if let Some(count) = state.by_epoch.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                state.by_epoch.remove(&self.epoch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_until_it_is_over() {
        let flights = Arc::new(Flights::default());
        flights.enter(3);
        let first = flights.begin();
        flights.enter(4);
        let (second, third) = (flights.begin(), flights.begin());
        assert_eq!((flights.oldest(), flights.tag()), (Some(3), 3));
        drop((first, second));
        assert_eq!((flights.oldest(), flights.tag()), (Some(4), 4));
        drop(third);
        flights.enter(2);
        assert_eq!((flights.oldest(), flights.tag()), (None, 4));
        flights.relay();
        assert_eq!(flights.relayed(), 4);
    }
}
