//! Reads over replicas that hold what they hold and answer in any order, or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::context::Context;
use crate::id::{Actor, Dot, WriteId};
use crate::object::{Caps, Content, Mint, Write};

fn node(at: usize) -> NodeId {
    format!("n{at}").parse().expect("a node id")
}

/// An object that holds the writes of some actors, each blind.
fn object(writes: &[u64]) -> Object {
    let mut object = Object::default();
    for actor in writes {
        let content = Content {
            value: Some(Bytes::from(format!("w{actor}"))),
            content_type: String::new(),
            attributes: BTreeMap::new(),
            modified_at: 1,
            write_id: WriteId([u8::try_from(*actor).expect("few"); 16]),
            trace: None,
        };
        let mint = Mint {
            dot: Dot {
                actor: Actor(*actor),
                counter: 1,
            },
            line: 0,
        };
        let caps = Caps {
            siblings: 99,
            object_bytes: 9_999,
            context_intervals: 99,
        };
        let write = Write {
            context: None,
            tombstones: Context::new(),
            content,
        };
        object.write(mint, write, caps).expect("no cap is near");
    }
    object
}

/// One replica of the world of a test.
#[derive(Clone, Debug)]
struct Replica {
    writes: Vec<u64>,
    fails: bool,
    rebuilding: bool,
}

fn replica() -> impl Strategy<Value = Replica> {
    (
        proptest::collection::vec(0..3u64, 0..3),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(mut writes, fails, rebuilding)| {
            writes.sort_unstable();
            writes.dedup();
            Replica {
                writes,
                fails,
                rebuilding,
            }
        })
}

/// Runs a read to its end; `picks` choose which outstanding question is answered next.
fn run(
    replicas: &[Replica],
    r: usize,
    picks: &[usize],
    hedge_after: usize,
) -> (Vec<Outcome>, Vec<Effect>) {
    let names: Vec<NodeId> = (0..replicas.len()).map(node).collect();
    let (mut get, effects) = Get::new(Replicas::of(&names), r);
    let (mut asked, mut outcomes, mut repairs) = (Vec::new(), Vec::new(), Vec::new());
    let mut sort = |effects: Vec<Effect>, asked: &mut Vec<(NodeId, Ask)>| {
        for effect in effects {
            match effect {
                Effect::Ask(to, what) => asked.push((to, what)),
                Effect::Answer(outcome) => outcomes.push(outcome),
                Effect::Repair(..) => repairs.push(effect),
            }
        }
    };
    sort(effects, &mut asked);
    let mut step = 0;
    while !asked.is_empty() {
        assert!(step < 40, "a read ends");
        if step == hedge_after {
            let effects = get.handle(Event::Hedge);
            sort(effects, &mut asked);
        }
        let (from, what) = asked.remove(picks[step % picks.len()] % asked.len());
        let replica = &replicas[names
            .iter()
            .position(|name| *name == from)
            .expect("asked of a replica")];
        let held = object(&replica.writes);
        let digest = codec::digest(&held);
        let said = match what {
            _ if replica.fails => Said::Failed,
            Ask::Object => Said::Object(held, digest),
            Ask::Digest => Said::Digest(digest),
        };
        let effects = get.handle(Event::Said {
            from: &from,
            said,
            counts: !replica.rebuilding,
        });
        sort(effects, &mut asked);
        step += 1;
    }
    assert!(get.is_done(), "all have spoken");
    (outcomes, repairs)
}

proptest! {
    #[test]
    fn one_true_answer_and_repair_of_all_who_lack_something(
        replicas in proptest::collection::vec(replica(), 1..5),
        r in 1..4usize,
        picks in proptest::collection::vec(0..8usize, 1..12),
        hedge_after in 0..12usize,
    ) {
        let r = r.min(replicas.len());
        let (outcomes, repairs) = run(&replicas, r, &picks, hedge_after);
        prop_assert_eq!(outcomes.len(), 1, "exactly one answer");
        let counting = replicas.iter().filter(|replica| !replica.fails && !replica.rebuilding).count();
        prop_assert_eq!(outcomes[0].met, counting >= r);
        prop_assert_eq!(outcomes[0].digest, codec::digest(&outcomes[0].object));

        let speaking = || replicas.iter().enumerate().filter(|(_, replica)| !replica.fails);
        let mut whole = Object::default();
        speaking().for_each(|(_, replica)| { whole.join(&object(&replica.writes)); });
        let inside = |found: &Object| speaking().filter(|(_, replica)| {
            let mut joined = found.clone();
            !joined.join(&object(&replica.writes))
        }).count();
        prop_assert!(!outcomes[0].met || inside(&outcomes[0].object) >= r);

        let behind: Vec<Effect> = speaking()
            .filter(|(_, replica)| object(&replica.writes) != whole)
            .map(|(at, _)| Effect::Repair(node(at), whole.clone()))
            .collect();
        prop_assert_eq!(repairs, behind);
    }
}

