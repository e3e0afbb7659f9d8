//! What a member says of itself: one record, written by it alone, the newest wins.
//!
//! A record is sealed by its author with a checksum over all of it, so what a relay's memory did to it is noticed
//! (a single flipped bit once spread through a large store's gossip for hours). The invariant: of two whole
//! records of one store, the one with the higher life was made later.

use serde::{Deserialize, Serialize};

use super::limits::{MAX_COUNTER, MAX_INCARNATION, MAX_OPINIONS};
use crate::id::{Actor, NodeId};

/// How far a member's life has come: starts and refutations raise the incarnation, heartbeats the counter.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Life {
    /// Raised by the member alone, on disk before anybody hears of it.
    pub incarnation: u64,
    /// Its heartbeats in this incarnation.
    pub counter: u64,
}

impl Life {
    /// Nothing was ever heard.
    pub const NONE: Self = Self {
        incarnation: 0,
        counter: 0,
    };
}

/// How far a store has come. A store that knows less of itself than its peers do has lost something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The highest counter given out.
    pub counter: u64,
    /// The last batch known to be on disk.
    pub synced: u64,
}

impl Marks {
    /// Whether these are beyond the others in anything.
    pub fn exceed(self, other: Self) -> bool {
        self.counter > other.counter || self.synced > other.synced
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who.
    pub node: NodeId,
    /// Which store speaks for it.
    pub store: Actor,
    /// How far its life has come.
    pub life: Life,
    /// Its own clock at that heartbeat, milliseconds since the Unix epoch. Shown, never believed.
    pub stamp_ms: u64,
    /// The number of the registry document it acts on.
    pub registry: u64,
    /// How far its store has come.
    pub marks: Marks,
    /// The newest of its lives that it knows to have been suspected.
    pub told: Life,
    /// Whom it suspects, and at which life: opinions, good until something newer is known.
    pub suspects: Vec<(NodeId, Life)>,
    /// The author's checksum of everything above.
    pub seal: u32,
}

impl Record {
    /// The same, sealed as it stands.
    pub fn sealed(mut self) -> Self {
        self.seal = self.checksum();
        self
    }

    /// Whether it is as its author made it, within bounds.
    pub fn is_whole(&self) -> bool {
        let plausible =
            |life: Life| life.incarnation <= MAX_INCARNATION && life.counter <= MAX_COUNTER;
        self.suspects.len() <= MAX_OPINIONS
            && plausible(self.life)
            && self.told <= self.life
            && self.seal == self.checksum()
    }

    /// At most so many bytes on the wire.
    pub(super) fn weight(&self) -> usize {
        let names = self
            .suspects
            .iter()
            .map(|(node, _)| node.as_str().len() + 22);
        160 + self.node.as_str().len() + names.sum::<usize>()
    }

    fn checksum(&self) -> u32 {
        let Self {
            node,
            store,
            life,
            stamp_ms,
            registry,
            marks,
            told,
            suspects,
            seal: _,
        } = self;
        let said = (node, store, life, stamp_ms, registry, marks, told, suspects);
        let bytes = postcard::to_extend(&said, Vec::with_capacity(self.weight()));
        crc32c::crc32c(&bytes.expect("names and numbers always serialise"))
    }
}
