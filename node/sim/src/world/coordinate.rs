//! Writes, as their coordinator and the node that took the request see them.
//!
//! As `coordinator/write.rs` does it: the flow of the core says when to answer, and begins again with the owners of a
//! newer document when it meets them. Who coordinates is `handing`'s affair.

use sibyl_core::context::Context;
use sibyl_core::flow::Replicas;
use sibyl_core::flow::put::{Effect, Event as PutEvent, Outcome, Put};
use sibyl_core::id::Dot;
use sibyl_core::message::{Coordinate, Failure, Reply, Request, Written};
use sibyl_core::object::{Caps, Content, Write};
use sibyl_core::registry::{BucketConfig, Durability};

use super::command::Command;
use super::frames::Waiting;
use super::once::Look;
use super::{Bytes, Event, NodeId, World, Writing};
use crate::draw::Draw;
use crate::plan::PATIENCE_US;
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 14;
/// The most intervals a context may take, as in the node.
const MAX_CONTEXT_INTERVALS: usize = 400;

/// Who asked for a coordinated write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client of this node.
    Own { handing: u64 },
    /// A peer that handed it on.
    Peer { by: usize, call: u64 },
}

/// What a node said to a copy or a hint that it was to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// It lies there, and counts.
    Counts,
    /// It goes by a newer document, which changed owners.
    Stale,
    /// It does not count, or nobody knows.
    Failed,
}

impl Took {
    /// What an answer says.
    pub(crate) fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Joined => Self::Counts,
            Reply::Failed(Failure::Stale(_)) => Self::Stale,
            _ => Self::Failed,
        }
    }
}

/// A minted write.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    pub(crate) dot: Dot,
    pub(crate) shipment: Bytes,
    pub(crate) answer: Context,
    pub(crate) modified_at: u64,
    pub(crate) live: usize,
}

impl World {
    /// Which owners of a key this node cannot reach, and who may stand in for them.
    pub(crate) fn around(
        &self,
        node: usize,
        key: usize,
        sloppy: bool,
    ) -> (Vec<NodeId>, Vec<NodeId>) {
        let process = self.nodes[node].process.as_ref();
        let reachable = &process.expect("only a running node acts").reachable;
        let here = |other: &&NodeId| {
            let other = self.index(other);
            other == node || reachable[other]
        };
        let mut away = self.counting(node, key);
        away.extend(self.also(node, key));
        away.retain(|owner| !here(&owner));
        let mut fallbacks = self.fallbacks(node, key);
        fallbacks.retain(|node| sloppy && here(&node));
        (away, fallbacks)
    }

    pub(crate) fn asked_to_coordinate(
        &mut self,
        node: usize,
        by: usize,
        call: u64,
        (coordinate, once): (Coordinate, bool),
        value: Bytes,
    ) {
        let origin = Origin::Peer { by, call };
        let asked = (coordinate, Look::of(once));
        if let Err(failure) = self.coordinate(node, origin, asked, value, PATIENCE_US) {
            self.reply(node, by, call, Reply::Failed(failure), Bytes::new());
        }
    }

    /// Whether this node may coordinate a write, and whether as an owner.
    fn may_coordinate(
        &mut self,
        node: usize,
        key: usize,
        w: usize,
        sloppy: bool,
    ) -> Result<bool, Failure> {
        if !self.is_member(node) {
            return Err(Failure::NotServing("no member".into()));
        }
        if self.process(node).held.document.number < 2 {
            return Err(Failure::NotServing("forming".into()));
        }
        if !self.vouches(node, key) {
            return Err(Failure::Rebuilding);
        }
        let (me, owners) = (self.nodes[node].id.clone(), self.counting(node, key));
        let owns = owners.contains(&me);
        if !owns && (!sloppy || self.also(node, key).contains(&me)) {
            return Err(Failure::NotOwner);
        }
        let (away, fallbacks) = self.around(node, key, sloppy);
        let here = owners.iter().filter(|owner| !away.contains(owner)).count();
        if !owns && here + fallbacks.len() < w {
            return Err(Failure::NotServing("too few can be reached".into()));
        }
        Ok(owns)
    }