#[test]
fn agreeing_replicas_cost_one_value() {
    let same = Replica {
        writes: vec![1],
        fails: false,
        rebuilding: false,
    };
    let names: Vec<NodeId> = (0..3).map(node).collect();
    let (mut get, effects) = Get::new(Replicas::of(&names), 2);
    let asks: Vec<Ask> = effects
        .iter()
        .map(|effect| {
            if let Effect::Ask(_, ask) = effect {
                *ask
            } else {
                panic!()
            }
        })
        .collect();
    assert_eq!(asks, [Ask::Object, Ask::Digest, Ask::Digest]);
    let held = object(&same.writes);
    let digest = codec::digest(&held);
    let digest_of = |at: usize| Event::Said {
        from: Box::leak(Box::new(node(at))),
        said: Said::Digest(digest),
        counts: true,
    };
    assert_eq!(
        get.handle(digest_of(1)),
        [],
        "a digest alone says nothing to a client"
    );
    let first = Event::Said {
        from: &names[0],
        said: Said::Object(held, digest),
        counts: true,
    };
    assert!(matches!(
        &get.handle(first)[..],
        [Effect::Answer(Outcome {
            met: true,
            replies: 2,
            ..
        })]
    ));
    assert_eq!(get.handle(digest_of(2)), []);
    assert!(get.is_done());
}

#[test]
fn the_deadline_answers_with_what_there_is() {
    let names: Vec<NodeId> = (0..3).map(node).collect();
    let (mut get, _) = Get::new(Replicas::of(&names), 2);
    let held = object(&[1]);
    let digest = codec::digest(&held);
    get.handle(Event::Said {
        from: &names[0],
        said: Said::Object(held.clone(), digest),
        counts: true,
    });
    let effects = get.handle(Event::Deadline);
    assert!(
        matches!(&effects[..], [Effect::Answer(Outcome { met: false, replies: 1, object, .. })] if *object == held)
    );
    assert!(get.is_done());
}

/// A read of n0, n1 and n2, of which n2 is away, with n3 and n4 to stand in.
fn sloppy(r: usize) -> (Get, Vec<Effect>) {
    let nodes: Vec<NodeId> = (0..5).map(node).collect();
    let replicas = Replicas {
        owners: &nodes[..3],
        away: &nodes[2..3],
        spared: &[],
        fallbacks: &nodes[3..],
    };
    Get::new(replicas, r)
}

fn says(get: &mut Get, from: usize, writes: Option<&[u64]>) -> Vec<Effect> {
    let held = writes.map(object);
    let said = held.map_or(Said::Failed, |held| {
        let digest = codec::digest(&held);
        Said::Object(held, digest)
    });
    let from = &node(from);
    let counts = true;
    get.handle(Event::Said { from, said, counts })
}

fn answered(effects: &[Effect]) -> Option<(bool, usize, usize)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer(outcome) => Some((outcome.met, outcome.replies, outcome.fallbacks)),
        _ => None,
    })
}

#[test]
fn a_fallback_counts_if_it_holds_a_hint() {
    let (mut get, effects) = sloppy(2);
    assert_eq!(effects[3..], [Effect::Ask(node(3), Ask::Digest)]);
    assert_eq!(answered(&says(&mut get, 0, Some(&[]))), None);
    let effects = says(&mut get, 3, Some(&[1]));
    assert_eq!(answered(&effects), Some((true, 2, 1)));
    says(&mut get, 1, Some(&[1]));
    let repairs = says(&mut get, 2, None);
    assert_eq!(
        repairs,
        [Effect::Repair(node(0), object(&[1]))],
        "owners are repaired, and only they"
    );
}

#[test]
fn a_fallbacks_absent_never_counts() {
    let (mut get, _) = sloppy(3);
    says(&mut get, 0, Some(&[1]));
    says(&mut get, 1, Some(&[1]));
    let next = says(&mut get, 3, Some(&[]));
    assert_eq!(
        next,
        [Effect::Ask(node(4), Ask::Digest)],
        "another may know"
    );
    let absent = Event::Said {
        from: &node(4),
        said: Said::Digest(codec::digest(&Object::default())),
        counts: true,
    };
    assert_eq!(get.handle(absent), []);
    let effects = says(&mut get, 2, None);
    assert_eq!(answered(&effects), Some((false, 2, 0)));
}

