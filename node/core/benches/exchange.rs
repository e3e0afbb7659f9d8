//! Question: how many bytes cross the wire when two owners of a million keys differ in one of a hundred?
//!
//! The real flow runs between two copies in memory, partition by partition; every question and answer is written
//! as the frame it would be. Goal 14: at most twice the bytes of what differs, which is what had to be sent if both
//! sides knew what that is. `cargo bench -p sibyl-core --bench exchange [-- KEYS PERCENT]`.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should say where"
)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::flow::exchange::{Delivery, Effect, Event, Exchange, Page, Parcel, Side, Summary};
use sibyl_core::frame::{HEADER_BYTES, SPAN_BYTES};
use sibyl_core::id::{Actor, Dot, Incarnation, Partition, WriteId};
use sibyl_core::merkle::{Leaves, NODE_BYTES, Node, Sum, Tagger, Tree, leaf};
use sibyl_core::message::{self, Place, Reply, Request};
use sibyl_core::object::{Caps, Content, Mint, Object, Write};
use sibyl_core::registry::Secret;
use sibyl_core::{codec, flow, ring};

const BUCKET: Incarnation = Incarnation(3);
/// The node's default.
const PARTITIONS: u64 = 256;
const VALUE_BYTES: usize = 1024;
const CAPS: Caps = Caps {
    siblings: 100,
    object_bytes: 1 << 20,
    context_intervals: 400,
};

/// What crossed the wire.
#[derive(Default)]
struct Wire {
    messages: u64,
    bytes: u64,
}

impl Wire {
    /// One frame, with a span.
    fn carry(&mut self, head: &Bytes, body: &Bytes) {
        self.messages += 1;
        self.bytes += (HEADER_BYTES + SPAN_BYTES + head.len() + body.len()) as u64;
    }
}

struct Copy {
    tagger: Tagger,
    objects: BTreeMap<Place, Object>,
    leaves: Leaves,
}

impl Copy {
    fn new(objects: BTreeMap<Place, Object>) -> Self {
        let tagger = Tagger::new(&Secret([5; 32]));
        let mut leaves = Leaves::default();
        for (place, object) in &objects {
            let tag = tag(&tagger, place, object);
            leaves.change(leaf(BUCKET, &place.key), Sum::ZERO, tag);
        }
        Self {
            tagger,
            objects,
            leaves,
        }
    }

    fn nodes(&self, level: u8, parents: &[u16]) -> Vec<Node> {
        match level {
            0 => vec![self.leaves.root()],
            _ => self.leaves.children(level, parents),
        }
    }

    fn page(&self, leaves: &[u16], from: Option<&Place>) -> Page {
        let listed = |place: &&Place| leaves.contains(&leaf(BUCKET, &place.key));
        let behind = |place: &&Place| from.is_none_or(|from| *place >= from);
        let mut keys = self.objects.keys().filter(behind).filter(listed);
        let mut page = Page::default();
        for place in keys.by_ref().take(flow::exchange::PAGE_KEYS) {
            let tag = tag(&self.tagger, place, &self.objects[place]).to_bytes();
            let tag = tag[..NODE_BYTES].try_into().unwrap();
            page.entries.push((place.clone(), tag));
        }
        page.next = keys.next().cloned();
        page
    }

    fn read(&self, places: &[Place]) -> Delivery {
        let (mut delivery, mut bytes) = (Delivery::default(), 0);
        for place in places {
            if bytes > flow::exchange::BATCH_BYTES {
                break;
            }
            match self.objects.get(place) {
                Some(object) => {
                    let encoded = codec::encode(object);
                    bytes += encoded.len();
                    delivery.objects.push((place.clone(), encoded));
                }
                None => delivery.without.push(place.clone()),
            }
        }
        delivery
    }

    fn join(&mut self, place: Place, object: &Object) {
        self.objects.entry(place).or_default().join(object);
    }

    fn take(&mut self, parcel: &Parcel) -> Delivery {
        for (place, bytes) in &parcel.give {
            self.join(place.clone(), &codec::decode(bytes).unwrap());
        }
        self.read(&parcel.want)
    }
}

fn tag(tagger: &Tagger, place: &Place, object: &Object) -> Sum {
    tagger.tag(place.bucket, &place.key, &codec::encode(object))
}

