//! Answers about hints: keep this for an owner, take what was kept for you, deliver what you keep for me.
//!
//! A hint is kept by whoever is asked and does not own the key; an owner that is asked by a node of an older
//! view simply joins it. What is delivered is on disk before the answer, whatever the bucket's durability: the
//! sender forgets its copy on that word, and the answer names the dots it is true of.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::id::{NodeId, Trace};
use sibyl_core::message::{Failure, Place, Reply};
use sibyl_core::object::Object;
use sibyl_core::registry::Durability;

use super::{answer, fail, has_room, own};
use crate::coordinator::{Coordinator, now_ms};
use crate::peer::Responder;
use crate::replica::Slot;
use crate::telemetry::Span;
use crate::telemetry::metrics::HintResult;

/// Keeps a shipment for an owner that cannot take it.
pub(super) fn keep(
    coordinator: &Coordinator,
    place: Place,
    (by, durability, target, trace): (u64, Durability, NodeId, Option<Trace>),
    body: &Bytes,
    span: Span,
    reply: Responder,
) {
    let number = coordinator.registry().view().number();
    let (slot, owns, object) = match shipment(coordinator, place, body) {
        Ok(shipment) => shipment,
        Err(failure) => return fail(&span, reply, failure, number),
    };
    let storage = span.storage_write(body.len(), durability == Durability::Synced);
    let metrics = coordinator.metrics();
    let kept = move |result: Result<(), Failure>| {
        drop(storage);
        if !owns {
            metrics.hint(match &result {
                Ok(()) => HintResult::Stored,
                Err(_) => HintResult::Refused,
            });
        }
        match result {
            Ok(()) => answer(reply, &Reply::Joined, Bytes::new(), number),
            Err(failure) => fail(&span, reply, failure, number),
        }
    };
    let replica = coordinator.replica();
    if owns {
        replica.take(slot, by, object, durability, kept);
    } else {
        let when = (trace, now_ms());
        let view = coordinator.registry().view();
        let takers = view.takers(slot.partition, slot.n);
        let gone = (!view.is_member(&target)).then(|| (slot.clone(), target.clone()));
        replica.keep_hint(slot, by, object, target, when, durability, kept);
        if let Some((slot, target)) = gone {
            // Nobody will ever ask for what is kept for an owner that failed for good.
            replica.pass_hint_on(slot, target, takers);
        }
    }
}

fn shipment(
    coordinator: &Coordinator,
    place: Place,
    body: &Bytes,
) -> Result<(Slot, bool, Object), Failure> {
    let view = coordinator.serving().map_err(Failure::NotServing)?;
    let (_, bucket) = view.bucket_of(place.bucket).ok_or(Failure::Bucket)?;
    let partition = view.ring().partition(place.bucket, &place.key);
    let owns = view
        .placed
        .holds(coordinator.me(), partition, bucket.config.n);
    // A slice of a large read buffer would hold all of it while the batch waits.
    let object = codec::decode(&Bytes::copy_from_slice(body));
    let object = object.map_err(|error| Failure::Malformed(error.to_string()))?;
    has_room(coordinator, &object)?;
    let n = bucket.config.n;
    let slot = Slot {
        partition,
        n,
        place,
    };
    Ok((slot, owns, object))
}

/// Joins what was kept for this node.
pub(super) fn take(
    coordinator: &Coordinator,
    place: Place,
    body: &Bytes,
    span: Span,
    reply: Responder,
) {
    let number = coordinator.registry().view().number();
    let slot = match own(coordinator, place) {
        Ok(slot) => slot,
        Err(failure) => return fail(&span, reply, failure, number),
    };
    // Below the low-water mark handoff goes on: it frees as much elsewhere.
    let object = match codec::decode(body) {
        Ok(object) => object,
        Err(error) => return fail(&span, reply, Failure::Malformed(error.to_string()), number),
    };
    let storage = span.storage_write(body.len(), true);
    let context = object.context().clone();
    let replica = coordinator.replica();
    replica.join(slot, object, Durability::Synced, move |result| {
        drop(storage);
        match result {
            Ok(()) => answer(reply, &Reply::Delivered { context }, Bytes::new(), number),
            Err(failure) => fail(&span, reply, failure, number),
        }
    });
}

/// A node is back: what is kept for it is delivered now, whatever failed before.
pub(super) fn collect(coordinator: &Coordinator, by: &NodeId, reply: Responder) {
    let hints = coordinator.replica().hints(|ledger| ledger.count(by));
    coordinator.handoff().asked(by.clone());
    let number = coordinator.registry().view().number();
    answer(reply, &Reply::Collecting { hints }, Bytes::new(), number);
}