    /// The flow of a write, to both layouts while its key changes hands; or of one that begins again.
    fn put_by_both(
        &mut self,
        node: usize,
        key: usize,
        w: usize,
        (sloppy, before): (bool, Option<&Put>),
    ) -> Put {
        let (me, owners) = (self.nodes[node].id.clone(), self.counting(node, key));
        let (away, fallbacks) = self.around(node, key, sloppy);
        let replicas = Replicas {
            owners: &owners,
            away: &away,
            spared: &[],
            fallbacks: &fallbacks,
        };
        let put = match before {
            None => Put::new(me, replicas, w, sloppy),
            Some(before) => before.again(replicas, w, sloppy),
        };
        let also = self.also(node, key);
        if also.is_empty() {
            return put;
        }
        self.sights.met(Sight::BothLayouts);
        let all = w == owners.len();
        let w = if all { also.len() } else { w.min(also.len()) };
        put.also(&also, &away, w)
    }

    /// How far a node's clock is ahead.
    fn skew_us(&self, node: usize) -> u64 {
        let most_us = self.plan.setting.skew_ms * 1000;
        Draw::of(self.plan.seed, PURPOSE, node as u64).below(most_us + 1)
    }

    /// A full disk takes no values; what makes room goes on.
    fn check_room(&mut self, node: usize, deletes: bool) -> Result<(), Failure> {
        if self.is_full_disk(node) {
            if !deletes {
                self.sights.met(Sight::DiskFull);
                return Err(Failure::DiskFull);
            }
            self.sights.met(Sight::DeletedWhenFull);
        }
        Ok(())
    }

    /// Begins a write on this node's own copy.
    pub(crate) fn coordinate(
        &mut self,
        node: usize,
        origin: Origin,
        (coordinate, look): (Coordinate, Look),
        value: Bytes,
        left_us: u64,
    ) -> Result<(), Failure> {
        let key = self.key(&coordinate.place).ok_or(Failure::Bucket)?;
        let (w, sloppy) = (coordinate.w as usize, coordinate.sloppy);
        self.check_room(node, coordinate.deletes)?;
        let owns = self.may_coordinate(node, key, w, sloppy)?;
        let found = match look {
            Look::First => {
                self.look(node, origin, coordinate, value, (key, left_us));
                return Ok(());
            }
            Look::Over(found) => Some(found),
            Look::Never => None,
        };
        let now_us = self.scheduler.now_us();
        let process = self.process(node);
        let caps = caps(&process.held.document.buckets["default"].config);
        let put = self.put_by_both(node, key, w, (sloppy, None));
        let process = self.process(node);
        let number = process.held.document.number;
        let (flow, life) = (process.fresh(), process.life);
        let until_us = now_us + left_us;
        process.puts.insert(
            flow,
            Writing {
                put,
                key,
                w,
                sloppy,
                origin,
                minted: None,
                until_us,
                number,
                stands_in: !owns,
                counted: false,
            },
        );
        self.scheduler
            .after(left_us, Event::WriteOver { node, life, flow });
        self.scheduler
            .after(left_us / 3, Event::Patience { node, life, flow });
        let request = request_of(&coordinate);
        let write = Box::new(write(coordinate, value, now_us + self.skew_us(node)));
        self.submit(
            node,
            Command::Mint {
                flow,
                key,
                request,
                number,
                write,
                caps,
                stands_in: !owns,
                found,
            },
        );
        Ok(())
    }

    /// The writer has minted, or refused to.
    pub(crate) fn minted(&mut self, node: usize, flow: u64, result: Result<Minted, Failure>) {
        let Some(writing) = self.process(node).puts.get_mut(&flow) else {
            return;
        };
        match result {
            Ok(minted) => {
                writing.minted = Some(minted);
                let effects = writing.put.handle(PutEvent::Minted);
                self.perform_write(node, flow, effects);
            }
            Err(failure) => {
                let origin = writing.origin;
                self.process(node).puts.remove(&flow);
                match failure {
                    Failure::HintsFull => self.sights.met(Sight::HintRefused),
                    Failure::Stale(_) => self.sights.met(Sight::Stale),
                    _ => self.sights.met(Sight::Capped),
                }
                self.tell_origin(node, origin, Err(failure));
            }
        }
    }

