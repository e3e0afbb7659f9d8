//! The writer over the store in memory: what is told when, what one sync carries, and what a bad disk does.
//!
//! [`Disk`] writes down every batch and sync, and callbacks write into the same log, so an order is a list of
//! words. A gate holds the writer inside a batch while a test queues what the next one must carry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};

use sibyl_core::context::Interval;
use sibyl_core::id::WriteId;
use sibyl_core::object::{Content, Refused};
use sibyl_core::record::Unsealed;

use super::*;
use crate::store::memory::Memory;
use crate::store::{self, Batch, Picture, Size};

mod hints;
mod reaping;
mod salvage;
mod sweeps;

const ACTOR: Actor = Actor(7);
/// The counter below the first: as if the node had run before.
const LINE: u64 = 100;
const CAPS: Caps = Caps {
    siblings: 3,
    object_bytes: 1000,
    context_intervals: 10,
};

type Log = Arc<Mutex<Vec<&'static str>>>;

/// The store in memory with a log, and a gate in front of the next batch.
struct Disk {
    memory: Memory,
    log: Log,
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// Records that fail their checksum.
    damaged: Mutex<BTreeSet<Vec<u8>>>,
}

impl Disk {
    fn check(&self, space: Space, key: &[u8]) -> Result<(), ReadError> {
        if space == Space::Objects && self.damaged.lock().unwrap().contains(key) {
            let (key, why) = (Bytes::copy_from_slice(key), Unsealed::Short(0));
            return Err(ReadError::Corrupt { space, key, why });
        }
        Ok(())
    }
}

impl Store for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.check(space, key)?;
        self.memory.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let found = self.memory.scan(space, from, until, limit)?;
        found
            .iter()
            .try_for_each(|(key, _)| self.check(space, key))?;
        Ok(found)
    }

    fn apply(&self, batch: Batch) -> Result<(), WriteError> {
        let gate = self.gate.lock().unwrap().take();
        if let Some((entered, opened)) = gate {
            entered.send(()).unwrap();
            opened.recv().unwrap();
        }
        self.log.lock().unwrap().push("apply");
        self.memory.apply(batch)
    }

    fn sync(&self) -> Result<u64, WriteError> {
        self.log.lock().unwrap().push("sync");
        self.memory.sync()
    }

    fn last_batch(&self) -> u64 {
        self.memory.last_batch()
    }

    fn size(&self) -> Size {
        self.memory.size()
    }

    fn picture(&self) -> Result<Box<dyn Picture>, ReadError> {
        self.memory.picture()
    }
}

struct Numbers(u64);

impl Count for Numbers {
    fn mint(&mut self) -> Result<u64, WriteError> {
        self.0 += 1;
        Ok(self.0)
    }

    fn peek(&self) -> u64 {
        self.0 + 1
    }
}

struct Bench {
    replica: Replica,
    disk: Arc<Disk>,
    log: Log,
}

/// What became of a command: the first thing told, and the second.
struct Told<T> {
    minted: Receiver<Result<T, Failure>>,
    counts: Receiver<Result<(), Failure>>,
}

impl Bench {
    fn new() -> Self {
        let log = Log::default();
        let disk = Arc::new(Disk {
            memory: Memory::new(),
            log: Arc::clone(&log),
            gate: Mutex::default(),
            damaged: Mutex::default(),
        });
        let replica = Replica::start(Ground {
            store: disk.clone(),
            watermark: None,
            counters: Box::new(Numbers(LINE)),
            actor: ACTOR,
            line: LINE,
            hint_quota_bytes: u64::MAX,
            gauge: crate::store::disk::Gauge::boundless(),
            observer: Box::new(|_| {}),
        });
        Self { replica, disk, log }
    }

    fn mint(&self, slot: &Slot, write: Write, durability: Durability) -> Told<Minted> {
        let ((minted, on_minted), (counts, on_counts)) = (channel(), channel());
        let (first, second) = (Arc::clone(&self.log), Arc::clone(&self.log));
        let minted = move |result: Result<Minted, Failure>| {
            first
                .lock()
                .unwrap()
                .push(if result.is_ok() { "minted" } else { "refused" });
            minted.send(result).unwrap();
        };
        let counts = move |result: Result<(), Failure>| {
            second
                .lock()
                .unwrap()
                .push(if result.is_ok() { "counts" } else { "failed" });
            // A test that fails is gone.
            let _gone = counts.send(result);
        };
        self.replica
            .mint(slot.clone(), 0, write, CAPS, durability, minted, counts);
        Told {
            minted: on_minted,
            counts: on_counts,
        }
    }

