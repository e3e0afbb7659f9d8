//! Reaping: when an object that holds nothing but tombstones may be forgotten.
//!
//! Time alone never allows it. Members count *epochs*: a member says that it has *cleared* epoch e once nothing
//! that carries objects and began before e is left on it, and enters e + 1 once every member of the layout has
//! cleared e. So no two are ever more than one epoch apart. An owner *seals* a tombstone in its epoch ([`Seals`]);
//! all owners forget it once they have sealed the same object and [`STEPS`] epochs have passed. The machine is a
//! value: it hears words, the layout and what is under way here, and answers what to put on disk. It knows no
//! clock, no peers and no objects. Invariant: what it says of itself stays true. Why five epochs and not fewer
//! stands at [`STEPS`]; `tests` checks it on generated histories, `node/docs/decisions/0012` tells it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{Actor, NodeId};

pub mod image;
mod seals;
#[cfg(test)]
mod tests;

pub use seals::{RETRY_WINDOW_MS, Seals, may_be_sealed};

/// A copy sealed in s is forgotten when s + 5 has begun, so that every member has cleared s + 4. When the last
/// owner seals, others may be in s + 1 and carry an older copy that they read a moment ago (tag s + 1). That may
/// become a hint, kept before anybody is in s + 3. The hint is gone when its keeper clears s + 3; until then it
/// may be read or sent, which ends before s + 4 is cleared. What an owner gets meanwhile its sealed copy absorbs.
pub const STEPS: u64 = 5;

/// The first epoch. 0 is what began in an earlier life of the process, and what nobody has cleared.
pub const FIRST: u64 = 1;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The registry document it goes by.
    pub number: u64,
    /// Its store.
    pub store: Actor,
    /// The epoch it is in.
    pub epoch: u64,
    /// Nothing that carries objects and began on it before this epoch is left. 0: it does not say.
    pub cleared: u64,
    /// The last epoch in which it may have kept a hint of what it had read from other hints: such a copy is older
    /// than the hint says.
    pub relayed: u64,
}

/// What is under way on this node, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The epoch in which the oldest read, write, repair, exchange or delivery that still goes on began.
    pub oldest: Option<u64>,
    /// Peers that may still act on what was sent to them, and the epoch of the oldest such message.
    pub unsettled: BTreeMap<NodeId, u64>,
    /// Whether hints are kept here.
    pub hints: bool,
    /// Whether owners change, or copies lie here that are others' now.
    pub moving: bool,
    /// Whether this node lost its data and is being filled.
    pub rebuilding: bool,
    /// Nodes that are no members and have a connection to this one.
    pub strangers: BTreeSet<NodeId>,
    /// The last epoch in which a hint was kept of what was read from others.
    pub relayed: u64,
}

/// What keeps the epoch from ending.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// This member has said nothing by the document in force.
    Silent(NodeId),
    /// This member has not cleared the epoch.
    Busy(NodeId),
    /// Something that began earlier still goes on here.
    UnderWay,
    /// This peer may still act on something that was sent to it earlier.
    Unsettled(NodeId),
    /// Hints are kept here.
    Hints,
    /// Owners change, or copies lie here that are others' now.
    Moving,
    /// This node is being filled.
    Rebuilding,
    /// A node that is no member has a connection to this one.
    Stranger(NodeId),
}

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A registry document is in force: its members and their stores.
    Layout {
        /// Its number.
        number: u64,
        /// Whom it names.
        members: &'a BTreeMap<NodeId, Option<Actor>>,
    },
    /// A member spoke.
    Heard {
        /// Who.
        from: &'a NodeId,
        /// What.
        word: Word,
    },
    /// What is under way here. Looked at after the last epoch was entered.
    Own(Own),
    /// An epoch is on disk.
    Kept(u64),
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put this epoch on disk, then say so. Only then it is entered, and said to anybody.
    Keep(u64),
}

/// One member's part.
#[derive(Clone, Debug)]
pub struct Machine {
    me: NodeId,
    store: Actor,
    epoch: u64,
    cleared: u64,
    /// Whether there was a moment without hints since the epoch was entered.
    hintless: bool,
    own: Own,
    number: u64,
    members: BTreeMap<NodeId, Option<Actor>>,
    words: BTreeMap<NodeId, Word>,
    /// What is being put on disk.
    keeping: Option<u64>,
    /// Hints of before the start are of unknown age: as if one had been kept of another at the start.
    relayed: u64,
}

impl Machine {
    /// A machine for this store, which was in this epoch when it was last heard of.
    pub fn new(me: NodeId, store: Actor, kept: Option<u64>) -> Self {
        let epoch = kept.unwrap_or(FIRST).max(FIRST);
        Self {
            me,
            store,
            epoch,
            cleared: 0,
            hintless: false,
            own: Own::default(),
            number: 0,
            members: BTreeMap::new(),
            words: BTreeMap::new(),
            keeping: None,
            relayed: epoch,
        }
    }

