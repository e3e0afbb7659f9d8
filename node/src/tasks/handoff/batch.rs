//! One batch of deliveries: hints of a target, read, sent a few at a time, and crossed off one by one.
//!
//! A hint goes on the target's answer that all its dots are on disk, never on the sending alone, and never for
//! dots that the answer does not name. Whatever fails stays and is tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::flow::handoff::{BATCH, End};
use sibyl_core::id::NodeId;
use sibyl_core::message::{self, Failure, Reply, Request};
use sibyl_core::registry::Durability;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Ground, Owned};
use crate::outside;
use crate::peer::{CallError, Outgoing, Reason};
use crate::replica::KeptHint;
use crate::telemetry::metrics::{HintResult, RpcResult};
use crate::telemetry::{ReplayEnd, Rpc, Span};

/// Hints sent at a time: enough to share the target's syncs, few enough to leave its queues to clients.
const WINDOW: usize = 16;
/// Bytes sent at a time: half of a second's worth of a 1 Gbit/s link would be 64 MiB; an eighth of that.
const WINDOW_BYTES: usize = 8 << 20;
/// How long one delivery may take: a slow disk's sync with a full queue before it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Batches of so many writes under way at once count as a node that serves clients.
const BUSY: usize = 8;

/// Delivers the next hints of a target, from behind `after` on.
pub(super) async fn deliver(ground: &Arc<Ground>, target: &NodeId, after: Option<Bytes>) -> End {
    let _flight = ground.net.flights().begin();
    ground.door.yield_to_clients().await;
    let (hints, next) = match page(ground, target, after.clone()).await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "hints cannot be read");
            return End {
                failed: 1,
                next: None,
                ..End::default()
            };
        }
    };
    let mut end = End {
        next,
        busy: ground.door.load().waiting > 0 || ground.replica.queued() >= BUSY,
        ..End::default()
    };
    if hints.is_empty() {
        return end;
    }
    let now_ms = (ground.now_ms)();
    let age = |hint: &KeptHint| {
        let since_ms = hint.head.targets.get(target).copied();
        Duration::from_millis(now_ms.saturating_sub(since_ms.unwrap_or(now_ms)))
    };
    let oldest = hints.iter().map(age).max().unwrap_or_default();
    let traces = hints.iter().flat_map(|hint| hint.head.traces.clone());
    let span = Arc::new(ground.tracer.hint_replay(target, traces));
    let (mut sending, mut bytes) = (JoinSet::new(), 0);
    let mut ended = |(age, sent, delivered): (Duration, usize, bool)| {
        span.hint_ended(delivered, age);
        if delivered {
            end.delivered += 1;
            ground.metrics.hint_delivered(age, &span);
        } else {
            end.failed += 1;
            ground.metrics.hint(HintResult::Failed);
        }
        sent
    };
    for hint in hints {
        while sending.len() >= WINDOW || (bytes > WINDOW_BYTES && !sending.is_empty()) {
            if let Some(Ok(one)) = sending.join_next().await {
                bytes -= ended(one);
            }
        }
        let (ground, target, span) = (Arc::clone(ground), target.clone(), Arc::clone(&span));
        let (age, size) = (age(&hint), hint.object.len());
        bytes += size;
        sending.spawn(async move {
            let delivered = deliver_one(&ground, &target, hint, &span).await;
            (age, size, delivered)
        });
    }
    while let Some(one) = sending.join_next().await {
        if let Ok(one) = one {
            ended(one);
        }
    }
    span.replay_ended(ReplayEnd {
        delivered: end.delivered,
        failed: end.failed,
        oldest,
    });
    end
}

/// The next hints of a target, and where to go on. Ends: every page begins behind the last.
async fn page(
    ground: &Arc<Ground>,
    target: &NodeId,
    mut after: Option<Bytes>,
) -> Result<(Vec<KeptHint>, Option<Bytes>), Failure> {
    let (mut found, mut bytes): (Vec<KeptHint>, usize) = (Vec::new(), 0);
    loop {
        let (hints, next) = scan(ground, after).await?;
        for hint in hints {
            let judged = ground.replica.is_judged(hint.slot.partition);
            if judged && hint.head.targets.contains_key(target) {
                bytes += hint.object.len();
                found.push(hint);
            }
            if found.len() == BATCH || bytes >= WINDOW_BYTES {
                let last = found.last().map(|hint| hint.record.clone());
                return Ok((found, last));
            }
        }
        if next.is_none() {
            return Ok((found, None));
        }
        after = next;
    }
}

async fn scan(
    ground: &Arc<Ground>,
    after: Option<Bytes>,
) -> Result<(Vec<KeptHint>, Option<Bytes>), Failure> {
    let replica = ground.replica.clone();
    let scanned = outside::aside(move || replica.hints_after(after.as_ref()));
    scanned
        .await
        .unwrap_or_else(|_| Err(Failure::NotServing("the node is stopping".into())))
}

