//! Brings a node back that lost its copies: partition by partition, from the other owners.
//!
//! While a node is rebuilding, each partition of its own answers no read that counts and mints nothing until
//! whole exchanges with enough other owners were made (`core: refill`), each of them synced. What has been
//! filled is kept on disk, so a restart goes on where it was; with whom a partition was compared is not, so an
//! unfinished one begins anew. Exchanges count only once the registry names this store: what was acknowledged
//! by the lost one was acknowledged before.

use std::collections::BTreeMap;

use bytes::Bytes;
use sibyl_core::id::{Actor, NodeId, Partition};
use sibyl_core::refill::Need;

use super::AntiEntropy;
use crate::outside;
use crate::tasks::registry::View;

/// The record of what is filled: a bit per partition.
pub(super) const FILLED: &str = "filled";

/// With whom unfilled partitions were compared, and whether those copies count.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: BTreeMap<Partition, BTreeMap<NodeId, bool>>,
}

impl AntiEntropy {
    /// Takes up what an earlier process of this store had filled.
    pub(super) fn take_up(&self, kept: Option<Bytes>) {
        let bits = kept.unwrap_or_default();
        let bit = |at: u32| {
            bits.get(at as usize / 8)
                .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
        };
        let length = u32::try_from(bits.len() * 8).unwrap_or(u32::MAX);
        self.ground()
            .registry
            .fill((0..length).filter(|at| bit(*at)).map(Partition));
    }

    /// Whether the registry names this store: until then exchanges refill nothing.
    pub(super) fn is_named(&self, view: &View) -> bool {
        let member = view.document().layout.members.get(&self.ground().me);
        let named: Option<Actor> = member.and_then(|member| member.store);
        named == Some(self.ground().replica.actor())
    }

    /// A partition was compared with a peer, wholly.
    pub(super) fn note_filled_from(&self, partition: Partition, peer: &NodeId, counts: bool) {
        let registry = &self.ground().registry;
        if registry.is_rebuilding() && !registry.vouches(partition) {
            let mut state = self.state();
            let done = state.refill.done.entry(partition).or_default();
            let counted = done.entry(peer.clone()).or_default();
            *counted = *counted || counts;
        }
    }

    /// What this node needs before it may vouch for a partition; empty if it owns nothing of it.
    fn needs(&self, view: &View, partition: Partition) -> Vec<Need> {
        let need = |bucket: &sibyl_core::registry::Bucket| {
            let owners = view.owners(bucket, partition);
            let w = bucket
                .config
                .w
                .need(usize::from(bucket.config.n), owners.len());
            Need::of(&self.ground().me, owners, w, |node| view.is_member(node))
        };
        view.document().buckets.values().filter_map(need).collect()
    }

    /// Looks which partitions are filled by now, and whether all are.
    pub(super) async fn look_at_refill(&self) {
        let ground = self.ground();
        let view = ground.registry.view();
        if !ground.registry.is_rebuilding() || view.forming() || !self.is_named(&view) {
            return;
        }
        let partitions = view.ring().partitions();
        let filled = self.newly_filled(&view);
        if !filled.is_empty() {
            ground.registry.fill(filled.into_iter());
            if !self.keep_filled(partitions).await {
                return;
            }
        }
        if (0..partitions).all(|at| ground.registry.vouches(Partition(at))) {
            self.finish_refill().await;
        }
    }

    fn newly_filled(&self, view: &View) -> Vec<Partition> {
        let (ground, nobody) = (self.ground(), BTreeMap::new());
        let mut state = self.state();
        let done = &mut state.refill.done;
        let open = (0..view.ring().partitions())
            .map(Partition)
            .filter(|at| !ground.registry.vouches(*at));
        let is_filled = |at: &Partition| {
            let heard = done.get(at).unwrap_or(&nobody);
            let met = |need: &Need| need.is_met(heard, |other| ground.net.is_reachable(other));
            self.needs(view, *at).iter().all(met)
        };
        let filled: Vec<Partition> = open.filter(is_filled).collect();
        filled.iter().for_each(|at| drop(done.remove(at)));
        filled
    }

    async fn keep_filled(&self, partitions: u32) -> bool {
        let ground = self.ground();
        let mut bits = vec![0_u8; (partitions as usize).div_ceil(8)];
        for at in (0..partitions).filter(|at| ground.registry.vouches(Partition(*at))) {
            bits[at as usize / 8] |= 1 << (at % 8);
        }
        self.kept(ground.replica.remember(FILLED, bits.into()).await)
    }

    async fn finish_refill(&self) {
        let ground = self.ground();
        if !self.kept(ground.registry.forget_loss(&ground.replica).await) {
            return;
        }
        let watermark = ground.watermark.clone();
        let written = outside::aside(move || watermark.rebuilt()).await;
        match written {
            Ok(Ok(())) => {
                ground.registry.rebuilt();
                tracing::info!("this node's data is complete again");
            }
            _ => ground
                .replica
                .fail("the watermark file cannot be written".into()),
        }
    }

    fn kept(&self, kept: Result<(), sibyl_core::message::Failure>) -> bool {
        if let Err(failure) = &kept {
            tracing::error!(%failure, "the progress of refilling cannot be kept");
        }
        kept.is_ok()
    }
}
