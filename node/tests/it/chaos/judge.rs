//! What clients asked for and were told, and the judgement whether the cluster kept its word.
//!
//! A pure function of the record and of what the cluster shows at rest. An acknowledged write must be shown, or must
//! have been superseded by a write whose context had seen it, in any number of steps that end at something shown or
//! at a delete: tombstones may have been reaped, so nobody has to see them. Nothing that an acknowledged write's
//! context had seen may be shown; no name (dot) stands for two writes; a write that was repeated counts once.

use std::collections::{BTreeMap, BTreeSet};

/// What the context of a write had seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    /// These writes, and with them all that they had seen.
    Writes(BTreeSet<usize>),
    /// Whatever the node that took it had read by itself.
    Anything,
}

/// What a client was told of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is there, under this name.
    Acknowledged(String),
    /// It may be there, or come to be.
    Unknown,
    /// It is not there and never will be.
    NotWritten,
}

/// One write as its client knows it. Its place in the record is its id.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// Unlike that of any other write; none deletes.
    pub(crate) value: Option<String>,
    pub(crate) saw: Saw,
    /// None while it is under way.
    pub(crate) told: Option<Told>,
    /// What the record held when it was answered: all that was begun before.
    pub(crate) ended: usize,
}

/// What all clients asked for, in the order in which they began.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) writes: Vec<Write>,
    /// By value.
    pub(crate) by_value: BTreeMap<String, usize>,
    acknowledged: usize,
    /// Those since the last judgement.
    pub(crate) reads: Vec<StrictRead>,
}

/// A strict read (owners only, R + W > N) that began after a strict write was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct StrictRead {
    pub(crate) after: usize,
    pub(crate) shown: BTreeSet<usize>,
}

/// What the cluster shows of a key at rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The values of a read.
    pub(crate) view: Vec<String>,
    /// Every sibling: its name, and its value unless it is a tombstone.
    pub(crate) siblings: Vec<(String, Option<String>)>,
}

/// A broken word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It was acknowledged, is not shown, and nobody who saw it wrote over it.
    Lost(usize),
    /// It is shown although an acknowledged write had seen it.
    BackAgain(usize),
    /// It is shown although its client was told that it was not written.
    Written(usize),
    /// Nobody wrote this.
    Invented { key: String, value: String },
    /// It is shown more than once.
    Doubled(usize),
    /// A strict read that began after it was acknowledged showed neither it nor what had seen it.
    Unread(usize),
    /// One name stands for two writes.
    OneName {
        dot: String,
        writes: BTreeSet<usize>,
    },
}

impl Record {
    /// Notes that a write begins; its id.
    pub(crate) fn begin(&mut self, key: &str, value: Option<String>, saw: Saw) -> usize {
        let id = self.writes.len();
        self.by_value.extend(value.clone().map(|value| (value, id)));
        self.writes.push(Write {
            key: key.to_owned(),
            value,
            saw,
            told: None,
            ended: usize::MAX,
        });
        id
    }

    /// Notes what its client was told.
    pub(crate) fn end(&mut self, id: usize, told: Told) {
        let began = self.writes.len();
        let write = &mut self.writes[id];
        if let Told::Acknowledged(_) = told {
            self.acknowledged += 1;
            // What may come later may have seen what comes later.
            write.ended = began;
        }
        write.told = Some(told);
    }

    /// Notes that a client asks no more, if it was not told yet.
    pub(crate) fn give_up(&mut self, id: usize) {
        self.writes[id].told.get_or_insert(Told::Unknown);
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Every key that somebody wrote.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.writes.iter().map(|write| write.key.clone()).collect()
    }

    /// The writes whose values these are; what nobody wrote is none.
    pub(crate) fn named<'a>(
        &self,
        values: impl IntoIterator<Item = &'a String>,
    ) -> BTreeSet<usize> {
        let found = values
            .into_iter()
            .filter_map(|value| self.by_value.get(value));
        found.copied().collect()
    }

    /// What a write may have superseded itself.
    fn seen(&self, id: usize) -> Vec<usize> {
        let write = &self.writes[id];
        match &write.saw {
            Saw::Writes(seen) => seen.iter().copied().collect(),
            Saw::Anything => (0..self.writes.len().min(write.ended))
                .filter(|other| *other != id && self.writes[*other].key == write.key)
                .collect(),
        }
    }

    /// These and all that they had seen, in any number of steps. Ends: every write is added once.
    fn with_seen(&self, from: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next: Vec<usize> = from.into_iter().collect();
        while let Some(id) = next.pop() {
            if found.insert(id) {
                next.extend(self.seen(id));
            }
        }
        found
    }
}

