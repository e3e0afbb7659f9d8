//! Hands out the node's counter: numbers that are never handed out twice, whatever crashes.
//!
//! Numbers are reserved in blocks whose end is on disk, outside the engine, before the first of them is
//! used. The next block is asked for when half of the last one is gone and travels with a group commit's
//! own sync, so minting waits for the disk only if half a block is used between two commits.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Watermark, WriteError};

/// Counters per reservation. A start skips up to two blocks: 2^43 starts before 64 bits are used up.
pub const BLOCK: u64 = 1 << 20;

/// The node's counter. Shared by the writer (dots, groups) and the registry (ballots).
#[derive(Debug)]
pub struct Counters {
    watermark: Arc<Watermark>,
    next: Mutex<u64>,
}

impl Counters {
    /// Begins at `first`; what is not reserved yet will be.
    pub(crate) fn new(watermark: Arc<Watermark>, first: u64) -> Self {
        Self {
            watermark,
            next: Mutex::new(first),
        }
    }

    /// The next number, reserved on disk.
    ///
    /// # Errors
    /// [`WriteError`] if a block had to be reserved at once and could not be; it is fatal.
    pub fn mint(&self) -> Result<u64, WriteError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.watermark.reserved_end();
        if *next >= end {
            self.watermark.reserve(*next + BLOCK)?;
        } else if end - *next < BLOCK / 2 {
            self.watermark.want_reserved(end + BLOCK);
        }
        let number = *next;
        *next += 1;
        Ok(number)
    }

    /// The number that [`Counters::mint`] gives next: a partition's line is set to the one before.
    #[must_use]
    pub fn peek(&self) -> u64 {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
