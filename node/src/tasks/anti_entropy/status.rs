//! What anti-entropy says of itself.
//!
//! A picture of one moment, for the API, health and metrics; nothing is decided by it.

use sibyl_core::id::{NodeId, Partition};

use super::AntiEntropy;

/// Since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Exchanges that ended.
    pub exchanges: u64,
    /// Those that could not finish.
    pub failed: u64,
    /// Objects sent and received.
    pub keys_repaired: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys found with two payloads under one dot.
    pub alarms: u64,
}

/// A peer, as anti-entropy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node_id: NodeId,
    /// How long ago an exchange with it found or made everything equal.
    pub last_success_ms_ago: Option<u64>,
    /// Partitions that are to be compared with it.
    pub dirty_partitions: usize,
}

/// An exchange under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// With whom.
    pub node_id: NodeId,
    /// About what.
    pub partition: Partition,
}

/// How far the refill of a node that lost its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Partitions that count again, or are not this node's.
    pub filled: u32,
    /// All of them.
    pub partitions: u32,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Since the start.
    pub totals: Totals,
    /// By name.
    pub peers: Vec<Peer>,
    /// Under way.
    pub running: Vec<Running>,
    /// Partitions whose trees are being computed anew.
    pub unclean: usize,
    /// Records that cannot be read and wait for other owners.
    pub damaged: usize,
    /// If this node lost its data and is not yet whole.
    pub filling: Option<Filling>,
}

impl AntiEntropy {
    /// How things stand.
    pub fn status(&self) -> Status {
        let ground = self.ground();
        let partitions = ground.registry.view().ring().partitions();
        let filling = ground.registry.is_rebuilding().then(|| {
            let filled = (0..partitions).filter(|at| ground.registry.vouches(Partition(*at)));
            Filling {
                filled: u32::try_from(filled.count()).unwrap_or(u32::MAX),
                partitions,
            }
        });
        let others = self.others();
        let state = self.state();
        let peer = |node: &NodeId| {
            let known = state.peers.get(node);
            let succeeded = known.and_then(|peer| peer.succeeded);
            Peer {
                node_id: node.clone(),
                last_success_ms_ago: succeeded
                    .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
                dirty_partitions: known.map_or(0, |peer| {
                    peer.due.len() + usize::from(peer.running.is_some())
                }),
            }
        };
        let running = state.peers.iter().filter_map(|(node, peer)| {
            Some(Running {
                node_id: node.clone(),
                partition: peer.running?,
            })
        });
        Status {
            totals: state.totals,
            peers: others.iter().map(peer).collect(),
            running: running.collect(),
            unclean: ground.replica.unclean(partitions).len(),
            damaged: ground.replica.damaged().borrow().len(),
            filling,
        }
    }
}
