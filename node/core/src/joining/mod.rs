//! How a node that is no member comes to be one, or waits to be made one.
//!
//! It knows addresses and nothing else, so it *knocks*: one question to a member, one answer, no session. The member
//! judges the knock by its document ([`judge`]), keeps a list of who knocks ([`Candidates`]) and, if the node wants to
//! be taken in at once, proposes that. The node asks on ([`Asking`]) until it is handed a chosen document that names
//! it, or is refused. The registry's document holds the secrets of the cluster: nobody gets it who is not named in it.

mod asking;
mod candidates;
mod elsewhere;
mod knock;

pub use asking::{Asking, BadStart, Effect, Event, check_start};
pub use candidates::{CANDIDATE_MS, Candidate, Candidates, MAX_CANDIDATES};
pub use elsewhere::{Elsewhere, MAX_ELSEWHERE};
pub use knock::{Judged, Knock, MAX_TOLD_ADDRESSES, Refusal, Told, Wish, farewell, judge};

#[cfg(test)]
mod tests;
