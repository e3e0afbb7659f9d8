//! A lineage that is lost and one that begins: what stays, who goes, and that the two never mix.

use std::collections::BTreeSet;

use super::super::*;
use super::{add, bound_to, first, node, put, second};
use crate::id::{Actor, Digest, NodeId, Partition};

const EPOCH: u64 = 12;

fn apply(document: &Document, change: &Change) -> Document {
    let next = change.apply(document).expect("allowed");
    next.expect("it changes something")
}

/// A cluster of so many that has a bucket with a resolver and sent a node away.
fn lived(members: usize) -> Document {
    let document = apply(&second(members), &add("cart", b"module"));
    let document = apply(&document, &put("carts", bound_to("cart", b"module")));
    let mut document = apply(&document, &put("logs", BucketConfig::default()));
    let gone = Former {
        node: node(77),
        incarnation: 1,
        why: Farewell::Removed,
        number: 2,
    };
    document.layout.former.insert(Actor(77), gone);
    assert_eq!(document.check(), Ok(()));
    document
}

fn recovered(document: &Document, member: usize) -> Document {
    let next = document.recovered(&node(member), Actor(member as u64), EPOCH);
    let next = next.expect("allowed");
    assert_eq!(next.check(), Ok(()));
    assert_eq!(Document::decode(&next.encode()).as_ref(), Ok(&next));
    next
}

fn nodes(members: &[usize]) -> BTreeSet<NodeId> {
    members.iter().map(|member| node(*member)).collect()
}

fn proven(before: &Document, document: &Document, votes: &[usize]) -> Proof {
    let accepts = votes
        .iter()
        .map(|member| (node(*member), Actor(*member as u64)));
    assert_eq!(document.number, before.number + 1);
    Proof {
        ballot: Ballot {
            counter: 1,
            store: Actor(1),
        },
        voters: before.voters(),
        accepts: accepts.collect(),
    }
}

#[test]
fn everything_stays_but_the_others() {
    let before = lived(5);
    let after = recovered(&before, 2);
    assert_eq!(after.buckets, before.buckets);
    assert_eq!(after.resolvers, before.resolvers);
    assert_eq!(after.context_keys, before.context_keys);
    assert_eq!(after.cluster_key, before.cluster_key);
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.first(), before.first());
    assert_eq!(after.layout.partitions, before.layout.partitions);
    let members: Vec<&NodeId> = after.layout.members.keys().collect();
    assert_eq!(members, [&node(2)]);
    assert_eq!(
        after.layout.members[&node(2)],
        before.layout.members[&node(2)]
    );
    let lost: Vec<u64> = after.layout.former.keys().map(|store| store.0).collect();
    assert_eq!(lost, [1, 3, 4, 5, 77]);
    assert_eq!(after.layout.former[&Actor(1)].why, Farewell::Lost);
    assert_eq!(after.layout.former[&Actor(1)].number, after.number);
    assert_eq!(after.layout.former[&Actor(77)].why, Farewell::Removed);
    assert_eq!(after.previous, Some(before.digest()));
    // Whoever is alone owns everything, whatever n is.
    let owners = after.owners();
    for at in (0..after.layout.partitions).map(Partition) {
        assert_eq!(owners.counting(at, 3), [node(2)]);
        assert!(owners.also(at, 3).is_empty());
    }
}

#[test]
fn a_recovery_is_a_function_of_the_document_and_of_who_recovers() {
    let before = lived(3);
    let one = recovered(&before, 1);
    assert_eq!(one, recovered(&before, 1), "twice is once");
    let two = recovered(&before, 2);
    let lineages: BTreeSet<_> = [&before, &one, &two].map(Document::lineage).into();
    assert_eq!(lineages.len(), 3);
    assert!(one.follows_from(before.lineage().unwrap()));
    assert!(!one.follows_from(two.lineage().unwrap()) && !two.follows_from(one.lineage().unwrap()));
    // No bucket of the one is taken for one of another, whatever each of them creates.
    let few = 1 << 20;
    assert!(one.number > before.number + few && two.number > before.number + few);
    assert!(one.number.abs_diff(two.number) > few);
    // Later documents keep the lineage.
    let later = apply(&one, &put("more", BucketConfig::default()));
    assert_eq!(later.lineage(), one.lineage());
    assert!(later.number > one.number);
}

#[test]
fn a_lineage_that_is_lost_again_remembers_both() {
    let before = lived(3);
    let once = recovered(&before, 1);
    let join = Change::Join(Joiner {
        node: node(9),
        store: Actor(9),
        peer_addr: "127.0.0.1:99".to_owned(),
        zone: None,
        tokens: 4,
    });
    let joined = apply(&once, &join);
    let twice = recovered(&joined, 9);
    assert!(twice.number > once.number);
    assert!(twice.follows_from(before.lineage().unwrap()));
    assert!(twice.follows_from(once.lineage().unwrap()));
    assert!(!twice.follows_from(twice.lineage().unwrap()));
    assert!(
        twice.layout.change.is_none(),
        "nobody is left to fetch from"
    );
    let mut last = twice;
    for _ in 0..MAX_PAST + 3 {
        last = last.recovered(&node(9), Actor(9), EPOCH).expect("allowed");
    }
    let past = &last.recovery().expect("it was").past;
    assert_eq!(past.len(), MAX_PAST, "bounded");
}

