//! One contract, two stores: what `mod.rs` promises is checked on disk and in memory by the same code.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::memory::{Forgotten, Memory};
use super::{
    Batch, Opened, ReadError, SCAN_BYTES, Space, Start, Store, WriteError, batch::OverLimit,
    commit, following, open, scan_all,
};

/// A store that can be stopped and started.
trait Subject {
    fn store(&self) -> &dyn Store;
    fn commit(&self) -> u64;
    fn restart(self) -> Self;
}

struct OnDisk {
    opened: Opened,
    folder: TempDir,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path(), || 7).unwrap();
        Self { opened, folder }
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn Store {
        &*self.opened.store
    }

    fn commit(&self) -> u64 {
        commit(self.store(), &self.opened.watermark).unwrap()
    }

    fn restart(self) -> Self {
        let Self { opened, folder } = self;
        drop(opened);
        let opened = open(folder.path(), || panic!("no new actor")).unwrap();
        assert!(matches!(opened.start, Start::Restarted));
        Self { opened, folder }
    }
}

impl Subject for Arc<Memory> {
    fn store(&self) -> &dyn Store {
        &**self
    }

    fn commit(&self) -> u64 {
        self.sync().unwrap()
    }

    fn restart(self) -> Self {
        self.crash(|_| true);
        self.reopen().unwrap();
        self
    }
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Objects, key.as_bytes(), value.to_owned());
    batch
}

fn check_reads(store: &dyn Store, expected: &[(&str, &str)]) {
    let pairs = store.scan(Space::Objects, b"", b"", usize::MAX).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let found: Vec<_> = pairs.iter().map(|(k, v)| (text(k), text(v))).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(found, expected);
    for (key, value) in expected {
        let read = store.get(Space::Objects, key.as_bytes()).unwrap();
        assert_eq!(read.as_deref(), Some(value.as_bytes()));
    }
}

fn check_contract(subject: impl Subject) {
    let before = subject.store().last_batch();
    assert_eq!(subject.store().get(Space::Objects, b"a").unwrap(), None);
    let mut batch = put("b", "1");
    batch.put(Space::Objects, b"a", "2");
    batch.put(Space::Objects, b"b", "3");
    batch.put(Space::Meta, b"c", "meta");
    batch.delete(Space::Objects, b"d");
    subject.store().apply(batch).unwrap();
    subject.store().apply(put("", "the empty key")).unwrap();
    assert_eq!(subject.store().last_batch(), before + 2);
    check_reads(
        subject.store(),
        &[("", "the empty key"), ("a", "2"), ("b", "3")],
    );

    assert_eq!(subject.commit(), before + 2);
    let subject = subject.restart();
    assert_eq!(subject.store().last_batch(), before + 2);
    check_reads(
        subject.store(),
        &[("", "the empty key"), ("a", "2"), ("b", "3")],
    );

    let mut batch = put("c", "4");
    batch.delete(Space::Objects, b"");
    subject.store().apply(batch).unwrap();
    check_ranges(subject.store());
    check_limits(subject.store());
    check_budget(subject.store());
    check_picture(subject.store());
    assert_eq!(subject.commit(), before + 9);
    let subject = subject.restart();
    check_reads(subject.store(), &[("a", "2"), ("b", "3"), ("c", "4")]);
    subject.store().apply(Batch::new()).unwrap();
    assert_eq!(
        subject.commit(),
        before + 10,
        "an empty batch has a number too"
    );
    assert!(subject.store().size().records >= 4 && subject.store().size().bytes > 0);
}

fn check_ranges(store: &dyn Store) {
    let keys = |from: &[u8], until: &[u8], limit| {
        let pairs = store.scan(Space::Objects, from, until, limit).unwrap();
        pairs.into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"", b"", 9), b"abc");
    assert_eq!(keys(b"a", b"c", 9), b"ab");
    assert_eq!(keys(b"", b"", 2), b"ab");
    assert_eq!(keys(&following(b"a"), b"", 9), b"bc");
    assert_eq!(keys(b"c", b"a", 9), b"");
    assert_eq!(keys(b"b", b"b", 9), b"");
    let meta = store.scan(Space::Meta, b"", b"", 9).unwrap();
    assert_eq!(meta.len(), 1, "the engine's own records stay hidden");
}

