//! Seals what is deleted, and has all owners forget what they all sealed.
//!
//! Copies are looked through for tombstones now and then, a little at a time. The first owner of a partition takes
//! what it sealed long enough ago and asks the others for the same objects; what all of them sealed, by the youngest
//! of their seals long enough ago, is forgotten everywhere. An owner forgets only what its own seal still holds for, and
//! only by the registry document it goes by itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use sibyl_core::id::{Digest, NodeId, Partition};
use sibyl_core::message::{self, Failure, Place, Reply, Request};
use tokio::time::Instant;

use super::Reaping;
use crate::outside;
use crate::replica::{Sealing, Slot};
use crate::tasks::registry::View;
use crate::telemetry::{Rpc, Span};

/// Records looked at in one go: of 1 KiB, a quarter of a MiB.
const SCAN: usize = 256;
/// A look through all copies is followed by so many times its own duration of rest.
const REST: u32 = 20;
/// Seals looked at in one go.
const PAGE: usize = 1024;
/// Objects asked about in one message: at 1 KiB a key half a MiB.
const BATCH: usize = 512;

/// Objects, by where they lie and what they are.
type Objects = Vec<(Place, Digest)>;

impl Reaping {
    /// Looks through all copies, once an epoch at most, and seals what is deleted. Ends: every page begins behind
    /// the last.
    pub(super) async fn seal_all(&self) {
        let ground = self.ground();
        let epoch = {
            let state = self.state();
            let due = state.next_scan <= Instant::now() && state.scanned < state.machine.epoch();
            (due && state.machine.may_seal()).then(|| state.machine.epoch())
        };
        let Some(epoch) = epoch.filter(|_| ground.replica.tombstones() > 0) else {
            return;
        };
        let (began, mut from) = (Instant::now(), Vec::new());
        loop {
            let page = Instant::now();
            let replica = ground.replica.clone();
            let at = std::mem::take(&mut from);
            let found = outside::aside(move || replica.deleted(&at, SCAN)).await;
            let (slots, next) = match found {
                Ok(Ok(found)) => found,
                Ok(Err(failure)) => {
                    tracing::warn!(%failure, "copies cannot be looked through for what is deleted");
                    break;
                }
                Err(_) => break,
            };
            if !self.seal(slots, epoch).await {
                break;
            }
            let Some(next) = next else { break };
            from = next;
            tokio::time::sleep(page.elapsed()).await;
            ground.door.yield_to_clients().await;
        }
        let mut state = self.state();
        state.scanned = epoch;
        state.next_scan = Instant::now() + began.elapsed() * REST;
    }

    /// Seals those of this node; `false` if there is no use in going on.
    async fn seal(&self, slots: Vec<Slot>, epoch: u64) -> bool {
        let ground = self.ground();
        let view = ground.registry.view();
        let own = slots.into_iter().filter(|slot| self.is_own(&view, slot));
        let own: Vec<Slot> = own.collect();
        // Not in an older epoch than the one that counts: the state may have changed while this page was read.
        let (may, now) = {
            let state = self.state();
            (state.machine.may_seal(), state.machine.epoch())
        };
        let when = Sealing {
            epoch: now.max(epoch),
            now_ms: (ground.now_ms)(),
            window_ms: ground.window_ms,
        };
        may && (own.is_empty() || ground.replica.seal(own, when).await.is_ok())
    }

    fn is_own(&self, view: &View, slot: &Slot) -> bool {
        let registry = &self.ground().registry;
        let bucket = view.bucket_of(slot.place.bucket);
        bucket.is_some_and(|(_, bucket)| {
            view.owners(bucket, slot.partition)
                .contains(&self.ground().me)
                && registry.vouches(slot.partition)
        })
    }

    /// Has owners forget what this node is the first owner of. Ends: every page begins behind the last.
    pub(super) async fn forget_ripe(&self) {
        let ground = self.ground();
        let Some(until) = self.state().machine.ripe_until() else {
            return;
        };
        let view = ground.registry.view();
        let mut after = None;
        loop {
            let page = ground.replica.ripe(until, after.as_ref(), PAGE).await;
            let Ok(page) = page else { return };
            let Some((last, _)) = page.last() else { return };
            after = Some(last.clone());
            let mut groups: BTreeMap<(Partition, u8), Objects> = BTreeMap::new();
            for (slot, digest) in page {
                let bucket = view.bucket_of(slot.place.bucket);
                if let Some((_, bucket)) = bucket {
                    let group = groups.entry((slot.partition, bucket.config.n)).or_default();
                    group.push((slot.place, digest));
                }
            }
            for ((partition, n), objects) in groups {
                let owners = view.placed.counting(partition, n).to_vec();
                if owners.first() == Some(&ground.me) {
                    for batch in objects.chunks(BATCH) {
                        self.forget(&view, partition, &owners, batch.to_vec()).await;
                    }
                }
            }
        }
    }

