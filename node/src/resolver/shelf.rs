//! The modules in memory, by digest: being made, ready, or refused.
//!
//! One maker per digest: whoever comes while a module is made waits for the same outcome. A maker that panics
//! ends the waiting, and the next who asks makes it anew. What is ready is bounded by bytes of code, what is
//! refused by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sibyl_core::id::Digest;
use tokio::sync::watch;

use super::loaded::Loaded;
use super::refusal::Refusal;

/// Refusals remembered: each is a kilobyte or so. When there are more, all are forgotten.
const REFUSED_MAX: usize = 256;

/// What a node has of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// Nothing.
    Absent,
    /// Its bytes.
    Kept,
    /// It is being compiled or loaded.
    Compiling,
    /// It can be called.
    Ready,
    /// It was refused, and why.
    Failed(String),
}

type Outcome = Result<Arc<Loaded>, Refusal>;

enum Slot {
    Making(watch::Receiver<Option<Outcome>>),
    Ready(Arc<Loaded>),
    Refused(Refusal),
}

/// The modules in memory.
pub(super) struct Shelf {
    slots: RwLock<HashMap<Digest, Slot>>,
    ready_bytes_max: u64,
    /// Counts calls, so that the least recently called module is known.
    turns: AtomicU64,
}

/// What whoever wants a module does.
pub(super) enum Turn {
    /// Take it.
    Done(Outcome),
    /// Wait for its maker.
    Wait(Waiting),
    /// Make it, and wait.
    Make(Making, Waiting),
}

impl Shelf {
    pub(super) fn new(ready_bytes_max: u64) -> Self {
        Self {
            slots: RwLock::new(HashMap::new()),
            ready_bytes_max,
            turns: AtomicU64::new(0),
        }
    }

    /// A module that is ready, which counts as a use of it.
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        match self.read().get(digest)? {
            Slot::Ready(loaded) => {
                loaded.used.store(
                    self.turns.fetch_add(1, Ordering::Relaxed),
                    Ordering::Relaxed,
                );
                Some(loaded.clone())
            }
            Slot::Making(_) | Slot::Refused(_) => None,
        }
    }

    pub(super) fn state(&self, digest: &Digest) -> Option<ModuleState> {
        Some(match self.read().get(digest)? {
            Slot::Making(outcome) if is_made(outcome) => ModuleState::Compiling,
            Slot::Making(_) => return None,
            Slot::Ready(_) => ModuleState::Ready,
            Slot::Refused(refusal) => ModuleState::Failed(refusal.to_string()),
        })
    }

    /// Who makes it: the first who asks.
    pub(super) fn turn(&self, digest: &Digest) -> Turn {
        let mut slots = self.write();
        match slots.get(digest) {
            Some(Slot::Ready(loaded)) => Turn::Done(Ok(loaded.clone())),
            Some(Slot::Refused(refusal)) => Turn::Done(Err(refusal.clone())),
            Some(Slot::Making(outcome)) if is_made(outcome) => Turn::Wait(Waiting(outcome.clone())),
            Some(Slot::Making(_)) | None => {
                let (sender, receiver) = watch::channel(None);
                slots.insert(*digest, Slot::Making(receiver.clone()));
                Turn::Make(
                    Making {
                        digest: *digest,
                        sender,
                    },
                    Waiting(receiver),
                )
            }
        }
    }

    /// Forgets that a module was refused.
    pub(super) fn retry(&self, digest: &Digest) {
        let mut slots = self.write();
        if let Some(Slot::Refused(_)) = slots.get(digest) {
            slots.remove(digest);
        }
    }

    /// Takes a module off the shelf. One that is being made comes back when it is done.
    pub(super) fn remove(&self, digest: &Digest) {
        let mut slots = self.write();
        if let Some(Slot::Ready(_) | Slot::Refused(_)) = slots.get(digest) {
            slots.remove(digest);
        }
    }

    fn settle(&self, digest: Digest, outcome: &Outcome) {
        let mut slots = self.write();
        match outcome {
            Ok(loaded) => {
                loaded.used.store(
                    self.turns.fetch_add(1, Ordering::Relaxed),
                    Ordering::Relaxed,
                );
                slots.insert(digest, Slot::Ready(loaded.clone()));
                evict(&mut slots, self.ready_bytes_max);
            }
            Err(refusal) if refusal.is_transient() => drop(slots.remove(&digest)),
            Err(refusal) => {
                let refused = slots
                    .values()
                    .filter(|slot| matches!(slot, Slot::Refused(_)))
                    .count();
                if refused >= REFUSED_MAX {
                    slots.retain(|_, slot| !matches!(slot, Slot::Refused(_)));
                }
                slots.insert(digest, Slot::Refused(refusal.clone()));
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Digest, Slot>> {
        // Nothing under the lock leaves the map half changed.
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Digest, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether its maker is still there; one that panicked left nothing but this.
fn is_made(outcome: &watch::Receiver<Option<Outcome>>) -> bool {
    outcome.has_changed().is_ok()
}

/// Takes the least recently called off, down to one. Ends, as every turn removes one.
fn evict(slots: &mut HashMap<Digest, Slot>, bytes_max: u64) {
    let mut ready: Vec<(u64, u64, Digest)> = slots
        .iter()
        .filter_map(|(digest, slot)| match slot {
            Slot::Ready(loaded) => Some((
                loaded.used.load(Ordering::Relaxed),
                loaded.code_bytes,
                *digest,
            )),
            Slot::Making(_) | Slot::Refused(_) => None,
        })
        .collect();
    ready.sort_unstable_by_key(|(used, _, _)| *used);
    let mut total: u64 = ready.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, digest) in ready.iter().take(ready.len().saturating_sub(1)) {
        if total <= bytes_max {
            break;
        }
        tracing::warn!(%digest, "a resolver leaves memory, since loaded ones have more code than allowed");
        slots.remove(digest);
        total -= bytes;
    }
}

/// The duty to make a module.
pub(super) struct Making {
    digest: Digest,
    sender: watch::Sender<Option<Outcome>>,
}

impl Making {
    pub(super) fn finish(self, shelf: &Shelf, made: Result<Loaded, Refusal>) {
        let outcome = made.map(Arc::new);
        shelf.settle(self.digest, &outcome);
        self.sender.send_replace(Some(outcome));
    }
}

/// A share in the outcome of somebody's making.
pub(super) struct Waiting(watch::Receiver<Option<Outcome>>);

impl Waiting {
    pub(super) async fn outcome(mut self) -> Outcome {
        let gone = || Refusal::Unavailable("the compilation was given up".to_owned());
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(gone())),
            Err(_) => Err(gone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_maker_that_gives_up_ends_the_waiting_and_another_makes_it() {
        let shelf = Shelf::new(1);
        let digest = Digest::of(b"module");
        let Turn::Make(making, waiting) = shelf.turn(&digest) else {
            panic!("the first makes it")
        };
        let Turn::Wait(other) = shelf.turn(&digest) else {
            panic!("the second waits")
        };
        assert_eq!(shelf.state(&digest), Some(ModuleState::Compiling));
        drop(making);
        for waiting in [waiting, other] {
            assert!(matches!(
                waiting.outcome().await,
                Err(Refusal::Unavailable(_))
            ));
        }
        assert_eq!(shelf.state(&digest), None);
        assert!(matches!(shelf.turn(&digest), Turn::Make(..)));
    }
}
