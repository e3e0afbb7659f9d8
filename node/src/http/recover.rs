//! `POST /v1/cluster/recover`: a majority is lost for good, and this node goes on alone, in a new lineage.
//!
//! Shapes and the handler only. It is asked of exactly one member that is left; with `?plan=true` nothing changes, and
//! the answer says who is given up and what may be lost.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::cluster::{MAX_SMALL_BODY_BYTES, MemberState};
use super::document::{parameters, problems};
use super::query::{Kind, Parameter, parameter};

const PLAN: &[Parameter] = &[parameter(
    "plan",
    Kind::Flag,
    "Change nothing: only say who is given up and what may be lost.",
)];

parameters!(RecoverQuery, query PLAN);
problems!(RecoverProblems: 404 409 503);

/// The operator's word.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Word {
    /// Whatever only the lost members knew may be lost; without this word nothing is done.
    accept_loss: bool,
}

/// A member that is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GivenUpView {
    /// Its name.
    pub node_id: String,
    /// The store that never speaks for anybody again.
    pub store: Option<String>,
    /// Its state, as this node sees it.
    pub state: MemberState,
    /// Whether this node can reach it: then it is fenced at once, and gives what it holds.
    pub reachable: bool,
    /// The latest registry document it was heard to go by; null if it was not heard since this node started.
    pub registry: Option<u64>,
}

/// A recovery, planned or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Recovered {
    /// The registry document that it is; of a plan, the one it was made by.
    pub registry: u64,
    /// Whether it is only a plan.
    pub plan: bool,
    /// The new lineage; of a plan, the one it would be.
    pub lineage: String,
    /// Who is given up, by name.
    pub given_up: Vec<GivenUpView>,
    /// Partitions of which this node holds no copy, or not for all buckets.
    pub partitions_without_copy: usize,
    /// All partitions.
    pub partitions: u32,
    /// What may be lost, and what follows, a sentence each.
    pub notes: Vec<String>,
}

/// Go on alone after a majority was lost for good
///
/// Asked of exactly one member that is left. It begins a new lineage with itself as the only member; all others are
/// given up and fenced: whoever of them comes back gives what it holds and starts empty. Refused while a majority of
/// the members answers.
#[utoipa::path(post, path = "/v1/cluster/recover", tag = "cluster", operation_id = "recoverCluster",
    params(RecoverQuery), request_body(content = Word),
    responses((status = 200, description = "Done, or planned", body = Recovered), RecoverProblems))]
pub(super) async fn recover(mut asked: Asked) -> Answer {
    let plan = asked.query(PLAN)?.flag("plan")?;
    let Word { accept_loss } = asked.json(MAX_SMALL_BODY_BYTES).await?;
    ok(&asked.call.recover(plan, accept_loss).await?)
}
