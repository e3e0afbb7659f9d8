//! Single machines: forming, giving up, losing a race, catching up, noticing what is wrong.

use super::super::*;
use super::{add, bound_to, first, firsts, node, put, second, secrets};
use crate::id::{Actor, NodeId};

fn machine(member: usize, members: usize) -> Machine {
    Machine::new(node(member), Actor(member as u64), first(members))
}

/// A proof for the successor of `before` with the votes of these members' named stores.
fn proof(before: &Document, votes: &[usize]) -> Proof {
    let store = |member: &usize| {
        before.layout.members[&node(*member)]
            .store
            .unwrap_or(Actor(*member as u64))
    };
    Proof {
        ballot: Ballot {
            counter: 1,
            store: Actor(1),
        },
        voters: before.voters(),
        accepts: votes
            .iter()
            .map(|member| (node(*member), store(member)))
            .collect(),
    }
}

fn chosen(before: &Document, document: Document, votes: &[usize]) -> Message {
    Message::Chosen {
        document: Box::new(document),
        proof: proof(before, votes),
    }
}

/// A machine of a formed cluster, in which member k has store k.
fn formed(member: usize, members: usize) -> Machine {
    let mut machine = machine(member, members);
    let all: Vec<usize> = (1..=members).collect();
    tell(
        &mut machine,
        1,
        chosen(&first(members), second(members), &all),
    );
    assert!(!machine.forming());
    machine
}

#[test]
fn who_is_alone_goes_on_with_a_restored_store_and_others_are_asked() {
    let held = Held::first(second(1));
    let alone = held.restored_alone(&node(1), Actor(9)).unwrap().unwrap();
    assert_eq!(alone.document.number, held.document.number + 1);
    assert_eq!(alone.document.lineage(), held.document.lineage());
    let bytes = alone.encode();
    let mut machine = Machine::open(node(1), Actor(9), first(1), Some(&bytes), None).unwrap();
    assert!(!machine.amnesiac());
    let change = put(
        "b",
        BucketConfig {
            n: 1,
            ..BucketConfig::default()
        },
    );
    let effects = machine.handle(Event::Propose { id: 1, change });
    let done = |effect: &Effect| {
        matches!(
            effect,
            Effect::Finished {
                outcome: Outcome::Done { .. },
                ..
            }
        )
    };
    assert!(effects.iter().any(done), "it votes alone: {effects:?}");
    // The lost store would not.
    let lost = Machine::open(node(1), Actor(1), first(1), Some(&bytes), None).unwrap();
    assert!(lost.amnesiac());

    assert!(held.restored_alone(&node(2), Actor(9)).is_err());
    let three = Held::first(second(3));
    assert_eq!(three.restored_alone(&node(1), Actor(9)), Ok(None));
    let chosen = three.encode();
    let restored = Machine::open(node(1), Actor(9), first(3), Some(&chosen), None).unwrap();
    assert!(
        restored.amnesiac(),
        "it does not vote until the others name it"
    );
}

fn tell(machine: &mut Machine, from: usize, message: Message) -> Vec<Effect> {
    machine.handle(Event::Message {
        from: node(from),
        message,
    })
}

fn sent(effects: &[Effect]) -> Vec<(NodeId, Message)> {
    let message = |effect: &Effect| match effect {
        Effect::Send { to, message } => Some((to.clone(), message.clone())),
        _ => None,
    };
    effects.iter().filter_map(message).collect()
}

