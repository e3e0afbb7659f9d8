//! Seals, what breaks them, what goes with a reaped copy, and a store that holds an older state.

use super::*;
use crate::replica::Sealing;
use crate::store::IMAGE;

const FIRST: Sealing = Sealing {
    epoch: 3,
    now_ms: 1_000_000,
    window_ms: 1000,
};

fn delete(context: Context) -> Write {
    let mut write = write("", Some(context));
    write.content.value = None;
    write
}

impl Bench {
    /// A key that was written and deleted; what its client may reuse.
    fn deleted(&self, slot: &Slot) -> Context {
        let written = self.minted(slot, write("v", None)).unwrap();
        self.minted(slot, delete(written.answer)).unwrap().answer
    }

    async fn seal(&self, slot: &Slot) -> usize {
        self.replica.seal(vec![slot.clone()], FIRST).await.unwrap()
    }

    async fn sealed(&self, slot: &Slot) -> Option<u64> {
        let object = (slot.place.clone(), self.replica.digest(slot).unwrap());
        let sealed = self.replica.sealed(slot.partition, vec![object]).await;
        sealed.unwrap()[0]
    }

    async fn reap(&self, slot: &Slot, epoch: u64) -> usize {
        let object = (slot.place.clone(), self.replica.digest(slot).unwrap());
        let reaped = self.replica.reap(slot.partition, vec![object], epoch).await;
        reaped.unwrap()
    }

    /// The process ends and another one begins on the same store.
    fn restarted(self) -> Self {
        let Self { replica, disk, log } = self;
        replica.stop();
        let replica = Replica::start(Ground {
            store: disk.clone(),
            watermark: None,
            counters: Box::new(Numbers(LINE + 1000)),
            actor: ACTOR,
            line: LINE + 1000,
            hint_quota_bytes: u64::MAX,
            gauge: crate::store::disk::Gauge::boundless(),
            observer: Box::new(|_| {}),
        });
        Self { replica, disk, log }
    }
}

#[tokio::test]
async fn only_what_holds_nothing_but_tombstones_is_sealed_and_it_is_synced_first() {
    let (bench, gone, here) = (Bench::new(), slot(0, 1, "gone"), slot(0, 1, "here"));
    bench.deleted(&gone);
    bench.minted(&here, write("v", None)).unwrap();
    bench.logged();
    let slots = vec![gone.clone(), here.clone(), slot(0, 1, "nowhere")];
    assert_eq!(bench.replica.seal(slots, FIRST).await.unwrap(), 1);
    assert_eq!(bench.logged(), ["sync"], "what is sealed is on disk");
    assert_eq!(
        (bench.sealed(&gone).await, bench.sealed(&here).await),
        (Some(3), None)
    );
    let found = bench.replica.deleted(&[], 100).unwrap().0;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].place, gone.place);
    // A seal that holds keeps its epoch.
    bench.replica.entered(9);
    bench.seal(&gone).await;
    assert_eq!(bench.sealed(&gone).await, Some(3));
}

#[tokio::test]
async fn a_seal_is_of_the_epoch_in_which_the_writer_makes_it() {
    let (bench, key) = (Bench::new(), slot(0, 1, "k"));
    bench.deleted(&key);
    bench.replica.entered(5);
    bench.seal(&key).await;
    assert_eq!(
        bench.sealed(&key).await,
        Some(5),
        "asked in 3, and it is 5 by now"
    );
}

#[tokio::test]
async fn any_change_of_a_copy_breaks_its_seal_and_what_changes_nothing_does_not() {
    let key = slot(0, 1, "k");
    let bench = Bench::new();
    let seen = bench.deleted(&key);
    bench.seal(&key).await;
    let own = bench.replica.object(&key).unwrap();
    bench.join(&key, own.clone()).unwrap();
    assert_eq!(bench.sealed(&key).await, Some(3));
    // An old copy that comes late changes nothing either: it is covered.
    let old = Dot {
        actor: ACTOR,
        counter: 101,
    };
    let old = Object::from_parts(Context::of(old), vec![sibling(old)]);
    bench.join(&key, old).unwrap();
    assert_eq!(bench.sealed(&key).await, Some(3));
    // A write of somebody else does, though it is of tombstones alone.
    let other = Dot {
        actor: Actor(9),
        counter: 4,
    };
    let mut tombstone = sibling(other);
    tombstone.content.value = None;
    let other = Object::from_parts(Context::of(other), vec![tombstone]);
    bench.join(&key, other).unwrap();
    assert_eq!(bench.sealed(&key).await, None);
    assert_eq!(bench.reap(&key, 9).await, 0);
    bench.seal(&key).await;
    bench.minted(&key, write("again", Some(seen))).unwrap();
    assert_eq!(bench.sealed(&key).await, None);
    assert_eq!(bench.reap(&key, 9).await, 0);
    assert_eq!(bench.replica.object(&key).unwrap().live().count(), 1);
}

fn sibling(dot: Dot) -> sibyl_core::object::Sibling {
    sibyl_core::object::Sibling::written(dot, write("late", None).content)
}

