//! Owners that change, as `tasks/anti_entropy/{transfer,leftover}.rs` follow them.
//!
//! Who owns what is each node's own opinion, by the registry document that it holds. A new owner compares its
//! copies with the owners of before and says when it has all; one node ends the change when enough know of it;
//! whoever owns a key no more gives it to its owners once more and forgets it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sibyl_core::id::{NodeId, Partition};
use sibyl_core::message::Request;
use sibyl_core::refill::Need;
use sibyl_core::registry::{
    Change, Document, Event as Told, Joiner, OwnerChange, Owners, Partitions,
};

use super::command::Command;
use super::frames::Waiting;
use super::{Bytes, Event, World};
use crate::plan::{PATIENCE_US, What};
use crate::sight::Sight;
use crate::zoo::Bug;

/// How often a node looks at its part of a change of owners.
const LOOK_US: u64 = 50_000;

/// A node's part of the change of owners under way.
#[derive(Default)]
pub(crate) struct Transfer {
    began: u64,
    number: u64,
    needs: BTreeMap<Partition, Vec<Need>>,
    done: BTreeMap<Partition, BTreeMap<NodeId, bool>>,
    /// With whom keys that are not this node's any more were compared, by which owners.
    given: BTreeMap<Partition, BTreeSet<NodeId>>,
    since: u64,
    looking: bool,
    looks: usize,
}

impl World {
    fn placed(&self, node: usize) -> &Owners {
        let process = self.nodes[node].process.as_ref();
        &process.expect("only a running node acts").placed
    }

    /// The owners that count, as a node knows them.
    pub(crate) fn counting(&self, node: usize, key: usize) -> Vec<NodeId> {
        let slot = &self.keys[key].slot;
        self.placed(node).counting(slot.partition, slot.n).to_vec()
    }

    /// The owners by the other layout, while a key changes hands.
    pub(crate) fn also(&self, node: usize, key: usize) -> Vec<NodeId> {
        if self.bug == Some(Bug::OneLayout) {
            return Vec::new();
        }
        let slot = &self.keys[key].slot;
        self.placed(node).also(slot.partition, slot.n).to_vec()
    }

    pub(crate) fn fallbacks(&self, node: usize, key: usize) -> Vec<NodeId> {
        let slot = &self.keys[key].slot;
        let fallbacks = self.placed(node).fallbacks(slot.partition, slot.n);
        fallbacks.cloned().collect()
    }

    /// Whether a node holds a copy of a key, as another (or itself) knows it.
    pub(crate) fn holds(&self, by: usize, node: &NodeId, key: usize) -> bool {
        let slot = &self.keys[key].slot;
        self.placed(by).holds(node, slot.partition, slot.n)
    }

    /// Whether a node holds a copy of a key, as it knows it.
    pub(crate) fn is_holder(&self, node: usize, key: usize) -> bool {
        self.holds(node, &self.nodes[node].id, key)
    }

    /// Who is to hold a copy of a key and can.
    pub(crate) fn takers(&self, node: usize, key: usize) -> Vec<NodeId> {
        let slot = &self.keys[key].slot;
        let mut takers = self.placed(node).holders(slot.partition, slot.n);
        let process = self.nodes[node].process.as_ref();
        let held = &process.expect("only a running node acts").held;
        takers.retain(|node| held.document.layout.members.contains_key(node));
        takers
    }

    /// The running node with the newest document.
    fn newest(&self) -> Option<usize> {
        let running = (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some());
        running.max_by_key(|node| self.nodes[*node].number)
    }

    /// The owners of a key by the newest document that is in force anywhere.
    pub(crate) fn owners_now(&self, key: usize) -> Vec<usize> {
        let Some(newest) = self.newest() else {
            return Vec::new();
        };
        let owners = self.counting(newest, key);
        owners.iter().map(|owner| self.index(owner)).collect()
    }

