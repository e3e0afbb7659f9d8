//! What a removed node brings, at the writer: joined, known or refused, in the step that looks at the horizon; and
//! what such a node reads of its own store.

use sibyl_core::salvage::Verdict;

use super::*;
use crate::replica::Sealing;
use crate::replica::salvage::{Admitted, Claim, remains};

/// What a node says that was last in this epoch.
fn in_epoch(epoch: u64) -> Claim {
    Claim {
        epoch,
        all: false,
        late: false,
        recovered: None,
    }
}

fn brought(counter: u64) -> Object {
    let dot = Dot {
        actor: Actor(9),
        counter,
    };
    let sibling = sibyl_core::object::Sibling::written(dot, write("only here", None).content);
    Object::from_parts(Context::of(dot), vec![sibling])
}

impl Bench {
    async fn admit(&self, slot: &Slot, object: Object, claim: Claim) -> Admitted {
        let admitted = self.replica.admit(slot.clone(), 4, object, claim);
        admitted.await.unwrap()
    }

    /// Writes a key, deletes it and forgets it, in this epoch.
    async fn forget(&self, slot: &Slot, epoch: u64) {
        let written = self.minted(slot, write("v", None)).unwrap();
        let mut delete = write("", Some(written.answer));
        delete.content.value = None;
        self.minted(slot, delete).unwrap();
        let sealing = Sealing {
            epoch: epoch - 5,
            now_ms: 1_000_000,
            window_ms: 1000,
        };
        let (slots, places) = (vec![slot.clone()], |digest| {
            vec![(slot.place.clone(), digest)]
        });
        assert_eq!(self.replica.seal(slots, sealing).await.unwrap(), 1);
        let digest = self.replica.digest(slot).unwrap();
        let reaped = self.replica.reap(slot.partition, places(digest), epoch);
        assert_eq!(reaped.await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_nobody_knew_is_joined_and_on_disk_before_it_is_said() {
    let (bench, key) = (Bench::new(), slot(0, 1, "k"));
    let own = bench.minted(&key, write("v", None)).unwrap();
    bench.logged();
    let admitted = bench.admit(&key, brought(1), in_epoch(0)).await;
    assert_eq!(admitted.verdict, Verdict::Imported);
    assert_eq!(bench.logged(), ["apply", "sync"]);
    let held = bench.replica.object(&key).unwrap();
    assert_eq!(
        admitted.object.as_ref(),
        Some(&held),
        "the copy, not what was brought"
    );
    assert_eq!(held.live().count(), 2);
    assert!(held.context().contains(own.dot));
    let twice = bench.admit(&key, brought(1), in_epoch(0)).await;
    assert_eq!((twice.verdict, twice.object), (Verdict::Known, None));
}

#[tokio::test]
async fn what_may_have_been_forgotten_here_is_refused_partition_by_partition() {
    let bench = Bench::new();
    let (gone, beside, elsewhere) = (slot(0, 1, "gone"), slot(0, 1, "k"), slot(1, 1, "k"));
    bench.forget(&gone, 20).await;
    for (epoch, verdict) in [
        (20, Verdict::Older),
        (22, Verdict::Older),
        (23, Verdict::Imported),
    ] {
        for key in [&gone, &beside] {
            let admitted = bench.admit(key, brought(epoch), in_epoch(epoch)).await;
            assert_eq!(admitted.verdict, verdict, "{epoch}");
        }
    }
    let admitted = bench.admit(&elsewhere, brought(1), in_epoch(20)).await;
    assert_eq!(
        admitted.verdict,
        Verdict::Imported,
        "nothing was reaped there"
    );
    let all = Claim {
        all: true,
        ..in_epoch(20)
    };
    let admitted = bench.admit(&gone, brought(99), all).await;
    assert_eq!(admitted.verdict, Verdict::Imported, "the operator wants it");
}

#[tokio::test]
async fn who_came_late_or_has_gained_a_partition_remembers_nothing() {
    let bench = Bench::new();
    let (gained, late) = (slot(3, 1, "k"), slot(4, 1, "k"));
    bench.replica.entered(9);
    let partitions = vec![gained.partition];
    bench.replica.owners_changed(4, partitions).await.unwrap();
    let admitted = bench.admit(&gained, brought(1), in_epoch(9)).await;
    assert_eq!(admitted.verdict, Verdict::Older);
    let claim = Claim {
        late: true,
        ..in_epoch(9)
    };
    let admitted = bench.admit(&late, brought(1), claim).await;
    assert_eq!(admitted.verdict, Verdict::Older);
    // But whoever recovered the cluster in that epoch forgot nothing since, of whoever was a member until then.
    let recovered = Claim {
        recovered: Some(10),
        ..in_epoch(9)
    };
    let admitted = bench.admit(&gained, brought(1), recovered).await;
    assert_eq!(admitted.verdict, Verdict::Imported);
    let reaped_since = Claim {
        recovered: Some(8),
        ..in_epoch(9)
    };
    let admitted = bench.admit(&gained, brought(2), reaped_since).await;
    assert_eq!(admitted.verdict, Verdict::Older);
    // What was asked by an older document is not even looked at.
    bench.replica.owners_changed(5, Vec::new()).await.unwrap();
    let stale = bench.replica.admit(late, 4, brought(1), in_epoch(9)).await;
    assert_eq!(stale, Err(Failure::Stale(5)));
}

#[tokio::test]
async fn a_sealed_copy_that_takes_something_over_is_not_forgotten() {
    let (bench, key) = (Bench::new(), slot(0, 1, "k"));
    let written = bench.minted(&key, write("v", None)).unwrap();
    let mut delete = write("", Some(written.answer));
    delete.content.value = None;
    bench.minted(&key, delete).unwrap();
    let sealing = Sealing {
        epoch: 3,
        now_ms: 1_000_000,
        window_ms: 1000,
    };
    bench
        .replica
        .seal(vec![key.clone()], sealing)
        .await
        .unwrap();
    let digest = bench.replica.digest(&key).unwrap();
    bench.admit(&key, brought(1), in_epoch(3)).await;
    let places = vec![(key.place.clone(), digest)];
    let reaped = bench.replica.reap(key.partition, places, 8).await.unwrap();
    assert_eq!(reaped, 0);
    assert_eq!(bench.replica.object(&key).unwrap().live().count(), 1);
}

fn numbered(at: usize) -> Slot {
    let mut slot = slot(0, 1, "");
    slot.place.key = format!("{at:03}").into();
    slot
}

#[tokio::test]
async fn all_of_a_store_is_read_whatever_is_damaged() {
    let bench = Bench::new();
    for at in 0..600 {
        bench.minted(&numbered(at), write("v", None)).unwrap();
    }
    bench
        .minted(&slot(5, 1, "other"), write("v", None))
        .unwrap();
    let damaged = numbered(300).record();
    bench.disk.damaged.lock().unwrap().insert(damaged);
    let store = bench.replica.store();
    assert_eq!(
        remains::partitions(store.as_ref(), 16),
        [Partition(0), Partition(5)]
    );
    let (mut after, mut seen, mut damaged) = (None, Vec::new(), 0);
    loop {
        let page = remains::page(store.as_ref(), Partition(0), after.as_ref(), usize::MAX);
        damaged += page.damaged;
        seen.extend(page.records);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), damaged), (599, 1));
    assert!(seen.is_sorted_by(|one, next| one.id < next.id));
    // What is too large to be sent is counted, and the rest comes.
    let page = remains::page(store.as_ref(), Partition(5), None, 1);
    assert_eq!((page.records.len(), page.damaged), (0, 1));
    // Nobody took these: they are found again, and stay where they are.
    let ids: Vec<_> = seen
        .iter()
        .take(2)
        .map(|record| record.id.clone())
        .collect();
    remains::set_aside(store.as_ref(), &ids).unwrap();
    let aside = store.scan(Space::Aside, b"", b"", 10).unwrap();
    assert_eq!(
        aside.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        ids
    );
    let first = store.scan(Space::Objects, b"", b"", 1).unwrap();
    assert_eq!(first[0].0, ids[0].slice(1..));
}
