//! Recovery, as it is asked for and shown: who is given up, and what may be lost with them.
//!
//! What cannot be is said before anything is asked of the registry's task, which judges once more.

use std::collections::BTreeSet;
use std::time::Duration;

use sibyl_core::id::NodeId;
use sibyl_core::membership::State;
use sibyl_core::registry::{ChangeError, Document, GivenUp};
use tokio::time::{Instant, sleep};

use super::Exchange;
use super::failures::unchanged;
use crate::http::api::AdminError;
use crate::http::cluster::MemberState;
use crate::http::recover::{GivenUpView, Recovered};
use crate::tasks::registry::{Planned, present};

/// For how long a majority is looked for: several dials and probes of each member.
const LOOKS_FOR: Duration = Duration::from_secs(3);
/// How often.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// Looks for voters until there are enough, or for long enough; who was seen once is there.
async fn gather<E>(
    mut look: impl FnMut(&mut BTreeSet<NodeId>) -> Result<bool, E>,
) -> Result<BTreeSet<NodeId>, E> {
    let (mut voters, until) = (BTreeSet::new(), Instant::now() + LOOKS_FOR);
    while !look(&mut voters)? && Instant::now() < until {
        sleep(LOOKS_EVERY).await;
    }
    Ok(voters)
}

impl Exchange {
    /// Who could vote. One look is not enough: just after a start, or when this node itself stood still, nobody can be
    /// reached for a moment.
    async fn voters(&self) -> Result<BTreeSet<NodeId>, AdminError> {
        let coordinator = self.coordinator();
        let (me, store) = (coordinator.me(), coordinator.replica().actor());
        let look = |voters: &mut BTreeSet<NodeId>| {
            let view = coordinator.serving().map_err(AdminError::NotServing)?;
            let document = view.document();
            voters.extend(present(coordinator.net(), document));
            let named = document.layout.members.get(me);
            if named.and_then(|member| member.store) == Some(store) {
                voters.insert(me.clone());
            }
            Ok(document.check_lost(me, voters).is_err())
        };
        gather(look).await
    }

    pub(super) async fn recovered(
        &self,
        plan: bool,
        accept_loss: bool,
    ) -> Result<Recovered, AdminError> {
        let coordinator = self.coordinator();
        let voters = self.voters().await?;
        let view = coordinator.serving().map_err(AdminError::NotServing)?;
        let epoch = coordinator.reaping().status().epoch;
        let refused = |error| AdminError::from(ChangeError::Recover(error));
        let lost = view.document().check_lost(coordinator.me(), &voters);
        lost.map_err(refused)?;
        let planned = coordinator.registry().plan_recovery(epoch).await;
        let Planned { before, after } = planned.map_err(unchanged)?;
        let shown = self.shown(&before, &after);
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
        let made = self.shown(&before, after.document());
        Ok(Recovered {
            registry: made.registry,
            lineage: made.lineage,
            plan: false,
            ..shown
        })
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
        let held = coordinator.registry().view();
        let lacks = |document: &Document| document.not_held_by(me).into_iter();
        let without: BTreeSet<_> = lacks(before).chain(lacks(held.document())).collect();
        let without = without.len();
        let mut notes = notes(before, &given_up, without);
        if before.number > held.number() && after.number > before.number {
            notes.push(format!(
                "document {} was accepted here, and nobody says whether it was chosen: it is taken over",
                before.number
            ));
        }
        Recovered {
            registry: after.number,
            plan: true,
            lineage: after
                .lineage()
                .map(|lineage| lineage.to_string())
                .unwrap_or_default(),
            notes,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_reached_a_little_later_is_there() {
        let node = |number: u8| format!("n{number}").parse::<NodeId>().expect("a good name");
        let mut looks = 0;
        let voters = gather(|voters| {
            looks += 1;
            match looks {
                5 => drop(voters.insert(node(2))),
                25 => drop(voters.insert(node(3))),
                _ => {}
            }
            Ok::<_, ()>(voters.len() == 2)
        });
        assert_eq!(voters.await, Ok(BTreeSet::from([node(2), node(3)])));
        // Ends where nobody comes.
        assert_eq!(gather(|_| Ok::<_, ()>(false)).await, Ok(BTreeSet::new()));
        assert_eq!(gather(|_| Err("stopping")).await, Err("stopping"));
    }
}
