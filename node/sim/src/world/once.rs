//! Clients that repeat writes after lost answers, and coordinators that look before they mint.
//!
//! As `coordinator/once.rs` does it: a write that its client may repeat reads first; a sloppy one goes on with what
//! was found. In every third run most writes are such. Its client repeats it through another node when
//! it does not know the outcome, and sometimes although the answer was good: that one was lost on its way.

use std::collections::BTreeSet;

use sibyl_core::codec;
use sibyl_core::flow::get::Outcome;
use sibyl_core::id::Dot;
use sibyl_core::message::{Coordinate, Failure};
use sibyl_core::object::{Object, Recall, Receipt, Sibling, Write};
use sibyl_core::registry::Deletes;
use sibyl_core::view::{self, Faces};

use super::client::Token;
use super::coordinate::{Minted, Origin};
use super::{Bytes, Event, World};
use crate::checks::repeats;
use crate::draw::Draw;
use crate::oracle::Writes;
use crate::plan::{PATIENCE_US, Wish};
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 12;
/// How often a client asks at most.
const TRIES: u32 = 3;
/// How long it waits at most before it asks again: others write meanwhile.
const PAUSE_US: u64 = 250_000;

/// Whom a read is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// The client of this request.
    Client(usize),
    /// A write that is looked for.
    Writer(u64),
}

/// A write that is looked for before it is minted.
pub(crate) struct Looking {
    origin: Origin,
    coordinate: Coordinate,
    value: Bytes,
    until_us: u64,
    /// What owners had acknowledged when the look began.
    before: Writes,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) object: Object,
    /// Writes that must be recognised: strict ones, and the look met a quorum of owners that meets theirs.
    pub(crate) certain: Writes,
}

/// Whether a write is looked for before it is minted.
pub(crate) enum Look {
    /// Its client will not repeat it.
    Never,
    /// It is to be looked for.
    First,
    /// It was looked for.
    Over(Box<Found>),
}

impl Look {
    /// For a write that may be made only once, or for any other.
    pub(crate) fn of(once: bool) -> Self {
        if once { Self::First } else { Self::Never }
    }
}

/// How often a request was asked, and how.
#[derive(Clone)]
pub(crate) struct Repeats {
    /// The request that was asked first.
    pub(crate) first: usize,
    /// Whether it may be repeated.
    pub(crate) keyed: bool,
    tries: u32,
    token: Option<Token>,
}

impl Repeats {
    pub(crate) fn new(first: usize) -> Self {
        Self {
            first,
            keyed: false,
            tries: 1,
            token: None,
        }
    }
}

impl World {
    /// Whether a client gives its write a key.
    fn gives_key(&self, entry: u32) -> bool {
        let seed = self.plan.seed;
        let mut draw = Draw::of(seed, PURPOSE, u64::from(entry) + 1);
        Draw::of(seed, PURPOSE, 0).chance(300) && draw.chance(600)
    }

    /// A client begins a write.
    pub(crate) fn begin_write(
        &mut self,
        client: usize,
        node: usize,
        key: usize,
        wish: Wish,
        entry: (u32, bool),
        token: Option<Token>,
    ) {
        let keyed = self.gives_key(entry.0);
        let request = self.request(client, node, key, wish, entry);
        let repeats = &mut self.requests[request].repeats;
        (repeats.keyed, repeats.token) = (keyed, token.clone());
        self.send_write(request, token);
    }

    /// After an answer: whether its client will ask again. An answer that was good may be lost, too.
    pub(crate) fn will_repeat(&mut self, request: usize, unknown: bool, written: bool) -> bool {
        let Repeats { keyed, tries, .. } = self.requests[request].repeats;
        let mut draw = Draw::of(self.plan.seed, PURPOSE + 1, request as u64);
        let lost = unknown || written && draw.chance(300);
        if !keyed || !lost || tries >= TRIES {
            return false;
        }
        let pause_us = draw.below(PAUSE_US);
        self.scheduler.after(pause_us, Event::Again { request });
        true
    }

    /// The same request once more, through the next node.
    pub(crate) fn ask_again(&mut self, request: usize) {
        self.sights.met(Sight::AskedAgain);
        let (client, key, wish, entry, mut repeats) = self.requests[request].to_repeat();
        let node = (self.requests[request].node + 1) % self.nodes.len();
        let again = self.request(client, node, key, wish, entry);
        repeats.tries += 1;
        let token = repeats.token.clone();
        self.requests[again].repeats = repeats;
        self.send_write(again, token);
    }

