//! Performs the write flow: mints, sends to all owners, answers at W.
//!
//! The first reachable owner coordinates, and if there is none, the first node that may stand in for one, which
//! mints on its hint of the key; who that is `handing` finds. A coordinated write runs in a task of its own, so a
//! client that leaves cannot leave it half sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use sibyl_core::context::Context;
use sibyl_core::flow::put::{Effect, Event, Outcome, Put};
use sibyl_core::id::{NodeId, WriteId};
use sibyl_core::message::{Coordinate, Failure, Reply, Request, Written};
use sibyl_core::object::{Caps, Content, Object, Write};
use sibyl_core::registry::{Bucket, Deletes, Durability};
use sibyl_core::room::Taking;
use tokio::sync::oneshot;
use tokio::time::Instant;

mod done;

use done::Done;

use super::once::Answered;
use super::remote::{REFUSED, STALE, TIMEOUT};
use super::request::{Acks, GetError, GetRequest, PutError, PutRequest, Stored};
use super::settled::Settled;
use super::{Coordinator, DEFAULT_TIMEOUT, MAX_TIMEOUT, now_ms, slot, was_not_minted};
use crate::outside;
use crate::peer::Flight;
use crate::replica::{Minted, Once, Slot, StandIn, Terms};
use crate::tasks::registry::View;
use crate::telemetry::metrics::{HintResult, Quorum};
use crate::telemetry::{Rpc, Span};

/// An owner that is silent for so long is stood in for: a hundred times a usual answer, a tenth of a client's
/// usual patience. A client with less patience gets a third of it.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// How long a hint may take at least, however little time the client gave: it is kept for the owner's sake.
const HINT_TIMEOUT: Duration = Duration::from_secs(1);
/// The most intervals a context may take to be minted into: sealed as base64url they stay below the 16 KiB
/// that a client can be handed (at most 21 bytes each, a third more as text, with room for joins).
const MAX_CONTEXT_INTERVALS: usize = 400;

impl Coordinator {
    /// Writes or deletes a key.
    ///
    /// # Errors
    /// [`PutError`]; only [`PutError::Unknown`] may have been written.
    pub async fn put(&self, span: &Span, request: PutRequest) -> Result<Stored, PutError> {
        let timeout = request.timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
        let until = Instant::now() + timeout;
        let view = self.serving().map_err(PutError::NotServing)?;
        let bucket = view
            .bucket(&request.bucket)
            .ok_or_else(|| PutError::NoBucket(request.bucket.clone()))?;
        let value = request.value.clone().unwrap_or_default();
        let cap = usize::try_from(bucket.config.max_value_bytes).unwrap_or(usize::MAX);
        if value.len() > cap {
            return Err(PutError::TooLarge {
                bytes: value.len(),
                cap,
            });
        }
        let slot = slot(&view, bucket, &request.key);
        let keyed = request.write_id(&slot.place);
        let once = keyed.is_some();
        let owners = view.owners(bucket, slot.partition);
        let w = request
            .w
            .unwrap_or(bucket.config.w)
            .need(usize::from(bucket.config.n), owners.len());
        if w > owners.len() {
            return Err(PutError::Level {
                asked: w,
                members: owners.len(),
            });
        }
        if let Some(value) = &request.value {
            self.accepts(&request, bucket, value).await?;
        }
        let tombstones = self
            .tombstones(span, &view, bucket, &slot, &request, until)
            .await?;
        let coordinate = Coordinate {
            place: slot.place.clone(),
            context: request.context,
            tombstones,
            deletes: request.value.is_none(),
            content_type: request.content_type,
            attributes: request.attributes,
            write_id: keyed.unwrap_or_else(|| WriteId(outside::rng().random())),
            trace: Some(span.context()),
            w: u32::try_from(w).expect("n is at most 255"),
            sloppy: request.sloppy.unwrap_or(bucket.config.sloppy),
        };
        let placement = self.placement(&view, bucket, slot.partition, coordinate.sloppy);
        let Answered { written, repeated } = self
            .hand_on(span, placement, (coordinate, once), value, until)
            .await?;
        span.conflict_left(written.siblings as usize);
        Ok(Stored {
            dot: written.dot,
            context: written.context,
            bucket: bucket.incarnation,
            modified_at: written.modified_at,
            acks: Acks {
                owners: written.owners as usize,
                fallbacks: written.fallbacks as usize,
            },
            live: written.siblings as usize,
            coordinator: written.coordinator,
            repeated,
        })
    }

