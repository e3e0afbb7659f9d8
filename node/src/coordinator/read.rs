//! Performs the read flow: asks replicas, feeds their answers, answers at R, repairs in the background.
//!
//! One task per read lives until the last replica has spoken or the time is up, long after the client has its
//! answer: what it then knows is who was behind. Repairs are whole objects and count for nobody.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sibyl_core::codec;
use sibyl_core::flow::get::{Ask, Effect, Event, Get, Outcome, Said};
use sibyl_core::id::{Digest, NodeId};
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::registry::{Bucket, Durability};
use tokio::time::Instant;

use super::remote::{REFUSED, STALE, TIMEOUT};
use super::request::{GetError, GetRequest, Got};
use super::settled::Settled;
use super::{Coordinator, DEFAULT_TIMEOUT, MAX_TIMEOUT, slot};
use crate::peer::Flight;
use crate::replica::Slot;
use crate::tasks::registry::View;
use crate::telemetry::metrics::{Quorum, RepairMode, StorageOp, Success};
use crate::telemetry::{Rpc, Span};

/// After this long without an object, another replica is asked for it: above the usual answer, far below a
/// client's patience.
const HEDGE_AFTER: std::time::Duration = std::time::Duration::from_millis(30);

/// How often a read is begun again because owners changed on the way.
const MOST_READS: usize = 3;

/// What one replica said.
struct Heard {
    from: NodeId,
    said: Said,
    counts: bool,
    /// Why it said nothing, as a stable word.
    why: &'static str,
    took: std::time::Duration,
}

/// A read under way.
struct Reading {
    coordinator: Coordinator,
    slot: Slot,
    view: Arc<View>,
    get: Get,
    waiting: FuturesUnordered<BoxFuture<'static, Heard>>,
    span: Span,
    began: Instant,
    deadline: Instant,
    answer: Option<Outcome>,
    /// The client takes what there is: if R is out of reach, it gets what everyone in reach holds.
    partial: bool,
    repairs: Vec<(NodeId, Object)>,
    /// Replicas that said that they could not.
    refusals: usize,
    /// A replica goes by a newer registry document, which changed owners.
    stale: bool,
    /// Until nothing of what was read is in this node's hands.
    flight: Flight,
}

impl Coordinator {
    /// Reads a key.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn get(&self, span: &Span, request: GetRequest) -> Result<Got, GetError> {
        let view = self.serving().map_err(GetError::NotServing)?;
        let bucket = view
            .bucket(&request.bucket)
            .ok_or_else(|| GetError::NoBucket(request.bucket.clone()))?;
        let slot = slot(&view, bucket, &request.key);
        let (outcome, need) = self.read(span, &view, bucket, &slot, &request).await?;
        if !outcome.met && !request.partial {
            let Outcome {
                replies, failed, ..
            } = outcome;
            return Err(GetError::Quorum {
                replies,
                need,
                failed,
            });
        }
        Ok(self.show(span, &request, bucket, outcome).await)
    }

    /// Reads the object of a key at the request's quorum; the number that had to answer comes with it. If owners
    /// changed on the way, it asks those of now.
    pub(super) async fn read(
        &self,
        span: &Span,
        view: &Arc<View>,
        bucket: &Bucket,
        slot: &Slot,
        request: &GetRequest,
    ) -> Result<(Outcome, usize), GetError> {
        let until = Instant::now() + request.timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
        let (mut view, mut times) = (Arc::clone(view), 1);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (outcome, stale, r) = self
                .read_by(span, &view, bucket, slot, request, left)
                .await?;
            let newer = self.registry().view();
            if outcome.met || !stale || newer.number() == view.number() || times == MOST_READS {
                return Ok((outcome, r));
            }
            (view, times) = (newer, times + 1);
        }
    }

    /// One read, by the owners of one registry document; says whether a replica goes by a newer one.
    async fn read_by(
        &self,
        span: &Span,
        view: &Arc<View>,
        bucket: &Bucket,
        slot: &Slot,
        request: &GetRequest,
        timeout: std::time::Duration,
    ) -> Result<(Outcome, bool, usize), GetError> {
        let owners = view.owners(bucket, slot.partition);
        let r = request
            .r
            .unwrap_or(bucket.config.r)
            .need(usize::from(bucket.config.n), owners.len());
        if r > owners.len() {
            return Err(GetError::Level {
                asked: r,
                members: owners.len(),
            });
        }
        let sloppy = request.sloppy.unwrap_or(bucket.config.sloppy);
        let mut placement = self.placement(view, bucket, slot.partition, sloppy);
        if request.partial {
            placement.ask_all();
        }
        let replicas = placement.best_first(self.me());
        let (get, effects) = Get::new(replicas.replicas(), r);
        let reading = Reading {
            coordinator: self.clone(),
            slot: slot.clone(),
            get,
            waiting: FuturesUnordered::new(),
            span: span.quorum_read(replicas.owners.len(), r),
            view: Arc::clone(view),
            began: Instant::now(),
            deadline: Instant::now() + timeout,
            answer: None,
            partial: request.partial,
            repairs: Vec::new(),
            refusals: 0,
            stale: false,
            flight: self.net().flights().begin(),
        };
        let (outcome, stale) = reading.run(effects).await;
        Ok((outcome, stale, r))
    }

    /// This node's copy of a key as it lies in the store, measured, and whether it counts in a read. Who is not
    /// an owner has a copy if it keeps a hint, and only then does its answer count.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn own_copy(
        &self,
        view: &View,
        slot: &Slot,
        span: &Span,
    ) -> Result<(Option<Bytes>, bool), Failure> {
        let (partition, n) = (slot.partition, slot.n);
        if !self.replica().is_judged(partition) {
            return Err(Failure::Rebuilding);
        }
        let owns = view.placed.counting(partition, n).contains(self.me());
        let holds = owns || view.placed.holds(self.me(), partition, n);
        // Asked first: what is refilled while it is read was not in it.
        let vouched = self.vouches(slot.partition);
        let began = Instant::now();
        let encoded = match holds {
            true => self.replica().encoded(slot),
            false => self.replica().hinted(slot),
        };
        let took = began.elapsed();
        self.inner.ground.metrics.storage(StorageOp::Get, took);
        span.storage_read(
            took,
            encoded
                .as_ref()
                .ok()
                .and_then(Option::as_ref)
                .map_or(0, Bytes::len),
        );
        let encoded = encoded?;
        // A new owner has a copy before it has all that was written to the old ones.
        let counts = vouched && (owns || !holds && encoded.is_some());
        Ok((encoded, counts))
    }

    fn local(&self, view: &View, slot: &Slot, ask: Ask, span: &Span) -> (Said, bool) {
        match (self.own_copy(view, slot, span), ask) {
            (Err(failure), _) => {
                tracing::error!(%failure, "this node cannot read its copy of a key");
                (Said::Failed, false)
            }
            (Ok((Some(bytes), counts)), Ask::Digest) => (Said::Digest(Digest::of(&bytes)), counts),
            (Ok((Some(bytes), counts)), Ask::Object) => (decoded(&bytes), counts),
            (Ok((None, counts)), Ask::Digest) => {
                (Said::Digest(codec::digest(&Object::default())), counts)
            }
            (Ok((None, counts)), Ask::Object) => (absent(), counts),
        }
    }
}

