//! What is said to move is what new owners have to fetch, and about as much as it must be.

use std::collections::BTreeSet;

use super::super::*;
use super::{node, put, second};
use crate::id::{Actor, Partition};

fn join(number: usize) -> Change {
    Change::Join(Joiner {
        node: node(number),
        store: Actor(100 + number as u64),
        peer_addr: format!("127.0.0.1:{}", 7170 + number),
        zone: None,
        tokens: 4,
    })
}

fn apply(document: &Document, change: &Change) -> Document {
    let next = change.apply(document).expect("allowed");
    next.expect("it changes something")
}

/// The moves of a document are its `missing`, as long as nothing was fetched.
fn check_moves(document: &Document) -> Vec<Move> {
    let moves = document.moves();
    let missing = &document.layout.change.as_ref().expect("it began").missing;
    let told: BTreeSet<_> = moves
        .iter()
        .map(|at| (at.to.clone(), at.partition))
        .collect();
    let each = missing.iter();
    let wanted = each.flat_map(|(to, set)| set.iter().map(move |at| (to.clone(), at)));
    assert_eq!(told, wanted.collect());
    moves
}

#[test]
fn a_joiner_gains_what_others_give() {
    let start = second(3);
    assert_eq!(start.moves(), []);
    let joined = apply(&start, &join(4));
    let moves = check_moves(&joined);
    let shares = Document::shares(&moves);
    assert_eq!(shares[&node(4)].gains, moves.len());
    assert_eq!(shares[&node(4)].gives, 0);
    let given: usize = shares.values().map(|share| share.gives).sum();
    assert_eq!(given, moves.len(), "three copies stay three copies");
    assert!(
        moves
            .iter()
            .all(|at| at.to == node(4) && at.from.len() == 1)
    );
}

#[test]
fn a_member_more_than_there_were_copies_takes_from_nobody() {
    let two = second(2);
    let moves = check_moves(&apply(&two, &join(3)));
    assert_eq!(moves.len(), two.layout.partitions as usize);
    assert!(moves.iter().all(|at| at.from.is_empty()));
}

#[test]
fn buckets_of_different_n_move_a_partition_once() {
    let one = BucketConfig {
        n: 1,
        ..BucketConfig::default()
    };
    let start = apply(&second(3), &put("one", one));
    let moves = check_moves(&apply(&start, &join(4)));
    let places: BTreeSet<(Partition, _)> = moves
        .iter()
        .map(|at| (at.partition, at.to.clone()))
        .collect();
    assert_eq!(places.len(), moves.len());
    // By n = 1 members move among each other's partitions, too.
    assert!(moves.iter().any(|at| !at.from.is_empty()));
}

#[test]
fn what_was_fetched_is_still_shown() {
    let joined = apply(&second(3), &join(4));
    let (began, moves) = (joined.number, joined.moves());
    let filled = Change::Filled {
        began,
        node: node(4),
        store: Actor(104),
        partitions: moves.iter().map(|at| at.partition).collect(),
    };
    assert_eq!(apply(&joined, &filled).moves(), moves);
}
