//! What ends the writer, what it takes when its queue or its disk is full or its time is over, and that a slow one
//! holds nobody for ever.

use std::collections::BTreeMap;
use std::sync::mpsc as blocking;

use sibyl_core::id::WriteId;
use sibyl_core::object::{Content, Sibling};

use super::*;
use crate::store::memory::Memory;

const ME: Actor = Actor(7);
const UNCAPPED: Caps = Caps {
    siblings: 1000,
    object_bytes: 1 << 20,
    context_intervals: 1000,
};

/// Counts up from 1 and remembers nothing.
struct Plain(u64);

impl Count for Plain {
    fn mint(&mut self) -> Result<u64, WriteError> {
        self.0 += 1;
        Ok(self.0)
    }

    fn peek(&self) -> u64 {
        self.0 + 1
    }
}

fn replica(observer: impl Fn(Group) + Send + 'static) -> Replica {
    replica_on(crate::store::disk::Gauge::boundless(), observer)
}

fn replica_on(gauge: Gauge, observer: impl Fn(Group) + Send + 'static) -> Replica {
    Replica::start(Ground {
        store: Arc::new(Memory::new()),
        watermark: None,
        counters: Box::new(Plain(0)),
        actor: ME,
        line: 0,
        hint_quota_bytes: u64::MAX,
        gauge,
        observer: Box::new(observer),
    })
}

fn slot() -> Slot {
    Slot {
        partition: Partition(0),
        n: 3,
        place: Place {
            bucket: Incarnation(1),
            key: Bytes::from_static(b"k"),
        },
    }
}

fn content() -> Content {
    Content {
        value: Some(Bytes::from_static(b"v")),
        content_type: "text/plain".into(),
        attributes: BTreeMap::new(),
        modified_at: 1,
        write_id: WriteId([1; 16]),
        trace: None,
    }
}

fn object(actor: Actor, counter: u64) -> Object {
    let dot = Dot { actor, counter };
    Object::from_parts(Context::of(dot), vec![Sibling::written(dot, content())])
}

fn join(replica: &Replica, object: Object) -> Result<(), Failure> {
    let (done, joined) = blocking::sync_channel(1);
    replica.join(slot(), object, Durability::Synced, move |result| {
        drop(done.send(result));
    });
    joined
        .recv()
        .unwrap_or_else(|_| Err(Failure::Store("dropped".into())))
}

fn mint(replica: &Replica, context: Option<Context>) -> Result<Minted, Failure> {
    mint_by(replica, Terms::from(0), context, content())
}

fn mint_by(
    replica: &Replica,
    terms: Terms,
    context: Option<Context>,
    content: Content,
) -> Result<Minted, Failure> {
    let write = Write {
        context,
        tombstones: Context::new(),
        content,
    };
    let (done, minted) = blocking::sync_channel(1);
    replica.mint(
        slot(),
        terms,
        write,
        UNCAPPED,
        Durability::Synced,
        move |result| drop(done.send(result)),
        |_| (),
    );
    minted
        .recv()
        .unwrap_or_else(|_| Err(Failure::Store("dropped".into())))
}

fn check_ends(replica: &Replica, part: &str) {
    let mut failed = replica.failed();
    let why = futures_util::FutureExt::now_or_never(failed.wait_for(Option::is_some));
    let why = why
        .expect("the writer has ended")
        .expect("the replica stands")
        .clone();
    assert!(
        why.as_ref().is_some_and(|why| why.contains(part)),
        "{why:?} does not say {part:?}"
    );
    assert!(matches!(
        join(replica, object(Actor(1), 1)),
        Err(Failure::Store(_))
    ));
}

#[test]
fn a_join_that_knows_more_of_this_store_than_itself_ends_the_node() {
    let replica = replica(drop);
    mint(&replica, None).expect("a healthy store");
    join(&replica, object(ME, 1)).expect("it minted that one itself");
    join(&replica, object(ME, 2)).expect_err("it has minted one only");
    // The writer says why before it takes the next command.
    replica.flush().expect_err("the writer has ended");
    check_ends(&replica, "lost data");
    assert_eq!(
        replica.object(&slot()).expect("readable").siblings().len(),
        1,
        "and takes nothing in"
    );
}

#[test]
fn a_write_whose_client_knows_more_of_this_store_than_itself_ends_the_node() {
    let replica = replica(drop);
    mint(
        &replica,
        Some(Context::of(Dot {
            actor: ME,
            counter: 9,
        })),
    )
    .expect_err("it has minted none");
    replica.flush().expect_err("the writer has ended");
    check_ends(&replica, "lost data");
}