fn absent() -> Said {
    let nothing = Object::default();
    let digest = codec::digest(&nothing);
    Said::Object(nothing, digest)
}

fn decoded(bytes: &Bytes) -> Said {
    if bytes.is_empty() {
        return absent();
    }
    match codec::decode(bytes) {
        Ok(object) => Said::Object(object, Digest::of(bytes)),
        Err(error) => {
            tracing::error!(%error, "an object cannot be decoded");
            Said::Failed
        }
    }
}

impl Reading {
    async fn run(mut self, effects: Vec<Effect>) -> (Outcome, bool) {
        self.perform(effects);
        let outcome = self.until_answered().await;
        let stale = self.stale;
        if self.get.is_done() && self.waiting.is_empty() {
            self.repair();
        } else {
            tokio::spawn(self.until_done());
        }
        (outcome, stale)
    }

    async fn until_answered(&mut self) -> Outcome {
        let (hedge, deadline) = (
            tokio::time::sleep(HEDGE_AFTER),
            tokio::time::sleep_until(self.deadline),
        );
        tokio::pin!(hedge, deadline);
        let mut hedged = false;
        loop {
            let answer = self
                .answer
                .take()
                .filter(|outcome| outcome.met || !self.partial);
            if let Some(outcome) = answer.or_else(|| self.get.is_done().then(|| self.get.found())) {
                self.settle(&outcome);
                return outcome;
            }
            tokio::select! {
                Some(heard) = self.waiting.next() => self.hear(heard),
                () = &mut hedge, if !hedged => {
                    hedged = true;
                    let effects = self.get.handle(Event::Hedge);
                    self.perform(effects);
                }
                () = &mut deadline => self.time_is_up(),
            }
        }
    }

