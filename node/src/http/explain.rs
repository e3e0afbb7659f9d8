//! `?explain=true`: why a key says what it says.
//!
//! Each owner's copy, each sibling with its dots and its writer's trace, and what the resolver made of them.
//! Folds and their journal come with folding; until then a sibling is always a plain write.

use axum::response::Response;
use serde::Serialize;
use sibyl_core::object::Sibling;
use utoipa::ToSchema;

use super::asked::{Asked, json_answer};
use super::json::{self, Octets};
use super::moment;
use super::problem::Problem;
use super::reading;
use crate::coordinator::{Explained, GetRequest, Owner};

/// Why a key says what it says.
#[derive(Serialize, ToSchema)]
pub(super) struct Explanation {
    /// The bucket.
    bucket: String,
    /// The key.
    key: Octets,
    /// The slice of the ring that the key is in.
    partition: u32,
    /// Its nodes in the order of the ring, each with its copy.
    preference_list: Vec<OwnerJson>,
    /// Every sibling, tombstones too, in canonical order.
    siblings: Vec<ExplainedSibling>,
    /// What the resolver made of them; null if none is bound or there was nothing to merge.
    resolver: Option<ResolverRun>,
    /// Recorded folds.
    journal: Vec<JournalEntry>,
}

/// One node's copy.
#[derive(Serialize, ToSchema)]
struct OwnerJson {
    node_id: String,
    #[schema(pattern = "^(primary|fallback)$")]
    role: &'static str,
    /// `alive`, `suspect`, `down` or `left`, as the answering node sees it.
    state: &'static str,
    /// Null if it holds nothing, or did not answer.
    object_digest: Option<String>,
    /// Null if it did not answer.
    siblings: Option<u32>,
    /// Whether what it holds is a hint: kept for a primary until that is back.
    hint: bool,
}

/// One sibling, without its value.
#[derive(Serialize, ToSchema)]
struct ExplainedSibling {
    dot: String,
    bytes: usize,
    content_type: String,
    #[schema(format = DateTime)]
    modified_at: String,
    deleted: bool,
    trace_id: Option<String>,
    /// Every dot it stands for.
    dots: Vec<String>,
    /// Where a folded value comes from; null for a plain write.
    folded_from: Option<FoldedFrom>,
}

/// The inputs of a fold.
#[derive(Serialize, ToSchema)]
struct FoldedFrom {
    id: String,
    resolver: String,
    inputs: Vec<FoldInput>,
    trace_id: Option<String>,
}

/// One input of a fold.
#[derive(Serialize, ToSchema)]
struct FoldInput {
    dot: String,
    trace_id: Option<String>,
}

/// A recorded fold.
#[derive(Serialize, ToSchema)]
struct JournalEntry {
    fold: String,
    #[schema(format = DateTime)]
    at: String,
    resolver: String,
    inputs: Vec<JournalInput>,
}

/// One input of a recorded fold.
#[derive(Serialize, ToSchema)]
struct JournalInput {
    dot: String,
    bytes: usize,
}

/// A resolver's run.
#[derive(Serialize, ToSchema)]
struct ResolverRun {
    name: String,
    version: String,
    #[schema(pattern = "^(merged|picked|kept|deleted|failed)$")]
    outcome: &'static str,
    /// Why it failed, if it did.
    failure: Option<String>,
}

/// Answers a read with `explain=true`.
pub(super) async fn answer(asked: &Asked, request: GetRequest) -> Result<Response, Problem> {
    let (bucket, key) = (request.bucket.clone(), Octets(request.key.clone()));
    let explained = asked.call.explain(request).await?;
    let body = explanation(bucket, key, explained);
    Ok(json_answer(axum::http::StatusCode::OK, &body))
}

fn explanation(bucket: String, key: Octets, explained: Explained) -> Explanation {
    let resolver = explained.resolver.map(|note| ResolverRun {
        name: note.name,
        version: note.version.to_string(),
        outcome: reading::outcome(note.outcome),
        failure: note.failure,
    });
    Explanation {
        bucket,
        key,
        partition: explained.partition,
        preference_list: explained.preference.into_iter().map(owner).collect(),
        siblings: explained.siblings.iter().map(sibling).collect(),
        resolver,
        journal: Vec::new(),
    }
}

fn owner(owner: Owner) -> OwnerJson {
    OwnerJson {
        node_id: owner.node.into(),
        role: if owner.primary { "primary" } else { "fallback" },
        state: owner.state,
        object_digest: owner.digest.map(|digest| digest.to_string()),
        siblings: owner.siblings,
        hint: owner.hint,
    }
}

fn sibling(sibling: &Sibling) -> ExplainedSibling {
    let content = &sibling.content;
    let folded_from = sibling.fold.as_ref().map(|fold| FoldedFrom {
        id: format!("{}:{}", sibling.actor, sibling.group),
        resolver: fold.resolver.to_string(),
        inputs: fold
            .inputs
            .iter()
            .map(|input| FoldInput {
                dot: format!("{}:{}", sibling.actor, input.counter),
                trace_id: None,
            })
            .collect(),
        trace_id: None,
    });
    ExplainedSibling {
        dot: sibling.dot().to_string(),
        bytes: content.value.as_ref().map_or(0, bytes::Bytes::len),
        content_type: content.content_type.clone(),
        modified_at: moment::rfc3339(content.modified_at),
        deleted: content.is_tombstone(),
        trace_id: content.trace.map(|trace| json::trace_id(trace.trace_id())),
        dots: sibling.dots().map(|dot| dot.to_string()).collect(),
        folded_from,
    }
}
