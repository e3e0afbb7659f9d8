//! What a node serves that is no member: health, why it serves nothing else, and how far a salvage is.
//!
//! There is no node behind it: no keys, no registry, no traces. Shapes and codes are those of the routes that follow;
//! of the cluster only what the node itself knows of its removal is shown.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::watch;

use super::asked::json_answer;
use super::problem::Problem;
use super::{header, json, node};
use crate::outside;

/// What it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Why it serves nothing, a sentence each.
    pub reasons: Vec<String>,
    /// What becomes of what it holds, if it was removed.
    pub salvage: Option<SalvageView>,
}

/// How far a salvage is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SalvageView {
    /// Who was removed.
    pub node_id: String,
    /// From which cluster.
    pub cluster_id: String,
    /// By which registry document.
    pub removed_by: u64,
    /// Whether everything was given.
    pub over: bool,
    /// Partitions of which not everything was given.
    pub partitions_left: usize,
    /// Objects that held something nobody knew, and are with the owners now.
    pub imported: u64,
    /// Objects of which everything was known.
    pub known: u64,
    /// Objects that nobody took: they may have been deleted and forgotten since.
    pub quarantined: u64,
    /// Objects of buckets that were deleted.
    pub gone: u64,
    /// Records that cannot be read.
    pub damaged: u64,
    /// What it waits for, if it does.
    pub waits_for: Option<String>,
}

#[derive(Serialize)]
struct ClusterView {
    ready: bool,
    reasons: Vec<String>,
    members: [(); 0],
    salvage: SalvageView,
}

type Told = watch::Receiver<Waiting>;

/// The routes; `told` says why they are so few.
pub fn waiting(told: watch::Receiver<Waiting>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/v1/cluster", get(cluster))
        .fallback(nothing)
        .with_state(told)
        .layer(middleware::from_fn(finish))
}

async fn live() -> Response {
    json_answer(StatusCode::OK, &node::Live::yes())
}

async fn ready(State(told): State<Told>) -> Problem {
    node::not_ready(told.borrow().reasons.clone())
}

async fn cluster(told: State<Told>) -> Result<Response, Problem> {
    let Waiting { reasons, salvage } = told.borrow().clone();
    let Some(salvage) = salvage else {
        return Err(nothing(told).await);
    };
    let (ready, members) = (false, []);
    let view = ClusterView {
        ready,
        reasons,
        members,
        salvage,
    };
    Ok(json_answer(StatusCode::OK, &view))
}

async fn nothing(State(told): State<Told>) -> Problem {
    let why = told.borrow().reasons.join("; ");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_serving", why);
    problem.with("outcome", "not_written").retry()
}

/// Renders problems, with a trace id that nobody records.
async fn finish(request: Request, next: Next) -> Response {
    let trace_id = json::trace_id(outside::rng().random());
    let mut response = next.run(request).await;
    let mut response = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.render(&trace_id),
        None => response.into_response(),
    };
    let value = HeaderValue::from_str(&trace_id).expect("hexadecimal digits");
    response.headers_mut().insert(header::TRACE_ID, value);
    response
}