    /// Whether the disk has room, before anything is done for a write.
    fn check_room(&self, deletes: bool) -> Result<(), Failure> {
        let taking = match deletes {
            true => Taking::Delete,
            false => Taking::Value,
        };
        match self.room().takes(taking) {
            true => Ok(()),
            false => Err(Failure::DiskFull),
        }
    }

    /// In a `delete_wins` bucket a blind write reads first, to cover the tombstones that are there.
    async fn tombstones(
        &self,
        span: &Span,
        view: &Arc<View>,
        bucket: &Bucket,
        slot: &Slot,
        request: &PutRequest,
        until: Instant,
    ) -> Result<Context, PutError> {
        let reads = bucket.config.deletes == Deletes::DeleteWins && request.context.is_none();
        if !reads || request.value.is_none() {
            return Ok(Context::new());
        }
        let read = GetRequest {
            bucket: request.bucket.clone(),
            key: request.key.clone(),
            r: None,
            sloppy: request.sloppy,
            timeout: Some(until.saturating_duration_since(Instant::now())),
            partial: false,
            resolve: false,
        };
        let (outcome, need) = self
            .read(span, view, bucket, slot, &read)
            .await
            .map_err(PutError::Read)?;
        if !outcome.met {
            let (replies, failed) = (outcome.replies, outcome.failed);
            return Err(PutError::Read(GetError::Quorum {
                replies,
                need,
                failed,
            }));
        }
        Ok(outcome.object.tombstones())
    }

