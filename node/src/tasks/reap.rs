//! Reaping: forgets keys that hold nothing but tombstones, once no older copy of them can come back.
//!
//! Each interval a node says to every member what it has cleared of which epoch and hears the same (`core: reap`
//! decides), seals what is deleted here, and has the owners of what all sealed long enough ago forget it. `words` is
//! the talk about epochs, `forget` seals and forgets, `judge` holds what a restored store brings against what was
//! reaped since. Nobody coordinates: the first owner of a partition asks the others, and an order that is lost leaves
//! a tombstone where it was. It knows no keys' meaning and never runs user code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::{Actor, NodeId};
use sibyl_core::message::{self, Failure, Reply, Request};
use sibyl_core::reap::{Effect, Event, Hold, Machine, Own, STEPS};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::door::Door;
use crate::peer::{Net, Outgoing};
use crate::replica::Replica;
use crate::tasks::registry::{Registry, View, result_of_call};
use crate::telemetry::metrics::RpcResult;
use crate::telemetry::{Metrics, Rpc, Span};

mod forget;
mod judge;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use crate::replica::FLOOR;

/// Where the epoch lies among the node's own records: the one it is in, or is about to enter.
pub const EPOCH: &str = "reap/epoch";
/// How long a peer may take for an answer: it syncs, behind a full queue of its writer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An epoch that lasts so many intervals is worth an operator's look: members speak once in each.
const STALLED: u32 = 10;
/// The most members that are named as those for whom hints are kept: a line, not a page.
const MOST_NAMED: usize = 8;
/// What the registry's notes call it.
const NOTE: &str = "reaping";

/// What reaping stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Lets clients go first.
    pub door: Door,
    /// Its copies.
    pub replica: Replica,
    /// Its peers.
    pub net: Net,
    /// Who owns what.
    pub registry: Registry,
    /// How long it waits between two rounds; `None`: it takes no part, and so nobody reaps.
    pub interval: Option<Duration>,
    /// For how long receipts of deleted keys are kept, in milliseconds.
    pub window_ms: u64,
    /// Whether copies lie here that are others' now.
    pub leftover: Box<dyn Fn() -> bool + Send + Sync>,
    /// The clock, in milliseconds since the Unix epoch.
    pub now_ms: fn() -> u64,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// How reaping stands, at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether this node takes part.
    pub active: bool,
    /// The epoch this node is in.
    pub epoch: u64,
    /// How long it has been in it.
    pub age: Duration,
    /// Why the epoch has not ended, a sentence each.
    pub waits_for: Vec<String>,
    /// Copies that are sealed here.
    pub sealed: u64,
    /// Copies that were forgotten since the start.
    pub reaped: u64,
    /// Records of a restored store that nobody sees, for they may have been reaped.
    pub aside: usize,
}

/// A handle. Clones are one.
#[derive(Clone)]
pub struct Reaping {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    state: Mutex<State>,
    /// Rings when an epoch is to be put on disk.
    bell: Notify,
}

struct State {
    machine: Machine,
    /// The store was in no epoch when this process began.
    fresh: bool,
    /// What is to be put on disk.
    keep: Option<u64>,
    entered: Instant,
    /// The next look for copies to be sealed.
    next_scan: Instant,
    /// The epoch of the last such look.
    scanned: u64,
    aside: usize,
}

