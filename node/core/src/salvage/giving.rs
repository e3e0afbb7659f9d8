//! The giving side: partition by partition, batch by batch, owner by owner.
//!
//! For each partition a member is asked who owns it now; each batch of its objects then goes to one owner after the
//! other until nothing of it is open. What all owners refuse, because each of them may have forgotten it, is set
//! aside. An owner that cannot answer now puts the partition behind all others, so one that is away holds up only
//! what is its. Ends with [`Effect::End`]; until then exactly one effect is under way, and there is always one.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Answer, Ask, Batch, Tally, Verdict};
use crate::id::Partition;
use crate::message::Place;

/// The shortest and the longest pause before what was put off is tried again: owners change within seconds, a member
/// may be away for hours.
pub const PAUSE_MS: (u64, u64) = (200, 10_000);

/// An object of the store that is given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the shell calls it.
    pub id: Bytes,
    /// Its key.
    pub place: Place,
    /// The object, as it lies on disk.
    pub object: Bytes,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is time to begin, or a pause is over.
    Woken,
    /// What was to be read: objects, records that cannot be read, and where to go on, if there may be more.
    Read {
        /// The objects.
        records: Vec<Record>,
        /// How many records on the way could not be read.
        damaged: u64,
        /// Where to go on.
        next: Option<Bytes>,
    },
    /// The member asked last answered.
    Answered(Answer),
    /// It did not, for this reason.
    Failed(String),
    /// What was to be put on disk is.
    Kept,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the member at this address.
    Ask(String, Ask),
    /// Read the next objects of a partition.
    Read(Partition, Option<Bytes>),
    /// Put copies of these where they are found again: nobody took them.
    SetAside(Vec<Bytes>),
    /// Note that everything of a partition was given, and what became of it.
    Done(Partition, Tally),
    /// Do nothing for a drawn time in this range of milliseconds.
    Pause(u64, u64),
    /// Everything was given.
    End,
}

/// The flow.
#[derive(Clone, Debug)]
pub struct Giving {
    epoch: u64,
    all: bool,
    /// Where members are reached; the first one is asked who owns what.
    members: VecDeque<String>,
    /// What is left, the present one first.
    left: VecDeque<Partition>,
    /// What could not be given in this round.
    again: VecDeque<Partition>,
    pause_ms: u64,
    /// Whom the present partition belongs to.
    owners: Vec<String>,
    /// Which of them is asked.
    at: usize,
    /// What of the present batch is open, and whether anybody refused it for its age.
    open: Vec<(Record, bool)>,
    next: Option<Bytes>,
    /// What became of the present partition.
    tally: Tally,
    /// What earlier rounds imported of partitions that were put off: this round finds it known.
    before: BTreeMap<Partition, u64>,
    /// Members that did not answer since somebody did.
    silent: usize,
    /// Why something was put off.
    why: Option<String>,
}

impl Giving {
    /// A store that confirmed this epoch last, and holds these partitions; members are reached there.
    pub fn new(
        epoch: u64,
        all: bool,
        members: impl IntoIterator<Item = String>,
        left: impl IntoIterator<Item = Partition>,
    ) -> Self {
        Self {
            epoch,
            all,
            members: members.into_iter().collect(),
            left: left.into_iter().collect(),
            again: VecDeque::new(),
            pause_ms: PAUSE_MS.0,
            owners: Vec::new(),
            at: 0,
            open: Vec::new(),
            next: None,
            tally: Tally::default(),
            before: BTreeMap::new(),
            silent: 0,
            why: None,
        }
    }

    /// How many partitions are left.
    pub fn left(&self) -> usize {
        self.left.len() + self.again.len()
    }