    /// Coordinates a write on this node's own copy, or, if it owns none and the write is sloppy, on its hint. One
    /// that may be made only once is looked for first.
    ///
    /// # Errors
    /// [`Failure`]; after [`Failure::Quorum`] the write may still become visible.
    pub async fn coordinate(
        &self,
        span: &Span,
        (coordinate, once): (Coordinate, bool),
        value: Bytes,
        timeout: Duration,
    ) -> Result<Answered, Failure> {
        let deadline = Instant::now() + timeout;
        let view = self.serving().map_err(Failure::NotServing)?;
        self.check_room(coordinate.deletes)?;
        let (_, bucket) = view
            .bucket_of(coordinate.place.bucket)
            .ok_or(Failure::Bucket)?;
        let slot = slot(&view, bucket, &coordinate.place.key);
        if !self.vouches(slot.partition) {
            return Err(Failure::Rebuilding);
        }
        let sloppy = coordinate.sloppy;
        let placement = self.placement(&view, bucket, slot.partition, sloppy);
        let owners = &placement.owners;
        let (w, owns) = (coordinate.w as usize, owners.contains(self.me()));
        if !owns {
            self.may_stand_in(&placement, w, sloppy)?;
        }
        let flight = self.net().flights().begin();
        let mut found = None;
        if once {
            let look = self.look_back(span, (&view, &slot), &coordinate, timeout);
            found = Some(look.await?);
            self.relays(!owns);
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let span = span.quorum_write(owners.len(), w);
        let stands_in = (!owns).then(|| StandIn {
            owners: view.takers(slot.partition, bucket.config.n),
            trace: Some(span.context()),
            now_ms: now_ms(),
        });
        let (answer, answered) = oneshot::channel();
        let writing = Writing {
            put: placement.put(self.me(), w, sloppy),
            sloppy,
            number: view.number(),
            counted: false,
            stands_in,
            durability: bucket.config.durability,
            caps: caps(bucket),
            span,
            w,
            coordinator: self.clone(),
            slot,
            began: Instant::now(),
            patience: Instant::now() + PATIENCE.min(timeout / 3),
            deadline,
            found,
            answer: Some(answer),
            waiting: FuturesUnordered::new(),
            minted: None,
            refusals: 0,
            _flight: flight,
        };
        tokio::spawn(writing.run(coordinate, value));
        answered
            .await
            .unwrap_or_else(|_| Err(Failure::Store("the write was abandoned".into())))
    }
}

fn caps(bucket: &Bucket) -> Caps {
    Caps {
        siblings: bucket.config.max_siblings as usize,
        object_bytes: usize::try_from(bucket.config.max_object_bytes).unwrap_or(usize::MAX),
        context_intervals: MAX_CONTEXT_INTERVALS,
    }
}

/// What the replica will tell.
type Told<T> = oneshot::Receiver<Result<T, Failure>>;

/// A write under way on its coordinator.
struct Writing {
    coordinator: Coordinator,
    slot: Slot,
    put: Put,
    sloppy: bool,
    /// The registry document whose owners it goes to.
    number: u64,
    /// The own copy counts.
    counted: bool,
    /// Set if this node mints in the owners' place.
    stands_in: Option<StandIn>,
    durability: Durability,
    caps: Caps,
    w: usize,
    span: Span,
    began: Instant,
    /// When owners that are silent are stood in for.
    patience: Instant,
    deadline: Instant,
    /// What other replicas hold, if the write may be made only once.
    found: Option<Object>,
    answer: Option<oneshot::Sender<Result<Answered, Failure>>>,
    waiting: FuturesUnordered<BoxFuture<'static, Done>>,
    minted: Option<Minted>,
    /// Owners that said that they could not.
    refusals: usize,
    /// Until nothing of it is in this node's hands.
    _flight: Flight,
}

impl Writing {
    async fn run(mut self, coordinate: Coordinate, value: Bytes) {
        let deadline = tokio::time::sleep_until(self.deadline);
        let patience = tokio::time::sleep_until(self.patience);
        tokio::pin!(deadline, patience);
        let mut patient = true;
        let found = self.found.take();
        let (minted, counts) = self.mint(coordinate, value, found);
        let minted = tokio::select! {
            minted = minted => minted.unwrap_or_else(|_| Err(Failure::Store("the node is stopping".into()))),
            // The writer may mint it yet: the outcome is unknown.
            () = &mut deadline => return self.time_is_up(),
        };
        match minted {
            Ok(minted) => self.minted = Some(minted),
            Err(failure) => return self.tell(Err(failure)),
        }
        let (me, number) = (self.coordinator.me().clone(), self.number);
        let (metrics, stands_in) = (self.coordinator.metrics(), self.stands_in.is_some());
        self.waiting.push(Box::pin(async move {
            let acked = if matches!(counts.await, Ok(Ok(()))) {
                if stands_in {
                    metrics.hint(HintResult::Stored);
                }
                Ok(())
            } else {
                Err(REFUSED)
            };
            let target = None;
            Done {
                by: me,
                target,
                acked,
                number,
            }
        }));
        let effects = self.put.handle(Event::Minted);
        self.perform(effects);
        while !self.put.is_done() {
            let effects = tokio::select! {
                Some(done) = self.waiting.next() => self.hear(&done),
                () = &mut patience, if patient => {
                    patient = false;
                    self.put.handle(Event::Patience)
                }
                () = &mut deadline => {
                    self.time_is_up();
                    break;
                }
            };
            self.perform(effects);
        }
        // Every call ends by its own deadline, which is this one: it is counted and its span says how it went.
        // Who failed this late is still stood in for: the owner gets the write when it is back.
        while let Some(done) = self.waiting.next().await {
            let effects = self.hear(&done);
            self.perform(effects);
        }
    }

    fn time_is_up(&mut self) {
        let effects = self.put.handle(Event::Deadline);
        self.perform(effects);
    }

