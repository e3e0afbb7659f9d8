//! What operators ask: the cluster, the ring, the registry, health and the readings behind the gauges.
//!
//! All of it is this node's own view, taken when asked.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use sibyl_core::hint::ledger::Kept;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::membership::State;
use sibyl_core::registry::Member;
use sibyl_core::room::Level;

use super::{Shared, owners};
use crate::coordinator::{Coordinator, STOPPING, now_ms};
use crate::http::api::{AdminError, Health};
use crate::http::cluster::{
    AntiEntropyPeer, AntiEntropyRebuilding, AntiEntropyRunning, AntiEntropyTotals, AntiEntropyView,
    ClusterView, MemberState, MemberView, ReapingView, RegistryMember, RegistryView, RingNode,
    RingView, WasSuspected,
};
use crate::http::handoff::{HandoffView, HintsView, SyncView, TransferView};
use crate::http::moment;
use crate::peer::PeerView;
use crate::store::disk;
use crate::tasks::anti_entropy::{self, Status, Transfer};
use crate::tasks::gossip::Published;
use crate::tasks::handoff;
use crate::tasks::registry::View;
use crate::telemetry::metrics::{Direction, HintReading, Readings};

impl Shared {
    pub(super) fn cluster(&self) -> ClusterView {
        let coordinator = &self.coordinator;
        let view = coordinator.registry().view();
        let peers = coordinator.net().peers();
        let gossip = coordinator.gossip().view();
        let members = view.document().layout.members.iter();
        let members = members.map(|(node, member)| self.member(node, member, &peers, &gossip));
        let gone = view.document().departed().into_iter().map(owners::departed);
        let members: Vec<_> = members.chain(gone).collect();
        let reasons = self.troubles(&view, &peers, &gossip);
        let was_suspected = gossip.suspected.as_ref().map(|suspected| WasSuspected {
            by: suspected.by.to_string(),
            age_ms: whole_ms(suspected.heard.elapsed()),
        });
        ClusterView {
            cluster_id: view.document().cluster_id.clone(),
            node_id: coordinator.me().to_string(),
            registry: view.number(),
            healthy: reasons.is_empty(),
            reasons,
            members,
            owner_change: owners::under_way(view.document()),
            candidates: self.candidates(),
            reaping: self.reaping(),
            was_suspected,
        }
    }

    fn reaping(&self) -> ReapingView {
        let status = self.coordinator.reaping().status();
        ReapingView {
            active: status.active,
            epoch: status.epoch,
            epoch_age_ms: whole_ms(status.age),
            waits_for: status.waits_for,
            sealed: status.sealed,
            reaped: status.reaped,
            aside: status.aside,
        }
    }

    fn member(
        &self,
        node: &NodeId,
        member: &Member,
        peers: &[PeerView],
        gossip: &Published,
    ) -> MemberView {
        let peer = peers.iter().find(|peer| peer.node_id == *node);
        let mine = node == self.coordinator.me();
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        let listen = if mine {
            Some(self.listen.clone())
        } else {
            identity.map(|identity| identity.url.clone())
        };
        let seen = gossip.member(node);
        let heard = seen.filter(|seen| seen.learnt_ms.is_some());
        let age = |at_ms| gossip.age_ms(at_ms);
        let accusers = seen.map(|seen| seen.suspected_by.as_slice());
        MemberView {
            node_id: node.to_string(),
            state: seen.map_or(MemberState::Suspect, |seen| state(seen.state)),
            incarnation: seen.map_or(0, |seen| seen.life.incarnation),
            heartbeat: heard.map(|seen| seen.life.counter),
            heartbeat_age_ms: seen.and_then(|seen| seen.learnt_ms).map(age),
            heartbeat_at: heard.map(|seen| moment::rfc3339(seen.stamp_ms)),
            clock_ahead_ms: seen.and_then(|seen| seen.skew_ms),
            reachable: mine || peer.is_some_and(|peer| peer.reachable),
            suspected_age_ms: seen.and_then(|seen| seen.suspected_ms).map(age),
            suspected_by: accusers
                .unwrap_or_default()
                .iter()
                .map(NodeId::to_string)
                .collect(),
            listen,
            peer_listen: Some(member.peer_addr.clone()),
            zone: member.zone.clone(),
            tokens: member.tokens,
            leaving: member.leaving,
            gone_with: None,
        }
    }

