//! What must always hold, one file for each, with its statement and its source.
//!
//! A check takes data and knows no node: the world calls it whenever the data changes, the continuous ones
//! after every batch, acknowledgement, crash and wipe, the others when everything has come to rest.

use std::fmt;

pub mod agreed;
pub mod answered;
pub mod converged;
pub mod deletes;
pub mod dots;
pub mod durable;
pub mod fenced;
pub mod incarnations;
pub mod leaves;
pub mod readable;
pub mod registry;
pub mod removed;
pub mod repeats;
pub mod seen;
pub mod siblings;
pub mod silence;
pub mod strict;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check says so.
    pub check: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)
    }
}

/// What a check answers.
pub type Held = Result<(), Violation>;

fn broken(check: &'static str, found: String) -> Held {
    Err(Violation { check, found })
}
