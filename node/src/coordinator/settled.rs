//! A quorum that is settled, one way or the other: what its span and the metrics are told.
//!
//! Reads and writes end alike: so many answered, so many could not, after so long. Why a quorum was missed is
//! said here and nowhere else.

use tokio::time::Instant;

use crate::telemetry::metrics::{Metrics, Quorum, QuorumFailure};
use crate::telemetry::{QuorumEnd, Span};

/// How a quorum ended.
pub(super) struct Settled {
    /// Of a read or of a write.
    pub(super) which: Quorum,
    /// Replies or acks that came in time.
    pub(super) acks: usize,
    /// Replicas that failed, refused or timed out.
    pub(super) failures: usize,
    /// Whether fallbacks counted.
    pub(super) sloppy: bool,
    /// Whether R or W was reached.
    pub(super) met: bool,
    /// When the replicas were asked.
    pub(super) began: Instant,
    /// Until when they could answer.
    pub(super) deadline: Instant,
    /// Replicas that said that they could not.
    pub(super) refusals: usize,
}

impl Settled {
    /// Tells the span and the metrics.
    pub(super) fn tell(&self, span: &Span, metrics: &Metrics) {
        let wait = self.began.elapsed();
        span.quorum_settled(QuorumEnd {
            acks: self.acks,
            failures: self.failures,
            sloppy: self.sloppy,
            met: self.met,
            wait,
        });
        metrics.quorum(self.which, self.acks, wait, span);
        if !self.met {
            metrics.quorum_failed(self.which, self.missed());
        }
    }

    /// The time ran out before enough had spoken, or some refused, or were away.
    fn missed(&self) -> QuorumFailure {
        if Instant::now() >= self.deadline {
            QuorumFailure::Timeout
        } else if self.refusals > 0 {
            QuorumFailure::Rejected
        } else {
            QuorumFailure::Unavailable
        }
    }
}
