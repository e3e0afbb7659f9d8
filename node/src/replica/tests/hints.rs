//! Hints: taken in with a sync, minted on, delivered to some and to all, forgotten with their line, refused.

use sibyl_core::id::NodeId;
use sibyl_core::object::Mint;

use super::*;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// Waits for what a task would await.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

/// A write of another node.
fn shipment(actor: u64, counter: u64, context: &[(u64, u64)]) -> Object {
    let mut object = Object::default();
    let dot = Dot {
        actor: Actor(actor),
        counter,
    };
    let seen = context.iter().map(|(actor, counter)| Dot {
        actor: Actor(*actor),
        counter: *counter,
    });
    let write = write("theirs", Some(seen.collect()));
    let line = counter - 1;
    let written = object.write(Mint { dot, line }, write, CAPS).unwrap();
    written.shipment
}

impl Bench {
    fn keep_hint(&self, slot: &Slot, object: Object, target: &str) -> Result<(), Failure> {
        let (counts, told) = channel();
        let about = (None, 5_000);
        let target = node(target);
        self.replica.keep_hint(
            slot.clone(),
            0,
            object,
            target,
            about,
            Durability::Synced,
            move |result| {
                counts.send(result).unwrap();
            },
        );
        told.recv().unwrap()
    }

    /// Mints in the place of these owners.
    fn stand_in(&self, slot: &Slot, write: Write, owners: &[&str]) -> Result<Minted, Failure> {
        let ((minted, on_minted), (counts, on_counts)) = (channel(), channel());
        let stands_in = StandIn {
            owners: owners.iter().copied().map(node).collect(),
            trace: None,
            now_ms: 7_000,
        };
        self.replica.stand_in(
            slot.clone(),
            0,
            write,
            CAPS,
            Durability::Synced,
            stands_in,
            move |result| minted.send(result).unwrap(),
            move |result| drop(counts.send(result)),
        );
        let minted = on_minted.recv().unwrap()?;
        on_counts.recv().unwrap().unwrap();
        Ok(minted)
    }

    fn settle(&self, slot: &Slot, target: &str, acked: &Object) {
        let acked = acked.context().clone();
        wait(self.replica.settle_hint(slot.clone(), node(target), acked)).unwrap();
    }

    /// What is kept: `(target, count)`.
    fn kept(&self) -> Vec<(String, u64)> {
        let kept = self.replica.hints_kept().into_iter();
        kept.map(|(target, kept)| (target.to_string(), kept.count))
            .collect()
    }

    fn hinted(&self, slot: &Slot) -> Object {
        let bytes = self.replica.hinted(slot).unwrap();
        bytes.map_or_else(Object::default, |bytes| codec::decode(&bytes).unwrap())
    }
}

#[test]
fn a_hint_counts_once_it_is_synced_and_is_no_copy_of_this_nodes_own() {
    let (bench, slot) = (Bench::new(), slot(1, 1, "k"));
    bench.logged();
    bench.keep_hint(&slot, shipment(9, 3, &[]), "n1").unwrap();
    assert_eq!(bench.logged(), ["apply", "sync"]);
    assert_eq!(bench.hinted(&slot), shipment(9, 3, &[]));
    assert!(bench.replica.object(&slot).unwrap().is_empty());
    assert_eq!(bench.kept(), [("n1".to_owned(), 1)]);
}

#[test]
fn a_hint_goes_when_every_target_has_all_of_its_dots() {
    let (bench, slot) = (Bench::new(), slot(1, 1, "k"));
    let first = bench
        .stand_in(&slot, write("a", None), &["n1", "n2"])
        .unwrap();
    let delivered = bench.hinted(&slot);
    let second = bench
        .stand_in(&slot, write("b", None), &["n1", "n2"])
        .unwrap();
    assert_eq!(
        bench.hinted(&slot).live().count(),
        2,
        "it mints on what it keeps"
    );
    assert!(bench.hinted(&slot).context().contains(first.dot));

    bench.settle(&slot, "n1", &delivered);
    assert_eq!(
        bench.kept(),
        [("n1".to_owned(), 1), ("n2".to_owned(), 1)],
        "{}",
        second.dot
    );
    let all = bench.hinted(&slot);
    bench.settle(&slot, "n1", &all);
    assert_eq!(bench.kept(), [("n1".to_owned(), 0), ("n2".to_owned(), 1)]);
    assert_eq!(bench.hinted(&slot), all, "the other has nothing yet");
    bench.settle(&slot, "n2", &all);
    assert!(bench.hinted(&slot).is_empty());
    assert_eq!(bench.kept(), [("n1".to_owned(), 0), ("n2".to_owned(), 0)]);
}

