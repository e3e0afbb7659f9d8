//! `/v1/cluster`, `/v1/registry`: what this node knows of the cluster.
//!
//! Shapes and handlers only: another node may see it otherwise. `cut` exists where the node was started with
//! `--allow-cuts`, and nowhere else.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::document::problems;
use super::owners::{CandidateView, OwnerChangeView};
use super::path;

/// The largest small JSON body.
pub(super) const MAX_SMALL_BODY_BYTES: usize = 4 << 10;

problems!(RingProblems: 503);
problems!(CutProblems: 404);
problems!(AntiEntropyProblems: 503);

/// A member's state, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Its heartbeats arrive.
    Alive,
    /// A temporary failure: nothing newer was heard of it for too long, or it could not be reached, or was not
    /// heard of yet.
    Suspect,
    /// A permanent failure: it was removed.
    Down,
    /// It left.
    Left,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MemberView {
    /// Its name.
    pub node_id: String,
    /// Its state.
    pub state: MemberState,
    /// Raised by the member alone: with each of its starts, and when it hears that it was suspected.
    pub incarnation: u64,
    /// The newest heartbeat known of it; null if it was not heard of yet.
    pub heartbeat: Option<u64>,
    /// How long ago that was learnt here.
    pub heartbeat_age_ms: Option<u64>,
    /// The member's own clock at that heartbeat: shown, never believed.
    pub heartbeat_at: Option<String>,
    /// How far its clock was ahead of this node's when it last spoke here.
    pub clock_ahead_ms: Option<i64>,
    /// Whether this node can reach it directly, whatever it thinks of it.
    pub reachable: bool,
    /// How long this node has suspected it.
    pub suspected_age_ms: Option<u64>,
    /// Which other members suspect it.
    pub suspected_by: Vec<String>,
    /// Where clients reach it; null if that is not known here.
    pub listen: Option<String>,
    /// Where peers reach it; null if it is no member any more.
    pub peer_listen: Option<String>,
    /// Its failure domain.
    pub zone: Option<String>,
    /// How many places it has on the ring.
    pub tokens: u32,
    /// Whether it hands over what it owns, and then goes.
    pub leaving: bool,
    /// The document without it, if it is no member any more.
    pub gone_with: Option<u64>,
}

/// The cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClusterView {
    /// The cluster's name.
    pub cluster_id: String,
    /// The answering node.
    pub node_id: String,
    /// The number of the registry document in force.
    pub registry: u64,
    /// Whether everything is as it should be.
    pub healthy: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// By name; behind them who was a member and went, the latest first.
    pub members: Vec<MemberView>,
    /// The change of owners under way; null if there is none.
    pub owner_change: Option<OwnerChangeView>,
    /// Who asks this node to be taken in, or waits to be named.
    pub candidates: Vec<CandidateView>,
    /// How far forgetting deleted keys is.
    pub reaping: ReapingView,
    /// The last time, since its start, that the answering node learnt that it was itself suspected.
    pub was_suspected: Option<WasSuspected>,
}

/// How far forgetting deleted keys is, on the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReapingView {
    /// Whether this node takes part; if one does not, nobody forgets anything.
    pub active: bool,
    /// The epoch it is in.
    pub epoch: u64,
    /// How long it has been in it.
    pub epoch_age_ms: u64,
    /// What has to end, or whom it has to hear, before the next begins.
    pub waits_for: Vec<String>,
    /// Deleted keys whose copy here will be forgotten if it stays as it is.
    pub sealed: u64,
    /// Deleted keys forgotten here since the start.
    pub reaped: u64,
    /// Records of a restored backup that may have been deleted and forgotten since: nobody sees them.
    pub aside: usize,
}

/// A node learnt that it was suspected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WasSuspected {
    /// Who told it.
    pub by: String,
    /// How long ago.
    pub age_ms: u64,
}

/// A node on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RingNode {
    /// Its name.
    pub node_id: String,
    /// Where it stands.
    pub tokens: Vec<u64>,
    /// In how many preference lists it is an owner.
    pub owned: usize,
}

/// The ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RingView {
    /// The number of the registry document it comes from.
    pub registry: u64,
    /// How many slices there are.
    pub partitions: u32,
    /// By name.
    pub nodes: Vec<RingNode>,
    /// The preference list of each partition.
    pub owners: Vec<Vec<String>>,
}

