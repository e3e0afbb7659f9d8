//! Knocks judged, candidates remembered, and whole conversations of a node that asks to be taken in.

use std::collections::BTreeMap;

use super::*;
use crate::id::{Actor, Digest, NodeId};
use crate::registry::{
    Ballot, Change, Document, Farewell, First, Former, Held, Joiner, Proof, Secret, Secrets,
    first_document, second_document,
};

fn node(number: usize) -> NodeId {
    format!("n{number}").parse().expect("a valid name")
}

/// Document 2 of n1, n2 and n3.
fn formed(cluster: &str) -> Document {
    let first = |number: usize| First {
        peer_addr: format!("127.0.0.1:{number}"),
        zone: None,
    };
    let firsts: BTreeMap<_, _> = (1..=3).map(|at| (node(at), first(at))).collect();
    let first = first_document(cluster, &firsts, 16, 4).expect("a valid document");
    let stores = (1..=3).map(|at| (node(at), Actor(at as u64))).collect();
    let secrets = Secrets {
        context_key: Secret([1; 32]),
        cluster_key: Secret([2; 32]),
    };
    second_document(&first, &stores, &secrets).expect("all stores are told")
}

fn joiner(number: usize) -> Joiner {
    Joiner {
        node: node(number),
        store: Actor(100 + number as u64),
        peer_addr: format!("127.0.0.1:{number}"),
        zone: None,
        tokens: 4,
    }
}

fn knock(joiner: Joiner) -> Knock {
    Knock {
        cluster_id: None,
        joiner,
        url: "http://127.0.0.1:7070".to_owned(),
        wish: Wish::Join,
    }
}

/// As chosen by all members of the document before.
fn proven(document: Document) -> Held {
    let voters = formed(&document.cluster_id).voters();
    let accepts = voters
        .iter()
        .map(|(node, store)| (node.clone(), store.expect("named")));
    let proof = Proof {
        ballot: Ballot {
            counter: 1,
            store: Actor(1),
        },
        accepts: accepts.collect(),
        voters,
    };
    Held {
        digest: document.digest(),
        document,
        proof: Some(proof),
    }
}

/// Document 3, which takes n4 in.
fn taken_in(cluster: &str) -> Document {
    let next = Change::Join(joiner(4)).apply(&formed(cluster));
    next.expect("allowed").expect("it changes something")
}

#[test]
fn whoever_is_of_a_lineage_that_was_given_up_gives_what_it_holds() {
    let before = taken_in("shop");
    let (old, epoch) = (before.lineage().expect("formed"), 3);
    let store = |number| before.layout.members[&node(number)].store.expect("formed");
    let after = before
        .recovered(&node(1), store(1), epoch)
        .expect("allowed");
    let ask = |document: &Document, joiner: Joiner, wish| {
        let wished = Knock {
            wish,
            ..knock(joiner)
        };
        judge(document, &wished, false)
    };
    let named = |number| Joiner {
        store: store(number),
        ..joiner(number)
    };
    let gives = |store| Ok(Judged::Gives(after.layout.former[&store].clone()));
    assert_eq!(
        ask(&after, named(2), Wish::Return(old)),
        gives(store(2)),
        "it was a member"
    );
    let restored = Joiner {
        store: Actor(99),
        ..joiner(2)
    };
    let expected = Former {
        node: node(2),
        incarnation: 0,
        why: Farewell::Removed,
        number: after.number,
    };
    assert_eq!(
        ask(&after, restored.clone(), Wish::Return(old)),
        Ok(Judged::Gives(expected)),
        "a store that nobody had named yet"
    );
    assert_eq!(
        ask(&after, restored, Wish::Salvage),
        Ok(Judged::Stranger),
        "it may be anybody's"
    );
    // Whoever recovered does not give to itself.
    let twin = ask(&after, named(1), Wish::Return(old));
    assert_eq!(twin, Ok(Judged::Named));

    let other = before
        .recovered(&node(2), store(2), epoch)
        .expect("allowed");
    let theirs = other.lineage().expect("recovered");
    let error = ask(&after, named(2), Wish::Return(theirs)).expect_err("recovered apart");
    assert!(error.to_string().contains("--yield"), "{error}");
    // Led by its operator it comes all the same.
    assert_eq!(ask(&after, named(2), Wish::Salvage), gives(store(2)));
    assert!(ask(&before, named(2), Wish::Return(theirs)).is_err());
}

