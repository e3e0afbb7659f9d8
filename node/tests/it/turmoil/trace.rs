//! What happened in a run, event by event: two runs of one seed must have the same.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Something that clients or the network saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Event {
    at: Duration,
    what: What,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Bytes passed one end of a connection. Of HTTP only how many, since hyper dates its answers by the system's
    /// clock; between nodes also which.
    Passed {
        here: SocketAddr,
        there: SocketAddr,
        written: bool,
        bytes: usize,
        hash: u64,
    },
    /// Somebody did or was told something.
    Said(String),
}

/// All of it, in order.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Vec<Event>>>);

impl Trace {
    pub(super) fn note(&self, what: What) {
        let at = ::turmoil::sim_elapsed().unwrap_or_default();
        self.0.lock().unwrap().push(Event { at, what });
    }

    pub(super) fn say(&self, what: String) {
        self.note(What::Said(what));
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// One number for all events.
pub(super) fn hash_of(events: &[Event]) -> u64 {
    let mut hasher = DefaultHasher::new();
    events.hash(&mut hasher);
    hasher.finish()
}

/// Where two traces part, with what came before; none if they are the same.
pub(super) fn difference(first: &[Event], second: &[Event]) -> Option<String> {
    let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    if same == first.len() && same == second.len() {
        return None;
    }
    let before = &first[same.saturating_sub(6)..same];
    Some(format!(
        "after {same} events of {} and {}:\n{before:#?}\nfirst: {:?}\nsecond: {:?}",
        first.len(),
        second.len(),
        first.get(same),
        second.get(same)
    ))
}