fn check_limits(store: &dyn Store) {
    let before = store.last_batch();
    let mut batch = Batch::new();
    batch.put(Space::Objects, &[0; 4097], "");
    let refused = store.apply(batch);
    assert!(matches!(
        refused,
        Err(WriteError::Refused(OverLimit::Key(4097)))
    ));
    let mut batch = Batch::new();
    for key in 0u32..65_537 {
        batch.put(Space::Objects, &key.to_le_bytes(), "");
    }
    assert!(batch.is_full());
    let refused = store.apply(batch);
    assert!(matches!(
        refused,
        Err(WriteError::Refused(OverLimit::Changes(65_537)))
    ));
    assert_eq!(store.last_batch(), before);
    let mut longest = Batch::new();
    longest.put(Space::Meta, &[255; 4096], vec![7; 1 << 20]);
    store.apply(longest).unwrap();
    let read = store.get(Space::Meta, &[255; 4096]).unwrap();
    assert_eq!(read.map(|value| value.len()), Some(1 << 20));
    let mut gone = Batch::new();
    gone.delete(Space::Meta, &[255; 4096]);
    store.apply(gone).unwrap();
}

/// A scan ends with the record that reaches its budget, and goes on behind it; only nothing is the end.
fn check_budget(store: &dyn Store) {
    let size = SCAN_BYTES / 2 + 1;
    let mut batch = Batch::new();
    for key in 0u8..5 {
        batch.put(Space::Hints, &[key], vec![key; size]);
    }
    batch.put(Space::Hints, &[5], vec![5; 2 * SCAN_BYTES]);
    store.apply(batch).unwrap();
    let (mut from, mut pages) = (Vec::new(), Vec::new());
    loop {
        let page = store.scan(Space::Hints, &from, b"", usize::MAX).unwrap();
        let Some((last, _)) = page.last() else { break };
        from = following(last);
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 2], "one record alone may be larger");
    let all = scan_all(store, Space::Hints, b"", b"").unwrap();
    assert_eq!(all.len(), 6);
    let mut batch = Batch::new();
    (0u8..6).for_each(|key| batch.delete(Space::Hints, &[key]));
    store.apply(batch).unwrap();
}

/// A picture is what was there between two batches, whatever happens later.
fn check_picture(store: &dyn Store) {
    let picture = store.picture().unwrap();
    assert_eq!(picture.batch(), store.last_batch());
    let before = store.scan(Space::Objects, b"", b"", 99).unwrap();
    let mut batch = put("a", "changed");
    batch.put(Space::Objects, b"new", "n");
    batch.delete(Space::Objects, b"b");
    store.apply(batch).unwrap();
    let seen = picture.scan(Space::Objects, b"", b"", 99).unwrap();
    assert_eq!(seen, before);
    assert_eq!(picture.batch() + 1, store.last_batch());
    let later = store.picture().unwrap();
    let now = store.scan(Space::Objects, b"", b"", 99).unwrap();
    assert_eq!(later.scan(Space::Objects, b"", b"", 99).unwrap(), now);
    assert_ne!(now, before);
    let mut batch = put("a", "2");
    batch.put(Space::Objects, b"b", "3");
    batch.delete(Space::Objects, b"new");
    store.apply(batch).unwrap();
}

#[test]
fn the_store_on_disk_keeps_the_contract() {
    check_contract(OnDisk::new());
}

