//! A whole cluster in one value: nodes, links, disks and clients on virtual time.
//!
//! This is a second shell around the values of `sibyl-core`: what `replica.rs`, `coordinator/` and
//! `tasks/registry.rs` do on sockets and threads, it does on a scheduler, with the same order of apply,
//! ship, sync and acknowledge. It decides nothing that the core decides. One file per part; here the
//! world itself and its events.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use sibyl::replica::Slot;
use sibyl::replica::leaves::Leaves;
use sibyl_core::flow::get::Get;
use sibyl_core::flow::handoff::{Event as HandoffEvent, Handoff};
use sibyl_core::flow::put::Put;
use sibyl_core::id::{Actor, Digest, NodeId, Partition};
use sibyl_core::message::{Place, Reply, Request};
use sibyl_core::quorum::Level;
use sibyl_core::registry::{Document, First, Held, Owners, first_document};

use crate::checks::registry::Chosen;
use crate::checks::{self, Violation};
use crate::disk::Disk;
use crate::network::{Links, Network};
use crate::oracle::{Oracle, Writes};
use crate::plan::{CALM_US, Plan, What};
use crate::scheduler::Scheduler;
use crate::sight::Sights;
use crate::trace::Trace;
use crate::zoo::Bug;

mod client;
mod command;
mod compare;
mod coordinate;
mod door;
mod faults;
mod fence;
mod frames;
mod giving;
mod handing;
mod handoff;
mod heal;
mod hints;
mod mint;
mod once;
mod owners;
mod read;
mod reap;
mod registry;
mod restored;
mod salvage;
mod settle;
mod writer;

use client::{Client, RequestRecord};
use compare::Comparing;
use coordinate::{Minted, Origin};
pub(crate) use fence::Note;
use frames::{Call, Frame};
use giving::{Giver, Step};
use handing::Handing;
use handoff::Delivery;
use once::{Looking, Reader};
use registry::Registry;
use writer::Writer;

/// The most events of a run: a healthy one has some thousands; more is a loop gone wild.
const MAX_EVENTS: u64 = 400_000;
/// Until then everything has come to rest: a minute of virtual time after the last fault, ten times the
/// longest chain of registry rounds.
const REST_US: u64 = CALM_US + 60_000_000;

/// Something that happens at a moment. `life` is the process it happens to: events of a dead one are void.
pub(crate) enum Event {
    /// An entry of the plan.
    Entry(usize),
    /// A message arrives.
    Deliver(Frame),
    /// The writer takes what is queued.
    Wake { node: usize, life: u64 },
    /// A sync is over.
    Synced { node: usize, life: u64 },
    /// The registry's promises are on disk.
    Promised { node: usize, life: u64 },
    /// A timer of the registry.
    Tick { node: usize, life: u64, token: u64 },
    /// A read has waited long enough for its first replica.
    Hedge { node: usize, life: u64, flow: u64 },
    /// A read's time is up.
    ReadOver { node: usize, life: u64, flow: u64 },
    /// A coordinated write's time is up.
    WriteOver { node: usize, life: u64, flow: u64 },
    /// Silent owners of a write have been waited for.
    Patience { node: usize, life: u64, flow: u64 },
    /// A pause of the delivery of hints is over.
    Pause { node: usize, life: u64 },
    /// A client repeats a request whose answer it does not have.
    Again { request: usize },
    /// A node looks at its part of a change of owners.
    Look { node: usize, life: u64 },
    /// A node looks at a record that it could not read.
    Heal { node: usize, life: u64, key: usize },
    /// A node speaks about epochs, and seals and reaps.
    Reap { node: usize, life: u64 },
    /// A question to a peer has no answer.
    CallOver { node: usize, life: u64, call: u64 },
    /// A dead node starts.
    Start { node: usize },
    /// A node looks whether it can reach a peer.
    Sense { node: usize, peer: usize },
    /// A node that was asked by a higher registry number looks again.
    Retry { frame: Frame, patience_us: u64 },
    /// A node asks what may have been reaped since the backup that its store was made of.
    Judge { node: usize, life: u64 },
    /// A process finds its own store removed.
    Removed { node: usize, life: u64 },
    /// What a removed node that gives away its store waits for.
    Give { node: usize, life: u64, step: Step },
    /// A node that gave everything away asks to be taken in.
    Rejoin { node: usize },
    /// The faults are over.
    Calm,
}

/// Where a key lies. Who owns it each node says by its own document, see `owners`.
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) record: Vec<u8>,
    pub(crate) slot: Slot,
}

