//! The writer's side of hints: one record per key, changed in the batch of everything else.
//!
//! A node that stands in for an owner mints on its hint as an owner on its object. A record goes when every
//! target has acknowledged all its dots; then the copy is forgotten, and the partition's line rises. Over the
//! quota new hints are refused; what was taken in is never dropped but with its bucket.

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::hint::{Head, Hint};
use sibyl_core::id::{NodeId, Trace};
use sibyl_core::message::Failure;
use sibyl_core::object::Object;
use sibyl_core::registry::Durability;

use super::writer::{Fatal, Round, Writer};
use super::{Asked, Done, Slot, StandIn, unreadable};
use crate::store::Space;

/// What a hint's record has beside the value, about: names, dots, span contexts.
const HEAD_BYTES: u64 = 512;

/// A hint and the bytes of its record, key included.
#[derive(Clone, Debug)]
pub(super) struct Record {
    hint: Hint,
    bytes: u64,
}

impl Record {
    fn head(&self) -> Head {
        Head {
            targets: self.hint.targets.clone(),
            traces: self.hint.traces.clone(),
        }
    }
}

/// A change to one hint.
pub(super) struct Change {
    pub(super) slot: Slot,
    pub(super) what: What,
}

/// What is changed.
pub(super) enum What {
    Keep {
        number: u64,
        object: Box<Object>,
        target: NodeId,
        trace: Option<Trace>,
        now_ms: u64,
        durability: Durability,
        counts: Done<()>,
    },
    Settle {
        target: NodeId,
        acked: Context,
        settled: Done<()>,
    },
    Reroute {
        target: NodeId,
        owners: Vec<NodeId>,
        done: Done<()>,
    },
    /// Its bucket is gone.
    Drop { done: Done<()> },
}

impl Change {
    /// Where something new is to be kept, if that is what it does.
    pub(super) fn keeps(&self) -> Option<&Slot> {
        matches!(self.what, What::Keep { .. }).then_some(&self.slot)
    }

    /// The registry document that named the owner it is kept for.
    pub(super) fn number(&self) -> Option<u64> {
        match self.what {
            What::Keep { number, .. } => Some(number),
            _ => None,
        }
    }

    pub(super) fn refuse(self, failure: &Failure) {
        match self.what {
            What::Keep { counts: done, .. }
            | What::Settle { settled: done, .. }
            | What::Reroute { done, .. }
            | What::Drop { done } => done(Err(failure.clone())),
        }
    }
}

impl Writer {
    pub(super) fn change_hint(&mut self, change: Change, round: &mut Round) -> Result<(), Fatal> {
        let Change { slot, what } = change;
        if let What::Keep { object, .. } = &what {
            self.check_memory(object.context())?;
        }
        let held = match self.load_hint(&slot, round) {
            Ok(held) => held,
            Err(failure) => {
                Change { slot, what }.refuse(&failure);
                return Ok(());
            }
        };
        let mut hint = held.as_ref().map(|held| held.hint.clone());
        match what {
            What::Keep {
                number: _,
                object,
                target,
                trace,
                now_ms,
                durability,
                counts,
            } => {
                let mut hint = hint.unwrap_or_default();
                hint.keep(&object, [&target], now_ms, trace);
                if self.write_hint(&slot, held, hint, Quota::Keeps, round) {
                    round.kept = true;
                    round.done.count(durability, counts);
                } else {
                    self.facts.lock_hints().refuse([&target]);
                    counts(Err(Failure::HintsFull));
                }
            }
            What::Settle {
                target,
                acked,
                settled: done,
            } => {
                let crossed_off = |hint: &mut Hint| hint.settle(&target, &acked);
                if hint.as_mut().is_some_and(crossed_off) {
                    self.rewrite(&slot, held, hint, round);
                }
                round.done.buffered.push(done);
            }
            What::Reroute {
                target,
                owners,
                done,
            } => {
                if let Some(hint) = &mut hint {
                    hint.reroute(&target, &owners);
                }
                self.rewrite(&slot, held, hint, round);
                round.kept = true;
                round.done.buffered.push(done);
            }
            What::Drop { done } => {
                self.rewrite(&slot, held, None, round);
                round.done.buffered.push(done);
            }
        }
        Ok(())
    }