fn outcomes(effects: &[Effect]) -> Vec<Outcome> {
    let outcome = |effect: &Effect| match effect {
        Effect::Finished { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    effects.iter().filter_map(outcome).collect()
}

fn alarms(effects: &[Effect]) -> Vec<String> {
    let alarm = |effect: &Effect| match effect {
        Effect::Alarm(alarm) => Some(alarm.to_string()),
        _ => None,
    };
    effects.iter().filter_map(alarm).collect()
}

fn last_timer(effects: &[Effect]) -> u64 {
    let token = |effect: &Effect| match effect {
        Effect::Timer { token, .. } => Some(*token),
        _ => None,
    };
    effects.iter().rev().find_map(token).expect("a timer runs")
}

/// The promises are on disk before anybody is asked or answered.
fn check_persisted_first(effects: &[Effect]) {
    let persist = effects
        .iter()
        .position(|e| matches!(e, Effect::Persist { .. }));
    let send = effects
        .iter()
        .position(|e| matches!(e, Effect::Send { .. }));
    assert!(persist.is_some() && persist < send, "{effects:?}");
}

fn bucket(name: &str) -> Change {
    put(name, BucketConfig::default())
}

#[test]
fn a_cluster_of_one_forms_and_changes_at_once() {
    let mut machine = machine(1, 1);
    let effects = machine.handle(Event::Form(secrets(3)));
    assert_eq!(machine.held().document.number, 2);
    assert_eq!(
        machine.held().document.cluster_key,
        Some(secrets(3).cluster_key)
    );
    assert_eq!(sent(&effects), []);
    let effects = machine.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    });
    assert_eq!(outcomes(&effects), [Outcome::Done { number: 3 }]);
    assert!(machine.held().document.buckets.contains_key("carts"));
    assert_eq!(machine.pending(), 0);
}

/// Delivers everything among the machines that are up until nothing is left.
fn exchange(up: &mut [Machine], effects: Vec<(usize, Effect)>) {
    let mut wire: std::collections::VecDeque<_> = effects.into();
    while let Some((from, effect)) = wire.pop_front() {
        let Effect::Send { to, message } = effect else {
            continue;
        };
        let target = (1..=up.len()).find(|member| node(*member) == to);
        let (at, event) = match target {
            Some(member) => (
                member,
                Event::Message {
                    from: node(from),
                    message,
                },
            ),
            None => (from, Event::Unreachable(to)),
        };
        wire.extend(
            up[at - 1]
                .handle(event)
                .into_iter()
                .map(|effect| (at, effect)),
        );
    }
}

#[test]
fn a_cluster_forms_as_soon_as_its_last_member_is_there() {
    let mut up = Vec::new();
    for member in 1..=3 {
        let mut new = machine(member, 3);
        let mut effects: Vec<_> = new
            .handle(Event::Form(secrets(member as u8)))
            .into_iter()
            .map(|effect| (member, effect))
            .collect();
        up.push(new);
        for earlier in 1..member {
            let reached = up[earlier - 1].handle(Event::Reached(node(member)));
            effects.extend(reached.into_iter().map(|effect| (earlier, effect)));
        }
        exchange(&mut up, effects);
        assert!(
            up.iter().all(|machine| machine.forming() == (member < 3)),
            "after {member} of 3"
        );
    }
    let formed = up[0].held();
    assert_eq!(formed.document.cluster_key, Some(secrets(1).cluster_key));
    assert!(
        up.iter()
            .all(|machine| machine.held() == formed && !machine.amnesiac())
    );
}

#[test]
fn a_reopened_machine_holds_what_it_persisted() {
    let mut old = machine(1, 1);
    let mut slots = std::collections::BTreeMap::new();
    let mut effects = old.handle(Event::Form(secrets(3)));
    effects.extend(old.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    }));
    for effect in effects {
        if let Effect::Persist { slot, bytes } = effect {
            slots.insert(slot, bytes);
        }
    }
    let record = |slot| slots.get(&slot).map(Vec::as_slice);
    let open = |chosen, promises| Machine::open(node(1), Actor(1), first(1), chosen, promises);
    let again = open(record(Slot::Chosen), record(Slot::Promises)).expect("readable");
    assert_eq!(again.held(), old.held());
    let error = open(None, record(Slot::Promises)).expect_err("the document is gone");
    assert_eq!(
        error,
        OpenError::Ahead {
            promised: 3,
            held: 1
        }
    );
}

#[test]
fn ballots_are_synced_before_they_are_used() {
    let mut machine = formed(1, 3);
    check_persisted_first(&machine.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    }));
    let ballot = Ballot {
        counter: 9,
        store: Actor(2),
    };
    let previous = machine.held().digest;
    check_persisted_first(&tell(
        &mut machine,
        2,
        Message::Prepare {
            number: 3,
            previous,
            ballot,
        },
    ));
    let document = bucket("b")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    check_persisted_first(&tell(
        &mut machine,
        2,
        Message::Accept {
            ballot,
            document: Box::new(document),
        },
    ));
}

