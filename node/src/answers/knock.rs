//! What a node that is no member is answered: wait, never, bring what you hold, or the document that names it.
//!
//! Whoever is asked proposes to take it in. The document holds the cluster's secrets, so nobody is handed it who is
//! not named in it: whoever gets in is seen by everybody.

use std::sync::Arc;

use bytes::Bytes;
use sibyl_core::joining::{self, Judged, Knock, MAX_TOLD_ADDRESSES, Refusal, Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Change, ChangeError, Former};

use super::Answers;
use crate::peer::Knocked;
use crate::tasks::registry::{ChangeFailed, Registry, View};
use crate::telemetry::metrics::KnockResult;
use crate::telemetry::{Rpc, Span};

/// Answers a knock, counts it, and leaves a span that says what it was told.
pub(super) fn answer(answers: &Answers, ask: &Bytes) -> Knocked {
    let knock: Knock = match message::decode(ask) {
        Ok(knock) => knock,
        Err(error) => return said(Told::Refused(error.to_string())),
    };
    let node = &knock.joiner.node;
    let span = Arc::new(answers.tracer.rpc_server(Rpc::NodeKnock, node, None));
    let metrics = answers.coordinator().map(|it| it.metrics());
    let judging = judge(answers, knock, &span);
    Box::pin(async move {
        let (head, body) = judging.await;
        let result = match message::decode(&head) {
            Ok(Told::Named) => KnockResult::Named,
            Ok(Told::Wait { .. }) => KnockResult::Waiting,
            Ok(Told::Bring { .. }) => KnockResult::Brings,
            Ok(Told::Refused(_)) | Err(_) => KnockResult::Refused,
        };
        span.knock_told(result.as_str());
        if let Some(metrics) = metrics {
            metrics.knock(result);
        }
        (head, body)
    })
}

fn judge(answers: &Answers, knock: Knock, span: &Arc<Span>) -> Knocked {
    let view = answers.registry.view();
    if view.forming() {
        return said(wait(&view, "the cluster is still forming"));
    }
    if !answers.serves() {
        return said(wait(&view, "that node does not serve now"));
    }
    let member = view.document().layout.members.get(&knock.joiner.node);
    let named = member.and_then(|member| member.store);
    let is_here = named.is_some_and(|store| answers.is_here(&knock.joiner.node, store));
    let gives = matches!(knock.wish, Wish::Salvage | Wish::Return(_));
    match joining::judge(view.document(), &knock, is_here) {
        Err(refusal @ Refusal::Apart { .. }) => {
            // If the other follows from this one, this node finds out there.
            answers.registry.knocks().note_apart(&knock);
            said(wait(&view, &refusal.to_string()))
        }
        Err(refusal) => said(refused(&refusal)),
        Ok(Judged::Gives(former)) => said(bring(&view, former)),
        Ok(Judged::Named | Judged::Stranger) if gives => {
            said(wait(&view, "that store was not removed"))
        }
        Ok(Judged::Returns) if gives => said(wait(&view, "another store of that node is a member")),
        Ok(Judged::Named | Judged::Returns) => hand_over(&answers.registry, &view, &knock),
        Ok(Judged::Stranger) => match answers.registry.knocks().note(&knock) {
            Err(refusal) if refusal.passes() => said(wait(&view, &refusal.to_string())),
            Err(refusal) => said(refused(&refusal)),
            Ok(()) if knock.wish == Wish::Wait => {
                let node = &knock.joiner.node;
                let why = format!(
                    "it waits until an operator names it: sibyl cluster join {node}, or replace MEMBER --with {node}"
                );
                said(wait(&view, &why))
            }
            Ok(()) => {
                let (registry, span) = (answers.registry.clone(), Arc::clone(span));
                Box::pin(async move { take_in(&registry, knock, &span).await })
            }
        },
    }
}

/// Whether this is the knock of a removed node that wants to give what it holds.
pub(super) fn visits(answers: &Answers, ask: &Bytes) -> bool {
    let Ok(knock) = message::decode::<Knock>(ask) else {
        return false;
    };
    let view = answers.registry.view();
    let judged = joining::judge(view.document(), &knock, false);
    matches!(judged, Ok(Judged::Gives(_)))
}

fn bring(view: &View, former: Former) -> Told {
    let document = view.document();
    Told::Bring {
        cluster_id: document.cluster_id.clone(),
        lineage: document.lineage(),
        former,
    }
}

impl Answers {
    fn serves(&self) -> bool {
        let coordinator = self.coordinator();
        coordinator.is_some_and(|coordinator| coordinator.serving().is_ok())
    }
}

/// Proposes to take it in.
async fn take_in(registry: &Registry, knock: Knock, span: &Span) -> (Bytes, Bytes) {
    let change = Change::Join(knock.joiner.clone());
    match registry.change(Some(span), change).await {
        Ok(view) => {
            tracing::info!(node = %knock.joiner.node, number = view.number(), "a node is taken in");
            hand_over(registry, &view, &knock).await
        }
        Err(ChangeFailed::Refused(
            error @ (ChangeError::UnderWay { .. } | ChangeError::Forming),
        )) => said(wait(&registry.view(), &error.to_string())).await,
        Err(ChangeFailed::Refused(error)) => {
            registry.knocks().forget(&knock.joiner.node);
            said(Told::Refused(error.to_string())).await
        }
        Err(failed) => said(wait(&registry.view(), &failed.to_string())).await,
    }
}

fn hand_over(registry: &Registry, view: &View, knock: &Knock) -> Knocked {
    registry.knocks().forget(&knock.joiner.node);
    let answer = (message::encode(&Told::Named), view.held.encode().into());
    Box::pin(std::future::ready(answer))
}

fn wait(view: &View, why: &str) -> Told {
    let document = view.document();
    let members = document.layout.members.values();
    let members = members.map(|member| member.peer_addr.clone());
    Told::Wait {
        cluster_id: document.cluster_id.clone(),
        lineage: document.lineage(),
        why: why.to_owned(),
        members: members.take(MAX_TOLD_ADDRESSES).collect(),
    }
}

fn refused(refusal: &Refusal) -> Told {
    Told::Refused(refusal.to_string())
}

fn said(told: Told) -> Knocked {
    let answer = (message::encode(&told), Bytes::new());
    Box::pin(std::future::ready(answer))
}
