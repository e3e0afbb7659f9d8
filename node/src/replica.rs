//! This node's copies: the only writer of objects.
//!
//! One thread owns every read-modify-write. It takes all that is queued, makes one batch of it, applies it,
//! says what was minted (shipments leave before the sync), syncs once for all, and only then says what
//! counts. Reads go past it to the store. Decisions are `sibyl-core`'s; this knows keys, batches and the
//! counter, and no peer. A store that failed a write ends the node: what it holds is unknown. So does one
//! that meets a counter of its own which it never gave out: it has lost data, and is disowned.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::hint::ledger::Ledger;
use sibyl_core::id::{Actor, Digest, Dot, Incarnation, NodeId, Partition, Trace};
use sibyl_core::message::{Failure, Place};
use sibyl_core::object::{Caps, Object, Write};
use sibyl_core::registry::Durability;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::store::disk::Gauge;
use crate::store::{Counters, ReadError, Space, Store, Watermark, WriteError};

mod census;
mod command;
mod hints;
mod home;
mod keeper;
pub mod leaves;
mod reaper;
mod reaping;
mod repeat;
pub mod salvage;
mod sweep;
mod trees;
mod writer;

use command::Command;
pub use command::Terms;
pub use hints::{Hinting, Kept, KeptHint};
pub(crate) use reaper::FLOOR;
pub use reaping::Sealing;
pub use repeat::Once;
pub use sweep::Swept;
pub use trees::Damaged;
use writer::Writer;

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod tests;

/// The most commands that wait for the writer: at 1 KiB a write, 16 MiB; beyond it callers are shed.
const QUEUE: usize = 16 * 1024;
/// The most of them after which no new write is minted: the rest is for what was accepted elsewhere, to finish.
const QUEUE_FOR_NEW: usize = QUEUE / 2;
/// The most commands one batch takes: a sync costs about as much as a thousand small writes.
const BATCH: usize = 1024;

/// Where a key lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The partition, by the ring in force.
    pub partition: Partition,
    /// Copies of its bucket: with the partition, its Merkle tree.
    pub n: u8,
    /// Bucket and key.
    pub place: Place,
}

impl Slot {
    /// The record's key: partitions are contiguous, and within them buckets, in key order.
    fn record(&self) -> Vec<u8> {
        record(self.partition, self.place.bucket, &self.place.key)
    }

    /// The slot of a hint's key; `None` if it is none. The key does not know `n`, and hints do not need it: it is
    /// set before what was kept is joined.
    fn of_hint(record: &Bytes) -> Option<Self> {
        let (partition, rest) = record.split_first_chunk::<4>()?;
        let (bucket, key) = rest.split_first_chunk::<8>()?;
        Some(Self {
            partition: Partition(u32::from_be_bytes(*partition)),
            n: 0,
            place: Place {
                bucket: Incarnation(u64::from_be_bytes(*bucket)),
                key: record.slice_ref(key),
            },
        })
    }
}

/// Bytes of a record's key in front of the user's.
const RECORD_HEAD: usize = 4 + 8;

fn record(partition: Partition, bucket: Incarnation, key: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEAD + key.len());
    record.extend(partition.0.to_be_bytes());
    record.extend(bucket.0.to_be_bytes());
    record.extend(key);
    record
}

/// A record's key taken apart.
fn taken_apart(record: &[u8]) -> Option<(Partition, Incarnation, &[u8])> {
    let (partition, rest) = record.split_first_chunk::<4>()?;
    let (bucket, key) = rest.split_first_chunk::<8>()?;
    let bucket = Incarnation(u64::from_be_bytes(*bucket));
    Some((Partition(u32::from_be_bytes(*partition)), bucket, key))
}

/// A minted write.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Its name.
    pub dot: Dot,
    /// What goes to the other replicas, encoded.
    pub shipment: Bytes,
    /// What its client may reuse.
    pub answer: Context,
    /// Its final modified-at.
    pub modified_at: u64,
    /// Live siblings on this copy now.
    pub live: usize,
    /// Whether it was there before: a retry that was recognised.
    pub repeated: bool,
}

