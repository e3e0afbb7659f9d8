//! `POST /v1/buckets/{bucket}/batch`: many operations in one request, each answered on its own.
//!
//! Not a transaction. Operations on one key run in their order, those on different keys beside each other;
//! results stand in the order of the operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sibyl_core::retry::Key;
use sibyl_core::view::View;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::asked::{Answer, Asked, ok};
use super::document::{self, BucketPath, parameters, problems};
use super::form::{Attributes, IdempotencyKey, MediaType, Sealed};
use super::header;
use super::json::{self, KeyOctets, Octets};
use super::keys::Target;
use super::moment;
use super::path;
use super::problem::Problem;
use super::query::Query;
use super::reading;
use super::siblings::SiblingList;
use crate::coordinator::Got;

/// The most operations of one request.
pub(super) const MAX_OPS: usize = 128;
/// The most bytes of one request: what 128 values of 128 KiB take in base64, with room for their keys.
pub(super) const MAX_BODY_BYTES: usize = 24 << 20;
/// How many keys are worked on at once. One client must not take the node for itself.
const KEYS_AT_ONCE: usize = 16;

parameters!(BatchHeaders, [document::idempotency_key()]);

problems!(BatchProblems: 404 414 503);

/// What an operation does.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Get,
    Put,
    Delete,
}

/// One operation.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    /// Read a key.
    Get {
        /// 1 to 1024 bytes.
        #[schema(value_type = KeyOctets)]
        key: Octets,
    },
    /// Write a key.
    Put {
        /// 1 to 1024 bytes.
        #[schema(value_type = KeyOctets)]
        key: Octets,
        value: Octets,
        /// Default `application/octet-stream`.
        content_type: Option<MediaType>,
        /// Of your last read.
        context: Option<Sealed>,
        attributes: Option<Attributes>,
        /// Your name for this operation, so that you may repeat it; in place of the header.
        idempotency_key: Option<IdempotencyKey>,
    },
    /// Delete a key.
    Delete {
        /// 1 to 1024 bytes.
        #[schema(value_type = KeyOctets)]
        key: Octets,
        /// Of your last read.
        context: Sealed,
        /// Your name for this operation, so that you may repeat it; in place of the header.
        idempotency_key: Option<IdempotencyKey>,
    },
}

impl Op {
    fn kind(&self) -> Kind {
        match self {
            Self::Get { .. } => Kind::Get,
            Self::Put { .. } => Kind::Put,
            Self::Delete { .. } => Kind::Delete,
        }
    }

    /// Its own name, or that of the batch with its place in it.
    fn idempotency_key(&self, at: usize, batch: Option<&Key>) -> Option<Key> {
        let own = match self {
            Self::Get { .. } => None,
            Self::Put {
                idempotency_key, ..
            }
            | Self::Delete {
                idempotency_key, ..
            } => idempotency_key.clone(),
        };
        let place = u32::try_from(at).unwrap_or(u32::MAX);
        let of_batch = || batch.map(|key| key.clone().of_op(place));
        own.map(|own| own.0).or_else(of_batch)
    }

    fn key(&self) -> &Octets {
        match self {
            Self::Get { key } | Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// Documents an operation: each kind has its own fields and takes no others.
struct ClosedOp;

impl PartialSchema for ClosedOp {
    fn schema() -> RefOr<Schema> {
        let mut schema = Op::schema();
        if let RefOr::T(Schema::OneOf(kinds)) = &mut schema {
            for kind in &mut kinds.items {
                if let RefOr::T(Schema::Object(fields)) = kind {
                    fields.additional_properties =
                        Some(Box::new(AdditionalProperties::FreeForm(false)));
                }
            }
        }
        schema
    }
}

impl ToSchema for ClosedOp {
    fn name() -> Cow<'static, str> {
        Op::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Op::schemas(schemas);
    }
}

/// Operations.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    #[schema(max_items = 128, value_type = Vec<ClosedOp>)]
    ops: Vec<Op>,
}

/// What became of one operation.
#[derive(Serialize, ToSchema)]
struct OpResult {
    op: Kind,
    key: Octets,
    /// The status that the single request would have had.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The value, on 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Octets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    modified_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    /// `true` on a write that was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeated: Option<bool>,
    /// The siblings, on 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    siblings: Option<SiblingList>,
    /// The problem document, from 400 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    problem: Option<Map<String, Value>>,
}

/// What became of them, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchResult {
    results: Vec<OpResult>,
}

/// Run many operations
///
/// A body that breaks its schema is refused whole and does nothing; what goes wrong with an operation otherwise
/// is in its result. With `Idempotency-Key` the whole batch may be repeated as it is: each write is told from the
/// others by its place.
#[utoipa::path(post, path = "/v1/buckets/{bucket}/batch", tag = "keys", operation_id = "batch",
    params(BucketPath, BatchHeaders),
    request_body(content = Batch),
    responses((status = 200, description = "Each operation's own result, in order", body = BatchResult), BatchProblems))]
