//! What a store that was made of an older state may show to others.
//!
//! Such a store (a restored backup, what was saved of a damaged one) holds keys that may have been deleted and reaped
//! since: then nobody else knows them, and nothing tells them from writes that only this node had. So a partition is
//! judged before anything of it leaves the node or is compared: every other owner says when it reaped there last;
//! one that lost its data itself is passed over, for it holds nothing that counts, and if all did, what is here is all
//! there is (`core: reap/image`). If
//! that was before the state was taken, everything in it joins as usual. If not, all of it is set aside, where
//! nobody sees it, and the partition is fetched like any that was lost. What the node knows by then is forgotten; the
//! rest stays for an operator.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::reap::image::{self, Image};

use super::Reaping;
use crate::outside;
use crate::tasks::registry::{JOINED, REBUILDING, View};
use crate::telemetry::Rpc;

/// Between two rounds through partitions whose owners do not all answer.
const AGAIN: Duration = Duration::from_millis(500);
/// What the registry's notes call it.
const NOTE: &str = "restored";
/// And what is shown although nobody knows what was forgotten of it.
const UNKNOWN: &str = "restored/unknown";

/// What became of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    /// How many of its records were set aside.
    aside: usize,
    /// Nobody could say whether any should be.
    unknown: bool,
}

impl Reaping {
    pub(super) async fn judge_all(self) {
        let ground = self.ground();
        let mut view = ground.registry.watch();
        if view.wait_for(|view| !view.forming()).await.is_err() {
            return;
        }
        let image = ground.replica.image().ok().flatten().unwrap_or_default();
        let (mut aside, mut unknown) = (0, 0);
        loop {
            let view = ground.registry.view();
            let mut left = 0;
            for partition in (0..view.ring().partitions()).map(Partition) {
                match self.judge(&view, partition, image).await {
                    Some(judged) => {
                        aside += judged.aside;
                        unknown += usize::from(judged.unknown);
                    }
                    None => left += 1,
                }
            }
            if left == 0 && ground.replica.judge_all().await.is_ok() {
                break;
            }
            let why = format!(
                "restored: {left} partitions are shown to nobody until each of their owners said what was reaped there since the backup"
            );
            ground.registry.note(NOTE, Some(why));
            tokio::time::sleep(AGAIN).await;
        }
        if unknown > 0 {
            let why = format!(
                "restored: every other owner of {unknown} partitions lost its data, too, and nobody knows what was deleted and forgotten there since the backup: they are shown as they were, and deleted keys may be among them"
            );
            tracing::warn!(partitions = unknown, "{why}");
            ground.registry.note(UNKNOWN, Some(why));
        }
        if aside > 0 {
            tracing::warn!(
                records = aside,
                "what this store held may have been deleted and forgotten since: it is set aside"
            );
        }
        self.review(aside > 0).await;
    }

    /// Judges a partition; `None` if that cannot be done yet.
    async fn judge(&self, view: &View, partition: Partition, image: u64) -> Option<Judged> {
        let ground = self.ground();
        let mut judged = Judged::default();
        if ground.replica.is_judged(partition) {
            return Some(judged);
        }
        let replica = ground.replica.clone();
        let looked = outside::aside(move || replica.has_records(partition));
        if looked.await.ok()?.ok()? {
            match self.hear_owners(view, partition, image).await? {
                Image::Fresh => {}
                Image::Unknown => judged.unknown = true,
                Image::Old => judged.aside = ground.replica.set_aside(partition).await.ok()?,
            }
        }
        ground.replica.judge(partition);
        Some(judged)
    }

    /// Whether something may have been reaped since; `None` while an owner does not say.
    async fn hear_owners(&self, view: &View, partition: Partition, image: u64) -> Option<Image> {
        let ground = self.ground();
        let members = &view.document().layout.members;
        let member = members.get(&ground.me)?;
        if member.store != Some(ground.replica.actor()) {
            // Orders of before may still be on their way until a document names this store.
            return None;
        }
        let ns = view.document().ns();
        let owners = ns.iter().flat_map(|n| view.placed.holders(partition, *n));
        // A former owner that was removed for good answers nobody: what it alone forgot, the others hold tombstones of.
        let asked = owners.filter(|owner| *owner != ground.me && members.contains_key(owner));
        let owners: BTreeSet<NodeId> = asked.collect();
        let mut said = Vec::with_capacity(owners.len());
        for owner in &owners {
            let request = Request::Horizon { partition };
            let asked = self.ask(
                None,
                Rpc::ReapHorizon,
                owner,
                (&request, Bytes::new()),
                view.number(),
            );
            let Some((Reply::Horizon { epoch }, _)) = asked.await else {
                return None;
            };
            said.push(epoch);
        }
        Some(image::judge(image, &said))
    }

    /// Forgets what was set aside and is known by now, once this node is complete.
    async fn review(&self, any: bool) {
        let ground = self.ground();
        while any && ground.registry.is_rebuilding() {
            tokio::time::sleep(AGAIN).await;
        }
        match ground.replica.review_aside().await {
            Ok(left) => {
                self.state().aside = left;
                let why = format!(
                    "restored: {left} records of the backup are unknown to the other owners, whose partitions were reaped since: they are set aside and shown to nobody"
                );
                ground.registry.note(NOTE, (left > 0).then_some(why));
            }
            Err(failure) => tracing::error!(%failure, "what was set aside cannot be looked at"),
        }
    }

    /// Whether this node was filled by others and has entered no epoch since: when they reaped last it cannot say.
    fn is_unsure(&self) -> Result<bool, Failure> {
        let ground = self.ground();
        let any = |key| ground.replica.kept(key).map(|kept| kept.is_some());
        let is_fresh = ground.interval.is_some() && self.state().fresh;
        Ok(is_fresh && (any(JOINED)? || any(REBUILDING)?))
    }

    pub(super) async fn answer_horizon(
        &self,
        partition: Partition,
        by: u64,
    ) -> Result<(Reply, Bytes), Failure> {
        let ground = self.ground();
        let number = ground.registry.view().number();
        if number < by {
            return Err(Failure::Stale(by));
        }
        let knows = ground.registry.vouches(partition) && ground.replica.is_judged(partition);
        let epoch = match knows {
            true if self.is_unsure()? => Some(u64::MAX),
            true => Some(ground.replica.horizon(partition).await?),
            false => None,
        };
        Ok((Reply::Horizon { epoch }, Bytes::new()))
    }
}