#[test]
fn who_forgot_a_hint_vouches_for_nothing_that_it_held() {
    let (bench, slot) = (Bench::new(), slot(1, 1, "k"));
    let first = bench.stand_in(&slot, write("a", None), &["n1"]).unwrap();
    let second = bench.stand_in(&slot, write("b", None), &["n1"]).unwrap();
    bench.settle(&slot, "n1", &bench.hinted(&slot));
    // A client that had seen the first one only writes elsewhere, and that comes here to be kept.
    let seen = [(ACTOR.0, first.dot.counter)];
    bench.keep_hint(&slot, shipment(9, 3, &seen), "n1").unwrap();
    let third = bench.stand_in(&slot, write("c", None), &["n1"]).unwrap();
    let context = bench.hinted(&slot).context().clone();
    assert!(context.contains(third.dot));
    assert!(
        !context.contains(second.dot),
        "what was forgotten is not superseded: {context:?}"
    );
}

#[test]
fn over_the_quota_new_hints_are_refused_and_what_is_kept_stays() {
    let (bench, first, second) = (Bench::new(), slot(1, 1, "a"), slot(2, 1, "b"));
    bench.keep_hint(&first, shipment(9, 3, &[]), "n1").unwrap();
    let bytes = bench.replica.hints_kept()[0].1.bytes;
    bench.replica.facts.lock_hints().set_quota(bytes);
    let refused = bench.keep_hint(&second, shipment(9, 4, &[]), "n2");
    assert_eq!(refused, Err(Failure::HintsFull));
    let refused = bench.stand_in(&second, write("x", None), &["n1"]);
    assert_eq!(refused.map(|minted| minted.dot), Err(Failure::HintsFull));
    let refused: Vec<u64> = bench
        .replica
        .hints_kept()
        .iter()
        .map(|(_, kept)| kept.refused)
        .collect();
    assert_eq!(refused, [1, 1]);
    assert!(bench.hinted(&second).is_empty());
    assert_eq!(bench.hinted(&first), shipment(9, 3, &[]));
}

#[test]
fn a_restart_counts_what_is_kept_and_finds_it_in_order() {
    let bench = Bench::new();
    for key in ["a", "b", "c"] {
        bench
            .keep_hint(&slot(1, 1, key), shipment(9, 3, &[]), "n1")
            .unwrap();
    }
    let ledger = bench.replica.hints(Clone::clone);
    let again = crate::replica::hints::recover(bench.disk.as_ref(), u64::MAX);
    assert_eq!(again, ledger);
    let (page, last) = bench.replica.hints_after(None).unwrap();
    let keys = |page: &[KeptHint]| -> Vec<Bytes> {
        page.iter()
            .map(|hint| hint.slot.place.key.clone())
            .collect()
    };
    assert_eq!(keys(&page), ["a", "b", "c"]);
    let (page, last) = bench.replica.hints_after(last.as_ref()).unwrap();
    assert_eq!((keys(&page), last), (Vec::new(), None));
}

#[test]
fn a_hint_of_a_target_that_owns_the_key_no_longer_is_for_whoever_does() {
    let (bench, slot) = (Bench::new(), slot(1, 1, "k"));
    bench.keep_hint(&slot, shipment(9, 3, &[]), "n1").unwrap();
    let owners = vec![node("n2"), node("n3")];
    wait(bench.replica.reroute_hint(slot.clone(), node("n1"), owners)).unwrap();
    let kept = [
        ("n1".to_owned(), 0),
        ("n2".to_owned(), 1),
        ("n3".to_owned(), 1),
    ];
    assert_eq!(bench.kept(), kept);
    wait(bench.replica.drop_hint(slot.clone())).unwrap();
    assert!(bench.hinted(&slot).is_empty());
}
