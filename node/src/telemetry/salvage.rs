//! The span of taking over what a removed node brings: one root per batch, never one per object.
//!
//! The node that brings it has no telemetry yet, so nothing of its own comes before. Numbers only, no keys.

use sibyl_core::id::NodeId;

use super::names::{attribute, span};
use super::span::Span;
use super::tracer::Tracer;
use super::value::Kind;

impl Tracer {
    /// Taking a batch of so many objects over from a removed node.
    pub fn salvage_take(&self, from: &NodeId, objects: usize) -> Span {
        let span = self.root(span::SALVAGE_TAKE, Kind::Internal).start();
        span.set(attribute::PEER_ID, from.as_str());
        span.set(attribute::SALVAGE_OBJECTS, objects as u64);
        span
    }
}

impl Span {
    /// How many objects of the batch were not known.
    pub fn salvaged(&self, imported: usize) {
        self.set(attribute::SALVAGE_IMPORTED, imported as u64);
    }
}
