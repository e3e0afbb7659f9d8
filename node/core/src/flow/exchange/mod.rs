//! An exchange: two owners of a partition compare their trees and bring each other up to date.
//!
//! The one that begins holds this value; the other one answers questions and remembers nothing. It compares
//! roots, descends level by level into what differs, lists the keys of differing leaves in pages, ships whole
//! objects both ways and joins them on both sides. It never reasons about contexts: a copy may claim a
//! tombstone and still hold what that deleted, so only joining whole objects is right. One question is under
//! way at a time, each bounded in keys and bytes. It ends: levels are four, a page begins behind the one
//! before, each object is asked for once more only if the answer before brought another, and `MAX_MESSAGES`
//! bounds the rest. It can be broken off anywhere and begun anew: what was joined has changed the trees, so
//! the next one descends only into what still differs.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::id::Dot;
use crate::merkle::{DEPTH, Node, Tagger, children};
use crate::message::Place;
use crate::object::Object;

mod page;
#[cfg(test)]
mod tests;

use page::{Differing, Differs};
pub use page::{Page, differing};

/// The most keys in one parcel: at 1 KiB an object, 64 KiB each way.
pub const BATCH_KEYS: usize = 64;
/// Past so many bytes a parcel takes no further object: with one of the largest (32 MiB) it still fits into a
/// frame of 34 MiB.
pub const BATCH_BYTES: usize = 1 << 20;
/// The most keys in a page of keys: with keys of 1 KiB, 512 KiB.
pub const PAGE_KEYS: usize = 512;
/// The most messages of one exchange: 2^20 keys one parcel after the other, and as many pages. A partition
/// that is larger is finished by the next exchange.
pub const MAX_MESSAGES: u32 = 32 * 1024;

/// Whose tree or copies are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node's.
    Own,
    /// The peer's.
    Theirs,
}

/// Objects for the peer, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Send these.
    pub want: Vec<Place>,
    /// Join these; whole objects, encoded.
    pub give: Vec<(Place, Bytes)>,
}

/// What came back for a parcel: objects up to [`BATCH_BYTES`]; what is named nowhere can be asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Whole objects, encoded.
    pub objects: Vec<(Place, Bytes)>,
    /// What could not be joined, or cannot be had.
    pub without: Vec<Place>,
}

/// What happened to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nodes of a tree, in the order in which they were asked for.
    Nodes {
        /// Whose.
        side: Side,
        /// Their hashes.
        nodes: Vec<Node>,
        /// Whether that side's copies count: not while they are rebuilt.
        counts: bool,
    },
    /// A page of keys.
    Keys {
        /// Whose.
        side: Side,
        /// It.
        page: Page,
    },
    /// This node's objects: as a delivery.
    Own(Delivery),
    /// The peer took the parcel; what it sent.
    Shipped(Delivery),
    /// This node joined what it was to join, apart from so many, and synced it.
    Joined {
        /// How many could not be joined.
        failed: usize,
    },
    /// What was asked for last cannot be had.
    Failed,
}

/// What to do for an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Have both sides' children of these nodes, at this level (0: the root).
    Nodes {
        /// The level of the children.
        level: u8,
        /// Their parents.
        parents: Vec<u16>,
    },
    /// Have both sides' keys of these leaves, from a place on.
    Keys {
        /// The leaves.
        leaves: Vec<u16>,
        /// Where to begin, inclusive; `None` is the beginning.
        from: Option<Place>,
    },
    /// Read this node's objects.
    Read(Vec<Place>),
    /// Send a parcel.
    Ship(Parcel),
    /// Join these here, and sync.
    Join(Vec<(Place, Object)>),
    /// Two payloads carry one dot: nothing was joined, both are kept, and somebody must look.
    Alarm(Place, Dot),
    /// It is over.
    End(Summary),
}

