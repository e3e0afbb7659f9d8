//! Performs one exchange: asks the peer and the own store, ships, joins.
//!
//! The flow is a value of the core; this is its shell. Questions about the own tree are read on a thread that
//! may block while the peer answers the same. Spans: one root per (partition, peer), one below it per message,
//! never one per key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::flow::exchange::{Delivery, Effect, Event, Exchange, Page, Parcel, Side, Summary};
use sibyl_core::id::{Dot, NodeId};
use sibyl_core::merkle::{NODE_BYTES, Node, Tree};
use sibyl_core::message::{self, Failure, Place, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::registry::Durability;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{AntiEntropy, copies};
use crate::outside;
use crate::peer::{CallError, Outgoing, Reason};
use crate::replica::Slot;
use crate::telemetry::metrics::{Repaired, RpcResult, Success};
use crate::telemetry::{Rpc, Span};

/// How long a peer may take for one message: a page reads thousands of records, a parcel is synced.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an exchange goes no further.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{0}")]
    Failed(Failure),
    #[error("the peer's answer makes no sense")]
    Nonsense,
    #[error("this node cannot read its own tree: {0}")]
    Own(Failure),
}

impl AntiEntropy {
    /// One exchange with a peer, to its end.
    pub(super) async fn exchange(&self, peer: &NodeId, tree: Tree) -> Summary {
        let ground = self.ground();
        let Some(tagger) = ground.replica.tagger() else {
            return Summary::default();
        };
        let span = ground.registry.tracer().merkle_sync(tree.partition.0, peer);
        let began = Instant::now();
        let (mut flow, mut effects) = Exchange::new(tagger.clone());
        let mut summary = Summary::default();
        // Ends as the flow does: each turn performs what it asked for, and it counts its messages.
        while !effects.is_empty() {
            let mut events = Vec::new();
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::End(end) => summary = end,
                    Effect::Alarm(place, dot) => alarm(peer, tree, &place, dot),
                    effect => {
                        self.yield_to_clients().await;
                        events.extend(self.perform(&span, peer, tree, effect).await);
                    }
                }
            }
            events
                .into_iter()
                .for_each(|event| effects.extend(flow.handle(event)));
        }
        span.merkle_synced(&summary);
        let result = if summary.whole {
            Success::Ok
        } else {
            Success::Failed
        };
        ground
            .metrics
            .merkle_synced(peer.as_str(), result, began.elapsed(), &span);
        ground
            .metrics
            .merkle_repaired(peer.as_str(), Repaired::Sent, summary.sent);
        ground
            .metrics
            .merkle_repaired(peer.as_str(), Repaired::Received, summary.received);
        if summary.keys_differ > 0 {
            let (partition, n) = (tree.partition.0, tree.n);
            let Summary {
                keys_differ,
                sent,
                received,
                whole,
                ..
            } = summary;
            tracing::info!(%peer, partition, n, keys_differ, sent, received, whole, "copies differed");
        }
        summary
    }

    async fn perform(&self, span: &Span, peer: &NodeId, tree: Tree, effect: Effect) -> Vec<Event> {
        let events = match effect {
            Effect::Nodes { level, parents } => self.nodes(span, peer, tree, level, parents).await,
            Effect::Keys { leaves, from } => self.keys(span, peer, tree, leaves, from).await,
            Effect::Read(places) => self.read(tree, places).await,
            Effect::Ship(parcel) => self.ship(span, peer, tree, parcel).await,
            Effect::Join(objects) => {
                let failed = self.join(tree, objects).await.len();
                Ok(vec![Event::Joined { failed }])
            }
            Effect::Alarm(..) | Effect::End(_) => Ok(Vec::new()),
        };
        events.unwrap_or_else(|stopped| {
            span.fail("stopped", &stopped);
            tracing::debug!(%peer, partition = tree.partition.0, %stopped, "an exchange stopped");
            vec![Event::Failed]
        })
    }

    async fn nodes(
        &self,
        span: &Span,
        peer: &NodeId,
        tree: Tree,
        level: u8,
        parents: Vec<u16>,
    ) -> Result<Vec<Event>, Stopped> {
        let rpc = if level == 0 {
            Rpc::MerkleRoot
        } else {
            Rpc::MerkleLevel
        };
        let request = Request::MerkleNodes {
            tree,
            level,
            parents: parents.clone(),
        };
        let own = self.own(move |this| this.own_nodes(tree, level, &parents));
        let theirs = self.ask(span, rpc, peer, &request, Bytes::new());
        let (own, theirs) = tokio::join!(own, theirs);
        let own = Event::Nodes {
            side: Side::Own,
            nodes: own.map_err(Stopped::Own)?,
            counts: true,
        };
        let (Reply::MerkleNodes { counts }, body) = theirs? else {
            return Err(Stopped::Nonsense);
        };
        let theirs = Event::Nodes {
            side: Side::Theirs,
            nodes: unpack(&body).ok_or(Stopped::Nonsense)?,
            counts,
        };
        Ok(vec![own, theirs])
    }

    async fn keys(
        &self,
        span: &Span,
        peer: &NodeId,
        tree: Tree,
        leaves: Vec<u16>,
        from: Option<Place>,
    ) -> Result<Vec<Event>, Stopped> {
        let request = Request::MerkleKeys {
            tree,
            leaves: leaves.clone(),
            from: from.clone(),
        };
        let own = self.own(move |this| this.own_page(tree, &leaves, from.as_ref()));
        let theirs = self.ask(span, Rpc::MerkleKeys, peer, &request, Bytes::new());
        let (own, theirs) = tokio::join!(own, theirs);
        let own = Event::Keys {
            side: Side::Own,
            page: own.map_err(Stopped::Own)?,
        };
        let (Reply::MerkleKeys, body) = theirs? else {
            return Err(Stopped::Nonsense);
        };
        let page: Page = message::decode(&body).map_err(|_| Stopped::Nonsense)?;
        let side = Side::Theirs;
        Ok(vec![own, Event::Keys { side, page }])
    }

    async fn read(&self, tree: Tree, places: Vec<Place>) -> Result<Vec<Event>, Stopped> {
        let read = self.own(move |this| Ok(this.ground().replica.pack(tree, places)));
        Ok(vec![Event::Own(read.await.map_err(Stopped::Own)?)])
    }

    async fn ship(
        &self,
        span: &Span,
        peer: &NodeId,
        tree: Tree,
        parcel: Parcel,
    ) -> Result<Vec<Event>, Stopped> {
        let request = Request::MerkleExchange { tree };
        let body = message::encode(&parcel);
        match self
            .ask(span, Rpc::MerkleExchange, peer, &request, body)
            .await?
        {
            (Reply::MerkleExchanged, body) => {
                let delivery: Delivery = message::decode(&body).map_err(|_| Stopped::Nonsense)?;
                Ok(vec![Event::Shipped(delivery)])
            }
            _ => Err(Stopped::Nonsense),
        }
    }

    /// Joins objects here and waits until they are synced; answers which could not be, and says why.
    pub(super) async fn join(&self, tree: Tree, objects: Vec<(Place, Object)>) -> Vec<Place> {
        let mut waiting = Vec::with_capacity(objects.len());
        for (place, object) in objects {
            let slot = Slot {
                partition: tree.partition,
                n: tree.n,
                place: place.clone(),
            };
            let (done, joined) = oneshot::channel();
            // The waiter is there until it is told.
            let counts = move |result| drop(done.send(result));
            self.ground()
                .replica
                .join(slot, object, Durability::Synced, counts);
            waiting.push((place, joined));
        }
        let mut failed = Vec::new();
        for (place, joined) in waiting {
            let why = match joined.await {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => "the writer ended".to_owned(),
            };
            // Keys are personal data: only where it lies is said.
            let (partition, bucket) = (tree.partition.0, place.bucket.0);
            tracing::warn!(
                partition,
                bucket,
                why,
                "an object of an exchange was not joined"
            );
            failed.push(place);
        }
        failed
    }

    /// Reads the own store on a thread that may block.
    async fn own<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let this = self.clone();
        let read = outside::aside(move || read(&this)).await;
        read.unwrap_or_else(|_| Err(Failure::Unreadable("the reader panicked".into())))
    }

    pub(super) fn own_nodes(
        &self,
        tree: Tree,
        level: u8,
        parents: &[u16],
    ) -> Result<Vec<Node>, Failure> {
        let leaves = self.ground().replica.leaves(tree)?;
        Ok(match level {
            0 => vec![leaves.root()],
            _ => leaves.children(level, parents),
        })
    }

    pub(super) fn own_page(
        &self,
        tree: Tree,
        leaves: &[u16],
        from: Option<&Place>,
    ) -> Result<Page, Failure> {
        let copies = copies(&self.ground().registry.view());
        self.ground().replica.page(tree, leaves, from, &copies)
    }

    async fn ask(
        &self,
        span: &Span,
        rpc: Rpc,
        to: &NodeId,
        request: &Request,
        body: Bytes,
    ) -> Result<(Reply, Bytes), Stopped> {
        let (ground, began) = (self.ground(), Instant::now());
        let span = span.rpc_client(rpc, to);
        let outgoing = Outgoing {
            head: message::encode(request),
            body,
            timeout: PATIENCE,
            registry: ground.registry.view().number(),
            span: Some(span.context()),
        };
        let answer = ground.net.call(to, outgoing).await.map_err(Stopped::Call);
        let answer = answer.and_then(|answer| match message::decode(&answer.head) {
            Ok(Reply::Failed(failure)) => Err(Stopped::Failed(failure)),
            Ok(reply) => Ok((reply, answer.body)),
            Err(_) => Err(Stopped::Nonsense),
        });
        let result = match &answer {
            Ok(_) => RpcResult::Ok,
            Err(Stopped::Call(error)) if matches!(error.reason, Reason::Timeout) => {
                RpcResult::Timeout
            }
            Err(Stopped::Call(_)) => RpcResult::Unavailable,
            Err(_) => RpcResult::Rejected,
        };
        if let Err(stopped) = &answer {
            span.fail(result.as_str(), stopped);
        }
        ground
            .metrics
            .rpc(rpc, to.as_str(), result, began.elapsed(), Some(&span));
        answer
    }

    /// Fetches an object from a peer; `None` if it cannot say, else whether its answer counts. Who lost its copy,
    /// too, has nothing to say, and waits for this node's answer.
    pub(super) async fn fetch(
        self: Arc<Self>,
        span: &Span,
        peer: &NodeId,
        place: Place,
    ) -> Option<(Object, bool)> {
        let request = Request::Object { place };
        let answer = self
            .ask(span, Rpc::ReplicaGet, peer, &request, Bytes::new())
            .await;
        fetched(answer)
    }
}

