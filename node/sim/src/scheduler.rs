//! Virtual time: what happens next, in an order that only the run itself decides.
//!
//! Two events at one moment happen in the order in which they were scheduled. Nothing here knows what an
//! event is. Time is in microseconds since the start of the run.

use std::collections::BTreeMap;

/// Events to come.
#[derive(Debug)]
pub struct Scheduler<E> {
    now_us: u64,
    scheduled: u64,
    queue: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Scheduler<E> {
    fn default() -> Self {
        Self {
            now_us: 0,
            scheduled: 0,
            queue: BTreeMap::new(),
        }
    }
}

impl<E> Scheduler<E> {
    /// The present moment.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets an event happen at a moment; a moment that has passed means now.
    pub fn at(&mut self, at_us: u64, event: E) {
        self.scheduled += 1;
        self.queue
            .insert((at_us.max(self.now_us), self.scheduled), event);
    }

    /// Lets an event happen after some time.
    pub fn after(&mut self, after_us: u64, event: E) {
        self.at(self.now_us + after_us, event);
    }

    /// The next event; time moves on to it.
    pub fn pop(&mut self) -> Option<E> {
        let ((at_us, _), event) = self.queue.pop_first()?;
        self.now_us = at_us;
        Some(event)
    }
}