    /// The hint that a minting stand-in adds to, or why it takes no write.
    pub(super) fn load_to_stand_in(
        &mut self,
        asked: &Asked,
        round: &Round,
    ) -> Result<(Object, Option<Record>), Failure> {
        let hint = self.load_hint(&asked.slot, round)?;
        let value = asked.write.content.value.as_ref();
        let more = value.map_or(0, Bytes::len) as u64 + HEAD_BYTES;
        let mut ledger = self.facts.lock_hints();
        if let Some(stands_in) = asked.stands_in.as_ref().filter(|_| !ledger.admits(more)) {
            ledger.refuse(&stands_in.owners);
            return Err(Failure::HintsFull);
        }
        drop(ledger);
        let object = hint.as_ref().map(|record| record.hint.object.clone());
        Ok((object.unwrap_or_default(), hint))
    }

    /// What was minted in the owners' place is kept for all of them.
    pub(super) fn keep_minted(
        &self,
        slot: &Slot,
        object: Object,
        held: Option<Record>,
        stands_in: &StandIn,
        round: &mut Round,
    ) {
        let mut hint = held
            .as_ref()
            .map(|held| held.hint.clone())
            .unwrap_or_default();
        // Not a join: minting removed what it covers.
        hint.object = object;
        let nothing = Object::default();
        hint.keep(
            &nothing,
            &stands_in.owners,
            stands_in.now_ms,
            stands_in.trace,
        );
        self.write_hint(slot, held, hint, Quota::LetIn, round);
        round.kept = true;
    }

    /// A hint without targets goes, and with it a copy.
    fn rewrite(
        &mut self,
        slot: &Slot,
        held: Option<Record>,
        hint: Option<Hint>,
        round: &mut Round,
    ) {
        match hint.filter(|hint| !hint.is_settled()) {
            Some(hint) => {
                self.write_hint(slot, held, hint, Quota::LetIn, round);
            }
            None => {
                if let Some(held) = held {
                    self.facts.lock_hints().remove(&held.head(), held.bytes);
                    round.hinted = true;
                    round.batch.delete(Space::Hints, &slot.record());
                    round.hints.insert(slot.record(), None);
                    self.raise_line(slot.partition);
                }
            }
        }
    }

    /// A hint goes with whatever is in it.
    pub(super) fn forget_hint(&mut self, record: &Bytes, round: &mut Round) {
        let slot = Slot::of_hint(record);
        match slot.map(|slot| (self.load_hint(&slot, round), slot)) {
            Some((Ok(held), slot)) => self.rewrite(&slot, held, None, round),
            _ => round.batch.delete(Space::Hints, record),
        }
    }

    /// Writes a hint's record; answers `false`, and writes nothing, if the quota forbids it.
    fn write_hint(
        &self,
        slot: &Slot,
        held: Option<Record>,
        hint: Hint,
        quota: Quota,
        round: &mut Round,
    ) -> bool {
        let (record, encoded) = (slot.record(), hint.encode());
        let bytes = (record.len() + encoded.len()) as u64;
        let before = held.as_ref().map_or(0, |held| held.bytes);
        let mut ledger = self.facts.lock_hints();
        if quota == Quota::Keeps && !ledger.admits(bytes.saturating_sub(before)) {
            return false;
        }
        if let Some(held) = held {
            ledger.remove(&held.head(), held.bytes);
        }
        let written = Record { hint, bytes };
        ledger.add(&written.head(), bytes);
        drop(ledger);
        round.batch.put(Space::Hints, &record, encoded);
        round.hints.insert(record, Some(written));
        round.hinted = true;
        true
    }

    /// A key's hint as the batch leaves it so far.
    fn load_hint(&mut self, slot: &Slot, round: &Round) -> Result<Option<Record>, Failure> {
        let record = slot.record();
        if let Some(fresh) = round.hints.get(&record) {
            return Ok(fresh.clone());
        }
        let loaded = match self.ground.store.get(Space::Hints, &record) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match Hint::decode(&bytes) {
                Ok(hint) => Ok(Some(Record {
                    hint,
                    bytes: (record.len() + bytes.len()) as u64,
                })),
                Err(error) => Err(Failure::Fenced(error.to_string())),
            },
            Err(error) => Err(unreadable(&error)),
        };
        if loaded.is_err() {
            self.raise_line(slot.partition);
        }
        loaded
    }
}

/// Whether a hint may be refused for its size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quota {
    /// It is new.
    Keeps,
    /// It was let in before, or as it was minted.
    LetIn,
}