#[test]
fn a_knock_is_judged_by_the_document() {
    let mut document = taken_in("shop");
    let former = Former {
        node: node(7),
        incarnation: 1,
        why: Farewell::Removed,
        number: 12,
    };
    document.layout.former.insert(Actor(77), former.clone());
    let left = Former {
        why: Farewell::Left,
        ..former
    };
    document.layout.former.insert(Actor(78), left);
    let check = |joiner: Joiner, is_here: bool, expected: Result<Judged, &str>| {
        let judged = judge(&document, &knock(joiner), is_here);
        match (judged, expected) {
            (Ok(judged), Ok(expected)) => assert_eq!(judged, expected),
            (Err(error), Err(expected)) => assert!(
                error.to_string().contains(expected),
                "{error} does not say {expected:?}"
            ),
            (judged, expected) => panic!("{judged:?}, not {expected:?}"),
        }
    };
    let with = |number, store| Joiner {
        store: Actor(store),
        ..joiner(number)
    };
    check(joiner(4), false, Ok(Judged::Named));
    check(joiner(4), true, Ok(Judged::Named));
    check(joiner(5), false, Ok(Judged::Stranger));
    check(with(4, 9), false, Ok(Judged::Returns));
    check(with(4, 9), true, Err("n4 is a member with another store"));
    let elsewhere = Joiner {
        peer_addr: "127.0.0.1:99".to_owned(),
        ..with(4, 9)
    };
    check(elsewhere, false, Err("n4 is a member with another store"));
    let same_place = Joiner {
        peer_addr: "127.0.0.1:1".to_owned(),
        ..joiner(5)
    };
    check(
        same_place,
        false,
        Err("127.0.0.1:1 is the peer address of n1"),
    );
    check(
        with(7, 77),
        false,
        Err(
            "n7 was removed by document 12: it gives what it holds to the owners of now and starts empty",
        ),
    );
    check(with(7, 78), false, Err("n7 left with document 12"));
    check(with(7, 79), false, Ok(Judged::Stranger));
    let other = Knock {
        cluster_id: Some("other".to_owned()),
        ..knock(joiner(4))
    };
    let error = judge(&document, &other, false).expect_err("another cluster");
    assert!(
        error.to_string().contains("\"shop\", not \"other\""),
        "{error}"
    );
}

#[test]
fn candidates_are_few_and_forgotten() {
    let mut candidates = Candidates::default();
    let names = |candidates: &mut Candidates, now_ms| -> Vec<String> {
        let list = candidates.list(now_ms).into_iter();
        list.map(|one| one.joiner.node.to_string()).collect()
    };
    candidates.note(&knock(joiner(4)), 0).expect("room");
    candidates.note(&knock(joiner(5)), 10).expect("room");
    let twin = Joiner {
        store: Actor(1),
        ..joiner(4)
    };
    let refused = candidates.note(&knock(twin.clone()), 20);
    assert_eq!(refused, Err(Refusal::Knocks(node(4))));
    assert!(
        refused.is_err_and(|refusal| refusal.passes()),
        "it asks again"
    );
    assert_eq!(names(&mut candidates, CANDIDATE_MS - 1), ["n4", "n5"]);
    assert_eq!(names(&mut candidates, CANDIDATE_MS), ["n5"]);
    candidates
        .note(&knock(twin), CANDIDATE_MS)
        .expect("the other one is forgotten");
    candidates.forget(&node(4));
    assert_eq!(names(&mut candidates, CANDIDATE_MS), ["n5"]);
    for number in 10..10 + MAX_CANDIDATES - 1 {
        candidates
            .note(&knock(joiner(number)), CANDIDATE_MS)
            .expect("room");
    }
    let refused = candidates.note(&knock(joiner(99)), CANDIDATE_MS);
    assert_eq!(refused, Err(Refusal::Full(MAX_CANDIDATES)));
    candidates
        .note(&knock(joiner(5)), CANDIDATE_MS)
        .expect("whoever is known may go on");
}

#[test]
fn a_document_to_start_from_must_prove_itself() {
    let good = proven(taken_in("shop"));
    let check = |held: &Held, cluster: Option<&str>, expected: Result<(), &str>| {
        let read = check_start(&node(4), cluster, &held.encode());
        match (read, expected) {
            (Ok(read), Ok(())) => assert_eq!(read, *held),
            (Err(error), Err(expected)) => assert!(
                error.to_string().contains(expected),
                "{error} does not say {expected:?}"
            ),
            (read, expected) => panic!("{read:?}, not {expected:?}"),
        }
    };
    check(&good, None, Ok(()));
    check(&good, Some("shop"), Ok(()));
    check(
        &good,
        Some("other"),
        Err("of cluster \"shop\", not \"other\""),
    );
    let unproven = Held {
        proof: None,
        ..good.clone()
    };
    check(&unproven, None, Err("without a proof"));
    let mut few = good.clone();
    let accepts = few.proof.as_mut().map(|proof| &mut proof.accepts);
    accepts
        .expect("it has one")
        .retain(|voter, _| *voter == node(1));
    check(&few, None, Err("1 of 3 members accepted"));
    let mut forged = good.clone();
    if let Some(proof) = forged.proof.as_mut() {
        proof.accepts.insert(node(9), Actor(9));
    }
    check(&forged, None, Err("n9 voted"));
    check(
        &proven(formed("shop")),
        None,
        Err("does not name this node"),
    );
    assert!(matches!(
        check_start(&node(4), None, b"nonsense"),
        Err(BadStart::Document(_))
    ));
}

