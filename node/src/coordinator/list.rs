//! Lists keys: asks every node for its part, merges by `sibyl-core`, reads the keys owners differ on.
//!
//! A page is complete or an error: what an uncovered partition might hold is never left out in silence. It decides
//! nothing; which keys need a read is said by `flow::list`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use sibyl_core::flow::list::{self, Agreement, Entry, Page};
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::message::{self, Failure, Reply, Request};
use sibyl_core::quorum::Level;
use sibyl_core::view::View;
use tokio::time::Instant;

use super::request::{GetRequest, ListError, ListRequest, Listed};
use super::{Coordinator, DEFAULT_TIMEOUT};
use crate::outside;
use crate::replica::Replica;
use crate::telemetry::metrics::StorageOp;
use crate::telemetry::{Rpc, Span};

/// The most keys that are read at once because their owners differ.
const READS_AT_ONCE: usize = 16;
/// The most entries one node sends for a page: keys of 1 KiB stay far below a frame's body.
const MAX_ENTRIES: usize = 4_000;
/// How many records of a partition are read at a time: a page of a bucket that is spread over all of them
/// reads little more than it shows.
const CHUNK: usize = 16;
/// The most pages that are asked for to fill one: a bucket may hold long runs of tombstones.
const MAX_ROUNDS: usize = 64;

impl Coordinator {
    /// Lists the living keys of a bucket in byte order.
    ///
    /// # Errors
    /// [`ListError`]; a partition with too few answers is one, never a short list.
    pub async fn list(&self, span: &Span, request: ListRequest) -> Result<Listed, ListError> {
        let mut listed = Listed {
            keys: Vec::new(),
            next: request.after.clone(),
        };
        for round in 0..MAX_ROUNDS {
            let left = request.limit - listed.keys.len();
            let after = listed
                .next
                .take()
                .filter(|_| round > 0 || request.after.is_some());
            let page = ListRequest {
                after,
                limit: left,
                ..request.clone()
            };
            let page = self.list_page(span, &page).await?;
            listed.keys.extend(page.keys);
            listed.next = page.next;
            if listed.next.is_none() || listed.keys.len() >= request.limit {
                break;
            }
        }
        Ok(listed)
    }

    async fn list_page(&self, span: &Span, request: &ListRequest) -> Result<Listed, ListError> {
        let view = self.serving().map_err(ListError::NotServing)?;
        let bucket = view
            .bucket(&request.bucket)
            .ok_or_else(|| ListError::NoBucket(request.bucket.clone()))?;
        let incarnation = bucket.incarnation;
        let pages = self.pages(span, incarnation, request).await;
        let partitions = 0..view.ring().partitions();
        let owners: Vec<_> = partitions
            .map(|at| view.owners(bucket, Partition(at)).to_vec())
            .collect();
        let members = owners.first().map_or(0, Vec::len);
        let r = if request.all {
            Level::All
        } else {
            bucket.config.r
        };
        let need = r.need(usize::from(bucket.config.n), members).min(members);
        let partition_of = |key: &[u8]| view.ring().partition(incarnation, key);
        let listing = list::merge(&pages, &owners, need, request.limit, partition_of)
            .map_err(|uncovered| ListError::Uncovered(uncovered.to_string()))?;
        let checked = stream::iter(listing.keys).map(|(key, agreement)| async move {
            let lives = match agreement {
                Agreement::Lives => true,
                Agreement::Differs => self.lives(span, request, &key).await?,
            };
            Ok::<_, ListError>(lives.then_some(key))
        });
        let checked: Vec<_> = checked.buffered(READS_AT_ONCE).collect().await;
        let keys = checked
            .into_iter()
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        Ok(Listed {
            keys,
            next: listing.next,
        })
    }

    async fn lives(
        &self,
        span: &Span,
        request: &ListRequest,
        key: &Bytes,
    ) -> Result<bool, ListError> {
        let read = GetRequest {
            bucket: request.bucket.clone(),
            key: key.clone(),
            r: request.all.then_some(Level::All),
            sloppy: None,
            timeout: None,
            partial: false,
            resolve: false,
        };
        let got = self.get(span, read).await.map_err(ListError::Read)?;
        Ok(!matches!(got.view, View::Gone))
    }

