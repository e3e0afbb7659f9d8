//! Reads, as their coordinator sees them; the flow is the core's.
//!
//! As `coordinator/read.rs` does it: itself first, a hedge after a while, a deadline, and repairs once
//! everybody has spoken, if this run has read repair.

use sibyl_core::codec;
use sibyl_core::flow::Replicas;
use sibyl_core::flow::get::{Ask, Effect, Event as GetEvent, Get, Outcome, Said};
use sibyl_core::message::Request;
use sibyl_core::object::Object;

use super::client::Answer;
use super::command::Why;
use super::frames::Waiting;
use super::once::Reader;
use super::{Bytes, Digest, Event, NodeId, Reading, VecDeque, World};
use crate::plan::PATIENCE_US;
use crate::sight::Sight;
use crate::zoo::Bug;

/// After so long without an object, another replica is asked for it.
const HEDGE_US: u64 = 30_000;
/// How often a read asks owners, each time those of a newer document: as the node.
const MOST_READS: usize = 3;

impl World {
    /// A client reads through this node.
    pub(crate) fn get(&mut self, node: usize, request: usize) {
        if !self.is_member(node) {
            return self.answer(request, Answer::ReadMissed);
        }
        let asked = (self.requests[request].key, self.requests[request].sloppy);
        let (r, reader) = (self.plan.setting.r, Reader::Client(request));
        self.begin_get(node, asked, r, reader, PATIENCE_US);
    }

    /// A read through this node, for whomever.
    pub(crate) fn begin_get(
        &mut self,
        node: usize,
        (key, sloppy): (usize, bool),
        r: usize,
        reader: Reader,
        patience_us: u64,
    ) {
        self.begin_read_by((node, 1), (key, sloppy), r, reader, patience_us);
    }

    fn begin_read_by(
        &mut self,
        (node, times): (usize, usize),
        (key, sloppy): (usize, bool),
        r: usize,
        reader: Reader,
        patience_us: u64,
    ) {
        let mut owners = self.best_first(node, key);
        let (away, mut fallbacks) = self.around(node, key, sloppy);
        fallbacks.sort_by_key(|fallback| self.index(fallback) != node);
        if self.bug == Some(Bug::AbsentFallback) {
            owners.extend(fallbacks.drain(..away.len().min(fallbacks.len())));
        }
        let replicas = Replicas {
            owners: &owners,
            away: &away,
            spared: &[],
            fallbacks: &fallbacks,
        };
        let (get, effects) = Get::new(replicas, r);
        let until_us = self.scheduler.now_us() + patience_us;
        let process = self.process(node);
        let (flow, life) = (process.fresh(), process.life);
        let number = process.held.document.number;
        process.gets.insert(
            flow,
            Reading {
                get,
                asked: (key, sloppy, r),
                reader,
                until_us,
                number,
                stale: false,
                times,
            },
        );
        self.scheduler
            .after(HEDGE_US, Event::Hedge { node, life, flow });
        self.scheduler
            .after(patience_us, Event::ReadOver { node, life, flow });
        self.perform_read(node, flow, effects);
    }

    /// A replica has spoken.
    pub(crate) fn said(&mut self, node: usize, flow: u64, from: &NodeId, said: Said, counts: bool) {
        if !counts && said != Said::Failed {
            self.sights.met(Sight::Uncounted);
        }
        self.step_read(node, flow, GetEvent::Said { from, said, counts });
    }

    pub(crate) fn hedge(&mut self, node: usize, flow: u64) {
        self.step_read(node, flow, GetEvent::Hedge);
    }

    pub(crate) fn read_over(&mut self, node: usize, flow: u64) {
        self.step_read(node, flow, GetEvent::Deadline);
    }

