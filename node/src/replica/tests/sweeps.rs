//! What goes, and what is counted: sweeps past damage, and tombstones as they come and go.

use super::*;

#[test]
fn a_sweep_erases_buckets_that_are_gone_and_none_that_is_yet_to_come() {
    let bench = Bench::new();
    // Incarnation 9 is newer than the document that the sweep goes by.
    for (partition, bucket) in [(0, 1), (0, 2), (1, 2), (1, 9), (2, 3)] {
        bench
            .minted(&slot(partition, bucket, "k"), write("v", None))
            .unwrap();
    }
    let known = BTreeSet::from([Incarnation(1)]);
    assert_eq!(bench.replica.sweep(3, &known, 5).unwrap().erased, 3);
    let left = |partition, bucket| {
        bench
            .replica
            .encoded(&slot(partition, bucket, "k"))
            .unwrap()
            .is_some()
    };
    let all = [left(0, 1), left(0, 2), left(1, 2), left(1, 9), left(2, 3)];
    assert_eq!(all, [true, false, false, true, false]);
    let again = bench.replica.sweep(3, &known, 5).unwrap();
    assert_eq!(again, Swept::default());
}

#[test]
fn a_sweep_goes_past_damaged_records_and_says_so() {
    let bench = Bench::new();
    let places = [
        (0, 2, "a"),
        (0, 2, "b"),
        (0, 2, "c"),
        (0, 3, "k"),
        (1, 2, "k"),
    ];
    for (partition, bucket, key) in places {
        bench
            .minted(&slot(partition, bucket, key), write("v", None))
            .unwrap();
    }
    let damaged = [slot(0, 2, "b").record(), slot(0, 3, "k").record()];
    bench.disk.damaged.lock().unwrap().extend(damaged);
    let known = BTreeSet::from([Incarnation(3)]);
    let swept = bench.replica.sweep(2, &known, 5).unwrap();
    let expected = Swept {
        erased: 4,
        damaged: 1,
        ..Swept::default()
    };
    assert_eq!(swept, expected);
    bench.disk.damaged.lock().unwrap().clear();
    let left = |(partition, bucket, key)| {
        let encoded = bench.replica.encoded(&slot(partition, bucket, key));
        encoded.unwrap().is_some()
    };
    assert_eq!(places.map(left), [false, false, false, true, false]);
}

#[test]
fn what_cannot_be_read_at_all_keeps_no_other_partition_from_being_swept() {
    let bench = Bench::new();
    for partition in 0..3 {
        bench
            .minted(&slot(partition, 2, "k"), write("v", None))
            .unwrap();
    }
    let range = slot(1, 0, "").record()..slot(2, 0, "").record();
    bench
        .disk
        .memory
        .fault(|faults| faults.unreadable = Some((Space::Objects, range)));
    let swept = bench.replica.sweep(3, &BTreeSet::new(), 5).unwrap();
    assert_eq!((swept.erased, swept.unread), (2, 1));
    assert!(matches!(swept.why, Some(Failure::Unreadable(_))));
}

#[test]
fn tombstones_are_counted_as_they_come_and_go() {
    let bench = Bench::new();
    let count = |expected, what: &str| {
        bench.replica.flush().unwrap();
        assert_eq!(bench.replica.tombstones(), expected, "{what}");
    };
    count(0, "nothing");
    let mut contexts = Vec::new();
    for key in ["a", "b", "c"] {
        let minted = bench.minted(&slot(0, 2, key), write("v", None)).unwrap();
        contexts.push(minted.answer);
    }
    count(0, "three keys that live");
    for (key, context) in ["a", "b"].into_iter().zip(&contexts) {
        let mut delete = write("", Some(context.clone()));
        delete.content.value = None;
        bench.minted(&slot(0, 2, key), delete).unwrap();
    }
    count(2, "two are deleted");
    let mut blind = write("", None);
    blind.content.value = None;
    bench.minted(&slot(0, 2, "c"), blind).unwrap();
    count(2, "one has a tombstone beside its value");
    bench.minted(&slot(0, 2, "b"), write("v", None)).unwrap();
    count(1, "one is written again");
    let start = |store: Arc<Disk>| {
        Replica::start(Ground {
            store,
            watermark: None,
            counters: Box::new(Numbers(LINE + 100)),
            actor: ACTOR,
            line: LINE + 100,
            hint_quota_bytes: u64::MAX,
            gauge: crate::store::disk::Gauge::boundless(),
            observer: Box::new(|_| {}),
        })
    };
    let disk = Arc::clone(&bench.disk);
    bench.replica.stop();
    let again = start(Arc::clone(&disk));
    again.flush().unwrap();
    assert_eq!(again.tombstones(), 1, "the store remembers it");
    again.stop();
    let mut forget = Batch::new();
    forget.delete(Space::Meta, b"census/tombstones");
    disk.apply(forget).unwrap();
    disk.damaged
        .lock()
        .unwrap()
        .insert(slot(0, 2, "b").record());
    let again = start(disk);
    again.flush().unwrap();
    assert_eq!(again.tombstones(), 1, "a store without a count is counted");
    assert_eq!(again.sweep(1, &BTreeSet::new(), 5).unwrap().erased, 3);
    assert_eq!(again.tombstones(), 0, "all are erased");
}
