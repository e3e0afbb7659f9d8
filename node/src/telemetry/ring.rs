//! Spans of owners that change, and of nodes that ask to be taken in.
//!
//! What an operator asks for is in the trace of the request. What a new owner fetches is a root of its own,
//! `ring.transfer`, with the proposals that it leads to below it.

use super::names::{attribute, span};
use super::span::Span;
use super::tracer::Tracer;
use super::value::Kind;

impl Tracer {
    /// Fetching what this node is to own, from the document that says so on.
    pub fn ring_transfer(&self) -> Span {
        self.root(span::RING_TRANSFER, Kind::Internal).start()
    }
}

impl Span {
    /// So many partitions are missing here, since that document.
    pub fn transfer_began(&self, began: Option<u64>, partitions: usize) {
        if let Some(began) = began {
            self.set(attribute::REGISTRY_NUMBER, began);
        }
        self.set(attribute::TRANSFER_PARTITIONS, partitions);
    }

    /// Nothing is missing any more; so much was moved.
    pub fn transfer_ended(&self, keys: u64, bytes: u64) {
        self.set(attribute::TRANSFER_KEYS, keys);
        self.set(attribute::TRANSFER_BYTES, bytes);
    }

    /// What a node that knocked was told: named, waiting, refused.
    pub fn knock_told(&self, told: &'static str) {
        self.set(attribute::KNOCK_RESULT, told);
    }
}