    /// The epoch this node is in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What this node says of itself.
    pub fn word(&self) -> Word {
        Word {
            number: self.number,
            store: self.store,
            epoch: self.epoch,
            cleared: self.cleared,
            relayed: self.relayed.max(self.own.relayed),
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        match event {
            Event::Layout { number, members } => self.go_by(number, members),
            Event::Heard { from, word } => self.hear(from, word),
            Event::Own(own) => {
                self.hintless |= !own.hints;
                self.own = own;
            }
            Event::Kept(epoch) => {
                self.keeping = None;
                if epoch > self.epoch {
                    (self.epoch, self.hintless) = (epoch, false);
                    if self.cleared == 0 {
                        self.relayed = epoch;
                    }
                    // What is under way has to be looked at again.
                    return Vec::new();
                }
            }
        }
        if self.is_in_step() && self.is_clear() {
            self.cleared = self.epoch;
        }
        self.next().into_iter().collect()
    }

    /// Words are about a layout: with another one they have to be said again.
    fn go_by(&mut self, number: u64, members: &BTreeMap<NodeId, Option<Actor>>) {
        if number > self.number {
            self.number = number;
            self.members.clone_from(members);
            self.words.clear();
        }
    }

    fn hear(&mut self, from: &NodeId, word: Word) {
        let named = self.members.get(from).copied().flatten();
        if *from == self.me || word.number != self.number || named != Some(word.store) {
            return;
        }
        let known = self.words.entry(from.clone()).or_insert(word);
        // An older word that comes late takes nothing back.
        known.epoch = known.epoch.max(word.epoch);
        known.cleared = known.cleared.max(word.cleared);
        known.relayed = known.relayed.max(word.relayed);
    }

    /// Whether every member was heard by the document in force, and this node is not behind any of them. Then
    /// nobody can go more than one epoch ahead without a word of this node.
    fn is_in_step(&self) -> bool {
        let named = self.members.get(&self.me).copied().flatten();
        named == Some(self.store)
            && self.silent().next().is_none()
            && self.words.values().all(|word| word.epoch <= self.epoch + 1)
            && (self.cleared > 0 || self.ahead().is_none())
    }

    /// The epoch of somebody who is further.
    fn ahead(&self) -> Option<u64> {
        let furthest = self.words.values().map(|word| word.epoch).max()?;
        (furthest > self.epoch).then_some(furthest)
    }

    fn silent(&self) -> impl Iterator<Item = &NodeId> {
        let others = self.members.keys().filter(|member| **member != self.me);
        others.filter(|member| !self.words.contains_key(*member))
    }

    /// Whether nothing is left here that began before the epoch.
    fn is_clear(&self) -> bool {
        self.own_holds().is_empty()
    }

    fn own_holds(&self) -> Vec<Hold> {
        let own = &self.own;
        let before = |tag: u64| tag < self.epoch;
        let holds = [
            (own.oldest.is_some_and(before), Hold::UnderWay),
            (!self.hintless, Hold::Hints),
            (own.moving, Hold::Moving),
            (own.rebuilding, Hold::Rebuilding),
        ];
        let holds = holds.into_iter().filter(|(held, _)| *held);
        let unsettled = own.unsettled.iter().filter(|(_, tag)| before(**tag));
        let strangers = own.strangers.iter().cloned().map(Hold::Stranger);
        holds
            .map(|(_, hold)| hold)
            .chain(unsettled.map(|(peer, _)| Hold::Unsettled(peer.clone())))
            .chain(strangers)
            .collect()
    }

    /// The next epoch to enter: that of whoever is further, or one more if all have cleared this one.
    fn next(&mut self) -> Option<Effect> {
        if self.keeping.is_some() || self.silent().next().is_some() {
            return None;
        }
        let all = self.cleared >= self.epoch
            && self.is_in_step()
            && self.words.values().all(|word| word.cleared >= self.epoch);
        let next = self.ahead().or(all.then_some(self.epoch + 1))?;
        self.keeping = Some(next);
        Some(Effect::Keep(next))
    }

    /// What keeps the epoch from ending, as far as this node knows.
    pub fn holds(&self) -> Vec<Hold> {
        let busy = self.words.iter();
        let busy = busy.filter(|(_, word)| word.cleared < self.epoch);
        let busy = busy.map(|(member, _)| Hold::Busy(member.clone()));
        let silent = self.silent().cloned().map(Hold::Silent);
        silent.chain(busy).chain(self.own_holds()).collect()
    }

    /// Whether copies may be sealed now.
    pub fn may_seal(&self) -> bool {
        self.is_in_step() && !self.own.moving && !self.own.rebuilding
    }

    /// Whether what all owners had sealed by this epoch may be forgotten.
    pub fn is_ripe(&self, sealed: u64) -> bool {
        self.may_seal() && self.epoch >= self.seals_from(sealed).saturating_add(STEPS)
    }

    /// The last epoch whose seals are old enough; `None` if none is.
    pub fn ripe_until(&self) -> Option<u64> {
        let last = self.epoch.checked_sub(STEPS)?;
        self.is_ripe(last).then_some(last)
    }

    /// The epoch that counts as the one of a seal: whoever kept a hint of a hint since keeps older copies alive.
    fn seals_from(&self, sealed: u64) -> u64 {
        let relayed = self.words.values().map(|word| word.relayed);
        let own = self.word().relayed;
        relayed.chain([own, sealed]).max().unwrap_or(sealed)
    }
}