    /// Why the cluster is not healthy, as this node sees it.
    fn troubles(&self, view: &View, peers: &[PeerView], gossip: &Published) -> Vec<String> {
        let mut reasons = self.coordinator.registry().alarms();
        if view.forming() {
            reasons.push("forming: every first member must be reachable once".to_owned());
        }
        let members = view.document().layout.members.keys();
        for node in members.filter(|node| *node != self.coordinator.me()) {
            let peer = peers.iter().find(|peer| peer.node_id == *node);
            reasons.extend(trouble(node, peer, gossip));
        }
        if self.coordinator.is_rebuilding() {
            let filling = self.coordinator.anti_entropy().status().filling;
            let (filled, of) =
                filling.map_or((0, 0), |filling| (filling.filled, filling.partitions));
            reasons.push(format!(
                "rebuilding: this node lost its data; {filled} of {of} partitions are filled again; in the others it takes writes of others, mints none, and its reads do not count"
            ));
        }
        if let Some(why) = self.coordinator.replica().store().damage() {
            reasons.push(format!(
                "damaged: the storage engine's files are damaged ({why}); a new store is begun once a majority of the members can be reached without this node"
            ));
        }
        match self.coordinator.room() {
            Level::Enough => {}
            Level::Low => reasons.push(
                "the disk is below its low-water mark: values are refused, deletes go on".to_owned(),
            ),
            Level::Out => reasons.push(
                "the disk is below half of its low-water mark: writes and deletes are refused; free space"
                    .to_owned(),
            ),
        }
        reasons
    }

    /// Partitions that are to be compared with somebody, or whose trees are computed anew.
    fn dirty_partitions(&self) -> usize {
        let status = self.coordinator.anti_entropy().status();
        let due = status.peers.iter().map(|peer| peer.dirty_partitions).max();
        due.unwrap_or(0).max(status.unclean)
    }

    pub(super) fn anti_entropy(&self) -> AntiEntropyView {
        let Status {
            totals,
            peers,
            running,
            unclean,
            damaged,
            filling,
        } = self.coordinator.anti_entropy().status();
        let peer = |peer: anti_entropy::Peer| AntiEntropyPeer {
            node_id: peer.node_id.to_string(),
            last_success_ms_ago: peer.last_success_ms_ago,
            dirty_partitions: peer.dirty_partitions,
        };
        let exchange = |running: anti_entropy::Running| AntiEntropyRunning {
            node_id: running.node_id.to_string(),
            partition: running.partition.0,
        };
        AntiEntropyView {
            totals: AntiEntropyTotals {
                exchanges: totals.exchanges,
                keys_repaired: totals.keys_repaired,
                failed: totals.failed,
                object_bytes: totals.bytes,
                alarms: totals.alarms,
            },
            peers: peers.into_iter().map(peer).collect(),
            running: running.into_iter().map(exchange).collect(),
            unclean_partitions: unclean,
            damaged_records: damaged,
            rebuilding: filling.map(|filling| AntiEntropyRebuilding {
                filled_partitions: filling.filled,
                partitions: filling.partitions,
            }),
        }
    }

    pub(super) fn start_anti_entropy(&self) -> Result<AntiEntropyView, AdminError> {
        self.coordinator.serving().map_err(AdminError::NotServing)?;
        let _due: usize = self.coordinator.anti_entropy().start_now();
        Ok(self.anti_entropy())
    }

