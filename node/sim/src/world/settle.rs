//! The end of a run: everything comes to rest, and what must be true then is checked.
//!
//! Everybody hears of the highest registry document, all owners compare their copies, which must be equal
//! then, with equal roots and nobody left to be filled, and every node reads every key.

use sibyl_core::merkle::Tree;
use sibyl_core::object::Object;
use sibyl_core::registry;

use super::World;
use crate::checks::{
    Violation, answered, converged, deletes, leaves, readable, registry as documents, repeats,
};
use crate::plan::{Entry, What, Wish};
use crate::sight::Sight;

impl World {
    /// Brings everything to rest and checks it.
    pub(crate) fn settle(&mut self, events: &mut u64) {
        self.spread_registry();
        self.go(events);
        self.check_registry();
        // Who gave up having its new store named tries again.
        let running = |world: &Self, node: usize| world.nodes[node].process.is_some();
        for node in 0..self.nodes.len() {
            if running(self, node) {
                self.name_store(node);
            }
        }
        self.look_for_damage();
        self.go(events);
        self.finish_judging(events);
        self.mend_by_reads(events);
        self.compare_all(events);
        self.finish_giving(events);
        (0..self.keys.len()).for_each(|key| self.check_key(key));
        let asked = self.requests.len();
        self.check_owners();
        self.read_all(events);
        self.check_requests(asked);
        (0..self.keys.len()).for_each(|key| self.check_key(key));
    }

    /// Every member reads every key.
    fn read_all(&mut self, events: &mut u64) {
        for node in 0..self.nodes.len() {
            if !self.is_member(node) {
                continue;
            }
            for key in 0..self.keys.len() {
                let what = What::Ask {
                    client: 0,
                    node,
                    key,
                    wish: Wish::Read,
                    sloppy: false,
                };
                self.wish(Entry {
                    id: u32::MAX,
                    at_us: 0,
                    what,
                });
                self.go(events);
            }
        }
    }

    /// Where nothing else brings copies together, reads do.
    fn mend_by_reads(&mut self, events: &mut u64) {
        let rebuilding = |node: &super::Node| {
            let process = node.process.as_ref();
            process.is_none_or(|process| process.rebuilding)
        };
        if !self.plan.setting.reads_mend || self.nodes.iter().any(rebuilding) {
            return;
        }
        self.read_all(events);
        self.sights.met(Sight::MendedByReads);
        (0..self.keys.len()).for_each(|key| self.check_key(key));
    }

    fn spread_registry(&mut self) {
        let number = |node: usize| self.nodes[node].number;
        let Some(highest) = (0..self.nodes.len()).max_by_key(|node| number(*node)) else {
            return;
        };
        let event = registry::Event::Seen {
            from: self.nodes[highest].id.clone(),
            number: number(highest),
        };
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_some() {
                self.tell_registry(node, event.clone());
            }
        }
    }

    /// Changes of owners end when all is calm, and nobody keeps what is not its own.
    fn check_owners(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.is_member(node) {
                continue;
            }
            let change = self.process(node).held.document.layout.change.clone();
            if let Some(change) = change {
                let found = format!("n{node} still goes by {change:?}");
                let check = "calm ends changes of owners";
                self.hold(Err(Violation { check, found }));
            }
            for key in 0..self.keys.len() {
                let here = self.nodes[node].disk.encoded(&self.keys[key].record);
                if here.is_some() && !self.is_holder(node, key) {
                    let found = format!("n{node} keeps k{key}, which is not its own");
                    let check = "what is not one's own is let go of";
                    self.hold(Err(Violation { check, found }));
                }
            }
        }
    }

    fn check_registry(&mut self) {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let documents: Vec<_> = processes.map(|process| &process.held.document).collect();
        let held = documents::last(&documents, &self.done);
        self.hold(held);
    }

    fn check_requests(&mut self, asked: usize) {
        for request in 0..self.requests.len() {
            let record = &self.requests[request];
            let (answers, minted, not_written) =
                (record.answers, record.minted, record.not_written);
            self.hold(answered::check(request, answers));
            if not_written {
                self.hold(answered::not_written(request, minted));
            }
        }
        let last = &self.requests[asked..];
        if let Some(missed) = last.iter().find(|record| !record.was_read) {
            let found = format!(
                "n{} cannot read k{} when all is calm",
                missed.node, missed.key
            );
            self.hold(Err(Violation {
                check: "calm brings answers",
                found,
            }));
        }
    }

    fn check_key(&mut self, key: usize) {
        self.check_durable(key);
        let owners = self.owners_now(key).into_iter();
        let copy = |node: usize| self.nodes[node].disk.object(&self.keys[key].record);
        let mut copies: Vec<Object> = owners.map(copy).collect();
        for node in 0..self.nodes.len() {
            let Some(hint) = self.nodes[node].disk.hint(&self.keys[key].record) else {
                continue;
            };
            if self.plan.setting.handoff {
                let found = format!("n{node} still keeps k{key} for {:?}", hint.targets);
                self.hold(Err(Violation {
                    check: "no hint is left",
                    found,
                }));
            }
            // Where nothing is delivered what is kept is as good as delivered.
            copies.iter_mut().for_each(|copy| {
                copy.join(&hint.object);
            });
        }
        match converged::check(key, &copies) {
            Ok(object) => {
                let acknowledged = self.oracle.acknowledged(key);
                // What nobody may take, for it may have been reaped, lies beside its store.
                let present = self.oracle.claimed(key, object.context());
                let acknowledged = acknowledged.without(self.set_aside(key, present));
                let kept = acknowledged.without(self.oracle.reaped());
                self.hold(readable::check(&self.oracle, kept, &object));
                let counting = Self::shown(&object);
                self.hold(repeats::end(&self.oracle, &object, &counting));
                self.hold(deletes::check(
                    &self.oracle,
                    acknowledged,
                    self.oracle.live(&object),
                ));
            }
            Err(violation) => self.hold(Err(violation)),
        }
    }

    pub(super) fn check_roots(&mut self) {
        for key in 0..self.keys.len() {
            let slot = &self.keys[key].slot;
            let tree = Tree {
                partition: slot.partition,
                n: slot.n,
            };
            let roots = self
                .owners_now(key)
                .into_iter()
                .map(|owner| self.own_nodes(owner, tree, 0, &[]))
                .collect::<Vec<_>>();
            self.hold(leaves::same_roots(&roots));
        }
    }
}
