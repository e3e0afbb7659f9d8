//! `GET /v1/resolvers/{name}/logs`: what a resolver wrote into its log on this node.
//!
//! The guest's own words, kept as they came. Each node has its own: reads are merged where they are asked. The same
//! lines, the first of each call, stand as events on the span of the merge.

use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::document::{ResolverPath, problems};
use super::json;
use super::moment;
use super::path;
use crate::coordinator::GuestLine;

problems!(LogProblems: 404 503);

/// What a resolver logged on this node.
#[derive(Serialize, ToSchema)]
pub(super) struct GuestLogJson {
    /// The node that was asked.
    node_id: String,
    /// The last ones, oldest first.
    lines: Vec<GuestLineJson>,
    /// Lines that had to make room since the node started.
    dropped: u64,
}

/// One line.
#[derive(Serialize, ToSchema)]
struct GuestLineJson {
    #[schema(format = DateTime)]
    at: String,
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    version: String,
    bucket: String,
    #[schema(pattern = "^(debug|info|warn|error)$")]
    level: &'static str,
    message: String,
    /// The request that it was called for.
    trace_id: String,
}

impl From<GuestLine> for GuestLineJson {
    fn from(line: GuestLine) -> Self {
        Self {
            at: moment::rfc3339(line.at_ms),
            version: line.version.to_string(),
            bucket: line.bucket,
            level: line.level.as_str(),
            message: line.message,
            trace_id: json::trace_id(line.trace_id),
        }
    }
}

/// Read what a resolver logged
#[utoipa::path(get, path = "/v1/resolvers/{name}/logs", tag = "resolvers", operation_id = "getResolverLogs",
    params(ResolverPath),
    responses((status = 200, description = "The last lines on this node", body = GuestLogJson), LogProblems))]
pub(super) async fn logs(asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::resolver(asked.path(), 2)?;
    let log = asked.call.guest_log(&name)?;
    ok(&GuestLogJson {
        node_id: asked.call.node_id().to_string(),
        lines: log.lines.into_iter().map(GuestLineJson::from).collect(),
        dropped: log.dropped,
    })
}