/// How an exchange went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether everything that differed was joined on both sides. If not, do it again.
    pub whole: bool,
    /// Whether the peer's copies count: not while it is itself being refilled.
    pub counts: bool,
    /// Hashes that were compared.
    pub nodes_compared: u32,
    /// Leaves that differed.
    pub leaves_differ: u32,
    /// Keys that differed.
    pub keys_differ: u32,
    /// Objects sent.
    pub sent: u32,
    /// Objects received.
    pub received: u32,
    /// Bytes of objects, both ways.
    pub bytes: u64,
    /// Keys under which two payloads carry one dot.
    pub alarms: u32,
}

/// What the flow waits for.
#[derive(Clone, Debug)]
enum Phase {
    Nodes {
        level: u8,
        nodes: Vec<u16>,
        own: Option<Vec<Node>>,
        theirs: Option<Vec<Node>>,
    },
    Keys {
        own: Option<Page>,
        theirs: Option<Page>,
    },
    Reading,
    Shipping,
    Joining,
    Over,
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    tagger: Tagger,
    phase: Phase,
    leaves: Vec<u16>,
    /// Where the next page begins, if there is one.
    next: Option<Place>,
    /// Differing keys of this page that are still to be brought together.
    queue: VecDeque<Differing>,
    /// Those that are being brought together.
    batch: BTreeMap<Place, Differs>,
    /// This node's copies of those.
    own: BTreeMap<Place, Object>,
    /// Objects that the peer lacks.
    give: VecDeque<(Place, Bytes)>,
    left_out: usize,
    messages: u32,
    summary: Summary,
}

