//! Siblings as JSON: the 300 answer, `?siblings=true`, and what explain adds.
//!
//! One shape for one thing: a sibling looks the same wherever the API shows it. Values are octets, in base64 where
//! they are no UTF-8.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use sibyl_core::object::Sibling;
use utoipa::ToSchema;

use super::json::{self, Octets};
use super::moment;

/// One of several concurrent values of a key.
#[derive(Serialize, ToSchema)]
pub(super) struct SiblingJson {
    /// Names the write: actor and counter.
    dot: String,
    /// The value; null if this sibling is a tombstone.
    value: Option<Octets>,
    /// The media type it was written with.
    content_type: String,
    /// When it was written.
    #[schema(format = DateTime)]
    modified_at: String,
    /// Whether it says deleted.
    deleted: bool,
    /// Attributes it was written with.
    attributes: BTreeMap<String, String>,
    /// The trace of its writer.
    trace_id: Option<String>,
}

impl From<&Sibling> for SiblingJson {
    fn from(sibling: &Sibling) -> Self {
        let content = &sibling.content;
        Self {
            dot: sibling.dot().to_string(),
            value: content.value.clone().map(Octets),
            content_type: content.content_type.clone(),
            modified_at: moment::rfc3339(content.modified_at),
            deleted: content.is_tombstone(),
            attributes: content.attributes.clone(),
            trace_id: content.trace.map(|trace| json::trace_id(trace.trace_id())),
        }
    }
}

/// All siblings of a key, and the context that stands for having seen them.
#[derive(Serialize, ToSchema)]
pub(super) struct SiblingList {
    /// In canonical order.
    siblings: Vec<SiblingJson>,
    /// Pass it on with the write that replaces them.
    context: String,
}

impl SiblingList {
    /// A list.
    pub(super) fn new(siblings: &[Sibling], context: String) -> Self {
        Self {
            siblings: siblings.iter().map(SiblingJson::from).collect(),
            context,
        }
    }
}

/// The bytes of a sibling; none for a tombstone.
pub(super) fn bytes_of(sibling: &Sibling) -> Bytes {
    sibling.content.value.clone().unwrap_or_default()
}
