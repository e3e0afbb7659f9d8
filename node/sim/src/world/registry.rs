//! The registry's task: one event at a time, its effects in order, and nothing before a persist is synced.
//!
//! As `tasks/registry.rs` does it. Promises go to the watermark, the chosen document through the writer;
//! while either is under way the machine hears nothing. Every document taken as chosen is checked.

use std::collections::BTreeMap;
use std::rc::Rc;

use sibyl_core::message::{self, Request};
use sibyl_core::registry::{
    Change, Effect, Event, Expect, Machine, Message, Outcome, Secret, Secrets, Slot,
};

use super::command::Command;
use super::frames::Waiting;
use super::{Bytes, Event as Happening, NodeId, VecDeque, World};
use crate::checks::registry as check;
use crate::draw::{Draw, mix};
use crate::plan::Entry;
use crate::sight::Sight;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 6;
/// How long a message to a peer may take before it counts as not delivered.
const SEND_US: u64 = 2_000_000;

/// The machine, and what waits for it.
pub(crate) struct Registry {
    pub(crate) machine: Machine,
    inbox: VecDeque<Event>,
    todo: VecDeque<Effect>,
    persisting: Option<Bytes>,
    blocked: bool,
    /// Changes under way, and the bucket each creates.
    changes: BTreeMap<u64, Option<String>>,
    ids: u64,
    persists: u64,
}

impl Registry {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            inbox: VecDeque::new(),
            todo: VecDeque::new(),
            persisting: None,
            blocked: false,
            changes: BTreeMap::new(),
            ids: 0,
            persists: 0,
        }
    }
}

impl Registry {
    /// A number for the next change.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

impl World {
    /// A node that has just started forms the cluster, or has its new store named.
    pub(crate) fn open_registry(&mut self, node: usize) {
        let (seed, life) = (self.plan.seed, self.process(node).life);
        if self.process(node).registry.machine.forming() {
            let secret = |which: u64| {
                let word =
                    |at: u64| mix(&[seed, PURPOSE, node as u64, life, which, at]).to_le_bytes();
                let mut bytes = [0; 32];
                bytes
                    .chunks_mut(8)
                    .zip(0..)
                    .for_each(|(chunk, at)| chunk.copy_from_slice(&word(at)));
                Secret(bytes)
            };
            let secrets = Secrets {
                context_key: secret(1),
                cluster_key: secret(2),
            };
            self.tell_registry(node, Event::Form(secrets));
        }
        self.name_store(node);
    }

    pub(crate) fn name_store(&mut self, node: usize) {
        let (id, process) = (self.nodes[node].id.clone(), self.process(node));
        let store = process.store;
        let registry = &mut process.registry;
        if registry.machine.amnesiac() && !registry.machine.forming() {
            registry.ids += 1;
            let change = Change::NameStore { node: id, store };
            registry.inbox.push_front(Event::Propose {
                id: registry.ids,
                change,
            });
            self.turn_registry(node);
        }
    }

    /// Something happens to a node's registry.
    pub(crate) fn tell_registry(&mut self, node: usize, event: Event) {
        if let Event::Message {
            message: Message::Refused { .. },
            ..
        } = &event
        {
            self.sights.met(Sight::Outvoted);
        }
        self.process(node).registry.inbox.push_back(event);
        self.turn_registry(node);
    }