/// Delivers one hint and crosses its target off; answers whether that was done, or needs no delivery.
async fn deliver_one(ground: &Ground, target: &NodeId, hint: KeptHint, span: &Span) -> bool {
    let KeptHint {
        mut slot, object, ..
    } = hint;
    let owners = match (ground.owners)(&slot) {
        Owned::By(owners, n) => {
            slot.n = n;
            owners
        }
        Owned::Unknown => return false,
        Owned::Gone => {
            ground.metrics.hint(HintResult::Dropped);
            return ground.replica.drop_hint(slot).await.is_ok();
        }
    };
    if !owners.contains(target) {
        let (replica, target) = (&ground.replica, target.clone());
        return replica.reroute_hint(slot, target, owners).await.is_ok();
    }
    let acked = if *target == ground.me {
        join(ground, slot.clone(), &object).await
    } else {
        send(ground, target, &slot.place, object, span).await
    };
    match acked {
        Some(acked) => {
            let settled = ground.replica.settle_hint(slot, target.clone(), acked);
            settled.await.is_ok()
        }
        None => false,
    }
}

/// Joins a hint for this node into its own copy.
async fn join(ground: &Ground, slot: crate::replica::Slot, object: &Bytes) -> Option<Context> {
    let object = codec::decode(object).ok()?;
    let context = object.context().clone();
    let (done, joined) = oneshot::channel();
    let counts = move |result| drop(done.send(result));
    ground
        .replica
        .join(slot, object, Durability::Synced, counts);
    joined.await.ok()?.ok()?;
    Some(context)
}

/// Sends a hint to its target; the dots that it has on disk now.
async fn send(
    ground: &Ground,
    target: &NodeId,
    place: &sibyl_core::message::Place,
    object: Bytes,
    span: &Span,
) -> Option<Context> {
    let place = place.clone();
    let request = Request::Handoff { place };
    let span = span.rpc_client(Rpc::ReplicaHandoff, target);
    let answer = call(ground, target, Rpc::ReplicaHandoff, &request, object, &span).await;
    match answer {
        Ok(Reply::Delivered { context }) => Some(context),
        Ok(_) => None,
        Err(word) => {
            span.fail(word, "not delivered: it stays");
            None
        }
    }
}

/// Asks a peer, and counts the call.
async fn call(
    ground: &Ground,
    to: &NodeId,
    rpc: Rpc,
    request: &Request,
    body: Bytes,
    span: &Span,
) -> Result<Reply, &'static str> {
    let began = Instant::now();
    let outgoing = Outgoing {
        head: message::encode(request),
        body,
        timeout: TIMEOUT,
        registry: (ground.number)(),
        span: Some(span.context()),
    };
    let answer = ground.net.call(to, outgoing).await;
    let (result, reply) = match answer {
        Ok(answer) => match message::decode(&answer.head) {
            Ok(Reply::Failed(_)) | Err(_) => (RpcResult::Rejected, None),
            Ok(reply) => (RpcResult::Ok, Some(reply)),
        },
        Err(CallError {
            reason: Reason::Timeout,
            ..
        }) => (RpcResult::Timeout, None),
        Err(_) => (RpcResult::Unavailable, None),
    };
    ground
        .metrics
        .rpc(rpc, to.as_str(), result, began.elapsed(), Some(span));
    reply.ok_or(result.as_str())
}

/// Asks a node for what it keeps for this one.
pub(super) async fn collect(ground: &Ground, from: &NodeId) {
    let span = ground.tracer.rpc_root(Rpc::ReplicaCollect, from);
    let request = Request::Collect;
    let answer = call(
        ground,
        from,
        Rpc::ReplicaCollect,
        &request,
        Bytes::new(),
        &span,
    )
    .await;
    match answer {
        Ok(Reply::Collecting { hints }) if hints > 0 => {
            tracing::info!(%from, hints, "collects what was kept for this node");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%from, error, "was not asked for hints"),
    }
}

/// Gives hints whose target owns the key no longer to whoever does, and lets go of those of buckets that are
/// gone. Ends: every page begins behind the last.
pub(super) async fn reroute(ground: Arc<Ground>) {
    let mut after = None;
    loop {
        let (hints, next) = match scan(&ground, after).await {
            Ok(found) => found,
            Err(error) => return tracing::error!(%error, "hints cannot be read"),
        };
        for hint in hints {
            let owners = match (ground.owners)(&hint.slot) {
                Owned::By(owners, _) => owners,
                Owned::Unknown => continue,
                Owned::Gone => {
                    ground.metrics.hint(HintResult::Dropped);
                    // What could not be let go is looked at again with the next document.
                    let _later = ground.replica.drop_hint(hint.slot).await;
                    continue;
                }
            };
            let targets = hint.head.targets.keys();
            for target in targets.filter(|target| !owners.contains(target)) {
                let (slot, target) = (hint.slot.clone(), target.clone());
                // The delivery looks once more.
                let _later = ground
                    .replica
                    .reroute_hint(slot, target, owners.clone())
                    .await;
            }
        }
        if next.is_none() {
            return;
        }
        after = next;
    }
}