    fn mint(
        &self,
        coordinate: Coordinate,
        value: Bytes,
        found: Option<Object>,
    ) -> (Told<Minted>, Told<()>) {
        let write = Write {
            context: coordinate.context,
            tombstones: coordinate.tombstones,
            content: Content {
                value: (!coordinate.deletes).then_some(value),
                content_type: coordinate.content_type,
                attributes: coordinate.attributes,
                modified_at: now_ms(),
                write_id: coordinate.write_id,
                trace: coordinate.trace,
            },
        };
        let (minted, on_minted) = oneshot::channel();
        let (counts, on_counts) = oneshot::channel();
        let bytes = write.content.value.as_ref().map_or(0, Bytes::len);
        let synced = self.durability == Durability::Synced;
        let storage = self.span.storage_write(bytes, synced);
        // Nobody waits if the node is stopping.
        let minted = move |result| drop(minted.send(result));
        let counts = move |result| {
            drop(storage);
            drop(counts.send(result));
        };
        let replica = self.coordinator.replica();
        let (slot, caps, durability) = (self.slot.clone(), self.caps, self.durability);
        let terms = Terms {
            number: self.number,
            until: Some(self.deadline),
        };
        match (self.stands_in.clone(), found) {
            (stands_in, Some(found)) => {
                let once = Once {
                    terms,
                    write,
                    found,
                    stands_in,
                };
                replica.mint_once(slot, once, caps, durability, minted, counts);
            }
            (None, None) => replica.mint(slot, terms, write, caps, durability, minted, counts),
            (Some(in_place), None) => {
                replica.stand_in(
                    slot, terms, write, caps, durability, in_place, minted, counts,
                );
            }
        }
        (on_minted, on_counts)
    }

    fn hear(&mut self, done: &Done) -> Vec<Effect> {
        let elapsed = self.began.elapsed();
        match done.acked {
            Ok(()) => self.span.replica_ack(&done.by, elapsed),
            Err(TIMEOUT) => self.span.replica_timeout(&done.by, elapsed),
            Err(reason) => {
                self.refusals += usize::from(reason == REFUSED);
                self.span.replica_failed(&done.by, reason, elapsed);
            }
        }
        let by = &done.by;
        self.counted |= *by == *self.coordinator.me() && done.acked.is_ok();
        if done.acked == Err(STALE)
            && let Some(effects) = self.begin_again()
        {
            return effects;
        }
        if done.is_overtaken(self.number, self.coordinator.me()) {
            return Vec::new();
        }
        self.put.handle(match (&done.target, done.acked) {
            (None, Ok(())) => Event::Acked(by),
            (None, Err(_)) => Event::Failed(by),
            (Some(target), Ok(())) => Event::Kept { by, target },
            (Some(target), Err(_)) => Event::Refused { by, target },
        })
    }

    /// Owners changed on the way: the write goes to those of now, be it late. Copies that were made are found there,
    /// or asked for once more; ends because each time goes by a newer document. `None` if there is none.
    fn begin_again(&mut self) -> Option<Vec<Effect>> {
        let coordinator = self.coordinator.clone();
        let view = coordinator.registry().view();
        if self.stands_in.is_some() || view.number() <= self.number {
            return None;
        }
        let (_, bucket) = view.bucket_of(self.slot.place.bucket)?;
        let placement = coordinator.placement(&view, bucket, self.slot.partition, self.sloppy);
        let me = coordinator.me();
        self.number = view.number();
        self.put = placement.put_again(&self.put, self.w, self.sloppy);
        let mut effects = self.put.handle(Event::Minted);
        if self.counted {
            effects.extend(self.put.handle(Event::Acked(me)));
        }
        Some(effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Replicate(to) => self.replicate(to),
                Effect::Hint { to, target } => self.hint(to, target),
                Effect::Answer(outcome) => self.settle(outcome),
            }
        }
    }