#[tokio::test]
async fn a_change_of_owners_breaks_all_seals_and_so_does_a_restart() {
    let (bench, key) = (Bench::new(), slot(0, 1, "k"));
    bench.deleted(&key);
    bench.seal(&key).await;
    bench.replica.owners_changed(4, Vec::new()).await.unwrap();
    assert_eq!(bench.sealed(&key).await, None);
    bench.seal(&key).await;
    let bench = bench.restarted();
    assert_eq!(
        (bench.sealed(&key).await, bench.reap(&key, 9).await),
        (None, 0)
    );
    assert_eq!(bench.replica.tombstones(), 1);
}

#[tokio::test]
async fn a_reaped_copy_goes_with_its_count_leaves_a_horizon_and_is_written_anew() {
    let (bench, key) = (Bench::new(), slot(2, 1, "k"));
    let seen = bench.deleted(&key);
    assert_eq!((bench.seal(&key).await, bench.replica.tombstones()), (1, 1));
    let wrong = (key.place.clone(), Digest::of(b"another object"));
    assert_eq!(
        bench.replica.reap(key.partition, vec![wrong], 8).await,
        Ok(0)
    );
    assert_eq!(bench.reap(&key, 8).await, 1);
    assert_eq!((bench.replica.tombstones(), bench.replica.seals()), (0, 0));
    assert_eq!(bench.replica.encoded(&key), Ok(None));
    let bench = bench.restarted();
    let horizon = |at| bench.replica.horizon(Partition(at));
    assert_eq!((horizon(2).await, horizon(1).await), (Ok(8), Ok(0)));
    // The next write claims itself alone: nobody's context covers it.
    let again = bench.minted(&key, write("new", None)).unwrap();
    assert_eq!(
        intervals(bench.replica.object(&key).unwrap().context()),
        [(1101 - 1, 1101)]
    );
    assert!(!seen.contains(again.dot));
    // Who had seen only what is gone supersedes nothing of it.
    bench.minted(&key, write("late", Some(seen))).unwrap();
    assert_eq!(bench.replica.object(&key).unwrap().live().count(), 2);
}

#[tokio::test]
async fn a_partition_that_was_gained_has_the_horizon_of_that_moment() {
    let bench = Bench::new();
    bench.replica.entered(7);
    let gained = vec![Partition(3)];
    bench.replica.owners_changed(4, gained).await.unwrap();
    let horizon = |at| bench.replica.horizon(Partition(at));
    assert_eq!((horizon(3).await, horizon(4).await), (Ok(7), Ok(0)));
    bench.replica.filled_since(9).await.unwrap();
    assert_eq!(bench.restarted().replica.horizon(Partition(4)).await, Ok(9));
}

/// A hint for somebody, of this key.
async fn keep(bench: &Bench, slot: &Slot) {
    let dot = Dot {
        actor: Actor(9),
        counter: 1,
    };
    let object = Object::from_parts(Context::of(dot), vec![sibling(dot)]);
    let (counts, told) = tokio::sync::oneshot::channel();
    let target = "n2".parse().unwrap();
    let done = move |result| counts.send(result).unwrap();
    bench.replica.keep_hint(
        slot.clone(),
        0,
        object,
        target,
        (None, 1),
        Durability::Synced,
        done,
    );
    told.await.unwrap().unwrap();
}

fn hints(bench: &Bench) -> usize {
    bench.replica.hints_after(None).unwrap().0.len()
}

#[tokio::test]
async fn an_older_state_is_hidden_until_it_is_judged_and_set_aside_if_it_is_too_old() {
    let bench = Bench::new();
    let (old, young) = (slot(0, 1, "old"), slot(1, 1, "young"));
    for slot in [&old, &young] {
        bench.minted(slot, write("v", None)).unwrap();
    }
    keep(&bench, &old).await;
    let image = Bytes::copy_from_slice(&4_u64.to_le_bytes());
    bench.replica.remember(IMAGE, image).await.unwrap();
    let bench = bench.restarted();
    let replica = &bench.replica;
    assert_eq!((replica.image(), replica.is_judging()), (Ok(Some(4)), true));
    let own = replica.object(&young).unwrap();
    assert_eq!(bench.join(&young, own.clone()), Err(Failure::Rebuilding));
    assert_eq!(
        bench.minted(&young, write("w", None)).unwrap_err(),
        Failure::Rebuilding
    );
    replica.judge(Partition(1));
    assert!(replica.is_judged(Partition(1)) && !replica.is_judged(Partition(0)));
    assert_eq!(bench.join(&young, own), Ok(()));
    assert_eq!(
        (hints(&bench), replica.has_records(Partition(0))),
        (1, Ok(true))
    );
    assert_eq!(replica.set_aside(Partition(0)).await, Ok(2));
    assert_eq!(
        (hints(&bench), replica.has_records(Partition(0))),
        (0, Ok(false))
    );
    assert_eq!(
        replica.hints(|ledger| ledger.targets().map(|(_, kept)| kept.count).sum::<u64>()),
        0
    );
    replica.judge_all().await.unwrap();
    assert_eq!((replica.is_judging(), replica.image()), (false, Ok(None)));
    // What the others turn out to have goes from there; what they lack stays.
    assert_eq!(replica.review_aside().await, Ok(2));
    let dot = Dot {
        actor: Actor(9),
        counter: 1,
    };
    let theirs = Object::from_parts(Context::of(dot), vec![sibling(dot)]);
    bench.join(&old, theirs).unwrap();
    assert_eq!(replica.review_aside().await, Ok(1));
    let bench = bench.restarted();
    assert!(!bench.replica.is_judging());
}