impl Reaping {
    /// Reaping on this ground; nothing happens until [`Reaping::start`].
    pub fn new(ground: Ground) -> Self {
        // What cannot be read is as good as a store that was in no epoch: it learns it from the others.
        let kept = ground.replica.kept(EPOCH).ok().flatten();
        let kept = kept.and_then(|bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?)));
        let machine = Machine::new(ground.me.clone(), ground.replica.actor(), kept);
        ground.net.flights().enter(machine.epoch());
        // A store that was in no epoch yet does not vouch for what it gains meanwhile.
        if kept.is_some() {
            ground.replica.entered(machine.epoch());
        }
        let state = State {
            machine,
            fresh: kept.is_none(),
            keep: None,
            entered: Instant::now(),
            next_scan: Instant::now(),
            scanned: 0,
            aside: 0,
        };
        let inner = Inner {
            ground,
            state: Mutex::new(state),
            bell: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts the tasks. A restored store is judged even where nothing is reaped.
    pub fn start(&self) {
        if self.inner.ground.replica.is_judging() {
            tokio::spawn(self.clone().judge_all());
        }
        if let Some(interval) = self.inner.ground.interval {
            tokio::spawn(self.clone().run(interval));
        }
    }

    fn ground(&self) -> &Ground {
        &self.inner.ground
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The machine takes an event as a whole.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, interval: Duration) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut view = self.ground().registry.watch();
        if view.wait_for(|view| !view.forming()).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                () = self.inner.bell.notified() => {}
                _ = tick.tick() => {
                    self.look();
                    self.talk().await;
                    self.look();
                    self.seal_all().await;
                    self.ground().door.yield_to_clients().await;
                    self.forget_ripe().await;
                    self.report(interval);
                }
            }
            if !self.keep().await {
                return;
            }
        }
    }

    /// Tells the machine what is in force and what is under way here.
    fn look(&self) {
        let ground = self.ground();
        let view = ground.registry.view();
        let members = members(&view);
        let mut state = self.state();
        let number = view.number();
        let members = &members;
        self.tell(&mut state, Event::Layout { number, members });
        // Looked at under the lock: no epoch is entered in between.
        let own = self.own(&view, members);
        self.tell(&mut state, Event::Own(own));
    }

    fn own(&self, view: &View, members: &BTreeMap<NodeId, Option<Actor>>) -> Own {
        let ground = self.ground();
        let flights = ground.net.flights();
        let strangers = ground.net.callers().into_iter();
        Own {
            oldest: flights.oldest(),
            unsettled: ground.net.unsettled(),
            hints: ground
                .replica
                .hints(|ledger| ledger.targets().any(|(_, kept)| kept.count > 0)),
            moving: view.document().layout.change.is_some() || (ground.leftover)(),
            rebuilding: ground.registry.is_rebuilding() || ground.replica.is_judging(),
            strangers: strangers
                .filter(|node| !members.contains_key(node))
                .collect(),
            relayed: flights.relayed(),
        }
    }

    fn tell(&self, state: &mut State, event: Event<'_>) {
        for Effect::Keep(epoch) in state.machine.handle(event) {
            state.keep = Some(epoch);
            self.inner.bell.notify_one();
        }
    }

    /// Puts the next epoch on disk and enters it; `false` if the store failed.
    async fn keep(&self) -> bool {
        let Some((epoch, fresh)) = ({
            let mut state = self.state();
            let fresh = state.fresh;
            state.keep.take().map(|epoch| (epoch, fresh))
        }) else {
            return true;
        };
        let ground = self.ground();
        // The others were in epochs before this store was: what they reaped then it did not see. In the first epochs
        // of a cluster nobody can have reaped.
        let late = fresh && epoch > STEPS;
        if late && ground.replica.filled_since(epoch).await.is_err() {
            return false;
        }
        let value = Bytes::copy_from_slice(&epoch.to_le_bytes());
        if let Err(failure) = ground.replica.remember(EPOCH, value).await {
            tracing::error!(%failure, "the reaping epoch cannot be kept");
            return false;
        }
        let mut state = self.state();
        (state.fresh, state.entered) = (false, Instant::now());
        self.tell(&mut state, Event::Kept(epoch));
        ground.replica.entered(epoch);
        ground.net.flights().enter(epoch);
        true
    }

    /// Says so where health is asked, once an epoch lasts too long.
    fn report(&self, interval: Duration) {
        let status = self.status();
        let stalled = status.age >= interval * STALLED && !status.waits_for.is_empty();
        let note = stalled.then(|| {
            let waits = status.waits_for.join("; ");
            format!(
                "reaping: nothing that was deleted is forgotten since epoch {} began: {waits}",
                status.epoch
            )
        });
        self.ground().registry.note(NOTE, note);
    }

    /// How reaping stands.
    pub fn status(&self) -> Status {
        let ground = self.ground();
        let state = self.state();
        let holds = state.machine.holds();
        Status {
            active: ground.interval.is_some(),
            epoch: state.machine.epoch(),
            age: state.entered.elapsed(),
            waits_for: holds.iter().map(|hold| self.said(hold)).collect(),
            sealed: ground.replica.seals(),
            reaped: ground.replica.reaped(),
            aside: state.aside,
        }
    }

    /// A reason in words.
    fn said(&self, hold: &Hold) -> String {
        let net = &self.ground().net;
        match hold {
            Hold::Silent(node) | Hold::Busy(node) if !net.is_reachable(node) => {
                format!("{node} cannot be reached")
            }
            Hold::Silent(node) => format!("{node} says nothing: does it take part?"),
            Hold::Busy(node) => format!(
                "{node} has not said that what began before is over: ask it why (GET /v1/cluster there)"
            ),
            Hold::UnderWay => "something that began before goes on here".into(),
            Hold::Unsettled(node) => format!("{node} may still act on what was sent to it before"),
            Hold::Hints => self.kept_for(),
            Hold::Moving => "owners change, or copies lie here that are others' now".into(),
            Hold::Rebuilding => "this node's data is not complete yet".into(),
            Hold::Stranger(node) => format!("{node} is no member and is connected to this node"),
        }
    }

    /// For whom hints are kept here.
    fn kept_for(&self) -> String {
        let replica = &self.ground().replica;
        let kept: Vec<String> = replica.hints(|ledger| {
            let kept = ledger.targets().filter(|(_, kept)| kept.count > 0);
            let named = kept.take(MOST_NAMED);
            named
                .map(|(node, kept)| format!("{} for {node}", kept.count))
                .collect()
        });
        match kept.is_empty() {
            true => "hints were kept here a moment ago".into(),
            false => format!("hints are kept here: {}", kept.join(", ")),
        }
    }

    /// Asks a peer.
    async fn ask(
        &self,
        span: Option<&Span>,
        rpc: Rpc,
        to: &NodeId,
        (request, body): (&Request, Bytes),
        number: u64,
    ) -> Option<(Reply, Bytes)> {
        let (ground, began) = (self.ground(), Instant::now());
        let span = span.map(|span| span.rpc_client(rpc, to));
        let outgoing = Outgoing {
            head: message::encode(request),
            body,
            timeout: TIMEOUT,
            registry: number,
            span: span.as_ref().map(Span::context),
        };
        let answer = ground.net.call(to, outgoing).await;
        let (result, reply) = match answer {
            Err(error) => (result_of_call(&error), None),
            Ok(answer) => match message::decode(&answer.head) {
                Ok(Reply::Failed(failure)) => {
                    tracing::debug!(%to, %failure, "a peer refused a question about reaping");
                    (RpcResult::Rejected, None)
                }
                Ok(reply) => (RpcResult::Ok, Some((reply, answer.body))),
                Err(_) => (RpcResult::Rejected, None),
            },
        };
        if let Some(span) = span.as_ref().filter(|_| reply.is_none()) {
            span.fail(result.as_str(), "no answer that can be used");
        }
        ground
            .metrics
            .rpc(rpc, to.as_str(), result, began.elapsed(), span.as_ref());
        reply
    }

    /// What a peer's question leads to. `by`: the registry document it was asked by.
    pub async fn answer(&self, request: Request, by: u64, body: Bytes) -> (Reply, Bytes) {
        let answered = match request {
            Request::Seals { partition } => self.answer_seals(partition, by, &body).await,
            Request::Reap { partition, epoch } => {
                self.answer_reap(partition, epoch, by, &body).await
            }
            Request::Horizon { partition } => self.answer_horizon(partition, by).await,
            _ => Err(Failure::Malformed("answered elsewhere".into())),
        };
        answered.unwrap_or_else(|failure| (Reply::Failed(failure), Bytes::new()))
    }
}

/// Members and the stores that the registry names for them.
fn members(view: &View) -> BTreeMap<NodeId, Option<Actor>> {
    let members = view.document().layout.members.iter();
    members
        .map(|(node, member)| (node.clone(), member.store))
        .collect()
}
