//! A write, as its coordinator sees it: mint, send to all n at once, hint for who cannot, answer at W.
//!
//! A primary that is away, fails or stays silent is stood in for by the next fallback of the preference
//! list, which keeps the write as a hint. What is counted are *slots*, one per primary: a slot counts if its
//! primary or its stand-in has the write, and never twice, because a stand-in forgets its copy once the
//! primary has one. A coordinator that is itself a fallback keeps a hint for every primary; it forgets only
//! when all n have the write, so its copy counts beside the slots. Strict is the same without fallbacks.
//! While a partition changes hands there are two sets of primaries, and a write needs W of each (`registry:
//! owners`); a primary of both, or a stand-in for it, counts in both.
//! Once minted a write may become visible, so from then on a missing quorum is `unknown`. Late answers are
//! taken in, and late hints are kept, after the client has its own answer.

use std::collections::{BTreeSet, VecDeque};

use super::Replicas;
use crate::id::NodeId;
use crate::quorum::Standing;

#[cfg(test)]
mod tests;

/// What happened to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The coordinator's own copy holds the write; it may not be on disk yet.
    Minted,
    /// A copy counts: it is on disk, or handed to the operating system in a `buffered` bucket.
    Acked(&'a NodeId),
    /// A primary answered that it could not, or cannot be reached.
    Failed(&'a NodeId),
    /// A fallback's hint for this primary counts.
    Kept {
        /// Who keeps it.
        by: &'a NodeId,
        /// For whom.
        target: &'a NodeId,
    },
    /// A fallback does not keep it.
    Refused {
        /// Who was asked.
        by: &'a NodeId,
        /// For whom.
        target: &'a NodeId,
    },
    /// The time after which a silent primary is stood in for has passed.
    Patience,
    /// The client's time is up.
    Deadline,
}

/// What to do for a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the shipment to this primary.
    Replicate(NodeId),
    /// Have this fallback keep the shipment for a primary.
    Hint {
        /// The fallback.
        to: NodeId,
        /// The primary.
        target: NodeId,
    },
    /// Tell the client.
    Answer(Outcome),
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// W copies count.
    Written {
        /// How many owners have it by now.
        owners: usize,
        /// How many that stand in for another owner.
        fallbacks: usize,
    },
    /// Fewer than W copies count, and no more can; the write may still become visible.
    Unknown {
        /// How many owners have it.
        owners: usize,
        /// How many that stand in for another owner.
        fallbacks: usize,
        /// How many owners said they could not.
        failed: usize,
    },
}

/// A write under way.
#[derive(Clone, Debug)]
pub struct Put {
    me: NodeId,
    /// How many copies must count among the owners, and among those of the other layout.
    needs: [usize; LAYOUTS],
    slots: Vec<Slot>,
    /// Fallbacks that were not asked yet.
    spare: VecDeque<NodeId>,
    /// Fallbacks that were asked and have not refused.
    asked: Vec<NodeId>,
    /// Questions to fallbacks without an answer.
    hints: BTreeSet<(NodeId, NodeId)>,
    /// The coordinator's own copy, if it stands in.
    own: Option<Copy>,
    answered: bool,
}

/// While owners change there are two layouts; else nothing is needed of the second.
const LAYOUTS: usize = 2;

/// One primary, and who stands in for it.
#[derive(Clone, Debug)]
struct Slot {
    owner: NodeId,
    /// By which layouts it is an owner.
    owns: [bool; LAYOUTS],
    copy: Copy,
    away: bool,
    stand_in: Option<(NodeId, Copy)>,
    /// A fallback that stands in for another primary was asked to keep a hint for this one too.
    seconded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    Pending,
    Counts,
    Failed,
}

impl Slot {
    fn any(&self, is: impl Fn(Copy) -> bool) -> bool {
        is(self.copy) || self.stand_in.as_ref().is_some_and(|(_, copy)| is(*copy))
    }
}