#[test]
fn the_store_in_memory_keeps_the_contract() {
    check_contract(Arc::new(Memory::new()));
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(bool, u8, Option<Vec<u8>>)>),
    Sync,
    Restart,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let changes = proptest::collection::vec((any::<bool>(), 0u8..12, value), 0..6);
    let step = prop_oneof![
        8 => changes.prop_map(Step::Apply),
        3 => Just(Step::Sync),
        1 => Just(Step::Restart),
        1 => Just(Step::Flush),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_read_alike(steps in steps()) {
        let mut disk = OnDisk::new();
        let mut memory = Arc::new(Memory::new());
        memory.apply(Batch::new()).unwrap();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let mut batch = Batch::new();
                    for (meta, key, value) in changes {
                        let space = if meta { Space::Meta } else { Space::Objects };
                        match value {
                            Some(value) => batch.put(space, &[key], value),
                            None => batch.delete(space, &[key]),
                        }
                    }
                    disk.store().apply(batch.clone()).unwrap();
                    memory.apply(batch).unwrap();
                }
                Step::Sync => prop_assert_eq!(disk.commit(), memory.commit()),
                Step::Restart => {
                    disk = disk.restart();
                    memory = memory.restart();
                }
                Step::Flush => disk.opened.store.flush(),
            }
            prop_assert_eq!(disk.store().last_batch(), memory.last_batch());
            for space in [Space::Objects, Space::Meta] {
                let scan = |store: &dyn Store| store.scan(space, b"", b"", 99).unwrap();
                prop_assert_eq!(scan(disk.store()), scan(&*memory));
            }
        }
    }
}

#[test]
fn a_crash_takes_any_unsynced_batch_and_no_synced_one() {
    let memory = Memory::new();
    memory.apply(put("a", "synced")).unwrap();
    memory.sync().unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        memory.apply(put(key, value)).unwrap();
    }
    memory.crash(|index| index == 1);
    memory.reopen().unwrap();
    check_reads(&memory, &[("a", "synced"), ("b", "2")]);
    memory.crash(|_| false);
    check_reads(&memory, &[("a", "synced"), ("b", "2")]);
}

#[test]
fn a_failed_sync_is_the_last() {
    let memory = Memory::new();
    memory.apply(put("a", "1")).unwrap();
    memory.fault(|faults| faults.fail_next_sync = true);
    assert!(matches!(memory.sync(), Err(WriteError::Failed(_))));
    assert!(matches!(memory.sync(), Err(WriteError::Poisoned)));
    assert!(matches!(
        memory.apply(put("b", "2")),
        Err(WriteError::Poisoned)
    ));
    memory.crash(|_| false);
    memory.reopen().unwrap();
    check_reads(&memory, &[]);
    memory.apply(put("b", "2")).unwrap();
}

#[test]
fn an_unreadable_range_is_never_absent() {
    let memory = Memory::new();
    memory.apply(put("a", "1")).unwrap();
    memory.apply(put("c", "1")).unwrap();
    memory.fault(|faults| faults.unreadable = Some((Space::Objects, b"b".to_vec()..b"d".to_vec())));
    assert!(memory.get(Space::Objects, b"a").unwrap().is_some());
    for key in [b"b", b"c"] {
        let read = memory.get(Space::Objects, key);
        assert!(matches!(read, Err(ReadError::Failed(_))));
    }
    assert!(memory.get(Space::Objects, b"d").unwrap().is_none());
    assert!(memory.get(Space::Meta, b"c").unwrap().is_none());
    assert!(memory.scan(Space::Objects, b"", b"", 9).is_err());
    assert!(memory.scan(Space::Objects, b"", b"", 1).is_ok());
    assert!(memory.scan(Space::Objects, b"", b"b", 9).is_ok());
}

#[test]
fn losing_synced_batches_is_noticed() {
    let memory = Memory::new();
    for key in ["a", "b", "c"] {
        memory.apply(put(key, "1")).unwrap();
    }
    memory.sync().unwrap();
    memory.truncate_synced(2);
    let behind = Forgotten::Behind {
        synced: 3,
        recovered: 2,
    };
    assert_eq!(memory.reopen(), Err(behind));
    memory.wipe();
    memory.fault(|faults| faults.refuse_to_open = true);
    assert_eq!(memory.reopen(), Err(Forgotten::Refused));
}
