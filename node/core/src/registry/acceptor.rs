//! The acceptor of single-decree Paxos: one member's promises about the next document.
//!
//! The invariant is the paper's: after a promise it accepts nothing below that ballot, and a promise
//! tells what was accepted. It must be on disk before anybody hears of it; the machine puts a persist
//! effect before every answer. Whether this member may vote at all is decided outside.
//! Lamport, "Paxos Made Simple", section 2.

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::message::Ballot;

/// Promises about one document number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// The highest ballot promised or accepted.
    pub promised: Option<Ballot>,
    /// The last document accepted, and its ballot.
    pub accepted: Option<(Ballot, Box<Document>)>,
}

/// The answer to a prepare or an accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Yes; the state has changed and must be on disk before this is told.
    Yes,
    /// No; nothing has changed.
    No {
        /// What was promised instead.
        promised: Ballot,
    },
}

impl Acceptor {
    /// First phase. An equal ballot is the same attempt asking again, as no two attempts share one.
    pub fn prepare(&mut self, ballot: Ballot) -> Vote {
        match self.promised {
            Some(promised) if promised > ballot => Vote::No { promised },
            _ => {
                self.promised = Some(ballot);
                Vote::Yes
            }
        }
    }

    /// Second phase.
    pub fn accept(&mut self, ballot: Ballot, document: &Document) -> Vote {
        match self.promised {
            Some(promised) if promised > ballot => Vote::No { promised },
            _ => {
                self.promised = Some(ballot);
                self.accepted = Some((ballot, Box::new(document.clone())));
                Vote::Yes
            }
        }
    }
}