    /// A copy counts, or will not.
    pub(crate) fn copy_counts(&mut self, node: usize, flow: u64, owner: &NodeId, said: Took) {
        let own = self.nodes[node].id == *owner;
        let counts_stale = self.bug == Some(Bug::StaleCounts);
        let again = match counts_stale {
            true => None,
            false => self.begin_again(node, flow, said),
        };
        let Some(writing) = self.process(node).puts.get_mut(&flow) else {
            return;
        };
        writing.counted |= own && said == Took::Counts;
        let effects = again.unwrap_or_else(|| match said {
            Took::Counts => writing.put.handle(PutEvent::Acked(owner)),
            Took::Stale if counts_stale => writing.put.handle(PutEvent::Acked(owner)),
            Took::Stale | Took::Failed => writing.put.handle(PutEvent::Failed(owner)),
        });
        self.perform_write(node, flow, effects);
        self.end_write(node, flow);
    }

    /// Owners changed on the way: what is minted goes to those of now, be it late. Ends because each time goes by
    /// a newer document; `None` if there is none.
    fn begin_again(&mut self, node: usize, flow: u64, said: Took) -> Option<Vec<Effect>> {
        let id = self.nodes[node].id.clone();
        let newest = self.process(node).held.document.number;
        let writing = self.process(node).puts.get(&flow)?;
        if said != Took::Stale || writing.stands_in || newest <= writing.number {
            return None;
        }
        let (key, w, sloppy) = (writing.key, writing.w, writing.sloppy);
        let before = writing.put.clone();
        let put = self.put_by_both(node, key, w, (sloppy, Some(&before)));
        self.sights.met(Sight::BegunAgain);
        let writing = self.process(node).puts.get_mut(&flow)?;
        (writing.put, writing.number) = (put, newest);
        let mut effects = writing.put.handle(PutEvent::Minted);
        if writing.counted {
            effects.extend(writing.put.handle(PutEvent::Acked(&id)));
        }
        Some(effects)
    }

    /// A hint counts, or will not.
    pub(crate) fn hint_counts(
        &mut self,
        node: usize,
        flow: u64,
        (by, target): (&NodeId, &NodeId),
        said: Took,
    ) {
        let again = self.begin_again(node, flow, said);
        let Some(writing) = self.process(node).puts.get_mut(&flow) else {
            return;
        };
        let effects = again.unwrap_or_else(|| match said {
            Took::Counts => writing.put.handle(PutEvent::Kept { by, target }),
            Took::Stale | Took::Failed => writing.put.handle(PutEvent::Refused { by, target }),
        });
        self.perform_write(node, flow, effects);
        self.end_write(node, flow);
    }

    /// Silent owners are stood in for.
    pub(crate) fn patience_over(&mut self, node: usize, flow: u64) {
        let Some(writing) = self.process(node).puts.get_mut(&flow) else {
            return;
        };
        if writing.minted.is_none() {
            return;
        }
        let effects = writing.put.handle(PutEvent::Patience);
        if !effects.is_empty() {
            self.sights.met(Sight::Impatient);
        }
        self.perform_write(node, flow, effects);
    }

    fn end_write(&mut self, node: usize, flow: u64) {
        let puts = &mut self.process(node).puts;
        if puts.get(&flow).is_some_and(|writing| writing.put.is_done()) {
            puts.remove(&flow);
        }
    }

    pub(crate) fn write_over(&mut self, node: usize, flow: u64) {
        let Some(writing) = self.process(node).puts.get_mut(&flow) else {
            return;
        };
        let effects = writing.put.handle(PutEvent::Deadline);
        self.perform_write(node, flow, effects);
        self.process(node).puts.remove(&flow);
    }

    fn perform_write(&mut self, node: usize, flow: u64, mut effects: Vec<Effect>) {
        // A question that fails at once may end the flow: its answer goes first.
        effects.sort_by_key(|effect| !matches!(effect, Effect::Answer(_)));
        for effect in effects {
            match effect {
                Effect::Replicate(to) => self.replicate(node, flow, &to),
                Effect::Hint { to, target } => self.hint(node, flow, &to, target),
                Effect::Answer(outcome) => self.settle_write(node, flow, outcome),
            }
        }
    }

