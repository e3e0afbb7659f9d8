//! `GET /v1/backup`: a backup of this node, as it is between two batches.
//!
//! The body is a file in itself and proves that it is whole: if the node fails on the way the connection breaks,
//! and what arrived has no last part. It holds every value and the cluster's secret keys.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;

use super::asked::{Answer, Asked};
use super::document::problems;
use super::json::Raw;

problems!(BackupProblems: 503);

/// Take a backup of this node
///
/// Everything that this node holds: objects, hints, its registry document with the cluster's secret keys, and
/// resolvers. The answer is one file, made while the node goes on; `sibyl restore` makes a node of it again. One at
/// a time: a second one is refused with 503 `backup_running`.
#[utoipa::path(get, path = "/v1/backup", tag = "node", operation_id = "getBackup",
    responses((status = 200, description = "The backup", body = Raw,
        content_type = "application/octet-stream"), BackupProblems))]
pub(super) async fn backup(asked: Asked) -> Answer {
    asked.query(&[])?;
    let pieces = asked.call.backup()?;
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let kind = (CONTENT_TYPE, "application/octet-stream");
    Ok(([kind], Body::from_stream(pieces)).into_response())
}
