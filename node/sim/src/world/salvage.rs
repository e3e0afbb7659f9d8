//! What a removed node brings, as `answers/salvage.rs` and `replica/salvage.rs` take it.
//!
//! Judged by the document in force; each object is held against the own copy and horizon in the writer's step that
//! joins. What was new goes to the other owners as hints, from the own copy. Whatever cannot be said now is "later".

use sibyl_core::codec;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::object::Object;
use sibyl_core::salvage::{self, Answer, Ask, Batch, Verdict};

use super::command::{Command, Counts, Group, Then};
use super::{Bytes, World};
use crate::disk::Fenced;
use crate::sight::Sight;
use crate::zoo::Bug;

/// A batch in hand.
pub(crate) struct Taking {
    from: usize,
    call: u64,
    verdicts: Vec<Verdict>,
    left: usize,
}

/// An object that a removed node brings.
pub(crate) struct Brought {
    pub(super) key: usize,
    pub(super) number: u64,
    pub(super) object: Object,
    epoch: u64,
    /// The batch it is of, and where in that.
    pub(super) of: (u64, usize),
}

/// What became of one.
pub(super) struct Admitted {
    key: usize,
    of: (u64, usize),
    verdict: Verdict,
}

impl World {
    /// A removed node asks.
    pub(crate) fn asked_to_take(
        &mut self,
        node: usize,
        (from, store): (usize, sibyl_core::id::Actor),
        call: u64,
        ask: Ask,
    ) {
        let later = |why: &str| Answer::Later(why.into());
        if !self.is_member(node) || self.process(node).held.document.number < 2 {
            return self.tell_giver(node, from, call, later("it is no member"));
        }
        if !self.sends_away(node, store) {
            return self.tell_giver(node, from, call, later("that store was not removed"));
        }
        match ask {
            Ask::Owners(partition) => {
                let owners = self.staying(node, partition);
                let owners = owners.iter().map(ToString::to_string).collect();
                self.tell_giver(node, from, call, Answer::Owners(owners));
            }
            Ask::Take(batch) => self.take_batch(node, (from, call), batch),
        }
    }

    /// Who owns a partition whatever becomes of the change of owners under way.
    fn staying(&self, node: usize, partition: Partition) -> Vec<NodeId> {
        let process = self.nodes[node].process.as_ref();
        let placed = &process.expect("only a running node acts").placed;
        let n = self.keys[0].slot.n;
        let also = placed.also(partition, n);
        let mut owners = placed.counting(partition, n).to_vec();
        owners.retain(|owner| also.is_empty() || also.contains(owner));
        owners
    }

    fn take_batch(&mut self, node: usize, (from, call): (usize, u64), batch: Batch) {
        let process = self.process(node);
        let (id, number) = (process.fresh(), process.held.document.number);
        let taking = Taking {
            from,
            call,
            verdicts: vec![Verdict::NotMine; batch.objects.len()],
            left: batch.objects.len(),
        };
        process.taking.insert(id, taking);
        let me = self.nodes[node].id.clone();
        for (at, (place, object)) in batch.objects.into_iter().enumerate() {
            let Some(key) = self.key(&place) else {
                self.judged(node, (id, at), Verdict::Gone);
                continue;
            };
            let object = codec::decode(&object).expect("what was encoded here can be decoded");
            if !self
                .staying(node, self.keys[key].slot.partition)
                .contains(&me)
            {
                self.judged(node, (id, at), Verdict::NotMine);
            } else if !self.vouches(node, key) || self.lacks_room(node, &object) {
                return self.give_up_taking(node, id);
            } else {
                let brought = Brought {
                    key,
                    number,
                    object,
                    epoch: batch.epoch,
                    of: (id, at),
                };
                self.submit(node, Command::Admit(Box::new(brought)));
            }
        }
    }

    /// The writer's step: looks and joins.
    pub(super) fn admit_in(&mut self, node: usize, brought: Brought, group: &mut Group) {
        let Brought {
            key,
            object,
            epoch,
            of,
            ..
        } = brought;
        let mut held = match self.load(node, key, group) {
            Ok(held) => held,
            Err(Fenced) => return self.give_up_taking(node, of.0),
        };
        let horizon = self.horizon(node, self.keys[key].slot.partition, group);
        // A store that began later does not know what was reaped before.
        let late = self.nodes[node].stores > 0;
        let horizon = (horizon > 0 || !late).then_some(horizon);
        let unjudged = self.bug == Some(Bug::SalvageUnjudged);
        let remembers = unjudged || salvage::remembers(horizon, epoch);
        let before = self.copy_of(key, &held);
        let verdict = salvage::decide(&mut held, &object, remembers);
        self.note(&[26, node as u64, key as u64], || {
            format!("n{node}, horizon {horizon:?}, is brought k{key} of epoch {epoch}: {verdict:?}")
        });
        if verdict == Verdict::Imported {
            self.sights.met(Sight::SalvageImported);
            self.watch(node, key, before, &held);
            group.change(key, held);
        }
        let admitted = Admitted { key, of, verdict };
        group.counts.push(Counts::Admitted(admitted));
    }

    /// It is on disk: what was new is kept for the other owners.
    pub(super) fn admitted(&mut self, node: usize, admitted: Admitted) {
        let Admitted { key, of, verdict } = admitted;
        if verdict != Verdict::Imported {
            return self.judged(node, of, verdict);
        }
        let object = self.nodes[node].disk.object(&self.keys[key].record);
        let me = self.nodes[node].id.clone();
        let number = self.process(node).held.document.number;
        for target in self.takers(node, key) {
            if target != me {
                let object = Box::new(object.clone());
                self.submit(
                    node,
                    Command::Hint {
                        key,
                        number,
                        object,
                        target,
                        asked: None,
                    },
                );
            }
        }
        let then = Then::Judged { of, verdict };
        self.submit(node, Command::After { then });
    }

    /// What became of an object is known; of all of them, it is said.
    pub(super) fn judged(&mut self, node: usize, (id, at): (u64, usize), verdict: Verdict) {
        let Some(taking) = self.process(node).taking.get_mut(&id) else {
            return;
        };
        taking.verdicts[at] = verdict;
        taking.left -= 1;
        if taking.left > 0 {
            return;
        }
        if let Some(taking) = self.process(node).taking.remove(&id) {
            let answer = Answer::Took(taking.verdicts);
            self.tell_giver(node, taking.from, taking.call, answer);
        }
    }

    /// Something of a batch cannot be said now.
    pub(super) fn give_up_taking(&mut self, node: usize, id: u64) {
        if let Some(taking) = self.process(node).taking.remove(&id) {
            let answer = Answer::Later("not now".into());
            self.tell_giver(node, taking.from, taking.call, answer);
        }
    }

    /// Until when something of a partition was forgotten by a node, or was before it came there.
    pub(super) fn horizon(&self, node: usize, partition: Partition, group: &Group) -> u64 {
        let disk = &self.nodes[node].disk;
        let pending = group.horizons.get(&partition).copied();
        let horizon = pending.unwrap_or_else(|| disk.horizon(partition));
        horizon.max(disk.floor)
    }

    /// What was reaped of partitions before a node became their owner it did not see.
    pub(super) fn gained(&mut self, node: usize, keys: &[usize]) {
        if !self.plan.setting.reaps || keys.is_empty() {
            return;
        }
        let partitions = keys.iter().map(|key| self.keys[*key].slot.partition);
        let partitions = partitions.collect();
        self.submit(node, Command::Gained { partitions });
    }
}

/// The bytes of a question, for the trace.
pub(crate) fn body_of(ask: &Ask) -> Bytes {
    ask.encode().1
}