    fn minted(&self, slot: &Slot, write: Write) -> Result<Minted, Failure> {
        let told = self.mint(slot, write, Durability::Synced);
        let minted = told.minted.recv().unwrap();
        if minted.is_ok() {
            told.counts.recv().unwrap().unwrap();
        }
        minted
    }

    fn join(&self, slot: &Slot, object: Object) -> Result<(), Failure> {
        let (counts, told) = channel();
        self.replica
            .join(slot.clone(), object, Durability::Synced, move |result| {
                counts.send(result).unwrap();
            });
        told.recv().unwrap()
    }

    /// Queues a record of the node's own, or is refused at once.
    fn keep(
        &self,
        key: &'static str,
        value: Bytes,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        let counts = Box::new(counts);
        self.replica.submit(Command::Meta { key, value, counts });
    }

    /// Holds the writer inside a batch until what is returned is sent to.
    fn hold(&self) -> Sender<()> {
        let ((entered, on_entered), (open, opened)) = (channel(), channel());
        *self.disk.gate.lock().unwrap() = Some((entered, opened));
        self.keep("gate", Bytes::new(), |_| {});
        on_entered.recv().unwrap();
        open
    }

    fn logged(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

fn slot(partition: u32, bucket: u64, key: &'static str) -> Slot {
    let place = Place {
        bucket: Incarnation(bucket),
        key: Bytes::from_static(key.as_bytes()),
    };
    Slot {
        partition: Partition(partition),
        n: 3,
        place,
    }
}

fn write(value: &str, context: Option<Context>) -> Write {
    let content = Content {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        content_type: "text/plain".to_owned(),
        attributes: BTreeMap::new(),
        modified_at: 1,
        write_id: WriteId([0; 16]),
        trace: None,
    };
    Write {
        context,
        tombstones: Context::new(),
        content,
    }
}

fn intervals(context: &Context) -> Vec<(u64, u64)> {
    let mine = context.intervals().filter(|(actor, _)| *actor == ACTOR);
    mine.flat_map(|(_, intervals)| {
        intervals
            .iter()
            .map(|Interval { after, through }| (*after, *through))
    })
    .collect()
}

#[test]
fn one_sync_carries_all_that_waits_and_shipments_leave_before_it() {
    let bench = Bench::new();
    let open = bench.hold();
    let names = ["a", "b", "c", "a"];
    let told: Vec<_> = names
        .iter()
        .map(|name| bench.mint(&slot(0, 1, name), write("v", None), Durability::Synced))
        .collect();
    assert!(
        told.iter().all(|told| told.minted.try_recv().is_err()),
        "the writer is held"
    );
    open.send(()).unwrap();
    told.iter()
        .for_each(|told| told.counts.recv().unwrap().unwrap());
    let (four, done) = (["minted"; 4], ["counts"; 4]);
    assert_eq!(
        bench.logged(),
        [&["apply", "sync", "apply"][..], &four, &["sync"], &done].concat()
    );
    let minted: Vec<_> = told
        .into_iter()
        .map(|told| told.minted.recv().unwrap().unwrap())
        .collect();
    assert_eq!(
        minted
            .iter()
            .map(|write| write.dot.counter)
            .collect::<Vec<_>>(),
        [101, 102, 103, 104]
    );
    // The second write of `a` saw the first one, which was in the same batch.
    assert_eq!((minted[0].live, minted[3].live), (1, 2));
    assert_eq!(
        bench
            .replica
            .object(&slot(0, 1, "a"))
            .unwrap()
            .siblings()
            .len(),
        2
    );
}

#[test]
fn what_is_shipped_and_answered_claims_only_what_the_writer_knew() {
    let bench = Bench::new();
    let place = slot(0, 1, "k");
    let first = bench.minted(&place, write("a", None)).unwrap();
    let second = bench.minted(&place, write("b", None)).unwrap();
    let third = bench
        .minted(&place, write("c", Some(first.answer.clone())))
        .unwrap();
    assert!(third.answer.contains(first.dot) && third.answer.contains(third.dot));
    assert!(
        !third.answer.contains(second.dot),
        "the writer of c never saw b"
    );
    let shipped = codec::decode(&third.shipment).unwrap();
    assert_eq!(shipped.siblings().len(), 1);
    assert!(!shipped.context().contains(second.dot));
    let held = bench.replica.object(&place).unwrap();
    let values: Vec<_> = held
        .live()
        .map(|sibling| sibling.content.value.clone().unwrap())
        .collect();
    assert_eq!(values, ["b", "c"]);
}

#[test]
fn buffered_writes_count_at_once_and_a_flush_puts_them_on_disk() {
    let bench = Bench::new();
    let told = bench.mint(&slot(0, 1, "k"), write("v", None), Durability::Buffered);
    told.counts.recv().unwrap().unwrap();
    assert_eq!(bench.logged(), ["apply", "minted", "counts"]);
    assert_eq!(bench.disk.memory.synced(), 0);
    bench.replica.flush().unwrap();
    assert_eq!(bench.disk.memory.synced(), 1);
    assert_eq!(bench.logged(), ["sync"]);
}

#[test]
fn a_key_of_one_node_stays_one_interval_above_the_line() {
    let bench = Bench::new();
    let (place, other) = (slot(3, 1, "k"), slot(3, 1, "other"));
    let context = |slot: &Slot| intervals(bench.replica.object(slot).unwrap().context());
    bench.minted(&place, write("a", None)).unwrap();
    assert_eq!(
        context(&place),
        [(100, 101)],
        "what came before the start is not claimed"
    );
    bench.minted(&other, write("a", None)).unwrap();
    bench.minted(&place, write("b", None)).unwrap();
    assert_eq!(
        context(&place),
        [(100, 103)],
        "102 went to another key, so claiming it claims nothing"
    );
    assert_eq!(context(&other), [(101, 102)]);
}

#[test]
fn a_record_that_fails_its_checksum_is_fenced_and_a_disk_that_is_away_is_not() {
    let bench = Bench::new();
    let place = slot(3, 1, "k");
    bench.minted(&place, write("a", None)).unwrap();
    let record = place.record();
    let memory = &bench.disk.memory;
    memory.fault(|faults| faults.damage(Space::Objects, &record, true));
    assert!(matches!(
        bench.replica.encoded(&place),
        Err(Failure::Fenced(_))
    ));
    assert!(matches!(
        bench.join(&place, Object::default()),
        Err(Failure::Fenced(_))
    ));
    memory.fault(|faults| faults.damage(Space::Objects, &record, false));
    let range = record.clone()..store::following(&record);
    memory.fault(|faults| faults.unreadable = Some((Space::Objects, range)));
    assert!(matches!(
        bench.replica.encoded(&place),
        Err(Failure::Unreadable(_))
    ));
}

#[test]
fn a_copy_that_cannot_be_read_raises_the_line_of_its_partition() {
    let bench = Bench::new();
    let (place, elsewhere) = (slot(3, 1, "k"), slot(4, 1, "k"));
    let context = |slot: &Slot| intervals(bench.replica.object(slot).unwrap().context());
    for slot in [&place, &elsewhere] {
        bench.minted(slot, write("a", None)).unwrap();
    }
    let record = place.record();
    let range = record.clone()..store::following(&record);
    bench
        .disk
        .memory
        .fault(|faults| faults.unreadable = Some((Space::Objects, range)));
    assert!(matches!(
        bench.minted(&place, write("b", None)),
        Err(Failure::Unreadable(_))
    ));
    assert!(matches!(
        bench.join(&place, Object::default()),
        Err(Failure::Unreadable(_))
    ));
    assert!(
        matches!(bench.replica.encoded(&place), Err(Failure::Unreadable(_))),
        "never the same as absent"
    );
    bench.disk.memory.fault(|faults| faults.unreadable = None);
    for slot in [&place, &elsewhere] {
        bench.minted(slot, write("c", None)).unwrap();
    }
    // Dots between 101 and 103 might have been in the copy that could not be read.
    assert_eq!(context(&place), [(100, 101), (102, 103)]);
    assert_eq!(
        context(&elsewhere),
        [(101, 104)],
        "another partition is not concerned"
    );
}

#[test]
fn a_refused_write_changes_nothing() {
    let bench = Bench::new();
    let place = slot(0, 1, "k");
    let blind = |value: &str| bench.minted(&place, write(value, None));
    let seen = blind("1").unwrap();
    drop((blind("2").unwrap(), blind("3").unwrap()));
    let before = (
        bench.replica.encoded(&place).unwrap(),
        bench.disk.last_batch(),
    );
    let refused = blind("4");
    let Err(Failure::Refused(Refused::Siblings {
        siblings: 4,
        cap: 3,
    })) = refused
    else {
        panic!("{refused:?}")
    };
    bench.replica.flush().unwrap();
    assert_eq!(
        (
            bench.replica.encoded(&place).unwrap(),
            bench.disk.last_batch()
        ),
        before
    );
    bench.minted(&place, write("4", Some(seen.answer))).unwrap();
}

#[test]
fn joining_what_is_there_already_writes_nothing_and_counts_once_it_is_on_disk() {
    let bench = Bench::new();
    let (here, there) = (slot(0, 1, "here"), slot(0, 1, "there"));
    bench.minted(&here, write("v", None)).unwrap();
    let object = bench.replica.object(&here).unwrap();
    bench.join(&there, object.clone()).unwrap();
    assert_eq!(
        bench.replica.digest(&there).unwrap(),
        bench.replica.digest(&here).unwrap()
    );
    let batches = bench.disk.last_batch();
    bench.logged();
    bench.join(&there, object).unwrap();
    assert_eq!(
        (bench.disk.last_batch(), bench.logged()),
        (batches, vec!["sync"])
    );
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_ends_the_writer() {
    let bench = Bench::new();
    let mut failed = bench.replica.failed();
    assert!(failed.borrow_and_update().is_none());
    bench
        .disk
        .memory
        .fault(|faults| faults.fail_next_sync = true);
    let told = bench.mint(&slot(0, 1, "k"), write("v", None), Durability::Synced);
    told.minted.recv().unwrap().unwrap();
    assert!(
        !matches!(told.counts.recv(), Ok(Ok(()))),
        "it was shipped, but it does not count"
    );
    let after = bench.minted(&slot(0, 1, "k"), write("w", None));
    assert!(matches!(after, Err(Failure::Store(_))), "{after:?}");
    assert!(matches!(bench.replica.flush(), Err(Failure::Store(_))));
    assert!(matches!(
        bench.join(&slot(0, 1, "k"), Object::default()),
        Err(Failure::Store(_))
    ));
    let why = failed.borrow_and_update().clone();
    assert!(
        why.is_some_and(|why| why.contains("disk")),
        "the node is told to stop"
    );
    bench.replica.stop();
}

#[test]
fn more_than_the_queue_holds_is_refused_at_once() {
    let bench = Bench::new();
    let open = bench.hold();
    let (told, heard) = channel();
    for _ in 0..=QUEUE {
        let told = told.clone();
        bench.keep("key", Bytes::new(), move |result| {
            told.send(result).unwrap();
        });
    }
    assert_eq!(heard.try_recv().unwrap().unwrap_err(), Failure::Overloaded);
    assert!(heard.try_recv().is_err(), "the others wait");
    open.send(()).unwrap();
    (0..QUEUE).for_each(|_| heard.recv().unwrap().unwrap());
    // All of it in groups, not one by one.
    assert!(
        bench.replica.groups() <= 2 + (QUEUE / BATCH) as u64 * 2,
        "{}",
        bench.replica.groups()
    );
}

#[test]
fn the_nodes_own_records_lie_beside_the_objects() {
    let bench = Bench::new();
    assert_eq!(bench.replica.kept("registry/chosen").unwrap(), None);
    let value = Bytes::from_static(b"2");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let remembered = bench.replica.remember("registry/chosen", value);
    runtime.block_on(remembered).unwrap();
    assert_eq!(bench.logged(), ["apply", "sync"]);
    assert_eq!(
        bench.replica.kept("registry/chosen").unwrap().as_deref(),
        Some(&b"2"[..])
    );
}

#[test]
fn a_scan_is_in_key_order_and_within_its_bucket_and_partition() {
    let bench = Bench::new();
    for (partition, bucket, key) in [
        (1, 2, "b"),
        (1, 2, "a"),
        (1, 2, "c"),
        (1, 1, "x"),
        (1, 3, "y"),
        (2, 2, "z"),
    ] {
        bench
            .minted(&slot(partition, bucket, key), write("v", None))
            .unwrap();
    }
    let check = |from: &[u8], limit: usize, keys: &[&str]| {
        let found = bench
            .replica
            .scan(Partition(1), Incarnation(2), from, limit)
            .unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(key, _)| std::str::from_utf8(key).unwrap())
            .collect();
        assert_eq!(found, keys, "{from:?} {limit}");
    };
    check(b"", 10, &["a", "b", "c"]);
    check(b"", 2, &["a", "b"]);
    check(b"b", 10, &["b", "c"]);
    check(b"d", 10, &[]);
}
