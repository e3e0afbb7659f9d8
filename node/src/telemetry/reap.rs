//! The span of reaping: one root per partition and batch, never one per key.
//!
//! A root of its own: nobody waits for this work. What members say of their epochs has none, for it is said all
//! the time and decides nothing by itself.

use super::names::{attribute, span};
use super::span::Span;
use super::tracer::Tracer;
use super::value::Kind;

impl Tracer {
    /// Having all owners forget what they sealed of a partition.
    pub fn reap_forget(&self, partition: u32) -> Span {
        let span = self.root(span::REAP_FORGET, Kind::Internal).start();
        span.set(attribute::PARTITION, partition);
        span
    }
}

impl Span {
    /// How many keys were forgotten here.
    pub fn reaped(&self, keys: usize) {
        self.set(attribute::REAP_KEYS, keys as u64);
    }
}