    pub(super) fn ring(&self) -> Result<RingView, AdminError> {
        let view = self.coordinator.serving().map_err(AdminError::NotServing)?;
        let n = usize::from(view.bucket("default").map_or(3, |bucket| bucket.config.n));
        let owned = view.ring().owned(n);
        let tokens = |node: &NodeId| {
            let mine = view
                .ring()
                .tokens()
                .iter()
                .filter(|(_, owner)| owner == node);
            mine.map(|(token, _)| *token).collect()
        };
        let nodes = view.document().layout.members.keys().map(|node| RingNode {
            node_id: node.to_string(),
            tokens: tokens(node),
            owned: owned.get(node).copied().unwrap_or(0),
        });
        let preference = |at| {
            view.ring()
                .preference(Partition(at))
                .iter()
                .map(NodeId::to_string)
                .collect()
        };
        Ok(RingView {
            registry: view.number(),
            partitions: view.ring().partitions(),
            nodes: nodes.collect(),
            owners: (0..view.ring().partitions()).map(preference).collect(),
        })
    }

    pub(super) fn registry(&self) -> RegistryView {
        let view = self.coordinator.registry().view();
        let members = view
            .document()
            .layout
            .members
            .iter()
            .map(|(node, member)| RegistryMember {
                node_id: node.to_string(),
                peer_listen: member.peer_addr.clone(),
                store: member.store.map(|store| store.to_string()),
                leaving: member.leaving,
            });
        RegistryView {
            number: view.number(),
            hash: view.held.digest.to_string(),
            members: members.collect(),
            pending: self.coordinator.registry().pending(),
            owner_change: owners::under_way(view.document()),
        }
    }

    pub(super) fn health(&self) -> Health {
        let view = self.coordinator.registry().view();
        let gossip = self.coordinator.gossip().view();
        let mut reasons = self.troubles(&view, &self.coordinator.net().peers(), &gossip);
        if self.insecure {
            reasons
                .push("insecure: neither TLS nor tokens protect this node (--insecure)".to_owned());
        }
        let leaving = self.coordinator.is_leaving();
        let serving = self.coordinator.serving().map(drop);
        let serving = serving.and_then(|()| match leaving {
            true => Err(STOPPING.to_owned()),
            false => Ok(()),
        });
        match serving {
            Ok(()) => Health {
                ready: !self.coordinator.is_rebuilding()
                    && !self.coordinator.replica().is_judging(),
                reasons,
            },
            Err(why) => {
                reasons.insert(0, why);
                Health {
                    ready: false,
                    reasons,
                }
            }
        }
    }

    /// Moves the transport's own counts of bytes into the metrics: nothing is counted twice on the way.
    pub(super) fn count_bytes(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in self.coordinator.net().peers() {
            let (received, sent) = counted.entry(peer.node_id.clone()).or_default();
            let (new_in, new_out) = (
                peer.received_bytes.saturating_sub(*received),
                peer.sent_bytes.saturating_sub(*sent),
            );
            (*received, *sent) = (peer.received_bytes, peer.sent_bytes);
            self.telemetry
                .metrics
                .rpc_bytes(Direction::In, peer.node_id.as_str(), new_in);
            self.telemetry
                .metrics
                .rpc_bytes(Direction::Out, peer.node_id.as_str(), new_out);
        }
    }

    pub(super) fn readings(&self, folder: &Path) -> Readings {
        let view = self.coordinator.registry().view();
        let size = self.coordinator.replica().store().size();
        let room = disk::room(folder).ok();
        Readings {
            registry_number: Some(view.number()),
            members: Some(self.coordinator.gossip().view().view.counts()),
            ring_version: Some(view.since()),
            transfers_pending: Some(self.coordinator.anti_entropy().transfers().len() as u64),
            partitions_owned: Some(owned_by(&self.coordinator, &view)),
            merkle_dirty_partitions: Some(self.dirty_partitions() as u64),
            storage_keys: Some(size.records),
            storage_bytes: Some(size.bytes),
            storage_tombstones: Some(self.coordinator.replica().tombstones()),
            reap_epoch_age_seconds: self.reap_epoch_age(),
            salvage_quarantined: self.coordinator.replica().quarantined(),
            disk_available_bytes: room.map(|room| room.available_bytes),
            disk_total_bytes: room.map(|room| room.total_bytes),
            disk_level: Some(self.coordinator.room() as u64),
            hints: self.hint_readings(),
        }
    }

    fn reap_epoch_age(&self) -> Option<u64> {
        let status = self.coordinator.reaping().status();
        status.active.then_some(status.age.as_secs())
    }

