//! Fetches what this node is to own, and says when it has it.
//!
//! While owners change, the document names what each new owner is missing (`core: registry/owners`). Whole
//! exchanges with enough of the owners of before fetch it; an exchange counts from the document on that began the
//! change, because peers answer it by that document or a later one, and from then on every write comes here,
//! too. What is fetched is proposed as filled, many partitions at a time. When nothing is missing any more, one
//! node proposes to retire the change once enough know of it: who leaves, if it can, after its hints are
//! delivered; else the first that can be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use sibyl_core::hint::ledger::Ledger;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::refill::Need;
use sibyl_core::registry::{Change, OwnerChange, Partitions};
use tokio::time::Instant;

use super::AntiEntropy;
use super::transfers::Moved;
use crate::peer::PeerView;
use crate::tasks::registry::View;

/// The shortest time between two documents that this node proposes while owners change: each is a round of the
/// registry on every member, and the partitions of two seconds fit into one.
const PROPOSE_EVERY: Duration = Duration::from_secs(2);
/// How often the steps are looked at while owners change.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How far this node is with its part of the change of owners under way.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The document that the needs are of.
    number: u64,
    /// The document that began the change: exchanges since then count.
    began: u64,
    pub(super) needs: BTreeMap<Partition, Vec<Need>>,
    pub(super) done: BTreeMap<Partition, BTreeMap<NodeId, bool>>,
    pub(super) moved: Moved,
    proposed: Option<Instant>,
    proposing: bool,
}

impl AntiEntropy {
    /// Whether this node has all of a partition, as far as owners change: a new owner does not until it is filled.
    pub(super) fn has_all(&self, partition: Partition) -> bool {
        let view = self.ground().registry.view();
        let change = view.document().layout.change.as_ref();
        let missing = change.and_then(|change| change.missing.get(&self.ground().me));
        !missing.is_some_and(|missing| missing.contains(partition))
    }

    /// A partition was compared with a peer, wholly, by a registry document.
    pub(super) fn note_fetched_from(
        &self,
        view: &View,
        partition: Partition,
        peer: &NodeId,
        counts: bool,
    ) {
        let mut state = self.state();
        let progress = &mut state.transfer;
        if view.number() >= progress.began && progress.needs.contains_key(&partition) {
            let done = progress.done.entry(partition).or_default();
            let counted = done.entry(peer.clone()).or_default();
            *counted = *counted || counts;
        }
    }

    /// When the steps are to be looked at again.
    pub(super) fn next_step(&self) -> Instant {
        let view = self.ground().registry.view();
        let far = super::PAUSE_MAX;
        let changes = view.document().layout.change.is_some();
        Instant::now() + if changes { LOOK_EVERY } else { far }
    }

    /// Looks what this node has to do for the change of owners under way, if there is one.
    pub(super) fn look_at_transfer(&self) {
        let view = self.ground().registry.view();
        let tracer = self.ground().registry.tracer();
        let Some(change) = &view.document().layout.change else {
            let mut state = self.state();
            state
                .transfer
                .moved
                .follow(None, 0, || tracer.ring_transfer());
            state.transfer = Progress::default();
            return;
        };
        self.take_needs(&view, change);
        let wish = self.filled(change).or_else(|| self.retires(&view, change));
        let Some(wish) = wish else { return };
        let mut state = self.state();
        let progress = &mut state.transfer;
        let recently = progress
            .proposed
            .is_some_and(|at| at.elapsed() < PROPOSE_EVERY);
        if progress.proposing || recently {
            return;
        }
        (progress.proposing, progress.proposed) = (true, Some(Instant::now()));
        let span = progress.moved.span();
        drop(state);
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.ground().registry.change(span.as_deref(), wish).await {
                tracing::info!(%error, "a step of the change of owners has to be proposed again");
            }
            this.state().transfer.proposing = false;
            this.inner.bell.notify_one();
        });
    }

    /// Takes what a newer document says: what there is to fetch, and from whom.
    fn take_needs(&self, view: &View, change: &OwnerChange) {
        let mut state = self.state();
        if state.transfer.number == view.number() {
            return;
        }
        let progress = &mut state.transfer;
        let new = (progress.began != change.began).then_some(change.began);
        if new.is_some() {
            tracing::info!(began = change.began, "owners change");
            progress.done.clear();
        }
        (progress.number, progress.began) = (view.number(), change.began);
        progress.needs = view.document().fill_needs(&self.ground().me);
        let (tracer, missing) = (self.ground().registry.tracer(), progress.needs.len());
        progress
            .moved
            .follow(new, missing, || tracer.ring_transfer());
        let Progress { needs, done, .. } = &state.transfer;
        let wanted = needs.iter().flat_map(|(at, needs)| {
            let others = needs.iter().flat_map(|need| &need.others);
            let new =
                others.filter(|other| !done.get(at).is_some_and(|done| done.contains_key(*other)));
            new.map(|other| (other.clone(), *at))
        });
        let wanted: Vec<(NodeId, Partition)> = wanted.collect();
        for (other, partition) in wanted {
            state.peers.entry(other).or_default().due.insert(partition);
        }
        drop(state);
        self.inner.bell.notify_one();
    }

    /// What this node has fetched by now.
    fn filled(&self, change: &OwnerChange) -> Option<Change> {
        let (ground, nobody) = (self.ground(), BTreeMap::new());
        let state = self.state();
        let Progress { needs, done, .. } = &state.transfer;
        let is_filled = |(at, needs): &(&Partition, &Vec<Need>)| {
            let heard = done.get(at).unwrap_or(&nobody);
            let met = |need: &Need| need.is_met(heard, |other| ground.net.is_reachable(other));
            needs.iter().all(met)
        };
        let filled: Partitions = needs.iter().filter(is_filled).map(|(at, _)| *at).collect();
        (!filled.is_empty()).then(|| Change::Filled {
            began: change.began,
            node: ground.me.clone(),
            store: ground.replica.actor(),
            partitions: filled,
        })
    }

    /// Whether it is on this node to end the change, and it can be ended.
    fn retires(&self, view: &View, change: &OwnerChange) -> Option<Change> {
        let ground = self.ground();
        if !change.missing.is_empty() {
            return None;
        }
        let members = &view.document().layout.members;
        let reachable = |node: &NodeId| *node == ground.me || ground.net.is_reachable(node);
        let here = members.iter().filter(|(node, _)| reachable(node));
        let leaver = here.clone().find(|(_, member)| member.leaving);
        let (proposer, _) = leaver.or_else(|| here.clone().next())?;
        let gives = members.get(&ground.me).is_some_and(|member| member.leaving);
        if *proposer != ground.me || gives && ground.replica.hints(Ledger::records) > 0 {
            return None;
        }
        let peers = ground.net.peers();
        // Who lost its store does not vote until the new one is named: that is waited for, while enough vote.
        let number_of = |node: &NodeId| {
            let named = members.get(node).and_then(|member| member.store);
            let known = peers.iter().find(|peer| peer.node_id == *node);
            let is_named = |peer: &&PeerView| {
                let store = peer.identity.as_ref().map(|identity| identity.store);
                store == named.map(|store| store.0)
            };
            match *node == ground.me {
                true => view.number(),
                false => known.filter(is_named).map_or(0, |peer| peer.registry),
            }
        };
        let ready = view.document().may_retire(number_of, reachable);
        ready.then_some(Change::Retire {
            began: change.began,
        })
    }
}