fn fetched(answer: Result<(Reply, Bytes), Stopped>) -> Option<(Object, bool)> {
    let (counts, body) = match answer {
        Ok((Reply::Object { counts }, body)) => (counts, body),
        Err(Stopped::Failed(Failure::Fenced(_))) => (false, Bytes::new()),
        _ => return None,
    };
    if body.is_empty() {
        return Some((Object::default(), counts));
    }
    let object = sibyl_core::codec::decode(&body).ok()?;
    Some((object, counts))
}

fn unpack(body: &[u8]) -> Option<Vec<Node>> {
    let (nodes, rest) = body.as_chunks::<NODE_BYTES>();
    rest.is_empty().then(|| nodes.to_vec())
}

/// Two payloads under one dot: nobody's history makes that. Keys are personal data: only where it lies is said.
fn alarm(peer: &NodeId, tree: Tree, place: &Place, dot: Dot) {
    let (partition, bucket) = (tree.partition.0, place.bucket.0);
    tracing::error!(
        %peer, partition, bucket, %dot,
        "two payloads carry one dot: both are kept as they are; compare this node's copy with the peer's"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_its_copy_too_was_asked_and_does_not_count() {
        let said = |failure| fetched(Err(Stopped::Failed(failure)));
        let fenced = said(Failure::Fenced("its checksum does not match".into()));
        assert_eq!(fenced, Some((Object::default(), false)));
        let trouble = said(Failure::Unreadable("the disk is away".into()));
        assert_eq!(trouble, None, "it may have what nobody else has");
        assert_eq!(said(Failure::Rebuilding), None);
        let absent = fetched(Ok((Reply::Object { counts: true }, Bytes::new())));
        assert_eq!(absent, Some((Object::default(), true)));
    }
}