pub(super) async fn batch(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let bucket = path::bucket(asked.path(), 2)?;
    let repeats = header::idempotency_key(asked.headers())?;
    let batch: Batch = asked.json(MAX_BODY_BYTES).await?;
    let lanes = lanes(batch.ops)?;
    asked.call.max_value_bytes(&bucket)?;
    let (asked, bucket, repeats) = (&asked, bucket.as_str(), repeats.as_ref());
    let mut results: Vec<_> = stream::iter(lanes.into_values())
        .map(|lane| run_lane(asked, (bucket, repeats), lane))
        .buffer_unordered(KEYS_AT_ONCE)
        .flat_map(stream::iter)
        .collect()
        .await;
    results.sort_unstable_by_key(|(at, _)| *at);
    ok(&BatchResult {
        results: results.into_iter().map(|(_, result)| result).collect(),
    })
}

/// Operations by their key, each with its place.
type Lanes = BTreeMap<Bytes, Vec<(usize, Op)>>;

fn lanes(ops: Vec<Op>) -> Result<Lanes, Problem> {
    if ops.len() > MAX_OPS {
        let detail = format!(
            "{} operations, one request takes at most {MAX_OPS}",
            ops.len()
        );
        return Err(Problem::bad("too_many_ops", detail));
    }
    let mut lanes = Lanes::new();
    for (at, op) in ops.into_iter().enumerate() {
        let key =
            path::checked_key(op.key().0.clone()).map_err(|problem| problem.with("op", at))?;
        lanes.entry(key).or_default().push((at, op));
    }
    Ok(lanes)
}

async fn run_lane(
    asked: &Asked,
    (bucket, repeats): (&str, Option<&Key>),
    lane: Vec<(usize, Op)>,
) -> Vec<(usize, OpResult)> {
    let mut results = Vec::with_capacity(lane.len());
    for (at, op) in lane {
        let mut result = OpResult::new(op.kind(), op.key().clone());
        let idempotency_key = op.idempotency_key(at, repeats);
        if let Err(problem) = run(asked, bucket, (op, idempotency_key), &mut result).await {
            let trace_id = json::trace_id(asked.call.trace_id());
            result.status = problem.status().as_u16();
            result.problem = Some(problem.document(&trace_id));
        }
        results.push((at, result));
    }
    results
}

async fn run(
    asked: &Asked,
    bucket: &str,
    (op, idempotency_key): (Op, Option<Key>),
    result: &mut OpResult,
) -> Result<(), Problem> {
    let key = op.key().0.clone();
    let target = Target::new(bucket.to_owned(), key.clone(), &Query::default())?;
    let mut request = match op {
        Op::Get { .. } => {
            let got = asked.call.get(target.get(false, true)).await?;
            return result.read(asked, &key, got);
        }
        Op::Put {
            value,
            content_type,
            context,
            attributes,
            ..
        } => {
            let attributes = attributes.unwrap_or_default().0;
            header::check_attributes(&attributes)?;
            let open = |sealed| asked.open(bucket, &key, sealed);
            let context = context.as_ref().map(open).transpose()?;
            let kind = content_type.map_or_else(|| header::OCTET_STREAM.to_owned(), |kind| kind.0);
            let mut request = target.put(context, Some(value.0), kind);
            request.attributes = attributes;
            request
        }
        Op::Delete { context, .. } => {
            let context = asked.open(bucket, &key, &context)?;
            target.put(Some(context), None, header::OCTET_STREAM.to_owned())
        }
    };
    request.idempotency_key = idempotency_key;
    let stored = asked.call.put(request).await?;
    result.status = 204;
    result.repeated = stored.repeated.then_some(true);
    result.modified_at = Some(moment::rfc3339(stored.modified_at));
    result.context = Some(reading::sealed(asked, stored.bucket, &key, &stored.context));
    Ok(())
}

impl OpResult {
    fn new(op: Kind, key: Octets) -> Self {
        Self {
            op,
            key,
            status: 200,
            value: None,
            content_type: None,
            modified_at: None,
            attributes: None,
            context: None,
            repeated: None,
            siblings: None,
            problem: None,
        }
    }

    fn read(&mut self, asked: &Asked, key: &Bytes, got: Got) -> Result<(), Problem> {
        let context = reading::sealed(asked, got.bucket, key, &got.context);
        match got.view {
            View::Gone => {
                if !got.context.is_empty() {
                    self.context = Some(context);
                }
                return Err(Problem::new(
                    axum::http::StatusCode::NOT_FOUND,
                    "no_value",
                    "the key has no value",
                ));
            }
            View::One(content) => {
                self.value = content.value.map(Octets);
                self.content_type = Some(content.content_type);
                self.modified_at = Some(moment::rfc3339(content.modified_at));
                self.attributes = Some(content.attributes);
                self.context = Some(context);
            }
            View::Siblings(siblings) => {
                self.status = 300;
                self.siblings = Some(SiblingList::new(&siblings, context));
            }
        }
        Ok(())
    }
}