    async fn pages(
        &self,
        span: &Span,
        bucket: Incarnation,
        request: &ListRequest,
    ) -> BTreeMap<sibyl_core::id::NodeId, Page> {
        let limit = request.limit.saturating_add(1).min(MAX_ENTRIES);
        let question = Request::List {
            bucket,
            prefix: request.prefix.clone(),
            after: request.after.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let peers = self.net().peers();
        let asked: FuturesUnordered<_> = peers
            .iter()
            .map(|peer| {
                let rpc = span.rpc_client(Rpc::ReplicaList, &peer.node_id);
                let answer = self.ask(
                    rpc,
                    Rpc::ReplicaList,
                    &peer.node_id,
                    &question,
                    Bytes::new(),
                    DEFAULT_TIMEOUT,
                );
                async move { (peer.node_id.clone(), answer.await) }
            })
            .collect();
        let mine = self.own_page(bucket, request.prefix.clone(), request.after.clone(), limit);
        let (mine, answers) = tokio::join!(mine, asked.collect::<Vec<_>>());
        let mut pages = BTreeMap::new();
        match mine {
            Ok(page) => drop(pages.insert(self.me().clone(), page)),
            Err(failure) => tracing::error!(%failure, "this node cannot list its own keys"),
        }
        for (node, answer) in answers {
            if let Ok((Reply::Listed, body)) = answer
                && let Ok(page) = message::decode(&body)
            {
                pages.insert(node, page);
            }
        }
        pages
    }

    /// This node's part of a listing.
    ///
    /// # Errors
    /// [`Failure`] if a record cannot be read, or while this node is rebuilding: its part is no cover.
    pub async fn own_page(
        &self,
        bucket: Incarnation,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Page, Failure> {
        if self.is_rebuilding() {
            return Err(Failure::Rebuilding);
        }
        let view = self.serving().map_err(Failure::NotServing)?;
        // A node that does not know the bucket yet cannot say what is in it.
        view.bucket_of(bucket).ok_or(Failure::Bucket)?;
        let replica = self.replica().clone();
        let from = match &after {
            Some(after) if after[..] >= prefix[..] => crate::store::following(after),
            _ => prefix.to_vec(),
        };
        let partitions = view.ring().partitions();
        let metrics = Arc::clone(&self.inner.ground.metrics);
        let scanned = outside::aside(move || {
            let began = Instant::now();
            let cursors =
                (0..partitions).map(|at| Cursor::new(Partition(at), bucket, from.clone()));
            let page = in_key_order(&replica, cursors.collect(), &prefix, limit);
            metrics.storage(StorageOp::Scan, began.elapsed());
            page
        });
        scanned
            .await
            .unwrap_or_else(|error| Err(Failure::Unreadable(error.to_string())))
    }
}

/// Where the scan of one partition stands.
struct Cursor {
    partition: Partition,
    bucket: Incarnation,
    /// Where the next chunk begins; `None` at the end.
    from: Option<Vec<u8>>,
    chunk: VecDeque<Entry>,
}

impl Cursor {
    fn new(partition: Partition, bucket: Incarnation, from: Vec<u8>) -> Self {
        Self {
            partition,
            bucket,
            from: Some(from),
            chunk: VecDeque::new(),
        }
    }

    /// Reads the next chunk if the last one is used up; the key at its front.
    fn front(&mut self, replica: &Replica, prefix: &[u8]) -> Result<Option<Bytes>, Failure> {
        if self.chunk.is_empty()
            && let Some(from) = self.from.take()
        {
            let found = replica.scan(self.partition, self.bucket, &from, CHUNK)?;
            self.from = found.last().map(|(key, _)| crate::store::following(key));
            for (key, object) in found {
                if !key.starts_with(prefix) {
                    self.from = None;
                    break;
                }
                let live = object.live().any(|sibling| !object.is_outlived(sibling));
                self.chunk.push_back(Entry {
                    key: Bytes::copy_from_slice(&key),
                    live,
                });
            }
        }
        Ok(self.chunk.front().map(|entry| entry.key.clone()))
    }
}

/// Merges the partitions' scans into one page in key order. Ends because every turn takes one key.
fn in_key_order(
    replica: &Replica,
    mut cursors: Vec<Cursor>,
    prefix: &[u8],
    limit: usize,
) -> Result<Page, Failure> {
    let mut fronts = BinaryHeap::new();
    for (at, cursor) in cursors.iter_mut().enumerate() {
        fronts.extend(cursor.front(replica, prefix)?.map(|key| Reverse((key, at))));
    }
    let mut page = Page::default();
    while let Some(Reverse((_, at))) = fronts.pop() {
        if page.entries.len() == limit {
            page.more = true;
            break;
        }
        let cursor = &mut cursors[at];
        page.entries.extend(cursor.chunk.pop_front());
        fronts.extend(cursor.front(replica, prefix)?.map(|key| Reverse((key, at))));
    }
    Ok(page)
}
