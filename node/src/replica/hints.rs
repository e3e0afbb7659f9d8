//! Hints: what this node keeps of keys for owners that could not take it, as the rest of the node sees them.
//!
//! One record per key in a space of its own, beside a ledger of how much is kept for whom, filled by a scan at
//! start. What changes them is asked of the writer here and done in `keeper`. A record that cannot be read is an
//! error, never absent; a scan goes past it, so that the others do not wait for it.

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::hint::ledger::{self, Ledger};
use sibyl_core::hint::{self, Head};
use sibyl_core::id::{Incarnation, NodeId, Trace};
use sibyl_core::message::Failure;
use sibyl_core::object::{Caps, Object, Write};
use sibyl_core::record::Unsealed;
use sibyl_core::registry::Durability;
use tokio::sync::{oneshot, watch};

use super::keeper::{Change, What};
use super::{Asked, Command, Done, Minted, Replica, Slot, StandIn, Terms, unreadable};
use crate::store::{ReadError, Space, Store, following};

pub use sibyl_core::hint::ledger::Kept;

/// Records that a scan takes at a time, at most: at 1 KiB each 256 KiB, a few milliseconds of a disk.
const PAGE: usize = 256;

/// How often hints changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hinting {
    /// Batches in which hints came.
    pub came: u64,
    /// Batches in which hints changed at all.
    pub changed: u64,
}

/// A hint as a scan finds it.
#[derive(Clone, Debug)]
pub struct KeptHint {
    /// Its record's key: where a scan goes on.
    pub record: Bytes,
    /// Where it lies.
    pub slot: Slot,
    /// Whom it is for, since when, and by whose span.
    pub head: Head,
    /// The object, encoded.
    pub object: Bytes,
}

/// Counts what is kept, at start. A damaged record is left where it is, and counted nowhere.
pub(super) fn recover(store: &dyn Store, quota_bytes: u64) -> Ledger {
    let mut ledger = Ledger::new(quota_bytes);
    let mut from = Vec::new();
    loop {
        let page = match page(store, &from) {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "hints cannot be counted");
                return ledger;
            }
        };
        let Some(last) = page.last else {
            return ledger;
        };
        if let Some(why) = page.damaged {
            tracing::error!(%why, "a hint is damaged: its copy is lost here");
        }
        for (record, bytes) in &page.records {
            match hint::split(bytes) {
                Ok((head, _)) => ledger.add(&head, (record.len() + bytes.len()) as u64),
                Err(error) => tracing::error!(%error, "a hint cannot be read"),
            }
        }
        from = following(&last);
    }
}

/// What a look at the hints found from one place on.
struct Page {
    records: Vec<(Bytes, Bytes)>,
    /// The last record looked at; `None`: there is none any more.
    last: Option<Bytes>,
    /// Why that one cannot be read, if it cannot; then there are no others on the page.
    damaged: Option<Unsealed>,
}

/// The next hints from a place on. What lies before a damaged one comes first.
fn page(store: &dyn Store, from: &[u8]) -> Result<Page, ReadError> {
    let (records, damaged) = match store.scan(Space::Hints, from, b"", PAGE) {
        Ok(records) => (records, None),
        Err(ReadError::Corrupt { key, why, .. }) => {
            let before = store.scan(Space::Hints, from, &key, PAGE)?;
            let damaged = before.is_empty().then_some((key, why));
            (before, damaged)
        }
        Err(failed) => return Err(failed),
    };
    let last = records.last().map(|(key, _)| key.clone());
    Ok(Page {
        last: last.or_else(|| damaged.as_ref().map(|(key, _)| key.clone())),
        damaged: damaged.map(|(_, why)| why),
        records,
    })
}