/// A node: what lives as long as its disk, and its process while it runs.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    /// Processes started so far.
    pub(crate) lives: u64,
    pub(crate) process: Option<Process>,
    /// What its synced copy of each key holds.
    pub(crate) synced: Vec<Writes>,
    /// The registry document it has synced.
    pub(crate) number: u64,
    /// Stores begun so far.
    pub(crate) stores: u64,
    /// It failed for good: nothing starts it again but its operator.
    pub(crate) gone: bool,
    /// Until when its process stands still.
    pub(crate) paused_until_us: u64,
    /// It was taken for gone, with its store; until what that holds was given away.
    pub(crate) parted: bool,
    /// The process that gives that away.
    pub(crate) giver: Option<Giver>,
    /// What nobody took of it, by key.
    pub(crate) aside: Vec<Writes>,
}

/// A running node.
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) actor: Actor,
    /// The store's identity, which votes in the registry.
    pub(crate) store: Actor,
    pub(crate) rebuilding: bool,
    /// The counter below the first one of this start.
    pub(crate) line: u64,
    /// Lines raised since, by key: every key has a partition of its own as far as lines go.
    pub(crate) lines: BTreeMap<usize, u64>,
    pub(crate) counter: u64,
    pub(crate) writer: Writer,
    pub(crate) registry: Registry,
    pub(crate) held: Rc<Held>,
    /// Who owns what by it, and since which document.
    pub(crate) placed: Owners,
    pub(crate) since: u64,
    pub(crate) transfer: owners::Transfer,
    pub(crate) reachable: Vec<bool>,
    /// By which document each peer was heard to go.
    pub(crate) numbers: Vec<u64>,
    /// The highest registry number any frame has carried.
    pub(crate) seen: u64,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) handings: BTreeMap<u64, Handing>,
    pub(crate) puts: BTreeMap<u64, Writing>,
    pub(crate) gets: BTreeMap<u64, Reading>,
    /// Writes that are looked for before they are minted.
    pub(crate) looking: BTreeMap<u64, Looking>,
    pub(crate) leaves: Leaves,
    pub(crate) exchanges: BTreeMap<u64, Comparing>,
    /// With whom unfilled partitions were compared, and whether those copies count.
    pub(crate) compared: BTreeMap<Partition, BTreeMap<NodeId, bool>>,
    pub(crate) handoff: Handoff,
    pub(crate) deliveries: BTreeMap<NodeId, Delivery>,
    /// Records that could not be read, and what was heard of them.
    pub(crate) healing: BTreeMap<usize, heal::Healing>,
    pub(crate) part: reap::Part,
    /// What may be shown of an older state.
    pub(crate) judging: restored::Judging,
    /// What removed nodes bring.
    pub(crate) taking: BTreeMap<u64, salvage::Taking>,
    pub(crate) ids: u64,
}

/// A write that a process coordinates.
pub(crate) struct Writing {
    pub(crate) put: Put,
    pub(crate) key: usize,
    pub(crate) w: usize,
    pub(crate) sloppy: bool,
    pub(crate) origin: Origin,
    pub(crate) minted: Option<Minted>,
    pub(crate) until_us: u64,
    /// The document that its owners are of.
    pub(crate) number: u64,
    /// Whether it is minted in the owners' place.
    pub(crate) stands_in: bool,
    /// The own copy counts.
    pub(crate) counted: bool,
}

/// A read that a process coordinates.
pub(crate) struct Reading {
    pub(crate) get: Get,
    /// The key, whether fallbacks count, and how many must answer.
    pub(crate) asked: (usize, bool, usize),
    pub(crate) reader: Reader,
    pub(crate) until_us: u64,
    /// The document that its owners are of.
    pub(crate) number: u64,
    /// A replica goes by a newer one.
    pub(crate) stale: bool,
    /// How often owners were asked, each time those of a newer document.
    pub(crate) times: usize,
}

/// What a run amounted to.
#[derive(Debug)]
pub struct Report {
    /// The first broken promise, and when it broke.
    pub violation: Option<(u64, Violation)>,
    /// What was met.
    pub sights: Sights,
    /// The trace's hash.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// The trace as text, if it was asked for.
    pub lines: Vec<String>,
}

/// A run under way.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    pub(crate) scheduler: Scheduler<Event>,
    pub(crate) network: Network,
    /// Questions with objects that are on their way: from, to, and the epoch they belong to.
    pub(crate) carriers: BTreeMap<u64, (usize, usize, u64)>,
    pub(crate) carried: u64,
    pub(crate) first: Document,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keys: Vec<Key>,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: Vec<RequestRecord>,
    pub(crate) oracle: Oracle,
    pub(crate) chosen: Chosen,
    pub(crate) done: Vec<String>,
    pub(crate) sights: Sights,
    pub(crate) trace: Trace,
    pub(crate) violation: Option<(u64, Violation)>,
}

