//! What operators ask: the cluster, the ring, the registry, health and the readings behind the gauges.
//!
//! All of it is this node's own view, taken when asked.

use std::path::Path;
use std::sync::PoisonError;

use sibyl_core::id::{NodeId, Partition};
use sibyl_core::registry::Member;

use super::Shared;
use crate::coordinator::{Coordinator, STOPPING};
use crate::http::api::{AdminError, Health};
use crate::http::cluster::{
    ClusterView, MemberState, MemberView, RegistryMember, RegistryView, RingNode, RingView,
};
use crate::peer::PeerView;
use crate::store::disk;
use crate::tasks::registry::View;
use crate::telemetry::metrics::{Direction, Readings};

impl Shared {
    pub(super) fn cluster(&self) -> ClusterView {
        let coordinator = &self.coordinator;
        let view = coordinator.registry().view();
        let peers = coordinator.net().peers();
        let members = view.document().layout.members.iter();
        let members: Vec<_> = members
            .map(|(node, member)| self.member(node, member, &peers))
            .collect();
        let reasons = self.troubles(&view, &peers);
        ClusterView {
            cluster_id: view.document().cluster_id.clone(),
            node_id: coordinator.me().to_string(),
            registry: view.number(),
            healthy: reasons.is_empty(),
            reasons,
            members,
        }
    }

    fn member(&self, node: &NodeId, member: &Member, peers: &[PeerView]) -> MemberView {
        let peer = peers.iter().find(|peer| peer.node_id == *node);
        let mine = node == self.coordinator.me();
        let alive = mine || peer.is_some_and(|peer| peer.reachable);
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        let listen = if mine {
            Some(self.listen.clone())
        } else {
            identity.map(|identity| identity.url.clone())
        };
        MemberView {
            node_id: node.to_string(),
            state: if alive {
                MemberState::Alive
            } else {
                MemberState::Suspect
            },
            incarnation: member.incarnation,
            // Heartbeats come with gossip; until then this is when the peer was last heard of.
            heartbeat: None,
            heartbeat_age_ms: if mine {
                Some(0)
            } else {
                peer.and_then(|peer| peer.last_heard_ms)
            },
            listen,
            peer_listen: member.peer_addr.clone(),
            zone: member.zone.clone(),
            tokens: member.tokens,
        }
    }

    /// Why the cluster is not healthy, as this node sees it.
    fn troubles(&self, view: &View, peers: &[PeerView]) -> Vec<String> {
        let mut reasons = self.coordinator.registry().alarms();
        if view.forming() {
            reasons.push("forming: every first member must be reachable once".to_owned());
        }
        for peer in peers.iter().filter(|peer| !peer.reachable) {
            reasons.push(match &peer.refused {
                Some(why) => format!("{} is refused: {why}", peer.node_id),
                None if peer.cut => format!("the link to {} is cut", peer.node_id),
                None => format!("{} cannot be reached", peer.node_id),
            });
        }
        if self.coordinator.is_rebuilding() {
            let why = "rebuilding: this node lost its data; it takes writes of others, mints none, and its reads do not count";
            reasons.push(why.to_owned());
        }
        if self.coordinator.is_low_on_disk() {
            reasons.push("the disk is below its low-water mark: writes are refused".to_owned());
        }
        reasons
    }

    pub(super) fn ring(&self) -> Result<RingView, AdminError> {
        let view = self.coordinator.serving().map_err(AdminError::NotServing)?;
        let n = usize::from(view.bucket("default").map_or(3, |bucket| bucket.config.n));
        let owned = view.ring.owned(n);
        let tokens = |node: &NodeId| {
            let mine = view.ring.tokens().iter().filter(|(_, owner)| owner == node);
            mine.map(|(token, _)| *token).collect()
        };
        let nodes = view.document().layout.members.keys().map(|node| RingNode {
            node_id: node.to_string(),
            tokens: tokens(node),
            owned: owned.get(node).copied().unwrap_or(0),
        });
        let preference = |at| {
            view.ring
                .preference(Partition(at))
                .iter()
                .map(NodeId::to_string)
                .collect()
        };
        Ok(RingView {
            registry: view.number(),
            partitions: view.ring.partitions(),
            nodes: nodes.collect(),
            owners: (0..view.ring.partitions()).map(preference).collect(),
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
            });
        RegistryView {
            number: view.number(),
            hash: view.held.digest.to_string(),
            members: members.collect(),
            pending: self.coordinator.registry().pending(),
        }
    }

    pub(super) fn health(&self) -> Health {
        let view = self.coordinator.registry().view();
        let mut reasons = self.troubles(&view, &self.coordinator.net().peers());
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
                ready: !self.coordinator.is_rebuilding(),
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
        let alive = 1 + self
            .coordinator
            .net()
            .peers()
            .iter()
            .filter(|peer| peer.reachable)
            .count();
        let members = view.document().layout.members.len();
        let suspect = members.saturating_sub(alive);
        let size = self.coordinator.replica().store().size();
        let room = disk::room(folder).ok();
        Readings {
            registry_number: Some(view.number()),
            members: Some([alive as u64, suspect as u64, 0, 0]),
            partitions_owned: Some(owned_by(&self.coordinator, &view)),
            storage_keys: Some(size.records),
            storage_bytes: Some(size.bytes),
            storage_tombstones: Some(self.coordinator.replica().tombstones()),
            disk_available_bytes: room.map(|room| room.available_bytes),
            disk_total_bytes: room.map(|room| room.total_bytes),
        }
    }
}

fn owned_by(coordinator: &Coordinator, view: &View) -> u64 {
    let n = usize::from(view.bucket("default").map_or(3, |bucket| bucket.config.n));
    view.ring
        .owned(n)
        .get(coordinator.me())
        .copied()
        .unwrap_or(0) as u64
}
