//! Leaves under generated writes, erasures, rebuilds, crashes and damage: in a clean partition each is right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sibyl_core::message::Place;
use sibyl_core::registry::Secret;

use super::*;
use crate::store::memory::Memory;

const PARTITIONS: u32 = 2;
const N: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Writes a key: its bucket's number and a value.
    Write(u64, u8, u8),
    Erase(u64, u8),
    /// What was written since the last one goes into a batch.
    Batch,
    /// A step of computing a partition anew.
    Rebuild(u32),
    /// A damaged object was replaced, or a leaf record cannot be read.
    Spoil(u32),
    /// The process ends, in order or not, and starts again.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (bucket, key) = (1..3_u64, any::<u8>());
    prop_oneof![
        8 => (bucket.clone(), key, any::<u8>()).prop_map(|(bucket, key, value)| Step::Write(bucket, key, value)),
        2 => (bucket, key).prop_map(|(bucket, key)| Step::Erase(bucket, key)),
        4 => Just(Step::Batch),
        4 => (0..PARTITIONS).prop_map(Step::Rebuild),
        1 => (0..PARTITIONS).prop_map(Step::Spoil),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

struct Bench {
    store: Memory,
    leaves: Leaves,
    batch: Batch,
    changes: Changes,
    fresh: BTreeMap<Vec<u8>, Option<Bytes>>,
}

fn slot(bucket: u64, key: u8) -> Slot {
    Slot {
        partition: Partition(u32::from(key) % PARTITIONS),
        n: N + u8::from(bucket == 2),
        place: Place {
            bucket: Incarnation(bucket),
            key: Bytes::copy_from_slice(&[key]),
        },
    }
}

fn known() -> BTreeMap<Incarnation, u8> {
    [1, 2]
        .map(|bucket| (Incarnation(bucket), slot(bucket, 0).n))
        .into()
}

fn tagger() -> Tagger {
    Tagger::new(&Secret([1; 32]))
}

impl Bench {
    fn new() -> Self {
        let store = Memory::new();
        let mut leaves = Leaves::open(&store);
        leaves.use_tagger(&tagger());
        Self {
            store,
            leaves,
            batch: Batch::new(),
            changes: Changes::default(),
            fresh: BTreeMap::new(),
        }
    }

    fn held(&self, record: &[u8]) -> Option<Bytes> {
        match self.fresh.get(record) {
            Some(fresh) => fresh.clone(),
            None => self.store.get(Space::Objects, record).unwrap(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(bucket, key, value) => {
                let slot = slot(bucket, key);
                let object = Bytes::copy_from_slice(&[value]);
                let held = self.held(&slot.record());
                let tag = |object: &Bytes| tagger().tag(slot.place.bucket, &slot.place.key, object);
                let gone = held.as_ref().map_or(Sum::ZERO, tag);
                let (changes, batch) = (&mut self.changes, &mut self.batch);
                self.leaves
                    .change(changes, batch, &slot, gone, tag(&object));
                self.batch
                    .put(Space::Objects, &slot.record(), object.clone());
                self.fresh.insert(slot.record(), Some(object));
            }
            Step::Erase(bucket, key) => {
                let record = slot(bucket, key).record();
                let Some(held) = self.held(&record) else {
                    return;
                };
                self.leaves
                    .erase(&mut self.changes, &mut self.batch, &record, Some(&held));
                self.batch.delete(Space::Objects, &record);
                self.fresh.insert(record, None);
            }
            Step::Batch => self.commit(),
            Step::Rebuild(partition) => {
                self.commit();
                self.rebuild(Partition(partition));
            }
            Step::Spoil(partition) => self.leaves.spoil(Partition(partition), &mut self.batch),
            Step::Restart(in_order) => self.restart(in_order),
        }
    }

    fn commit(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.leaves.seal(&self.store, changes, &mut self.batch);
        self.store.apply(std::mem::take(&mut self.batch)).unwrap();
        self.fresh.clear();
    }

    fn rebuild(&mut self, partition: Partition) -> bool {
        let mut batch = Batch::new();
        let step = self
            .leaves
            .step(&self.store, partition, &known(), &mut batch)
            .unwrap();
        self.store.apply(batch).unwrap();
        step.done
    }

    fn restart(&mut self, in_order: bool) {
        if in_order {
            self.leaves.close(&self.store, &mut self.batch);
            self.commit();
        } else {
            // What was not applied is gone.
            (self.batch, self.changes) = (Batch::new(), Changes::default());
            self.fresh.clear();
        }
        self.leaves = Leaves::open(&self.store);
        self.leaves.use_tagger(&tagger());
    }

    /// The leaves of a partition, from its objects.
    fn right(&self, partition: Partition) -> BTreeMap<(u8, u16), Sum> {
        let (from, until) = (
            record(partition, Incarnation(0), b""),
            record(Partition(partition.0 + 1), Incarnation(0), b""),
        );
        let mut right: BTreeMap<(u8, u16), Sum> = BTreeMap::new();
        for (key, object) in self
            .store
            .scan(Space::Objects, &from, &until, usize::MAX)
            .unwrap()
        {
            let (_, bucket, key) = crate::replica::taken_apart(&key).unwrap();
            let sum = right
                .entry((known()[&bucket], merkle::leaf(bucket, key)))
                .or_default();
            *sum = sum.plus(tagger().tag(bucket, key, &object));
        }
        right
    }

    fn check(&self) {
        for partition in (0..PARTITIONS).map(Partition) {
            if self.leaves.marks().is_clean(partition) {
                assert_eq!(
                    held(&self.store, partition).unwrap(),
                    self.right(partition),
                    "{partition:?}"
                );
            }
        }
    }

    fn make_clean(&mut self) {
        self.commit();
        for partition in (0..PARTITIONS).map(Partition) {
            while !self.rebuild(partition) {}
            assert!(self.leaves.marks().is_clean(partition));
        }
    }
}

proptest! {
    #[test]
    fn leaves_of_clean_partitions_are_right_whatever_happens(steps in proptest::collection::vec(step(), 0..300)) {
        let mut bench = Bench::new();
        for step in steps {
            bench.take(step);
            if bench.fresh.is_empty() && bench.batch.is_empty() {
                bench.check();
            }
        }
        bench.make_clean();
        bench.check();
    }
}

#[test]
fn writes_during_a_rebuild_are_neither_missed_nor_counted_twice() {
    let mut bench = Bench::new();
    (0..=255).for_each(|key| bench.take(Step::Write(1, key, 0)));
    bench.take(Step::Spoil(0));
    bench.commit();
    let mut steps = 0;
    while !bench.rebuild(Partition(0)) {
        // One in front of the cursor and one behind it, by turns of which is which.
        bench.take(Step::Write(1, steps * 2, 1));
        bench.take(Step::Write(1, 254 - steps * 2, 2));
        bench.take(Step::Erase(1, 128 + steps));
        bench.commit();
        steps += 1;
    }
    assert!(steps > 2, "the rebuild took {steps} steps");
    assert!(bench.leaves.marks().is_clean(Partition(0)));
    bench.check();
}

#[test]
fn an_empty_store_is_clean_and_one_of_an_older_build_is_not() {
    let store = Memory::new();
    assert!(Leaves::open(&store).marks().is_clean(Partition(0)));
    let mut batch = Batch::new();
    batch.put(
        Space::Objects,
        &slot(1, 0).record(),
        Bytes::from_static(b"old"),
    );
    store.apply(batch).unwrap();
    let leaves = Leaves::open(&store);
    let unclean: Vec<_> = leaves.marks().unclean(PARTITIONS).collect();
    assert_eq!(unclean, [Partition(0), Partition(1)]);
}

#[test]
fn a_store_that_was_closed_in_order_is_believed_and_only_then() {
    let mut bench = Bench::new();
    bench.take(Step::Write(1, 0, 1));
    bench.commit();
    bench.restart(true);
    assert!(bench.leaves.marks().is_clean(Partition(0)));
    bench.take(Step::Write(1, 2, 1));
    bench.commit();
    bench.restart(false);
    assert!(!bench.leaves.marks().is_clean(Partition(0)));
    bench.make_clean();
    // An older build opened it in between, and wrote.
    bench.restart(true);
    let mut batch = Batch::new();
    batch.put(
        Space::Objects,
        &slot(1, 4).record(),
        Bytes::from_static(b"old"),
    );
    bench.store.apply(batch).unwrap();
    assert!(!Leaves::open(&bench.store).marks().is_clean(Partition(0)));
}

#[test]
fn a_leaf_record_that_makes_no_sense_spoils_its_partition_and_no_write() {
    let mut bench = Bench::new();
    bench.take(Step::Write(1, 0, 1));
    bench.commit();
    bench.restart(true);
    let slot = slot(1, 0);
    let tree = Tree {
        partition: slot.partition,
        n: slot.n,
    };
    let leaf = merkle::leaf(slot.place.bucket, &slot.place.key);
    let mut batch = Batch::new();
    batch.put(
        Space::Leaves,
        &leaf_record(tree, leaf),
        Bytes::from_static(b"short"),
    );
    bench.store.apply(batch).unwrap();
    bench.take(Step::Write(1, 0, 2));
    bench.commit();
    assert!(!bench.leaves.marks().is_clean(slot.partition));
    assert_eq!(bench.held(&slot.record()).as_deref(), Some(&[2][..]));
    bench.make_clean();
    bench.check();
}

/// Damages a leaf's record, as a flipped bit does.
fn damage_leaf(bench: &Bench, slot: &Slot) {
    let (partition, n) = (slot.partition, slot.n);
    let leaf = merkle::leaf(slot.place.bucket, &slot.place.key);
    let mut batch = Batch::new();
    let record = leaf_record(Tree { partition, n }, leaf);
    batch.put(Space::Leaves, &record, Bytes::from_static(b"short"));
    bench.store.apply(batch).unwrap();
}

#[test]
fn a_damaged_leaf_under_a_hot_key_does_not_keep_its_tree_from_being_computed() {
    let mut bench = Bench::new();
    (0..=255).for_each(|key| bench.take(Step::Write(1, key, 0)));
    bench.commit();
    bench.restart(true);
    damage_leaf(&bench, &slot(1, 0));
    let mut steps = 0;
    while steps == 0 || !bench.rebuild(Partition(0)) {
        bench.take(Step::Write(1, 0, steps));
        bench.commit();
        steps += 1;
        assert!(steps < 32, "every write of the hot key began it again");
    }
    assert!(bench.leaves.marks().is_clean(Partition(0)));
    bench.check();
    bench.take(Step::Write(1, 0, 99));
    bench.commit();
    assert!(bench.leaves.marks().is_clean(Partition(0)));
    bench.check();
}

/// Computes a partition anew while a record of it cannot be read, which then can be read again.
fn rebuilt_over(unreadable: &Slot) -> Bench {
    let mut bench = Bench::new();
    (0..=255).for_each(|key| bench.take(Step::Write(1, key, 0)));
    bench.take(Step::Spoil(0));
    bench.commit();
    let damage = |bench: &Bench, damaged| {
        let record = unreadable.record();
        bench
            .store
            .fault(|faults| faults.damage(Space::Objects, &record, damaged));
    };
    damage(&bench, true);
    while !bench.rebuild(Partition(0)) {}
    assert!(
        bench.leaves.marks().is_clean(Partition(0)),
        "what can be read is compared meanwhile"
    );
    damage(&bench, false);
    bench
}

/// Fails unless the partition is known to be unclean, and right once it is computed.
fn check_noticed(mut bench: Bench) {
    assert!(!bench.leaves.marks().is_clean(Partition(0)));
    bench.make_clean();
    bench.check();
}

#[test]
fn a_record_that_was_unreadable_for_a_moment_is_counted_in_the_end() {
    let slot = slot(1, 4);
    let mut bench = rebuilt_over(&slot);
    bench.take(Step::Write(1, 4, 1));
    bench.commit();
    check_noticed(bench);

    let mut bench = rebuilt_over(&slot);
    bench.take(Step::Erase(1, 4));
    bench.commit();
    check_noticed(bench);

    let mut bench = rebuilt_over(&slot);
    let partition = slot.partition;
    bench
        .leaves
        .readable(partition, &slot.record(), &mut bench.batch);
    bench.commit();
    check_noticed(bench);

    // The next start knows nothing of it, closed in order or not.
    let mut bench = rebuilt_over(&slot);
    bench.restart(true);
    check_noticed(bench);

    // Others are counted as ever.
    let mut bench = rebuilt_over(&slot);
    bench.take(Step::Write(1, 6, 1));
    bench.commit();
    assert!(bench.leaves.marks().is_clean(Partition(0)));
}
