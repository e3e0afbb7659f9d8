//! What one node knows and thinks of one other member.
//!
//! Knowledge is the newest record of that member and, if its store once said more of itself, that older record as
//! a witness. Opinion is the suspicion. The invariant: a suspicion names the newest life known when it arose, and
//! anything newer ends it.

use super::event::Standing;
use super::record::{Life, Record};
use super::view::State;

/// An opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// The life that is suspected.
    pub(super) at: Life,
    /// Since when.
    pub(super) since_ms: u64,
}

/// One other member.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) standing: Standing,
    /// Its newest record.
    pub(super) record: Option<Record>,
    /// An older record of the same store that was further.
    pub(super) witness: Option<Box<Record>>,
    /// It spoke with an older record than the one here.
    pub(super) is_behind: bool,
    /// When the newest record came; before the first, when the member was first listed.
    pub(super) learnt_ms: u64,
    pub(super) suspicion: Option<Suspicion>,
    /// A suspicion that the member has not shown to know of.
    pub(super) owed: Option<Life>,
    pub(super) skew_ms: Option<i64>,
    /// When it was last probed.
    pub(super) probed_ms: Option<u64>,
    /// When its state changed here, until everyone agrees.
    pub(super) changed_ms: Option<u64>,
}

/// What a newer record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) before: State,
    /// The member is there again, or started anew.
    pub(super) returned: bool,
}

impl Known {
    /// A member nothing was heard of yet.
    pub(super) fn new(standing: Standing, now_ms: u64) -> Self {
        Self {
            standing,
            record: None,
            witness: None,
            is_behind: false,
            learnt_ms: now_ms,
            suspicion: None,
            owed: None,
            skew_ms: None,
            probed_ms: None,
            changed_ms: None,
        }
    }

    /// The newest life known.
    pub(super) fn life(&self) -> Life {
        self.record
            .as_ref()
            .map_or(Life::NONE, |record| record.life)
    }

    pub(super) fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state() == State::Alive
    }

    /// How it stands. Who was never heard cannot be called alive.
    pub(super) fn state(&self) -> State {
        match self.standing {
            Standing::Down => State::Down,
            Standing::Left => State::Left,
            Standing::Member if self.suspicion.is_some() || self.record.is_none() => State::Suspect,
            Standing::Member => State::Alive,
        }
    }

    /// Takes a newer record; an older one changes nothing.
    pub(super) fn take(&mut self, record: Record, now_ms: u64, forgives: bool) -> Option<Taken> {
        if record.life <= self.life() {
            self.is_behind |= record.life < self.life();
            return None;
        }
        let before = self.state();
        let (life, told) = (record.life, record.told);
        // A refutation follows the life that was suspected; any other higher incarnation is a start.
        let started = life.incarnation > self.life().incarnation
            && (told == Life::NONE || told.incarnation + 1 != life.incarnation);
        self.owed = self.owed.filter(|owed| record.told < *owed);
        if let Some(old) = self.record.replace(record.clone()).filter(|_| !forgives) {
            self.remember(old, &record);
        }
        self.learnt_ms = now_ms;
        self.is_behind = false;
        self.suspicion = None;
        Some(Taken {
            before,
            returned: before != State::Alive || started,
        })
    }

    /// Keeps the old record if the new one of the same store claims less.
    fn remember(&mut self, old: Record, new: &Record) {
        let speaks =
            |witness: &Record| witness.store == new.store && witness.marks.exceed(new.marks);
        self.witness = self.witness.take().filter(|witness| speaks(witness));
        if self.witness.is_none() && speaks(&old) {
            self.witness = Some(Box::new(old));
        }
    }

    /// Begins to suspect it.
    pub(super) fn suspect(&mut self, now_ms: u64) {
        let at = self.life();
        self.suspicion = Some(Suspicion {
            at,
            since_ms: now_ms,
        });
        self.owed = self.owed.max((at > Life::NONE).then_some(at));
    }
}
