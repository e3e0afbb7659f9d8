//! Messages as bytes: what is written is read, what is damaged is noticed, nothing is larger than it may be.

use proptest::prelude::*;

use super::super::{
    About, Answer, BadMessage, Effect, Event, Header, Life, MAX_MESSAGE_BYTES, MAX_OPINIONS, Marks,
    Membership, Message, Moment, Question, Record, Standing, Timing, decode, encode,
};
use super::world::node;
use crate::id::{Actor, NodeId};

fn life() -> impl Strategy<Value = Life> {
    (1..1u64 << 32, 0..1u64 << 40).prop_map(|(incarnation, counter)| Life {
        incarnation,
        counter,
    })
}

fn name() -> impl Strategy<Value = NodeId> {
    "[a-z0-9._-]{1,64}".prop_map(|name| node(&name))
}

fn record() -> impl Strategy<Value = Record> {
    let opinions = proptest::collection::vec((name(), life()), 0..=MAX_OPINIONS);
    let numbers = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    (name(), numbers, life(), opinions).prop_map(|(node, numbers, life, suspects)| {
        let (store, stamp_ms, registry, counter, synced) = numbers;
        let record = Record {
            node,
            store: Actor(store),
            life,
            stamp_ms,
            registry,
            marks: Marks { counter, synced },
            told: Life::NONE,
            suspects,
            seal: 0,
        };
        record.sealed()
    })
}

fn header() -> impl Strategy<Value = Header> {
    let kept = proptest::option::of(record());
    (record(), any::<u64>(), proptest::option::of(life()), kept).prop_map(
        |(mine, wall_ms, suspected, kept)| Header {
            mine,
            wall_ms,
            about: About {
                suspected,
                record: kept.map(Box::new),
            },
        },
    )
}

fn question() -> impl Strategy<Value = Message<Question>> {
    let body = prop_oneof![
        proptest::collection::vec((name(), life()), 0..20)
            .prop_map(|digest| Question::Exchange { digest }),
        proptest::collection::vec(record(), 0..4).prop_map(|records| Question::Tell { records }),
        Just(Question::Ping),
        name().prop_map(|target| Question::PingFor { target }),
    ];
    (header(), body).prop_map(|(header, body)| Message { header, body })
}

fn answer() -> impl Strategy<Value = Message<Answer>> {
    let records = proptest::collection::vec(record(), 0..4);
    let body = prop_oneof![
        (records, proptest::collection::vec(name(), 0..9))
            .prop_map(|(records, wants)| Answer::Exchanged { records, wants }),
        Just(Answer::Heard),
        Just(Answer::Pong),
        proptest::option::of(record()).prop_map(|record| Answer::PongFor {
            record: record.map(Box::new)
        }),
    ];
    (header(), body).prop_map(|(header, body)| Message { header, body })
}

const MOMENT: Moment = Moment {
    now_ms: 1,
    wall_ms: 1,
    draw: 1,
};

fn machine(others: &[NodeId]) -> Membership {
    let timing = Timing {
        interval_ms: 1_000,
        suspect_after_ms: 3_000,
    };
    let mut machine = Membership::new(node("me"), Actor(1), 1, Marks::default(), timing, MOMENT);
    let members = others.iter().map(|node| (node.clone(), Standing::Member));
    let members = members.chain([(node("me"), Standing::Member)]).collect();
    machine.handle(Event::Registry { number: 2, members }, MOMENT);
    machine
}

proptest! {
    #[test]
    fn what_is_written_is_read(question in question(), answer in answer()) {
        prop_assert_eq!(decode(&encode(&question)), Ok(question));
        prop_assert_eq!(decode(&encode(&answer)), Ok(answer));
    }

    #[test]
    fn hostile_bytes_are_refused_or_read(bytes: Vec<u8>) {
        drop(decode::<Question>(&bytes));
        drop(decode::<Answer>(&bytes));
        let versioned: Vec<u8> = [1].into_iter().chain(bytes).collect();
        drop(decode::<Question>(&versioned));
        drop(decode::<Answer>(&versioned));
    }

    #[test]
    fn a_flipped_bit_teaches_nothing(record in record(), at: proptest::sample::Index, bit in 0..8u8) {
        let message = Message {
            header: Header { mine: record.clone(), wall_ms: 0, about: About::default() },
            body: Question::Ping,
        };
        let mut bytes = encode(&message).to_vec();
        // The record comes first, behind the version.
        let within = 1 + at.index(postcard::to_allocvec(&record).expect("it encodes").len());
        bytes[within] ^= 1 << bit;
        if let Ok(read) = decode::<Question>(&bytes) {
            prop_assert!(read.header.mine == record || !read.header.mine.is_whole());
        }
    }

    #[test]
    fn whatever_a_member_says_is_survived(
        questions in proptest::collection::vec(question(), 1..6),
        answers in proptest::collection::vec(answer(), 1..6),
    ) {
        let from: Vec<NodeId> = questions.iter().map(|question| question.header.mine.node.clone()).collect();
        let mut machine = machine(&from);
        let mut calls = Vec::new();
        for (ask, message) in (0..).zip(questions) {
            let from = message.header.mine.node.clone();
            let effects = machine.handle(Event::Asked { ask, from, message }, MOMENT);
            calls.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Send { call, .. } => Some(call),
                _ => None,
            }));
        }
        let tick = machine.handle(Event::Tick { marks: Marks::default() }, MOMENT);
        calls.extend(tick.into_iter().filter_map(|effect| match effect {
            Effect::Send { call, .. } => Some(call),
            _ => None,
        }));
        for (call, message) in calls.into_iter().zip(answers) {
            machine.handle(Event::Answered { call, message }, MOMENT);
        }
        prop_assert_eq!(machine.me(), &node("me"));
    }
}