    fn step_read(&mut self, node: usize, flow: u64, event: GetEvent<'_>) {
        let Some(reading) = self.process(node).gets.get_mut(&flow) else {
            return;
        };
        let hedges = event == GetEvent::Hedge;
        let effects = reading.get.handle(event);
        let asks = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ask(..)));
        match (hedges, asks) {
            (true, true) => self.sights.met(Sight::Hedged),
            (false, true) => self.sights.met(Sight::Fetched),
            _ => {}
        }
        self.perform_read(node, flow, effects);
    }

    /// Performs effects; what this node says of its own copy comes at once and may lead to more.
    fn perform_read(&mut self, node: usize, flow: u64, effects: Vec<Effect>) {
        let mut effects: VecDeque<Effect> = effects.into();
        while let Some(effect) = effects.pop_front() {
            let Some(reading) = self.process(node).gets.get(&flow) else {
                return;
            };
            let ((key, ..), reader) = (reading.asked, reading.reader);
            match effect {
                Effect::Answer(outcome) if !outcome.met && self.reads_again(node, flow) => {}
                Effect::Answer(outcome) => match reader {
                    Reader::Client(request) => self.answer_read(node, request, outcome),
                    Reader::Writer(id) => self.looked(node, id, outcome),
                },
                Effect::Repair(to, object) => self.repair(node, key, &to, object),
                Effect::Ask(to, ask) => {
                    if let Some((said, counts)) = self.ask_replica(node, flow, &to, ask) {
                        let event = GetEvent::Said {
                            from: &to,
                            said,
                            counts,
                        };
                        let reading = self.process(node).gets.get_mut(&flow);
                        effects.extend(
                            reading
                                .map(|reading| reading.get.handle(event))
                                .unwrap_or_default(),
                        );
                    }
                }
            }
        }
        let gets = &mut self.process(node).gets;
        if gets.get(&flow).is_some_and(|reading| reading.get.is_done()) {
            gets.remove(&flow);
        }
    }

    /// Asks one replica; answers at once for the own copy and for who cannot be reached.
    fn ask_replica(
        &mut self,
        node: usize,
        flow: u64,
        to: &NodeId,
        ask: Ask,
    ) -> Option<(Said, bool)> {
        let now_us = self.scheduler.now_us();
        let reading = self.process(node).gets.get(&flow)?;
        let ((key, ..), left_us) = (reading.asked, reading.until_us.saturating_sub(now_us));
        let number = reading.number;
        let place = self.keys[key].place.clone();
        let peer = self.index(to);
        if peer == node && number < self.process(node).since {
            self.sights.met(Sight::Stale);
            if let Some(reading) = self.process(node).gets.get_mut(&flow) {
                reading.stale = true;
            }
            return Some((Said::Failed, false));
        }
        if peer == node {
            let Ok((bytes, counts)) = self.copy(node, &place) else {
                return Some((Said::Failed, false));
            };
            let bytes = bytes.unwrap_or_else(|| codec::encode(&Object::default()));
            let digest = Digest::of(&bytes);
            let said = match ask {
                Ask::Digest => Said::Digest(digest),
                Ask::Object => {
                    let object = codec::decode(&bytes).expect("only encoded objects are stored");
                    Said::Object(object, digest)
                }
            };
            return Some((said, counts));
        }
        let question = match ask {
            Ask::Object => Request::Object { place },
            Ask::Digest => Request::Digest { place },
        };
        let left = self.ask(
            node,
            peer,
            question,
            Bytes::new(),
            left_us,
            Waiting::Read { flow },
        );
        (!left).then_some((Said::Failed, false))
    }

    fn repair(&mut self, node: usize, key: usize, to: &NodeId, object: Object) {
        if !self.plan.setting.read_repair {
            return;
        }
        let (peer, place) = (self.index(to), self.keys[key].place.clone());
        if peer == node {
            return self.join_for(node, (None, None), &place, object, Why::Repair);
        }
        let body = codec::encode(&object);
        // Offered once: whoever misses it is found again by the next read.
        let _sent = self.ask(
            node,
            peer,
            Request::Repair { place },
            body,
            PATIENCE_US,
            Waiting::Repair,
        );
    }

    /// If owners changed on the way those of now are asked; ends because each time goes by a newer document.
    fn reads_again(&mut self, node: usize, flow: u64) -> bool {
        let now_us = self.scheduler.now_us();
        let newest = self.process(node).held.document.number;
        let Some(reading) = self.process(node).gets.get(&flow) else {
            return false;
        };
        if !reading.stale || newest == reading.number || reading.times == MOST_READS {
            return false;
        }
        let (times, left_us) = (reading.times + 1, reading.until_us.saturating_sub(now_us));
        let ((key, sloppy, r), reader) = (reading.asked, reading.reader);
        self.sights.met(Sight::ReadAgain);
        self.begin_read_by((node, times), (key, sloppy), r, reader, left_us);
        true
    }

    fn answer_read(&mut self, node: usize, request: usize, outcome: Outcome) {
        if outcome.met {
            self.answer(
                request,
                Answer::Read {
                    node,
                    object: Box::new(outcome.object),
                    fallbacks: outcome.fallbacks,
                },
            );
        } else {
            self.answer(request, Answer::ReadMissed);
        }
    }
}