type Done<T> = Box<dyn FnOnce(Result<T, Failure>) + Send>;

/// A write to mint.
struct Asked {
    slot: Slot,
    terms: Terms,
    write: Box<Write>,
    caps: Caps,
    durability: Durability,
    stands_in: Option<StandIn>,
    /// What other replicas hold of the key, if its client may repeat the write.
    once: Option<Box<Object>>,
    minted: Done<Minted>,
    counts: Done<()>,
}

/// A node that is not an owner mints on its hint of the key, which it keeps for all owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The owners.
    pub owners: Vec<NodeId>,
    /// The span that keeps the hint.
    pub trace: Option<Trace>,
    /// The clock.
    pub now_ms: u64,
}

/// A handle to this node's copies.
#[derive(Clone)]
pub struct Replica {
    store: Arc<dyn Store>,
    queue: mpsc::Sender<Command>,
    facts: Arc<Facts>,
}

/// What others may ask of the writer without waiting for it.
struct Facts {
    actor: Actor,
    /// Set once, when the store failed.
    failed: watch::Sender<Option<String>>,
    groups: AtomicU64,
    /// What is kept for other nodes; changed by the writer beside every batch.
    hints: Mutex<Ledger>,
    /// Follows hints, for whom waits for one to come or go.
    hinted: watch::Sender<Hinting>,
    /// How full the disk is, as of the last batch or the last look.
    gauge: Gauge,
    /// The highest counter given out.
    highest: AtomicU64,
    tombstones: AtomicU64,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    trees: trees::Shared,
    reaping: reaper::Shared,
}

impl Facts {
    /// The node must stop; the first reason stands.
    fn fail(&self, why: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
    }
}

/// What the writer stands on.
pub struct Ground {
    /// The engine.
    pub store: Arc<dyn Store>,
    /// The file beside it; `None` over a store in memory.
    pub watermark: Option<Arc<Watermark>>,
    /// The node's counter.
    pub counters: Box<dyn Count>,
    /// Whose store it is.
    pub actor: Actor,
    /// The counter below the first one of this start: every partition's line.
    pub line: u64,
    /// At most so many bytes of hints are taken in.
    pub hint_quota_bytes: u64,
    /// Asked before every batch.
    pub gauge: Gauge,
    /// Told how long each group commit took and how many writes it carried.
    pub observer: Box<dyn Fn(Group) + Send>,
}

/// Where counters come from.
pub trait Count: Send {
    /// The next counter, never handed out before.
    ///
    /// # Errors
    /// If no more can be reserved on disk.
    fn mint(&mut self) -> Result<u64, WriteError>;
    /// The counter that would come next.
    fn peek(&self) -> u64;
}

impl Count for Counters {
    fn mint(&mut self) -> Result<u64, WriteError> {
        Counters::mint(self)
    }

    fn peek(&self) -> u64 {
        Counters::peek(self)
    }
}

/// One group commit, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// How many commands it carried.
    pub commands: usize,
    /// How long the batch took to apply.
    pub apply: std::time::Duration,
    /// How long the sync took; `None` if nothing asked for one.
    pub sync: Option<std::time::Duration>,
}

impl Replica {
    /// Starts the writer thread.
    pub fn start(mut ground: Ground) -> Self {
        let (queue, commands) = mpsc::channel(QUEUE);
        let gauge = std::mem::replace(&mut ground.gauge, Gauge::boundless());
        let _unknown = gauge.look(); // If so, the writer asks again before its first batch.
        let facts = Arc::new(Facts {
            gauge,
            actor: ground.actor,
            failed: watch::Sender::new(None),
            groups: AtomicU64::new(0),
            hints: Mutex::new(hints::recover(
                ground.store.as_ref(),
                ground.hint_quota_bytes,
            )),
            hinted: watch::Sender::new(Hinting::default()),
            highest: AtomicU64::new(ground.counters.peek().saturating_sub(1)),
            tombstones: AtomicU64::new(0),
            thread: Mutex::new(None),
            trees: trees::Shared::default(),
            reaping: reaper::Shared::open(ground.store.as_ref()),
        });
        let store = Arc::clone(&ground.store);
        let writer = Writer::new(ground, Arc::clone(&facts));
        *facts.thread.lock().expect("nobody panics while holding it") =
            home::begin(writer, commands);
        Self {
            store,
            queue,
            facts,
        }
    }