#[test]
fn the_largest_cluster_fits_its_messages() {
    let longest = |at: usize| node(&format!("{at:x>64}"));
    let names: Vec<NodeId> = (0..crate::registry::MAX_MEMBERS).map(longest).collect();
    let mut machine = machine(&names);
    let suspects: Vec<_> = names
        .iter()
        .take(MAX_OPINIONS)
        .map(|node| (node.clone(), full()))
        .collect();
    let record = |name: &NodeId| {
        let record = Record {
            node: name.clone(),
            store: Actor(u64::MAX),
            life: full(),
            stamp_ms: u64::MAX,
            registry: u64::MAX,
            marks: Marks {
                counter: u64::MAX,
                synced: u64::MAX,
            },
            told: full(),
            suspects: suspects.clone(),
            seal: 0,
        };
        record.sealed()
    };
    let header = |name: &NodeId| Header {
        mine: record(name),
        wall_ms: 0,
        about: About::default(),
    };
    for name in &names {
        let message = Message {
            header: header(name),
            body: Question::Ping,
        };
        machine.handle(
            Event::Asked {
                ask: 0,
                from: name.clone(),
                message,
            },
            MOMENT,
        );
    }
    let mut most = 0;
    let mut look = |effects: Vec<Effect>| {
        for effect in effects {
            let bytes = match effect {
                Effect::Send { message, .. } => encode(&message).len(),
                Effect::Answer { message, .. } => encode(&message).len(),
                _ => 0,
            };
            most = most.max(bytes);
        }
    };
    look(machine.handle(
        Event::Tick {
            marks: Marks::default(),
        },
        MOMENT,
    ));
    let message = Message {
        header: header(&names[0]),
        body: Question::Exchange { digest: Vec::new() },
    };
    look(machine.handle(
        Event::Asked {
            ask: 1,
            from: names[0].clone(),
            message,
        },
        MOMENT,
    ));
    assert!(
        most > MAX_MESSAGE_BYTES / 4,
        "{most}: the test is not about the largest"
    );
    assert!(most <= MAX_MESSAGE_BYTES, "{most}");
    let larger = vec![1; MAX_MESSAGE_BYTES + 1];
    assert_eq!(
        decode::<Question>(&larger),
        Err(BadMessage::TooLarge(larger.len()))
    );
}

fn full() -> Life {
    Life {
        incarnation: 1 << 32,
        counter: 1 << 40,
    }
}

#[test]
fn a_message_has_these_bytes() {
    let mine = Record {
        node: node("n1"),
        store: Actor(5),
        life: Life {
            incarnation: 2,
            counter: 300,
        },
        stamp_ms: 1_000,
        registry: 7,
        marks: Marks {
            counter: 9,
            synced: 4,
        },
        told: Life {
            incarnation: 1,
            counter: 8,
        },
        suspects: vec![(
            node("n2"),
            Life {
                incarnation: 1,
                counter: 6,
            },
        )],
        seal: 0,
    };
    let message = Message {
        header: Header {
            mine: mine.sealed(),
            wall_ms: 1_001,
            about: About::default(),
        },
        body: Question::PingFor { target: node("n3") },
    };
    let golden = [
        1, 2, b'n', b'1', 5, 2, 172, 2, 232, 7, 7, 9, 4, 1, 8, 1, 2, b'n', b'2', 1, 6,
    ];
    let bytes = encode(&message);
    assert_eq!(bytes[..golden.len()], golden);
    // Behind it: the seal, the clock, nothing about the listener, and the question.
    assert_eq!(bytes[bytes.len() - 8..], [233, 7, 0, 0, 3, 2, b'n', b'3']);
}
