//! Who is there: membership by gossip, as one value per node.
//!
//! Every member writes one [`Record`] of itself and nobody else ever changes it: a life that only grows, when it
//! was stamped, what it holds, and whom it suspects. Gossip spreads the newest record of everyone; the rest is each
//! node's own opinion of how long nothing newer came. A suspicion is therefore never a fact that has to be fought: a
//! newer record ends it. Whether somebody is a member at all comes from the registry and from nowhere else.
//!
//! How a shell uses it: it feeds every [`Event`] with the [`Moment`], performs the [`Effect`]s in order, a persist
//! before what follows it, and ticks when [`Membership::due`] says so. Das, Gupta, Motivala: SWIM (2002); van
//! Renesse, Dumitriu, Gough, Thomas: Efficient Reconciliation and Flow Control for Anti-Entropy (2008).

mod event;
mod hearing;
mod limits;
mod machine;
mod message;
mod probe;
mod record;
mod removal;
mod table;
mod view;
mod zoo;

pub use event::{Cause, Effect, Event, Moment, Standing, Timing, Why};
pub use limits::{
    FANOUT, HELPERS, MAX_DELTA_BYTES, MAX_MESSAGE_BYTES, MAX_OPINIONS, MAX_PROBES, MAX_RELAYS,
    MIN_SILENT_INTERVALS,
};
pub use machine::Membership;
pub use message::{About, Answer, BadMessage, Header, Message, Question, decode, encode};
pub use record::{Life, Marks, Record};
pub use removal::{MAX_GAP_MS, REMOVAL_EVERY_MS, Removal, Seen, Verdict};
pub use view::{MemberView, State, View};
pub use zoo::Faults;

#[cfg(test)]
mod tests;
