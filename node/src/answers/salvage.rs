//! What a removed node brings: who owns it, and what becomes of it here.
//!
//! It knocks, and as long as the document in force says that its store was removed, each of its questions is answered
//! on that connection. An object is joined into this node's own copy or not taken at all; what was new goes to the
//! other owners as hints, from that copy. Whatever cannot be said for sure now is "later", which costs the node that
//! asks nothing but time. While a batch is in hand no reaping epoch ends.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::id::{Actor, NodeId, Partition};
use sibyl_core::joining::{self, Judged, Knock};
use sibyl_core::message::{self, Failure, Place};
use sibyl_core::object::Object;
use sibyl_core::registry::{Document, Durability, Former};
use sibyl_core::salvage::{self, Answer, Ask, Batch, Verdict};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Answers;
use crate::coordinator::{Coordinator, now_ms};
use crate::peer::Knocked;
use crate::replica::Slot;
use crate::replica::salvage::Claim;
use crate::tasks::registry::{JOINED, REBUILDING, View};
use crate::telemetry::metrics::SalvageResult;

/// Objects of a batch that are looked at together: enough to share a sync, few enough to leave the writer to clients.
const TOGETHER: usize = 32;

/// Answers one question of a visit. `ask` is the knock that began it.
pub(super) fn answer(answers: &Answers, ask: &Bytes, head: &Bytes, body: &Bytes) -> Knocked {
    let asked = match question(answers, ask, head, body) {
        Ok(asked) => asked,
        Err(why) => return Box::pin(async move { said(&Answer::Later(why)) }),
    };
    Box::pin(async move {
        let (coordinator, former, ask) = asked;
        let answer = match ask {
            Ask::Owners(partition) => owners(&coordinator, partition),
            Ask::Take(batch) => take(&coordinator, &former, batch).await,
        };
        said(&answer.unwrap_or_else(Answer::Later))
    })
}

fn said(answer: &Answer) -> (Bytes, Bytes) {
    (message::encode(answer), Bytes::new())
}

fn question(
    answers: &Answers,
    ask: &Bytes,
    head: &Bytes,
    body: &Bytes,
) -> Result<(Coordinator, Former, Ask), String> {
    let knock: Knock = message::decode(ask).map_err(|error| error.to_string())?;
    let coordinator = answers.coordinator().ok_or("the node is starting")?;
    let view = coordinator.serving()?;
    let former = match joining::judge(view.document(), &knock, false) {
        Ok(Judged::Gives(former)) => former,
        Ok(_) => return Err("that store was not removed".into()),
        Err(refusal) => return Err(refusal.to_string()),
    };
    // A slice of a large read buffer would hold all of it while the batch waits.
    let body = Bytes::copy_from_slice(body);
    let ask = Ask::decode(head, &body).map_err(|error| error.to_string())?;
    Ok((coordinator, former, ask))
}

/// Where whoever owns a partition, before and after a change that is under way, is reached.
fn owners(coordinator: &Coordinator, partition: Partition) -> Result<Answer, String> {
    let view = coordinator.serving()?;
    if partition.0 >= view.ring().partitions() {
        return Err("there is no such partition".into());
    }
    let ns = view.document().ns();
    // Without a bucket there is nothing to own, and anybody can say so.
    let most = ns.last().copied().unwrap_or(1);
    let members = &view.document().layout.members;
    let stay = members
        .iter()
        .filter(|(node, _)| stays(&view, node, partition, most));
    let addresses = stay.map(|(_, member)| member.peer_addr.clone());
    Ok(Answer::Owners(addresses.collect()))
}

/// Whether a node owns a partition whatever becomes of the change of owners under way.
fn stays(view: &View, node: &NodeId, partition: Partition, n: u8) -> bool {
    let also = view.placed.also(partition, n);
    view.placed.counting(partition, n).contains(node) && (also.is_empty() || also.contains(node))
}

async fn take(coordinator: &Coordinator, former: &Former, batch: Batch) -> Result<Answer, String> {
    // Whatever is in hand here was there before any epoch that begins from now on.
    let _flight = coordinator.net().flights().begin();
    let tracer = coordinator.registry().tracer();
    let span = tracer.salvage_take(&former.node, batch.objects.len());
    let view = coordinator.registry().view();
    let owner = coordinator.replica().actor();
    let claim = claim(
        view.document(),
        (former, owner),
        &batch,
        is_late(coordinator)?,
    );
    let mut verdicts = vec![Verdict::NotMine; batch.objects.len()];
    let (mut under_way, mut failed) = (JoinSet::new(), None);
    let mut objects = batch.objects.into_iter().enumerate();
    loop {
        while under_way.len() < TOGETHER
            && failed.is_none()
            && let Some((at, (place, object))) = objects.next()
        {
            let coordinator = coordinator.clone();
            under_way.spawn(async move { (at, one(&coordinator, place, &object, claim).await) });
        }
        match under_way.join_next().await {
            None => break,
            Some(Ok((at, Ok(verdict)))) => verdicts[at] = verdict,
            Some(Ok((_, Err(why)))) => failed = Some(why),
            Some(Err(error)) => failed = Some(error.to_string()),
        }
    }
    let metrics = coordinator.metrics();
    if let Some(why) = failed {
        metrics.salvaged(SalvageResult::Refused);
        span.fail("later", &why);
        return Err(why);
    }
    verdicts
        .iter()
        .for_each(|verdict| metrics.salvaged(result(*verdict)));
    let imported = verdicts.iter().filter(|it| **it == Verdict::Imported);
    span.salvaged(imported.count());
    Ok(Answer::Took(verdicts))
}

