//! The edge: what happens to every request before and after its handler.
//!
//! It starts the request's call with the route's template (never the path, which holds a key), refuses
//! oversized heads and headers of features that do not exist yet, turns a panic into a 500, renders problem
//! documents, and puts `Sibyl-Trace-Id` on every answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;

use super::api::{Api, Arrival, Departure};
use super::asked::Entered;
use super::body::{self, Intake};
use super::header::{self, Promises};
use super::json;
use super::problem::Problem;

/// The most bytes of all header names and values of a request.
pub(super) const MAX_HEADER_BYTES: usize = 32 << 10;

/// The route of a request that matches none.
const UNMATCHED: &str = "unmatched";

/// What the edge needs to know.
#[derive(Clone)]
pub(super) struct Edge {
    /// The node.
    pub(super) api: Arc<dyn Api>,
    /// What bodies may take.
    pub(super) intake: Intake,
}

/// Wraps every route.
pub(super) async fn enter(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched
        .as_ref()
        .map_or(UNMATCHED.into(), |path| template(path.as_str()));
    let call = edge.api.begin(Arrival {
        method: request.method().as_str(),
        route: &route,
        query: request.uri().query(),
        traceparent: request
            .headers()
            .get("traceparent")
            .and_then(|value| value.to_str().ok()),
        request_bytes: body::declared(request.headers()).unwrap_or(0),
    });
    let trace_id = json::trace_id(call.trace_id());
    let response = match admit(&request, &route) {
        Err(problem) => Err(problem),
        Ok(()) => {
            let entered = Entered {
                call: Arc::clone(&call),
                intake: edge.intake,
            };
            request.extensions_mut().insert(entered);
            run(request, next, &route, &trace_id).await
        }
    };
    let response = finish(response, &trace_id);
    call.end(Departure {
        status: response.status().as_u16(),
        response_bytes: body::declared(response.headers())
            .unwrap_or_else(|| response.body().size_hint().lower()),
    });
    response
}

/// The route as the API's documents write it: `{*key}` is axum's word for the rest of the path.
pub(super) fn template(route: &str) -> String {
    route.replace("{*", "{")
}

fn admit(request: &Request, route: &str) -> Result<(), Problem> {
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            format!("the headers have {bytes} bytes, at most {MAX_HEADER_BYTES} are taken"),
        ));
    }
    // Probes and scrapers send what their platform gives them.
    if route.starts_with("/health/") || route == "/metrics" {
        return Ok(());
    }
    header::refuse_unsupported(headers, Promises::of(request.method(), route))
}

async fn run(
    request: Request,
    next: Next,
    route: &str,
    trace_id: &str,
) -> Result<Response, Problem> {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(route, trace_id, panic = text, "a request handler panicked");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "a bug in the node ended this request; its log has the trace id. Whether a write happened is not known",
        )
    })
}

fn finish(response: Result<Response, Problem>, trace_id: &str) -> Response {
    let mut response = match response {
        Ok(mut response) => match response.extensions_mut().remove::<Problem>() {
            // An `Allow` that the router put on the empty answer has to stay.
            Some(problem) => {
                let mut rendered = problem.render(trace_id);
                if let Some(allow) = response.headers_mut().remove(ALLOW) {
                    rendered.headers_mut().insert(ALLOW, allow);
                }
                rendered
            }
            None => response,
        },
        Err(problem) => problem.render(trace_id),
    };
    let value = HeaderValue::from_str(trace_id).expect("hexadecimal digits");
    response.headers_mut().insert(header::TRACE_ID, value);
    response
}
