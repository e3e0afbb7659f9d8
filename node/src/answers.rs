//! Answers what peers ask: each question goes to the replica, the coordinator, gossip or the registry.
//!
//! Runs on the connection's own task, so nothing here blocks: reads of the store are answered in place,
//! everything that waits moves its responder into a callback or a task. A question that carries a higher
//! registry number than is in force here is answered after that document was fetched.

mod hints;
mod knock;
mod salvage;

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::id::{Actor, Digest, NodeId};
use sibyl_core::joining;
use sibyl_core::message::{self, Coordinate, Failure, Place, Reply, Request};
use sibyl_core::object::Object;
use sibyl_core::registry::Durability;
use sibyl_core::room::Taking;

use crate::coordinator::{Answered, Coordinator, Seen};
use crate::peer::{Identity, Incoming, Knocked, Remote, Responder, Service};
use crate::replica::Slot;
use crate::tasks::registry::{Registry, rpc_of_message};
use crate::telemetry::{Rpc, Span, Tracer};

/// How long a question waits for the registry document it was asked by.
const CATCH_UP: Duration = Duration::from_millis(1500);

/// This node, as its peers see it.
pub struct Answers {
    /// Seen only: it stands on the network, which stands on this.
    coordinator: OnceLock<Seen>,
    registry: Registry,
    tracer: Tracer,
}

/// One question and the way back.
struct Asked {
    from: NodeId,
    /// The registry number that the question goes by.
    number: u64,
    request: Request,
    body: Bytes,
    span: Span,
    timeout: Duration,
    reply: Responder,
}

impl Answers {
    /// Answers that wait for their coordinator: the network must stand before it can.
    pub fn new(registry: Registry, tracer: Tracer) -> Self {
        Self {
            coordinator: OnceLock::new(),
            registry,
            tracer,
        }
    }

    /// From now on questions are answered.
    pub fn serve(&self, coordinator: &Coordinator) {
        // Set once, at start.
        let _second = self.coordinator.set(coordinator.seen());
    }
}

impl Service for Answers {
    fn handle(&self, from: &Remote, incoming: Incoming, reply: Responder) {
        let number = self.registry.view().number();
        let request = match message::decode::<Request>(&incoming.head) {
            Ok(request) => request,
            Err(error) => return refuse(reply, Failure::Malformed(error.to_string()), number),
        };
        let peer = &from.identity.node_id;
        if request == Request::Registry {
            return match message::decode(&incoming.body) {
                Ok(message) => {
                    // What the registry says to itself in the background begins no traces.
                    let rpc = rpc_of_message(&message).filter(|_| incoming.span.is_some());
                    let span = rpc.map(|rpc| self.tracer.rpc_server(rpc, peer, incoming.span));
                    self.registry.hear(peer.clone(), message, span);
                    answer(reply, &Reply::Joined, Bytes::new(), number);
                }
                Err(error) => refuse(reply, Failure::Malformed(error.to_string()), number),
            };
        }
        let Some(coordinator) = self.coordinator() else {
            return refuse(
                reply,
                Failure::NotServing("the node is starting".into()),
                number,
            );
        };
        if request == Request::Gossip {
            let gossip = coordinator.gossip();
            return gossip.hear(peer.clone(), &incoming.body, incoming.span, reply, number);
        }
        if let Request::Epoch(word) = request {
            let said = coordinator.reaping().hear(peer, from.session, word);
            return answer(reply, &said, Bytes::new(), number);
        }
        let span = self
            .tracer
            .rpc_server(rpc_of(&request), peer, incoming.span);
        let timeout = incoming
            .deadline
            .saturating_duration_since(tokio::time::Instant::now());
        let asked = Asked {
            from: peer.clone(),
            number: incoming.registry,
            request,
            body: incoming.body,
            span,
            timeout,
            reply,
        };
        if incoming.registry > number {
            let registry = self.registry.clone();
            let peer = peer.clone();
            tokio::spawn(async move {
                registry.catch_up(peer, incoming.registry, CATCH_UP).await;
                dispatch(&coordinator, asked);
            });
        } else {
            dispatch(&coordinator, asked);
        }
    }

