//! Recovery, as it is asked for and shown: who is given up, and what may be lost with them.
//!
//! What cannot be is said before anything is asked of the registry's task, which judges once more.

use std::collections::BTreeSet;
use std::time::Duration;

use sibyl_core::id::NodeId;
use sibyl_core::membership::State;
use sibyl_core::registry::{ChangeError, Document, GivenUp};
use tokio::time::{Instant, sleep};

use super::{Exchange, unchanged};
use crate::http::api::AdminError;
use crate::http::cluster::MemberState;
use crate::http::recover::{GivenUpView, Recovered};
use crate::tasks::registry::present;

/// For how long a majority is looked for: several dials and probes of each member.
const LOOKS_FOR: Duration = Duration::from_secs(3);
/// How often.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

impl Exchange {
    /// Who could vote. One look is not enough: just after a start, or when this node itself stood still, nobody can be
    /// reached for a moment.
    async fn voters(&self) -> Result<BTreeSet<NodeId>, AdminError> {
        let coordinator = self.coordinator();
        let (me, store) = (coordinator.me(), coordinator.replica().actor());
        let (mut voters, until) = (BTreeSet::new(), Instant::now() + LOOKS_FOR);
        loop {
            let view = coordinator.serving().map_err(AdminError::NotServing)?;
            let document = view.document();
            voters.extend(present(coordinator.net(), document));
            let named = document.layout.members.get(me);
            if named.and_then(|member| member.store) == Some(store) {
                voters.insert(me.clone());
            }
            if document.check_lost(me, &voters).is_err() || Instant::now() >= until {
                return Ok(voters);
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    pub(super) async fn recovered(
        &self,
        plan: bool,
        accept_loss: bool,
    ) -> Result<Recovered, AdminError> {
        let coordinator = self.coordinator();
        let (me, store) = (coordinator.me(), coordinator.replica().actor());
        let voters = self.voters().await?;
        let view = coordinator.serving().map_err(AdminError::NotServing)?;
        let before = view.document();
        let epoch = coordinator.reaping().status().epoch;
        let refused = |error| AdminError::from(ChangeError::Recover(error));
        before.check_lost(me, &voters).map_err(refused)?;
        let planned = before.recovered(me, store, epoch).map_err(refused)?;
        let shown = self.shown(before, &planned);
        if plan {
            let registry = view.number();
            return Ok(Recovered { registry, ..shown });
        }
        if !accept_loss {
            return Err(AdminError::Conflict {
                code: "loss_not_accepted",
                detail: format!(
                    "{} members would be given up, and what only they know would be lost: look at it with ?plan=true, then say accept_loss",
                    shown.given_up.len()
                ),
            });
        }
        let after = coordinator.registry().recover(Some(&self.span), epoch);
        let after = after.await.map_err(unchanged)?;
        let plan = false;
        let shown = self.shown(before, after.document());
        Ok(Recovered { plan, ..shown })
    }

    fn shown(&self, before: &Document, after: &Document) -> Recovered {
        let coordinator = self.coordinator();
        let me = coordinator.me();
        let (gossip, peers) = (coordinator.gossip().view(), coordinator.net().peers());
        let given_up = before
            .given_up(me)
            .into_iter()
            .map(|GivenUp { node, store }| {
                let peer = peers.iter().find(|peer| peer.node_id == node);
                let heard = gossip.member(&node).map(|member| member.state);
                GivenUpView {
                    node_id: node.to_string(),
                    store: store.map(|store| store.to_string()),
                    state: match heard {
                        Some(State::Alive) => MemberState::Alive,
                        _ => MemberState::Suspect,
                    },
                    reachable: peer.is_some_and(|peer| peer.reachable),
                    registry: peer.map(|peer| peer.registry).filter(|number| *number > 0),
                }
            });
        let given_up: Vec<GivenUpView> = given_up.collect();
        let without = before.not_held_by(me).len();
        Recovered {
            registry: after.number,
            plan: true,
            lineage: after
                .lineage()
                .map(|lineage| lineage.to_string())
                .unwrap_or_default(),
            notes: notes(before, &given_up, without),
            given_up,
            partitions_without_copy: without,
            partitions: before.layout.partitions,
        }
    }
}

/// What may be lost, and what follows, in words.
fn notes(before: &Document, given_up: &[GivenUpView], without: usize) -> Vec<String> {
    let number = before.number;
    let mut notes = vec![
        format!(
            "changes of the registry after document {number} that the members given up chose among themselves are lost"
        ),
        "writes that no copy or hint here has are lost, unless a node that has them comes back".into(),
        "a node of the old lineage that comes back is fenced: it gives what it holds to this one, and starts empty"
            .into(),
    ];
    if without > 0 {
        notes.push(format!(
            "of {without} of {} partitions this node holds no copy, or not for all buckets: let the others that are left come back before new nodes join",
            before.layout.partitions
        ));
    }
    let newer = given_up
        .iter()
        .filter(|it| it.registry.is_some_and(|registry| registry > number));
    for GivenUpView { node_id, .. } in newer {
        notes.push(format!(
            "{node_id} went by a later document: if it is left, recover there"
        ));
    }
    if let Some(change) = &before.layout.change {
        notes.push(format!(
            "the change of owners that document {} began ends where it stands",
            change.began
        ));
    }
    notes
}