impl Wrong {
    /// The write that it is about, with what is shown of its key.
    pub(crate) fn tell(&self, record: &Record, shown: &BTreeMap<String, Shown>) -> String {
        let about = match self {
            Self::Lost(id)
            | Self::BackAgain(id)
            | Self::Written(id)
            | Self::Doubled(id)
            | Self::Unread(id) => Some(id),
            Self::Invented { .. } | Self::OneName { .. } => None,
        };
        let write = about.map(|id| &record.writes[*id]);
        let shown = write.and_then(|write| shown.get(&write.key));
        format!("{self:?}: {write:?}; {shown:?}")
    }
}

/// Everything that is wrong with strict reads.
pub(crate) fn judge_reads(record: &Record) -> Vec<Wrong> {
    let sees = |read: &&StrictRead| record.with_seen(read.shown.clone()).contains(&read.after);
    let stale = record.reads.iter().filter(|read| !sees(read));
    stale.map(|read| Wrong::Unread(read.after)).collect()
}

/// Everything that is wrong at rest.
pub(crate) fn judge(record: &Record, shown: &BTreeMap<String, Shown>) -> Vec<Wrong> {
    let mut wrong = names(record, shown);
    let mut visible = BTreeSet::new();
    for (key, shown) in shown {
        for value in &shown.view {
            match record.by_value.get(value) {
                Some(id) if record.writes[*id].key == *key => {
                    if !visible.insert(*id) {
                        wrong.push(Wrong::Doubled(*id));
                    }
                }
                _ => wrong.push(Wrong::Invented {
                    key: key.clone(),
                    value: value.clone(),
                }),
            }
        }
    }
    let all = || record.writes.iter().enumerate();
    let is_acknowledged = |write: &Write| matches!(write.told, Some(Told::Acknowledged(_)));

    let deletes =
        all().filter(|(_, write)| write.value.is_none() && write.told != Some(Told::NotWritten));
    let ends = visible.iter().copied().chain(deletes.map(|(id, _)| id));
    let accounted = record.with_seen(ends);
    let lost = all().filter(|(id, write)| is_acknowledged(write) && !accounted.contains(id));
    wrong.extend(lost.map(|(id, _)| Wrong::Lost(id)));

    // Only what a client knows that its context had seen is known to be superseded.
    let exact = all().filter(|(_, write)| is_acknowledged(write) && write.saw != Saw::Anything);
    let superseded = record.with_exactly_seen(exact.flat_map(|(id, _)| record.seen(id)));
    wrong.extend(
        visible
            .intersection(&superseded)
            .map(|id| Wrong::BackAgain(*id)),
    );
    let refused = |id: &&usize| record.writes[**id].told == Some(Told::NotWritten);
    wrong.extend(visible.iter().filter(refused).map(|id| Wrong::Written(*id)));
    wrong
}

impl Record {
    /// As `with_seen`, but by way of those only that say exactly what they had seen.
    fn with_exactly_seen(&self, from: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next: Vec<usize> = from.into_iter().collect();
        while let Some(id) = next.pop() {
            if found.insert(id) && self.writes[id].saw != Saw::Anything {
                next.extend(self.seen(id));
            }
        }
        found
    }
}

/// Names that stand for more than one write, by what clients were told and by what is shown.
fn names(record: &Record, shown: &BTreeMap<String, Shown>) -> Vec<Wrong> {
    let mut names: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (id, write) in record.writes.iter().enumerate() {
        if let Some(Told::Acknowledged(dot)) = &write.told {
            names.entry(dot).or_default().insert(id);
        }
    }
    for (dot, value) in shown.values().flat_map(|shown| &shown.siblings) {
        let id = value.as_ref().and_then(|value| record.by_value.get(value));
        if let Some(id) = id {
            names.entry(dot).or_default().insert(*id);
        }
    }
    let doubled = names.into_iter().filter(|(_, writes)| writes.len() > 1);
    let wrong = |(dot, writes): (&str, BTreeSet<usize>)| Wrong::OneName {
        dot: dot.to_owned(),
        writes,
    };
    doubled.map(wrong).collect()
}
