//! A hint keeps what was not acknowledged, its record reads back, and the ledger follows.

use proptest::prelude::*;

use super::ledger::Ledger;
use super::*;
use crate::id::{Actor, Dot, WriteId};
use crate::object::{Content, Sibling};

fn node(at: usize) -> NodeId {
    format!("n{at}").parse().expect("a node id")
}

fn dot(counter: u64) -> Dot {
    Dot {
        actor: Actor(7),
        counter,
    }
}

/// The shipment of one write.
fn shipment(counter: u64) -> Object {
    let content = Content {
        value: Some(Bytes::from(format!("value {counter}"))),
        content_type: "text/plain".into(),
        attributes: BTreeMap::new(),
        modified_at: counter,
        write_id: WriteId([1; 16]),
        trace: None,
    };
    Object::from_parts(
        Context::of(dot(counter)),
        vec![Sibling::written(dot(counter), content)],
    )
}

fn trace(mark: u8) -> Option<Trace> {
    Some(Trace([mark; 26]))
}

fn head(hint: &Hint) -> (Head, u64) {
    let bytes = hint.encode();
    let (head, _) = split(&bytes).expect("just written");
    (head, bytes.len() as u64)
}

#[test]
fn one_object_serves_several_targets() {
    let mut hint = Hint::default();
    hint.keep(&shipment(1), [&node(1)], 1_000, trace(1));
    hint.keep(&shipment(2), [&node(2)], 5_000, trace(2));
    hint.keep(&shipment(2), [&node(1)], 9_000, trace(2));
    assert_eq!(hint.object.siblings().len(), 2);
    assert_eq!(
        hint.targets,
        BTreeMap::from([(node(1), 1_000), (node(2), 5_000)])
    );
    assert_eq!(hint.traces.len(), 2);

    let all = hint.object.context().clone();
    assert!(hint.settle(&node(1), &all));
    assert!(!hint.settle(&node(1), &all), "it is crossed off once");
    assert!(!hint.is_settled());
    assert!(hint.settle(&node(2), &all) && hint.is_settled());
}

#[test]
fn an_acknowledgement_that_names_too_little_keeps_the_hint() {
    let mut hint = Hint::default();
    hint.keep(&shipment(1), [&node(1)], 0, None);
    let delivered = hint.object.context().clone();
    hint.keep(&shipment(2), [&node(1)], 0, None);
    assert!(
        !hint.settle(&node(1), &delivered),
        "the second write came after the delivery began"
    );
    assert!(!hint.is_settled());
}

#[test]
fn who_owns_the_key_takes_the_place_of_who_did() {
    let mut hint = Hint::default();
    hint.keep(&shipment(1), [&node(1), &node(2)], 3_000, None);
    hint.targets.insert(node(3), 9_000);
    hint.reroute(&node(1), &[node(3), node(4)]);
    let since = BTreeMap::from([(node(2), 3_000), (node(3), 3_000), (node(4), 3_000)]);
    assert_eq!(hint.targets, since);
    hint.reroute(&node(1), &[node(5)]);
    assert_eq!(hint.targets, since, "it was no target any more");
}

#[test]
fn traces_are_bounded_and_the_latest_stay() {
    let mut hint = Hint::default();
    for mark in 0..20 {
        hint.keep(&shipment(1), [&node(1)], 0, trace(mark));
    }
    let marks: Vec<u8> = hint.traces.iter().map(|trace| trace.0[0]).collect();
    assert_eq!(marks, (12..20).collect::<Vec<_>>());
}

#[test]
fn over_the_quota_new_hints_are_refused_and_nothing_goes() {
    let mut hint = Hint::default();
    hint.keep(&shipment(1), [&node(1), &node(2)], 61_000, None);
    let (head, bytes) = head(&hint);
    let mut ledger = Ledger::new(bytes * 2 - 1);
    assert!(ledger.admits(bytes));
    ledger.add(&head, bytes);
    assert!(!ledger.admits(bytes));
    ledger.refuse([&node(2)]);
    let kept: Vec<_> = ledger
        .targets()
        .map(|(target, kept)| (target.clone(), kept.count, kept.refused, kept.oldest_ms()))
        .collect();
    let oldest = Some(61_000);
    assert_eq!(kept, [(node(1), 1, 0, oldest), (node(2), 1, 1, oldest)]);
    ledger.remove(&head, bytes);
    assert!(ledger.admits(bytes));
    assert_eq!((ledger.records(), ledger.count(&node(1))), (0, 0));
}

proptest! {
    #[test]
    fn a_record_reads_back(
        counters in proptest::collection::btree_set(1..50u64, 0..6),
        targets in proptest::collection::btree_set(0..5usize, 0..4),
        at in any::<u64>(),
    ) {
        let mut hint = Hint::default();
        for counter in &counters {
            let targets: Vec<NodeId> = targets.iter().copied().map(node).collect();
            hint.keep(&shipment(*counter), &targets, at, trace(1));
        }
        let bytes = hint.encode();
        prop_assert_eq!(Hint::decode(&bytes), Ok(hint.clone()));
        let (_, object) = split(&bytes).expect("it was just written");
        prop_assert_eq!(object, codec::encode(&hint.object));
    }

    #[test]
    fn hostile_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Whatever they are: no panic, and nothing that was not written by us reads as a hint.
        prop_assert_eq!(Hint::decode(&bytes.into()), Err(Malformed));
    }

    #[test]
    fn the_ledger_is_what_a_scan_would_find(steps in proptest::collection::vec((0..4usize, 0..4usize, 0..5_000u64), 0..30)) {
        let mut records: BTreeMap<usize, Hint> = BTreeMap::new();
        let mut ledger = Ledger::new(u64::MAX);
        for (record, target, at) in steps {
            if let Some(old) = records.get(&record) {
                let (head, bytes) = head(old);
                ledger.remove(&head, bytes);
            }
            let hint = records.entry(record).or_default();
            let all = hint.object.context().clone();
            if !hint.settle(&node(target), &all) {
                hint.keep(&shipment(at + 1), [&node(target)], at, None);
            }
            if hint.is_settled() {
                records.remove(&record);
            } else {
                let (head, bytes) = head(&records[&record]);
                ledger.add(&head, bytes);
            }
        }
        let mut scanned = Ledger::new(u64::MAX);
        for hint in records.values() {
            let (head, bytes) = head(hint);
            scanned.add(&head, bytes);
        }
        for (target, kept) in ledger.targets() {
            let found = scanned.targets().find(|(name, _)| *name == target).map(|(_, kept)| kept.clone());
            prop_assert_eq!(kept, &found.unwrap_or_default());
        }
        prop_assert_eq!(ledger.records(), scanned.records());
    }
}