    fn admit(&self, remote: &Identity) -> Result<(), String> {
        let view = self.registry.view();
        let layout = &view.document().layout;
        if let Some(former) = layout.former.get(&Actor(remote.store)) {
            return Err(joining::farewell(former));
        }
        let Some(member) = layout.members.get(&remote.node_id) else {
            return Err(format!(
                "{} is not a member of this cluster: start it with --join to have it taken in",
                remote.node_id
            ));
        };
        // A node that lost its store comes back with another and must be heard to have it named; but not
        // while the store that the registry names is here.
        let Some(named) = member.store.filter(|store| store.0 != remote.store) else {
            return Ok(());
        };
        if self.is_here(&remote.node_id, named) {
            let id = &remote.node_id;
            return Err(format!(
                "two nodes call themselves {id}; the registry names the store of the other one"
            ));
        }
        Ok(())
    }

    fn knocked(&self, ask: Bytes) -> Knocked {
        knock::answer(self, &ask)
    }

    fn visits(&self, ask: &Bytes) -> bool {
        knock::visits(self, ask)
    }

    fn visited(&self, ask: Bytes, head: Bytes, body: Bytes) -> Knocked {
        salvage::answer(self, &ask, &head, &body)
    }
}

impl Answers {
    /// Nobody before it serves, and when its node is gone.
    fn coordinator(&self) -> Option<Coordinator> {
        self.coordinator.get().and_then(Seen::get)
    }

    /// Whether a member can be reached now, with this store. Its identity is remembered when it is gone, and a node
    /// that comes back without its disk is not two.
    fn is_here(&self, node: &NodeId, store: Actor) -> bool {
        let Some(coordinator) = self.coordinator() else {
            return false;
        };
        let peers = coordinator.net().peers();
        let here = peers
            .iter()
            .find(|peer| peer.node_id == *node && peer.reachable);
        let here = here.and_then(|peer| peer.identity.as_ref());
        node == coordinator.me() || here.is_some_and(|identity| identity.store == store.0)
    }
}

fn rpc_of(request: &Request) -> Rpc {
    match request {
        Request::Replicate { .. } => Rpc::ReplicaPut,
        Request::Repair { .. } => Rpc::ReplicaRepair,
        Request::Object { .. } => Rpc::ReplicaGet,
        Request::Digest { .. } => Rpc::ReplicaDigest,
        Request::Coordinate(_) | Request::CoordinateOnce(_) => Rpc::CoordinatorForward,
        Request::List { .. } => Rpc::ReplicaList,
        Request::Registry => Rpc::RegistryLearn,
        Request::Gossip => Rpc::GossipDigest,
        Request::Module { .. } => Rpc::ResolverFetch,
        Request::Prepare { .. } => Rpc::ResolverStore,
        Request::Readiness { .. } | Request::Conflicts { .. } => Rpc::NodeStatus,
        Request::Hint { .. } => Rpc::ReplicaHint,
        Request::Handoff { .. } => Rpc::ReplicaHandoff,
        Request::Collect => Rpc::ReplicaCollect,
        Request::Close { .. } => Rpc::BucketClose,
        Request::MerkleNodes { level: 0, .. } => Rpc::MerkleRoot,
        Request::MerkleNodes { .. } => Rpc::MerkleLevel,
        Request::MerkleKeys { .. } => Rpc::MerkleKeys,
        Request::MerkleExchange { .. } => Rpc::MerkleExchange,
        Request::Epoch(_) => Rpc::ReapEpoch,
        Request::Seals { .. } => Rpc::ReapSeals,
        Request::Reap { .. } => Rpc::ReapForget,
        Request::Horizon { .. } => Rpc::ReapHorizon,
    }
}

