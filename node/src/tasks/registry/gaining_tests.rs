//! A crash between a document on disk and its coming into force.

use sibyl_core::registry::{Change, Held};

use super::super::*;
use super::{View, gained};
use crate::store::{Space, Store as _};
use crate::tasks::tests::{Bench, node, replica};

#[tokio::test]
async fn what_a_document_makes_it_an_owner_of_is_noted_before_that_is_kept() {
    let bench = Bench::new(4, &[]).await;
    let remove = Change::Remove {
        node: node(4),
        store: None,
    };
    let next = remove.apply(&bench.document).expect("allowed");
    let next = Held::first(next.expect("it changes something"));
    let before = View::of(Held::first(bench.document.clone()));
    let gained = gained(&node(1), &before, &View::of(next.clone()));
    let all = (0..next.document.layout.partitions).map(Partition);
    assert!(!gained.is_empty() && gained.len() < all.len());

    bench.replica.entered(9);
    let (mut task, _events) = bench.registry().task(bench.net.clone());
    let kept = Effect::Persist {
        slot: Slot::Chosen,
        bytes: next.encode(),
    };
    task.perform(kept).await.expect("the store takes it");
    // The power fails before the document comes into force.
    bench.memory.crash(|_| false);
    bench.memory.reopen().expect("what was synced is there");
    let held = bench.memory.get(Space::Meta, CHOSEN.as_bytes());
    assert_eq!(
        held.expect("it is read").as_deref(),
        Some(&next.encode()[..])
    );
    let restarted = replica(&bench.memory);
    for at in all {
        let horizon = restarted.horizon(at).await.expect("it answers");
        let expected = if gained.contains(&at) { 9 } else { 0 };
        assert_eq!(horizon, expected, "{at:?}");
    }
}

#[tokio::test]
async fn what_was_gained_is_on_disk_before_a_document_can_be() {
    let bench = Bench::new(4, &[]).await;
    bench.replica.entered(9);
    let gained = vec![Partition(3)];
    let changed = bench.replica.owners_changed(2, gained).await;
    changed.expect("the store takes it");
    bench.memory.crash(|_| false);
    bench.memory.reopen().expect("what was synced is there");
    let horizon = replica(&bench.memory).horizon(Partition(3)).await;
    assert_eq!(horizon, Ok(9));
}