    /// What is kept for others.
    fn transfers(&self) -> Vec<TransferView> {
        let transfers = self.coordinator.anti_entropy().transfers().into_iter();
        let view = |transfer: Transfer| TransferView {
            partition: transfer.partition.0,
            from: transfer.from.to_string(),
            to: self.coordinator.me().to_string(),
            keys: transfer.keys,
            bytes: transfer.bytes,
            state: transfer.stage.as_str().to_owned(),
        };
        transfers.map(view).collect()
    }

    pub(super) fn handoff(&self) -> HandoffView {
        let now_ms = now_ms();
        let view = |(target, kept): (NodeId, Kept)| HintsView {
            target: target.to_string(),
            count: kept.count,
            bytes: kept.bytes,
            oldest_age_ms: kept
                .oldest_ms()
                .map(|since_ms| now_ms.saturating_sub(since_ms)),
            refused: kept.refused,
        };
        let kept = self.coordinator.replica().hints_kept().into_iter();
        let kept = kept.filter(|(_, kept)| kept.count > 0 || kept.refused > 0);
        HandoffView {
            hints: kept.map(view).collect(),
            transfers: self.transfers(),
        }
    }

    /// Waits until what is kept now is delivered, or so long.
    pub(super) async fn sync_handoff(&self, patience: Duration) -> SyncView {
        let replica = self.coordinator.replica();
        let delivered = handoff::sync_point(replica, now_ms(), patience).await;
        SyncView {
            delivered,
            left: self.handoff(),
        }
    }

    fn hint_readings(&self) -> Vec<HintReading> {
        let kept = self.coordinator.replica().hints_kept();
        let now_ms = now_ms();
        let reading = |(target, kept): (NodeId, Kept)| HintReading {
            target: target.to_string(),
            pending: kept.count,
            bytes: kept.bytes,
            oldest_seconds: kept
                .oldest_ms()
                .map_or(0, |since_ms| now_ms.saturating_sub(since_ms) / 1000),
        };
        kept.into_iter().map(reading).collect()
    }
}

fn state(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
        State::Left => MemberState::Left,
    }
}

/// What is wrong with one other member, in a sentence.
fn trouble(node: &NodeId, peer: Option<&PeerView>, gossip: &Published) -> Option<String> {
    let seen = gossip.member(node);
    let unreachable = peer.filter(|peer| !peer.reachable);
    if let Some(why) = unreachable.and_then(|peer| peer.refused.as_ref()) {
        return Some(format!("{node} is refused: {why}"));
    }
    let cut = peer.is_some_and(|peer| peer.cut);
    let suspected = match seen.map(|seen| (seen.state, seen.suspected_ms)) {
        Some((State::Suspect, Some(since_ms))) => {
            let seconds = gossip.age_ms(since_ms) / 1000;
            Some(format!("{node} is suspected to be away, for {seconds} s"))
        }
        Some((State::Suspect, None)) | None => Some(format!("{node} was not heard of yet")),
        Some((state @ (State::Down | State::Left), _)) => {
            Some(format!("{node} is {}", state.as_str()))
        }
        Some((State::Alive, _)) => None,
    };
    match (suspected, unreachable.is_some()) {
        (Some(why), _) if cut => Some(format!("{why}; the link to it is cut")),
        (Some(why), _) => Some(why),
        (None, _) if cut => Some(format!("the link to {node} is cut")),
        (None, true) => Some(format!(
            "{node} cannot be reached from here, but others hear of it"
        )),
        (None, false) => {
            let accusers = seen.map(|seen| seen.suspected_by.as_slice());
            let accusers: Vec<_> = accusers
                .unwrap_or_default()
                .iter()
                .map(NodeId::as_str)
                .collect();
            (!accusers.is_empty())
                .then(|| format!("{node} is suspected by {}", accusers.join(", ")))
        }
    }
}

fn whole_ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn owned_by(coordinator: &Coordinator, view: &View) -> u64 {
    let n = usize::from(view.bucket("default").map_or(3, |bucket| bucket.config.n));
    view.ring()
        .owned(n)
        .get(coordinator.me())
        .copied()
        .unwrap_or(0) as u64
}