fn dispatch(coordinator: &Coordinator, asked: Asked) {
    let Asked {
        from,
        number: by,
        request,
        body,
        span,
        timeout,
        reply,
    } = asked;
    let number = coordinator.registry().view().number();
    match request {
        Request::Replicate { place, durability } => {
            let by = (Some(by), durability);
            join(coordinator, place, by, &body, span, reply);
        }
        Request::Repair { place } => {
            let by = (None, Durability::Synced);
            join(coordinator, place, by, &body, span, reply);
        }
        Request::Hint {
            place,
            durability,
            target,
            trace,
        } => hints::keep(
            coordinator,
            place,
            (by, durability, target, trace),
            &body,
            span,
            reply,
        ),
        Request::Handoff { place } => hints::take(coordinator, place, &body, span, reply),
        Request::Collect => hints::collect(coordinator, &from, reply),
        Request::Object { place } => match read(coordinator, place, by, &span) {
            Ok((bytes, counts)) => {
                let body = bytes.unwrap_or_default();
                answer(reply, &Reply::Object { counts }, body, number);
            }
            Err(failure) => fail(&span, reply, failure, number),
        },
        Request::Digest { place } => {
            let found = read(coordinator, place, by, &span);
            match found.and_then(|(bytes, counts)| digest(bytes.as_ref(), counts)) {
                Ok(head) => answer(reply, &head, Bytes::new(), number),
                Err(failure) => fail(&span, reply, failure, number),
            }
        }
        waits => {
            let coordinator = coordinator.clone();
            tokio::spawn(async move {
                let (head, body) = wait(&coordinator, waits, (by, body), &span, timeout).await;
                if let Reply::Failed(failure) = &head {
                    span.fail("failed", failure);
                }
                answer(reply, &head, body, coordinator.registry().view().number());
            });
        }
    }
}

/// The questions whose answer takes a while.
async fn wait(
    coordinator: &Coordinator,
    request: Request,
    (by, body): (u64, Bytes),
    span: &Span,
    timeout: Duration,
) -> (Reply, Bytes) {
    let plain = |reply| (reply, Bytes::new());
    match request {
        Request::Coordinate(write) => {
            plain(coordinate(coordinator, (*write, false), &body, span, timeout).await)
        }
        Request::CoordinateOnce(write) => {
            plain(coordinate(coordinator, (*write, true), &body, span, timeout).await)
        }
        Request::List {
            bucket,
            prefix,
            after,
            limit,
        } => {
            let page = coordinator.own_page(bucket, prefix, after, limit as usize);
            match page.await {
                Ok(page) => (Reply::Listed, message::encode(&page)),
                Err(failure) => plain(Reply::Failed(failure)),
            }
        }
        Request::Conflicts {
            bucket,
            after,
            limit,
        } => {
            let feed = coordinator.own_conflicts(bucket, after.as_ref(), limit);
            (Reply::Conflicts, message::encode(&feed))
        }
        Request::Module { digest } => match coordinator.module(digest).await {
            Ok(bytes) => (Reply::Module, bytes),
            Err(failure) => plain(Reply::Failed(failure)),
        },
        Request::Prepare { digest } => plain(Reply::Readiness(
            coordinator
                .take_module(digest, Bytes::copy_from_slice(&body))
                .await,
        )),
        Request::Readiness { digest } => plain(Reply::Readiness(coordinator.prepare(digest).await)),
        Request::Close { bucket, hold_ms } => {
            let hold = Duration::from_millis(hold_ms.into());
            let closed = coordinator.close_here(bucket, hold).await;
            plain(closed.map_or_else(Reply::Failed, |()| Reply::Joined))
        }
        trees @ (Request::MerkleNodes { .. }
        | Request::MerkleKeys { .. }
        | Request::MerkleExchange { .. }) => coordinator.anti_entropy().answer(trees, body).await,
        reaps @ (Request::Seals { .. } | Request::Reap { .. } | Request::Horizon { .. }) => {
            coordinator.reaping().answer(reaps, by, body).await
        }
        Request::Replicate { .. }
        | Request::Repair { .. }
        | Request::Object { .. }
        | Request::Digest { .. }
        | Request::Hint { .. }
        | Request::Handoff { .. }
        | Request::Collect
        | Request::Registry
        | Request::Epoch(_)
        | Request::Gossip => plain(Reply::Failed(Failure::Malformed(
            "answered elsewhere".into(),
        ))),
    }
}