#[test]
fn who_fails_is_stood_in_for() {
    let (mut get, _) = sloppy(3);
    let next = says(&mut get, 1, None);
    assert_eq!(next, [Effect::Ask(node(4), Ask::Digest)]);
    says(&mut get, 0, Some(&[1]));
    says(&mut get, 3, Some(&[1]));
    let effects = says(&mut get, 4, Some(&[2]));
    assert_eq!(answered(&effects), Some((true, 3, 2)));
}

fn asked(effects: &[Effect]) -> Vec<(&str, Ask)> {
    let asks = effects.iter().filter_map(|effect| match effect {
        Effect::Ask(replica, ask) => Some((replica.as_str(), *ask)),
        _ => None,
    });
    asks.collect()
}

fn say(get: &mut Get, at: usize, said: Said) -> Vec<Effect> {
    let from = node(at);
    get.handle(Event::Said {
        from: &from,
        said,
        counts: true,
    })
}

/// A read of three owners, of which the last so many are spared.
fn spared(spares: usize, r: usize) -> (Get, Vec<Effect>) {
    let nodes: Vec<NodeId> = (0..3).map(node).collect();
    let replicas = Replicas {
        spared: &nodes[3 - spares..],
        ..Replicas::of(&nodes)
    };
    Get::new(replicas, r)
}

fn whole() -> Said {
    let object = object(&[1]);
    let digest = codec::digest(&object);
    Said::Object(object, digest)
}

#[test]
fn spares_are_left_alone_while_the_others_do_well() {
    let (mut get, effects) = spared(1, 2);
    assert_eq!(asked(&effects), [("n0", Ask::Object), ("n1", Ask::Digest)]);
    assert_eq!(say(&mut get, 0, whole()), []);
    let effects = say(&mut get, 1, Said::Digest(codec::digest(&object(&[1]))));
    assert!(matches!(&effects[..], [Effect::Answer(outcome)] if outcome.met));
    assert!(get.is_done());
}

#[test]
fn a_spare_is_asked_when_another_fails_or_is_slow() {
    let (mut get, _) = spared(1, 2);
    say(&mut get, 0, whole());
    let effects = say(&mut get, 1, Said::Failed);
    assert_eq!(asked(&effects), [("n2", Ask::Digest)]);
    let effects = say(&mut get, 2, Said::Digest(codec::digest(&object(&[1]))));
    assert!(
        matches!(&effects[..], [Effect::Answer(outcome)] if outcome.met && outcome.failed == 1)
    );

    let (mut get, _) = spared(2, 1);
    let effects = get.handle(Event::Hedge);
    assert_eq!(asked(&effects), [("n1", Ask::Object), ("n2", Ask::Digest)]);
    assert!(matches!(&say(&mut get, 1, whole())[..], [Effect::Answer(outcome)] if outcome.met));
}

#[test]
fn nobody_is_spared_who_is_needed() {
    let (_, effects) = spared(2, 2);
    assert_eq!(asked(&effects).len(), 2);
}

#[test]
fn a_spare_is_asked_when_an_answer_does_not_count() {
    let (mut get, _) = spared(1, 2);
    let from = &node(0);
    let (said, counts) = (whole(), false);
    let effects = get.handle(Event::Said { from, said, counts });
    assert_eq!(asked(&effects), [("n2", Ask::Digest)], "n0 is rebuilding");
    let digest = || Said::Digest(codec::digest(&object(&[1])));
    assert_eq!(say(&mut get, 1, digest()), []);
    let effects = say(&mut get, 2, digest());
    assert!(matches!(&effects[..], [Effect::Answer(outcome)] if outcome.met));
}

#[test]
fn a_spare_is_asked_when_somebody_is_slow_though_an_object_is_there() {
    let (mut get, _) = spared(1, 2);
    say(&mut get, 0, whole());
    assert_eq!(asked(&get.handle(Event::Hedge)), [("n2", Ask::Digest)]);
}

#[test]
fn the_hedge_asks_who_has_answered_already() {
    let nodes: Vec<NodeId> = (0..3).map(node).collect();
    let (mut get, _) = Get::new(Replicas::of(&nodes), 1);
    let digest = Said::Digest(codec::digest(&object(&[1])));
    assert_eq!(say(&mut get, 2, digest), []);
    assert_eq!(asked(&get.handle(Event::Hedge)), [("n2", Ask::Object)]);
}