/// Runs a plan to its end, or to its first broken promise.
pub fn run(plan: &Plan, bug: Option<Bug>, verbose: bool) -> Report {
    let mut world = World::new(plan, bug, verbose);
    let mut events = 0;
    world.go(&mut events);
    if world.violation.is_none() {
        world.settle(&mut events);
    }
    Report {
        violation: world.violation,
        sights: world.sights,
        hash: world.trace.hash(),
        events,
        lines: world.trace.into_lines(),
    }
}

impl World {
    fn new(plan: &Plan, bug: Option<Bug>, verbose: bool) -> Self {
        let setting = &plan.setting;
        let names: Vec<NodeId> = (0..setting.nodes).map(name).collect();
        let links = Links {
            nodes: setting.nodes,
            lost: setting.lost,
            doubled: setting.doubled,
            delay_us: setting.delay_us,
        };
        let first = document(&names, setting.w);
        let keys: Vec<Key> = (0..setting.keys).map(|key| place(&first, key)).collect();
        let synced = vec![Writes::default(); keys.len()];
        let node = |(index, id): (usize, NodeId)| Node {
            id,
            disk: Disk::new(actor(plan.seed, index, 0)),
            lives: 0,
            process: None,
            synced: synced.clone(),
            number: 1,
            stores: 0,
            gone: false,
            paused_until_us: 0,
            parted: false,
            giver: None,
            aside: synced.clone(),
        };
        let mut world = Self {
            plan: plan.clone(),
            bug,
            scheduler: Scheduler::default(),
            network: Network::new(plan.seed, links),
            carriers: BTreeMap::new(),
            carried: 0,
            nodes: names.into_iter().enumerate().map(node).collect(),
            clients: (0..setting.clients)
                .map(|_| Client::new(keys.len()))
                .collect(),
            keys,
            first,
            requests: Vec::new(),
            oracle: Oracle::default(),
            chosen: Chosen::default(),
            done: Vec::new(),
            sights: Sights::default(),
            trace: Trace::new(verbose),
            violation: None,
        };
        for (index, entry) in plan.entries.iter().enumerate() {
            world.scheduler.at(entry.at_us, Event::Entry(index));
        }
        world.scheduler.at(CALM_US, Event::Calm);
        (0..plan.setting.nodes).for_each(|node| world.start(node));
        world
    }

    /// Lets events happen until there are none, or a promise is broken.
    pub(crate) fn go(&mut self, events: &mut u64) {
        while self.violation.is_none() {
            let Some(event) = self.scheduler.pop() else {
                return;
            };
            *events += 1;
            if *events > MAX_EVENTS || self.scheduler.now_us() > REST_US {
                let found = format!("after {events} events the cluster is not at rest");
                return self.hold(Err(Violation {
                    check: "comes to rest",
                    found,
                }));
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(until_us) = self.awaits(&event) {
            return self.scheduler.at(until_us, event);
        }
        match event {
            Event::Entry(index) => self.enter(self.plan.entries[index]),
            Event::Deliver(frame) => self.deliver(frame),
            Event::Start { node } => self.start(node),
            Event::Sense { node, peer } => self.sense(node, peer),
            Event::Retry { frame, patience_us } => self.retry(frame, patience_us),
            Event::Calm => self.calm_down(),
            Event::Again { request } => self.ask_again(request),
            Event::Wake { node, life } if self.lives(node, life) => self.write_group(node),
            Event::Synced { node, life } if self.lives(node, life) => self.synced(node),
            Event::Promised { node, life } if self.lives(node, life) => self.promised(node),
            Event::Tick { node, life, token } if self.lives(node, life) => self.tick(node, token),
            Event::Hedge { node, life, flow } if self.lives(node, life) => self.hedge(node, flow),
            Event::ReadOver { node, life, flow } if self.lives(node, life) => {
                self.read_over(node, flow);
            }
            Event::WriteOver { node, life, flow } if self.lives(node, life) => {
                self.write_over(node, flow);
            }
            Event::Patience { node, life, flow } if self.lives(node, life) => {
                self.patience_over(node, flow);
            }
            Event::Pause { node, life } if self.lives(node, life) => {
                self.tell_handoff(node, &HandoffEvent::Woken);
            }
            Event::Look { node, life } if self.lives(node, life) => self.look_again(node),
            Event::Heal { node, life, key } if self.lives(node, life) => self.heal(node, key),
            Event::Reap { node, life } if self.lives(node, life) => self.reap_round(node),
            Event::Judge { node, life } if self.lives(node, life) => self.judge_round(node),
            Event::Removed { node, life } if self.lives(node, life) => self.found_out(node),
            Event::Give { node, life, step } => self.give_on(node, life, step),
            Event::Rejoin { node } => self.rejoin(node),
            Event::CallOver { node, life, call } if self.lives(node, life) => {
                self.call_failed(node, call);
            }
            _ => {}
        }
    }

    /// Until when an event waits, because whom it happens to stands still.
    fn awaits(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Entry(index) => match self.plan.entries[*index].what {
                What::Ask { node, .. } => node,
                _ => return None,
            },
            Event::Deliver(frame) | Event::Retry { frame, .. } => frame.to(),
            Event::Wake { node, .. }
            | Event::Synced { node, .. }
            | Event::Promised { node, .. }
            | Event::Tick { node, .. }
            | Event::Hedge { node, .. }
            | Event::ReadOver { node, .. }
            | Event::WriteOver { node, .. }
            | Event::Patience { node, .. }
            | Event::Pause { node, .. }
            | Event::Look { node, .. }
            | Event::Heal { node, .. }
            | Event::Reap { node, .. }
            | Event::Removed { node, .. }
            | Event::Judge { node, .. }
            | Event::Give { node, .. }
            | Event::CallOver { node, .. }
            | Event::Sense { node, .. } => *node,
            Event::Again { .. } | Event::Start { .. } | Event::Rejoin { .. } | Event::Calm => {
                return None;
            }
        };
        let until_us = self.nodes[node].paused_until_us;
        (until_us > self.scheduler.now_us()).then_some(until_us)
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node]
            .process
            .as_ref()
            .is_some_and(|process| process.life == life)
    }

