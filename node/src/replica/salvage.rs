//! Taking over what a removed node brings: one object at a time, held against this node's own copy and horizon.
//!
//! Both are looked at in the writer's step that joins, so nothing is forgotten in between, and a copy that is about to
//! be forgotten loses its seal. What is decided, and why one owner is enough, stands in `sibyl_core::salvage`.

use bytes::Bytes;
use sibyl_core::message::Failure;
use sibyl_core::object::Object;
use sibyl_core::salvage::{self, Verdict};
use tokio::sync::oneshot;

pub mod remains;

use super::census::is_deleted;
use super::writer::{Fatal, Round, Writer};
use super::{Command, Done, Replica, Slot};

/// By what an object is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The last reaping epoch that its node confirmed.
    pub epoch: u64,
    /// The operator wants everything.
    pub all: bool,
    /// This store began when the cluster was there already, and does not know since which epoch.
    pub late: bool,
    /// The horizon up to which this store forgot nothing of it, since it recovered the cluster; none, if it did not.
    pub recovered: Option<u64>,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// In a word.
    pub verdict: Verdict,
    /// This node's copy as it is now, if it changed.
    pub object: Option<Object>,
}

/// An object that is brought.
pub(super) struct Brought {
    pub(super) slot: Slot,
    /// The registry document by which this node owns the key.
    pub(super) number: u64,
    pub(super) object: Box<Object>,
    pub(super) claim: Claim,
    pub(super) done: Done<Admitted>,
}

/// Where a store notes how much of an earlier one of its node nobody took.
const QUARANTINED: &str = "salvage/quarantined";

impl Replica {
    /// Notes how many objects of this node's earlier store nobody took.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn note_quarantined(&self, count: u64) -> Result<(), Failure> {
        let value = Bytes::copy_from_slice(&count.to_le_bytes());
        self.remember(QUARANTINED, value).await
    }

    /// How many objects of this node's earlier store nobody took; `None` if it was never removed.
    pub fn quarantined(&self) -> Option<u64> {
        let kept = self.kept(QUARANTINED).ok().flatten();
        super::reaper::number(&kept?)
    }

    /// Takes an object over, if it may; answers once what is said of it is true on disk.
    ///
    /// # Errors
    /// [`Failure`] if that cannot be said now.
    pub async fn admit(
        &self,
        slot: Slot,
        number: u64,
        object: Object,
        claim: Claim,
    ) -> Result<Admitted, Failure> {
        let (done, told) = oneshot::channel();
        let brought = Brought {
            slot,
            number,
            object: Box::new(object),
            claim,
            // The waiter may be gone; it is done all the same.
            done: Box::new(move |result| drop(done.send(result))),
        };
        // In its turn, behind clients: nobody waits for it but the node that brings it.
        let sent = self.queue.send(Command::Admit(brought)).await;
        sent.map_err(|_| self.stopped())?;
        told.await.unwrap_or_else(|_| Err(self.stopped()))
    }
}

impl Writer {
    pub(super) fn admit(&mut self, brought: Brought, round: &mut Round) -> Result<(), Fatal> {
        let Brought {
            slot,
            object,
            claim,
            done,
            ..
        } = brought;
        self.check_memory(object.context())?;
        let mut held = match self.load(&slot, round) {
            Ok(held) => held,
            Err(failure) => {
                done(Err(failure));
                return Ok(());
            }
        };
        let horizon = self.horizon(slot.partition);
        let recovered = claim.recovered.is_some_and(|last| horizon <= last);
        let horizon = (horizon > 0 || !claim.late).then_some(horizon);
        let remembers = claim.all || recovered || salvage::remembers(horizon, claim.epoch);
        let before = is_deleted(&held.object);
        let verdict = salvage::decide(&mut held.object, &object, remembers);
        let object = (verdict == Verdict::Imported).then(|| held.object.clone());
        if let Some(object) = &object {
            self.census.change(before, is_deleted(object));
            self.write(round, &slot, held.object, held.tag);
        }
        let admitted = Admitted { verdict, object };
        let told = move |synced: Result<(), Failure>| done(synced.map(|()| admitted));
        round.done.synced(Box::new(told));
        Ok(())
    }
}