    fn replicate(&mut self, node: usize, flow: u64, to: &NodeId) {
        let now_us = self.scheduler.now_us();
        let Some(writing) = self.process(node).puts.get(&flow) else {
            return;
        };
        let (key, left_us) = (writing.key, writing.until_us.saturating_sub(now_us));
        let Some(shipment) = writing
            .minted
            .as_ref()
            .map(|minted| minted.shipment.clone())
        else {
            return;
        };
        let place = self.keys[key].place.clone();
        let request = Request::Replicate {
            place,
            durability: Durability::Synced,
        };
        let peer = self.index(to);
        if !self.ask(
            node,
            peer,
            request,
            shipment,
            left_us,
            Waiting::Copy { flow },
        ) {
            self.copy_counts(node, flow, to, Took::Failed);
        }
    }

    fn hint(&mut self, node: usize, flow: u64, to: &NodeId, target: NodeId) {
        let Some(writing) = self.process(node).puts.get(&flow) else {
            return;
        };
        let (key, minted) = (writing.key, writing.minted.as_ref());
        let Some(shipment) = minted.map(|minted| minted.shipment.clone()) else {
            return;
        };
        let request = Request::Hint {
            place: self.keys[key].place.clone(),
            durability: Durability::Synced,
            target: target.clone(),
            trace: None,
        };
        let peer = self.index(to);
        let waiting = Waiting::Hint {
            flow,
            target: target.clone(),
        };
        if !self.ask(node, peer, request, shipment, PATIENCE_US, waiting) {
            self.hint_counts(node, flow, (to, &target), Took::Failed);
        }
    }

    fn settle_write(&mut self, node: usize, flow: u64, outcome: Outcome) {
        let me = self.nodes[node].id.clone();
        let few = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let outcome = match outcome {
            Outcome::Written { owners, fallbacks } if self.bug == Some(Bug::HintsAsOwners) => {
                let owners = owners + fallbacks;
                Outcome::Written {
                    owners,
                    fallbacks: 0,
                }
            }
            outcome => outcome,
        };
        let Some(writing) = self.process(node).puts.get(&flow) else {
            return;
        };
        let (origin, w) = (writing.origin, few(writing.w));
        let result = match (outcome, &writing.minted) {
            (Outcome::Written { owners, fallbacks }, Some(minted)) => Ok(Written {
                dot: minted.dot,
                context: minted.answer.clone(),
                modified_at: minted.modified_at,
                owners: few(owners),
                fallbacks: few(fallbacks),
                siblings: few(minted.live),
                coordinator: me,
            }),
            (
                Outcome::Unknown {
                    owners,
                    fallbacks,
                    failed,
                },
                _,
            ) => Err(Failure::Quorum {
                copies: few(owners + fallbacks),
                failed: few(failed),
                w,
            }),
            (Outcome::Written { owners, fallbacks }, None) => Err(Failure::Quorum {
                copies: few(owners + fallbacks),
                failed: 0,
                w,
            }),
        };
        self.tell_origin(node, origin, result);
    }

    pub(crate) fn tell_origin(
        &mut self,
        node: usize,
        origin: Origin,
        result: Result<Written, Failure>,
    ) {
        match (origin, result) {
            (Origin::Own { handing }, result) => self.handed(node, handing, result.map_err(Some)),
            (Origin::Peer { by, call }, Ok(written)) => {
                self.reply(node, by, call, Reply::Written(written), Bytes::new());
            }
            (Origin::Peer { by, call }, Err(failure)) => {
                self.reply(node, by, call, Reply::Failed(failure), Bytes::new());
            }
        }
    }
}

fn caps(config: &BucketConfig) -> Caps {
    Caps {
        siblings: config.max_siblings as usize,
        object_bytes: usize::try_from(config.max_object_bytes).unwrap_or(usize::MAX),
        context_intervals: MAX_CONTEXT_INTERVALS,
    }
}

fn write(coordinate: Coordinate, value: Bytes, now_us: u64) -> Write {
    Write {
        context: coordinate.context,
        tombstones: coordinate.tombstones,
        content: Content {
            value: (!coordinate.deletes).then_some(value),
            content_type: coordinate.content_type,
            attributes: coordinate.attributes,
            modified_at: now_us / 1000,
            write_id: coordinate.write_id,
            trace: coordinate.trace,
        },
    }
}

/// The request that a write id was made from.
fn request_of(coordinate: &Coordinate) -> usize {
    let [.., a, b, c, d] = coordinate.write_id.0;
    u32::from_be_bytes([a, b, c, d]) as usize
}