    fn replicate(&self, to: NodeId) {
        let Some(minted) = &self.minted else { return };
        let request = Request::Replicate {
            place: self.slot.place.clone(),
            durability: self.durability,
        };
        let timeout = self.deadline.saturating_duration_since(Instant::now());
        let span = self.span.rpc_client(Rpc::ReplicaPut, &to);
        let (shipment, number) = (minted.shipment.clone(), self.number);
        let call = self
            .coordinator
            .ask(span, Rpc::ReplicaPut, &to, &request, shipment, timeout);
        self.waiting.push(Box::pin(async move {
            let acked = match call.await {
                Ok((Reply::Joined, _)) => Ok(()),
                Ok(_) => Err(REFUSED),
                Err(error) => Err(error.word()),
            };
            let target = None;
            Done {
                by: to,
                target,
                acked,
                number,
            }
        }));
    }

    /// Has another node keep the write for an owner.
    fn hint(&self, to: NodeId, target: NodeId) {
        let Some(minted) = &self.minted else { return };
        let (shipment, number) = (minted.shipment.clone(), self.number);
        let span = self.span.hint_store(&to, &target, shipment.len());
        let request = Request::Hint {
            place: self.slot.place.clone(),
            durability: self.durability,
            target: target.clone(),
            trace: Some(span.context()),
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let rpc = span.rpc_client(Rpc::ReplicaHint, &to);
        let call = self.coordinator.ask(
            rpc,
            Rpc::ReplicaHint,
            &to,
            &request,
            shipment,
            left.max(HINT_TIMEOUT),
        );
        self.waiting.push(Box::pin(async move {
            let acked = match call.await {
                Ok((Reply::Joined, _)) => Ok(()),
                Ok(_) => Err(REFUSED),
                Err(error) => Err(error.word()),
            };
            span.hint_result(acked.err().unwrap_or("stored"));
            Done {
                by: to,
                target: Some(target),
                acked,
                number,
            }
        }));
    }

    fn settle(&mut self, outcome: Outcome) {
        let (owners, fallbacks, met) = match outcome {
            Outcome::Written { owners, fallbacks } => (owners, fallbacks, true),
            Outcome::Unknown {
                owners, fallbacks, ..
            } => (owners, fallbacks, false),
        };
        let (acks, failures) = (owners + fallbacks, self.put.failures());
        let settled = Settled {
            which: Quorum::Write,
            acks,
            failures,
            sloppy: fallbacks > 0,
            met,
            began: self.began,
            deadline: self.deadline,
            refusals: self.refusals,
        };
        let metrics = &self.coordinator.inner.ground.metrics;
        settled.tell(&self.span, metrics);
        if met && fallbacks > 0 {
            metrics.sloppy_write();
        }
        let few = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let result = match (&self.minted, met) {
            (Some(minted), true) => Ok(Written {
                dot: minted.dot,
                context: minted.answer.clone(),
                modified_at: minted.modified_at,
                owners: few(owners),
                fallbacks: few(fallbacks),
                siblings: few(minted.live),
                coordinator: self.coordinator.me().clone(),
            }),
            _ => Err(Failure::Quorum {
                copies: few(acks),
                failed: few(failures),
                w: few(self.w),
            }),
        };
        self.tell(result);
    }

    fn tell(&mut self, result: Result<Written, Failure>) {
        let repeated = self.minted.as_ref().is_some_and(|minted| minted.repeated);
        if repeated && result.is_ok() {
            self.coordinator.inner.ground.metrics.repeated_write();
        }
        let result = result.map(|written| Answered { written, repeated });
        debug_assert!(
            self.minted.is_some()
                || result.as_ref().is_err_and(|failure| {
                    was_not_minted(failure)
                        || matches!(
                            failure,
                            Failure::Refused(_)
                                | Failure::Reused
                                | Failure::Store(_)
                                | Failure::Quorum { .. }
                        )
                })
        );
        if let Some(answer) = self.answer.take() {
            // The client may have left; the write goes on.
            let _gone = answer.send(result);
        }
    }
}