#[test]
fn a_writer_that_panics_ends_the_node() {
    let replica = replica(|_| panic!("a bug"));
    // The bug strikes after the write: it counts, and the next one is refused.
    let _first = join(&replica, object(Actor(1), 1));
    let told = replica.flush().expect_err("the writer has ended");
    assert!(
        told.to_string().contains("panicked"),
        "who waited is told {told}"
    );
    check_ends(&replica, "panicked");
}

#[test]
fn what_others_find_out_ends_the_writer_too() {
    let replica = replica(drop);
    replica.fail("a peer knows more".into());
    replica.fail("another reason".into());
    replica.flush().expect_err("the writer has ended");
    check_ends(&replica, "a peer knows more");
}

#[tokio::test]
async fn what_the_node_must_remember_waits_where_writes_are_shed() {
    let (go, wait) = blocking::channel::<()>();
    let replica = replica(move |_| {
        let _open = wait.recv();
    });
    let shed = Arc::new(AtomicU64::new(0));
    // One group holds the writer; behind it the queue fills.
    for _ in 0..BATCH + QUEUE + 2 {
        let shed = Arc::clone(&shed);
        replica.join(
            slot(),
            object(Actor(1), 1),
            Durability::Buffered,
            move |result| {
                let full = u64::from(result == Err(Failure::Overloaded));
                shed.fetch_add(full, Ordering::Relaxed);
            },
        );
    }
    assert!(shed.load(Ordering::Relaxed) > 0, "the queue is full");
    let mut kept = Box::pin(replica.remember("meta", Bytes::from_static(b"document")));
    assert!(
        futures_util::FutureExt::now_or_never(&mut kept).is_none(),
        "it waits for its turn"
    );
    drop(go);
    kept.await.expect("a healthy store");
    assert_eq!(
        replica.kept("meta"),
        Ok(Some(Bytes::from_static(b"document")))
    );
}

#[test]
fn the_second_half_of_the_queue_is_for_what_others_accepted() {
    let (go, wait) = blocking::channel::<()>();
    let (held, holds) = blocking::channel();
    let replica = replica(move |_| {
        // Both ends stand until the test is over.
        let _told = held.send(());
        let _open = wait.recv();
    });
    let copy =
        |counts: Done<()>| replica.join(slot(), object(Actor(1), 1), Durability::Buffered, counts);
    copy(Box::new(drop));
    holds.recv().expect("the writer is held by its first batch");
    for _ in 0..QUEUE_FOR_NEW {
        copy(Box::new(drop));
    }
    let shed = mint(&replica, None);
    assert!(matches!(shed, Err(Failure::Overloaded)), "{shed:?}");
    let (taken, told) = blocking::sync_channel(1);
    copy(Box::new(move |result| drop(taken.send(result))));
    drop(go);
    assert_eq!(told.recv().expect("it is told"), Ok(()));
    mint(&replica, None).expect("the queue is empty again");
}

#[test]
fn a_write_that_nobody_waits_for_is_not_begun() {
    let replica = replica(drop);
    let late = Terms {
        number: 0,
        until: Some(Instant::now()),
    };
    let shed = mint_by(&replica, late, None, content());
    assert!(matches!(shed, Err(Failure::Overloaded)), "{shed:?}");
    assert_eq!(replica.highest_counter(), 0, "no counter was used");
    assert_eq!(replica.object(&slot()), Ok(Object::default()));
    let in_time = Terms {
        number: 0,
        until: Some(Instant::now() + Duration::from_secs(60)),
    };
    mint_by(&replica, in_time, None, content()).expect("somebody waits");
}

#[test]
fn the_disk_is_asked_before_every_batch() {
    let free = Arc::new(AtomicU64::new(1000));
    let asked = Arc::clone(&free);
    let ask = Box::new(move || Ok(asked.load(Ordering::Relaxed)));
    let replica = replica_on(Gauge::asking(ask, 100), drop);
    let delete = || {
        let value = None;
        mint_by(
            &replica,
            Terms::from(0),
            None,
            Content { value, ..content() },
        )
    };
    mint(&replica, None).expect("there is room");
    free.store(99, Ordering::Relaxed);
    let refused = mint(&replica, None);
    assert!(matches!(refused, Err(Failure::DiskFull)), "{refused:?}");
    delete().expect("a delete goes on");
    join(&replica, object(Actor(1), 1)).expect("a copy does");
    free.store(49, Ordering::Relaxed);
    assert!(matches!(delete(), Err(Failure::DiskFull)));
    assert_eq!(join(&replica, object(Actor(1), 2)), Err(Failure::DiskFull));
    free.store(111, Ordering::Relaxed);
    mint(&replica, None).expect_err("not yet: an eighth more must be free");
    free.store(113, Ordering::Relaxed);
    mint(&replica, None).expect("there is room again");
}
