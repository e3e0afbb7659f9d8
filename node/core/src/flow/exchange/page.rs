//! Pages of keys with their tags, and what differs between two of them.
//!
//! Both sides list the keys of the same leaves from the same place on, and each may stop early. Only what lies
//! in front of both ends is compared; the next page begins at the nearer end, so no key is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::merkle::Node;
use crate::message::Place;

/// Keys of some leaves, with their objects' tags (cut to a node's length), in the order of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Keys and tags.
    pub entries: Vec<(Place, Node)>,
    /// Where the next page begins, inclusive; `None` if there is nothing behind.
    pub next: Option<Place>,
    /// Records in this page's range that cannot be read.
    pub damaged: u32,
}

/// A key that differs.
pub(super) type Differing = (Place, Differs);

/// Who holds a key that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// Only this node.
    Ours,
    /// Only the peer.
    Theirs,
    /// Both; the peer's tag.
    Both(Node),
}

impl Differs {
    pub(super) fn ours(self) -> bool {
        self != Self::Theirs
    }

    pub(super) fn theirs(self) -> bool {
        self != Self::Ours
    }
}

/// What two pages say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Keys that differ, in order.
    pub keys: Vec<(Place, Differs)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Place>,
}

/// Compares two pages that begin at the same place.
pub fn differing(own: Page, theirs: Page) -> Found {
    let next = match (own.next, theirs.next) {
        (Some(own), Some(theirs)) => Some(own.min(theirs)),
        (own, theirs) => own.or(theirs),
    };
    let within = |(place, _): &(Place, Node)| next.as_ref().is_none_or(|next| place < next);
    let mut theirs: BTreeMap<Place, Node> = theirs.entries.into_iter().filter(within).collect();
    let mut keys = BTreeMap::new();
    for (place, tag) in own.entries.into_iter().filter(within) {
        match theirs.remove(&place) {
            Some(theirs) if theirs == tag => {}
            Some(theirs) => drop(keys.insert(place, Differs::Both(theirs))),
            None => drop(keys.insert(place, Differs::Ours)),
        }
    }
    keys.extend(theirs.into_keys().map(|place| (place, Differs::Theirs)));
    Found {
        keys: keys.into_iter().collect(),
        next,
    }
}
