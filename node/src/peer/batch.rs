//! What one write carries: up to 64 frames, encoded side by side.
//!
//! Headers, heads and small bodies share one buffer; large bodies stay where they are and become elements
//! of the vectored write. The buffer is used again once it is written.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use super::limits::{BATCH_FRAMES, COPY_BELOW_BYTES};
use super::wire::{self, Out, Stamp};

/// Elements of one vectored write: a buffer and a body per frame, and one more; far below IOV_MAX (1,024).
const MAX_SLICES: usize = 2 * BATCH_FRAMES + 1;

/// Encoded frames on their way into a socket.
#[derive(Default)]
pub(super) struct Batch {
    scratch: BytesMut,
    parts: VecDeque<Bytes>,
    frames: usize,
    bytes: usize,
}

impl Batch {
    /// Appends a frame.
    pub(super) fn push(&mut self, out: Out, stamp: Stamp, now: Instant) {
        wire::encode(&out, stamp, now, &mut self.scratch);
        self.frames += 1;
        self.bytes += out.size();
        if out.body.len() < COPY_BELOW_BYTES {
            self.scratch.extend_from_slice(&out.body);
        } else {
            self.seal();
            self.parts.push_back(out.body);
        }
    }

    /// Makes everything pushed so far ready to be written.
    pub(super) fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.parts.push_back(self.scratch.split().freeze());
        }
    }

    /// Whether nothing is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Calls `write` with what is left.
    pub(super) fn with_slices<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if let [only] = self.parts.as_slices().0 {
            return write(&[IoSlice::new(only)]);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        write(&slices[..count])
    }

    /// Notes that `written` bytes went out. Returns the frames and bytes of the batch once all of it has.
    pub(super) fn advance(&mut self, mut written: usize) -> Option<(usize, usize)> {
        while let Some(part) = self.parts.front_mut() {
            if written < part.len() {
                part.advance(written);
                return None;
            }
            written -= part.len();
            self.parts.pop_front();
        }
        Some((
            std::mem::take(&mut self.frames),
            std::mem::take(&mut self.bytes),
        ))
    }
}