    /// Whether a node is a member by its own document.
    pub(crate) fn is_member(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| {
            let members = &process.held.document.layout.members;
            members.contains_key(&self.nodes[node].id)
        })
    }

    /// Whether a node has all of a key, as far as owners change.
    pub(crate) fn has_all(&self, node: usize, key: usize) -> bool {
        let this = &self.nodes[node];
        let process = this.process.as_ref().expect("only a running node acts");
        let change = process.held.document.layout.change.as_ref();
        let missing = change.and_then(|change| change.missing.get(&this.id));
        !missing.is_some_and(|missing| missing.contains(self.keys[key].slot.partition))
    }

    /// The registry document that a node's owners are of changed.
    pub(crate) fn follow_owners(&mut self, node: usize) {
        let id = self.nodes[node].id.clone();
        let process = self.process(node);
        let document = Rc::clone(&process.held);
        let layout = &document.document.layout;
        if layout.since > process.since {
            let placed = document.document.owners();
            let before = std::mem::replace(&mut process.placed, placed);
            process.since = layout.since;
            process.part.owners_changed();
            let line = process.counter - 1;
            let mut gained = Vec::new();
            for key in 0..self.keys.len() {
                let slot = &self.keys[key].slot;
                let held = before.holds(&id, slot.partition, slot.n);
                if !held && self.is_holder(node, key) {
                    self.process(node).lines.insert(key, line);
                    gained.push(key);
                }
            }
            self.gained(node, &gained);
            for (key, hint) in self.hints(node) {
                let takers = self.takers(node, key);
                let gone = hint.targets.into_keys();
                for target in gone.filter(|target| !takers.contains(target)) {
                    self.submit(node, Command::Reroute { key, target });
                }
            }
            if layout
                .change
                .as_ref()
                .is_some_and(|change| change.began < layout.since)
            {
                self.sights.met(Sight::Switched);
            }
        }
        self.look_at_owners(node);
    }

    /// Time to look again.
    pub(crate) fn look_again(&mut self, node: usize) {
        let transfer = &mut self.process(node).transfer;
        transfer.looking = false;
        transfer.looks += 1;
        // As gossip would: whoever answers tells how far the registry is.
        let peer = transfer.looks % self.nodes.len();
        if peer != node {
            self.hear_number(node, peer);
        }
        let process = self.process(node);
        let number = process.numbers[peer];
        if number > process.held.document.number {
            // What was fetched once may have been lost.
            let from = self.nodes[peer].id.clone();
            self.tell_registry(node, Told::Seen { from, number });
        }
        if self.process(node).registry.machine.pending() == 0 {
            self.name_store(node);
        }
        self.look_at_owners(node);
    }

    /// What a node has to do for the change of owners under way, or after one.
    pub(crate) fn look_at_owners(&mut self, node: usize) {
        if self.process(node).held.document.number < 2 || !self.is_member(node) {
            return;
        }
        let held = Rc::clone(&self.process(node).held);
        let busy = match &held.document.layout.change {
            Some(change) => {
                self.process(node).transfer.given.clear();
                self.take_needs(node, change);
                if let Some(wish) = self
                    .filled(node, change)
                    .or_else(|| self.retires(node, change))
                {
                    self.wish_owners(node, wish);
                }
                true
            }
            None => self.look_at_leftover(node),
        };
        let process = self.process(node);
        if busy && !process.transfer.looking {
            process.transfer.looking = true;
            let life = process.life;
            self.scheduler.after(LOOK_US, Event::Look { node, life });
        }
    }

    fn hear_number(&mut self, node: usize, peer: usize) {
        let (request, waiting) = (Request::Collect, Waiting::Collect);
        let _sent = self.ask(node, peer, request, Bytes::new(), PATIENCE_US, waiting);
    }

    fn wish_owners(&mut self, node: usize, change: Change) {
        let registry = &mut self.process(node).registry;
        if registry.machine.pending() == 0 {
            let id = registry.fresh();
            self.tell_registry(node, Told::Propose { id, change });
        }
    }

    fn take_needs(&mut self, node: usize, change: &OwnerChange) {
        let used: BTreeSet<Partition> = self.keys.iter().map(|key| key.slot.partition).collect();
        let (id, process) = (self.nodes[node].id.clone(), self.process(node));
        let document = &process.held.document;
        if process.transfer.number != document.number {
            process.transfer.number = document.number;
            process.transfer.needs = document.fill_needs(&id);
        }
        if process.transfer.began != change.began {
            process.transfer.began = change.began;
            process.transfer.done.clear();
        }
        let Transfer { needs, done, .. } = &process.transfer;
        let needs = needs.iter().filter(|(at, _)| used.contains(at));
        let asked = needs.flat_map(|(at, needs)| {
            let others = needs.iter().flat_map(|need| &need.others);
            others.filter(|other| !done.get(at).is_some_and(|done| done.contains_key(*other)))
        });
        let asked: BTreeSet<NodeId> = asked.cloned().collect();
        for other in asked {
            let peer = self.index(&other);
            self.compare(node, peer);
        }
    }

    /// A partition was compared with a peer, wholly, by the document in force when that began.
    pub(crate) fn note_fetched(
        &mut self,
        node: usize,
        partition: Partition,
        (peer, number, counts): (usize, u64, bool),
    ) {
        let peer = self.nodes[peer].id.clone();
        let transfer = &mut self.process(node).transfer;
        if number >= transfer.since {
            transfer
                .given
                .entry(partition)
                .or_default()
                .insert(peer.clone());
        }
        if number >= transfer.began && transfer.needs.contains_key(&partition) {
            let counted = transfer
                .done
                .entry(partition)
                .or_default()
                .entry(peer)
                .or_default();
            *counted = *counted || counts;
        }
    }

    fn filled(&self, node: usize, change: &OwnerChange) -> Option<Change> {
        let process = self.nodes[node].process.as_ref()?;
        let nobody = BTreeMap::new();
        let Transfer { needs, done, .. } = &process.transfer;
        let is_filled = |(at, needs): &(&Partition, &Vec<Need>)| {
            // Nothing will ever lie there.
            if self.keys.iter().all(|key| key.slot.partition != **at) {
                return true;
            }
            let heard = done.get(at).unwrap_or(&nobody);
            if self.bug == Some(Bug::SwitchUnfilled) {
                return true;
            }
            let one = self.bug == Some(Bug::SwitchAfterOne) && heard.values().any(|counts| *counts);
            let met =
                |need: &Need| need.is_met(heard, |other| process.reachable[self.index(other)]);
            one || needs.iter().all(met)
        };
        let filled: Partitions = needs.iter().filter(is_filled).map(|(at, _)| *at).collect();
        (!filled.is_empty()).then(|| Change::Filled {
            began: change.began,
            node: self.nodes[node].id.clone(),
            store: process.store,
            partitions: filled,
        })
    }

    fn retires(&mut self, node: usize, change: &OwnerChange) -> Option<Change> {
        if !change.missing.is_empty() {
            return None;
        }
        let held = Rc::clone(&self.process(node).held);
        let members = &held.document.layout.members;
        let reachable = |world: &Self, at: &NodeId| {
            let at = world.index(at);
            let process = world.nodes[node].process.as_ref();
            at == node || process.is_some_and(|process| process.reachable[at])
        };
        let here: Vec<_> = members
            .iter()
            .filter(|(at, _)| reachable(self, at))
            .collect();
        let leaver = here.iter().find(|(_, member)| member.leaving);
        let (proposer, member) = leaver.or_else(|| here.first())?;
        let keeps = member.leaving && self.plan.setting.handoff && !self.hints(node).is_empty();
        if **proposer != self.nodes[node].id || keeps {
            return None;
        }
        let mine = held.document.number;
        let behind = here.iter().map(|(at, _)| self.index(at));
        let behind: Vec<usize> = behind
            .filter(|at| {
                *at != node
                    && self.nodes[node]
                        .process
                        .as_ref()
                        .is_some_and(|process| process.numbers[*at] < mine)
            })
            .collect();
        for peer in behind {
            // Its answer says how far it is.
            self.hear_number(node, peer);
        }
        let process = self.nodes[node].process.as_ref()?;
        let number_of = |at: &NodeId| match self.index(at) {
            at if at == node => mine,
            // As its handshake tells: who lost its store must have the new one named first, while enough vote.
            other if !self.is_named_store(&held.document, other) => 0,
            other => process.numbers[other],
        };
        let ready = held
            .document
            .may_retire(number_of, |at| reachable(self, at));
        ready.then_some(Change::Retire {
            began: change.began,
        })
    }

    fn is_named_store(&self, document: &Document, node: usize) -> bool {
        let member = document.layout.members.get(&self.nodes[node].id);
        member.and_then(|member| member.store) == Some(self.nodes[node].disk.actor)
    }

    /// Gives away what is not this node's any more; answers whether there is something left.
    fn look_at_leftover(&mut self, node: usize) -> bool {
        let process = self.process(node);
        let since = process.since;
        if process.transfer.since != since {
            process.transfer.since = since;
            process.transfer.given.clear();
        }
        let mut left = false;
        for key in 0..self.keys.len() {
            let here = self.nodes[node]
                .disk
                .encoded(&self.keys[key].record)
                .is_some();
            if !here || self.is_holder(node, key) {
                continue;
            }
            left = true;
            let (partition, owners) = (self.keys[key].slot.partition, self.counting(node, key));
            let given = self.process(node).transfer.given.get(&partition).cloned();
            let given = given.unwrap_or_default();
            let reachable = &self.nodes[node]
                .process
                .as_ref()
                .expect("it acts")
                .reachable;
            let have = owners.iter().filter(|owner| given.contains(*owner)).count();
            let mut here = owners.iter().filter(|owner| reachable[self.index(owner)]);
            let forgets = have >= self.plan.setting.w.min(owners.len())
                && here.all(|owner| given.contains(owner));
            if forgets {
                self.submit(node, Command::Forget { key, number: since });
                continue;
            }
            let rest: Vec<usize> = owners
                .iter()
                .filter(|owner| !given.contains(*owner))
                .map(|owner| self.index(owner))
                .collect();
            rest.into_iter().for_each(|peer| self.compare(node, peer));
        }
        left
    }

    /// Whoever failed for good and was not removed is put right by its operator, with an empty disk.
    pub(crate) fn mend_members(&mut self) {
        let Some(newest) = self.newest() else { return };
        let held = Rc::clone(&self.process(newest).held);
        for node in 0..self.nodes.len() {
            let is_member = held
                .document
                .layout
                .members
                .contains_key(&self.nodes[node].id);
            let this = &mut self.nodes[node];
            if is_member && this.gone {
                this.disk.rebuilding = true;
                this.gone = false;
                self.start(node);
            }
        }
    }

    /// An operator's wish about members, asked of a node.
    pub(crate) fn change_members(&mut self, what: What) {
        let (What::Leave { node, who } | What::Join { node, who } | What::Remove { node, who }) =
            what
        else {
            return;
        };
        if node == who || self.nodes[node].process.is_none() || !self.is_member(node) {
            return;
        }
        let id = self.nodes[who].id.clone();
        let held = Rc::clone(&self.process(node).held);
        if held.document.number < 2 {
            return;
        }
        let members = &held.document.layout.members;
        let change = match (what, members.contains_key(&id)) {
            (What::Leave { .. }, true) => Change::Leave { node: id },
            (What::Remove { .. }, true) => {
                // It failed for good, and nothing that was promised hangs on its disk.
                if !self.lose(who) {
                    return self.sights.met(Sight::WipeSpared);
                }
                self.nodes[who].gone = true;
                Change::Remove {
                    node: id,
                    store: None,
                }
            }
            (What::Join { .. }, false) => {
                // A store that was sent away is begun anew; one that asked before asks again.
                let former = held
                    .document
                    .layout
                    .former
                    .contains_key(&self.nodes[who].disk.actor);
                if former && !self.lose(who) {
                    return self.sights.met(Sight::WipeSpared);
                }
                self.nodes[who].gone = false;
                self.start(who);
                Change::Join(Joiner {
                    node: id,
                    store: self.nodes[who].disk.actor,
                    peer_addr: "127.0.0.1:7171".to_owned(),
                    zone: None,
                    tokens: 4,
                })
            }
            _ => return,
        };
        let id = self.process(node).registry.fresh();
        self.tell_registry(node, Told::Propose { id, change });
    }

    /// Which key a place is.
    pub(crate) fn key(&self, place: &super::Place) -> Option<usize> {
        self.keys.iter().position(|key| key.place == *place)
    }

    /// The owners as a node would ask them: itself first if it may, then those it can reach.
    pub(crate) fn best_first(&self, node: usize, key: usize) -> Vec<NodeId> {
        let process = self.nodes[node]
            .process
            .as_ref()
            .expect("only a running node acts");
        let rank = |owner: &NodeId| match self.index(owner) {
            owner if owner == node => 0,
            owner if process.reachable[owner] => 1,
            _ => 2,
        };
        let mut owners = self.counting(node, key);
        owners.sort_by_key(rank);
        owners
    }
}
