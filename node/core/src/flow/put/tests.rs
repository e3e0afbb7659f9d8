//! One answer, true whatever comes in which order, and a stand-in for whoever cannot.

use proptest::prelude::*;

use super::*;

fn node(at: usize) -> NodeId {
    format!("n{at}").parse().expect("a node id")
}

/// What a replica does with its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acks,
    Fails,
    Silent,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Acks), Just(Fate::Fails), Just(Fate::Silent)]
}

/// A question to a replica: as an owner, or to keep a hint for one.
type Question = (NodeId, Option<NodeId>);

fn asked(effects: &[Effect]) -> Vec<Question> {
    let question = |effect: &Effect| match effect {
        Effect::Replicate(to) => Some((to.clone(), None)),
        Effect::Hint { to, target } => Some((to.clone(), Some(target.clone()))),
        Effect::Answer(_) => None,
    };
    effects.iter().filter_map(question).collect()
}

fn answers(effects: &[Effect]) -> Vec<Outcome> {
    let answer = |effect: &Effect| match effect {
        Effect::Answer(outcome) => Some(*outcome),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

/// What is certain to be left of the write for one layout, whichever hints are delivered: a stand-in forgets its
/// copy once all its targets have theirs. A primary of any layout is in `all`.
fn least_copies(owners: &[NodeId], all: &[NodeId], acked: &[Question]) -> usize {
    let mut stand_ins: Vec<(NodeId, Vec<NodeId>)> = Vec::new();
    let mut primaries = BTreeSet::new();
    for (by, target) in acked {
        match target {
            None if all.contains(by) => {
                primaries.insert(by.clone());
            }
            None => stand_ins.push((by.clone(), all.to_vec())),
            Some(target) => match stand_ins.iter_mut().find(|(name, _)| name == by) {
                Some((_, targets)) => targets.push(target.clone()),
                None => stand_ins.push((by.clone(), vec![target.clone()])),
            },
        }
    }
    let delivered = |chosen: usize| {
        let mut holders = primaries.clone();
        for (at, (by, targets)) in stand_ins.iter().enumerate() {
            if chosen >> at & 1 == 1 {
                holders.extend(targets.iter().cloned());
            } else if targets.iter().any(|target| owners.contains(target)) {
                holders.insert(by.clone());
            }
        }
        let theirs = |holder: &&NodeId| owners.contains(holder) || !all.contains(holder);
        holders.iter().filter(theirs).count()
    };
    (0..1 << stand_ins.len()).map(delivered).min().unwrap_or(0)
}

proptest! {
    #[test]
    fn acknowledged_means_w_copies_whatever_is_delivered(
        fates in proptest::collection::vec(fate(), 8),
        n in 1..4usize,
        moved in prop::option::of(0..3usize),
        w in 1..4usize,
        away in any::<[bool; 3]>(),
        coordinator in 0..5usize,
        sloppy in any::<bool>(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 24),
        patience_at in 0..24usize,
        repeat in any::<bool>(),
    ) {
        let owners: Vec<NodeId> = (0..n).map(node).collect();
        // While owners change, the other layout has the same number of them, some of them others.
        let also: Vec<NodeId> = moved.into_iter().flat_map(|by| by..by + n).map(node).collect();
        let both: Vec<NodeId> = (0..n.max(moved.unwrap_or(0) + n)).map(node).filter(|at| owners.contains(at) || also.contains(at)).collect();
        let fallbacks: Vec<NodeId> = (n..8).map(node).filter(|at| !both.contains(at)).collect();
        let me = node(if sloppy { coordinator } else { coordinator % n });
        prop_assume!(owners.contains(&me) || !also.contains(&me));
        let w = w.min(n);
        let away: Vec<NodeId> = owners.iter().zip(away).filter(|(_, away)| *away).map(|(owner, _)| owner.clone()).collect();
        let replicas = Replicas { owners: &owners, away: &away, spared: &[], fallbacks: &fallbacks };
        let mut put = Put::new(me.clone(), replicas, w, sloppy);
        if moved.is_some() {
            put = put.also(&also, &away, w);
        }
        let mut effects = put.handle(Event::Minted);
        let mut left: Vec<Question> = vec![(me.clone(), None)];
        left.extend(asked(&effects));
        for owner in both.iter().filter(|owner| **owner != me) {
            prop_assert!(left.contains(&(owner.clone(), None)), "every owner is asked at once");
        }
        let (mut all, mut acked) = (answers(&effects), Vec::new());
        for (turn, pick) in order.into_iter().enumerate() {
            if turn == patience_at {
                effects = put.handle(Event::Patience);
                left.extend(asked(&effects));
                all.extend(answers(&effects));
            }
            if left.is_empty() { break }
            let (by, target) = left.remove(pick.index(left.len()));
            let fate = fates[by.as_str()[1..].parse::<usize>().expect("a digit")];
            if fate == Fate::Acks { acked.push((by.clone(), target.clone())); }
            for _ in 0..if repeat { 2 } else { 1 } {
                effects = match (&target, fate) {
                    (_, Fate::Silent) => Vec::new(),
                    (None, Fate::Acks) => put.handle(Event::Acked(&by)),
                    (None, Fate::Fails) => put.handle(Event::Failed(&by)),
                    (Some(target), Fate::Acks) => put.handle(Event::Kept { by: &by, target }),
                    (Some(target), Fate::Fails) => put.handle(Event::Refused { by: &by, target }),
                };
                prop_assert!(sloppy || asked(&effects).is_empty(), "strict asks nobody else");
                left.extend(asked(&effects));
                all.extend(answers(&effects));
                if let Some(Outcome::Written { .. }) = all.first() {
                    let layouts = if moved.is_some() { vec![&owners, &also] } else { vec![&owners] };
                    for layout in layouts {
                        prop_assert!(least_copies(layout, &both, &acked) >= w, "{:?} of {:?}", acked, layout);
                    }
                }
            }
        }
        all.extend(answers(&put.handle(Event::Deadline)));
        prop_assert_eq!(all.len(), 1, "exactly one answer");
        match all[0] {
            Outcome::Written { owners, fallbacks } => {
                prop_assert!(owners + fallbacks >= w);
                prop_assert!(sloppy || fallbacks == 0);
            }
            Outcome::Unknown { owners, fallbacks, .. } => prop_assert!(moved.is_some() || owners + fallbacks < w),
        }
    }
}

/// A write by n0 to n0, n1, n2 with n3 and n4 to stand in; W is 2.
fn put(away: &[usize], sloppy: bool) -> (Put, Vec<Effect>) {
    let [owners, fallbacks] = [0..3, 3..5].map(|them| them.map(node).collect::<Vec<_>>());
    let away: Vec<NodeId> = away.iter().copied().map(node).collect();
    let replicas = Replicas {
        owners: &owners,
        away: &away,
        spared: &[],
        fallbacks: &fallbacks,
    };
    let mut put = Put::new(node(0), replicas, 2, sloppy);
    let effects = put.handle(Event::Minted);
    (put, effects)
}

fn hint(to: usize, target: usize) -> Effect {
    Effect::Hint {
        to: node(to),
        target: node(target),
    }
}

fn kept(put: &mut Put, by: usize, target: usize) -> Vec<Effect> {
    put.handle(Event::Kept {
        by: &node(by),
        target: &node(target),
    })
}

#[test]
fn who_is_away_is_stood_in_for_at_once() {
    let (mut put, effects) = put(&[2], true);
    assert_eq!(effects[2..], [hint(3, 2)]);
    assert_eq!(put.handle(Event::Acked(&node(0))), []);
    let written = Effect::Answer(Outcome::Written {
        owners: 1,
        fallbacks: 1,
    });
    assert_eq!(kept(&mut put, 3, 2), [written]);
    assert_eq!(
        put.handle(Event::Failed(&node(2))),
        [],
        "that is known, and seen to"
    );
}

#[test]
fn who_fails_or_stays_silent_is_stood_in_for_by_the_next() {
    let (mut put, effects) = put(&[], true);
    assert_eq!(
        effects.len(),
        2,
        "nobody is away: no fallback is asked: {effects:?}"
    );
    assert_eq!(put.handle(Event::Failed(&node(1))), [hint(3, 1)]);
    assert_eq!(put.handle(Event::Acked(&node(0))), []);
    assert_eq!(put.handle(Event::Patience), [hint(4, 2)]);
    let refused = Event::Refused {
        by: &node(3),
        target: &node(1),
    };
    assert_eq!(
        put.handle(refused),
        [hint(4, 1)],
        "nobody else is left: n4 keeps it for both"
    );
    assert_eq!(kept(&mut put, 4, 1), [], "one copy for two counts once");
    let written = Effect::Answer(Outcome::Written {
        owners: 1,
        fallbacks: 1,
    });
    assert_eq!(kept(&mut put, 4, 2), [written]);
}

#[test]
fn the_owner_and_its_stand_in_are_one_copy() {
    let (mut put, _) = put(&[1], true);
    assert_eq!(kept(&mut put, 3, 1), []);
    assert_eq!(
        put.handle(Event::Acked(&node(1))),
        [],
        "n3 will forget what n1 has"
    );
    let answer = put.handle(Event::Acked(&node(0)));
    let written = Outcome::Written {
        owners: 2,
        fallbacks: 0,
    };
    assert_eq!(answer, [Effect::Answer(written)]);
}

#[test]
fn hints_are_sent_after_the_answer_too() {
    let (mut put, _) = put(&[], true);
    put.handle(Event::Acked(&node(0)));
    assert_eq!(put.handle(Event::Acked(&node(1))).len(), 1);
    assert!(!put.is_done());
    assert_eq!(put.handle(Event::Failed(&node(2))), [hint(3, 2)]);
    assert!(!put.is_done());
    assert_eq!(kept(&mut put, 3, 2), []);
    assert!(put.is_done());
}

#[test]
fn strict_counts_owners_and_asks_nobody_else() {
    let (mut put, effects) = put(&[1, 2], false);
    assert_eq!(effects.len(), 2, "{effects:?}");
    put.handle(Event::Acked(&node(0)));
    put.handle(Event::Failed(&node(1)));
    let unknown = Outcome::Unknown {
        owners: 1,
        fallbacks: 0,
        failed: 2,
    };
    assert_eq!(
        put.handle(Event::Failed(&node(2))),
        [Effect::Answer(unknown)]
    );
}

#[test]
fn a_fallback_that_coordinates_counts_beside_the_others() {
    let [owners, fallbacks] = [0..3, 3..5].map(|them| them.map(node).collect::<Vec<_>>());
    let replicas = Replicas {
        owners: &owners,
        away: &owners,
        spared: &[],
        fallbacks: &fallbacks,
    };
    let mut put = Put::new(node(3), replicas, 2, true);
    let effects = put.handle(Event::Minted);
    assert_eq!(
        effects[3..],
        [hint(4, 0), hint(4, 1), hint(4, 2)],
        "itself keeps it for all three"
    );
    assert_eq!(put.handle(Event::Acked(&node(3))), []);
    let written = Outcome::Written {
        owners: 0,
        fallbacks: 2,
    };
    assert_eq!(kept(&mut put, 4, 0), [Effect::Answer(written)]);
}

#[test]
fn a_write_begun_again_counts_its_coordinator_only_where_it_owns() {
    let [before, after] = [0..3, 1..4].map(|them| them.map(node).collect::<Vec<_>>());
    let mut first = Put::new(node(0), Replicas::of(&before), 2, false);
    first.handle(Event::Minted);
    first.handle(Event::Acked(&node(0)));
    let mut again = first.again(Replicas::of(&after), 2, false);
    assert_eq!(asked(&again.handle(Event::Minted)).len(), 3);
    assert!(answers(&again.handle(Event::Acked(&node(0)))).is_empty());
    assert!(answers(&again.handle(Event::Acked(&node(3)))).is_empty());
    let (owners, fallbacks) = (2, 0);
    let written = Outcome::Written { owners, fallbacks };
    assert_eq!(answers(&again.handle(Event::Acked(&node(1)))), [written]);
    let mut late = again.again(Replicas::of(&before), 2, false);
    assert_eq!(
        asked(&late.handle(Event::Minted)).len(),
        2,
        "it still goes to all others"
    );
    late.handle(Event::Acked(&node(0)));
    assert!(
        answers(&late.handle(Event::Acked(&node(1)))).is_empty(),
        "but was answered"
    );
}
