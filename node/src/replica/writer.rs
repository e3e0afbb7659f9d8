//! The writer thread: takes what is queued, makes one batch of it, syncs once, and says what counts.
//!
//! It owns the counter and every read-modify-write, so commands of one batch see each other. A line is raised
//! where a copy could not be read: what it had seen is no longer vouched for. It ends with its queue, or when the
//! store failed, or turned out to have lost data; then everything that waits is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::id::{Dot, Incarnation, Partition};
use sibyl_core::message::Failure;
use sibyl_core::object::{Mint, Object};
use sibyl_core::registry::Durability;
use tokio::sync::mpsc;

use super::census::{Census, is_deleted, is_deleted_record};
use super::{Asked, BATCH, Command, Done, Facts, Ground, Group, Minted, Slot, unreadable};
use crate::store::{self, Batch, Space, WriteError};

/// What is told after a batch.
#[derive(Default)]
struct Completions {
    minted: Vec<(Done<Minted>, Minted)>,
    buffered: Vec<Done<()>>,
    synced: Vec<Done<()>>,
}

impl Completions {
    fn count(&mut self, durability: Durability, counts: Done<()>) {
        match durability {
            Durability::Synced => self.synced.push(counts),
            Durability::Buffered => self.buffered.push(counts),
        }
    }
}

/// One batch in the making.
#[derive(Default)]
struct Round {
    batch: Batch,
    done: Completions,
    /// Objects changed by earlier commands of this batch.
    fresh: HashMap<Vec<u8>, Object>,
}

impl Round {
    fn write(&mut self, record: Vec<u8>, object: Object) {
        let encoded: Bytes = codec::encode(&object);
        self.batch.put(Space::Objects, &record, encoded);
        self.fresh.insert(record, object);
    }
}

/// Why the writer ends, and the node with it.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    /// The store failed a write.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A context holds a counter of this actor that it never gave out.
    #[error(
        "a context holds counter {seen} of this store, which remembers none above {known}: it has lost data, and the next start begins a new one"
    )]
    Forgotten { seen: u64, known: u64 },
}

/// Tells the node if the writer panics: nothing could be written any more, and nobody would know why.
struct LastWords(Arc<Facts>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the writer panicked".into());
        }
    }
}

pub(super) struct Writer {
    ground: Ground,
    facts: Arc<Facts>,
    /// Lines raised since the start, by partition.
    lines: HashMap<Partition, u64>,
    census: Census,
    /// Buckets that are about to be deleted, and until when they take no writes.
    closed: HashMap<Incarnation, Instant>,
}