    /// Reads before a write that may have been made before is minted.
    pub(crate) fn look(
        &mut self,
        node: usize,
        origin: Origin,
        coordinate: Coordinate,
        value: Bytes,
        (key, left_us): (usize, u64),
    ) {
        let owners = self.counting(node, key).len();
        let setting = &self.plan.setting;
        let meets = (owners + 1).saturating_sub(setting.w);
        let (need, sloppy) = (setting.r.max(meets), coordinate.sloppy);
        let patience_us = if sloppy { left_us / 3 } else { left_us };
        let looking = Looking {
            origin,
            coordinate,
            value,
            until_us: self.scheduler.now_us() + left_us,
            before: self.oracle.strict(key),
        };
        let process = self.process(node);
        let id = process.fresh();
        process.looking.insert(id, looking);
        let patience_us = patience_us.min(PATIENCE_US);
        self.begin_get(node, (key, sloppy), need, Reader::Writer(id), patience_us);
    }

    /// The look is over.
    pub(crate) fn looked(&mut self, node: usize, id: u64, outcome: Outcome) {
        let Some(looking) = self.process(node).looking.remove(&id) else {
            return;
        };
        let Looking {
            origin,
            coordinate,
            value,
            until_us,
            before,
        } = looking;
        if !outcome.met && !coordinate.sloppy {
            self.sights.met(Sight::Unsure);
            let failure = Failure::Unsure {
                replies: u32::try_from(outcome.replies).unwrap_or(u32::MAX),
                need: 0,
            };
            return self.tell_origin(node, origin, Err(failure));
        }
        let key = self.key(&coordinate.place).unwrap_or_default();
        let behind = self.may_be_behind(node);
        let certain = match outcome.met && outcome.fallbacks == 0 && !behind {
            true => before.common(self.oracle.strict(key)),
            false => Writes::default(),
        };
        let found = Found {
            object: outcome.object,
            certain,
        };
        let left_us = until_us.saturating_sub(self.scheduler.now_us());
        let asked = (coordinate, Look::Over(Box::new(found)));
        if let Err(failure) = self.coordinate(node, origin, asked, value, left_us) {
            self.tell_origin(node, origin, Err(failure));
        }
    }

    /// Joins what a look found, and recognises a write that was there before; `None` if it is to be minted.
    pub(crate) fn recall(
        &mut self,
        request: usize,
        write: &Write,
        found: Option<&Found>,
        held: &mut Object,
    ) -> Option<Result<Minted, Failure>> {
        let found = found?;
        held.join(&found.object);
        let recalled = held.recall(write.content.write_id);
        match recalled.filter(|_| self.bug != Some(Bug::RetryMintsAgain)) {
            Some(Recall::Written { dot, at }) => {
                self.sights.met(Sight::Recognised);
                let repeated = held.repeat(dot, write.context.clone());
                Some(Ok(Minted {
                    dot,
                    shipment: codec::encode(&repeated.shipment),
                    answer: repeated.answer,
                    modified_at: at,
                    live: held.live().count(),
                }))
            }
            Some(Recall::Reused) => Some(Err(Failure::Reused)),
            None => {
                self.check_new(request, found);
                None
            }
        }
    }

    /// Checks what is about to be minted against what must have been recognised.
    fn check_new(&mut self, request: usize, found: &Found) {
        let twins = self.oracle.of_request(request);
        self.hold(repeats::minted(&self.oracle, found.certain.common(twins)));
    }

    /// What a view of an object counts.
    pub(crate) fn shown(object: &Object) -> BTreeSet<Dot> {
        match view::faces(object, Deletes::WriteWins) {
            Faces::Gone => BTreeSet::new(),
            Faces::One(one) => [one.dot()].into(),
            Faces::Several(several) => several.into_iter().map(Sibling::dot).collect(),
        }
    }
}

/// What is remembered of a write that its client may repeat. (Where counters are used again, a bug of the zoo, a
/// context may lack the dot that was just minted.)
pub(crate) fn receipt_of(shipment: &Object, dot: Dot) -> Option<Receipt> {
    let content = &shipment.siblings().first()?.content;
    shipment.context().contains(dot).then_some(Receipt {
        at: content.modified_at,
        write_id: content.write_id,
        dot,
    })
}
