//! `POST /v1/cluster/join|leave|remove|replace`: who is a member, and so who owns what.
//!
//! Shapes and handlers only. With `?plan=true` nothing changes: the answer is what would move. Moving takes its time
//! after the answer; `GET /v1/cluster` says how far it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::OwnerWish;
use super::asked::{Answer, Asked, ok};
use super::cluster::MAX_SMALL_BODY_BYTES;
use super::document::{parameters, problems};
use super::path;
use super::query::{Kind, Parameter, parameter};

const PLAN: &[Parameter] = &[parameter(
    "plan",
    Kind::Flag,
    "Change nothing: only say what would move.",
)];

parameters!(PlanQuery, query PLAN);
problems!(OwnerProblems: 404 409 503);

/// A member, or a node to be one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// Its name.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    node: String,
}

/// A member, and who takes its places.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replacement {
    /// The member.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    node: String,
    /// A node that asks to be taken in, or waits to be named.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    with: String,
}

/// A partition that gets a new owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MoveView {
    /// The partition.
    pub partition: u32,
    /// Its new owner.
    pub to: String,
    /// Who owns it no more; nobody, if there is a copy more than before.
    pub from: Vec<String>,
}

/// What one node gains and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShareView {
    /// The node.
    pub node: String,
    /// How many partitions it has to fetch.
    pub gains: usize,
    /// How many it owns no more.
    pub gives: usize,
}

/// A change of owners, planned or begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OwnersChanged {
    /// The registry document that holds it; of a plan, the one it was made by.
    pub registry: u64,
    /// Whether it is only a plan.
    pub plan: bool,
    /// What has to be fetched, by partition.
    pub moves: Vec<MoveView>,
    /// The same by node.
    pub summary: Vec<ShareView>,
}

/// A change of owners under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OwnerChangeView {
    /// The registry document that began it, or gave it its present aim.
    pub began: u64,
    /// How many partitions each new owner has still to fetch; empty: only the end has to be told to everybody.
    pub missing: BTreeMap<String, usize>,
}

/// A node that asks to be taken in, or waits to be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CandidateView {
    /// What it calls itself.
    pub node_id: String,
    /// Its store.
    pub store: String,
    /// Where clients would reach it.
    pub listen: String,
    /// Where peers would reach it.
    pub peer_listen: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// How many places on the ring it wants.
    pub tokens: u32,
    /// Whether it waits for an operator; else it is taken in as soon as that is possible.
    pub spare: bool,
    /// How long ago it asked last.
    pub heard_age_ms: u64,
}

/// Take in a node that asks for it
///
/// The node was started with `--join`, mostly with `--spare` too: without that it is taken in unasked.
#[utoipa::path(post, path = "/v1/cluster/join", tag = "cluster", operation_id = "joinCluster",
    params(PlanQuery), request_body(content = Named),
    responses((status = 200, description = "Begun, or planned", body = OwnersChanged), OwnerProblems))]
pub(super) async fn join(mut asked: Asked) -> Answer {
    let plan = plan(&asked)?;
    let node = named(&mut asked).await?;
    change(&asked, OwnerWish::Join(node), plan).await
}

/// Let a member hand over what it owns and go
#[utoipa::path(post, path = "/v1/cluster/leave", tag = "cluster", operation_id = "leaveCluster",
    params(PlanQuery), request_body(content = Named),
    responses((status = 200, description = "Begun, or planned", body = OwnersChanged), OwnerProblems))]
pub(super) async fn leave(mut asked: Asked) -> Answer {
    let plan = plan(&asked)?;
    let node = named(&mut asked).await?;
    change(&asked, OwnerWish::Leave(node), plan).await
}

/// Give up a member that is gone for good
///
/// Others fetch what it owned from one another. A member that can be reached is not removed: let it leave.
#[utoipa::path(post, path = "/v1/cluster/remove", tag = "cluster", operation_id = "removeMember",
    params(PlanQuery), request_body(content = Named),
    responses((status = 200, description = "Begun, or planned", body = OwnersChanged), OwnerProblems))]
pub(super) async fn remove(mut asked: Asked) -> Answer {
    let plan = plan(&asked)?;
    let node = named(&mut asked).await?;
    change(&asked, OwnerWish::Remove(node), plan).await
}

/// Let a node take the places of a member
///
/// A member that can be reached hands over first; one that cannot is given up.
#[utoipa::path(post, path = "/v1/cluster/replace", tag = "cluster", operation_id = "replaceMember",
    params(PlanQuery), request_body(content = Replacement),
    responses((status = 200, description = "Begun, or planned", body = OwnersChanged), OwnerProblems))]
pub(super) async fn replace(mut asked: Asked) -> Answer {
    let plan = plan(&asked)?;
    let body: Replacement = asked.json(MAX_SMALL_BODY_BYTES).await?;
    let (node, with) = (path::node(&body.node)?, path::node(&body.with)?);
    change(&asked, OwnerWish::Replace { node, with }, plan).await
}

fn plan(asked: &Asked) -> Result<bool, super::problem::Problem> {
    asked.query(PLAN)?.flag("plan")
}

async fn named(asked: &mut Asked) -> Result<sibyl_core::id::NodeId, super::problem::Problem> {
    let body: Named = asked.json(MAX_SMALL_BODY_BYTES).await?;
    path::node(&body.node)
}

async fn change(asked: &Asked, wish: OwnerWish, plan: bool) -> Answer {
    ok(&asked.call.change_owners(wish, plan).await?)
}