impl Put {
    /// A write to these replicas, to be answered when `w` copies count.
    ///
    /// # Panics
    /// If the coordinator owns nothing and nobody may stand in for another: then it may not mint.
    pub fn new(me: NodeId, replicas: Replicas<'_>, w: usize, sloppy: bool) -> Self {
        let owns = replicas.owners.contains(&me);
        assert!(owns || sloppy, "a strict write is minted by an owner");
        let slot = |owner: &NodeId| Slot {
            owner: owner.clone(),
            owns: [true, false],
            copy: Copy::Pending,
            away: replicas.away.contains(owner),
            stand_in: None,
            seconded: false,
        };
        let others = replicas.fallbacks.iter().filter(|node| **node != me);
        Self {
            needs: [w, 0],
            slots: replicas.owners.iter().map(slot).collect(),
            spare: others.filter(|_| sloppy).cloned().collect(),
            asked: Vec::new(),
            hints: BTreeSet::new(),
            own: (!owns).then_some(Copy::Pending),
            answered: false,
            me,
        }
    }

    /// A minted write begun again because owners changed on the way: its coordinator may be none of them any more,
    /// and its copy counts only if it is. Whoever has the answer gets no other.
    pub fn again(&self, replicas: Replicas<'_>, w: usize, sloppy: bool) -> Self {
        let mut again = Self::new(self.me.clone(), replicas, w, true);
        again.own = None;
        again.spare.retain(|_| sloppy);
        again.answered = self.answered;
        again
    }

