//! `GET /v1/buckets/{bucket}/conflicts`: keys whose siblings nothing merged, and why.
//!
//! Pages as the list of keys does, by the last key. It is a feed to look at, made of what reads ran into: a key
//! that nobody reads is not in it.

use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{Answer, Asked, ok};
use super::document::{BucketPath, parameters, problems};
use super::json::{self, Octets};
use super::list;
use super::moment;
use crate::coordinator::Conflict;

parameters!(FeedQuery, query super::list::FEED);
problems!(FeedProblems: 404 503);

/// A page of the conflict feed.
#[derive(Serialize, ToSchema)]
pub(super) struct ConflictList {
    /// In the order of keys.
    conflicts: Vec<ConflictJson>,
    /// Pass it as `start`; null at the end.
    next: Option<Octets>,
}

/// A key that a person, or a better resolver, has to look at.
#[derive(Serialize, ToSchema)]
struct ConflictJson {
    key: Octets,
    /// Why it is unresolved.
    reason: String,
    /// `name@sha256:…`; null if none is bound.
    resolver: Option<String>,
    /// Live siblings.
    siblings: usize,
    #[schema(format = DateTime)]
    since: String,
    /// The read that met it first.
    trace_id: Option<String>,
}

impl From<Conflict> for ConflictJson {
    fn from(conflict: Conflict) -> Self {
        Self {
            key: Octets(conflict.key),
            reason: conflict.reason,
            resolver: conflict
                .resolver
                .map(|(name, version)| format!("{name}@{version}")),
            siblings: conflict.siblings as usize,
            since: moment::rfc3339(conflict.since_ms),
            trace_id: Some(json::trace_id(conflict.trace_id)),
        }
    }
}

/// Read the conflict feed
#[utoipa::path(get, path = "/v1/buckets/{bucket}/conflicts", tag = "keys", operation_id = "listConflicts",
    params(BucketPath, FeedQuery),
    responses((status = 200, description = "A page of the feed", body = ConflictList), FeedProblems))]
pub(super) async fn conflicts(asked: Asked) -> Answer {
    let query = asked.query(list::FEED)?;
    let page = asked.call.conflicts(list::request(&asked, &query)?).await?;
    ok(&ConflictList {
        conflicts: page.conflicts.into_iter().map(ConflictJson::from).collect(),
        next: page.next.map(Octets),
    })
}
