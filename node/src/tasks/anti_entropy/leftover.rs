//! Lets go of partitions that are not this node's any more.
//!
//! The last document of a change of owners takes them away; what is left of them here is compared once more with
//! enough of the owners of now, all in reach among them, and only then forgotten. A restart finds them again by
//! looking into the store. While owners change nothing is let go of.

use std::collections::{BTreeMap, BTreeSet};

use sibyl_core::id::{NodeId, Partition};
use sibyl_core::message::Failure;

use super::AntiEntropy;
use crate::outside;
use crate::tasks::registry::View;

/// What is left over, and with whom it was compared.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// The document by which the store was looked through.
    number: u64,
    open: BTreeMap<Partition, BTreeSet<NodeId>>,
}

impl AntiEntropy {
    pub(super) fn is_leftover(&self, partition: Partition) -> bool {
        self.state().leftover.open.contains_key(&partition)
    }

    /// Whether copies may lie here that are others' by the document in force.
    pub fn has_leftover(&self) -> bool {
        let view = self.ground().registry.view();
        let state = self.state();
        state.leftover.number < view.since() || !state.leftover.open.is_empty()
    }

    /// A partition was compared with a peer, wholly: what this node has of it is on that peer's disk.
    pub(super) fn note_given_to(&self, view: &View, partition: Partition, peer: &NodeId) {
        let mut state = self.state();
        let leftover = &mut state.leftover;
        if view.number() >= leftover.number
            && let Some(given) = leftover.open.get_mut(&partition)
        {
            given.insert(peer.clone());
        }
    }

    /// Looks what is left over, and forgets what others certainly have.
    pub(super) async fn look_at_leftover(&self) {
        let view = self.ground().registry.view();
        if view.forming() || view.document().layout.change.is_some() {
            self.state().leftover = Leftover::default();
            return;
        }
        if self.state().leftover.number < view.since() {
            self.find_leftover(&view).await;
        }
        let given: Vec<Partition> = {
            let state = self.state();
            let open = state.leftover.open.iter();
            open.filter(|(at, given)| self.is_given(&view, **at, given))
                .map(|(at, _)| *at)
                .collect()
        };
        for partition in given {
            self.forget(partition, view.since()).await;
        }
    }

    async fn find_leftover(&self, view: &View) {
        let ground = self.ground();
        let ns = view.document().ns();
        let is_held = |at: &Partition| ns.iter().any(|n| view.placed.holds(&ground.me, *at, *n));
        let all = (0..view.ring().partitions()).map(Partition);
        let others: Vec<Partition> = all.filter(|at| !is_held(at)).collect();
        let replica = ground.replica.clone();
        let looked = outside::aside(move || {
            // What cannot be read is not empty.
            let holds = |at: &Partition| replica.has_any(*at).unwrap_or(true);
            others.into_iter().filter(holds).collect::<Vec<_>>()
        });
        let Ok(found) = looked.await else { return };
        let mut state = self.state();
        for at in &found {
            let owners = ns.iter().flat_map(|n| view.placed.holders(*at, *n));
            for owner in owners {
                state.peers.entry(owner).or_default().due.insert(*at);
            }
        }
        if !found.is_empty() {
            tracing::info!(
                partitions = found.len(),
                "these are not this node's any more: others get what they lack, then they go"
            );
        }
        let open = found.into_iter().map(|at| (at, BTreeSet::new()));
        state.leftover = Leftover {
            number: view.since(),
            open: open.collect(),
        };
        drop(state);
        self.inner.bell.notify_one();
    }

    /// Whether so many owners have it that every later quorum meets it, and all that can be reached.
    fn is_given(&self, view: &View, partition: Partition, given: &BTreeSet<NodeId>) -> bool {
        let net = &self.ground().net;
        view.document().buckets.values().all(|bucket| {
            let owners = view.owners(bucket, partition);
            let w = bucket
                .config
                .w
                .need(usize::from(bucket.config.n), owners.len());
            let have = owners.iter().filter(|owner| given.contains(*owner)).count();
            let mut here = owners.iter().filter(|owner| net.is_reachable(owner));
            have >= w && here.all(|owner| given.contains(owner))
        })
    }

    async fn forget(&self, partition: Partition, number: u64) {
        let replica = self.ground().replica.clone();
        let forgotten = outside::aside(move || replica.forget(partition, number));
        match forgotten.await {
            Ok(Ok(swept)) => {
                let (partition_number, keys) = (partition.0, swept.erased);
                tracing::debug!(
                    partition = partition_number,
                    keys,
                    "a partition was handed over"
                );
                self.state().leftover.open.remove(&partition);
            }
            // Owners changed again: it may be this node's.
            Ok(Err(Failure::Stale(_))) => self.state().leftover = Leftover::default(),
            Ok(Err(failure)) => {
                tracing::error!(%failure, "a partition that was handed over cannot be forgotten");
            }
            Err(_) => {}
        }
    }
}
