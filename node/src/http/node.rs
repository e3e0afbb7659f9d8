//! Health, metrics, tracing, logging, version: what operators and their machines ask of one node.
//!
//! `ready` says why not, in words for a person; `live` knows nothing but that the process answers. `/metrics` is
//! text in whichever of the two formats the scraper accepts.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::cluster::MAX_SMALL_BODY_BYTES;
use super::document::problems;
use super::header;
use super::problem::Problem;

/// The contract that resolvers are built against.
const WIT: &str = include_str!("../../../wit/resolver.wit");

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A filter names a dozen modules; each directive is looked at for every line.
const MAX_LOG_FILTER_CHARS: usize = 1024;

problems!(ReadyProblems: 503);

/// That the process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    live: bool,
}

impl Live {
    /// It does.
    pub(super) fn yes() -> Self {
        Self { live: true }
    }
}

/// Ask whether the process runs
#[utoipa::path(get, path = "/health/live", tag = "node", operation_id = "getLive",
    responses((status = 200, description = "It runs", body = Live)))]
pub(super) async fn live(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&Live::yes())
}

/// That the node serves.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
    /// What an operator should know all the same.
    reasons: Vec<String>,
}

/// Ask whether the node serves
#[utoipa::path(get, path = "/health/ready", tag = "node", operation_id = "getReady",
    responses((status = 200, description = "It serves", body = Ready), ReadyProblems))]
pub(super) async fn ready(asked: Asked) -> Answer {
    asked.query(&[])?;
    let health = asked.call.health();
    if health.ready {
        return ok(&Ready {
            ready: true,
            reasons: health.reasons,
        });
    }
    Err(not_ready(health.reasons))
}

/// 503, with the reasons.
pub(super) fn not_ready(reasons: Vec<String>) -> Problem {
    let detail = format!("this node does not serve keys now: {}", reasons.join("; "));
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail);
    problem
        .with("ready", false)
        .with("reasons", reasons)
        .retry()
}

/// Read metrics
///
/// OpenMetrics if `Accept` asks for it, else the text form of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", operation_id = "getMetrics",
    responses((status = 200, description = "Every metric", content(
        (String = "application/openmetrics-text"),
        (String = "text/plain"),
    ))))]
pub(super) async fn metrics(asked: Asked) -> Answer {
    asked.query(&[])?;
    let wanted = header::wants(asked.headers(), "application/openmetrics-text");
    let openmetrics = wanted.is_some_and(|weight| weight > 0);
    let kind = if openmetrics { OPENMETRICS } else { PROMETHEUS };
    Ok(([(CONTENT_TYPE, kind)], asked.call.metrics(openmetrics)).into_response())
}

/// What this node is.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    name: &'static str,
    version: &'static str,
    /// The contract it speaks with resolvers.
    resolver_contract: &'static str,
}

/// Read the version
#[utoipa::path(get, path = "/version", tag = "node", operation_id = "getVersion",
    responses((status = 200, description = "What this node is", body = Version)))]
pub(super) async fn version(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&Version {
        name: "sibyl",
        version: env!("CARGO_PKG_VERSION"),
        resolver_contract: contract(),
    })
}

/// `sibyl:resolver@0.1.0`, from the first line of the contract.
fn contract() -> &'static str {
    let line = WIT.lines().find_map(|line| line.strip_prefix("package "));
    line.map_or("", |line| line.trim_end_matches(';'))
}

/// Read the contract that resolvers are built against
#[utoipa::path(get, path = "/v1/wit", tag = "resolvers", operation_id = "getWit",
    responses((status = 200, description = "WIT", body = String, content_type = "text/plain")))]
pub(super) async fn wit(asked: Asked) -> Answer {
    asked.query(&[])?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], WIT).into_response())
}

/// How many requests are traced.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tracing {
    /// From 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    ratio: f64,
}

/// Read the share of requests that is traced
#[utoipa::path(get, path = "/v1/trace", tag = "node", operation_id = "getTrace",
    responses((status = 200, description = "The share", body = Tracing)))]
pub(super) async fn trace(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&Tracing {
        ratio: asked.call.trace_ratio(),
    })
}

/// Change the share of requests that is traced
#[utoipa::path(put, path = "/v1/trace", tag = "node", operation_id = "putTrace",
    request_body(content = Tracing),
    responses((status = 200, description = "The share from now on", body = Tracing)))]
pub(super) async fn set_trace(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let body: Tracing = asked.json(MAX_SMALL_BODY_BYTES).await?;
    if !(0.0..=1.0).contains(&body.ratio) {
        return Err(Problem::bad(
            "bad_ratio",
            format!("ratio is from 0 to 1, not {}", body.ratio),
        ));
    }
    asked.call.set_trace_ratio(body.ratio);
    ok(&body)
}

/// What the node logs.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logging {
    /// A level, and levels of modules, like `info,sibyl::peer=debug`; `off` is nothing at all.
    #[schema(min_length = 1, max_length = 1024)]
    filter: String,
}

/// Read which lines the node logs
#[utoipa::path(get, path = "/v1/log", tag = "node", operation_id = "getLog",
    responses((status = 200, description = "The filter", body = Logging)))]
pub(super) async fn log(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&Logging {
        filter: asked.call.log_filter(),
    })
}

/// Change which lines the node logs, until it ends
#[utoipa::path(put, path = "/v1/log", tag = "node", operation_id = "putLog",
    request_body(content = Logging),
    responses((status = 200, description = "The filter from now on", body = Logging)))]
pub(super) async fn set_log(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let body: Logging = asked.json(MAX_SMALL_BODY_BYTES).await?;
    let length = body.filter.chars().count();
    if !(1..=MAX_LOG_FILTER_CHARS).contains(&length) {
        return Err(Problem::bad(
            "bad_filter",
            format!("filter has 1 to {MAX_LOG_FILTER_CHARS} characters, not {length}"),
        ));
    }
    asked
        .call
        .set_log_filter(&body.filter)
        .map_err(|why| Problem::bad("bad_filter", why))?;
    ok(&body)
}