#[test]
fn the_two_lineages_never_learn_from_each_other() {
    let before = lived(3);
    let after = recovered(&before, 1);
    let old = apply(&before, &put("old", BucketConfig::default()));
    let old_proof = proven(&before, &old, &[2, 3]);
    let new = apply(&after, &put("new", BucketConfig::default()));
    let new_proof = proven(&after, &new, &[1]);
    let mut survivor = Held::first(after.clone());
    let mut stays = Held::first(before.clone());
    assert_eq!(survivor.learn(&old, &old_proof), Ok(Learned::Known));
    assert_eq!(
        stays.learn(&new, &new_proof),
        Err(LearnError::OtherLineage(new.number))
    );
    assert_eq!(stays.learn(&old, &old_proof), Ok(Learned::New));
    assert_eq!(survivor.learn(&new, &new_proof), Ok(Learned::New));
    // Who has only its flags belongs to both, and whoever it meets tells it which.
    let mut flags = Held::first(first(3));
    assert_eq!(flags.learn(&new, &new_proof), Ok(Learned::New));
}

#[test]
fn nothing_is_lost_while_a_majority_answers() {
    let document = lived(5);
    let check = |present: &[usize], expected: &str| {
        let said = match document.check_lost(&node(1), &nodes(present)) {
            Ok(()) => "lost".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{present:?}: {said}");
    };
    check(&[1], "lost");
    check(&[1, 4], "lost");
    check(&[1, 4, 77], "lost");
    check(&[1, 4, 5], "3 of 5 members answer, n1, n4, n5");
    let error = document.check_lost(&node(77), &nodes(&[1])).unwrap_err();
    assert_eq!(error, RecoverError::NoMember(node(77)));
    let error = first(3).check_lost(&node(1), &nodes(&[])).unwrap_err();
    assert_eq!(error, RecoverError::Forming);
    assert_eq!(
        first(3).recovered(&node(1), Actor(1), 0),
        Err(RecoverError::Forming)
    );
    let fenced = document.recovered(&node(1), Actor(77), 0);
    assert_eq!(fenced, Err(RecoverError::NoMember(node(1))));
    let names = document.given_up(&node(2)).into_iter().map(|it| it.node);
    assert_eq!(
        names.collect::<Vec<_>>(),
        [node(1), node(3), node(4), node(5)]
    );
    // With three copies among five members each lacks two of five partitions, or so.
    let lacks = document.not_held_by(&node(2));
    assert!(!lacks.is_empty() && lacks.len() < 16, "{lacks:?}");
    assert_eq!(lived(3).not_held_by(&node(2)), []);
}

/// A machine of a formed cluster, which holds this document.
fn holding(member: usize, store: u64, document: &Document) -> Machine {
    let bytes = Held::first(document.clone()).encode();
    let opened = Machine::open(node(member), Actor(store), first(3), Some(&bytes), None);
    opened.expect("readable")
}

fn recover(machine: &mut Machine, present: &[usize]) -> Vec<Effect> {
    machine.handle(Event::Recover {
        id: 5,
        present: nodes(present),
        epoch: EPOCH,
    })
}

fn outcome(effects: &[Effect]) -> Option<&Outcome> {
    effects.iter().find_map(|effect| match effect {
        Effect::Finished { id: 5, outcome } => Some(outcome),
        _ => None,
    })
}

fn kept(effects: &[Effect], wanted: Slot) -> Vec<&[u8]> {
    let bytes = effects.iter().filter_map(|effect| match effect {
        Effect::Persist { slot, bytes } if *slot == wanted => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.collect()
}

#[test]
fn who_recovered_decides_alone_and_one_record_makes_the_difference() {
    let before = lived(3);
    let mut machine = holding(1, 1, &before);
    let mut effects = recover(&mut machine, &[]);
    let after = machine.held().document.clone();
    assert_eq!(
        outcome(&effects),
        Some(&Outcome::Done {
            number: after.number
        })
    );
    assert_eq!(after, recovered(&before, 1));
    let chosen = kept(&effects, Slot::Chosen);
    assert_eq!((chosen.len(), effects.len()), (1, 3), "{effects:?}");
    assert!(
        matches!(effects[0], Effect::Persist { .. }),
        "on disk first"
    );
    // A crash before that record is none; after it, the machine opens with it, whatever it had promised.
    let opened = Machine::open(node(1), Actor(1), first(3), Some(chosen[0]), None).unwrap();
    assert_eq!(opened.held().document, after);
    effects = machine.handle(Event::Propose {
        id: 6,
        change: put("new", BucketConfig::default()),
    });
    assert!(
        effects.iter().any(|effect| matches!(
            effect,
            Effect::Finished {
                id: 6,
                outcome: Outcome::Done { .. }
            }
        )),
        "it votes alone: {effects:?}"
    );
    assert!(kept(&effects, Slot::Chosen).len() == 1);
    // Asked twice nothing happens: now a majority answers, itself.
    let again = recover(&mut machine, &[]);
    assert!(
        matches!(
            outcome(&again),
            Some(Outcome::Refused(ChangeError::Recover(
                RecoverError::Majority { .. }
            )))
        ),
        "{again:?}"
    );
    assert_eq!(again.len(), 1);
}

#[test]
fn a_majority_that_answers_keeps_everything_as_it_is() {
    let before = lived(3);
    let mut machine = holding(1, 1, &before);
    let effects = recover(&mut machine, &[3]);
    assert!(matches!(outcome(&effects), Some(Outcome::Refused(_))));
    assert_eq!(effects.len(), 1);
    assert_eq!(machine.held().document, before);
}

#[test]
fn a_restored_member_recovers_though_it_may_not_vote() {
    let before = lived(3);
    let mut machine = holding(1, 9, &before);
    assert!(machine.amnesiac());
    // Itself it is no vote, and neither is the store that it was.
    let effects = recover(&mut machine, &[1, 3]);
    assert!(matches!(outcome(&effects), Some(Outcome::Done { .. })));
    assert!(!machine.amnesiac());
    let after = &machine.held().document;
    assert_eq!(after.layout.members[&node(1)].store, Some(Actor(9)));
    assert_eq!(after.layout.members[&node(1)].incarnation, 2);
    let lost: Vec<u64> = after.layout.former.keys().map(|store| store.0).collect();
    assert_eq!(lost, [1, 2, 3, 77]);
}

#[test]
fn what_it_accepted_and_may_have_been_chosen_is_kept() {
    let before = lived(3);
    let next = apply(&before, &put("told", BucketConfig::default()));
    let mut machine = holding(1, 1, &before);
    let ballot = Ballot {
        counter: 3,
        store: Actor(2),
    };
    let message = Message::Accept {
        ballot,
        document: Box::new(next.clone()),
    };
    let promised = machine.handle(Event::Message {
        from: node(2),
        message,
    });
    let promises = kept(&promised, Slot::Promises)[0].to_vec();
    // A plan of the recovery is made of it, too.
    assert_eq!(machine.recovers_from(), &next);
    let planned = machine.recovery(&nodes(&[]), EPOCH).expect("allowed");
    let effects = recover(&mut machine, &[]);
    assert_eq!(machine.held().document, planned);
    assert!(machine.held().document.buckets.contains_key("told"));
    let chosen = kept(&effects, Slot::Chosen)[0].to_vec();
    // What it promised about the old lineage's next document is void, and harms nobody.
    let opened = Machine::open(
        node(1),
        Actor(1),
        first(3),
        Some(&chosen),
        Some(promises.as_slice()),
    );
    let mut opened = opened.expect("promises of before are no contradiction");
    assert!(opened.accepted().is_none());
    let late = opened.handle(Event::Message {
        from: node(3),
        message: Message::Prepare {
            number: next.number,
            previous: before.digest(),
            ballot: Ballot {
                counter: 9,
                store: Actor(3),
            },
        },
    });
    assert_eq!(late, [], "it votes in the old lineage no more");
}

#[test]
fn a_document_that_sends_it_away_is_not_what_it_goes_on_from() {
    let before = lived(4);
    let remove = Change::Remove {
        node: node(1),
        store: None,
    };
    let without = apply(&before, &remove);
    let mut machine = holding(1, 1, &before);
    let ballot = Ballot {
        counter: 3,
        store: Actor(2),
    };
    machine.handle(Event::Message {
        from: node(2),
        message: Message::Accept {
            ballot,
            document: Box::new(without),
        },
    });
    assert!(machine.accepted().is_some());
    assert_eq!(machine.recovers_from(), &before);
    recover(&mut machine, &[2]);
    assert_eq!(machine.held().document, recovered(&before, 1));
}

#[test]
fn how_a_lineage_began_has_the_bytes_it_always_had() {
    let digest = Digest::of(b"two");
    for (old, new) in [
        (None, Beginning::Forming),
        (Some(digest), Beginning::Formed(digest)),
    ] {
        let bytes = postcard::to_stdvec(&old).unwrap();
        assert_eq!(postcard::to_stdvec(&new).unwrap(), bytes);
        assert_eq!(postcard::from_bytes::<Beginning>(&bytes), Ok(new));
    }
}
