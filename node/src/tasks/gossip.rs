//! Gossip's task: owns the membership of `sibyl-core`, performs its effects, publishes what it thinks.
//!
//! Everything that happens to membership comes through one bounded queue, or is a tick when the value says that one
//! is due. Effects are performed in order; a raised incarnation is on disk before anything behind it is said.
//! The task decides nothing, and knows the registry only as a list of members that is handed to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use rand::RngExt as _;
use sibyl_core::id::{Actor, NodeId};
use sibyl_core::membership::{
    self, Answer, Effect, Event, Marks, Membership, Message, Moment, Question, Standing, Timing,
};
use sibyl_core::message::{self, Failure, Reply};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use crate::outside;
use crate::peer::{Net, Responder};
use crate::replica::Replica;
use crate::store::Watermark;
use crate::telemetry::metrics::GossipKind;
use crate::telemetry::{Metrics, Span, StateChange, Tracer};

mod calls;
mod handle;

pub use handle::{Gossip, Notice, Published, Suspected};

/// The most events that wait. A message beyond it is refused, an outcome beyond it is forgotten: both come again.
const QUEUE: usize = 1024;
/// Notices that a slow subscriber may lag behind: each is a member that returned, and a cluster has at most 1,024.
const NOTICES: usize = 1024;
/// How often the published view is made anew at most: far faster than anybody looks.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

enum Input {
    /// A peer asks.
    Asked {
        from: NodeId,
        message: Message<Question>,
        span: Option<Span>,
        reply: Responder,
    },
    /// A call ended; `None`: without a usable answer.
    Ended {
        call: u64,
        to: NodeId,
        answer: Option<Message<Answer>>,
        span: Option<Arc<Span>>,
    },
    /// Somebody's request to a member ended.
    Outcome { member: NodeId, answered: bool },
}

/// Who is in the cluster, by the registry document in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The document's number.
    pub number: u64,
    /// Whom it names, and as what.
    pub members: BTreeMap<NodeId, Standing>,
}

/// What the task stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Its store.
    pub store: Actor,
    /// How fast it all goes.
    pub timing: Timing,
    /// Says how far the store has come, and stops the node.
    pub replica: Replica,
    /// Keeps the incarnation.
    pub watermark: Arc<Watermark>,
    /// Who is a member.
    pub listed: watch::Receiver<Listed>,
    /// Told who acts on a higher registry number.
    pub on_behind: Box<dyn Fn(NodeId, u64) + Send + Sync>,
    /// Starts spans.
    pub tracer: Tracer,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The membership, before the network is there.
pub struct Opened {
    ground: Ground,
    value: Membership,
    began: Instant,
    inbox: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    published: watch::Sender<Arc<Published>>,
    notices: broadcast::Sender<Notice>,
    away: Arc<AtomicUsize>,
}

impl Opened {
    /// A membership that knows whom the registry names.
    pub fn new(ground: Ground) -> Self {
        let began = Instant::now();
        let mut value = Membership::new(
            ground.me.clone(),
            ground.store,
            ground.watermark.incarnation(),
            marks(&ground),
            ground.timing,
            moment(began),
        );
        let listed = ground.listed.borrow().clone();
        // Nothing is to be done before the first tick: nobody was heard of.
        let _nothing = value.handle(listed.into(), moment(began));
        let (inbox, inputs) = mpsc::channel(QUEUE);
        let published = Published::new(value.view(), began, None);
        Self {
            ground,
            value,
            began,
            inbox,
            inputs,
            published: watch::Sender::new(Arc::new(published)),
            notices: broadcast::Sender::new(NOTICES),
            away: Arc::default(),
        }
    }

    /// The handle the rest of the node uses.
    pub fn handle(&self) -> Gossip {
        Gossip {
            inbox: self.inbox.clone(),
            published: self.published.subscribe(),
            notices: self.notices.clone(),
            away: Arc::clone(&self.away),
            tracer: self.ground.tracer.clone(),
        }
    }

    /// Starts the task.
    pub fn start(self, net: Net) {
        let task = Task {
            ground: self.ground,
            value: self.value,
            began: self.began,
            inbox: self.inbox.downgrade(),
            net,
            asks: HashMap::new(),
            next_ask: 0,
            round: 0,
            current: None,
            published: self.published,
            published_at: self.began,
            notices: self.notices,
            away: self.away,
            suspected: None,
            reached: BTreeSet::new(),
        };
        drop(self.inbox);
        tokio::spawn(task.run(self.inputs));
    }
}

impl From<Listed> for Event {
    fn from(Listed { number, members }: Listed) -> Self {
        Self::Registry { number, members }
    }
}

