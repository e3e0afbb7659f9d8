//! Writes on their way to the node that mints them, as `coordinator/handing.rs` does it.
//!
//! The first reachable owner is asked, then the next ones: elsewhere only if the one before certainly did not mint, or
//! if the client may repeat the write. An answer that never comes is `unknown`.

use sibyl_core::message::{Coordinate, Failure, Request, Written};

use super::client::Answer;
use super::coordinate::Origin;
use super::frames::Waiting;
use super::once::Look;
use super::{Bytes, NodeId, VecDeque, World};
use crate::plan::PATIENCE_US;
use crate::sight::Sight;

/// A write looking for its coordinator.
pub(crate) struct Handing {
    request: usize,
    candidates: VecDeque<NodeId>,
    coordinate: Coordinate,
    value: Bytes,
    until_us: u64,
    tried: bool,
    /// Its client may repeat it, and so may this node.
    once: bool,
    /// It may have been minted somewhere.
    unknown: bool,
}

impl World {
    /// A client writes through this node.
    pub(crate) fn put(
        &mut self,
        node: usize,
        request: usize,
        (coordinate, once): (Coordinate, bool),
        value: Bytes,
    ) {
        let key = self.requests[request].key;
        let (away, fallbacks) = self.around(node, key, coordinate.sloppy);
        let owners = self.counting(node, key).into_iter();
        let (gone, mut candidates): (Vec<NodeId>, Vec<NodeId>) =
            owners.partition(|owner| away.contains(owner));
        candidates.extend(fallbacks);
        candidates.extend(gone);
        let candidates: VecDeque<NodeId> = candidates.into();
        let until_us = self.scheduler.now_us() + PATIENCE_US;
        let handing = Handing {
            request,
            candidates,
            coordinate,
            value,
            until_us,
            tried: false,
            once,
            unknown: false,
        };
        let process = self.process(node);
        let id = process.fresh();
        process.handings.insert(id, handing);
        self.hand_on(node, id);
    }

    /// Gives the write to the next candidate; ends as each turn takes one.
    fn hand_on(&mut self, node: usize, id: u64) {
        loop {
            let now_us = self.scheduler.now_us();
            let Some(handing) = self.process(node).handings.get_mut(&id) else {
                return;
            };
            let mut left_us = handing.until_us.saturating_sub(now_us);
            let (once, unknown) = (handing.once, handing.unknown);
            let next = handing.candidates.pop_front();
            let Some(owner) = next.filter(|_| !unknown || left_us > 0) else {
                let answer = match unknown {
                    true => Answer::Unknown,
                    false => Answer::NotWritten,
                };
                return self.conclude(node, id, answer);
            };
            if once && !handing.candidates.is_empty() {
                left_us /= 2;
            }
            if unknown {
                self.sights.met(Sight::HandedOnUnsure);
            }
            let Some(handing) = self.process(node).handings.get_mut(&id) else {
                return;
            };
            let again = std::mem::replace(&mut handing.tried, true);
            let (coordinate, value) = (handing.coordinate.clone(), handing.value.clone());
            if again {
                self.sights.met(Sight::Retried);
            }
            let to = self.index(&owner);
            if to == node {
                match self.coordinate(
                    node,
                    Origin::Own { handing: id },
                    (coordinate, Look::of(once)),
                    value,
                    left_us,
                ) {
                    Ok(()) => return,
                    Err(_) => continue,
                }
            }
            let request = match once {
                true => Request::CoordinateOnce(Box::new(coordinate)),
                false => Request::Coordinate(Box::new(coordinate)),
            };
            if self.ask(
                node,
                to,
                request,
                value,
                left_us,
                Waiting::Forward { handing: id },
            ) {
                self.sights.met(Sight::Forwarded);
                return;
            }
        }
    }

    /// What came of a hand-over; `Err(None)` if nobody knows.
    pub(crate) fn handed(
        &mut self,
        node: usize,
        id: u64,
        result: Result<Written, Option<Failure>>,
    ) {
        let Some(handing) = self.process(node).handings.get_mut(&id) else {
            return;
        };
        match result {
            Ok(written) => self.conclude(node, id, Answer::Written(written)),
            Err(Some(failure)) if was_not_minted(&failure) => self.hand_on(node, id),
            Err(Some(Failure::Refused(_))) if !handing.unknown => {
                self.conclude(node, id, Answer::NotWritten);
            }
            Err(_) if handing.once => {
                handing.unknown = true;
                self.hand_on(node, id);
            }
            Err(_) => self.conclude(node, id, Answer::Unknown),
        }
    }

    fn conclude(&mut self, node: usize, id: u64, answer: Answer) {
        if let Some(handing) = self.process(node).handings.remove(&id) {
            self.answer(handing.request, answer);
        }
    }
}

/// Whether a failure says that the write was certainly not minted there.
fn was_not_minted(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Bucket
            | Failure::NotOwner
            | Failure::Rebuilding
            | Failure::NotServing(_)
            | Failure::HintsFull
            | Failure::Stale(_)
            | Failure::Fenced(_)
            | Failure::DiskFull
            | Failure::Unsure { .. }
    )
}