    /// The client has its answer: hear the rest, then repair whoever was behind.
    async fn until_done(mut self) {
        let deadline = tokio::time::sleep_until(self.deadline);
        tokio::pin!(deadline);
        while !self.get.is_done() {
            tokio::select! {
                Some(heard) = self.waiting.next() => self.hear(heard),
                () = &mut deadline => self.time_is_up(),
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.repair();
        // Every call ends by its own deadline: it is counted and its span says how it went.
        let _late: usize = waiting.count().await;
    }

    fn hear(&mut self, heard: Heard) {
        let Heard {
            from,
            said,
            counts,
            why,
            took,
        } = heard;
        match &said {
            Said::Object(..) | Said::Digest(_) => self.span.replica_ack(&from, took),
            Said::Failed if why == TIMEOUT => self.span.replica_timeout(&from, took),
            Said::Failed => {
                self.stale |= why == STALE;
                self.refusals += usize::from(why == REFUSED);
                self.span.replica_failed(&from, why, took);
            }
        }
        let effects = self.get.handle(Event::Said {
            from: &from,
            said,
            counts,
        });
        self.perform(effects);
    }

    fn time_is_up(&mut self) {
        let effects = self.get.handle(Event::Deadline);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask(to, ask) => self.ask(to, ask),
                Effect::Answer(outcome) => self.answer = Some(outcome),
                Effect::Repair(to, object) => self.repairs.push((to, object)),
            }
        }
    }

    fn ask(&self, to: NodeId, ask: Ask) {
        let coordinator = &self.coordinator;
        if to == *coordinator.me() {
            // As any other replica: what it says by an older document is not said.
            let (said, counts) = coordinator.local(&self.view, &self.slot, ask, &self.span);
            let is_stale = coordinator.registry().view().since() > self.view.number();
            let said = if is_stale { Said::Failed } else { said };
            let heard = Heard {
                from: to,
                said,
                counts,
                why: if is_stale { STALE } else { REFUSED },
                took: self.began.elapsed(),
            };
            self.waiting.push(Box::pin(std::future::ready(heard)));
            return;
        }
        let place = self.slot.place.clone();
        let (rpc, request) = match ask {
            Ask::Object => (Rpc::ReplicaGet, Request::Object { place }),
            Ask::Digest => (Rpc::ReplicaDigest, Request::Digest { place }),
        };
        let timeout = self.deadline.saturating_duration_since(Instant::now());
        let span = self.span.rpc_client(rpc, &to);
        let answer = coordinator.ask(span, rpc, &to, &request, Bytes::new(), timeout);
        let began = self.began;
        self.waiting.push(Box::pin(async move {
            let (said, counts, why) = match answer.await {
                Ok((Reply::Object { counts }, body)) => (decoded(&body), counts, REFUSED),
                Ok((Reply::Digest { digest, counts, .. }, _)) => {
                    (Said::Digest(digest), counts, REFUSED)
                }
                Ok(_) => (Said::Failed, false, REFUSED),
                Err(error) => (Said::Failed, false, error.word()),
            };
            Heard {
                from: to,
                said,
                counts,
                why,
                took: began.elapsed(),
            }
        }));
    }

    fn settle(&self, outcome: &Outcome) {
        self.span.digests_differ(outcome.differed);
        let settled = Settled {
            which: Quorum::Read,
            acks: outcome.replies,
            failures: outcome.failed,
            sloppy: outcome.fallbacks > 0,
            met: outcome.met,
            began: self.began,
            deadline: self.deadline,
            refusals: self.refusals,
        };
        settled.tell(&self.span, &self.coordinator.inner.ground.metrics);
    }

    /// Sends the joined object to those who lack part of it. A repair is offered once: whoever misses it
    /// is found again by the next read.
    fn repair(self) {
        let Self {
            coordinator,
            slot,
            span,
            repairs,
            flight,
            ..
        } = self;
        if repairs.is_empty() {
            return;
        }
        let root = span.read_repair(false);
        drop(span);
        tokio::spawn(async move {
            let _flight = flight;
            let sent = repairs
                .into_iter()
                .map(|(to, object)| coordinator.repair_one(&root, &slot, to, object));
            let results: Vec<bool> = sent.collect::<FuturesUnordered<_>>().collect().await;
            for repaired in results {
                let result = if repaired {
                    Success::Ok
                } else {
                    Success::Failed
                };
                coordinator
                    .inner
                    .ground
                    .metrics
                    .read_repair(RepairMode::Async, result);
            }
        });
    }
}

impl Coordinator {
    async fn repair_one(&self, root: &Span, slot: &Slot, to: NodeId, object: Object) -> bool {
        if to == *self.me() {
            let (done, joined) = tokio::sync::oneshot::channel();
            self.replica()
                .join(slot.clone(), object, Durability::Synced, move |result| {
                    // Nobody waits if the node is stopping.
                    let _gone = done.send(result);
                });
            return matches!(joined.await, Ok(Ok(())));
        }
        let request = Request::Repair {
            place: slot.place.clone(),
        };
        let span = root.rpc_client(Rpc::ReplicaRepair, &to);
        let body = codec::encode(&object);
        let answer = self
            .ask(
                span,
                Rpc::ReplicaRepair,
                &to,
                &request,
                body,
                DEFAULT_TIMEOUT,
            )
            .await;
        matches!(answer, Ok((Reply::Joined, _)))
    }
}
