//! Calls under way to one peer: a slab of waiting callers, found by request id.
//!
//! An id is a slot and that slot's generation, so a late answer to a call that gave up never reaches the
//! call that has the slot now. No timer per call: the earliest deadline is known as a lower bound, and one
//! look over the slots (at most 4,096) finds who is overdue. Pure: time comes in, wakers go out.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::error::{CallError, Reason, Sent};
use super::limits::{EXPIRY_STEP, MAX_CALLS, MAX_PEER_BYTES};

/// What the peer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The caller's and service's own encoding; a slice of the read buffer.
    pub head: Bytes,
    /// Raw bytes; a slice of the read buffer of 64 KiB or more: copy what is kept beyond the request.
    pub body: Bytes,
    /// The peer's registry number when it answered.
    pub registry: u64,
}

enum State {
    Free,
    Waiting {
        waker: Option<Waker>,
        deadline: Instant,
        /// The frame was handed to the socket: the peer may see it.
        written: bool,
    },
    Done(Result<Answer, CallError>),
}

struct Slot {
    generation: u32,
    bytes: usize,
    state: State,
}

/// The calls to one peer.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    bytes: usize,
    earliest: Option<Instant>,
}

impl Calls {
    /// Enters a call of so many bytes, unless too much is under way.
    pub(super) fn insert(&mut self, deadline: Instant, bytes: usize) -> Option<u64> {
        if self.len() >= MAX_CALLS || self.bytes + bytes > MAX_PEER_BYTES {
            return None;
        }
        let state = State::Waiting {
            waker: None,
            deadline,
            written: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                bytes: 0,
                state: State::Free,
            });
            u32::try_from(self.slots.len() - 1).expect("at most MAX_CALLS slots")
        });
        let slot = &mut self.slots[index as usize];
        slot.state = state;
        slot.bytes = bytes;
        self.bytes += bytes;
        let earliest = self.earliest.get_or_insert(deadline);
        *earliest = deadline.min(*earliest);
        Some(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Calls entered and not yet taken or given up.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes of requests not answered and of answers not taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// No call is overdue before this.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    fn index(&self, id: u64) -> Option<usize> {
        let index = (id & u64::from(u32::MAX)) as usize;
        let slot = self.slots.get(index)?;
        let fits = u64::from(slot.generation) == id >> 32 && !matches!(slot.state, State::Free);
        fits.then_some(index)
    }

    /// Notes that the call's frame is handed to the socket. False: nobody waits for it any more.
    pub(super) fn sending(&mut self, id: u64, now: Instant) -> bool {
        let Some(index) = self.index(id) else {
            return false;
        };
        match &mut self.slots[index].state {
            State::Waiting {
                written, deadline, ..
            } if *deadline > now => {
                *written = true;
                true
            }
            _ => false,
        }
    }

    /// Completes a call; nobody may be waiting any more. An answer that does not fit becomes an error.
    pub(super) fn complete(
        &mut self,
        id: u64,
        result: Result<Answer, CallError>,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(index) = self.index(id) {
            self.finish(index, result, wakers);
        }
    }

    fn finish(
        &mut self,
        index: usize,
        mut result: Result<Answer, CallError>,
        wakers: &mut Vec<Waker>,
    ) {
        let slot = &mut self.slots[index];
        let State::Waiting { waker, .. } = &mut slot.state else {
            return;
        };
        wakers.extend(waker.take());
        self.bytes -= std::mem::take(&mut slot.bytes);
        if let Ok(answer) = &result {
            let size = answer.head.len() + answer.body.len();
            if self.bytes + size <= 2 * MAX_PEER_BYTES {
                slot.bytes = size;
                self.bytes += size;
            } else {
                let (reason, sent) = (Reason::Overloaded, Sent::Maybe);
                result = Err(CallError { reason, sent });
            }
        }
        slot.state = State::Done(result);
    }

    /// The call's result, or a place for its waker.
    pub(super) fn poll(&mut self, id: u64, cx: &Context<'_>) -> Poll<Result<Answer, CallError>> {
        let index = self.index(id).expect("a call is polled until it is done");
        if let State::Waiting { waker, .. } = &mut self.slots[index].state {
            match waker {
                Some(known) => known.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match self.vacate(index) {
            State::Done(result) => Poll::Ready(result),
            State::Free | State::Waiting { .. } => unreachable!("index() and the branch above"),
        }
    }

    /// Gives a call up: its answer, if one comes, is dropped; its frame, if still queued, is not sent.
    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(index) = self.index(id) {
            self.vacate(index);
        }
    }

    fn vacate(&mut self, index: usize) -> State {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        self.bytes -= std::mem::take(&mut slot.bytes);
        self.free
            .push(u32::try_from(index).expect("at most MAX_CALLS slots"));
        std::mem::replace(&mut self.slots[index].state, State::Free)
    }

    /// Fails every call that is overdue at `now`, and finds the next deadline.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        self.fail_where(|| Reason::Timeout, |deadline| deadline <= now, wakers);
        let next = self.slots.iter().filter_map(|slot| match slot.state {
            State::Waiting { deadline, .. } => Some(deadline),
            _ => None,
        });
        self.earliest = next.min().map(|next| next.max(now + EXPIRY_STEP));
    }

    /// Fails every waiting call.
    pub(super) fn fail_all(&mut self, reason: impl Fn() -> Reason, wakers: &mut Vec<Waker>) {
        self.fail_where(reason, |_| true, wakers);
    }

    fn fail_where(
        &mut self,
        reason: impl Fn() -> Reason,
        picked: impl Fn(Instant) -> bool,
        wakers: &mut Vec<Waker>,
    ) {
        for index in 0..self.slots.len() {
            let State::Waiting {
                deadline, written, ..
            } = self.slots[index].state
            else {
                continue;
            };
            if picked(deadline) {
                let sent = if written { Sent::Maybe } else { Sent::No };
                let reason = reason();
                self.finish(index, Err(CallError { reason, sent }), wakers);
            }
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