/// A member in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegistryMember {
    /// Its name.
    pub node_id: String,
    /// Where peers reach it.
    pub peer_listen: String,
    /// The store that speaks for it; null while the cluster forms.
    pub store: Option<String>,
    /// Whether it hands over what it owns, and then goes.
    pub leaving: bool,
}

/// The registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegistryView {
    /// The number of the document in force.
    pub number: u64,
    /// Its hash.
    pub hash: String,
    /// Its members, by name.
    pub members: Vec<RegistryMember>,
    /// The number of a proposal that is under way; null if there is none.
    pub pending: Option<u64>,
    /// The change of owners under way; null if there is none.
    pub owner_change: Option<OwnerChangeView>,
}

/// What exchanges did since this node started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AntiEntropyTotals {
    /// Exchanges that ended.
    pub exchanges: u64,
    /// Objects sent and received.
    pub keys_repaired: u64,
    /// Exchanges that could not finish; they are tried again.
    pub failed: u64,
    /// Bytes of the objects sent and received.
    pub object_bytes: u64,
    /// Keys found with two payloads under one dot: both are kept, somebody must look.
    pub alarms: u64,
}

/// A peer, as this node's anti-entropy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AntiEntropyPeer {
    /// Its name.
    pub node_id: String,
    /// How long ago a partition was last found or made equal; null if never since this node started.
    pub last_success_ms_ago: Option<u64>,
    /// Partitions that are still to be compared with it.
    pub dirty_partitions: usize,
}

/// An exchange under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AntiEntropyRunning {
    /// With whom.
    pub node_id: String,
    /// About what.
    pub partition: u32,
}

/// How far a node that lost its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AntiEntropyRebuilding {
    /// Partitions that count again, or are not this node's.
    pub filled_partitions: u32,
    /// All partitions.
    pub partitions: u32,
}

/// What this node compares with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AntiEntropyView {
    /// Since this node started.
    pub totals: AntiEntropyTotals,
    /// By name.
    pub peers: Vec<AntiEntropyPeer>,
    /// Exchanges that this node began and that are under way.
    pub running: Vec<AntiEntropyRunning>,
    /// Partitions whose Merkle trees are being computed anew.
    pub unclean_partitions: usize,
    /// Records that cannot be read and wait for other owners.
    pub damaged_records: usize,
    /// Null unless this node lost its data and is not whole yet.
    pub rebuilding: Option<AntiEntropyRebuilding>,
}

/// Read what anti-entropy found
#[utoipa::path(get, path = "/v1/cluster/anti-entropy", tag = "cluster", operation_id = "getAntiEntropy",
    responses((status = 200, description = "Exchanges with other owners", body = AntiEntropyView)))]
pub(super) async fn anti_entropy(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.anti_entropy())
}

/// Compare all partitions with all other owners now
#[utoipa::path(post, path = "/v1/cluster/anti-entropy", tag = "cluster", operation_id = "startAntiEntropy",
    responses((status = 200, description = "Begun; what is dirty is to be compared", body = AntiEntropyView), AntiEntropyProblems))]
pub(super) async fn start_anti_entropy(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.start_anti_entropy()?)
}

/// Read this node's view of the cluster
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "getCluster",
    responses((status = 200, description = "Members and their states", body = ClusterView)))]
pub(super) async fn cluster(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.cluster())
}

/// Read the ring
#[utoipa::path(get, path = "/v1/cluster/ring", tag = "cluster", operation_id = "getRing",
    responses((status = 200, description = "Partitions and their owners", body = RingView), RingProblems))]
pub(super) async fn ring(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.ring()?)
}

/// Read the registry
#[utoipa::path(get, path = "/v1/registry", tag = "cluster", operation_id = "getRegistry",
    responses((status = 200, description = "The document in force", body = RegistryView)))]
pub(super) async fn registry(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.registry())
}

/// A link to cut or to mend.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    /// The other end.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    peer: String,
    /// `true` cuts, `false` mends.
    cut: bool,
}

/// Cut the link to a peer, or mend it
///
/// Only on a node that was started with `--allow-cuts`.
#[utoipa::path(post, path = "/v1/cluster/cut", tag = "cluster", operation_id = "cut",
    request_body(content = Cut),
    responses((status = 200, description = "Done", body = Cut), CutProblems))]
pub(super) async fn cut(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let body: Cut = asked.json(MAX_SMALL_BODY_BYTES).await?;
    asked.call.cut(&path::node(&body.peer)?, body.cut)?;
    ok(&body)
}
