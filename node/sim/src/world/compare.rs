//! Exchanges, and the refill of nodes that lost their data.
//!
//! As `tasks/anti_entropy` does it: the flow and the rule of refilling are the core's, leaves and pages are the
//! node's own code over the store in memory. An exchange begins when a peer can be reached again, when the plan
//! says so, and in the end until all copies are equal. What is given is synced before it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sibyl::replica::leaves::{Leaves, read};
use sibyl::store::{Batch, Store as _};
use sibyl_core::codec;
use sibyl_core::flow::exchange::{Delivery, Effect, Event, Exchange, Page, Parcel, Side, Summary};
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::merkle::{NODE_BYTES, Node, Tagger, Tree};
use sibyl_core::message::{self, Failure, Place, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::refill::Need;

use super::command::{Command, Then, Why};
use super::frames::Waiting;
use super::{Bytes, NodeId, VecDeque, World};
use crate::checks::{Violation, leaves};
use crate::plan::PATIENCE_US;
use crate::sight::Sight;
use crate::zoo::Bug;

/// An exchange that a process began.
pub(crate) struct Comparing {
    peer: usize,
    tree: Tree,
    /// The document in force when it began.
    number: u64,
    exchange: Exchange,
    /// Objects that could not be joined here.
    pub(crate) failed: usize,
}

impl World {
    /// Whether this node's copy of a key counts and may be minted on.
    pub(crate) fn vouches(&self, node: usize, key: usize) -> bool {
        let rebuilding = self.nodes[node]
            .process
            .as_ref()
            .is_some_and(|process| process.rebuilding);
        if !self.is_judged(node, self.keys[key].slot.partition) {
            return false;
        }
        !rebuilding
            || self.nodes[node]
                .disk
                .filled
                .contains(&self.keys[key].slot.partition)
    }

    /// From now on leaves can be kept.
    pub(crate) fn know_cluster_key(&mut self, node: usize) {
        let process = self.process(node);
        if let Some(key) = &process.held.document.cluster_key {
            process.leaves.use_tagger(&Tagger::new(key));
        }
    }

    /// A process starts on what it finds: trees that were not closed are computed anew, or (where the plan says
    /// so) believed, because leaves are in the batches of their writes.
    pub(crate) fn open_leaves(&mut self, node: usize) {
        self.process(node).leaves = Leaves::open(&self.nodes[node].disk.store);
        self.know_cluster_key(node);
        for partition in self.partitions() {
            let spoiled = self.nodes[node].disk.spoiled.contains(&partition);
            let clean = self.process(node).leaves.marks().is_clean(partition);
            if spoiled || !clean && !self.plan.setting.believes {
                self.count_leaves(node, partition);
            }
        }
    }

    /// Computes the leaves of a partition anew, in one go; what cannot be read is left out and noted.
    pub(crate) fn count_leaves(&mut self, node: usize, partition: Partition) {
        let copies = self.copies();
        let Self { nodes, .. } = self;
        let this = &mut nodes[node];
        let process = this.process.as_mut();
        let Some(process) = process.filter(|process| process.held.document.number > 1) else {
            return;
        };
        let (store, mut batch, mut damaged) = (&this.disk.store, Batch::new(), BTreeSet::new());
        loop {
            let step = process.leaves.step(store, partition, &copies, &mut batch);
            let step = step.expect("only records are damaged here, no blocks");
            damaged.extend(step.damaged);
            if step.done {
                break;
            }
        }
        let applied = store.apply(batch);
        applied.expect("a store that failed has stopped its node");
        for record in damaged {
            let found = self.keys.iter().position(|key| key.record == record);
            if let Some(key) = found {
                self.note_damage(node, key);
            }
        }
    }

    fn partitions(&self) -> BTreeSet<Partition> {
        self.keys.iter().map(|key| key.slot.partition).collect()
    }

    fn copies(&self) -> BTreeMap<Incarnation, u8> {
        self.keys
            .iter()
            .map(|key| (key.place.bucket, key.slot.n))
            .collect()
    }

    fn tagger(&self, node: usize) -> Option<Tagger> {
        let document = &self.nodes[node].process.as_ref()?.held.document;
        document.cluster_key.as_ref().map(Tagger::new)
    }

    /// A node begins to compare everything it shares with a peer.
    pub(crate) fn compare(&mut self, node: usize, peer: usize) {
        if node == peer || self.nodes[node].process.is_none() || self.is_full_disk(node) {
            return;
        }
        let other = self.nodes[peer].id.clone();
        let has = |key: &usize| {
            self.nodes[node]
                .disk
                .encoded(&self.keys[*key].record)
                .is_some()
        };
        let shared = (0..self.keys.len()).filter(|key| {
            self.is_judged(node, self.keys[*key].slot.partition)
                && self.holds(node, &other, *key)
                && (self.is_holder(node, *key) || has(key))
        });
        let trees: BTreeSet<Tree> = shared
            .map(|key| &self.keys[key])
            .map(|key| Tree {
                partition: key.slot.partition,
                n: key.slot.n,
            })
            .collect();
        for tree in trees {
            let Some(tagger) = self.tagger(node) else {
                return;
            };
            let (exchange, effects) = Exchange::new(tagger);
            let process = self.process(node);
            let (flow, number) = (process.fresh(), process.held.document.number);
            let under_way =
                |other: &Comparing| (other.peer, other.tree, other.number) == (peer, tree, number);
            if process.exchanges.values().any(under_way) {
                continue;
            }
            process.exchanges.insert(
                flow,
                Comparing {
                    peer,
                    tree,
                    number,
                    exchange,
                    failed: 0,
                },
            );
            self.perform_exchange(node, flow, effects);
        }
    }

    /// Performs effects; what this node says itself comes at once and may lead to more.
    fn perform_exchange(&mut self, node: usize, flow: u64, effects: Vec<Effect>) {
        let mut effects: VecDeque<Effect> = effects.into();
        while let Some(effect) = effects.pop_front() {
            let Some(comparing) = self.process(node).exchanges.get(&flow) else {
                return;
            };
            let (peer, tree) = (comparing.peer, comparing.tree);
            let event = match effect {
                Effect::Nodes { level, parents } => {
                    let nodes = self.own_nodes(node, tree, level, &parents);
                    let request = Request::MerkleNodes {
                        tree,
                        level,
                        parents,
                    };
                    self.ask_exchange(node, peer, flow, request, Bytes::new())
                        .and(nodes)
                        .map(|nodes| Event::Nodes {
                            side: Side::Own,
                            nodes,
                            counts: true,
                        })
                }
                Effect::Keys { leaves, from } => {
                    let page = self.own_page(node, tree, &leaves, from.as_ref());
                    let request = Request::MerkleKeys { tree, leaves, from };
                    self.ask_exchange(node, peer, flow, request, Bytes::new())
                        .and(page)
                        .map(|page| Event::Keys {
                            side: Side::Own,
                            page,
                        })
                }
                Effect::Read(places) => Some(Event::Own(self.pack(node, &places))),
                Effect::Ship(parcel) => {
                    let (request, body) =
                        (Request::MerkleExchange { tree }, message::encode(&parcel));
                    if self.ask_exchange(node, peer, flow, request, body).is_some() {
                        continue;
                    }
                    None
                }
                Effect::Join(objects) => {
                    self.take_in_objects(node, objects, Why::Fetched(flow));
                    self.submit(
                        node,
                        Command::After {
                            then: Then::Joined { flow },
                        },
                    );
                    continue;
                }
                Effect::Alarm(place, dot) => {
                    let found = format!("n{node}, n{peer}: two payloads of {dot}, {place:?}");
                    let check = "a dot names one write";
                    return self.hold(Err(Violation { check, found }));
                }
                Effect::End(summary) => return self.compared(node, flow, summary),
            };
            let process = self.process(node);
            if let Some(comparing) = process.exchanges.get_mut(&flow) {
                effects.extend(comparing.exchange.handle(event.unwrap_or(Event::Failed)));
            }
        }
    }

    fn ask_exchange(
        &mut self,
        node: usize,
        peer: usize,
        flow: u64,
        request: Request,
        body: Bytes,
    ) -> Option<()> {
        self.ask(
            node,
            peer,
            request,
            body,
            PATIENCE_US,
            Waiting::Exchange { flow },
        )
        .then_some(())
    }

    fn step_exchange(&mut self, node: usize, flow: u64, event: Event) {
        let effects = self
            .process(node)
            .exchanges
            .get_mut(&flow)
            .map(|comparing| comparing.exchange.handle(event));
        self.perform_exchange(node, flow, effects.unwrap_or_default());
    }

    /// The peer answered.
    pub(crate) fn exchange_heard(&mut self, node: usize, flow: u64, reply: Reply, body: &Bytes) {
        let event = match reply {
            Reply::MerkleNodes { counts } => {
                let nodes = body.as_chunks::<NODE_BYTES>().0.to_vec();
                Event::Nodes {
                    side: Side::Theirs,
                    nodes,
                    counts,
                }
            }
            Reply::MerkleKeys => {
                let page = message::decode(body).expect("what was encoded here can be decoded");
                Event::Keys {
                    side: Side::Theirs,
                    page,
                }
            }
            Reply::MerkleExchanged => {
                Event::Shipped(message::decode(body).expect("what was encoded here can be decoded"))
            }
            _ => Event::Failed,
        };
        self.step_exchange(node, flow, event);
    }

    pub(crate) fn exchange_failed(&mut self, node: usize, flow: u64) {
        self.step_exchange(node, flow, Event::Failed);
    }

    /// A parcel is synced.
    pub(crate) fn after(&mut self, node: usize, then: Then) {
        match then {
            Then::Joined { flow } => {
                let comparing = self.process(node).exchanges.get_mut(&flow);
                let failed = comparing.map_or(0, |own| std::mem::take(&mut own.failed));
                self.step_exchange(node, flow, Event::Joined { failed });
            }
            Then::Kept { key, context } => {
                let me = self.nodes[node].id.clone();
                let own = self.nodes[node].disk.object(&self.keys[key].record);
                let joined = own.context().covers(&context);
                self.hint_ended(node, &me, key, joined.then_some(context));
            }
            Then::Shown { partition } => self.show(node, partition),
            Then::Judged { of, verdict } => self.judged(node, of, verdict),
            Then::Deliver { by, call, want } => {
                let delivery = self.pack(node, &want);
                self.reply(
                    node,
                    by,
                    call,
                    Reply::MerkleExchanged,
                    message::encode(&delivery),
                );
            }
        }
    }

    fn compared(&mut self, node: usize, flow: u64, summary: Summary) {
        let named = self.is_named(node);
        let Some(Comparing {
            peer, tree, number, ..
        }) = self.process(node).exchanges.remove(&flow)
        else {
            return;
        };
        self.note(
            &[18, node as u64, peer as u64, u64::from(summary.keys_differ)],
            || format!("n{node} compared {tree:?} with n{peer}: {summary:?}"),
        );
        match summary {
            Summary { whole: false, .. } => return self.sights.met(Sight::ExchangeBroken),
            Summary { keys_differ: 0, .. } => self.sights.met(Sight::ExchangedEqual),
            _ => self.sights.met(Sight::ExchangedDifferent),
        }
        if named {
            let fetched = (peer, number, summary.counts);
            self.note_fetched(node, tree.partition, fetched);
            let other = self.nodes[peer].id.clone();
            let counts = self
                .process(node)
                .compared
                .entry(tree.partition)
                .or_default()
                .entry(other)
                .or_default();
            *counts = *counts || summary.counts;
            self.look_at_refill(node);
        }
    }

    pub(crate) fn is_named(&mut self, node: usize) -> bool {
        let id = self.nodes[node].id.clone();
        let process = self.process(node);
        let member = process.held.document.layout.members.get(&id);
        member.and_then(|member| member.store) == Some(process.store)
    }

    /// What has been asked of enough owners counts again.
    fn look_at_refill(&mut self, node: usize) {
        if !self.process(node).rebuilding {
            return;
        }
        let (me, w) = (self.nodes[node].id.clone(), self.plan.setting.w);
        let nobody = BTreeMap::new();
        for key in 0..self.keys.len() {
            let members = Rc::clone(&self.process(node).held);
            let is_member = |at: &NodeId| members.document.layout.members.contains_key(at);
            let Some(need) = Need::of(&me, &self.counting(node, key), w, is_member) else {
                continue;
            };
            let process = self.nodes[node].process.as_ref().expect("it acts");
            let done = process
                .compared
                .get(&self.keys[key].slot.partition)
                .unwrap_or(&nobody);
            let one = self.bug == Some(Bug::RefillAfterOne) && done.values().any(|counts| *counts);
            let met = one || need.is_met(done, |other| process.reachable[self.index(other)]);
            if met {
                self.nodes[node]
                    .disk
                    .filled
                    .insert(self.keys[key].slot.partition);
            }
        }
        let owned = (0..self.keys.len()).filter(|key| self.counting(node, *key).contains(&me));
        if owned
            .collect::<Vec<_>>()
            .into_iter()
            .all(|key| self.vouches(node, key))
        {
            self.nodes[node].disk.rebuilding = false;
            self.process(node).rebuilding = false;
            self.sights.met(Sight::Refilled);
            self.note(&[16, node as u64], || format!("n{node} is filled again"));
        }
    }
}

/// The answering side, and what both sides read.
impl World {
    pub(super) fn own_nodes(
        &self,
        node: usize,
        tree: Tree,
        level: u8,
        parents: &[u16],
    ) -> Option<Vec<Node>> {
        let leaves = read::leaves(&self.nodes[node].disk.store, tree).ok()?;
        Some(match level {
            0 => vec![leaves.root()],
            _ => leaves.children(level, parents),
        })
    }

    fn own_page(
        &mut self,
        node: usize,
        tree: Tree,
        leaves: &[u16],
        from: Option<&Place>,
    ) -> Option<Page> {
        let copies = self.copies();
        let asked = read::Asked {
            tree,
            leaves,
            from,
            copies: &copies,
        };
        let page = read::page(&self.nodes[node].disk.store, &self.tagger(node)?, &asked);
        let (page, damaged) = page.ok()?;
        for record in damaged {
            let found = self.keys.iter().position(|key| key.record == record);
            if let Some(key) = found {
                self.note_damage(node, key);
            }
        }
        Some(page)
    }

    fn pack(&mut self, node: usize, places: &[Place]) -> Delivery {
        let mut delivery = Delivery::default();
        for place in places {
            let key = self.key(place);
            let key = key.filter(|key| self.is_judged(node, self.keys[*key].slot.partition));
            let read = key.map(|key| self.read(node, key));
            match read.and_then(|read| read.ok().flatten()) {
                Some(object) => delivery.objects.push((place.clone(), object)),
                None => delivery.without.push(place.clone()),
            }
        }
        delivery
    }

    fn take_in_objects(&mut self, node: usize, objects: Vec<(Place, Object)>, why: Why) {
        for (place, object) in objects {
            self.join_for(node, (None, None), &place, object, why);
        }
    }

    pub(crate) fn asked_for_nodes(
        &mut self,
        node: usize,
        by: usize,
        call: u64,
        tree: Tree,
        level: u8,
        parents: &[u16],
    ) {
        let key = self
            .keys
            .iter()
            .position(|key| key.slot.partition == tree.partition);
        if !self.is_judged(node, tree.partition) {
            let failed = Reply::Failed(Failure::Rebuilding);
            return self.reply(node, by, call, failed, Bytes::new());
        }
        if key.is_some_and(|key| !self.is_holder(node, key)) {
            let failed = Reply::Failed(Failure::NotOwner);
            return self.reply(node, by, call, failed, Bytes::new());
        }
        let counts = key.is_none_or(|key| self.vouches(node, key) && self.has_all(node, key));
        let (reply, body) = match self.own_nodes(node, tree, level, parents) {
            Some(nodes) => (Reply::MerkleNodes { counts }, nodes.concat().into()),
            None => (Reply::Failed(Failure::TreeUnclean), Bytes::new()),
        };
        self.reply(node, by, call, reply, body);
    }

    pub(crate) fn asked_for_keys(
        &mut self,
        node: usize,
        by: usize,
        call: u64,
        tree: Tree,
        leaves: &[u16],
        from: Option<&Place>,
    ) {
        let judged = self.is_judged(node, tree.partition);
        let page = judged.then(|| self.own_page(node, tree, leaves, from));
        let (reply, body) = match page.flatten() {
            Some(page) => (Reply::MerkleKeys, message::encode(&page)),
            None => (Reply::Failed(Failure::TreeUnclean), Bytes::new()),
        };
        self.reply(node, by, call, reply, body);
    }

    pub(crate) fn asked_to_exchange(&mut self, node: usize, by: usize, call: u64, body: &[u8]) {
        let Parcel { want, give } =
            message::decode(body).expect("what was encoded here can be decoded");
        let object = |(place, bytes): (Place, Bytes)| {
            (
                place,
                codec::decode(&bytes).expect("what was encoded here can be decoded"),
            )
        };
        if !give.is_empty() && self.is_full_disk(node) {
            let failed = Reply::Failed(Failure::DiskFull);
            return self.reply(node, by, call, failed, Bytes::new());
        }
        let objects = give.into_iter().map(object).collect();
        self.take_in_objects(node, objects, Why::Given(by, call));
        self.submit(
            node,
            Command::After {
                then: Then::Deliver { by, call, want },
            },
        );
    }

    /// All copies are compared until there is nothing left; answers whether they are equal then.
    pub(crate) fn compare_all(&mut self, events: &mut u64) {
        // Two rounds bring everything everywhere; a third one finds all equal.
        for _ in 0..3 {
            for node in 0..self.nodes.len() {
                if self.nodes[node].process.is_some() && self.is_named(node) {
                    self.look_at_refill(node);
                }
                if self.nodes[node].process.is_none() || !self.is_member(node) {
                    continue;
                }
                for peer in 0..self.nodes.len() {
                    self.compare(node, peer);
                    self.go(events);
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.check_leaves(node);
            let process = self.nodes[node].process.as_ref();
            let lost = process.is_some_and(|process| process.rebuilding && self.nodes.len() > 1);
            if lost && self.is_member(node) {
                let found = format!("n{node} was compared with everybody and is not filled");
                self.hold(Err(Violation {
                    check: "calm fills what was lost",
                    found,
                }));
            }
        }
        self.check_roots();
    }

    /// Each leaf of a node's disk is the sum of its objects.
    pub(crate) fn check_leaves(&mut self, node: usize) {
        let key = self
            .nodes
            .iter()
            .find_map(|node| node.process.as_ref()?.held.document.cluster_key);
        let Some(tagger) = key.map(|key| Tagger::new(&key)) else {
            return;
        };
        let disk = &self.nodes[node].disk;
        let known = |key: &&super::Key| {
            let damaged = disk.damaged.contains(&key.record);
            !damaged && !disk.spoiled.contains(&key.slot.partition)
        };
        let held = self.keys.iter().filter(known).filter_map(|key| {
            let object = self.nodes[node].disk.encoded(&key.record)?;
            Some((&key.slot, object))
        });
        let right = leaves::sums(&tagger, held);
        let found = leaves::check(&self.nodes[node].disk.store, &right);
        self.hold(found.map_err(|violation| Violation {
            found: format!("n{node}: {}", violation.found),
            ..violation
        }));
    }
}
