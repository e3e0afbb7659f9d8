//! What nodes say to each other: questions, answers, and the waiting for them.
//!
//! Stands in for the peer transport: a question to a peer that is not reachable fails at once and certainly
//! did nothing; a question under way when the peer becomes unreachable, or whose time is up, failed, and
//! may have done anything. A question of a higher registry number waits until that document was fetched.

use super::command::Why;
use super::coordinate::Took;
use super::reap::seal_of;
use super::{Actor, Bytes, Digest, Event, HandoffEvent, NodeId, Reply, Request, VecDeque, World};
use crate::checks::fenced;
use crate::disk::Fenced;
use crate::network::Fate;
use crate::sight::Sight;
use crate::zoo::Bug;

use sibyl_core::codec;
use sibyl_core::flow::get::Said;
use sibyl_core::message::{self, Failure};
use sibyl_core::object::Object;
use sibyl_core::registry;
use sibyl_core::salvage::{Answer, Ask};

/// How long a question waits for the registry document it was asked by.
const CATCH_UP_US: u64 = 500_000;
/// How often it looks.
const LOOK_US: u64 = 10_000;

/// A message between two nodes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Its number on the link.
    sent: u64,
    /// The sender's store.
    pub(super) store: Actor,
    /// The sender's registry number.
    number: u64,
    pub(super) call: u64,
    pub(super) says: Says,
    body: Bytes,
    /// Its number among what carries objects.
    carrier: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Says {
    Asks(Box<Request>),
    Answers(Box<Reply>),
    /// The store that asked was removed.
    Removed,
    /// A removed node asks.
    Brings(Box<Ask>),
    /// It is answered.
    Took(Answer),
}

impl Frame {
    /// Whom it is for.
    pub(crate) fn to(&self) -> usize {
        self.to
    }
}

impl Says {
    fn is_stale(&self) -> bool {
        matches!(self, Self::Answers(reply) if matches!(**reply, Reply::Failed(Failure::Stale(_))))
    }
}

/// A question that waits for its answer.
pub(crate) struct Call {
    to: usize,
    waiting: Waiting,
}

/// Who waits.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// A coordinated write, for a copy.
    Copy { flow: u64 },
    /// A read, for what a replica holds.
    Read { flow: u64 },
    /// A repair.
    Repair,
    /// A write that was handed on.
    Forward { handing: u64 },
    /// A coordinated write, for a hint.
    Hint { flow: u64, target: NodeId },
    /// A delivery.
    Handoff { key: usize },
    /// Who asked for what is kept for it.
    Collect,
    /// The registry.
    Registry,
    /// Reaping, for what a member says of itself.
    Word,
    /// A restored store, for an owner's horizon.
    Horizon { flow: u64 },
    /// Reaping, for the seals of an owner.
    Seals { flow: u64 },
    /// An exchange.
    Exchange { flow: u64 },
    /// A record that could not be read here.
    Heal { key: usize },
}