#[test]
fn a_minority_says_how_many_are_missing() {
    let mut machine = formed(1, 5);
    let mut effects = machine.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    });
    for _ in 0..2 * MAX_SILENT_ROUNDS {
        let timer = Event::Timer {
            token: last_timer(&effects),
        };
        effects = machine.handle(timer);
        if !outcomes(&effects).is_empty() {
            break;
        }
    }
    assert_eq!(
        outcomes(&effects),
        [Outcome::GaveUp {
            missing: 2,
            members: 5,
            unknown: false
        }]
    );
}

#[test]
fn unreachable_members_need_no_timer() {
    let mut machine = formed(1, 3);
    let mut effects = machine.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    });
    for round in 1..=MAX_SILENT_ROUNDS {
        machine.handle(Event::Unreachable(node(2)));
        effects = machine.handle(Event::Unreachable(node(3)));
        if round < MAX_SILENT_ROUNDS {
            machine.handle(Event::Timer {
                token: last_timer(&effects),
            });
        }
    }
    assert_eq!(
        outcomes(&effects),
        [Outcome::GaveUp {
            missing: 1,
            members: 3,
            unknown: false
        }]
    );
}

#[test]
fn a_change_that_loses_the_race_is_tried_on_the_winner() {
    let mut machine = formed(1, 3);
    machine.handle(Event::Propose {
        id: 1,
        change: bucket("mine"),
    });
    let theirs = bucket("theirs")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    let effects = tell(&mut machine, 2, chosen(&second(3), theirs, &[2, 3]));
    assert_eq!(outcomes(&effects), []);
    let asked = sent(&effects);
    assert!(
        matches!(asked[0].1, Message::Prepare { number: 4, .. }),
        "{asked:?}"
    );
}

#[test]
fn a_change_that_another_one_forbids_is_refused() {
    let mut machine = formed(1, 3);
    let absent = Change::PutBucket {
        name: "carts".to_owned(),
        config: Box::new(bound_to("cart", b"module")),
        expect: Expect::Absent,
    };
    let uploaded = add("cart", b"module")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    tell(
        &mut machine,
        2,
        chosen(&second(3), uploaded.clone(), &[2, 3]),
    );
    machine.handle(Event::Propose {
        id: 1,
        change: absent,
    });
    let theirs = bucket("carts")
        .apply(&uploaded)
        .expect("valid")
        .expect("a change");
    let effects = tell(&mut machine, 2, chosen(&uploaded, theirs, &[2, 3]));
    assert!(matches!(
        &outcomes(&effects)[..],
        [Outcome::Refused(ChangeError::Precondition { .. })]
    ));
}

#[test]
fn the_queue_is_bounded() {
    let mut machine = formed(1, 3);
    let effects: Vec<Effect> = (0..=MAX_QUEUE as u64 + 1)
        .flat_map(|id| {
            machine.handle(Event::Propose {
                id,
                change: bucket("carts"),
            })
        })
        .collect();
    assert_eq!(outcomes(&effects), [Outcome::Busy]);
}

#[test]
fn a_node_that_was_away_learns_the_latest_at_once() {
    let three = bucket("a")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    let four = bucket("b").apply(&three).expect("valid").expect("a change");
    for mut away in [formed(3, 3), machine(3, 3)] {
        let asked = sent(&away.handle(Event::Seen {
            from: node(1),
            number: 4,
        }));
        let number = away.held().document.number;
        assert_eq!(asked, [(node(1), Message::Fetch { number })]);
        tell(&mut away, 1, chosen(&three, four.clone(), &[1, 2]));
        assert_eq!(away.held().document, four);
    }
}