    /// Whose store this is.
    pub fn actor(&self) -> Actor {
        self.facts.actor
    }

    /// Ends the writer, and by it the node: something else than a write showed that the store cannot go on.
    pub fn fail(&self, why: String) {
        self.facts.fail(why);
    }

    /// Becomes `Some` once the store failed; then the node must stop.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.facts.failed.subscribe()
    }

    /// The highest counter that this store gave out: what peers remember of it must not be more.
    pub fn highest_counter(&self) -> u64 {
        self.facts.highest.load(Ordering::Relaxed)
    }

    /// How many group commits there were.
    pub fn groups(&self) -> u64 {
        self.facts.groups.load(Ordering::Relaxed)
    }

    /// How many commands wait for the writer.
    pub fn queued(&self) -> usize {
        QUEUE - self.queue.capacity()
    }

    /// How full the disk is.
    pub fn gauge(&self) -> &Gauge {
        &self.facts.gauge
    }

    /// How many keys hold nothing but tombstones.
    pub fn tombstones(&self) -> u64 {
        self.facts.tombstones.load(Ordering::Relaxed)
    }

    /// The store itself, for reads that are not of objects.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Mints a write for the owners by a registry document. `minted` is told once it is applied, `counts`
    /// once it counts towards W.
    #[expect(
        clippy::too_many_arguments,
        reason = "a write, where it goes and who hears of it"
    )]
    pub fn mint(
        &self,
        slot: Slot,
        terms: impl Into<Terms>,
        write: Write,
        caps: Caps,
        durability: Durability,
        minted: impl FnOnce(Result<Minted, Failure>) + Send + 'static,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        self.submit(Command::Mint(Asked {
            slot,
            terms: terms.into(),
            write: Box::new(write),
            caps,
            durability,
            stands_in: None,
            once: None,
            minted: Box::new(minted),
            counts: Box::new(counts),
        }));
    }

    /// Joins an object that came from elsewhere; `counts` is told once it counts.
    pub fn join(
        &self,
        slot: Slot,
        object: Object,
        durability: Durability,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        self.submit(Command::Join {
            slot,
            number: None,
            object,
            durability,
            counts: Box::new(counts),
        });
    }

    /// Joins a shipment to the owners by registry document `number`: [`Failure::Stale`] if they changed since.
    pub fn take(
        &self,
        slot: Slot,
        number: u64,
        object: Object,
        durability: Durability,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        self.submit(Command::Join {
            slot,
            number: Some(number),
            object,
            durability,
            counts: Box::new(counts),
        });
    }

    /// Keeps something of the node's own beside the objects. Returns once it is on disk, and waits for its turn
    /// where a client's write would be shed: what the node itself must remember is never left out.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn remember(&self, key: &'static str, value: Bytes) -> Result<(), Failure> {
        let (done, kept) = oneshot::channel();
        // The waiter is there until it is told.
        let counts = Box::new(move |result| drop(done.send(result)));
        let submitted = self.queue.send(Command::Meta { key, value, counts }).await;
        submitted.map_err(|_| self.stopped())?;
        kept.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Owners changed in document `since`, and this node became one of `gained`. When it returns, everything that
    /// was taken by an older document is in the copies, and nothing more is taken so: an exchange that begins
    /// then misses none of it. Lines rise, because whatever this node once held of `gained` may have gone.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn owners_changed(&self, since: u64, gained: Vec<Partition>) -> Result<(), Failure> {
        let (done, passed) = oneshot::channel();
        let counts = Box::new(move |result| drop(done.send(result)));
        let command = Command::Owners {
            since,
            gained,
            counts,
        };
        let submitted = self.queue.send(command).await;
        submitted.map_err(|_| self.stopped())?;
        passed.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Takes no write for a bucket from now on, for so long. Returns once all that were taken before are there:
    /// the writer has an order, so nothing slips through between. A restart forgets it.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn close(&self, bucket: Incarnation, hold: Duration) -> Result<(), Failure> {
        let (done, closed) = oneshot::channel();
        let counts = Box::new(move |result| drop(done.send(result)));
        let until = Instant::now() + hold;
        let command = Command::Close {
            bucket,
            until,
            counts,
        };
        let submitted = self.queue.send(command).await;
        submitted.map_err(|_| self.stopped())?;
        closed.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// What [`Replica::remember`] kept.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn kept(&self, key: &'static str) -> Result<Option<Bytes>, Failure> {
        self.store
            .get(Space::Meta, key.as_bytes())
            .map_err(|error| unreadable(&error))
    }

    fn submit(&self, command: Command) {
        use mpsc::error::TrySendError;
        if matches!(command, Command::Mint(_)) && self.queued() >= QUEUE_FOR_NEW {
            return command.refuse(&Failure::Overloaded);
        }
        match self.queue.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => command.refuse(&Failure::Overloaded),
            Err(TrySendError::Closed(command)) => command.refuse(&self.stopped()),
        }
    }

    /// Why nothing is taken any more.
    fn stopped(&self) -> Failure {
        let why = self.facts.failed.borrow().clone();
        Failure::Store(why.unwrap_or_else(|| "the node is stopping".into()))
    }

    /// The record of a key as it lies in the store: an encoded object, `None` if there is none.
    ///
    /// # Errors
    /// [`Failure::Unreadable`]: never the same as "absent".
    pub fn encoded(&self, slot: &Slot) -> Result<Option<Bytes>, Failure> {
        let read = self.store.get(Space::Objects, &slot.record());
        read.map_err(|error| {
            self.facts.trees.note_damage(slot);
            unreadable(&error)
        })
    }

    /// A key's object; an empty one if there is none.
    ///
    /// # Errors
    /// As [`Replica::encoded`].
    pub fn object(&self, slot: &Slot) -> Result<Object, Failure> {
        match self.encoded(slot)? {
            Some(bytes) => {
                codec::decode(&bytes).map_err(|error| Failure::Fenced(error.to_string()))
            }
            None => Ok(Object::default()),
        }
    }

    /// The digest of a key's object; of the empty one if there is none.
    ///
    /// # Errors
    /// As [`Replica::encoded`].
    pub fn digest(&self, slot: &Slot) -> Result<Digest, Failure> {
        let encoded = self.encoded(slot)?;
        Ok(encoded.map_or_else(
            || codec::digest(&Object::default()),
            |bytes| Digest::of(&bytes),
        ))
    }

    /// Up to `limit` keys of a bucket within one partition, in key order, from `from` on (inclusive).
    ///
    /// # Errors
    /// As [`Replica::encoded`]; a damaged record is an error, never the end of the list.
    pub fn scan(
        &self,
        partition: Partition,
        bucket: Incarnation,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Object)>, Failure> {
        let start = record(partition, bucket, from);
        let end = record(partition, Incarnation(bucket.0 + 1), b"");
        let pairs = self
            .store
            .scan(Space::Objects, &start, &end, limit)
            .map_err(|error| unreadable(&error))?;
        let object = |(key, bytes): (Bytes, Bytes)| match codec::decode(&bytes) {
            Ok(object) => Ok((key.slice(RECORD_HEAD..), object)),
            Err(error) => Err(Failure::Fenced(error.to_string())),
        };
        pairs.into_iter().map(object).collect()
    }
}

fn unreadable(error: &ReadError) -> Failure {
    match error {
        ReadError::Corrupt { .. } => Failure::Fenced(error.to_string()),
        ReadError::Failed(_) => Failure::Unreadable(error.to_string()),
    }
}
