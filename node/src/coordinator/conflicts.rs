//! The conflict feed: keys that a read found with siblings and could not make one value of.
//!
//! Each node remembers what was read through it, once per distinct set of siblings, and forgets a key when a
//! read finds it resolved. The feed of a bucket is what all reachable nodes remember. It is a list to look
//! at, not a record: it does not survive a restart, and what nobody reads is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sibyl_core::id::{Digest, Incarnation};
use sibyl_core::message::{self, Conflict, Reply, Request};

use super::request::{ConflictPage, ListError, ListRequest};
use super::{Coordinator, DEFAULT_TIMEOUT};
use crate::telemetry::{Rpc, Span};

/// The most keys one node remembers: at a key of 100 bytes and a reason of as many, 4 MB.
const MOST: usize = 10_000;

/// What one node remembers.
#[derive(Default)]
pub(super) struct Feed {
    /// By bucket and key: the sibling set's digest, and what is shown.
    entries: Mutex<BTreeMap<(Incarnation, Bytes), (Digest, Conflict)>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Incarnation, Bytes), (Digest, Conflict)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a conflict; the same set of siblings for the same reason keeps its first moment.
    pub(super) fn note(&self, bucket: Incarnation, set: Digest, conflict: Conflict) {
        let mut entries = self.lock();
        let place = (bucket, conflict.key.clone());
        let known = entries.get(&place);
        if known.is_some_and(|(old, shown)| *old == set && shown.reason == conflict.reason) {
            return;
        }
        if known.is_none() && entries.len() >= MOST {
            return;
        }
        entries.insert(place, (set, conflict));
    }

    /// Forgets a key that was found resolved.
    pub(super) fn clear(&self, bucket: Incarnation, key: &Bytes) {
        let mut entries = self.lock();
        if !entries.is_empty() {
            entries.remove(&(bucket, key.clone()));
        }
    }

    /// Forgets what is not of these buckets: what a deleted one left would hold the places of others.
    pub(super) fn forget_others(&self, known: &BTreeSet<Incarnation>) {
        self.lock().retain(|(bucket, _), _| known.contains(bucket));
    }

    pub(super) fn page(
        &self,
        bucket: Incarnation,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Vec<Conflict> {
        let from = match after {
            Some(key) => Bound::Excluded((bucket, key.clone())),
            None => Bound::Included((bucket, Bytes::new())),
        };
        let entries = self.lock();
        let mine = entries
            .range((from, Bound::Unbounded))
            .take_while(|((of, _), _)| *of == bucket);
        mine.take(limit)
            .map(|(_, (_, conflict))| conflict.clone())
            .collect()
    }
}

impl Coordinator {
    /// The conflict feed of a bucket, from every node that can be reached.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn conflicts(
        &self,
        span: &Span,
        request: ListRequest,
    ) -> Result<ConflictPage, ListError> {
        let view = self.serving().map_err(ListError::NotServing)?;
        let bucket = view
            .bucket(&request.bucket)
            .ok_or_else(|| ListError::NoBucket(request.bucket.clone()))?;
        let bucket = bucket.incarnation;
        let limit = u32::try_from(request.limit).unwrap_or(u32::MAX);
        let question = Request::Conflicts {
            bucket,
            after: request.after.clone(),
            limit,
        };
        let others = self.net().peers().into_iter().filter(|peer| peer.reachable);
        let mut asked: FuturesUnordered<_> = others
            .map(|peer| {
                let rpc_span = span.rpc_client(Rpc::NodeStatus, &peer.node_id);
                self.ask(
                    rpc_span,
                    Rpc::NodeStatus,
                    &peer.node_id,
                    &question,
                    Bytes::new(),
                    DEFAULT_TIMEOUT,
                )
            })
            .collect();
        let mut all = BTreeMap::new();
        let mut more = false;
        let mut take = |page: Vec<Conflict>| {
            more |= page.len() >= request.limit;
            for conflict in page {
                all.entry(conflict.key.clone()).or_insert(conflict);
            }
        };
        take(
            self.inner
                .feed
                .page(bucket, request.after.as_ref(), request.limit),
        );
        while let Some(answer) = asked.next().await {
            if let Ok((Reply::Conflicts, body)) = answer
                && let Ok(page) = message::decode(&body)
            {
                take(page);
            }
        }
        more |= all.len() > request.limit;
        let conflicts: Vec<Conflict> = all.into_values().take(request.limit).collect();
        let next = conflicts
            .last()
            .filter(|_| more)
            .map(|last| last.key.clone());
        Ok(ConflictPage { conflicts, next })
    }

    /// What this node itself remembers, for a peer that asks.
    pub fn own_conflicts(
        &self,
        bucket: Incarnation,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Vec<Conflict> {
        self.inner.feed.page(bucket, after, limit as usize)
    }
}