impl Replica {
    /// Mints a write in the owners' place, on the hint of its key; told as by [`Replica::mint`].
    #[expect(clippy::too_many_arguments, reason = "a command's parts, all needed")]
    pub fn stand_in(
        &self,
        slot: Slot,
        terms: impl Into<Terms>,
        write: Write,
        caps: Caps,
        durability: Durability,
        stands_in: StandIn,
        minted: impl FnOnce(Result<Minted, Failure>) + Send + 'static,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        self.submit(Command::Mint(Asked {
            slot,
            terms: terms.into(),
            write: Box::new(write),
            caps,
            durability,
            stands_in: Some(stands_in),
            once: None,
            minted: Box::new(minted),
            counts: Box::new(counts),
        }));
    }

    /// Keeps an object for one of the owners by registry document `number` that cannot take it; `counts` is told
    /// once it counts.
    #[expect(
        clippy::too_many_arguments,
        reason = "a hint, for whom, and who hears of it"
    )]
    pub fn keep_hint(
        &self,
        slot: Slot,
        number: u64,
        object: Object,
        target: NodeId,
        (trace, now_ms): (Option<Trace>, u64),
        durability: Durability,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        let what = What::Keep {
            number,
            object: Box::new(object),
            target,
            trace,
            now_ms,
            durability,
            counts: Box::new(counts),
        };
        self.submit(Command::Hint(Change { slot, what }));
    }

    /// As [`Replica::reroute_hint`], right behind what was submitted before, and nobody waits for it: the next
    /// registry document looks once more.
    pub fn pass_hint_on(&self, slot: Slot, target: NodeId, owners: Vec<NodeId>) {
        let done = Box::new(|_| {});
        let what = What::Reroute {
            target,
            owners,
            done,
        };
        self.submit(Command::Hint(Change { slot, what }));
    }

    /// A target has these dots of a key on disk: its hint may go, if it holds no others.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn settle_hint(
        &self,
        slot: Slot,
        target: NodeId,
        acked: Context,
    ) -> Result<(), Failure> {
        self.change(slot, |settled| What::Settle {
            target,
            acked,
            settled,
        })
        .await
    }

    /// A target owns the key no longer: its hint is for these from now on.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn reroute_hint(
        &self,
        slot: Slot,
        target: NodeId,
        owners: Vec<NodeId>,
    ) -> Result<(), Failure> {
        self.change(slot, |done| What::Reroute {
            target,
            owners,
            done,
        })
        .await
    }

    /// Forgets a hint whose bucket is gone.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn drop_hint(&self, slot: Slot) -> Result<(), Failure> {
        self.change(slot, |done| What::Drop { done }).await
    }

    async fn change(&self, slot: Slot, what: impl FnOnce(Done<()>) -> What) -> Result<(), Failure> {
        let (done, told) = oneshot::channel();
        // The waiter is there until it is told.
        let what = what(Box::new(move |result| drop(done.send(result))));
        let change = Command::Hint(Change { slot, what });
        // In its turn, where a client's write would be shed: what is settled was delivered.
        self.queue.send(change).await.map_err(|_| self.stopped())?;
        told.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// What is kept of a key, as an owner's record of it would be; `None` if nothing is.
    ///
    /// # Errors
    /// [`Failure::Unreadable`]: never the same as "nothing".
    pub fn hinted(&self, slot: &Slot) -> Result<Option<Bytes>, Failure> {
        let bytes = self.store.get(Space::Hints, &slot.record());
        let Some(bytes) = bytes.map_err(|error| unreadable(&error))? else {
            return Ok(None);
        };
        match hint::split(&bytes) {
            Ok((_, object)) => Ok(Some(object)),
            Err(error) => Err(Failure::Unreadable(error.to_string())),
        }
    }

    /// The next hints behind a record, in the order of records, and the last record looked at; `None` if there is
    /// none behind it. One that cannot be read is left out: the others do not wait for it.
    ///
    /// # Errors
    /// If the store cannot be read at all.
    pub fn hints_after(
        &self,
        after: Option<&Bytes>,
    ) -> Result<(Vec<KeptHint>, Option<Bytes>), Failure> {
        let from = after.map_or_else(Vec::new, |record| following(record));
        let page = page(self.store.as_ref(), &from).map_err(|error| unreadable(&error))?;
        Ok((
            page.records.into_iter().filter_map(kept).collect(),
            page.last,
        ))
    }

    /// Whether anything of a bucket is kept. Ends: every page begins behind the last.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn keeps_hints_of(&self, bucket: Incarnation) -> Result<bool, Failure> {
        let mut after = None;
        loop {
            let (hints, next) = self.hints_after(after.as_ref())?;
            if hints.iter().any(|hint| hint.slot.place.bucket == bucket) {
                return Ok(true);
            }
            if next.is_none() {
                return Ok(false);
            }
            after = next;
        }
    }

    /// Looks at the ledger of hints.
    pub fn hints<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.facts.lock_hints())
    }

    /// Changes when hints came or went.
    pub fn hinting(&self) -> watch::Receiver<Hinting> {
        self.facts.hinted.subscribe()
    }

    /// What is kept, by target.
    pub fn hints_kept(&self) -> Vec<(NodeId, ledger::Kept)> {
        self.hints(|ledger| {
            let targets = ledger.targets();
            targets
                .map(|(target, kept)| (target.clone(), kept.clone()))
                .collect()
        })
    }
}

fn kept((record, bytes): (Bytes, Bytes)) -> Option<KeptHint> {
    let slot = Slot::of_hint(&record);
    match (slot, hint::split(&bytes)) {
        (Some(slot), Ok((head, object))) => Some(KeptHint {
            record,
            slot,
            head,
            object,
        }),
        _ => {
            tracing::error!("a hint cannot be read");
            None
        }
    }
}

impl super::Facts {
    pub(super) fn lock_hints(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.hints
            .lock()
            .expect("nothing panics while it holds the ledger")
    }
}
