//! The registry's task: owns the machine of `sibyl-core`, performs its effects, publishes what is chosen.
//!
//! Everything that happens to the registry comes through one bounded queue. Effects are performed in order,
//! and a persist is synced before anything behind it happens: promises in the watermark file, the chosen
//! document in the store. What is chosen is published as a [`View`] that the rest of the node reads
//! without waiting. The task decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use sibyl_core::id::{Actor, NodeId, Partition};
use sibyl_core::message::{self, Reply, Request};
use sibyl_core::registry::{
    Alarm, Ballot, Change, Document, Effect, Event, Machine, Message, OpenError, Outcome, Secret,
    Secrets, Slot,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::outside;
use crate::peer::{Net, Outgoing};
use crate::replica::Replica;
use crate::store::Watermark;
use crate::telemetry::metrics::RpcResult;
use crate::telemetry::{Metrics, Span, Tracer};

mod gaining;
mod handle;
pub mod joining;
mod knocks;
mod recovering;
mod rpc;
mod view;

use gaining::gained;
pub use handle::{ChangeFailed, Registry};
pub use knocks::Knocks;
pub use recovering::{Planned, present};
pub use rpc::{result_of_call, rpc_of_message};
pub use view::View;

/// Where the chosen document lies among the node's own records.
pub const CHOSEN: &str = "registry/chosen";
/// The record that says that this store was begun by a member which the registry knew with another one: what
/// that one held is not here.
pub const REBUILDING: &str = "rebuilding";
/// Where a store says that it began when the cluster was there already.
pub const JOINED: &str = "joined";
/// What that record says once everything has been fetched from other owners.
const WHOLE: &[u8] = b"0";
/// The one slot of the watermark file that holds the machine's promises.
const PROMISES: u64 = 1;
/// The most events that wait; a sender beyond it waits, a message of a peer beyond it is dropped, which
/// the registry's protocol allows.
const QUEUE: usize = 1024;
/// How long a message to a peer may take before it counts as not delivered.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer that is no member any more is still spoken to: it should hear why from somebody.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a node that lost its store waits before it asks again to have the new one named.
const NAME_AGAIN: Duration = Duration::from_secs(2);

enum Input {
    Event(Event),
    /// Ask again to have this node's new store named.
    NameStore,
    /// Let a peer go, unless it is a member again.
    Forget(NodeId),
    /// A peer's message, with the span under which it is handled.
    Heard {
        from: NodeId,
        message: Message,
        span: Option<Box<Span>>,
    },
    Change {
        change: Change,
        span: Box<Span>,
        done: Answer,
    },
    /// The operator says that a majority is lost for good.
    Recover {
        epoch: u64,
        span: Box<Span>,
        done: Answer,
    },
    /// The operator asks what that would make.
    PlanRecovery {
        epoch: u64,
        done: oneshot::Sender<Result<Planned, ChangeFailed>>,
    },
}

/// Where whoever asked for a change hears of it.
type Answer = oneshot::Sender<Result<Arc<View>, ChangeFailed>>;

/// What the task stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Its store.
    pub store: Actor,
    /// Document 1, from the flags.
    pub first: Document,
    /// Where the chosen document is kept.
    pub replica: Replica,
    /// Where promises are kept.
    pub watermark: Arc<Watermark>,
    /// Starts spans.
    pub tracer: Tracer,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The machine, opened, before the network is there.
pub struct Opened {
    ground: Ground,
    machine: Machine,
    view: watch::Sender<Arc<View>>,
    alarms: Arc<watch::Sender<BTreeMap<String, String>>>,
    inbox: mpsc::Sender<Input>,
    events: mpsc::Receiver<Input>,
    waiting: Arc<AtomicUsize>,
    rebuilding: Arc<AtomicBool>,
    filled: Arc<RwLock<BTreeSet<Partition>>>,
    knocks: Knocks,
}

/// Why the registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The record of the chosen document cannot be read.
    #[error("the registry's record cannot be read: {0}")]
    Unreadable(String),
    /// What was kept contradicts itself: the store lost data.
    #[error(transparent)]
    Contradiction(#[from] OpenError),
}

impl Opened {
    /// Opens what was kept.
    ///
    /// # Errors
    /// [`StartError::Contradiction`] means amnesia.
    pub fn open(ground: Ground) -> Result<Self, StartError> {
        let chosen = ground
            .replica
            .kept(CHOSEN)
            .map_err(|why| StartError::Unreadable(why.to_string()))?;
        let promises = ground.watermark.promised(PROMISES);
        let (me, first) = (ground.me.clone(), ground.first.clone());
        let machine = Machine::open(
            me,
            ground.store,
            first,
            chosen.as_deref(),
            promises.as_deref(),
        )?;
        let marked = ground
            .replica
            .kept(REBUILDING)
            .map_err(|why| StartError::Unreadable(why.to_string()))?;
        let marked = marked.is_some_and(|mark| mark != WHOLE);
        if let Some(key) = &machine.held().document.cluster_key {
            ground.replica.use_cluster_key(key);
        }
        let rebuilding = marked || ground.watermark.is_rebuilding() || lost(&machine);
        let view = watch::Sender::new(Arc::new(View::of(machine.held().clone())));
        let (inbox, events) = mpsc::channel(QUEUE);
        let (alarms, waiting) = (Arc::default(), Arc::default());
        let rebuilding = Arc::new(AtomicBool::new(rebuilding));
        Ok(Self {
            ground,
            machine,
            view,
            alarms,
            inbox,
            events,
            waiting,
            rebuilding,
            filled: Arc::default(),
            knocks: Knocks::default(),
        })
    }

    /// The handle the rest of the node uses.
    pub fn handle(&self) -> Registry {
        Registry {
            inbox: self.inbox.clone(),
            view: self.view.subscribe(),
            alarms: Arc::clone(&self.alarms),
            knocks: self.knocks.clone(),
            tracer: self.ground.tracer.clone(),
            waiting: Arc::clone(&self.waiting),
            rebuilding: Arc::clone(&self.rebuilding),
            filled: Arc::clone(&self.filled),
        }
    }

    /// Starts the task.
    pub fn start(self, net: Net) {
        let (task, events) = self.task(net);
        tokio::spawn(task.run(events));
    }

    fn task(self, net: Net) -> (Task, mpsc::Receiver<Input>) {
        let task = Task {
            ground: self.ground,
            machine: self.machine,
            view: self.view,
            alarms: self.alarms,
            inbox: self.inbox.downgrade(),
            net,
            waiting: HashMap::new(),
            next: 0,
            proposing: None,
            naming: None,
            ballots: BTreeSet::new(),
            rebuilding: self.rebuilding,
        };
        // What is not upgraded any more ends the task.
        (task, self.events)
    }
}

struct Task {
    ground: Ground,
    machine: Machine,
    view: watch::Sender<Arc<View>>,
    alarms: Arc<watch::Sender<BTreeMap<String, String>>>,
    inbox: mpsc::WeakSender<Input>,
    net: Net,
    waiting: HashMap<u64, (Box<Span>, Answer)>,
    next: u64,
    /// The change whose ballots are under way: its span is the parent of what is sent.
    proposing: Option<u64>,
    /// The wish to have the new store named, while it is under way.
    naming: Option<u64>,
    /// The ballots it took so far.
    ballots: BTreeSet<Ballot>,
    rebuilding: Arc<AtomicBool>,
}

/// Whether the registry names another store of this node: the one here was begun after that was lost.
fn lost(machine: &Machine) -> bool {
    machine.amnesiac() && !machine.forming()
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Input>) {
        // Subscribed before anything is sent: a peer that connects meanwhile must be heard of.
        let mut changes = self.net.changes();
        let mut seen = self.net.registry_seen();
        changes.mark_changed();
        seen.mark_changed();
        let view = Arc::clone(&self.view.borrow());
        // Every line is as high as it can be at a start.
        if let Err(error) = self.owners_changed(&view, &[]).await {
            return self.give_up(&error);
        }
        self.introduce();
        if self.machine.forming() {
            let secret = || Secret(outside::rng().random());
            let secrets = Secrets {
                context_key: secret(),
                cluster_key: secret(),
            };
            self.take(Event::Form(secrets)).await;
        }
        self.name_store().await;
        let mut reached = BTreeSet::new();
        loop {
            tokio::select! {
                input = events.recv() => match input {
                    Some(Input::Event(event)) => self.take(event).await,
                    Some(Input::Heard { from, message, span }) => {
                        self.take(Event::Message { from, message }).await;
                        drop(span);
                    }
                    Some(Input::Change { change, span, done }) => self.propose(change, span, done).await,
                    Some(Input::Recover { epoch, span, done }) => self.recover(epoch, span, done).await,
                    Some(Input::PlanRecovery { epoch, done }) => self.plan_recovery(epoch, done),
                    Some(Input::NameStore) => self.name_store().await,
                    Some(Input::Forget(node)) => self.forget(&node),
                    None => return,
                },
                Ok(()) = changes.changed() => {
                    let now: BTreeSet<NodeId> =
                        self.net.peers().into_iter().filter(|peer| peer.reachable).map(|peer| peer.node_id).collect();
                    for peer in now.difference(&reached).cloned().collect::<Vec<_>>() {
                        self.take(Event::Reached(peer)).await;
                    }
                    // The last attempt may have found too few of them.
                    self.name_store().await;
                    reached = now;
                }
                Ok(()) = seen.changed() => {
                    let latest = seen.borrow_and_update().clone();
                    if let Some(from) = latest.from {
                        self.take(Event::Seen { from, number: latest.number }).await;
                    }
                }
                else => return,
            }
        }
    }

    async fn propose(&mut self, change: Change, span: Box<Span>, done: Answer) {
        self.next += 1;
        self.waiting.insert(self.next, (span, done));
        if self.proposing.is_none() {
            self.proposing = Some(self.next);
            self.ballots.clear();
        }
        self.take(Event::Propose {
            id: self.next,
            change,
        })
        .await;
    }

    /// An amnesiac asks the others to name its new store; until then it does not vote. Once it is named nothing
    /// else tells that an empty folder took a member's place, so that is marked on disk before.
    async fn name_store(&mut self) {
        if !lost(&self.machine) || self.naming.is_some() {
            return;
        }
        if let Err(error) = self.keep(REBUILDING, Bytes::from_static(b"1")).await {
            return self.give_up(&error);
        }
        let change = Change::NameStore {
            node: self.ground.me.clone(),
            store: self.ground.store,
        };
        self.next += 1;
        self.naming = Some(self.next);
        self.take(Event::Propose {
            id: self.next,
            change,
        })
        .await;
    }

    /// Performs what follows from an event, all of it before anything else is begun.
    async fn take(&mut self, event: Event) {
        let number = self.machine.held().document.number;
        for effect in self.machine.handle(event) {
            if let Err(error) = self.perform(effect).await {
                return self.give_up(&error);
            }
        }
        if self.machine.held().document.number > number {
            Box::pin(self.name_store()).await;
        }
    }

    /// What could not be persisted was not done: nothing more may be said, and the node must stop.
    fn give_up(&self, why: &str) {
        tracing::error!(why, "the registry cannot persist");
        let why = format!("the registry cannot persist: {why}");
        self.ground.replica.fail(why);
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Persist {
                slot: Slot::Chosen,
                bytes,
            } => {
                self.gain_before(&bytes).await?;
                self.keep(CHOSEN, bytes.into()).await?;
            }
            Effect::Persist {
                slot: Slot::Promises,
                bytes,
            } => {
                let watermark = Arc::clone(&self.ground.watermark);
                let written = outside::aside(move || watermark.promise(PROMISES, bytes.into()));
                written
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?;
            }
            Effect::Send { to, message } => self.send(to, message),
            Effect::Chosen(held) => {
                let number = held.document.number;
                tracing::info!(number, digest = %held.digest, "a registry document is in force");
                if lost(&self.machine) {
                    tracing::error!(
                        "the registry names another store of this node: what that one held is lost"
                    );
                    self.rebuilding.store(true, Ordering::Release);
                }
                if let Some(key) = &held.document.cluster_key {
                    // Before anybody can write by this document.
                    self.ground.replica.use_cluster_key(key);
                }
                let view = Arc::new(View::of(*held));
                let before = self.view.send_replace(Arc::clone(&view));
                self.alarms
                    .send_modify(|alarms| alarms.retain(|kind, _| kind != "flags"));
                if view.since() > before.since() {
                    self.owners_changed(&view, &gained(&self.ground.me, &before, &view))
                        .await?;
                }
                // Only now do peers hear that this node goes by it.
                self.introduce();
            }
            Effect::Timer {
                token,
                min_ms,
                max_ms,
            } => {
                let after = Duration::from_millis(outside::rng().random_range(min_ms..=max_ms));
                self.later(after, Input::Event(Event::Timer { token }));
            }
            Effect::Finished { id, outcome } => self.finish(id, outcome),
            Effect::Alarm(alarm) => self.alarm(&alarm).await,
        }
        Ok(())
    }

    async fn keep(&self, key: &'static str, bytes: Bytes) -> Result<(), String> {
        let kept = self.ground.replica.remember(key, bytes).await;
        kept.map_err(|failure| failure.to_string())
    }

    /// Tells the network who the members are and which lineage this node belongs to.
    fn introduce(&self) {
        let document = &self.machine.held().document;
        for (node, member) in document
            .layout
            .members
            .iter()
            .filter(|(node, _)| **node != self.ground.me)
        {
            self.net.set_peer(node.clone(), member.peer_addr.clone());
        }
        let mut identity = self.net.identity();
        identity.lineage = document.lineage();
        self.net.set_identity(identity);
        self.net.set_registry(document.number);
        let members = &document.layout.members;
        for peer in self.net.peers() {
            if !members.contains_key(&peer.node_id) {
                self.later(FAREWELL, Input::Forget(peer.node_id));
            }
        }
    }

    fn forget(&self, node: &NodeId) {
        let members = &self.machine.held().document.layout.members;
        if !members.contains_key(node) {
            tracing::info!(peer = %node, "not a member any more: its connections end");
            self.net.remove_peer(node);
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if let Message::Prepare { ballot, .. } = &message {
            self.ballots.insert(*ballot);
        }
        let parent = self
            .proposing
            .and_then(|id| self.waiting.get(&id))
            .map(|(span, _)| span);
        let rpc = rpc_of_message(&message);
        let span = parent
            .zip(rpc)
            .map(|(parent, rpc)| parent.rpc_client(rpc, &to));
        let outgoing = Outgoing {
            head: message::encode(&Request::Registry),
            body: message::encode(&message),
            timeout: SEND_TIMEOUT,
            registry: self.machine.held().document.number,
            span: span.as_ref().map(Span::context),
        };
        let call = self.net.call(&to, outgoing);
        let (inbox, metrics) = (self.inbox.clone(), Arc::clone(&self.ground.metrics));
        let began = Instant::now();
        tokio::spawn(async move {
            let result = match call.await.map(|answer| message::decode(&answer.head)) {
                Ok(Ok(Reply::Joined)) => RpcResult::Ok,
                Ok(_) => RpcResult::Rejected,
                Err(error) => result_of_call(&error),
            };
            if let Some(rpc) = rpc {
                metrics.rpc(rpc, to.as_str(), result, began.elapsed(), span.as_ref());
            }
            let delivered = result == RpcResult::Ok;
            if let (false, Some(span)) = (delivered, &span) {
                span.fail("unreachable", "the message was not delivered");
            }
            if let (false, Some(inbox)) = (delivered, inbox.upgrade()) {
                // Closed: the node is stopping.
                let _gone = inbox.send(Input::Event(Event::Unreachable(to))).await;
            }
        });
    }

    fn later(&self, after: Duration, input: Input) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(inbox) = inbox.upgrade() {
                // Closed: the node is stopping.
                let _gone = inbox.send(input).await;
            }
        });
    }

    fn finish(&mut self, id: u64, outcome: Outcome) {
        if self.naming == Some(id) {
            self.naming = None;
            if !matches!(outcome, Outcome::Done { .. }) {
                self.later(NAME_AGAIN, Input::NameStore);
            }
        }
        let waiting = self.waiting.remove(&id);
        self.proposing = self.waiting.keys().min().copied();
        // Alone nobody is asked, and one ballot does.
        let ballots = std::mem::take(&mut self.ballots).len().max(1);
        let Some((span, done)) = waiting else { return };
        let view = Arc::clone(&self.view.borrow());
        let chosen = matches!(outcome, Outcome::Done { .. });
        let proof = view.held.proof.as_ref().filter(|_| chosen);
        span.registry_settled(
            ballots as u64,
            proof.map_or(0, |proof| proof.accepts.len()),
            chosen,
        );
        let result = match outcome {
            Outcome::Done { .. } => Ok(view),
            Outcome::Refused(error) => Err(ChangeFailed::Refused(error)),
            Outcome::GaveUp {
                missing,
                members,
                unknown,
            } => Err(ChangeFailed::NoMajority {
                missing,
                members,
                unknown,
            }),
            Outcome::Unknown => Err(ChangeFailed::Unknown),
            Outcome::Busy => Err(ChangeFailed::Busy),
        };
        // The client may have left.
        let _gone = done.send(result);
    }

    async fn alarm(&self, alarm: &Alarm) {
        tracing::error!(%alarm, "registry");
        let kind = match alarm {
            Alarm::FlagsDiffer { .. } => "flags".to_owned(),
            Alarm::Rejected { peer, .. } => format!("rejected/{peer}"),
            Alarm::Forgotten(_) => "forgotten".to_owned(),
        };
        if matches!(alarm, Alarm::Forgotten(_)) {
            // The node stops, and its next start begins a new store under a new actor.
            let watermark = Arc::clone(&self.ground.watermark);
            let disowned = outside::aside(move || watermark.disown()).await;
            if !matches!(disowned, Ok(Ok(()))) {
                tracing::error!(?disowned, "the store cannot be disowned");
            }
            self.ground.replica.fail(alarm.to_string());
        }
        self.alarms.send_modify(|alarms| {
            alarms.insert(kind, alarm.to_string());
        });
    }
}