fn exchange(tree: Tree, own: &mut Copy, theirs: &mut Copy, wire: &mut Wire) -> Summary {
    let (mut exchange, effects) = Exchange::new(own.tagger.clone());
    let mut effects = VecDeque::from(effects);
    loop {
        let events = match effects.pop_front().unwrap() {
            Effect::Nodes { level, parents } => {
                let (ours, others) = (own.nodes(level, &parents), theirs.nodes(level, &parents));
                let request = Request::MerkleNodes {
                    tree,
                    level,
                    parents,
                };
                wire.carry(&message::encode(&request), &Bytes::new());
                let answer = message::encode(&Reply::MerkleNodes { counts: true });
                wire.carry(&answer, &others.concat().into());
                [(Side::Theirs, others), (Side::Own, ours)]
                    .map(|(side, nodes)| Event::Nodes {
                        side,
                        nodes,
                        counts: true,
                    })
                    .to_vec()
            }
            Effect::Keys { leaves, from } => {
                let ours = own.page(&leaves, from.as_ref());
                let others = theirs.page(&leaves, from.as_ref());
                let request = Request::MerkleKeys { tree, leaves, from };
                wire.carry(&message::encode(&request), &Bytes::new());
                let answer = message::encode(&Reply::MerkleKeys);
                wire.carry(&answer, &message::encode(&others));
                [(Side::Theirs, others), (Side::Own, ours)]
                    .map(|(side, page)| Event::Keys { side, page })
                    .to_vec()
            }
            Effect::Read(places) => vec![Event::Own(own.read(&places))],
            Effect::Ship(parcel) => {
                let request = message::encode(&Request::MerkleExchange { tree });
                wire.carry(&request, &message::encode(&parcel));
                let delivery = theirs.take(&parcel);
                let answer = message::encode(&Reply::MerkleExchanged);
                wire.carry(&answer, &message::encode(&delivery));
                vec![Event::Shipped(delivery)]
            }
            Effect::Join(objects) => {
                for (place, object) in objects {
                    own.join(place, &object);
                }
                vec![Event::Joined { failed: 0 }]
            }
            Effect::Alarm(place, dot) => panic!("two payloads carry {dot:?} at {place:?}"),
            Effect::End(summary) => return summary,
        };
        for event in events {
            effects.extend(exchange.handle(event));
        }
    }
}

/// Writes a value over what is there, as a client that read it does.
fn write(object: &mut Object, number: u64) {
    // Values that a compressing wire would not shrink either; nothing compresses here.
    let mut value = vec![0; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    let content = Content {
        value: Some(value.into()),
        content_type: "application/octet-stream".to_owned(),
        attributes: BTreeMap::new(),
        modified_at: number,
        write_id: WriteId([7; 16]),
        trace: None,
    };
    let dot = Dot {
        actor: Actor(0x1122_3344_5566_7788),
        counter: number,
    };
    let write = Write {
        context: Some(object.context().clone()),
        tombstones: Context::new(),
        content,
    };
    object.write(Mint { dot, line: 0 }, write, CAPS).unwrap();
}

/// How one key differs, if it does, and who has more of it.
#[derive(Clone, Copy)]
enum Differs {
    No,
    Newer,
    Missing,
}

/// Two copies of a partition, and the bytes that must travel.
fn copies(keys: &[u64], total: u64, every: u64) -> ([Copy; 2], u64) {
    let (mut copies, mut must) = ([BTreeMap::new(), BTreeMap::new()], 0);
    for key in keys {
        let place = Place {
            bucket: BUCKET,
            key: name(*key),
        };
        // Half of what differs was written anew on one side, half is known to one side only; either side.
        let differs = match (key % every, key / every % 2) {
            (0, 0) => Differs::Newer,
            (0, _) => Differs::Missing,
            _ => Differs::No,
        };
        let side = usize::from(key / every / 2 % 2 == 1);
        let mut object = Object::default();
        write(&mut object, *key + 1);
        if !matches!(differs, Differs::Missing) {
            copies[1 - side].insert(place.clone(), object.clone());
        }
        if matches!(differs, Differs::Newer) {
            write(&mut object, total + key + 1);
        }
        if !matches!(differs, Differs::No) {
            must += codec::encode(&object).len() as u64 + place.key.len() as u64;
        }
        copies[side].insert(place, object);
    }
    (copies.map(Copy::new), must)
}

fn name(key: u64) -> Bytes {
    format!("user:{key:012}").into()
}

fn main() {
    let mut numbers = std::env::args().filter_map(|text| text.parse::<u64>().ok());
    let total = numbers.next().unwrap_or(1_000_000);
    let percent = numbers.next().unwrap_or(1).clamp(1, 100);
    let mut partitions = vec![Vec::new(); usize::try_from(PARTITIONS).unwrap()];
    for key in 0..total {
        let shift = 64 - PARTITIONS.trailing_zeros();
        let at = ring::position(BUCKET, &name(key)) >> shift;
        partitions[usize::try_from(at).unwrap()].push(key);
    }
    let (mut wire, mut must, mut keys_differ) = (Wire::default(), 0, 0);
    for (at, keys) in (0..).zip(&partitions) {
        let ([mut own, mut theirs], bytes) = copies(keys, total, 100 / percent);
        let partition = Partition(at);
        let summary = exchange(Tree { partition, n: 3 }, &mut own, &mut theirs, &mut wire);
        assert!(summary.whole, "{summary:?}");
        assert!(own.objects == theirs.objects, "both sides hold the same");
        must += bytes;
        keys_differ += u64::from(summary.keys_differ);
    }
    println!(
        "{total} keys of {VALUE_BYTES} bytes on {PARTITIONS} partitions, {keys_differ} differ"
    );
    println!("what differs    {must:>12} bytes");
    println!(
        "on the wire     {:>12} bytes in {} frames",
        wire.bytes, wire.messages
    );
    println!(
        "ratio           {:>12.3} (must 2)",
        wire.bytes as f64 / must as f64
    );
}
