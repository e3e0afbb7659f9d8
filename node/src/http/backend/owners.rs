//! Changes of members: from a wish to a change of the registry, and what it moves.
//!
//! What a wish needs beyond the document is looked up here: who asks to be taken in, and whether a member answers.

use sibyl_core::id::NodeId;
use sibyl_core::membership::State;
use sibyl_core::registry::{Change, ChangeError, Document, Farewell, Former, Joiner};

use super::failures::unchanged;
use super::{Exchange, Shared};
use crate::http::api::{AdminError, OwnerWish};
use crate::http::cluster::{MemberState, MemberView};
use crate::http::owners::{CandidateView, MoveView, OwnerChangeView, OwnersChanged, ShareView};

impl Exchange {
    pub(super) async fn owners_changed(
        &self,
        wish: OwnerWish,
        plan: bool,
    ) -> Result<OwnersChanged, AdminError> {
        let coordinator = self.coordinator();
        let view = coordinator.serving().map_err(AdminError::NotServing)?;
        let change = self.shared.change_of(view.document(), wish)?;
        // What cannot be is said before anybody is asked.
        let planned = change.apply(view.document()).map_err(AdminError::from)?;
        if plan {
            let after = planned.as_ref().unwrap_or(view.document());
            return Ok(told(after, view.number(), true));
        }
        let view = coordinator.change(&self.span, change).await;
        let view = view.map_err(unchanged)?;
        Ok(told(view.document(), view.number(), false))
    }
}

impl Shared {
    fn change_of(&self, document: &Document, wish: OwnerWish) -> Result<Change, AdminError> {
        let members = &document.layout.members;
        let known = |node: &NodeId| match members.contains_key(node) {
            true => Ok(()),
            false => Err(AdminError::from(ChangeError::NoMember(node.clone()))),
        };
        match wish {
            OwnerWish::Join(node) => match members.get(&node).and_then(|member| member.store) {
                Some(store) => Ok(Change::Join(again(document, &node, store))),
                None => Ok(Change::Join(self.candidate(&node)?)),
            },
            OwnerWish::Leave(node) => Ok(Change::Leave { node }),
            OwnerWish::Remove(node) => match members.get(&node) {
                Some(_) if self.answers(&node) => Err(AdminError::Conflict {
                    code: "member_answers",
                    detail: format!("{node} answers: let it leave, or stop it first"),
                }),
                member => Ok(Change::Remove {
                    store: member.and_then(|member| member.store),
                    node,
                }),
            },
            OwnerWish::Replace { node, with } => {
                known(&node)?;
                let by = self.candidate(&with)?;
                let alive = self.answers(&node);
                Ok(Change::Replace { node, by, alive })
            }
        }
    }

    fn candidate(&self, node: &NodeId) -> Result<Joiner, AdminError> {
        let found = self.coordinator.registry().knocks().find(node);
        found
            .map(|candidate| candidate.joiner)
            .ok_or_else(|| AdminError::NotFound {
                code: "no_candidate",
                detail: format!(
                    "no node called {node} asks this one to be taken in: start it with --join (and --spare), see candidates in GET /v1/cluster"
                ),
            })
    }

    /// Whether a member can be reached from here, or others hear of it.
    fn answers(&self, node: &NodeId) -> bool {
        let coordinator = &self.coordinator;
        let gossip = coordinator.gossip().view();
        let heard = gossip.member(node);
        node == coordinator.me()
            || coordinator.net().is_reachable(node)
            || heard.is_some_and(|member| member.state == State::Alive)
    }

    pub(super) fn candidates(&self) -> Vec<CandidateView> {
        let document = self.coordinator.registry().view();
        let members = &document.document().layout.members;
        let knocks = self.coordinator.registry().knocks().list().into_iter();
        // Whoever was taken in through another member is remembered here for a while.
        let knocks = knocks.filter(|(one, _)| !members.contains_key(&one.joiner.node));
        let view =
            |(candidate, heard_age_ms): (sibyl_core::joining::Candidate, u64)| CandidateView {
                node_id: candidate.joiner.node.to_string(),
                store: candidate.joiner.store.to_string(),
                listen: candidate.url,
                peer_listen: candidate.joiner.peer_addr,
                zone: candidate.joiner.zone,
                tokens: candidate.joiner.tokens,
                spare: candidate.wish == sibyl_core::joining::Wish::Wait,
                heard_age_ms,
            };
        knocks.map(view).collect()
    }
}

/// What a member would say of itself, asked twice.
fn again(document: &Document, node: &NodeId, store: sibyl_core::id::Actor) -> Joiner {
    let member = document.layout.members.get(node);
    Joiner {
        node: node.clone(),
        store,
        peer_addr: member.map_or_else(String::new, |member| member.peer_addr.clone()),
        zone: member.and_then(|member| member.zone.clone()),
        tokens: member.map_or(1, |member| member.tokens),
    }
}

fn told(document: &Document, registry: u64, plan: bool) -> OwnersChanged {
    let moves = document.moves();
    let shares = Document::shares(&moves).into_iter();
    let summary = shares.map(|(node, share)| ShareView {
        node: node.to_string(),
        gains: share.gains,
        gives: share.gives,
    });
    OwnersChanged {
        registry,
        plan,
        summary: summary.collect(),
        moves: moves
            .into_iter()
            .map(|at| MoveView {
                partition: at.partition.0,
                to: at.to.to_string(),
                from: at.from.iter().map(NodeId::to_string).collect(),
            })
            .collect(),
    }
}

/// The change of owners under way.
pub(super) fn under_way(document: &Document) -> Option<OwnerChangeView> {
    let change = document.layout.change.as_ref()?;
    let missing = change.missing.iter();
    Some(OwnerChangeView {
        began: change.began,
        missing: missing
            .map(|(node, partitions)| (node.to_string(), partitions.len()))
            .collect(),
    })
}

/// Who was a member.
pub(super) fn departed(former: &Former) -> MemberView {
    MemberView {
        node_id: former.node.to_string(),
        state: match former.why {
            Farewell::Left => MemberState::Left,
            Farewell::Removed | Farewell::Lost => MemberState::Down,
        },
        incarnation: former.incarnation,
        heartbeat: None,
        heartbeat_age_ms: None,
        heartbeat_at: None,
        clock_ahead_ms: None,
        reachable: false,
        suspected_age_ms: None,
        suspected_by: Vec::new(),
        listen: None,
        peer_listen: None,
        zone: None,
        tokens: 0,
        leaving: false,
        gone_with: Some(former.number),
    }
}
