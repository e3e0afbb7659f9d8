//! The spans of anti-entropy: one root per (partition, peer), one below it per message, never one per key.
//!
//! Roots of their own: nobody waits for this work. What a comparison found is a child, so that a trace shows
//! at a glance whether anything differed.

use sibyl_core::flow::exchange::Summary;
use sibyl_core::id::NodeId;
use sibyl_core::merkle::DEPTH;

use super::names::{attribute, span};
use super::span::Span;
use super::tracer::Tracer;
use super::value::Kind;

impl Tracer {
    /// Comparing one partition with one peer.
    pub fn merkle_sync(&self, partition: u32, peer: &NodeId) -> Span {
        let span = self.root(span::MERKLE_SYNC, Kind::Internal).start();
        span.set(attribute::MERKLE_PARTITION, partition);
        span.set(attribute::PEER_ID, peer.as_str());
        span
    }

    /// Fetching a record that cannot be read here from other owners.
    pub fn record_heal(&self, partition: u32) -> Span {
        let span = self.root(span::RECORD_HEAL, Kind::Internal).start();
        span.set(attribute::PARTITION, partition);
        span
    }
}

impl Span {
    /// How the comparison went.
    pub fn merkle_synced(&self, summary: &Summary) {
        if !self.is_recording() {
            return;
        }
        let diff = self.child(span::MERKLE_DIFF, Kind::Internal).start();
        diff.set(attribute::MERKLE_NODES_COMPARED, summary.nodes_compared);
        diff.set(attribute::MERKLE_LEAVES_DIFFER, summary.leaves_differ);
        let depth = if summary.leaves_differ > 0 { DEPTH } else { 0 };
        diff.set(attribute::MERKLE_DEPTH, u32::from(depth));
        self.set(attribute::MERKLE_KEYS_SENT, summary.sent);
        self.set(attribute::MERKLE_KEYS_RECEIVED, summary.received);
        self.set(attribute::MERKLE_BYTES, summary.bytes);
        if !summary.whole {
            self.fail(
                "incomplete",
                "the exchange could not finish; it is tried again",
            );
        }
    }
}
