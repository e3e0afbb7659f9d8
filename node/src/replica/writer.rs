//! The writer thread: takes what is queued, makes one batch of it, syncs once, and says what counts.
//!
//! It owns the counter and every read-modify-write, so commands of one batch see each other. A line is raised where a
//! copy could not be read or was forgotten (a delivered hint): what it had seen is no longer vouched for. It ends with
//! its queue, or when the store failed, or turned out to have lost data; then everything that waits is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::id::{Dot, Incarnation, Partition};
use sibyl_core::merkle::Sum;
use sibyl_core::message::{Failure, Place};
use sibyl_core::object::{Mint, Object, Recall};
use sibyl_core::registry::Durability;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::census::{Census, is_deleted, is_deleted_record};
use super::leaves::{Changes, Leaves};
use super::reaper::Reaper;
use super::repeat::{minted, repeated};
use super::{
    Asked, BATCH, Command, Done, Facts, Ground, Group, Minted, Slot, taken_apart, trees, unreadable,
};
use crate::outside;
use crate::store::{self, Batch, Space, WriteError};

/// What is told after a batch.
#[derive(Default)]
pub(super) struct Completions {
    minted: Vec<(Done<Minted>, Minted)>,
    pub(super) buffered: Vec<Done<()>>,
    synced: Vec<Done<()>>,
}

impl Completions {
    /// Tells once the batch is on disk.
    pub(super) fn synced(&mut self, counts: Done<()>) {
        self.synced.push(counts);
    }

    pub(super) fn count(&mut self, durability: Durability, counts: Done<()>) {
        match durability {
            Durability::Synced => self.synced.push(counts),
            Durability::Buffered => self.buffered.push(counts),
        }
    }
}

/// A key's object, and the tag under which its leaf counts it.
#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) object: Object,
    pub(super) tag: Sum,
}

impl Held {
    pub(super) fn into_object(self) -> Object {
        self.object
    }
}

/// One batch in the making.
#[derive(Default)]
pub(super) struct Round {
    pub(super) batch: Batch,
    pub(super) done: Completions,
    /// Objects changed by earlier commands of this batch.
    fresh: HashMap<Vec<u8>, Held>,
    leaves: Changes,
    /// What is to be done once this batch is applied.
    steps: Vec<trees::Asked>,
    /// Hints changed by earlier commands of this batch; `None` if one went.
    pub(super) hints: HashMap<Vec<u8>, Option<super::keeper::Record>>,
    /// Whether hints changed.
    pub(super) hinted: bool,
    /// Whether hints came.
    pub(super) kept: bool,
}

/// Why the writer ends, and the node with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fatal {
    /// The store failed a write.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A context holds a counter of this actor that it never gave out.
    #[error(
        "a context holds counter {seen} of this store, which remembers none above {known}: it has lost data, and the next start begins a new one"
    )]
    Forgotten { seen: u64, known: u64 },
}

pub(super) struct Writer {
    pub(super) ground: Ground,
    pub(super) facts: Arc<Facts>,
    /// Lines raised since the start, by partition.
    lines: HashMap<Partition, u64>,
    leaves: Leaves,
    pub(super) census: Census,
    pub(super) reaper: Reaper,
    /// What was asked by an older registry document is refused: owners changed in this one.
    since: u64,
    /// Buckets that are about to be deleted, and until when they take no writes.
    closed: HashMap<Incarnation, Instant>,
}

/// Where a command writes what comes from elsewhere.
fn written(command: &Command) -> Option<&Slot> {
    match command {
        Command::Mint(Asked { slot, .. }) | Command::Join { slot, .. } => Some(slot),
        Command::Admit(brought) => Some(&brought.slot),
        Command::Hint(change) => change.keeps(),
        _ => None,
    }
}

impl Writer {
    pub(super) fn new(ground: Ground, facts: Arc<Facts>) -> Self {
        let leaves = Leaves::open(ground.store.as_ref());
        facts.trees.publish(leaves.marks());
        let (lines, census) = (HashMap::new(), Census::open(ground.store.as_ref()));
        let reaper = Reaper::open(ground.store.as_ref());
        facts
            .tombstones
            .store(census.tombstones(), Ordering::Relaxed);
        Self {
            ground,
            facts,
            lines,
            census,
            reaper,
            since: 0,
            closed: HashMap::new(),
            leaves,
        }
    }