impl World {
    /// Asks a peer; answers whether the question left.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        to: usize,
        request: Request,
        body: Bytes,
        timeout_us: u64,
        waiting: Waiting,
    ) -> bool {
        let process = self.process(node);
        if !process.reachable[to] {
            return false;
        }
        let (call, life) = (process.fresh(), process.life);
        process.calls.insert(call, Call { to, waiting });
        self.scheduler
            .after(timeout_us, Event::CallOver { node, life, call });
        self.send(node, to, call, Says::Asks(Box::new(request)), body);
        true
    }

    /// Answers a peer's question.
    pub(crate) fn reply(&mut self, node: usize, to: usize, call: u64, reply: Reply, body: Bytes) {
        self.send(node, to, call, Says::Answers(Box::new(reply)), body);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, call: u64, says: Says, body: Bytes) {
        // A connection never repeats a question; only what is safe to repeat comes twice here.
        let once = matches!(&says, Says::Asks(request) if matches!(**request, Request::Coordinate(_) | Request::CoordinateOnce(_)));
        let process = self.nodes[from].process.as_ref();
        let number = process.map_or(0, |process| process.held.document.number);
        let store = self.nodes[from].disk.actor;
        let fate = self.network.send(from, to, once);
        let (f, t) = (from as u64, to as u64);
        let what = || format_of(&says);
        match fate {
            Fate::Lost => {
                self.sights.met(Sight::Lost);
                self.note(&[1, f, t], || format!("n{from} -> n{to}  {} LOST", what()));
            }
            Fate::Cut => {
                if self.network.passes(to, from) {
                    self.sights.met(Sight::OneWay);
                }
                self.note(&[2, f, t], || format!("n{from} -> n{to}  {} CUT", what()));
            }
            Fate::Arrives(delays) => {
                if delays.len() > 1 {
                    self.sights.met(Sight::Doubled);
                }
                for after_us in delays {
                    let sent = self.scheduler.now_us();
                    let waits_us = self.network.waits(from, to, sent);
                    if waits_us > 0 {
                        self.sights.met(Sight::Clogged);
                    }
                    let carrier = self.carrier(from, to, &says, &body);
                    let frame = Frame {
                        carrier,
                        from,
                        to,
                        sent,
                        store,
                        number,
                        call,
                        says: says.clone(),
                        body: body.clone(),
                    };
                    self.scheduler
                        .after(waits_us + after_us, Event::Deliver(frame));
                }
            }
        }
    }

    /// Counts a question that carries an object, until it is taken in or lost.
    fn carrier(&mut self, from: usize, to: usize, says: &Says, body: &Bytes) -> Option<u64> {
        let carries = matches!(says, Says::Asks(_)) && !body.is_empty();
        carries.then(|| {
            let epoch = self.epoch_of_question(from);
            self.carried += 1;
            self.carriers.insert(self.carried, (from, to, epoch));
            self.carried
        })
    }

    fn landed(&mut self, frame: &Frame) {
        if let Some(carrier) = frame.carrier {
            self.carriers.remove(&carrier);
        }
    }

    pub(crate) fn deliver(&mut self, frame: Frame) {
        let Frame { from, to, .. } = frame;
        if !self.network.passes(from, to) || !self.listens(to, &frame.says) {
            self.landed(&frame);
            return;
        }
        self.note(&[3, from as u64, to as u64, frame.call], || {
            format!("n{from} -> n{to}  {}", format_of(&frame.says))
        });
        self.trace.bytes(&frame.body);
        if matches!(frame.says, Says::Removed | Says::Brings(_) | Says::Took(_)) {
            return self.deliver_to_door(frame);
        }
        self.overtaken(&frame);
        let asks_node =
            matches!(&frame.says, Says::Asks(ask) if !matches!(**ask, Request::Registry));
        // Whoever hears that owners have changed goes on by the newer document.
        let waits = asks_node || frame.says.is_stale();
        let process = self.process(to);
        process.numbers[from] = frame.number.max(process.numbers[from]);
        if frame.number > process.held.document.number && (waits || frame.number > process.seen) {
            process.seen = frame.number;
            self.sights.met(Sight::Behind);
            let event = registry::Event::Seen {
                from: self.nodes[from].id.clone(),
                number: frame.number,
            };
            self.tell_registry(to, event);
            if waits {
                let patience_us = self.scheduler.now_us() + CATCH_UP_US;
                return self
                    .scheduler
                    .after(LOOK_US, Event::Retry { frame, patience_us });
            }
        }
        self.take_in(frame);
    }

    pub(crate) fn retry(&mut self, frame: Frame, patience_us: u64) {
        let Some(process) = &self.nodes[frame.to].process else {
            self.landed(&frame);
            return;
        };
        if process.held.document.number >= frame.number || self.scheduler.now_us() >= patience_us {
            return self.take_in(frame);
        }
        self.scheduler
            .after(LOOK_US, Event::Retry { frame, patience_us });
    }

    fn overtaken(&mut self, frame: &Frame) {
        let writer = &mut self.process(frame.to).writer;
        let last = writer.heard.entry(frame.from).or_default();
        let overtaken = frame.sent < *last;
        *last = frame.sent.max(*last);
        if overtaken {
            self.sights.met(Sight::Overtaken);
        }
    }

    fn take_in(&mut self, frame: Frame) {
        self.landed(&frame);
        let Frame {
            from,
            to,
            store,
            number,
            call,
            says,
            body,
            ..
        } = frame;
        let away = self.sends_away(to, store);
        if away && self.bug != Some(Bug::FencedCounts) {
            self.sights.met(Sight::RefusedRemoved);
            if let Says::Asks(_) = says {
                self.send(to, from, call, Says::Removed, Bytes::new());
            }
            return;
        }
        match says {
            Says::Asks(request) => {
                if away {
                    self.hold(fenced::asks(to, from, &request));
                }
                if let (true, Request::Registry) = (away, &*request) {
                    let message = message::decode(&body);
                    let message = message.expect("what was encoded here can be decoded");
                    self.hold(fenced::votes(to, from, &message));
                }
                self.asked(to, (from, number), call, *request, body);
            }
            Says::Answers(reply) => {
                if away {
                    self.hold(fenced::answers(to, from, &reply));
                }
                self.answered(to, call, *reply, &body);
            }
            Says::Removed | Says::Brings(_) | Says::Took(_) => {}
        }
    }

    fn asked(
        &mut self,
        node: usize,
        (from, number): (usize, u64),
        call: u64,
        request: Request,
        body: Bytes,
    ) {
        match request {
            Request::Registry => {
                let message = message::decode(&body).expect("what was encoded here can be decoded");
                self.reply(node, from, call, Reply::Joined, Bytes::new());
                let from = self.nodes[from].id.clone();
                self.tell_registry(node, registry::Event::Message { from, message });
            }
            Request::Coordinate(coordinate) => {
                self.asked_to_coordinate(node, from, call, (*coordinate, false), body);
            }
            Request::CoordinateOnce(coordinate) => {
                self.asked_to_coordinate(node, from, call, (*coordinate, true), body);
            }
            Request::Replicate { ref place, .. } | Request::Repair { ref place } => {
                let object = codec::decode(&body).expect("what was encoded here can be decoded");
                let (why, number) = match request {
                    Request::Repair { .. } => (Why::Repair, None),
                    _ => (Why::Write, Some(number)),
                };
                self.join_for(node, (Some((from, call)), number), place, object, why);
            }
            Request::Handoff { ref place } => {
                let object = codec::decode(&body).expect("what was encoded here can be decoded");
                let asked = (Some((from, call)), None);
                self.join_for(node, asked, place, object, Why::Handoff);
            }
            Request::Hint { place, target, .. } => {
                self.asked_to_keep(node, (from, call, number), &place, target, &body);
            }
            Request::Collect => {
                let hints = self.asked_to_deliver(node, from);
                self.reply(node, from, call, Reply::Collecting { hints }, Bytes::new());
            }
            Request::MerkleNodes {
                tree,
                level,
                parents,
            } => self.asked_for_nodes(node, from, call, tree, level, &parents),
            Request::MerkleKeys {
                tree,
                leaves,
                from: place,
            } => self.asked_for_keys(node, from, call, tree, &leaves, place.as_ref()),
            Request::MerkleExchange { .. } => self.asked_to_exchange(node, from, call, &body),
            Request::Horizon { .. }
            | Request::Epoch(_)
            | Request::Seals { .. }
            | Request::Reap { .. } => {
                self.asked_of_reaping(node, (from, call, number), &request, &body);
            }
            Request::Object { ref place } | Request::Digest { ref place } => {
                let digests = matches!(request, Request::Digest { .. });
                let (reply, body) = self.asked_to_read(node, number, place, digests);
                self.reply(node, from, call, reply, body);
            }
            _ => {}
        }
    }

    fn asked_of_reaping(
        &mut self,
        node: usize,
        (from, call, number): (usize, u64, u64),
        request: &Request,
        body: &Bytes,
    ) {
        if let Request::Horizon { partition } = request {
            return self.asked_for_horizon(node, (from, call, number), *partition);
        }
        let (reply, body) = self.asked_to_reap(node, (from, number), request, body);
        self.reply(node, from, call, reply, body);
    }

    /// What a node says of its copy to who goes by this document.
    fn asked_to_read(
        &mut self,
        node: usize,
        number: u64,
        place: &super::Place,
        digests: bool,
    ) -> (Reply, Bytes) {
        let since = self.process(node).since;
        if number < since && self.bug != Some(Bug::StaleTaken) {
            self.sights.met(Sight::Stale);
            return (Reply::Failed(Failure::Stale(since)), Bytes::new());
        }
        let Some(key) = self.key(place) else {
            return (Reply::Failed(Failure::Bucket), Bytes::new());
        };
        if !self.is_judged(node, self.keys[key].slot.partition) {
            return (Reply::Failed(Failure::Rebuilding), Bytes::new());
        }
        let Ok((body, counts)) = self.copy(node, place) else {
            let failed = Failure::Fenced("its checksum does not match".into());
            return (Reply::Failed(failed), Bytes::new());
        };
        let body = body.unwrap_or_else(|| codec::encode(&Object::default()));
        if !digests {
            return (Reply::Object { counts }, body);
        }
        let reply = Reply::Digest {
            digest: Digest::of(&body),
            siblings: 0,
            counts,
        };
        (reply, Bytes::new())
    }

    fn answered(&mut self, node: usize, call: u64, reply: Reply, body: &Bytes) {
        let Some(Call { to, waiting }) = self.process(node).calls.remove(&call) else {
            return;
        };
        let peer = self.nodes[to].id.clone();
        match (waiting, reply) {
            (Waiting::Copy { flow }, reply) => {
                self.copy_counts(node, flow, &peer, Took::of(&reply));
            }
            (Waiting::Hint { flow, target }, reply) => {
                self.hint_counts(node, flow, (&peer, &target), Took::of(&reply));
            }
            (Waiting::Handoff { key }, Reply::Delivered { context }) => {
                self.hint_ended(node, &peer, key, Some(context));
            }
            (Waiting::Handoff { key }, _) => self.hint_ended(node, &peer, key, None),
            (Waiting::Read { flow }, Reply::Object { counts }) => {
                let object = codec::decode(body).expect("what was encoded here can be decoded");
                self.said(
                    node,
                    flow,
                    &peer,
                    Said::Object(object, Digest::of(body)),
                    counts,
                );
            }
            (Waiting::Read { flow }, Reply::Digest { digest, counts, .. }) => {
                self.said(node, flow, &peer, Said::Digest(digest), counts);
            }
            (Waiting::Read { flow }, reply) => {
                if let Some(reading) = self.process(node).gets.get_mut(&flow) {
                    reading.stale |= matches!(reply, Reply::Failed(Failure::Stale(_)));
                }
                self.said(node, flow, &peer, Said::Failed, false);
            }
            (Waiting::Forward { handing }, Reply::Written(written)) => {
                self.handed(node, handing, Ok(written));
            }
            (Waiting::Forward { handing }, Reply::Failed(failure)) => {
                self.handed(node, handing, Err(Some(failure)));
            }
            (Waiting::Forward { handing }, _) => self.handed(node, handing, Err(None)),
            (Waiting::Exchange { flow }, reply) => self.exchange_heard(node, flow, reply, body),
            (Waiting::Heal { key }, Reply::Object { counts }) => {
                let object = codec::decode(body).expect("what was encoded here can be decoded");
                self.heard_of(node, key, &peer, Some((object, counts)));
            }
            (Waiting::Heal { key }, Reply::Failed(Failure::Fenced(_))) => {
                let nothing = (self.bug != Some(Bug::FencedWait)).then(Default::default);
                self.heard_of(node, key, &peer, nothing);
            }
            (Waiting::Heal { key }, _) => self.heard_of(node, key, &peer, None),
            (Waiting::Word, Reply::Epoch { word, .. }) => self.heard_word(node, to, word),
            (Waiting::Horizon { flow }, Reply::Horizon { epoch }) => {
                self.heard_horizon(node, flow, Some(epoch));
            }
            (Waiting::Horizon { flow }, _) => self.heard_horizon(node, flow, None),
            (Waiting::Seals { flow }, Reply::Seals) => {
                self.sealed_by(node, flow, Some(seal_of(body)));
            }
            (Waiting::Seals { flow }, _) => self.sealed_by(node, flow, Some(None)),
            (Waiting::Repair | Waiting::Registry | Waiting::Collect | Waiting::Word, _) => {}
        }
    }

    /// A question got no answer; it may have been heard.
    pub(crate) fn call_failed(&mut self, node: usize, call: u64) {
        let Some(Call { to, waiting }) = self.process(node).calls.remove(&call) else {
            return;
        };
        let peer = self.nodes[to].id.clone();
        match waiting {
            Waiting::Copy { flow } => self.copy_counts(node, flow, &peer, Took::Failed),
            Waiting::Read { flow } => self.said(node, flow, &peer, Said::Failed, false),
            Waiting::Forward { handing } => {
                self.sights.met(Sight::ForwardLost);
                self.handed(node, handing, Err(None));
            }
            Waiting::Registry => self.tell_registry(node, registry::Event::Unreachable(peer)),
            Waiting::Exchange { flow } => self.exchange_failed(node, flow),
            Waiting::Hint { flow, target } => {
                self.hint_counts(node, flow, (&peer, &target), Took::Failed);
            }
            Waiting::Handoff { key } => self.hint_ended(node, &peer, key, None),
            Waiting::Heal { key } => self.heard_of(node, key, &peer, None),
            Waiting::Seals { flow } => self.sealed_by(node, flow, Some(None)),
            Waiting::Horizon { flow } => self.heard_horizon(node, flow, None),
            Waiting::Repair | Waiting::Collect | Waiting::Word => {}
        }
    }

    /// A node looks whether it can reach a peer: when it no longer can, what waits for that peer has failed.
    pub(crate) fn sense(&mut self, node: usize, peer: usize) {
        let there = self.network.connects(node, peer) && self.nodes[peer].process.is_some();
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let before = std::mem::replace(&mut process.reachable[peer], there);
        if before == there {
            return;
        }
        self.note(&[4, node as u64, peer as u64, u64::from(there)], || {
            format!(
                "n{node} finds n{peer} {}",
                if there { "reachable" } else { "gone" }
            )
        });
        if there {
            let id = self.nodes[peer].id.clone();
            self.returned(node, peer);
            self.tell_registry(node, registry::Event::Reached(id));
            if self.plan.setting.exchanges {
                self.compare(node, peer);
            }
            return;
        }
        let id = self.nodes[peer].id.clone();
        self.tell_handoff(node, &HandoffEvent::Gone(&id));
        let calls = self.process(node).calls.iter();
        let broken: VecDeque<u64> = calls
            .filter(|(_, call)| call.to == peer)
            .map(|(id, _)| *id)
            .collect();
        broken
            .into_iter()
            .for_each(|call| self.call_failed(node, call));
    }

    /// What this node has of a key, its copy or a hint, and whether that counts in a read.
    pub(crate) fn copy(
        &mut self,
        node: usize,
        place: &super::Place,
    ) -> Result<(Option<Bytes>, bool), Fenced> {
        let Some(key) = self.key(place) else {
            return Ok((None, false));
        };
        if !self.is_judged(node, self.keys[key].slot.partition) {
            return Err(Fenced);
        }
        let owns = self.counting(node, key).contains(&self.nodes[node].id);
        let holds = self.is_holder(node, key);
        let copy = match holds {
            true => self.read(node, key)?,
            false => self.hinted(node, key),
        };
        let vouched = self.vouches(node, key) || self.bug == Some(Bug::RebuildingReads);
        let there = owns || !holds && copy.is_some() || self.bug == Some(Bug::AbsentFallback);
        Ok((copy, vouched && there && self.is_member(node)))
    }
}

fn format_of(says: &Says) -> String {
    let (text, limit) = match says {
        Says::Asks(request) => (format!("asks {request:?}"), 110),
        Says::Answers(reply) => (format!("says {reply:?}"), 110),
        Says::Removed => ("says that its store was removed".into(), 110),
        Says::Brings(ask) => (format!("brings {ask:?}"), 110),
        Says::Took(answer) => (format!("took {answer:?}"), 110),
    };
    text.chars().take(limit).collect()
}