/// Plays a conversation: each line is an event, `->` and what follows from it.
fn check_talk(wish: Wish, script: &[(Event, &str)]) {
    let addresses = vec!["a:1".to_owned(), "b:2".to_owned()];
    let mut asking = Asking::new(node(4), Some("shop".to_owned()), wish, addresses);
    for (at, (event, expected)) in script.iter().enumerate() {
        let said = match asking.handle(event.clone()) {
            Effect::Knock(address) => format!("knock {address}"),
            Effect::Pause(least, most) => format!("pause {least}-{most}"),
            Effect::Start(held) => format!("start with {}", held.document.number),
            Effect::GiveUp(why) => format!("give up: {why}"),
        };
        assert_eq!(said, *expected, "line {at}: {event:?}");
    }
}

fn wait(why: &str, lineage: u8, members: &[&str]) -> Event {
    let told = Told::Wait {
        cluster_id: "shop".to_owned(),
        lineage: Some(Digest([lineage; 32])),
        why: why.to_owned(),
        members: members.iter().map(|at| (*at).to_owned()).collect(),
    };
    Event::Answered(told, Vec::new())
}

fn failed() -> Event {
    Event::Failed("connection refused".to_owned())
}

fn named(held: &Held) -> Event {
    Event::Answered(Told::Named, held.encode())
}

#[test]
fn who_wants_in_asks_one_after_the_other_and_pauses_longer_and_longer() {
    let held = proven(taken_in("shop"));
    let lineage = held.document.lineage();
    let under_way = Event::Answered(
        Told::Wait {
            cluster_id: "shop".to_owned(),
            lineage,
            why: "owners are changing".to_owned(),
            members: vec!["c:3".to_owned()],
        },
        Vec::new(),
    );
    check_talk(
        Wish::Join,
        &[
            (Event::Woken, "knock a:1"),
            (failed(), "knock b:2"),
            (failed(), "pause 100-200"),
            (Event::Woken, "knock a:1"),
            (under_way.clone(), "pause 200-400"),
            (Event::Woken, "knock b:2"),
            (under_way.clone(), "pause 400-800"),
            (Event::Woken, "knock a:1"),
            (named(&held), "start with 3"),
        ],
    );
}

#[test]
fn who_waits_knocks_at_everybody_it_hears_of() {
    check_talk(
        Wish::Wait,
        &[
            (Event::Woken, "knock a:1"),
            (wait("an operator", 1, &["a:1", "c:3"]), "knock b:2"),
            (failed(), "pause 1000-2000"),
            (Event::Woken, "knock a:1"),
            (wait("an operator", 1, &["a:1"]), "knock b:2"),
            (failed(), "knock c:3"),
            (wait("an operator", 1, &["a:1"]), "pause 1000-2000"),
            (Event::Woken, "knock a:1"),
            (failed(), "knock b:2"),
            (failed(), "pause 1000-2000"),
        ],
    );
}

#[test]
fn a_refusal_ends_it_with_its_sentence() {
    let refused = |why: &str| Event::Answered(Told::Refused(why.to_owned()), Vec::new());
    let woken = (Event::Woken, "knock a:1");
    check_talk(
        Wish::Join,
        &[
            woken.clone(),
            (refused("n4 is a member"), "give up: n4 is a member"),
        ],
    );
    check_talk(
        Wish::Join,
        &[
            woken.clone(),
            (
                named(&proven(taken_in("other"))),
                "give up: document 3 is of cluster \"other\", not \"shop\"",
            ),
        ],
    );
    check_talk(
        Wish::Wait,
        &[
            woken,
            (wait("an operator", 1, &[]), "knock b:2"),
            (
                wait("an operator", 2, &[]),
                "give up: the addresses of --join belong to clusters of one name that were formed apart: name members of one of them",
            ),
        ],
    );
}

#[test]
fn what_everybody_said_last_is_the_reason() {
    let addresses = vec!["a:1".to_owned(), "b:2".to_owned()];
    let mut asking = Asking::new(node(4), None, Wish::Join, addresses);
    asking.handle(Event::Woken);
    asking.handle(failed());
    asking.handle(wait("owners are changing", 1, &[]));
    assert_eq!(
        asking.reasons(),
        [
            "joining: a:1 says: connection refused",
            "joining: b:2 says: shop: owners are changing"
        ]
    );
}
