//! Spans of gossip: rounds, looks for a member, and what they changed.
//!
//! A round every few seconds would drown everything else, so few of them are roots; a look for one member is rare
//! and always asks the ratio; a change of state always leaves a span, for work that follows from it to link to.

use sibyl_core::id::NodeId;
use sibyl_core::membership::State;

use super::names::{attribute, event, span};
use super::span::Span;
use super::tracer::Tracer;
use super::value::Kind;

/// Of so many rounds one may be recorded: one in five minutes at the default interval.
pub const ROUNDS_PER_SPAN: u64 = 64;

/// How a member came to be seen.
#[derive(Clone, Copy, Debug)]
pub struct StateChange<'a> {
    /// Whom.
    pub member: &'a NodeId,
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Its incarnation.
    pub incarnation: u64,
    /// Why, as a stable word.
    pub why: &'static str,
}

impl Tracer {
    /// A heartbeat told to a few members.
    pub fn gossip_round(&self, round: u64, fanout: usize) -> Span {
        let span = self.root(span::GOSSIP_ROUND, Kind::Internal).start();
        span.set(attribute::GOSSIP_KIND, "pull");
        span.set(attribute::GOSSIP_ROUND, round);
        span.set(attribute::GOSSIP_FANOUT, fanout);
        span
    }

    /// A look for one member.
    pub fn gossip_probe(&self, member: &NodeId) -> Span {
        let span = self.root(span::GOSSIP_ROUND, Kind::Internal).start();
        span.set(attribute::GOSSIP_KIND, "ping");
        span.set(attribute::PEER_ID, member.as_str());
        span
    }

    /// A change that no recorded span stands for: it leaves one of its own, whatever the ratio says.
    pub fn gossip_change(&self, change: StateChange<'_>) -> Span {
        let span = self.root(span::GOSSIP_ROUND, Kind::Internal).forced();
        let span = span.start();
        span.state_changed(change);
        span
    }
}

impl Span {
    /// A member is seen otherwise than before.
    pub fn state_changed(&self, change: StateChange<'_>) {
        self.set(attribute::PEER_ID, change.member.as_str());
        self.set(attribute::GOSSIP_STATE_FROM, change.from.as_str());
        self.set(attribute::GOSSIP_STATE_TO, change.to.as_str());
        self.set(attribute::GOSSIP_INCARNATION, change.incarnation);
        self.event(event::MEMBER_STATE_CHANGED, || {
            [
                (attribute::PEER, change.member.as_str().into()),
                (attribute::FROM, change.from.as_str().into()),
                (attribute::TO, change.to.as_str().into()),
                (attribute::INCARNATION, change.incarnation.into()),
                (attribute::REASON, change.why.into()),
            ]
        });
    }

    /// How many records one exchange moved.
    pub fn gossip_moved(&self, sent: usize, received: usize) {
        self.set(attribute::GOSSIP_UPDATES_SENT, sent);
        self.set(attribute::GOSSIP_UPDATES_RECEIVED, received);
    }
}
