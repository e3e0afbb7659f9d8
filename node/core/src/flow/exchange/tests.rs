//! Two replicas in memory, diverged by generated histories, and the exchange between them.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::context::Context;
use crate::id::{Actor, Dot, Incarnation, WriteId};
use crate::merkle::{Leaves, NODE_BYTES, Sum, leaf};
use crate::object::{Caps, Content, Mint, Sibling, Write};
use crate::registry::Secret;

const BUCKET: Incarnation = Incarnation(3);
const CAPS: Caps = Caps {
    siblings: 100,
    object_bytes: 1 << 20,
    context_intervals: 400,
};

fn tagger() -> Tagger {
    Tagger::new(&Secret([5; 32]))
}

fn place(key: u64) -> Place {
    Place {
        bucket: BUCKET,
        key: Bytes::from(format!("key {key}")),
    }
}

/// A copy of a partition, and how much it answers at once.
#[derive(Clone, Debug)]
struct Copy {
    objects: BTreeMap<Place, Object>,
    page_keys: usize,
    batch_bytes: usize,
}

impl Copy {
    fn new(page_keys: usize, batch_bytes: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            page_keys,
            batch_bytes,
        }
    }

    fn tag(place: &Place, object: &Object) -> Sum {
        tagger().tag(place.bucket, &place.key, &codec::encode(object))
    }

    fn leaves(&self) -> Leaves {
        let mut leaves = Leaves::default();
        for (place, object) in &self.objects {
            leaves.change(
                leaf(place.bucket, &place.key),
                Sum::ZERO,
                Self::tag(place, object),
            );
        }
        leaves
    }

    fn nodes(&self, level: u8, parents: &[u16]) -> Vec<Node> {
        match level {
            0 => vec![self.leaves().root()],
            _ => self.leaves().children(level, parents),
        }
    }

    fn page(&self, leaves: &[u16], from: Option<&Place>) -> Page {
        let listed = |place: &&Place| leaves.contains(&leaf(place.bucket, &place.key));
        let behind = |place: &&Place| from.is_none_or(|from| *place >= from);
        let mut keys = self.objects.keys().filter(behind).filter(listed);
        let mut page = Page::default();
        for place in keys.by_ref().take(self.page_keys) {
            let tag = Self::tag(place, &self.objects[place]).to_bytes();
            page.entries
                .push((place.clone(), tag[..NODE_BYTES].try_into().unwrap()));
        }
        page.next = keys.next().cloned();
        page
    }

    fn read(&self, places: &[Place]) -> Delivery {
        let (mut delivery, mut bytes) = (Delivery::default(), 0);
        for place in places {
            if bytes > self.batch_bytes {
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

    fn take(&mut self, parcel: Parcel) -> Delivery {
        for (place, bytes) in parcel.give {
            self.join(place, &codec::decode(&bytes).unwrap());
        }
        self.read(&parcel.want)
    }
}

/// Runs an exchange to its end; `None` if it was broken off after so many steps.
fn run(own: &mut Copy, theirs: &mut Copy, steps: usize) -> (Option<Summary>, Vec<Place>) {
    let (mut exchange, effects) = Exchange::new(tagger());
    let (mut effects, mut alarms) = (VecDeque::from(effects), Vec::new());
    for _ in 0..steps {
        let Some(effect) = effects.pop_front() else {
            panic!("an exchange that is not over has something to do: {exchange:?}");
        };
        let events = match effect {
            Effect::Nodes { level, parents } => [(Side::Theirs, &*theirs), (Side::Own, &*own)]
                .map(|(side, copy)| Event::Nodes {
                    side,
                    nodes: copy.nodes(level, &parents),
                    counts: true,
                })
                .to_vec(),
            Effect::Keys { leaves, from } => [(Side::Own, &*own), (Side::Theirs, &*theirs)]
                .map(|(side, copy)| Event::Keys {
                    side,
                    page: copy.page(&leaves, from.as_ref()),
                })
                .to_vec(),
            Effect::Read(places) => vec![Event::Own(own.read(&places))],
            Effect::Ship(parcel) => {
                assert!(parcel.want.len() <= BATCH_KEYS && parcel.give.len() <= BATCH_KEYS);
                vec![Event::Shipped(theirs.take(parcel))]
            }
            Effect::Join(objects) => {
                for (place, object) in objects {
                    own.join(place, &object);
                }
                vec![Event::Joined { failed: 0 }]
            }
            Effect::Alarm(place, _) => {
                alarms.push(place);
                Vec::new()
            }
            Effect::End(summary) => {
                assert!(exchange.is_over() && effects.is_empty());
                return (Some(summary), alarms);
            }
        };
        for event in events {
            effects.extend(exchange.handle(event));
        }
    }
    (None, alarms)
}

/// What happens to a key: who writes, whether blind, whether a delete, and who hears of it.
type Step = (u64, bool, bool, bool, bool);

thread_local!(static COUNTER: Cell<u64> = const { Cell::new(0) });

fn write(copies: &mut [Copy; 2], step: Step) {
    let (key, first, blind, delete, heard) = step;
    let (at, other) = if first { (0, 1) } else { (1, 0) };
    let counter = COUNTER.with(|counter| {
        counter.set(counter.get() + 1);
        counter.get()
    });
    let held = copies[at].objects.entry(place(key)).or_default();
    let context = (!blind).then(|| held.context().clone());
    let content = Content {
        value: (!delete).then(|| Bytes::from(format!("value {counter}"))),
        content_type: String::new(),
        attributes: BTreeMap::new(),
        modified_at: counter,
        write_id: WriteId([0; 16]),
        trace: None,
    };
    let mint = Mint {
        dot: Dot {
            actor: Actor(at as u64 + 1),
            counter,
        },
        line: 0,
    };
    let write = Write {
        context,
        tombstones: Context::new(),
        content,
    };
    let written = held.write(mint, write, CAPS).unwrap();
    if heard {
        copies[other].join(place(key), &written.shipment);
    }
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(
        (
            0..40_u64,
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.3),
            any::<bool>(),
        ),
        0..120,
    )
}

fn diverged(steps: Vec<Step>, page_keys: usize, batch_bytes: usize) -> [Copy; 2] {
    let mut copies = [
        Copy::new(page_keys, batch_bytes),
        Copy::new(page_keys + 1, batch_bytes),
    ];
    steps.into_iter().for_each(|step| write(&mut copies, step));
    copies
}

const PLENTY: usize = 2_000;

proptest! {
    #[test]
    fn both_sides_hold_the_join_afterwards(steps in history(), page_keys in 1..9_usize, batch_bytes in 0..900_usize) {
        let [mut own, mut theirs] = diverged(steps, page_keys, batch_bytes);
        let mut joined = own.clone();
        theirs.objects.iter().for_each(|(place, object)| joined.join(place.clone(), object));
        let (summary, alarms) = run(&mut own, &mut theirs, PLENTY);
        prop_assert!(summary.unwrap().whole && summary.unwrap().counts);
        prop_assert_eq!(alarms, []);
        prop_assert_eq!(&own.objects, &joined.objects);
        prop_assert_eq!(&theirs.objects, &joined.objects);
        let again = run(&mut own, &mut theirs, PLENTY).0.unwrap();
        prop_assert_eq!((again.leaves_differ, again.nodes_compared, again.bytes), (0, 1, 0));
    }

    #[test]
    fn broken_off_anywhere_the_next_one_finishes(steps in history(), stop in 0..30_usize) {
        let [mut own, mut theirs] = diverged(steps, 4, 300);
        let before = run(&mut own, &mut theirs, stop).0;
        let after = run(&mut own, &mut theirs, PLENTY).0.unwrap();
        prop_assert!(after.whole);
        prop_assert_eq!(own.objects, theirs.objects);
        prop_assert!(before.is_none() || after.leaves_differ == 0);
    }

    #[test]
    fn what_is_the_same_is_not_sent(steps in history(), key in 0..40_u64) {
        let [own, _] = diverged(steps, 8, 300);
        let (mut own, mut theirs) = (own.clone(), own);
        theirs.objects.remove(&place(key));
        let summary = run(&mut own, &mut theirs, PLENTY).0.unwrap();
        let there = u32::from(own.objects.contains_key(&place(key)));
        prop_assert_eq!((summary.keys_differ, summary.sent, summary.received), (there, there, 0));
    }
}

#[test]
fn two_payloads_under_one_dot_are_kept_and_told() {
    let dot = Dot {
        actor: Actor(1),
        counter: 7,
    };
    let object = |value: &'static str| {
        let content = Content {
            value: Some(Bytes::from_static(value.as_bytes())),
            content_type: String::new(),
            attributes: BTreeMap::new(),
            modified_at: 1,
            write_id: WriteId([0; 16]),
            trace: None,
        };
        Object::from_parts(Context::of(dot), vec![Sibling::written(dot, content)])
    };
    let (mut own, mut theirs) = (Copy::new(9, 900), Copy::new(9, 900));
    own.join(place(1), &object("one"));
    theirs.join(place(1), &object("other"));
    let (summary, alarms) = run(&mut own, &mut theirs, PLENTY);
    let summary = summary.unwrap();
    assert!(!summary.whole && summary.alarms == 1);
    assert_eq!(alarms, [place(1)]);
    assert_eq!(own.objects[&place(1)], object("one"));
    assert_eq!(theirs.objects[&place(1)], object("other"));
}

