//! `GET /v1/buckets/{bucket}/keys`: keys in byte order, a page at a time.
//!
//! A page is complete up to its cursor or the answer is 503, never a short list. Keys are shown as JSON octets,
//! since a key need not be UTF-8.

use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::document::{BucketPath, parameters, problems};
use super::json::Octets;
use super::path;
use super::problem::Problem;
use super::query::{Kind, Parameter, Query, parameter};
use crate::coordinator::ListRequest;

const START: Parameter = parameter(
    "start",
    Kind::Bytes,
    "Only what comes after this key: `next` of the page before.",
);
const LIMIT: Parameter = parameter("limit", Kind::Limit, "At most so many entries.");
const LIST: &[Parameter] = &[
    parameter(
        "prefix",
        Kind::Bytes,
        "Only keys that begin with these bytes, percent-encoded.",
    ),
    START,
    LIMIT,
];
/// What the conflict feed takes.
pub(super) const FEED: &[Parameter] = &[START, LIMIT];

parameters!(ListQuery, query LIST);
problems!(ListProblems: 404 503);

/// A page of keys.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyPage {
    /// In byte order.
    keys: Vec<Octets>,
    /// The last key, if there are more: pass it as `start`. Null at the end.
    next: Option<Octets>,
}

/// List keys
///
/// Deleted keys are left out. A part of the bucket that too few nodes can answer for gives 503, never a short
/// list.
#[utoipa::path(get, path = "/v1/buckets/{bucket}/keys", tag = "keys", operation_id = "listKeys",
    params(BucketPath, ListQuery),
    responses((status = 200, description = "A page of keys", body = KeyPage), ListProblems))]
pub(super) async fn list(asked: Asked) -> Answer {
    let query = asked.query(LIST)?;
    let listed = asked.call.list(request(&asked, &query)?).await?;
    ok(&KeyPage {
        keys: listed.keys.into_iter().map(Octets).collect(),
        next: listed.next.map(Octets),
    })
}

/// A page of the bucket in the path.
pub(super) fn request(asked: &Asked, query: &Query) -> Result<ListRequest, Problem> {
    Ok(ListRequest {
        bucket: path::bucket(asked.path(), 2)?,
        prefix: query.bytes("prefix")?.unwrap_or_default(),
        after: query.bytes("start")?,
        limit: query.limit()?,
        all: false,
    })
}