/// By what the objects of a batch are judged at this owner. What their store says of epochs of a lineage that was given
/// up says nothing here.
fn claim(
    document: &Document,
    (former, owner): (&Former, Actor),
    batch: &Batch,
    late: bool,
) -> Claim {
    Claim {
        epoch: salvage::claimed(document, former, batch.epoch),
        all: batch.all,
        late,
        recovered: salvage::recovered_memory(document, former, owner, batch.epoch),
    }
}

fn result(verdict: Verdict) -> SalvageResult {
    match verdict {
        Verdict::Imported => SalvageResult::Imported,
        Verdict::Known => SalvageResult::Known,
        Verdict::Older => SalvageResult::Older,
        Verdict::Gone => SalvageResult::Gone,
        Verdict::NotMine => SalvageResult::Refused,
    }
}

/// Whether this store began when the cluster was there already, so that "never reaped" may mean "not seen".
fn is_late(coordinator: &Coordinator) -> Result<bool, String> {
    let kept = |key| coordinator.replica().kept(key);
    let any = |key| kept(key).map(|kept| kept.is_some());
    let late = any(JOINED).and_then(|joined| Ok(joined || any(REBUILDING)?));
    late.map_err(|failure| failure.to_string())
}

/// Takes one object, and has the other owners told of what was new in it.
async fn one(
    coordinator: &Coordinator,
    place: Place,
    object: &Bytes,
    claim: Claim,
) -> Result<Verdict, String> {
    let view = coordinator.serving()?;
    let Some((_, bucket)) = view.bucket_of(place.bucket) else {
        if view.document().is_unheard(place.bucket.0) {
            return Ok(Verdict::Older);
        }
        let is_gone = place.bucket.0 <= view.number();
        return is_gone
            .then_some(Verdict::Gone)
            .ok_or_else(|| "a bucket is newer than what is known here".into());
    };
    let n = bucket.config.n;
    let partition = view.ring().partition(place.bucket, &place.key);
    let slot = Slot {
        partition,
        n,
        place,
    };
    let me = coordinator.me();
    if !stays(&view, me, partition, n) {
        return Ok(Verdict::NotMine);
    }
    if !coordinator.registry().vouches(partition) {
        return Err(format!("{me} lost its own data and is being filled"));
    }
    let object = codec::decode(object).map_err(|error| error.to_string())?;
    super::has_room(coordinator, &object).map_err(|failure| failure.to_string())?;
    let replica = coordinator.replica();
    let admitted = replica.admit(slot.clone(), view.number(), object, claim);
    let admitted = admitted.await.map_err(|failure| failure.to_string())?;
    if let Some(object) = admitted.object {
        tell(coordinator, &view, &slot, &object).await;
    }
    Ok(admitted.verdict)
}

/// Keeps what was new here for the other owners. Where that fails they find it when copies are compared.
async fn tell(coordinator: &Coordinator, view: &View, slot: &Slot, object: &Object) {
    let takers = view.takers(slot.partition, slot.n);
    for target in takers.into_iter().filter(|node| node != coordinator.me()) {
        let (done, kept) = oneshot::channel();
        // The waiter is there until it is told.
        let counts = move |result: Result<(), Failure>| drop(done.send(result));
        let number = view.number();
        let when = (None, now_ms());
        let (slot, object) = (slot.clone(), object.clone());
        let replica = coordinator.replica();
        replica.keep_hint(
            slot,
            number,
            object,
            target,
            when,
            Durability::Synced,
            counts,
        );
        if let Ok(Err(failure)) = kept.await {
            tracing::warn!(%failure, "what a removed node brought is not kept for another owner: anti-entropy brings it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sibyl_core::registry::{Farewell, First, Secret, Secrets, first_document, second_document};

    use super::*;

    #[test]
    fn a_store_of_a_lineage_that_was_given_up_claims_no_later_epoch() {
        let node = |number: u64| format!("n{number}").parse::<NodeId>().expect("a good name");
        let first = |number: u64| First {
            peer_addr: format!("127.0.0.1:{number}"),
            zone: None,
        };
        let firsts: BTreeMap<_, _> = (1..=3).map(|at| (node(at), first(at))).collect();
        let formed = first_document("test", &firsts, 16, 4).expect("a good document");
        let stores = (1..=3).map(|at| (node(at), Actor(at))).collect();
        let secret = Secret([1; 32]);
        let secrets = Secrets {
            context_key: secret,
            cluster_key: secret,
        };
        let formed = second_document(&formed, &stores, &secrets).expect("a good document");
        let document = formed.recovered(&node(1), Actor(1), 20).expect("allowed");
        let removed = Former {
            node: node(2),
            incarnation: 1,
            why: Farewell::Removed,
            number: 2,
        };
        let lost = &document.layout.former[&Actor(2)];
        let batch = Batch {
            epoch: 500,
            all: false,
            objects: Vec::new(),
        };
        let claims = |document, former| claim(document, (former, Actor(1)), &batch, false);
        let check = |claim: Claim, epoch: u64, recovered: Option<u64>| {
            assert_eq!((claim.epoch, claim.recovered), (epoch, recovered));
        };
        check(claims(&document, &removed), 20, None);
        check(claims(&document, lost), 20, Some(21));
        check(claims(&formed, &removed), 500, None);
    }
}