async fn coordinate(
    coordinator: &Coordinator,
    write: (Coordinate, bool),
    body: &Bytes,
    span: &Span,
    timeout: Duration,
) -> Reply {
    // A slice of a large read buffer: what is kept in views must not hold all of it.
    let value = Bytes::copy_from_slice(body);
    let answered = coordinator.coordinate(span, write, value, timeout).await;
    answered.map_or_else(Reply::Failed, Answered::into_reply)
}

/// Places a key, if this node holds a copy of it.
fn own(coordinator: &Coordinator, place: Place) -> Result<Slot, Failure> {
    let view = coordinator.serving().map_err(Failure::NotServing)?;
    let (_, bucket) = view.bucket_of(place.bucket).ok_or(Failure::Bucket)?;
    let partition = view.ring().partition(place.bucket, &place.key);
    let n = bucket.config.n;
    if !view.placed.holds(coordinator.me(), partition, n) {
        return Err(Failure::NotOwner);
    }
    Ok(Slot {
        partition,
        n,
        place,
    })
}

/// What this node has of a key, as an owner or in an owner's place, and whether it counts.
fn read(
    coordinator: &Coordinator,
    place: Place,
    by: u64,
    span: &Span,
) -> Result<(Option<Bytes>, bool), Failure> {
    let view = coordinator.registry().view();
    let (_, bucket) = view.bucket_of(place.bucket).ok_or(Failure::Bucket)?;
    let partition = view.ring().partition(place.bucket, &place.key);
    let slot = Slot {
        partition,
        n: bucket.config.n,
        place,
    };
    let copy = coordinator.own_copy(&view, &slot, span)?;
    // Asked last: what was read before owners changed here was read in time.
    let since = coordinator.registry().view().since();
    if by < since {
        return Err(Failure::Stale(since));
    }
    Ok(copy)
}

fn digest(bytes: Option<&Bytes>, counts: bool) -> Result<Reply, Failure> {
    let (digest, siblings) = match bytes {
        None => (codec::digest(&Object::default()), 0),
        Some(bytes) => {
            let siblings = codec::sibling_count(bytes);
            let siblings = siblings.map_err(|error| Failure::Unreadable(error.to_string()))?;
            (Digest::of(bytes), siblings)
        }
    };
    Ok(Reply::Digest {
        digest,
        siblings,
        counts,
    })
}

fn join(
    coordinator: &Coordinator,
    place: Place,
    (by, durability): (Option<u64>, Durability),
    body: &Bytes,
    span: Span,
    reply: Responder,
) {
    let number = coordinator.registry().view().number();
    let slot = match own(coordinator, place) {
        Ok(slot) => slot,
        Err(failure) => return fail(&span, reply, failure, number),
    };
    let object = match codec::decode(body) {
        Ok(object) => object,
        Err(error) => return fail(&span, reply, Failure::Malformed(error.to_string()), number),
    };
    if let Err(failure) = has_room(coordinator, &object) {
        return fail(&span, reply, failure, number);
    }
    let storage = span.storage_write(body.len(), durability == Durability::Synced);
    let joined = move |result| {
        drop(storage);
        match result {
            Ok(()) => answer(reply, &Reply::Joined, Bytes::new(), number),
            Err(failure) => fail(&span, reply, failure, number),
        }
    };
    let replica = coordinator.replica();
    match by {
        Some(by) => replica.take(slot, by, object, durability, joined),
        None => replica.join(slot, object, durability, joined),
    }
}

/// Below the disk's low-water mark only deletes go on: they are what makes room.
pub(crate) fn has_room(coordinator: &Coordinator, object: &Object) -> Result<(), Failure> {
    let taking = match object.live().next() {
        Some(_) => Taking::Value,
        None => Taking::Delete,
    };
    match coordinator.room().takes(taking) {
        true => Ok(()),
        false => Err(Failure::DiskFull),
    }
}

/// Refuses on a span that says so.
fn fail(span: &Span, reply: Responder, failure: Failure, number: u64) {
    span.fail("failed", &failure);
    refuse(reply, failure, number);
}

fn refuse(reply: Responder, failure: Failure, number: u64) {
    answer(reply, &Reply::Failed(failure), Bytes::new(), number);
}

fn answer(reply: Responder, head: &Reply, body: Bytes, number: u64) {
    reply.answer(message::encode(head), body, number);
}