    /// What it waits for, if something was put off.
    pub fn waits_for(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Takes an event; what to do then.
    pub fn handle(&mut self, event: Event) -> Effect {
        match event {
            Event::Woken => self.begin(),
            Event::Answered(Answer::Owners(owners)) if self.owners.is_empty() => {
                if owners.is_empty() {
                    return self.ask_another("nobody owns a partition now".into());
                }
                self.silent = 0;
                self.learn(&owners);
                (self.owners, self.at) = (owners, 0);
                self.read()
            }
            Event::Read {
                records,
                damaged,
                next,
            } => {
                self.tally.damaged += damaged;
                self.open = records.into_iter().map(|record| (record, false)).collect();
                (self.next, self.at) = (next, 0);
                self.give()
            }
            Event::Answered(Answer::Took(verdicts)) if verdicts.len() == self.open.len() => {
                self.took(&verdicts);
                self.at += 1;
                self.give()
            }
            Event::Answered(Answer::Later(why)) | Event::Failed(why) if self.owners.is_empty() => {
                self.ask_another(why)
            }
            Event::Answered(Answer::Later(why)) => self.put_off(why),
            Event::Answered(Answer::Owners(_) | Answer::Took(_)) => {
                self.put_off("a member answered something else than it was asked".into())
            }
            Event::Failed(why) => self.put_off(why),
            Event::Kept if self.open.is_empty() => self.finish(),
            Event::Kept => {
                self.tally.quarantined += self.open.len() as u64;
                self.open.clear();
                self.read_on()
            }
        }
    }

    /// Asks for the owners of the next partition.
    fn begin(&mut self) -> Effect {
        (self.owners, self.open) = (Vec::new(), Vec::new());
        (self.tally, self.next) = (Tally::default(), None);
        if self.left.is_empty() {
            std::mem::swap(&mut self.left, &mut self.again);
        }
        match (self.left.front(), self.members.front()) {
            (None, _) => Effect::End,
            (Some(at), Some(member)) => Effect::Ask(member.clone(), Ask::Owners(*at)),
            (Some(_), None) => self.pause("no address of a member is known".into()),
        }
    }

    /// Somebody who was there a moment ago is a good one to be asked when the others are not.
    fn learn(&mut self, owners: &[String]) {
        for owner in owners {
            if !self.members.contains(owner) {
                self.members.push_back(owner.clone());
            }
        }
    }

    fn ask_another(&mut self, why: String) -> Effect {
        self.members.rotate_left(1.min(self.members.len()));
        self.silent += 1;
        if self.silent < self.members.len() {
            return self.begin();
        }
        self.silent = 0;
        self.pause(why)
    }

    fn read(&self) -> Effect {
        let at = self.left.front().copied();
        Effect::Read(at.unwrap_or(Partition(0)), self.next.clone())
    }

    /// Gives what is open to the next owner; sets aside what all refused.
    fn give(&mut self) -> Effect {
        if self.open.is_empty() {
            return self.read_on();
        }
        if let Some(owner) = self.owners.get(self.at) {
            let objects = self.open.iter();
            let batch = Batch {
                epoch: self.epoch,
                all: self.all,
                objects: objects
                    .map(|(record, _)| (record.place.clone(), record.object.clone()))
                    .collect(),
            };
            return Effect::Ask(owner.clone(), Ask::Take(batch));
        }
        if self.open.iter().any(|(_, refused)| !refused) {
            // Whoever named them may be the one that is behind.
            self.members.rotate_left(1.min(self.members.len()));
            return self.put_off("owners changed meanwhile".into());
        }
        let ids = self.open.iter().map(|(record, _)| record.id.clone());
        Effect::SetAside(ids.collect())
    }

    fn took(&mut self, verdicts: &[Verdict]) {
        let open = std::mem::take(&mut self.open);
        for ((record, refused), verdict) in open.into_iter().zip(verdicts) {
            self.tally.count(*verdict);
            match verdict {
                Verdict::Older => self.open.push((record, true)),
                Verdict::NotMine => self.open.push((record, refused)),
                Verdict::Imported | Verdict::Known | Verdict::Gone => {}
            }
        }
    }

    fn read_on(&mut self) -> Effect {
        if self.next.is_some() {
            return self.read();
        }
        let at = self.left.front().copied().unwrap_or(Partition(0));
        let before = self.before.remove(&at).unwrap_or_default();
        self.tally.imported += before;
        self.tally.known = self.tally.known.saturating_sub(before);
        Effect::Done(at, self.tally)
    }

    /// A partition is noted as done.
    fn finish(&mut self) -> Effect {
        self.left.pop_front();
        self.pause_ms = PAUSE_MS.0;
        if self.again.is_empty() {
            self.why = None;
        }
        self.begin()
    }

    /// Goes on with the next partition; comes back to this one, and gives all of it anew.
    fn put_off(&mut self, why: String) -> Effect {
        if let Some(at) = self.left.pop_front() {
            *self.before.entry(at).or_default() += self.tally.imported;
            self.again.push_back(at);
        }
        if self.left.is_empty() {
            return self.pause(why);
        }
        self.why = Some(why);
        self.begin()
    }

    fn pause(&mut self, why: String) -> Effect {
        (self.owners, self.open) = (Vec::new(), Vec::new());
        self.why = Some(why);
        let most = self.pause_ms;
        self.pause_ms = (most * 2).min(PAUSE_MS.1);
        Effect::Pause(most / 2, most)
    }
}
