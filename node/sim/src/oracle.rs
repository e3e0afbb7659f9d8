//! What really happened, kept outside all nodes: every mint, what its client had seen, what was promised.
//!
//! Knowledge is kept as sets of writes, never as contexts: so a context that claims too much is caught
//! lying. A write's past is what its client saw, and the tombstones that a blind write covered, each with
//! its own past.

use std::collections::BTreeMap;

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::Dot;
use sibyl_core::object::Object;

/// The most writes of a run: twice what a plan asks for.
const WORDS: usize = 4;

/// A set of writes of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes([u64; WORDS]);

impl Writes {
    /// The set of one.
    pub fn of(write: usize) -> Self {
        let mut set = Self::default();
        set.0[write / 64] |= 1 << (write % 64);
        set
    }

    /// Whether it holds this one.
    pub fn contains(self, write: usize) -> bool {
        self.0[write / 64] >> (write % 64) & 1 == 1
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// Without another set.
    #[must_use]
    pub fn without(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= !b);
        self
    }

    /// What both hold.
    #[must_use]
    pub fn common(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
        self
    }

    /// Whether it holds nothing.
    pub fn is_empty(self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Its writes, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..WORDS * 64).filter(move |write| self.contains(*write))
    }
}

/// A minted write.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Its name.
    pub dot: Dot,
    /// The key it went to.
    pub key: usize,
    /// The request that asked for it.
    pub request: usize,
    /// The payload; `None` for a delete.
    pub payload: Option<Bytes>,
    /// What it may supersede: what its client saw and the tombstones it covered, with their pasts.
    pub past: Writes,
    /// What its client's context claims: what it supersedes, wherever it arrives.
    pub covers: Writes,
    /// How many copies were promised, once it was acknowledged.
    pub promised: Option<usize>,
    /// Whether W of its owners held it when it was acknowledged.
    pub strict: bool,
    /// How many synced copies were taken away by wipes, within the budget.
    pub destroyed: usize,
}

/// Everything minted in a run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// In the order of minting.
    pub writes: Vec<Minted>,
    by_dot: BTreeMap<Dot, usize>,
    /// What all owners agreed to forget.
    reaped: Writes,
}

impl Oracle {
    /// The write of a dot, if it was ever minted.
    pub fn find(&self, dot: Dot) -> Option<usize> {
        self.by_dot.get(&dot).copied()
    }

    /// All owners are to forget these: nothing of them need be anywhere, and nothing may live.
    pub fn reap(&mut self, writes: Writes) {
        self.reaped = self.reaped.and(writes);
    }

    /// What was reaped so far.
    pub fn reaped(&self) -> Writes {
        self.reaped
    }

    /// Notes a mint; answers its number, or the write that has the dot already.
    ///
    /// # Errors
    /// The number of the write that carries this dot.
    pub fn mint(&mut self, minted: Minted) -> Result<usize, usize> {
        let number = self.writes.len();
        assert!(
            number < WORDS * 64,
            "a plan has fewer writes than the ledger"
        );
        if let Some(other) = self.find(minted.dot) {
            return Err(other);
        }
        self.by_dot.insert(minted.dot, number);
        self.writes.push(minted);
        Ok(number)
    }

    /// The writes to a key that a context claims.
    pub fn claimed(&self, key: usize, context: &Context) -> Writes {
        let of_key = self.writes.iter().enumerate();
        let claimed = of_key.filter(|(_, write)| write.key == key && context.contains(write.dot));
        claimed.fold(Writes::default(), |set, (number, _)| {
            set.and(Writes::of(number))
        })
    }

    /// The writes to a key that a copy holds, with their effect: it claims them, and keeps nothing that they
    /// supersede. A copy may claim a tombstone and still keep what it deleted: a blind write covers the
    /// tombstones of its coordinator by their dots, and travels without what those had seen.
    pub fn held(&self, key: usize, object: &Object) -> Writes {
        let surviving = self.surviving(object);
        let claimed = self.claimed(key, object.context()).iter();
        let effective =
            claimed.filter(|write| self.writes[*write].covers.common(surviving).is_empty());
        effective.fold(Writes::default(), |set, number| set.and(Writes::of(number)))
    }

    /// The writes that an object still holds as siblings.
    pub fn surviving(&self, object: &Object) -> Writes {
        let dots = object
            .siblings()
            .iter()
            .flat_map(sibyl_core::object::Sibling::dots);
        let numbers = dots.filter_map(|dot| self.find(dot));
        numbers.fold(Writes::default(), |set, number| set.and(Writes::of(number)))
    }

    /// The same, tombstones left out.
    pub fn live(&self, object: &Object) -> Writes {
        let alive = |write: &usize| self.writes[*write].payload.is_some();
        let living = self.surviving(object).iter().filter(alive);
        living.fold(Writes::default(), |set, number| set.and(Writes::of(number)))
    }

    /// Some writes and all their pasts: what one who sees them may supersede.
    pub fn known(&self, writes: Writes) -> Writes {
        let past = |set: Writes, number: usize| set.and(self.writes[number].past);
        writes.iter().fold(writes, past)
    }

    /// The writes that were minted for a request and its repetitions.
    pub fn of_request(&self, request: usize) -> Writes {
        let all = self.writes.iter().enumerate();
        let twins = all.filter(|(_, write)| write.request == request);
        twins.fold(Writes::default(), |set, (number, _)| {
            set.and(Writes::of(number))
        })
    }

    /// Acknowledged writes to a key.
    pub fn acknowledged(&self, key: usize) -> Writes {
        let all = self.writes.iter().enumerate();
        let acked = all.filter(|(_, write)| write.key == key && write.promised.is_some());
        acked.fold(Writes::default(), |set, (number, _)| {
            set.and(Writes::of(number))
        })
    }

    /// Those of them that W owners held.
    pub fn strict(&self, key: usize) -> Writes {
        let strict = |write: &usize| self.writes[*write].strict;
        let acknowledged = self.acknowledged(key).iter().filter(strict);
        acknowledged.fold(Writes::default(), |set, number| set.and(Writes::of(number)))
    }

    /// A write in words.
    pub fn name(&self, write: usize) -> String {
        let Minted {
            dot,
            key,
            request,
            payload,
            ..
        } = &self.writes[write];
        let kind = if payload.is_some() { "write" } else { "delete" };
        format!("{kind} {dot} of request {request} to k{key}")
    }

    /// Some writes in words.
    pub fn names(&self, writes: Writes) -> String {
        let names: Vec<String> = writes.iter().map(|write| self.name(write)).collect();
        names.join(", ")
    }
}