/// A blind write covers the tombstones its coordinator holds by dot only, so a third copy may come to claim a
/// tombstone and still hold what that deleted. Contexts are equal then, and the join is right.
#[test]
fn equal_contexts_with_different_siblings_are_joined() {
    let mut copies = [Copy::new(9, 900), Copy::new(9, 900)];
    let deaf = false;
    write(&mut copies, (1, true, true, false, true));
    write(&mut copies, (1, true, false, true, deaf));
    write(&mut copies, (1, true, true, false, true));
    let [mut own, mut theirs] = copies;
    let (ours, heard) = (&own.objects[&place(1)], &theirs.objects[&place(1)]);
    assert_eq!(ours.context(), heard.context());
    assert_eq!((ours.siblings().len(), heard.siblings().len()), (1, 2));
    let right = ours.clone();
    let (summary, alarms) = run(&mut own, &mut theirs, PLENTY);
    assert!(summary.unwrap().whole && alarms.is_empty());
    assert_eq!(theirs.objects[&place(1)], right);
    assert_eq!(own.objects[&place(1)], right);
}

#[test]
fn a_peer_that_is_silent_or_makes_no_sense_ends_it() {
    let (mut exchange, _) = Exchange::new(tagger());
    let nodes = |side, count| Event::Nodes {
        side,
        nodes: vec![[0; NODE_BYTES]; count],
        counts: true,
    };
    assert!(exchange.handle(nodes(Side::Own, 1)).is_empty());
    let end = exchange.handle(nodes(Side::Theirs, 3));
    assert!(matches!(
        end[..],
        [Effect::End(Summary { whole: false, .. })]
    ));
    assert!(exchange.handle(Event::Failed).is_empty());
    let (mut exchange, _) = Exchange::new(tagger());
    let end = exchange.handle(Event::Failed);
    assert!(matches!(
        end[..],
        [Effect::End(Summary { whole: false, .. })]
    ));
}

#[test]
fn a_copy_that_does_not_count_says_so_once_and_for_all() {
    let (mut exchange, _) = Exchange::new(tagger());
    let (mut own, mut theirs) = (Copy::new(9, 900), Copy::new(9, 900));
    write(
        &mut { [own.clone(), theirs.clone()] },
        (1, true, true, false, false),
    );
    own.join(place(2), &Object::default());
    theirs.objects.clear();
    for (level, parents, counts) in [(0, vec![], false), (1, vec![0], true)] {
        for (side, copy) in [(Side::Own, &own), (Side::Theirs, &theirs)] {
            let nodes = copy.nodes(level, &parents);
            exchange.handle(Event::Nodes {
                side,
                nodes,
                counts,
            });
        }
    }
    let end = exchange.handle(Event::Failed);
    assert!(matches!(
        end[..],
        [Effect::End(Summary { counts: false, .. })]
    ));
}
