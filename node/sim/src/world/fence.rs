//! Members that are removed and keep their store, as `node/fenced.rs` and the doors of peers treat them.
//!
//! Whoever goes by the document that removed a store takes nothing from it and answers that it was removed. The word
//! of one is enough for it: nothing is destroyed by believing it. Its process ends, notes what it knows beside its
//! store, and from then on gives away what it holds (`giving`). What of it no other owner has was promised by nobody
//! else: quorums need not meet there, but it must come back or be set aside.

use std::collections::BTreeSet;

use sibyl_core::id::{Actor, Partition};
use sibyl_core::registry::{Change, Document, Farewell};

use super::{Event, World};
use crate::draw::Draw;
use crate::oracle::Writes;
use crate::plan::What;
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 15;
/// The longest until a node that found out has started again.
const RESTART_US: u64 = 60_000;

/// What a removed node notes beside its store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// Partitions of which everything was given.
    pub(crate) done: BTreeSet<Partition>,
    /// How often it began to give.
    pub(crate) begun: u64,
}

/// Whether a document removed a store.
fn removed(document: &Document, store: Actor) -> bool {
    let former = document.layout.former.get(&store);
    former.is_some_and(|former| former.why == Farewell::Removed)
}

impl World {
    /// Whether a node goes by a document that removed a store.
    pub(crate) fn sends_away(&self, by: usize, store: Actor) -> bool {
        let process = self.nodes[by].process.as_ref();
        process.is_some_and(|process| removed(&process.held.document, store))
    }

    /// A member is taken for gone, dead or not, and a node is asked to remove it.
    pub(crate) fn expel(&mut self, node: usize, who: usize, dies: bool) {
        let id = self.nodes[who].id.clone();
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let document = &process.held.document;
        let named = document.layout.members.get(&id);
        let store = self.nodes[who].disk.actor;
        let named = named.is_some_and(|member| member.store == Some(store));
        let is_other = node != who && self.is_member(node) && document.number > 1;
        if !is_other || !named || self.nodes[who].gone || self.nodes[who].disk.rebuilding {
            return;
        }
        // Its vote may be one of the last: then an operator has other worries.
        if !self.majority_without(who) {
            return self.sights.met(Sight::WipeSpared);
        }
        if dies {
            self.die(who);
        }
        self.nodes[who].parted = true;
        for key in 0..self.keys.len() {
            for write in self.nodes[who].synced[key].iter() {
                self.oracle.writes[write].strict &= self.stays(key, write);
            }
        }
        let registry = &mut self.process(node).registry;
        let proposal = registry.fresh();
        let change = Change::Remove {
            node: id,
            store: Some(store),
        };
        let event = sibyl_core::registry::Event::Propose {
            id: proposal,
            change,
        };
        self.tell_registry(node, event);
    }

    /// Whether so many owners that are not about to be removed hold a write that it is found without the others.
    pub(crate) fn stays(&self, key: usize, write: usize) -> bool {
        if self.nodes.iter().all(|node| !node.parted) {
            return true;
        }
        let needed = match self.plan.setting.frail {
            true => 1,
            false => self.plan.setting.w,
        };
        let holds = |owner: &usize| {
            let owner = &self.nodes[*owner];
            !owner.parted && owner.synced[key].contains(write)
        };
        self.owners_now(key).into_iter().filter(holds).count() >= needed
    }

    /// Whether a read need not see what owners acknowledged: it may be answered by a removed node that nobody could
    /// tell (decision 11).
    pub(crate) fn may_be_behind(&self, node: usize) -> bool {
        let mut parted = self.nodes.iter().filter(|node| node.parted);
        self.nodes[node].parted || self.plan.setting.r == 1 && parted.next().is_some()
    }

    /// A peer says that this store was removed, or this node's own document does.
    pub(crate) fn found_out(&mut self, node: usize) {
        if self.nodes[node].process.is_none() || self.bug == Some(Bug::FencedCounts) {
            return;
        }
        self.sights.met(Sight::FoundOut);
        self.note(&[22, node as u64], || {
            format!("n{node} finds out that its store was removed")
        });
        self.die(node);
        self.nodes[node].parted = true;
        self.nodes[node].disk.fenced = Some(Note::default());
        let lives = self.nodes[node].lives;
        let after_us =
            Draw::of(self.plan.seed, PURPOSE + node as u64 * 64, lives).below(RESTART_US);
        self.scheduler.after(after_us, Event::Start { node });
    }

    /// A node took a document; one that removed its own store ends it.
    pub(crate) fn look_at_removal(&mut self, node: usize) {
        let store = self.nodes[node].disk.actor;
        if self.sends_away(node, store) {
            let life = self.process(node).life;
            self.scheduler.after(0, Event::Removed { node, life });
        }
    }

    /// Whoever was taken for gone is started again.
    pub(crate) fn bring_back(&mut self, node: usize) {
        if self.nodes[node].parted {
            self.start(node);
        }
    }

    /// A node that gave everything away asks to be taken in.
    pub(crate) fn rejoin(&mut self, who: usize) {
        let asked = (0..self.nodes.len()).find(|node| *node != who && self.is_member(*node));
        if let Some(node) = asked.filter(|_| self.nodes[who].gone) {
            self.change_members(What::Join { node, who });
        }
    }

    /// What was set aside of a key, and is not at its owners.
    pub(crate) fn set_aside(&self, key: usize, present: Writes) -> Writes {
        let aside = self.nodes.iter().map(|node| node.aside[key]);
        aside.fold(Writes::default(), Writes::and).without(present)
    }
}
