//! Quorums: how many replies a request needs, and whether it has them.
//!
//! A [`Level`] is what a client or bucket asks for, a [`Tally`] what the replies say. A replica counts
//! once, however often it answers, and a tally that was met or lost stays so unless a replica that was
//! given up answers after all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// One replica.
    One,
    /// More than half of the replicas.
    Quorum,
    /// Every replica.
    All,
    /// This many; at least 1.
    Count(u8),
}

impl Level {
    /// How many of a key's replicas that is, with `n` of the bucket and so many members.
    ///
    /// Replicas are min(n, members), and `one`, `quorum` and `all` are of those; a number stands as it
    /// is and may be more than there are, which no tally meets.
    pub fn need(self, n: usize, members: usize) -> usize {
        let replicas = n.min(members);
        match self {
            Self::One => 1,
            Self::Quorum => majority(replicas),
            Self::All => replicas,
            Self::Count(count) => usize::from(count),
        }
    }
}

/// More than half of so many.
pub fn majority(of: usize) -> usize {
    of / 2 + 1
}

/// Text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one, quorum, all or a number from 1 to 255, not {0:?}")]
pub struct BadLevel(pub String);

impl FromStr for Level {
    type Err = BadLevel;

    fn from_str(text: &str) -> Result<Self, BadLevel> {
        match text {
            "one" => Ok(Self::One),
            "quorum" => Ok(Self::Quorum),
            "all" => Ok(Self::All),
            _ => plain_number(text)
                .map(Self::Count)
                .ok_or_else(|| BadLevel(text.to_owned())),
        }
    }
}

/// A number without sign or leading zero: one level has one spelling.
fn plain_number(text: &str) -> Option<u8> {
    let starts_well = matches!(text.as_bytes().first(), Some(b'1'..=b'9'));
    starts_well.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("one"),
            Self::Quorum => f.write_str("quorum"),
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// What the replies so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Replies that may still come decide.
    Pending,
    /// Enough replicas answered.
    Met,
    /// Too few replicas are left to answer.
    Lost,
}

/// Counts replicas that answered and replicas that failed. `R` names a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally<R> {
    n: usize,
    need: usize,
    replies: BTreeMap<R, bool>,
}

impl<R: Ord> Tally<R> {
    /// Nothing heard yet of `n` replicas, of which `need` must answer.
    pub fn new(n: usize, need: usize) -> Self {
        Self {
            n,
            need,
            replies: BTreeMap::new(),
        }
    }

    /// This replica answered as asked, be it late: it no longer counts as failed.
    pub fn ack(&mut self, replica: R) -> Standing {
        self.replies.insert(replica, true);
        self.standing()
    }

    /// This replica failed, refused or timed out; nothing changes if it has answered before.
    pub fn fail(&mut self, replica: R) -> Standing {
        self.replies.entry(replica).or_insert(false);
        self.standing()
    }

    /// What the replies so far amount to.
    pub fn standing(&self) -> Standing {
        if self.acks() >= self.need {
            Standing::Met
        } else if self.n.saturating_sub(self.fails()) < self.need {
            Standing::Lost
        } else {
            Standing::Pending
        }
    }

    /// How many replicas must answer.
    pub fn need(&self) -> usize {
        self.need
    }

    /// How many replicas answered.
    pub fn acks(&self) -> usize {
        self.replies.values().filter(|answered| **answered).count()
    }

    /// How many replicas failed.
    pub fn fails(&self) -> usize {
        self.replies.len() - self.acks()
    }

    /// Whether this replica answered or failed.
    pub fn heard(&self, replica: &R) -> bool {
        self.replies.contains_key(replica)
    }
}

#[cfg(test)]
mod tests;
