//! A store that was in no epoch yet vouches for nothing that others may have reaped.

use super::*;
use crate::door::{Door, MAX_REQUESTS};
use crate::tasks::registry::{JOINED, Opened, REBUILDING};
use crate::tasks::tests::{Bench, node};
use sibyl_core::id::Partition;

/// Before anything is started: nobody says anything, and no epoch ends.
fn reaping(bench: &Bench, registry: &Opened) -> Reaping {
    Reaping::new(Ground {
        me: node(1),
        door: Door::new(bench.replica.clone(), MAX_REQUESTS),
        replica: bench.replica.clone(),
        net: bench.net.clone(),
        registry: registry.handle(),
        interval: Some(Duration::from_secs(3600)),
        window_ms: 0,
        leftover: Box::new(|| false),
        now_ms: || 0,
        metrics: Arc::clone(&bench.telemetry.metrics),
    })
}

async fn check_horizon(records: &[(&str, &[u8])], gained: bool, expected: Option<u64>) {
    let bench = Bench::new(3, records).await;
    let registry = bench.registry();
    let reaping = reaping(&bench, &registry);
    let partition = Partition(3);
    if gained {
        let changed = bench.replica.owners_changed(2, vec![partition]).await;
        changed.expect("the store takes it");
    }
    let asked = Request::Horizon { partition };
    let (reply, _) = reaping.answer(asked, 2, Bytes::new()).await;
    let said = matches!(reply, Reply::Horizon { epoch } if epoch == expected);
    assert!(said, "{records:?} {gained}: {reply:?}");
}

#[tokio::test]
async fn what_was_reaped_before_it_came_a_young_owner_cannot_say() {
    let epoch = 7_u64.to_le_bytes();
    let whole: (&str, &[u8]) = (REBUILDING, b"0");
    check_horizon(&[], false, Some(0)).await;
    check_horizon(&[(JOINED, b"1")], false, Some(u64::MAX)).await;
    check_horizon(&[whole], false, Some(u64::MAX)).await;
    check_horizon(&[(JOINED, b"1"), (EPOCH, &epoch)], false, Some(0)).await;
}

#[tokio::test]
async fn what_it_gains_before_its_first_epoch_has_no_horizon() {
    let epoch = 7_u64.to_le_bytes();
    check_horizon(&[], true, Some(0)).await;
    check_horizon(&[(EPOCH, &epoch)], true, Some(7)).await;
}
