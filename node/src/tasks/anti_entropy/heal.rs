//! Replaces records that cannot be read by what the other owners hold.
//!
//! A damaged record is fenced by being unreadable: reads of it fail, joins and mints are refused, nothing takes
//! it for absent. What was there may have been acknowledged by this copy, so it may count again only after at
//! least q other owners, all that can be reached in any case, were asked and their copies joined (`core:
//! refill`); then the join takes the record's place in one batch. An owner whose record is damaged, too, was asked and
//! does not count, or the two would wait for each other for ever. Until that batch the disk itself remembers
//! that the record is damaged, so a restart in between loses nothing. The writer raises the partition's line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use sibyl_core::id::NodeId;
use sibyl_core::object::Object;
use sibyl_core::refill::Need;

use super::AntiEntropy;
use crate::outside;
use crate::replica::Slot;

/// Between two attempts at what could not be healed yet; drawn from the upper half.
const AGAIN: Duration = Duration::from_secs(2);

impl AntiEntropy {
    pub(super) async fn heal_damage(self) {
        let mut damaged = self.ground().replica.damaged();
        loop {
            let slots = damaged.borrow_and_update().clone();
            let mut left = false;
            for slot in slots {
                left |= !self.heal(&slot).await;
            }
            let pause = AGAIN.mul_f64(outside::rng().random_range(0.5..=1.0));
            tokio::select! {
                changed = damaged.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(pause), if left => {}
            }
        }
    }

    /// Heals a record; answers whether there is nothing left to do about it.
    async fn heal(&self, slot: &Slot) -> bool {
        let ground = self.ground();
        let view = ground.registry.view();
        let need = view.bucket_of(slot.place.bucket).and_then(|(_, bucket)| {
            let n = bucket.config.n;
            let owners = view.placed.holders(slot.partition, n);
            let w = bucket.config.w.need(usize::from(n), owners.len());
            Need::of(&ground.me, &owners, w, |node| view.is_member(node))
        });
        if ground.replica.object(slot).is_ok() {
            // A moment's trouble of the disk: a tree computed meanwhile does not count the record.
            return ground.replica.readable(slot.clone()).await.is_ok();
        }
        let Some(need) = need else {
            ground.replica.not_damaged(slot);
            return true;
        };
        if need.others.is_empty() {
            // There is no other copy: it stays fenced, for an operator.
            return false;
        }
        self.yield_to_clients().await;
        let _flight = ground.net.flights().begin();
        let (joined, heard) = self.gather(slot, &need).await;
        if !need.is_met(&heard, |other| ground.net.is_reachable(other)) {
            return false;
        }
        let (partition, from) = (slot.partition.0, heard.len());
        match ground.replica.replace(slot.clone(), joined).await {
            Ok(()) => {
                tracing::warn!(
                    partition,
                    from,
                    "a record could not be read and was replaced by what other owners hold"
                );
                true
            }
            Err(failure) => {
                tracing::error!(partition, %failure, "a damaged record could not be replaced");
                false
            }
        }
    }

    /// The join of what the other owners hold, and who they were.
    async fn gather(&self, slot: &Slot, need: &Need) -> (Object, BTreeMap<NodeId, bool>) {
        let span = self
            .ground()
            .registry
            .tracer()
            .record_heal(slot.partition.0);
        let (mut joined, mut heard) = (Object::default(), BTreeMap::new());
        for other in &need.others {
            let this = Arc::new(self.clone());
            if let Some((object, counts)) = this.fetch(&span, other, slot.place.clone()).await {
                joined.join(&object);
                heard.insert(other.clone(), counts);
            }
        }
        (joined, heard)
    }
}
