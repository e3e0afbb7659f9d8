//! The flows: small values that take events and answer with effects.
//!
//! A flow knows no socket, clock, file, task or random number. The shell feeds it replies and timers and
//! performs what it returns; the simulator does the same on its own scheduler.

use crate::id::NodeId;

pub mod exchange;
pub mod get;
pub mod handoff;
pub mod list;
pub mod put;

/// Who there is to ask about a key.
#[derive(Clone, Copy, Debug)]
pub struct Replicas<'a> {
    /// The primaries, in the order in which they are asked.
    pub owners: &'a [NodeId],
    /// Those of them that are known to be away: they are stood in for at once.
    pub away: &'a [NodeId],
    /// Owners that a read asks only if others fail, as long as the others are enough; they come last.
    pub spared: &'a [NodeId],
    /// Fallbacks that can be reached, in the order of the preference list; none if only owners count.
    pub fallbacks: &'a [NodeId],
}

impl<'a> Replicas<'a> {
    /// Owners only, and all of them there.
    pub fn of(owners: &'a [NodeId]) -> Self {
        Self {
            owners,
            away: &[],
            spared: &[],
            fallbacks: &[],
        }
    }
}