struct Task {
    ground: Ground,
    value: Membership,
    /// When the task's clock was 0.
    began: Instant,
    inbox: mpsc::WeakSender<Input>,
    net: Net,
    /// Questions whose answers are on their way: as many as relays at most, and the one in hand.
    asks: HashMap<u64, (Responder, Option<Arc<Span>>)>,
    next_ask: u64,
    round: u64,
    /// The span of what is being handled.
    current: Option<Arc<Span>>,
    published: watch::Sender<Arc<Published>>,
    published_at: Instant,
    notices: broadcast::Sender<Notice>,
    /// How many members are not alive.
    away: Arc<AtomicUsize>,
    suspected: Option<Suspected>,
    /// Peers the transport reached when it was last asked.
    reached: BTreeSet<NodeId>,
}

impl Task {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut changes = self.net.changes();
        changes.mark_changed();
        let mut listed = self.ground.listed.clone();
        listed.mark_changed();
        loop {
            let due = self.began + Duration::from_millis(self.value.due());
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.apply(input).await,
                    None => return,
                },
                () = tokio::time::sleep_until(due) => self.tick().await,
                Ok(()) = changes.changed() => self.compare_reached().await,
                Ok(()) = listed.changed() => {
                    let now = listed.borrow_and_update().clone();
                    self.take(now.into()).await;
                }
                else => return,
            }
        }
    }

    async fn apply(&mut self, input: Input) {
        match input {
            Input::Asked {
                from,
                message,
                span,
                reply,
            } => {
                self.next_ask += 1;
                let ask = self.next_ask;
                let span = span.map(Arc::new);
                self.current.clone_from(&span);
                self.asks.insert(ask, (reply, span));
                self.take(Event::Asked { ask, from, message }).await;
            }
            Input::Ended {
                call,
                to,
                answer,
                span,
            } => {
                self.current = span;
                let event = match answer {
                    Some(message) => Event::Answered { call, message },
                    None => Event::Unanswered { call },
                };
                self.take(event).await;
                self.note_skew(&to);
            }
            Input::Outcome { member, answered } => {
                self.take(Event::Outcome { member, answered }).await;
            }
        }
        self.current = None;
    }

    async fn tick(&mut self) {
        let marks = marks(&self.ground);
        self.take(Event::Tick { marks }).await;
        self.current = None;
    }

    /// The transport reaches somebody, or does not any more: a reason to look.
    async fn compare_reached(&mut self) {
        let peers = self.net.peers().into_iter().filter(|peer| peer.reachable);
        let now: BTreeSet<NodeId> = peers.map(|peer| peer.node_id).collect();
        let before = std::mem::replace(&mut self.reached, now.clone());
        for member in before.symmetric_difference(&now).cloned() {
            let answered = now.contains(&member);
            self.take(Event::Outcome { member, answered }).await;
        }
    }

    /// Performs what follows from an event, all of it before anything else is begun.
    async fn take(&mut self, event: Event) {
        let mut told = false;
        for effect in self.value.handle(event, moment(self.began)) {
            told |= !matches!(effect, Effect::Send { .. } | Effect::Answer { .. });
            if let Err(why) = self.perform(effect).await {
                tracing::error!(why, "gossip cannot persist");
                return self
                    .ground
                    .replica
                    .fail(format!("gossip cannot persist: {why}"));
            }
        }
        self.publish(told);
    }

    fn publish(&mut self, at_once: bool) {
        if !at_once && self.published_at.elapsed() < PUBLISH_EVERY {
            return;
        }
        self.published_at = Instant::now();
        let view = self.value.view();
        let away = view.members.len() as u64 - view.counts()[0];
        let away = usize::try_from(away).unwrap_or(usize::MAX);
        self.away.store(away, std::sync::atomic::Ordering::Relaxed);
        let published = Published::new(view, self.began, self.suspected.clone());
        self.published.send_replace(Arc::new(published));
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Send {
                call,
                to,
                message,
                timeout_ms,
                cause,
            } => {
                let timeout = Duration::from_millis(timeout_ms);
                self.send(call, to, &message, timeout, &cause);
            }
            Effect::Answer { ask, message } => self.answer(ask, &message),
            Effect::Persist { incarnation } => {
                let watermark = Arc::clone(&self.ground.watermark);
                let raised = outside::aside(move || watermark.raise_incarnation(incarnation));
                let raised = raised.await.map_err(|error| error.to_string())?;
                raised.map_err(|error| error.to_string())?;
                tracing::info!(incarnation, "this node raised its incarnation");
            }
            Effect::Changed {
                member,
                from,
                to,
                life,
                why,
            } => self.changed(StateChange {
                member: &member,
                from,
                to,
                incarnation: life.incarnation,
                why: why.as_str(),
            }),
            Effect::Returned {
                member,
                incarnation,
            } => {
                tracing::info!(%member, incarnation, "a member is there");
                self.notify(Notice::Returned {
                    member,
                    incarnation,
                    cause: self.cause(),
                });
            }
            Effect::WasSuspected { by, at } => {
                let incarnation = at.incarnation;
                tracing::warn!(%by, incarnation, "this node was suspected: it may have missed writes");
                let cause = self.cause();
                self.suspected = Some(Suspected {
                    by: by.clone(),
                    heard: Instant::now(),
                });
                self.notify(Notice::WasSuspected { by, cause });
            }
            Effect::Agreed { member, after_ms } => {
                tracing::debug!(%member, after_ms, "all who are alive agree on a member");
                let after = Duration::from_millis(after_ms);
                self.ground.metrics.gossip_converged(after);
            }
            Effect::Behind { member, number } => (self.ground.on_behind)(member, number),
            Effect::Forgotten { by, was, marks } => self.forgotten(&by, was, marks).await,
        }
        Ok(())
    }

    fn changed(&mut self, change: StateChange<'_>) {
        let StateChange {
            member, from, to, ..
        } = change;
        let (was, is) = (from.as_str(), to.as_str());
        tracing::info!(%member, was, is, why = change.why, "a member is seen otherwise");
        self.ground.metrics.gossip_changed(from, to);
        match self.current.as_ref().filter(|span| span.is_recording()) {
            Some(span) => span.state_changed(change),
            None => self.current = Some(Arc::new(self.ground.tracer.gossip_change(change))),
        }
    }

    /// Where work that follows from this change links back to.
    fn cause(&self) -> Option<sibyl_core::id::Trace> {
        let recorded = self.current.as_ref().filter(|span| span.is_recording());
        recorded.map(|span| span.context())
    }

    fn notify(&self, notice: Notice) {
        // Nobody may be listening yet.
        let _unheard = self.notices.send(notice);
    }

    /// Peers know more of this store than it does: the node stops, and its next start begins a new store.
    async fn forgotten(&self, by: &NodeId, was: membership::Life, marks: Marks) {
        let why = format!(
            "{by} remembers this store in incarnation {} with counter {} and batch {}, which is more than it knows itself: it has lost data, and the next start begins a new one",
            was.incarnation, marks.counter, marks.synced
        );
        tracing::error!(why, "the store has forgotten");
        let watermark = Arc::clone(&self.ground.watermark);
        let disowned = outside::aside(move || watermark.disown()).await;
        if !matches!(disowned, Ok(Ok(()))) {
            tracing::error!(?disowned, "the store cannot be disowned");
        }
        self.ground.replica.fail(why);
    }

    fn answer(&mut self, ask: u64, message: &Message<Answer>) {
        let Some((reply, span)) = self.asks.remove(&ask) else {
            return;
        };
        let number = self.ground.listed.borrow().number;
        let body = membership::encode(message);
        let (kind, moved) = match &message.body {
            Answer::Exchanged { records, .. } => (GossipKind::Pull, records.len()),
            Answer::Heard => (GossipKind::Push, 0),
            Answer::Pong => (GossipKind::Ping, 0),
            Answer::PongFor { .. } => (GossipKind::PingReq, 0),
        };
        if let Some(span) = span.filter(|_| moved > 0) {
            span.gossip_moved(moved, 0);
        }
        self.ground.metrics.gossip_message(kind, body.len());
        reply.answer(message::encode(&Reply::Gossip), body, number);
    }

    fn note_skew(&self, to: &NodeId) {
        let view = self.published.borrow();
        if let Some(skew_ms) = view.member(to).and_then(|member| member.skew_ms) {
            self.ground.metrics.clock_skew(to.as_str(), skew_ms);
        }
    }
}

/// Refuses a question that cannot be read or taken.
fn refuse(reply: Responder, failure: Failure, number: u64) {
    let head = message::encode(&Reply::Failed(failure));
    reply.answer(head, Bytes::new(), number);
}

fn marks(ground: &Ground) -> Marks {
    Marks {
        counter: ground.replica.highest_counter(),
        synced: ground.watermark.synced_batch(),
    }
}

fn moment(began: Instant) -> Moment {
    let wall = outside::now().duration_since(UNIX_EPOCH);
    let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Moment {
        now_ms: whole(began.elapsed()),
        wall_ms: whole(wall.unwrap_or_default()),
        draw: outside::rng().random(),
    }
}
