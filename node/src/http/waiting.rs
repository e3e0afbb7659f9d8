//! What a node serves that is told to join and not named yet: health, and why it serves nothing else.
//!
//! There is no node behind it: no keys, no registry, no traces. Shapes and codes are those of the routes that follow.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use super::asked::json_answer;
use super::problem::Problem;
use super::{header, json, node};

type Reasons = watch::Receiver<Vec<String>>;

/// The routes; `reasons` says why they are so few.
pub fn waiting(reasons: watch::Receiver<Vec<String>>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .fallback(nothing)
        .with_state(reasons)
        .layer(middleware::from_fn(finish))
}

async fn live() -> Response {
    json_answer(StatusCode::OK, &node::Live::yes())
}

async fn ready(State(reasons): State<Reasons>) -> Problem {
    node::not_ready(reasons.borrow().clone())
}

async fn nothing(State(reasons): State<Reasons>) -> Problem {
    let why = reasons.borrow().join("; ");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_serving", why);
    problem.with("outcome", "not_written").retry()
}

/// Renders problems, with a trace id that nobody records.
async fn finish(request: Request, next: Next) -> Response {
    let trace_id = json::trace_id(rand::random());
    let mut response = next.run(request).await;
    let mut response = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.render(&trace_id),
        None => response.into_response(),
    };
    let value = HeaderValue::from_str(&trace_id).expect("hexadecimal digits");
    response.headers_mut().insert(header::TRACE_ID, value);
    response
}
