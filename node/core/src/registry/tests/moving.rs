//! Changes of owners: what each step does to who owns what, over chosen and over drawn histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::*;
use super::{node, put, second};
use crate::id::{Actor, NodeId, Partition};

fn joiner(number: usize) -> Joiner {
    Joiner {
        node: node(number),
        store: Actor(100 + number as u64),
        peer_addr: format!("127.0.0.1:{}", 7170 + number),
        zone: None,
        tokens: 4,
    }
}

fn apply(document: &Document, change: &Change) -> Document {
    let next = change
        .apply(document)
        .expect("allowed")
        .expect("it changes something");
    assert_eq!(next.check(), Ok(()));
    assert_eq!(Document::decode(&next.encode()).as_ref(), Ok(&next));
    next
}

fn check_refused(document: &Document, change: &Change, expected: &str) {
    let error = change
        .apply(document)
        .expect_err("it is refused")
        .to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

fn partitions(document: &Document) -> impl Iterator<Item = Partition> + use<> {
    (0..document.layout.partitions).map(Partition)
}

/// Everything that new owners of a document miss, as if they had fetched it.
fn fill(document: &Document, who: &NodeId, up_to: usize) -> Change {
    let change = document.layout.change.as_ref().expect("owners change");
    let missing = change.missing.get(who).cloned().unwrap_or_default();
    Change::Filled {
        began: change.began,
        node: who.clone(),
        store: document.layout.members[who].store.expect("it has one"),
        partitions: missing.iter().take(up_to).collect(),
    }
}

fn settle(mut document: Document) -> Document {
    while let Some(change) = document.layout.change.clone() {
        let next = match change.missing.keys().next() {
            Some(who) => fill(&document, who, usize::MAX),
            None => Change::Retire {
                began: change.began,
            },
        };
        document = apply(&document, &next);
    }
    document
}

#[test]
fn a_join_prepares_switches_and_retires() {
    let start = second(3);
    let join = Change::Join(joiner(4));
    let prepared = apply(&start, &join);
    assert_eq!(
        join.apply(&prepared),
        Ok(None),
        "asked twice it is one join"
    );
    let (old, new) = (start.owners(), prepared.owners());
    let moving: Vec<Partition> = partitions(&start)
        .filter(|at| new.holds(&node(4), *at, 3))
        .collect();
    assert!(!moving.is_empty());
    for at in partitions(&start) {
        assert_eq!(
            new.counting(at, 3),
            old.counting(at, 3),
            "nothing counts elsewhere yet"
        );
        assert_eq!(new.also(at, 3).contains(&node(4)), moving.contains(&at));
    }
    check_refused(
        &prepared,
        &Change::Retire {
            began: prepared.number,
        },
        "owners are changing",
    );

    let switched = apply(&prepared, &fill(&prepared, &node(4), 1));
    let owners = switched.owners();
    assert!(owners.counting(moving[0], 3).contains(&node(4)));
    assert_eq!(
        owners.also(moving[0], 3),
        old.counting(moving[0], 3),
        "writes still go to both"
    );
    assert!(!owners.counting(moving[1], 3).contains(&node(4)));

    let done = settle(switched);
    assert_eq!(done.owners().ring, apply(&start, &join).owners_after());
    assert!(partitions(&done).all(|at| done.owners().also(at, 3).is_empty()));
}

impl Document {
    fn owners_after(&self) -> crate::ring::Ring {
        settle(self.clone()).owners().ring
    }
}

#[test]
fn a_leaver_hands_over_and_is_remembered() {
    let start = settle(apply(&second(3), &Change::Join(joiner(4))));
    let leave = Change::Leave { node: node(2) };
    let prepared = apply(&start, &leave);
    assert_eq!(leave.apply(&prepared), Ok(None));
    let stays = Joiner {
        store: Actor(2),
        ..joiner(2)
    };
    let stayed = settle(apply(&prepared, &Change::Join(stays)));
    assert_eq!(stayed.owners(), start.owners(), "it may change its mind");
    assert!(
        prepared.layout.members.contains_key(&node(2)),
        "it votes until it is gone"
    );
    let done = settle(prepared);
    assert!(!done.layout.members.contains_key(&node(2)));
    let former = &done.layout.former[&Actor(2)];
    assert_eq!((former.why, former.node.clone()), (Farewell::Left, node(2)));
    check_refused(
        &done,
        &Change::NameStore {
            node: node(1),
            store: Actor(2),
        },
        "empty data folder",
    );
    let back = Joiner {
        store: Actor(2),
        ..joiner(2)
    };
    check_refused(
        &done,
        &Change::Join(back),
        "sent away: start it with an empty data folder",
    );
    let again = settle(apply(&done, &Change::Join(joiner(2))));
    assert_eq!(again.layout.members[&node(2)].incarnation, 2);
    assert_eq!(again.owners().ring, start.owners().ring);
}

#[test]
fn nobody_leaves_copies_behind_without_a_home() {
    let three = second(3);
    check_refused(
        &three,
        &Change::Leave { node: node(1) },
        "2 members would be left for the 3 copies",
    );
    check_refused(
        &three,
        &Change::Remove {
            node: node(1),
            store: None,
        },
        "2 members",
    );
    check_refused(
        &three,
        &Change::Leave { node: node(9) },
        "n9 is not a member",
    );
    let four = apply(&three, &Change::Join(joiner(4)));
    check_refused(
        &four,
        &Change::Leave { node: node(1) },
        "owners are changing since document 3",
    );
    check_refused(&four, &Change::Join(joiner(5)), "owners are changing");
    check_refused(
        &four,
        &Change::Join(Joiner {
            store: Actor(7),
            ..joiner(1)
        }),
        "another store",
    );
}

#[test]
fn a_removed_member_is_fetched_from_the_others() {
    let start = settle(apply(&second(3), &Change::Join(joiner(4))));
    let was = Change::Remove {
        node: node(3),
        store: Some(Actor(9)),
    };
    assert_eq!(
        was.apply(&start),
        Ok(None),
        "another store than the one that failed"
    );
    let removed = apply(
        &start,
        &Change::Remove {
            node: node(3),
            store: Some(Actor(3)),
        },
    );
    assert!(!removed.layout.members.contains_key(&node(3)));
    let change = removed.layout.change.as_ref().expect("owners change");
    for (who, missing) in &change.missing {
        let needs = removed.fill_needs(who);
        assert_eq!(
            needs.keys().copied().collect::<Vec<_>>(),
            missing.iter().collect::<Vec<_>>()
        );
        for at in missing.iter() {
            let [need] = &needs[&at][..] else {
                panic!("one bucket, one need")
            };
            assert_eq!(
                (need.others.len(), need.q),
                (2, 2),
                "the dead are not asked"
            );
            assert!(
                removed.owners().counting(at, 3).contains(&node(3)),
                "and still count as absent"
            );
        }
    }
    assert!(removed.fill_needs(&node(3)).is_empty());
    let done = settle(removed);
    assert!(partitions(&done).all(|at| done.owners().counting(at, 3).len() == 3));
}

#[test]
fn a_replacement_takes_exactly_the_places_of_the_other() {
    let start = settle(apply(&second(3), &Change::Join(joiner(4))));
    for alive in [false, true] {
        let change = Change::Replace {
            node: node(2),
            by: joiner(7),
            alive,
        };
        let prepared = apply(&start, &change);
        let missing = &prepared
            .layout
            .change
            .as_ref()
            .expect("owners change")
            .missing;
        assert_eq!(
            missing.keys().collect::<Vec<_>>(),
            [&node(7)],
            "nobody else has to fetch"
        );
        let done = settle(prepared);
        let rename = |at: &NodeId| if *at == node(2) { node(7) } else { at.clone() };
        for at in partitions(&start) {
            let expected: Vec<NodeId> = start.owners().counting(at, 3).iter().map(rename).collect();
            assert_eq!(done.owners().counting(at, 3), expected);
        }
        let back = apply(
            &done,
            &Change::Join(Joiner {
                store: Actor(55),
                ..joiner(2)
            }),
        );
        assert_eq!(back.layout.members[&node(2)].seat.as_str(), "n2.2");
    }
}

#[test]
fn a_join_can_turn_round_and_a_death_on_the_way_is_no_dead_end() {
    let start = second(3);
    let joining = apply(&start, &Change::Join(joiner(4)));
    let half = apply(&joining, &fill(&joining, &node(4), 3));
    let turned = apply(&half, &Change::Leave { node: node(4) });
    assert_eq!(
        turned.owners().ring.primaries(Partition(0), 3),
        start.owners().counting(Partition(0), 3)
    );
    assert!(
        turned
            .layout
            .change
            .as_ref()
            .expect("not retired yet")
            .missing
            .is_empty()
    );
    assert_eq!(
        fill(&half, &node(4), 9).apply(&turned),
        Ok(None),
        "said of the change before"
    );
    assert_eq!(settle(turned).owners(), start.owners());

    let removed = apply(
        &half,
        &Change::Remove {
            node: node(1),
            store: None,
        },
    );
    let change = removed.layout.change.as_ref().expect("owners change");
    assert!(change.before.contains_key(&node(1)) && !change.before.contains_key(&node(4)));
    let late = fill(&half, &node(4), 9);
    assert_eq!(late.apply(&removed), Ok(None));
    assert!(partitions(&removed).all(|at| !removed.owners().counting(at, 3).contains(&node(4))));
    settle(removed);
}

#[test]
fn a_new_owner_that_loses_its_store_fetches_all_again() {
    let joining = apply(&second(3), &Change::Join(joiner(4)));
    let all = joining
        .layout
        .change
        .as_ref()
        .expect("owners change")
        .missing
        .clone();
    let half = apply(&joining, &fill(&joining, &node(4), 3));
    let lost = apply(
        &half,
        &Change::NameStore {
            node: node(4),
            store: Actor(9),
        },
    );
    assert_eq!(
        lost.layout.change.as_ref().expect("owners change").missing,
        all
    );
    assert_eq!(
        fill(&half, &node(4), 9).apply(&lost),
        Ok(None),
        "what the lost store had"
    );
}

#[test]
fn nothing_is_retired_before_old_owners_know() {
    let joining = apply(&second(3), &Change::Join(joiner(4)));
    let all = |_: &NodeId| true;
    assert!(!joining.may_retire(|_| u64::MAX, all), "not switched");
    let ready = apply(&joining, &fill(&joining, &node(4), usize::MAX));
    let knowing = |who: &[usize]| {
        let who: BTreeSet<NodeId> = who.iter().map(|number| node(*number)).collect();
        move |node: &NodeId| {
            if who.contains(node) {
                ready.number
            } else {
                ready.number - 1
            }
        }
    };
    let ready = ready.clone();
    let but_third = |at: &NodeId| *at != node(3);
    assert!(ready.may_retire(knowing(&[1, 2, 3, 4]), all));
    assert!(
        !ready.may_retire(knowing(&[1, 2, 4]), all),
        "who can be reached is waited for"
    );
    assert!(
        ready.may_retire(knowing(&[1, 2, 4]), but_third),
        "W and n - W + 1 of three are two"
    );
    let joiner_and_first = |at: &NodeId| [node(1), node(4)].contains(at);
    assert!(!ready.may_retire(knowing(&[1, 4]), joiner_and_first));
}

#[test]
fn who_stays_can_go_on_choosing() {
    let members = apply(&second(4), &Change::Join(joiner(5)));
    let leaving = apply(&settle(members), &Change::Leave { node: node(5) });
    let missing = leaving.layout.change.as_ref().expect("owners change");
    let missing: Vec<NodeId> = missing.missing.keys().cloned().collect();
    let ready = missing.iter().fold(leaving, |next, at| {
        apply(&next, &fill(&next, at, usize::MAX))
    });
    let there =
        |away: &'static [usize]| move |at: &NodeId| away.iter().all(|number| *at != node(*number));
    assert!(ready.may_retire(|_| u64::MAX, there(&[1])));
    assert!(
        !ready.may_retire(|_| u64::MAX, there(&[1, 2])),
        "two of the four who stay would be alone, without the leaver's vote"
    );
}

/// What may happen next, by a number.
fn wish(document: &Document, draw: u64) -> Change {
    let members: Vec<&NodeId> = document.layout.members.keys().collect();
    let some = |at: u64| members[at as usize % members.len()].clone();
    let new = || Joiner {
        store: Actor(1_000_000 + draw),
        ..joiner(1 + (draw / 7 % 9) as usize)
    };
    match draw % 7 {
        0 => Change::Join(new()),
        1 => Change::Leave {
            node: some(draw / 7),
        },
        2 => Change::Remove {
            node: some(draw / 7),
            store: None,
        },
        3 => Change::Replace {
            node: some(draw / 63),
            by: new(),
            alive: (draw / 7).is_multiple_of(2),
        },
        4 => put(
            &format!("b{}", draw / 7 % 3),
            BucketConfig {
                n: 1 + (draw / 21 % 4) as u8,
                ..BucketConfig::default()
            },
        ),
        _ => match &document.layout.change {
            Some(change) => match change.missing.keys().next() {
                Some(who) => fill(document, who, 1 + (draw / 7 % 5) as usize),
                None => Change::Retire {
                    began: change.began,
                },
            },
            None => Change::Join(new()),
        },
    }
}

proptest! {
    #[test]
    fn through_any_history_every_partition_has_its_owners(draws in prop::collection::vec(any::<u64>(), 1..40)) {
        let mut document = second(3);
        // The owners of before hold everything until a change is retired.
        let mut complete = document.owners();
        for draw in draws {
            let change = wish(&document, draw);
            let Ok(Some(next)) = change.apply(&document) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            let owners = next.owners();
            for n in next.ns() {
                for at in partitions(&next) {
                    let counting: BTreeSet<&NodeId> = owners.counting(at, n).iter().collect();
                    let staying = next.layout.members.values().filter(|member| !member.leaving).count();
                    let change = next.layout.change.as_ref();
                    let seated = change.filter(|change| !change.is_switched(at)).map_or(staying, |change| change.before.len());
                    prop_assert_eq!(counting.len(), usize::from(n).min(seated), "distinct owners");
                    let holders = owners.holders(at, n);
                    prop_assert!(counting.iter().all(|node| holders.contains(node)));
                    if next.layout.change.is_some() && document.ns().contains(&n) {
                        let old = complete.counting(at, n);
                        prop_assert!(old.iter().all(|node| holders.contains(node)), "old owners get every write");
                        let new = owners.counting(at, n);
                        let switched = next.layout.change.as_ref().is_some_and(|change| change.is_switched(at));
                        prop_assert!(switched || new == old, "only those who have all of it count");
                    }
                }
            }
            if next.layout.change.is_none() {
                complete = owners;
            }
            document = next;
        }
        let done = settle(document);
        let all = done.owners();
        prop_assert!(partitions(&done).all(|at| all.also(at, 3).is_empty()));
    }
}