    /// Goes on until there is nothing to do, or something must be on disk first.
    fn turn_registry(&mut self, node: usize) {
        loop {
            let registry = &mut self.process(node).registry;
            if registry.blocked {
                return;
            }
            if let Some(effect) = registry.todo.pop_front() {
                self.perform(node, effect);
            } else if let Some(event) = registry.inbox.pop_front() {
                registry.todo = registry.machine.handle(event).into();
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let (seed, life) = (self.plan.seed, self.process(node).life);
        match effect {
            Effect::Persist {
                slot: Slot::Chosen,
                bytes,
            } => {
                self.process(node).registry.blocked = true;
                self.submit(
                    node,
                    Command::Keep {
                        bytes: bytes.into(),
                    },
                );
            }
            Effect::Persist {
                slot: Slot::Promises,
                bytes,
            } => {
                let sync_us = self.plan.setting.sync_us;
                let registry = &mut self.process(node).registry;
                registry.blocked = true;
                registry.persisting = Some(bytes.into());
                registry.persists += 1;
                let mut draw = Draw::of(
                    seed,
                    PURPOSE + node as u64 * 64,
                    (life << 32) + registry.persists,
                );
                self.scheduler.after(
                    sync_us / 2 + draw.around(sync_us),
                    Happening::Promised { node, life },
                );
            }
            Effect::Send { to, message } => self.send_registry(node, &to, message),
            Effect::Chosen(held) => {
                let (number, digest) = (held.document.number, held.digest);
                self.note(&[11, node as u64, number], || {
                    format!("n{node} takes document {number}, {digest}")
                });
                let once = self.chosen.take(number, digest);
                self.hold(once);
                self.process(node).held = Rc::new(*held);
                self.know_cluster_key(node);
                self.name_store(node);
                self.follow_owners(node);
                self.look_at_removal(node);
            }
            Effect::Timer {
                token,
                min_ms,
                max_ms,
            } => {
                let mut draw = Draw::of(seed, PURPOSE + 1 + node as u64 * 64, (life << 32) + token);
                let after_us = min_ms * 1000 + draw.below((max_ms - min_ms) * 1000 + 1);
                self.scheduler
                    .after(after_us, Happening::Tick { node, life, token });
            }
            Effect::Finished { id, outcome } => self.finished(node, id, &outcome),
            Effect::Alarm(alarm) => self.hold(check::alarm(&alarm)),
        }
    }

    fn send_registry(&mut self, node: usize, to: &NodeId, message: Message) {
        let peer = self.index(to);
        let body = message::encode(&message);
        if !self.ask(
            node,
            peer,
            Request::Registry,
            body,
            SEND_US,
            Waiting::Registry,
        ) {
            self.process(node)
                .registry
                .inbox
                .push_back(Event::Unreachable(to.clone()));
        }
    }

    fn finished(&mut self, node: usize, id: u64, outcome: &Outcome) {
        self.note(&[12, node as u64, id], || {
            format!("n{node} ends change {id}: {outcome:?}")
        });
        match (self.process(node).registry.changes.remove(&id), outcome) {
            (Some(bucket), Outcome::Done { .. }) => {
                self.sights.met(Sight::Changed);
                self.done.extend(bucket);
            }
            (Some(_), _) => self.sights.met(Sight::ChangeFailed),
            (None, Outcome::Done { .. }) => self.sights.met(Sight::Renamed),
            (None, _) => {}
        }
    }

    /// The promises are on disk.
    pub(crate) fn promised(&mut self, node: usize) {
        let registry = &mut self.process(node).registry;
        registry.blocked = false;
        let promises = registry.persisting.take();
        self.nodes[node].disk.promises = promises;
        self.turn_registry(node);
    }

    /// The chosen document is on disk.
    pub(crate) fn kept(&mut self, node: usize) {
        let registry = &mut self.process(node).registry;
        registry.blocked = false;
        self.nodes[node].number = self.process(node).registry.machine.held().document.number;
        self.turn_registry(node);
    }

    pub(crate) fn tick(&mut self, node: usize, token: u64) {
        self.tell_registry(node, Event::Timer { token });
    }

    /// An operator asks a node for a change: another cap for the default bucket, or a bucket of its own.
    pub(crate) fn change(&mut self, node: usize, which: u64, entry: Entry) {
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let document = &process.held.document;
        if document.number < 2 {
            return;
        }
        let mut config = document.buckets["default"].config.clone();
        let (name, creates) = match which % 3 {
            0 => ("default".to_owned(), false),
            _ => (format!("b{}", entry.id), true),
        };
        config.max_siblings = 2 + (entry.id + node as u32) % 7;
        process.registry.ids += 1;
        let id = process.registry.ids;
        process
            .registry
            .changes
            .insert(id, creates.then(|| name.clone()));
        let change = Change::PutBucket {
            name,
            config: Box::new(config),
            expect: Expect::Anything,
        };
        self.tell_registry(node, Event::Propose { id, change });
    }
}
