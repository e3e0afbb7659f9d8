//! The queue of frames that wait for one connection's writer, and the way to end that connection.
//!
//! Bounded in bytes by whoever pushes (it asks [`Outbox::room`] or is refused). Bytes count until they are
//! written, not until they are taken. A closed outbox takes nothing more; its connection ends at once or, if
//! so asked, after its last frame.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::limits::{BATCH_FRAMES, MAX_CALLS, MAX_PEER_BYTES};
use super::pump::Close;
use super::wire::Out;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many bytes wait already.
    Bytes,
    /// The connection is over.
    Closed,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Out>,
    /// Frames and bytes not yet written, those the writer has taken included.
    unwritten: usize,
    unwritten_bytes: usize,
    close: Option<(Close, bool)>,
}

/// One connection's outgoing queue.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    pump: AtomicWaker,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Queues a frame, unless `limit` bytes would wait then.
    pub(super) fn push(&self, frame: Out, limit: usize) -> Result<(), Full> {
        let size = frame.size();
        let mut queue = self.lock();
        if queue.close.is_some() {
            return Err(Full::Closed);
        }
        if queue.unwritten_bytes + size > limit {
            return Err(Full::Bytes);
        }
        queue.unwritten += 1;
        queue.unwritten_bytes += size;
        queue.frames.push_back(frame);
        let first = queue.frames.len() == 1;
        drop(queue);
        // Whoever filled an empty queue has woken the writer, and it looks again before it rests.
        if first {
            self.pump.wake();
        }
        Ok(())
    }

    /// Frames and bytes that are not written yet.
    pub(super) fn unwritten(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.unwritten, queue.unwritten_bytes)
    }

    /// Whether the reader may go on producing answers for this queue.
    pub(super) fn roomy(&self) -> bool {
        let (frames, bytes) = self.unwritten();
        frames < MAX_CALLS && bytes < MAX_PEER_BYTES
    }

    /// Ends the connection: at once, or once everything queued is written. The first reason stays, but
    /// "at once" always wins.
    pub(super) fn close(&self, why: Close, at_once: bool) {
        let mut queue = self.lock();
        match &mut queue.close {
            None => queue.close = Some((why, at_once)),
            Some((_, already)) => *already |= at_once,
        }
        drop(queue);
        self.pump.wake();
    }

    /// Registers the writer; anything pushed or closed after this wakes it.
    pub(super) fn register(&self, waker: &Waker) {
        self.pump.register(waker);
    }

    /// Moves up to one batch of frames into `into`.
    pub(super) fn take(&self, into: &mut Vec<Out>) {
        let mut queue = self.lock();
        let count = queue.frames.len().min(BATCH_FRAMES);
        into.extend(queue.frames.drain(..count));
    }

    /// Gives back the room of frames that were written or dropped.
    pub(super) fn release(&self, frames: usize, bytes: usize) {
        let mut queue = self.lock();
        queue.unwritten -= frames;
        queue.unwritten_bytes -= bytes;
    }

    /// Why the connection should end now, if it should.
    pub(super) fn ended(&self) -> Option<Close> {
        let queue = self.lock();
        match &queue.close {
            Some((why, at_once)) if *at_once || queue.unwritten == 0 => Some(why.clone()),
            _ => None,
        }
    }

    /// After the connection: nothing is taken any more and what was queued is dropped.
    pub(super) fn abandon(&self, why: &Close) {
        let mut queue = self.lock();
        queue.close.get_or_insert((why.clone(), true));
        queue.frames = VecDeque::new();
        queue.unwritten = 0;
        queue.unwritten_bytes = 0;
    }
}
