//! Says why a key says what it says: every node's copy, every sibling, what the resolver makes of them.
//!
//! Copies are compared by digest, asked of each node alone and without repairing: they are shown as they were
//! found. A node that did not answer is shown as such, never left out.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use sibyl_core::codec;
use sibyl_core::id::{Digest, NodeId};
use sibyl_core::message::{Reply, Request};
use sibyl_core::object::Object;

use super::request::{Explained, GetError, GetRequest, Owner};
use super::{Coordinator, DEFAULT_TIMEOUT, slot};
use crate::replica::Slot;
use crate::telemetry::{Rpc, Span};

/// The most nodes of the preference list that are asked: the owners and as many that might stand in.
const MOST_NODES: usize = 30;

impl Coordinator {
    /// Explains a key.
    ///
    /// # Errors
    /// [`GetError`]: the read it needs may fail.
    pub async fn explain(&self, span: &Span, request: GetRequest) -> Result<Explained, GetError> {
        let view = self.serving().map_err(GetError::NotServing)?;
        let bucket = view
            .bucket(&request.bucket)
            .ok_or_else(|| GetError::NoBucket(request.bucket.clone()))?;
        let slot = slot(&view, bucket, &request.key);
        let owners = view.owners(bucket, slot.partition);
        let nodes = view
            .ring()
            .preference(slot.partition)
            .iter()
            .take(MOST_NODES);
        let mut copies: FuturesOrdered<_> = nodes
            .map(|node| self.copy(span, node.clone(), owners, &slot))
            .collect();
        let gossip = self.gossip().view();
        let mut preference = Vec::with_capacity(copies.len());
        while let Some((node, copy)) = copies.next().await {
            let primary = owners.contains(&node);
            let digest = copy.map(|(digest, _)| digest);
            let digest = digest.filter(|digest| *digest != codec::digest(&Object::default()));
            preference.push(Owner {
                primary,
                hint: !primary && digest.is_some(),
                state: gossip
                    .member(&node)
                    .map_or("suspect", |member| member.state.as_str()),
                digest,
                siblings: copy.map(|(_, siblings)| siblings),
                node,
            });
        }
        let got = self.get(span, request).await?;
        let partition = slot.partition.0;
        Ok(Explained {
            partition,
            preference,
            siblings: got.siblings,
            resolver: got.resolver,
        })
    }

    async fn copy(
        &self,
        span: &Span,
        node: NodeId,
        owners: &[NodeId],
        slot: &Slot,
    ) -> (NodeId, Option<(Digest, u32)>) {
        if node == *self.me() {
            let copy = self.own_digest(slot, owners.contains(&node));
            return (node, copy);
        }
        let place = slot.place.clone();
        let rpc = span.rpc_client(Rpc::ReplicaDigest, &node);
        let question = Request::Digest { place };
        let answer = self
            .ask(
                rpc,
                Rpc::ReplicaDigest,
                &node,
                &question,
                Bytes::new(),
                DEFAULT_TIMEOUT,
            )
            .await;
        let copy = match answer {
            Ok((
                Reply::Digest {
                    digest, siblings, ..
                },
                _,
            )) => Some((digest, siblings)),
            Ok(_) | Err(_) => None,
        };
        (node, copy)
    }

    /// The digest of this node's copy, or of its hint, and how many siblings it has; `None` if it cannot be read.
    fn own_digest(&self, slot: &Slot, owns: bool) -> Option<(Digest, u32)> {
        let encoded = match owns {
            true => self.replica().encoded(slot),
            false => self.replica().hinted(slot),
        };
        match encoded.ok()? {
            Some(bytes) => Some((Digest::of(&bytes), codec::sibling_count(&bytes).ok()?)),
            None => Some((codec::digest(&Object::default()), 0)),
        }
    }
}