#[test]
fn what_is_not_proven_is_not_learned() {
    let three = bucket("a")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    let check = |message: Message, expected: &str| {
        let mut machine = formed(3, 3);
        let alarms = alarms(&tell(&mut machine, 1, message));
        assert!(
            alarms.len() == 1 && alarms[0].contains(expected),
            "{alarms:?} does not say {expected:?}"
        );
        assert_eq!(machine.held().document, second(3));
    };
    check(
        chosen(&second(3), three.clone(), &[1]),
        "1 of 3 members accepted document 3, 2 must",
    );
    let mut strange = proof(&second(3), &[1, 2]);
    strange.accepts.insert(node(2), Actor(77));
    let document = Box::new(three.clone());
    check(
        Message::Chosen {
            document,
            proof: strange,
        },
        "does not vote on document 3",
    );
    check(chosen(&second(2), three.clone(), &[1, 2]), "other members");
    let mut other = three.clone();
    other.previous = other.lineage.first;
    check(
        chosen(&second(3), other, &[1, 2]),
        "another cluster or lineage",
    );
    let mut fork = second(3);
    fork.context_keys[0].id = 5;
    check(chosen(&first(3), fork, &[1, 2, 3]), "forked");
}

#[test]
fn document_two_needs_everybody() {
    let mut machine = machine(3, 3);
    let effects = tell(&mut machine, 1, chosen(&first(3), second(3), &[1, 2]));
    assert!(alarms(&effects)[0].contains("2 of 3 members accepted document 2, 3 must"));
    assert!(machine.forming());
}

#[test]
fn a_lost_store_does_not_vote_until_it_is_named() {
    let mut wiped = Machine::new(node(2), Actor(22), first(3));
    tell(&mut wiped, 1, chosen(&first(3), second(3), &[1, 2, 3]));
    assert!(wiped.amnesiac());
    let ballot = Ballot {
        counter: 9,
        store: Actor(1),
    };
    let prepare = |machine: &Machine| {
        let (number, previous) = (machine.held().document.number + 1, machine.held().digest);
        Message::Prepare {
            number,
            previous,
            ballot,
        }
    };
    let ask = prepare(&wiped);
    let answer = sent(&tell(&mut wiped, 1, ask));
    let reason = Abstention::Amnesiac;
    assert_eq!(
        answer,
        [(
            node(1),
            Message::Abstain {
                number: 3,
                ballot,
                reason
            }
        )]
    );
    let named = Change::NameStore {
        node: node(2),
        store: Actor(22),
    };
    let three = named.apply(&second(3)).expect("valid").expect("a change");
    tell(&mut wiped, 1, chosen(&second(3), three, &[1, 3]));
    assert!(!wiped.amnesiac());
    let ask = prepare(&wiped);
    let answer = sent(&tell(&mut wiped, 1, ask));
    assert!(matches!(answer[0].1, Message::Promise { number: 4, .. }));
}

#[test]
fn other_flags_are_refused_by_name() {
    let other = first_document("demo", &firsts(3), 32, 4).expect("valid");
    let mut mine = machine(1, 3);
    let mut theirs = Machine::new(node(2), Actor(2), other);
    let asked = sent(&mine.handle(Event::Form(secrets(1))));
    let answer = sent(&tell(&mut theirs, 1, asked[0].1.clone()));
    let alarms = alarms(&tell(&mut mine, 2, answer[0].1.clone()));
    assert!(
        alarms[0].contains("n2 was started with other flags")
            && alarms[0].contains("--partitions: 16 here, 32 there")
    );
}

#[test]
fn a_ballot_that_only_others_remember_means_lost_data() {
    let mut machine = formed(1, 3);
    let effects = machine.handle(Event::Propose {
        id: 1,
        change: bucket("carts"),
    });
    let (_, Message::Prepare { number, ballot, .. }) = &sent(&effects)[0] else {
        panic!("{effects:?}")
    };
    let promised = Ballot {
        counter: 500,
        store: Actor(1),
    };
    let refused = Message::Refused {
        number: *number,
        ballot: *ballot,
        promised,
    };
    assert!(alarms(&tell(&mut machine, 2, refused))[0].contains("ballot 500"));
}

#[test]
fn messages_survive_the_wire() {
    let message = chosen(&first(3), second(3), &[1, 2, 3]);
    let bytes = postcard::to_stdvec(&message).expect("encodes");
    assert_eq!(postcard::from_bytes::<Message>(&bytes), Ok(message));
}