impl Exchange {
    /// Begins.
    pub fn new(tagger: Tagger) -> (Self, Vec<Effect>) {
        let phase = Phase::Nodes {
            level: 0,
            nodes: vec![0],
            own: None,
            theirs: None,
        };
        let exchange = Self {
            tagger,
            phase,
            leaves: Vec::new(),
            next: None,
            queue: VecDeque::new(),
            batch: BTreeMap::new(),
            own: BTreeMap::new(),
            give: VecDeque::new(),
            left_out: 0,
            messages: 1,
            summary: Summary::default(),
        };
        let root = Effect::Nodes {
            level: 0,
            parents: Vec::new(),
        };
        (exchange, vec![root])
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Takes an event; one that does not fit what it waits for is left alone.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Nodes {
                side,
                nodes,
                counts,
            } => self.hear_nodes(side, nodes, counts),
            Event::Keys { side, page } => self.hear_page(side, page),
            Event::Own(delivery) if matches!(self.phase, Phase::Reading) => self.ship(delivery),
            Event::Shipped(delivery) if matches!(self.phase, Phase::Shipping) => {
                self.unpack(delivery)
            }
            Event::Joined { failed } if matches!(self.phase, Phase::Joining) => {
                self.left_out += failed;
                self.go_on(Vec::new())
            }
            Event::Failed if !self.is_over() => self.end(false),
            Event::Own(_) | Event::Shipped(_) | Event::Joined { .. } | Event::Failed => Vec::new(),
        }
    }

    fn hear_nodes(&mut self, side: Side, heard: Vec<Node>, counts: bool) -> Vec<Effect> {
        let Phase::Nodes {
            level,
            nodes,
            own,
            theirs,
        } = &mut self.phase
        else {
            return Vec::new();
        };
        match side {
            Side::Own => *own = Some(heard),
            Side::Theirs => {
                *theirs = Some(heard);
                // Once said, it stays said: what was refilled meanwhile was not when this began.
                self.summary.counts = counts && (*level == 0 || self.summary.counts);
            }
        }
        let (Some(ours), Some(heard)) = (own.as_ref(), theirs.as_ref()) else {
            return Vec::new();
        };
        let (ours, heard) = (ours.clone(), heard.clone());
        let (level, nodes) = (*level, std::mem::take(nodes));
        self.descend(level, &nodes, &ours, &heard)
    }

    fn descend(&mut self, level: u8, nodes: &[u16], own: &[Node], theirs: &[Node]) -> Vec<Effect> {
        if own.len() != nodes.len() || theirs.len() != nodes.len() {
            return self.end(false);
        }
        self.summary.nodes_compared += few(nodes.len());
        let pairs = nodes.iter().zip(own.iter().zip(theirs));
        let differ = pairs.filter(|(_, (ours, theirs))| ours != theirs);
        let parents: Vec<u16> = differ.map(|(at, _)| *at).collect();
        if parents.is_empty() {
            return self.end(true);
        }
        if level == DEPTH {
            self.summary.leaves_differ = few(parents.len());
            self.leaves = parents;
            return self.turn_page();
        }
        let level = level + 1;
        self.phase = Phase::Nodes {
            level,
            nodes: parents
                .iter()
                .flat_map(|parent| children(*parent))
                .collect(),
            own: None,
            theirs: None,
        };
        self.say(Effect::Nodes { level, parents })
    }

    fn turn_page(&mut self) -> Vec<Effect> {
        self.phase = Phase::Keys {
            own: None,
            theirs: None,
        };
        let (leaves, from) = (self.leaves.clone(), self.next.take());
        self.say(Effect::Keys { leaves, from })
    }

    fn hear_page(&mut self, side: Side, page: Page) -> Vec<Effect> {
        let Phase::Keys { own, theirs } = &mut self.phase else {
            return Vec::new();
        };
        match side {
            Side::Own => *own = Some(page),
            Side::Theirs => *theirs = Some(page),
        }
        let (Some(ours), Some(heard)) = (own.as_ref(), theirs.as_ref()) else {
            return Vec::new();
        };
        let (ours, heard) = (ours.clone(), heard.clone());
        self.left_out += (ours.damaged + heard.damaged) as usize;
        let found = differing(ours, heard);
        self.summary.keys_differ += few(found.keys.len());
        (self.queue, self.next) = (found.keys.into(), found.next);
        self.go_on(Vec::new())
    }

    /// Sends what is waiting, else takes the next keys, else the next page, else it is over.
    fn go_on(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.own.clear();
        self.batch.clear();
        if self.give.is_empty() {
            let rest = BATCH_KEYS.min(self.queue.len());
            self.batch = self.queue.drain(..rest).collect();
        }
        let mine = self.batch.iter().filter(|(_, differs)| differs.ours());
        let mine: Vec<Place> = mine.map(|(place, _)| place.clone()).collect();
        effects.extend(if !mine.is_empty() {
            self.phase = Phase::Reading;
            vec![Effect::Read(mine)]
        } else if !self.give.is_empty() || !self.batch.is_empty() {
            self.ship(Delivery::default())
        } else if self.next.is_some() {
            self.turn_page()
        } else {
            self.end(true)
        });
        effects
    }

    /// This node's copies are there: the peer gets what it lacks and is asked for what is lacking here.
    fn ship(&mut self, read: Delivery) -> Vec<Effect> {
        self.left_out += read.without.len();
        self.batch.retain(|place, _| !read.without.contains(place));
        let progress = !read.objects.is_empty() || !read.without.is_empty();
        for (place, bytes) in read.objects {
            match (self.batch.get(&place), codec::decode(&bytes)) {
                (Some(Differs::Ours), Ok(_)) => self.give.push_back((place, bytes)),
                (Some(Differs::Both(_)), Ok(object)) => drop(self.own.insert(place, object)),
                (Some(_), Err(_)) => {
                    self.batch.remove(&place);
                    self.left_out += 1;
                }
                (Some(Differs::Theirs) | None, _) => {}
            }
        }
        // What was not read for its size waits for the next turn.
        let given = |place: &Place| self.give.iter().any(|(given, _)| given == place);
        let unread = |(place, differs): (&Place, &Differs)| match differs {
            Differs::Ours => !given(place),
            Differs::Both(_) => !self.own.contains_key(place),
            Differs::Theirs => false,
        };
        let waiting: Vec<Place> = self
            .batch
            .iter()
            .filter(|each| unread(*each))
            .map(|(place, _)| place.clone())
            .collect();
        self.put_back(&waiting, progress);
        let want = self.batch.iter().filter(|(_, differs)| differs.theirs());
        let want: Vec<Place> = want.map(|(place, _)| place.clone()).collect();
        let give = self.pack();
        if want.is_empty() && give.is_empty() {
            return self.go_on(Vec::new());
        }
        self.summary.sent += few(give.len());
        self.summary.bytes += give
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>();
        self.phase = Phase::Shipping;
        self.say(Effect::Ship(Parcel { want, give }))
    }

    /// Takes keys out of the batch: to be tried again if there was progress, else left out.
    fn put_back(&mut self, places: &[Place], progress: bool) {
        for place in places {
            match self.batch.remove_entry(place) {
                Some(differing) if progress => self.queue.push_back(differing),
                Some(_) => self.left_out += 1,
                None => {}
            }
        }
    }

    /// What fits into a parcel of what is to be given; at least one.
    fn pack(&mut self) -> Vec<(Place, Bytes)> {
        let (mut parcel, mut bytes) = (Vec::new(), 0);
        while parcel.len() < BATCH_KEYS && (parcel.is_empty() || bytes < BATCH_BYTES) {
            let fits = |(_, next): &(Place, Bytes)| bytes + next.len() <= BATCH_BYTES;
            if !parcel.is_empty() && !self.give.front().is_some_and(fits) {
                break;
            }
            let Some(next) = self.give.pop_front() else {
                break;
            };
            bytes += next.1.len();
            parcel.push(next);
        }
        parcel
    }

    /// The peer's objects are there: they are joined here, and the peer gets what it lacks of the join.
    fn unpack(&mut self, delivery: Delivery) -> Vec<Effect> {
        self.left_out += delivery.without.len();
        let progress = !delivery.objects.is_empty();
        let (mut effects, mut joins) = (Vec::new(), Vec::new());
        self.batch
            .retain(|place, _| !delivery.without.contains(place));
        for (place, bytes) in delivery.objects {
            let Some(differs) = self.batch.remove(&place).filter(|differs| differs.theirs()) else {
                continue;
            };
            let Ok(theirs) = codec::decode(&bytes) else {
                self.left_out += 1;
                continue;
            };
            self.summary.received += 1;
            self.summary.bytes += bytes.len() as u64;
            let own = self.own.remove(&place).unwrap_or_default();
            if let Some(dot) = own.contradiction(&theirs) {
                self.summary.alarms += 1;
                self.left_out += 1;
                effects.push(Effect::Alarm(place, dot));
                continue;
            }
            if let Differs::Both(listed) = differs {
                self.give_join(&place, own, &theirs, listed);
            }
            joins.push((place, theirs));
        }
        let unsent: Vec<Place> = self
            .batch
            .iter()
            .filter(|(_, differs)| differs.theirs())
            .map(|(place, _)| place.clone())
            .collect();
        self.put_back(&unsent, progress);
        if joins.is_empty() {
            return self.go_on(effects);
        }
        self.phase = Phase::Joining;
        effects.push(Effect::Join(joins));
        effects
    }

    fn give_join(&mut self, place: &Place, mut own: Object, theirs: &Object, listed: Node) {
        own.join(theirs);
        let bytes = codec::encode(&own);
        let tag = self.tagger.tag(place.bucket, &place.key, &bytes);
        if tag.node() != listed {
            self.give.push_back((place.clone(), bytes));
        }
    }

    /// Counts messages, and ends where there were too many.
    fn say(&mut self, effect: Effect) -> Vec<Effect> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return self.end(false);
        }
        vec![effect]
    }

    fn end(&mut self, whole: bool) -> Vec<Effect> {
        self.phase = Phase::Over;
        self.summary.whole = whole && self.left_out == 0;
        vec![Effect::End(self.summary)]
    }
}

fn few(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