impl Writer {
    pub(super) fn new(ground: Ground, facts: Arc<Facts>) -> Self {
        let (lines, census) = (HashMap::new(), Census::open(ground.store.as_ref()));
        facts
            .tombstones
            .store(census.tombstones(), Ordering::Relaxed);
        Self {
            ground,
            facts,
            lines,
            census,
            closed: HashMap::new(),
        }
    }

    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let _last_words = LastWords(Arc::clone(&self.facts));
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            taken.clear();
            if commands.blocking_recv_many(&mut taken, BATCH) == 0 {
                return;
            }
            let failed = self.facts.failed.borrow().clone();
            let done = failed.map_or_else(
                || self.group(&mut taken).map_err(|fatal| self.end(&fatal)),
                Err,
            );
            if let Err(why) = done {
                commands.close();
                self.facts.fail(why.clone());
                taken
                    .drain(..)
                    .for_each(|command| command.refuse(&Failure::Store(why.clone())));
                while let Some(command) = commands.blocking_recv() {
                    command.refuse(&Failure::Store(why.clone()));
                }
                return;
            }
        }
    }

    /// The last thing a writer does; says why it ends.
    fn end(&self, fatal: &Fatal) -> String {
        if let (Fatal::Forgotten { .. }, Some(watermark)) = (fatal, &self.ground.watermark)
            && let Err(error) = watermark.disown()
        {
            tracing::error!(%error, "the store cannot be disowned");
        }
        fatal.to_string()
    }

    /// One batch: apply, tell what was minted, sync once, tell what counts.
    fn group(&mut self, taken: &mut Vec<Command>) -> Result<(), Fatal> {
        let mut pending = taken.drain(..);
        while pending.len() > 0 {
            let mut round = Round::default();
            let mut carried = 0;
            for command in pending.by_ref() {
                carried += 1;
                self.prepare(command, &mut round)?;
                if round.batch.is_full() {
                    break;
                }
            }
            self.census.put(&mut round.batch);
            let tombstones = self.census.tombstones();
            self.facts.tombstones.store(tombstones, Ordering::Relaxed);
            self.commit(round.batch, round.done, carried)?;
        }
        Ok(())
    }

    fn commit(&self, batch: Batch, done: Completions, commands: usize) -> Result<(), WriteError> {
        let began = Instant::now();
        if !batch.is_empty() {
            self.ground.store.apply(batch)?;
        }
        let apply = began.elapsed();
        done.minted
            .into_iter()
            .for_each(|(minted, write)| minted(Ok(write)));
        done.buffered.into_iter().for_each(|counts| counts(Ok(())));
        let mut sync = None;
        if !done.synced.is_empty() {
            let began = Instant::now();
            match &self.ground.watermark {
                Some(watermark) => store::commit(self.ground.store.as_ref(), watermark)?,
                None => self.ground.store.sync()?,
            };
            sync = Some(began.elapsed());
            done.synced.into_iter().for_each(|counts| counts(Ok(())));
        }
        self.facts.groups.fetch_add(1, Ordering::Relaxed);
        (self.ground.observer)(Group {
            commands,
            apply,
            sync,
        });
        Ok(())
    }

    fn prepare(&mut self, command: Command, round: &mut Round) -> Result<(), Fatal> {
        if self.is_closed(&command) {
            command.refuse(&Failure::Closing);
            return Ok(());
        }
        if let Command::Join { object, .. } = &command {
            self.check_memory(object.context())?;
        }
        match command {
            Command::Mint(asked) => return self.mint(asked, round),
            Command::Join {
                slot,
                object,
                durability,
                counts,
            } => match self.load(&slot, round) {
                Ok(mut held) => {
                    let before = is_deleted(&held);
                    if held.join(&object) {
                        self.census.change(before, is_deleted(&held));
                        round.write(slot.record(), held);
                    }
                    round.done.count(durability, counts);
                }
                Err(failure) => counts(Err(failure)),
            },
            Command::Meta { key, value, counts } => {
                round.batch.put(Space::Meta, key.as_bytes(), value);
                round.done.synced.push(counts);
            }
            Command::Erase { records, counts } => {
                for record in &records {
                    let held = self.ground.store.get(Space::Objects, record);
                    let held = held.ok().flatten();
                    let before = held.is_some_and(|bytes| is_deleted_record(&bytes));
                    self.census.change(before, false);
                    round.batch.delete(Space::Objects, record);
                }
                round.done.buffered.push(counts);
            }
            Command::Close {
                bucket,
                until,
                counts,
            } => {
                let now = Instant::now();
                self.closed.retain(|_, until| *until > now);
                self.closed.insert(bucket, until);
                round.done.buffered.push(counts);
            }
            Command::Flush { counts } => round.done.synced.push(counts),
        }
        Ok(())
    }

    /// Whether a command would write to a bucket that is about to be deleted.
    fn is_closed(&self, command: &Command) -> bool {
        let (Command::Mint(Asked { slot, .. }) | Command::Join { slot, .. }) = command else {
            return false;
        };
        let until = self.closed.get(&slot.place.bucket);
        until.is_some_and(|until| Instant::now() < *until)
    }

    fn mint(&mut self, asked: Asked, round: &mut Round) -> Result<(), Fatal> {
        let mut held = match self.load(&asked.slot, round) {
            Ok(held) => held,
            Err(failure) => {
                (asked.minted)(Err(failure));
                return Ok(());
            }
        };
        self.check_memory(held.context())?;
        self.check_memory(&asked.write.tombstones)?;
        if let Some(context) = &asked.write.context {
            self.check_memory(context)?;
        }
        let dot = Dot {
            actor: self.ground.actor,
            counter: self.ground.counters.mint()?,
        };
        self.facts.highest.store(dot.counter, Ordering::Relaxed);
        let line = self.lines.get(&asked.slot.partition).copied();
        let line = line.unwrap_or(self.ground.line);
        let before = is_deleted(&held);
        let written = match held.write(Mint { dot, line }, *asked.write, asked.caps) {
            Ok(written) => written,
            Err(refused) => {
                (asked.minted)(Err(Failure::Refused(refused)));
                return Ok(());
            }
        };
        self.census.change(before, is_deleted(&held));
        let sibling = written.shipment.siblings().first();
        let minted = Minted {
            dot,
            shipment: codec::encode(&written.shipment),
            modified_at: sibling.map_or(0, |sibling| sibling.content.modified_at),
            answer: written.answer,
            live: held.live().count(),
        };
        round.write(asked.slot.record(), held);
        round.done.minted.push((asked.minted, minted));
        round.done.count(asked.durability, asked.counts);
        Ok(())
    }

    /// Whether this store gave out every counter of its own that a context holds. If not, its next dots would
    /// be taken for ones that are long superseded.
    fn check_memory(&self, context: &Context) -> Result<(), Fatal> {
        let known = self.ground.counters.peek().saturating_sub(1);
        match context.highest_above(self.ground.actor, known) {
            Some(seen) => Err(Fatal::Forgotten { seen, known }),
            None => Ok(()),
        }
    }

    /// A key's object as the batch leaves it so far. A copy that cannot be read raises its partition's line.
    fn load(&mut self, slot: &Slot, round: &Round) -> Result<Object, Failure> {
        let record = slot.record();
        if let Some(object) = round.fresh.get(&record) {
            return Ok(object.clone());
        }
        let loaded = match self.ground.store.get(Space::Objects, &record) {
            Ok(Some(bytes)) => {
                codec::decode(&bytes).map_err(|error| Failure::Unreadable(error.to_string()))
            }
            Ok(None) => Ok(Object::default()),
            Err(error) => Err(unreadable(&error)),
        };
        if loaded.is_err() {
            let next = self.ground.counters.peek();
            self.lines.insert(slot.partition, next);
        }
        loaded
    }
}