    /// The partition changes hands: the write goes to these owners of the other layout, too, and needs `w` of them.
    /// None of them may be among the fallbacks.
    pub fn also(mut self, owners: &[NodeId], away: &[NodeId], w: usize) -> Self {
        for owner in owners {
            match self.slots.iter_mut().find(|slot| slot.owner == *owner) {
                Some(slot) => slot.owns[1] = true,
                None => self.slots.push(Slot {
                    owner: owner.clone(),
                    owns: [false, true],
                    copy: Copy::Pending,
                    away: away.contains(owner),
                    stand_in: None,
                    seconded: false,
                }),
            }
        }
        self.needs[1] = w;
        self
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Minted => effects.extend(self.send()),
            Event::Acked(node) => self.mark(node, Copy::Counts),
            Event::Failed(node) => {
                self.mark(node, Copy::Failed);
                effects.extend(self.stand_in(|slot| slot.copy == Copy::Failed));
            }
            Event::Kept { by, target } => self.mark_stand_in(by, target, Copy::Counts),
            Event::Refused { by, target } => {
                self.asked.retain(|node| node != by);
                self.mark_stand_in(by, target, Copy::Failed);
                effects.extend(self.stand_in(|slot| slot.owner == *target));
            }
            Event::Patience => effects.extend(self.stand_in(|_| true)),
            Event::Deadline => effects.extend(self.answer(self.unknown())),
        }
        match self.standing() {
            Standing::Met => effects.extend(self.answer(Outcome::Written {
                owners: self.owners(),
                fallbacks: self.fallbacks(),
            })),
            Standing::Lost => effects.extend(self.answer(self.unknown())),
            Standing::Pending => {}
        }
        effects
    }

    /// Whether everybody who was asked has answered.
    pub fn is_done(&self) -> bool {
        let spoke = |slot: &Slot| slot.copy != Copy::Pending;
        self.own != Some(Copy::Pending) && self.slots.iter().all(spoke) && self.hints.is_empty()
    }

    /// Whether the client has its answer: what comes now comes late.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// How many owners said that they could not.
    pub fn failures(&self) -> usize {
        let failed = |slot: &&Slot| slot.copy == Copy::Failed;
        self.slots.iter().filter(failed).count()
    }

    /// To all primaries at once, and to a fallback for each that is away.
    fn send(&mut self) -> Vec<Effect> {
        let others = self.slots.iter().filter(|slot| slot.owner != self.me);
        let mut effects: Vec<Effect> = others
            .map(|slot| Effect::Replicate(slot.owner.clone()))
            .collect();
        effects.extend(self.stand_in(|slot| slot.away));
        effects
    }

    /// Asks a fallback for each slot that wants one, has no copy and no stand-in. A fallback stands in for one
    /// primary; only when all are taken does one that was asked keep the hint for a second: that spares the
    /// primary a repair and counts for nobody.
    fn stand_in(&mut self, wants: impl Fn(&Slot) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let stood_in = slot.any(|copy| copy == Copy::Counts)
                || slot
                    .stand_in
                    .as_ref()
                    .is_some_and(|(_, copy)| *copy != Copy::Failed);
            if stood_in || !wants(slot) {
                continue;
            }
            let target = slot.owner.clone();
            let to = match self.spare.pop_front() {
                Some(spare) => {
                    self.asked.push(spare.clone());
                    self.slots[at].stand_in = Some((spare.clone(), Copy::Pending));
                    spare
                }
                None => match self.asked.first() {
                    Some(second) if !slot.seconded => {
                        let second = second.clone();
                        self.slots[at].seconded = true;
                        second
                    }
                    _ => continue,
                },
            };
            self.hints.insert((to.clone(), target.clone()));
            effects.push(Effect::Hint { to, target });
        }
        effects
    }

    fn mark(&mut self, node: &NodeId, copy: Copy) {
        if *node == self.me
            && let Some(own) = &mut self.own
        {
            return change(own, copy);
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.owner == *node) {
            change(&mut slot.copy, copy);
        }
    }

    fn mark_stand_in(&mut self, by: &NodeId, target: &NodeId, copy: Copy) {
        self.hints.remove(&(by.clone(), target.clone()));
        let slot = self.slots.iter_mut().find(|slot| slot.owner == *target);
        if let Some((stand_in, held)) = slot.and_then(|slot| slot.stand_in.as_mut())
            && stand_in == by
        {
            change(held, copy);
        }
    }

    fn owners(&self) -> usize {
        let counts = |slot: &&Slot| slot.copy == Copy::Counts;
        self.slots.iter().filter(counts).count()
    }

    /// Copies beside the owners': of stand-ins whose primary has none, and the coordinator's own.
    fn fallbacks(&self) -> usize {
        let stood_in =
            |slot: &&Slot| slot.copy != Copy::Counts && slot.any(|copy| copy == Copy::Counts);
        self.slots.iter().filter(stood_in).count() + usize::from(self.own == Some(Copy::Counts))
    }

    /// The least standing by any layout.
    fn standing(&self) -> Standing {
        let met = |layout| self.copies(layout, |copy| copy == Copy::Counts) >= self.needs[layout];
        let hopes = |layout| self.copies(layout, |copy| copy != Copy::Failed) >= self.needs[layout];
        if (0..LAYOUTS).all(met) {
            Standing::Met
        } else if (0..LAYOUTS).all(hopes) {
            Standing::Pending
        } else {
            Standing::Lost
        }
    }

    /// How many slots of a layout have such a copy, and the coordinator's own if it stands in.
    fn copies(&self, layout: usize, is: impl Fn(Copy) -> bool) -> usize {
        let has = |slot: &&Slot| slot.owns[layout] && slot.any(&is);
        self.slots.iter().filter(has).count() + usize::from(self.own.is_some_and(&is))
    }

    fn unknown(&self) -> Outcome {
        Outcome::Unknown {
            owners: self.owners(),
            fallbacks: self.fallbacks(),
            failed: self.failures(),
        }
    }

    fn answer(&mut self, outcome: Outcome) -> Option<Effect> {
        let first = !std::mem::replace(&mut self.answered, true);
        first.then_some(Effect::Answer(outcome))
    }
}

/// A copy that counts stays; one that was given up may count after all.
fn change(copy: &mut Copy, to: Copy) {
    if *copy != Copy::Counts {
        *copy = to;
    }
}