    /// The running process of a node.
    ///
    /// # Panics
    /// If there is none: callers have just checked, or act for it.
    pub(crate) fn process(&mut self, node: usize) -> &mut Process {
        self.nodes[node]
            .process
            .as_mut()
            .expect("only a running node acts")
    }

    /// Remembers the first broken promise.
    pub(crate) fn hold(&mut self, held: checks::Held) {
        if let (Err(violation), None) = (held, &self.violation) {
            let now_us = self.scheduler.now_us();
            self.trace
                .note(now_us, &[9], || format!("BROKEN {violation}"));
            self.violation = Some((now_us, violation));
        }
    }

    /// Notes something in the trace.
    pub(crate) fn note(&mut self, words: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.scheduler.now_us(), words, text);
    }

    /// The index of a node.
    pub(crate) fn index(&self, id: &NodeId) -> usize {
        let found = self.nodes.iter().position(|node| node.id == *id);
        found.expect("every member is a node of the run")
    }
}

impl Process {
    /// A number that names something of this process, and nothing of another life.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.ids += 1;
        (self.life << 32) + self.ids
    }
}

fn name(index: usize) -> NodeId {
    let name = format!("n{index}");
    name.parse().expect("a letter and a digit are a valid name")
}

/// The random identity of a node's so-many-th store.
pub(crate) fn actor(seed: u64, node: usize, store: u64) -> Actor {
    Actor(crate::draw::mix(&[seed, 3, node as u64, store]))
}

fn document(names: &[NodeId], w: usize) -> Document {
    let first = |id: &NodeId| {
        let peer_addr = "127.0.0.1:7171".to_owned();
        (
            id.clone(),
            First {
                peer_addr,
                zone: None,
            },
        )
    };
    let members = names.iter().map(first).collect();
    let mut first = first_document("sim", &members, 8, 4).expect("its bounds are kept");
    let w = Level::Count(u8::try_from(w).expect("few copies"));
    let default = first.buckets.get_mut("default");
    default.expect("it always exists").config.w = w;
    first
}

/// The first owners of a key in a cluster of so many nodes.
pub(crate) fn owners(nodes: usize, key: usize) -> Vec<usize> {
    let names: Vec<NodeId> = (0..nodes).map(name).collect();
    let first = document(&names, 1);
    let slot = place(&first, key).slot;
    let owners = first.owners();
    let index = |owner: &NodeId| names.iter().position(|name| name == owner);
    owners
        .counting(slot.partition, slot.n)
        .iter()
        .filter_map(index)
        .collect()
}

fn place(first: &Document, key: usize) -> Key {
    let ring = first.ring();
    let bucket = first.buckets["default"].incarnation;
    let name = Bytes::from(format!("k{key}"));
    let partition = ring.partition(bucket, &name);
    let mut record = partition.0.to_be_bytes().to_vec();
    record.extend(bucket.0.to_be_bytes());
    record.extend_from_slice(&name);
    let place = Place { bucket, key: name };
    Key {
        slot: Slot {
            partition,
            n: first.buckets["default"].config.n,
            place: place.clone(),
        },
        place,
        record,
    }
}
