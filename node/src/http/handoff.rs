//! `/v1/cluster/handoff`: what this node keeps for others, and a point in time by which it is delivered.
//!
//! Shapes and handlers only. Every node keeps its own hints: to know that nothing is left in the cluster, ask
//! all of them.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::document::parameters;
use super::query::{Kind, Parameter, parameter};

/// How long a sync point waits if nobody says.
const PATIENCE: Duration = Duration::from_secs(30);

const SYNC: &[Parameter] = &[parameter(
    "timeout_ms",
    Kind::TimeoutMs,
    "How long to wait; default 30000.",
)];

parameters!(SyncQuery, query SYNC);

/// What is kept for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HintsView {
    /// For whom.
    pub target: String,
    /// How many keys.
    pub count: u64,
    /// How many bytes they have in the store.
    pub bytes: u64,
    /// How long the oldest has waited, to the second; null if there is none.
    pub oldest_age_ms: Option<u64>,
    /// How many were refused since the start, because the quota was used up.
    pub refused: u64,
}

/// A partition on its way to this node from an owner of before. It is fetched by whoever gets it, so a node shows
/// what comes to it, and nothing of what goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TransferView {
    /// The partition.
    pub partition: u32,
    /// Where it was.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Keys that came so far.
    pub keys: u64,
    /// Bytes of objects that were moved for it so far, both ways.
    pub bytes: u64,
    /// `waiting`, `running`, or `fetched`: all of it came, and the registry is to say so.
    pub state: String,
}

/// What this node keeps for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct HandoffView {
    /// By target; a target stays while the node runs if hints for it were refused.
    pub hints: Vec<HintsView>,
    /// What comes to this node while owners change, until the registry says that it is here.
    pub transfers: Vec<TransferView>,
}

/// A sync point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SyncView {
    /// Whether every hint that this node kept when it was asked is on its target's disk.
    pub delivered: bool,
    /// What it keeps now.
    #[serde(flatten)]
    pub left: HandoffView,
}

/// Read what this node keeps for others
#[utoipa::path(get, path = "/v1/cluster/handoff", tag = "cluster", operation_id = "getHandoff",
    responses((status = 200, description = "Hints by target", body = HandoffView)))]
pub(super) async fn handoff(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&asked.call.handoff())
}

/// Wait until what this node keeps for others is delivered
///
/// Answers once every hint that is kept at the time of the call is on its target's disk, or when the time is up:
/// `delivered` says which, and `hints` what is left.
#[utoipa::path(post, path = "/v1/cluster/handoff", tag = "cluster", operation_id = "syncHandoff",
    params(SyncQuery),
    responses((status = 200, description = "Delivered, or what is left", body = SyncView)))]
pub(super) async fn sync(asked: Asked) -> Answer {
    let patience = asked.query(SYNC)?.timeout()?.unwrap_or(PATIENCE);
    ok(&asked.call.sync_handoff(patience).await)
}