    /// Ends with the queue, or with the store.
    pub(super) async fn run(mut self, commands: &mut mpsc::Receiver<Command>) {
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            taken.clear();
            if commands.recv_many(&mut taken, BATCH).await == 0 {
                return;
            }
            let failed = self.facts.failed.borrow().clone();
            let done = match failed {
                Some(why) => Err(why),
                None => self.group(&mut taken).await.map_err(|it| self.end(&it)),
            };
            if let Err(why) = done {
                commands.close();
                self.facts.fail(why.clone());
                let failure = Failure::Store(why);
                taken.drain(..).for_each(|command| command.refuse(&failure));
                while let Some(command) = commands.recv().await {
                    command.refuse(&failure);
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
    async fn group(&mut self, taken: &mut Vec<Command>) -> Result<(), Fatal> {
        if let Some(tagger) = self.facts.trees.tagger() {
            self.leaves.use_tagger(tagger);
        }
        let mut pending = taken.drain(..);
        while pending.len() > 0 {
            self.look_for_room();
            let mut round = Round::default();
            let mut carried = 0;
            for command in pending.by_ref() {
                carried += 1;
                self.prepare(command, &mut round)?;
                if round.batch.is_full() {
                    break;
                }
            }
            self.finish(round, carried).await?;
        }
        Ok(())
    }

    /// Applies a batch with its bookkeeping, and says who is to know of it.
    async fn finish(&mut self, round: Round, carried: usize) -> Result<(), Fatal> {
        let Round {
            mut batch,
            done,
            leaves,
            steps,
            hinted,
            kept,
            ..
        } = round;
        self.census.put(&mut batch);
        let tombstones = self.census.tombstones();
        self.facts.tombstones.store(tombstones, Ordering::Relaxed);
        let store = self.ground.store.as_ref();
        self.leaves.seal(store, leaves, &mut batch);
        self.commit(batch, done, carried).await?;
        self.facts.trees.publish(self.leaves.marks());
        steps.into_iter().try_for_each(|step| self.step(step))?;
        if hinted || kept {
            self.facts.hinted.send_modify(|hinting| {
                hinting.came += u64::from(kept);
                hinting.changed += 1;
            });
        }
        Ok(())
    }

    /// A step of computing leaves anew, between batches. Not synced: what is lost of it is unclean again.
    fn step(&mut self, asked: trees::Asked) -> Result<(), WriteError> {
        let (store, mut batch) = (self.ground.store.as_ref(), Batch::new());
        let (partition, copies) = (asked.partition, &asked.copies);
        let stepped = self.leaves.step(store, partition, copies, &mut batch);
        if !batch.is_empty() {
            store.apply(batch)?;
        }
        self.facts.trees.publish(self.leaves.marks());
        (asked.done)(stepped.map_err(|error| unreadable(&error)));
        Ok(())
    }

    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "a shared reference would have to be Sync for the future to be Send, and caches are not"
    )]
    async fn commit(
        &mut self,
        batch: Batch,
        done: Completions,
        commands: usize,
    ) -> Result<(), WriteError> {
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
            outside::sync_takes().await;
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
        if let Some(failure) = self.refuses(&command) {
            command.refuse(&failure);
            return Ok(());
        }
        self.check_command(&command)?;
        match command {
            Command::Mint(asked) => return self.mint(asked, round),
            Command::Hint(change) => return self.change_hint(change, round),
            Command::Join {
                slot,
                number: _,
                object,
                durability,
                counts,
            } => match self.join(&slot, &object, round) {
                Ok(()) => round.done.count(durability, counts),
                Err(failure) => counts(Err(failure)),
            },
            Command::Meta { key, value, counts } => {
                round.batch.put(Space::Meta, key.as_bytes(), value);
                round.done.synced.push(counts);
            }
            Command::Erase {
                records,
                number,
                counts,
            } => {
                self.erase_all(&records, number.is_some(), round);
                round.done.buffered.push(counts);
            }
            Command::Close {
                bucket,
                until,
                counts,
            } => {
                self.close(bucket, until);
                round.done.buffered.push(counts);
            }
            Command::Owners {
                since,
                gained,
                counts,
            } => {
                round.done.synced.push(counts);
                self.owners_changed(since, &gained, round);
            }
            Command::Replace {
                slot,
                object,
                counts,
            } => {
                self.replace(&slot, object, round);
                round.done.synced.push(counts);
            }
            Command::Readable { slot, counts } => {
                self.readable(&slot, round);
                round.done.buffered.push(counts);
            }
            Command::Step(step) => round.steps.push(step),
            Command::Shut { counts } => {
                self.shut(round);
                round.done.synced.push(counts);
            }
            Command::Flush { counts } => round.done.synced.push(counts),
            Command::Reaping(asked) => self.reaping(asked, round),
            Command::Admit(brought) => return self.admit(brought, round),
        }
        Ok(())
    }

    fn check_command(&self, command: &Command) -> Result<(), Fatal> {
        match command {
            Command::Join { object, .. } | Command::Replace { object, .. } => {
                self.check_memory(object.context())
            }
            _ => Ok(()),
        }
    }

    fn join(&mut self, slot: &Slot, object: &Object, round: &mut Round) -> Result<(), Failure> {
        let mut held = self.load(slot, round)?;
        let before = is_deleted(&held.object);
        if held.object.join(object) {
            self.census.change(before, is_deleted(&held.object));
            self.write(round, slot, held.object, held.tag);
        }
        Ok(())
    }

    /// Erases records of nobody, or of others now: what this node once minted for those it does not know any more.
    fn erase_all(&mut self, records: &[Bytes], of_others: bool, round: &mut Round) {
        records.iter().for_each(|record| self.erase(record, round));
        let partitions = records.iter().filter_map(|record| taken_apart(record));
        let raised = partitions.filter(|_| of_others);
        raised.for_each(|(at, ..)| self.raise_line(at));
    }

    fn shut(&mut self, round: &mut Round) {
        let store = self.ground.store.as_ref();
        self.leaves.close(store, &mut round.batch);
    }

    /// Before every batch: what is free now decides what of it is taken, not what was free seconds ago.
    fn look_for_room(&self) {
        if let Err(error) = self.facts.gauge.look() {
            tracing::warn!(%error, "cannot ask how full the disk is");
        }
    }

    /// Why a command is not even looked at.
    fn refuses(&self, command: &Command) -> Option<Failure> {
        let is_stale = command.number().is_some_and(|number| number < self.since);
        let closing = self.is_closed(command).then_some(Failure::Closing);
        let has_room = self.facts.gauge.level().takes(command.taking());
        let hidden = self.is_hidden(command).then_some(Failure::Rebuilding);
        closing
            .or(hidden)
            .or(is_stale.then_some(Failure::Stale(self.since)))
            .or((!has_room).then_some(Failure::DiskFull))
            .or(command.is_over().then_some(Failure::Overloaded))
    }

    fn close(&mut self, bucket: Incarnation, until: Instant) {
        let now = Instant::now();
        self.closed.retain(|_, until| *until > now);
        self.closed.insert(bucket, until);
    }

    fn owners_changed(&mut self, since: u64, gained: &[Partition], round: &mut Round) {
        self.since = self.since.max(since);
        for at in gained {
            self.raise_line(*at);
            self.gained(*at, round);
        }
        self.reaper.seals.break_all();
    }

    fn readable(&mut self, slot: &Slot, round: &mut Round) {
        let (record, batch) = (slot.record(), &mut round.batch);
        self.leaves.readable(slot.partition, &record, batch);
    }

    /// Whether a command would write to a bucket that is about to be deleted.
    fn is_closed(&self, command: &Command) -> bool {
        let until = written(command).and_then(|slot| self.closed.get(&slot.place.bucket));
        until.is_some_and(|until| Instant::now() < *until)
    }

    /// Whether a command would write to a partition that may be set aside as a whole: what is acknowledged stays.
    fn is_hidden(&self, command: &Command) -> bool {
        let reaping = &self.facts.reaping;
        written(command).is_some_and(|slot| !reaping.is_judged(slot.partition))
    }

    fn mint(&mut self, asked: Asked, round: &mut Round) -> Result<(), Fatal> {
        let loaded = match &asked.stands_in {
            None => self.load(&asked.slot, round).map(|held| (held, None)),
            Some(_) => self.load_to_stand_in(&asked, round).map(|(object, hint)| {
                let tag = Sum::ZERO;
                (Held { object, tag }, hint)
            }),
        };
        let (mut held, hint) = match loaded {
            Ok(loaded) => loaded,
            Err(failure) => {
                (asked.minted)(Err(failure));
                return Ok(());
            }
        };
        let before = is_deleted(&held.object);
        let recalled = self.look_back(&asked, &mut held.object)?;
        self.check_memory(held.object.context())?;
        self.check_memory(&asked.write.tombstones)?;
        if let Some(context) = &asked.write.context {
            self.check_memory(context)?;
        }
        let (once, write) = (asked.once.is_some(), *asked.write);
        let minted = match recalled {
            Some(Recall::Reused) => Err(Failure::Reused),
            Some(Recall::Written { dot, at }) => Ok(repeated(&held.object, (dot, at), write)),
            None => {
                let mint = self.next_dot(asked.slot.partition)?;
                let written = held.object.write(mint, write, asked.caps);
                let written = written.map_err(Failure::Refused);
                written.map(|written| minted(&mut held.object, mint.dot, written, once))
            }
        };
        let minted = match minted {
            Ok(minted) => minted,
            Err(failure) => {
                (asked.minted)(Err(failure));
                return Ok(());
            }
        };
        match asked.stands_in {
            Some(stands_in) => {
                self.keep_minted(&asked.slot, held.object, hint, &stands_in, round);
            }
            None => {
                self.census.change(before, is_deleted(&held.object));
                self.write(round, &asked.slot, held.object, held.tag);
            }
        }
        round.done.minted.push((asked.minted, minted));
        round.done.count(asked.durability, asked.counts);
        Ok(())
    }

    /// A fresh dot for a key of this partition.
    fn next_dot(&mut self, partition: Partition) -> Result<Mint, WriteError> {
        let dot = Dot {
            actor: self.ground.actor,
            counter: self.ground.counters.mint()?,
        };
        self.facts.highest.store(dot.counter, Ordering::Relaxed);
        let line = self.lines.get(&partition).copied();
        let line = line.unwrap_or(self.ground.line);
        Ok(Mint { dot, line })
    }

    /// Whether this store gave out every counter of its own that a context holds. If not, its next dots would
    /// be taken for ones that are long superseded.
    pub(super) fn check_memory(&self, context: &Context) -> Result<(), Fatal> {
        let known = self.ground.counters.peek().saturating_sub(1);
        match context.highest_above(self.ground.actor, known) {
            Some(seen) => Err(Fatal::Forgotten { seen, known }),
            None => Ok(()),
        }
    }

    /// Puts an object in the place of one that its leaf counts under this tag.
    pub(super) fn write(&mut self, round: &mut Round, slot: &Slot, object: Object, gone: Sum) {
        let encoded: Bytes = codec::encode(&object);
        let Place { bucket, key } = &slot.place;
        let tag = self.leaves.tag(*bucket, key, &encoded);
        let (leaves, batch) = (&mut round.leaves, &mut round.batch);
        self.leaves.change(leaves, batch, slot, gone, tag);
        let record = slot.record();
        self.reaper.seals.break_one(&record[..]);
        round.batch.put(Space::Objects, &record, encoded);
        round.fresh.insert(record, Held { object, tag });
    }

    pub(super) fn erase(&mut self, record: &[u8], round: &mut Round) {
        self.reaper.seals.break_one(record);
        let gone = match round.fresh.insert(record.to_vec(), Held::default()) {
            Some(held) => Some(codec::encode(&held.object)),
            // What cannot be read is erased all the same; its leaf is no longer known to be right.
            None => self.ground.store.get(Space::Objects, record).ok().flatten(),
        };
        let before = gone.as_ref().is_some_and(|bytes| is_deleted_record(bytes));
        self.census.change(before, false);
        let (leaves, batch) = (&mut round.leaves, &mut round.batch);
        self.leaves.erase(leaves, batch, record, gone.as_deref());
        round.batch.delete(Space::Objects, record);
    }

    /// What other owners hold takes the place of a record that cannot be read. How its leaf counted that is
    /// unknown, so the tree is unclean. If it can be read again, it is joined as anything else.
    fn replace(&mut self, slot: &Slot, object: Object, round: &mut Round) {
        match self.load(slot, round) {
            Ok(mut held) => {
                let before = is_deleted(&held.object);
                if held.object.join(&object) {
                    self.census.change(before, is_deleted(&held.object));
                    self.write(round, slot, held.object, held.tag);
                }
            }
            Err(_) => {
                self.census.change(false, is_deleted(&object));
                if object.is_empty() {
                    let record = slot.record();
                    self.reaper.seals.break_one(&record[..]);
                    round.batch.delete(Space::Objects, &record);
                    round.fresh.insert(record, Held::default());
                } else {
                    self.write(round, slot, object, Sum::ZERO);
                }
                self.leaves.spoil(slot.partition, &mut round.batch);
            }
        }
    }

    /// A key's object as the batch leaves it so far. A copy that cannot be read raises its partition's line,
    /// and is fetched from other owners.
    pub(super) fn load(&mut self, slot: &Slot, round: &Round) -> Result<Held, Failure> {
        let record = slot.record();
        if let Some(held) = round.fresh.get(&record) {
            return Ok(held.clone());
        }
        let loaded = match self.ground.store.get(Space::Objects, &record) {
            Ok(Some(bytes)) => match codec::decode(&bytes) {
                Ok(object) => {
                    let Place { bucket, key } = &slot.place;
                    let tag = self.leaves.tag(*bucket, key, &bytes);
                    Ok(Held { object, tag })
                }
                Err(error) => Err(Failure::Fenced(error.to_string())),
            },
            Ok(None) => Ok(Held::default()),
            Err(error) => Err(unreadable(&error)),
        };
        if loaded.is_err() {
            self.raise_line(slot.partition);
            self.reaper.seals.break_one(&record[..]);
            self.facts.trees.note_damage(slot);
        }
        loaded
    }

    /// From here on nothing is vouched for that this partition's copies held before: one of them was forgotten,
    /// or cannot be read.
    pub(super) fn raise_line(&mut self, partition: Partition) {
        let last = self.ground.counters.peek().saturating_sub(1);
        self.lines.insert(partition, last);
    }
}