    async fn forget(&self, view: &View, partition: Partition, owners: &[NodeId], objects: Objects) {
        let ground = self.ground();
        let span = ground.registry.tracer().reap_forget(partition.0);
        let others: Vec<&NodeId> = owners.iter().filter(|owner| **owner != ground.me).collect();
        let sealed = self.agreed(&span, view, partition, &others, objects).await;
        let Some(agreed) = sealed.filter(|agreed| !agreed.is_empty()) else {
            return;
        };
        let epoch = self.state().machine.epoch();
        // Asked last: whatever changed the document changed what may be forgotten.
        if ground.registry.view().number() != view.number() {
            return;
        }
        let request = Request::Reap { partition, epoch };
        for other in &others {
            let body = message::encode(&agreed);
            let asked = self.ask(
                Some(&span),
                Rpc::ReapForget,
                other,
                (&request, body),
                view.number(),
            );
            // One that did not hear keeps its tombstones, gives them to the others, and they go another time.
            let _heard = asked.await;
        }
        if ground.registry.view().number() != view.number() {
            return;
        }
        match ground.replica.reap(partition, agreed, epoch).await {
            Ok(keys) => {
                span.reaped(keys);
                tracing::debug!(
                    partition = partition.0,
                    keys,
                    epoch,
                    "deleted keys were forgotten"
                );
            }
            Err(failure) => tracing::error!(%failure, "deleted keys cannot be forgotten"),
        }
    }

    /// Those objects that all owners sealed long enough ago; none if somebody does not answer.
    async fn agreed(
        &self,
        span: &Span,
        view: &View,
        partition: Partition,
        others: &[&NodeId],
        objects: Objects,
    ) -> Option<Objects> {
        let ground = self.ground();
        let mut seals = vec![
            ground
                .replica
                .sealed(partition, objects.clone())
                .await
                .ok()?,
        ];
        let request = Request::Seals { partition };
        for other in others {
            let body = message::encode(&objects);
            let asked = self.ask(
                Some(span),
                Rpc::ReapSeals,
                other,
                (&request, body),
                view.number(),
            );
            let Some((Reply::Seals, body)) = asked.await else {
                return None;
            };
            let theirs: Vec<Option<u64>> = message::decode(&body).ok()?;
            seals.push(theirs);
        }
        let state = self.state();
        let ripe = |at: usize| {
            let epochs = seals.iter().map(|seals| seals.get(at).copied().flatten());
            let youngest = epochs.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
            Some(state.machine.is_ripe(youngest))
        };
        let agreed = objects.into_iter().enumerate();
        let agreed = agreed.filter(|(at, _)| ripe(*at) == Some(true));
        Some(agreed.map(|(_, object)| object).collect())
    }

    /// A question by another document than this node's is about another layout.
    fn is_current(&self, by: u64) -> Result<(), Failure> {
        let ground = self.ground();
        if ground.interval.is_none() {
            return Err(Failure::NotReaping);
        }
        let number = ground.registry.view().number();
        match by == number {
            true => Ok(()),
            false => Err(Failure::Stale(number)),
        }
    }

    pub(super) async fn answer_seals(
        &self,
        partition: Partition,
        by: u64,
        body: &[u8],
    ) -> Result<(Reply, Bytes), Failure> {
        self.is_current(by)?;
        let objects = decoded(body)?;
        let sealed = match self.state().machine.may_seal() {
            true => None,
            false => Some(vec![None; objects.len()]),
        };
        let sealed: Vec<Option<u64>> = match sealed {
            Some(none) => none,
            None => self.ground().replica.sealed(partition, objects).await?,
        };
        Ok((Reply::Seals, message::encode(&sealed)))
    }

    pub(super) async fn answer_reap(
        &self,
        partition: Partition,
        epoch: u64,
        by: u64,
        body: &[u8],
    ) -> Result<(Reply, Bytes), Failure> {
        let objects = decoded(body)?;
        self.is_current(by)?;
        let epoch = epoch.max(self.state().machine.epoch());
        let keys = self
            .ground()
            .replica
            .reap(partition, objects, epoch)
            .await?;
        Ok((Reply::Reaped { keys: keys as u64 }, Bytes::new()))
    }
}

fn decoded(body: &[u8]) -> Result<Objects, Failure> {
    let objects: Objects =
        message::decode(body).map_err(|error| Failure::Malformed(error.to_string()))?;
    match objects.len() <= BATCH {
        true => Ok(objects),
        false => Err(Failure::Malformed(
            "too many objects in one question".into(),
        )),
    }
}
