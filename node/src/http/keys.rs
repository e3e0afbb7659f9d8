//! `/v1/buckets/{bucket}/keys/{key}`: read, write, delete.
//!
//! The plain data path: bytes in, bytes out, everything else in headers. What the headers of an answer are
//! stands in `reading`.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::IF_NONE_MATCH;
use axum::response::IntoResponse;
use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::quorum::Level;
use sibyl_core::view::View;
use tokio::time::Instant;

use super::asked::{Answer, Asked};
use super::document::{self, KeyPath, parameters, problems};
use super::explain;
use super::form;
use super::header;
use super::json::Raw;
use super::path;
use super::problem::Problem;
use super::query::{Kind, Parameter, Query, parameter};
use super::reading;
use super::siblings::SiblingList;
use crate::coordinator::{DEFAULT_TIMEOUT, GetRequest, MAX_TIMEOUT, PutRequest, Stored};

const R: Parameter = parameter(
    "r",
    Kind::Level,
    "How many replicas must answer a read; default the bucket's.",
);
const W: Parameter = parameter(
    "w",
    Kind::Level,
    "How many copies must count before a write is acknowledged; default the bucket's.",
);
const SLOPPY: Parameter = parameter(
    "sloppy",
    Kind::Flag,
    "Whether nodes that stand in for an owner that cannot be reached count; default the bucket's.",
);
const TIMEOUT: Parameter = parameter("timeout_ms", Kind::TimeoutMs, "How long the node may take.");
const RETURN: Parameter = parameter(
    "return",
    Kind::Word(&["none", "value"]),
    "Whether the answer carries the key's view after the write; if that cannot be read, the answer is 204.",
);

const READ: &[Parameter] = &[
    R,
    SLOPPY,
    TIMEOUT,
    parameter(
        "partial",
        Kind::Flag,
        "Answer with what was found if too few replicas answer.",
    ),
    parameter(
        "resolve",
        Kind::Flag,
        "`false`: show siblings even if a resolver would merge them.",
    ),
    parameter(
        "siblings",
        Kind::Flag,
        "All siblings raw, as a JSON list, whatever their number.",
    ),
    parameter("explain", Kind::Flag, "Why the key says what it says."),
];
const WRITE: &[Parameter] = &[W, SLOPPY, TIMEOUT, RETURN];
const DELETE: &[Parameter] = &[
    W,
    R,
    SLOPPY,
    TIMEOUT,
    RETURN,
    parameter(
        "blind",
        Kind::Flag,
        "Delete what the node sees now, without a context.",
    ),
];

parameters!(ReadQuery, query READ);
parameters!(WriteQuery, query WRITE);
parameters!(DeleteQuery, query DELETE);
parameters!(
    ReadHeaders,
    [document::request_header(
        "If-None-Match",
        "The ETag of an earlier answer: 304 if nothing has changed.",
        None
    ),]
);
parameters!(
    WriteHeaders,
    [
        context_header(),
        document::request_header(
            "If-None-Match",
            "`*`: write only if a quorum read finds no live value. Advisory: not atomic.",
            Some("^\\*$")
        ),
        document::request_header(
            "Sibyl-Attr-Name",
            "An attribute of the value, under any name instead of `Name`: at most 16, 1 KiB together.",
            None
        ),
        document::idempotency_key(),
    ]
);
parameters!(
    DeleteHeaders,
    [context_header(), document::idempotency_key()]
);

problems!(ReadProblems: 404 414 503);
problems!(WriteProblems: 404 409 412 414 422 503 507);
problems!(DeleteProblems: 404 409 412 414 422 503 507);

fn context_header() -> utoipa::openapi::path::Parameter {
    let about =
        "The context of your last read of this key: the write replaces exactly what that read saw.";
    document::request_header("Sibyl-Context", about, Some(form::CONTEXT_PATTERN))
}

/// Which key a request is about, and what any request for a key says.
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) key: Bytes,
    pub(super) r: Option<Level>,
    pub(super) w: Option<Level>,
    pub(super) sloppy: Option<bool>,
    timeout: Option<Duration>,
    /// When all that the request does is over; `None` before it does anything.
    until: Option<Instant>,
}

impl Target {
    /// From a query that the route has checked.
    pub(super) fn new(bucket: String, key: Bytes, query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            bucket,
            key,
            r: query.level("r")?,
            w: query.level("w")?,
            sloppy: query.maybe_flag("sloppy")?,
            timeout: query.timeout()?,
            until: None,
        })
    }

    /// The request is here, body and all: from now on its reads and its write share one deadline.
    pub(super) fn begin(&mut self) {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
        self.until = Some(Instant::now() + timeout);
    }

    /// How long the next step may take.
    fn left(&self) -> Option<Duration> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map(left).or(self.timeout)
    }

    fn of(asked: &Asked, query: &Query) -> Result<Self, Problem> {
        let bucket = path::bucket(asked.path(), 2)?;
        Self::new(bucket, path::key(asked.path(), 4)?, query)
    }

    /// A read of it.
    pub(super) fn get(&self, partial: bool, resolve: bool) -> GetRequest {
        GetRequest {
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            r: self.r,
            sloppy: self.sloppy,
            timeout: self.left(),
            partial,
            resolve,
        }
    }

    /// A write to it, without attributes.
    pub(super) fn put(
        &self,
        context: Option<Context>,
        value: Option<Bytes>,
        content_type: String,
    ) -> PutRequest {
        PutRequest {
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            context,
            value,
            content_type,
            attributes: std::collections::BTreeMap::new(),
            idempotency_key: None,
            w: self.w,
            sloppy: self.sloppy,
            timeout: self.left(),
        }
    }
}

/// Read a key
///
/// With `Accept: multipart/mixed` siblings come as parts instead of JSON.
#[utoipa::path(get, path = "/v1/buckets/{bucket}/keys/{*key}", tag = "keys", operation_id = "getKey",
    params(KeyPath, ReadQuery, ReadHeaders),
    responses(
        (status = 200, description = "The value as it was written; with `siblings` a SiblingList, with `explain` an Explanation", content_type = "*/*"),
        (status = 300, description = "Several siblings and no resolved view", content(
            (SiblingList = "application/json"),
            (String = "multipart/mixed"),
        )),
        (status = 304, description = "Not changed since that ETag"),
        ReadProblems,
    ))]
pub(super) async fn get(asked: Asked) -> Answer {
    read(asked).await
}

/// Read a key's headers
#[utoipa::path(head, path = "/v1/buckets/{bucket}/keys/{*key}", tag = "keys", operation_id = "headKey",
    params(KeyPath, ReadQuery, ReadHeaders),
    responses(
        (status = 200, description = "There is a value"),
        (status = 300, description = "There are several siblings"),
        (status = 304, description = "Not changed since that ETag"),
        ReadProblems,
    ))]
pub(super) async fn head(asked: Asked) -> Answer {
    read(asked).await
}

async fn read(asked: Asked) -> Answer {
    let query = asked.query(READ)?;
    let target = Target::of(&asked, &query)?;
    let (all, why) = (query.flag("siblings")?, query.flag("explain")?);
    let resolve = query.maybe_flag("resolve")?.unwrap_or(true);
    let request = target.get(query.flag("partial")?, resolve && !all);
    match (all, why) {
        (true, true) => Err(Problem::bad(
            "bad_parameter",
            "siblings and explain are two answers: ask for one of them",
        )),
        (false, true) => explain::answer(&asked, request).await,
        (all, false) => {
            let got = asked.call.get(request).await?;
            if all {
                Ok(reading::all(&asked, &target.key, &got))
            } else {
                reading::answer(&asked, &target.key, got)
            }
        }
    }
}

/// Write a key
#[utoipa::path(put, path = "/v1/buckets/{bucket}/keys/{*key}", tag = "keys", operation_id = "putKey",
    params(KeyPath, WriteQuery, WriteHeaders),
    request_body(content = Raw, content_type = "application/octet-stream", description = "The value. Any media type is taken, and kept."),
    responses(
        (status = 200, description = "Acknowledged; the view after the write", content_type = "*/*"),
        (status = 204, description = "Acknowledged by W copies"),
        (status = 300, description = "Acknowledged; several siblings after the write", content(
            (SiblingList = "application/json"),
            (String = "multipart/mixed"),
        )),
        WriteProblems,
    ))]
pub(super) async fn put(mut asked: Asked) -> Answer {
    let query = asked.query(WRITE)?;
    let mut target = Target::of(&asked, &query)?;
    let returns = query.word("return")? == Some("value");
    let content_type = header::content_type(asked.headers())?;
    let attributes = header::attributes(asked.headers())?;
    let idempotency_key = header::idempotency_key(asked.headers())?;
    let (sealed, absent) = (asked.sealed()?, only_if_absent(&asked)?);
    let open = |sealed| asked.open(&target.bucket, &target.key, sealed);
    let context = sealed.as_ref().map(open).transpose()?;
    let cap = asked.call.max_value_bytes(&target.bucket)?;
    let value = asked.body(cap).await?;
    target.begin();
    let mut request = target.put(context, Some(value), content_type);
    (request.attributes, request.idempotency_key) = (attributes, idempotency_key);
    if absent {
        refuse_present(&asked, &target, &request).await?;
        request.timeout = target.left();
    }
    let stored = asked.call.put(request).await?;
    written(&asked, &target, &stored, returns).await
}

/// Delete a key
#[utoipa::path(delete, path = "/v1/buckets/{bucket}/keys/{*key}", tag = "keys", operation_id = "deleteKey",
    params(KeyPath, DeleteQuery, DeleteHeaders),
    responses(
        (status = 200, description = "Acknowledged; the view of what others wrote meanwhile", content_type = "*/*"),
        (status = 204, description = "Acknowledged by W copies"),
        (status = 300, description = "Acknowledged; several siblings that others wrote meanwhile", content(
            (SiblingList = "application/json"),
            (String = "multipart/mixed"),
        )),
        DeleteProblems,
    ))]
pub(super) async fn delete(asked: Asked) -> Answer {
    let query = asked.query(DELETE)?;
    let mut target = Target::of(&asked, &query)?;
    target.begin();
    let returns = query.word("return")? == Some("value");
    let mut request = target.put(None, None, header::OCTET_STREAM.to_owned());
    request.idempotency_key = header::idempotency_key(asked.headers())?;
    let context = match (asked.sealed()?, query.flag("blind")?) {
        (Some(_), true) => {
            return Err(Problem::bad(
                "bad_parameter",
                "blind=true is for a delete without Sibyl-Context: send one of them",
            ));
        }
        (Some(sealed), false) => asked.open(&target.bucket, &target.key, &sealed)?,
        (None, true) => seen(&asked, &target, &request).await?,
        (None, false) => {
            return Err(Problem::bad(
                "context_required",
                "a delete needs the Sibyl-Context of a read, so that it removes only what you saw; ?blind=true deletes what the node sees now",
            ));
        }
    };
    (request.context, request.timeout) = (Some(context), target.left());
    let stored = asked.call.put(request).await?;
    written(&asked, &target, &stored, returns).await
}

/// What a blind delete deletes; 404 if nothing lives there, unless this is the retry of the delete that did it.
async fn seen(asked: &Asked, target: &Target, request: &PutRequest) -> Result<Context, Problem> {
    let got = asked.call.get(target.get(false, false)).await?;
    if got.live > 0 || got.knows(request) {
        return Ok(got.context);
    }
    match reading::shown(asked, &target.key, got) {
        Err(gone) => Err(gone),
        Ok(_) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_value",
            "the key has no value",
        )),
    }
}

fn only_if_absent(asked: &Asked) -> Result<bool, Problem> {
    match header::once(asked.headers(), &IF_NONE_MATCH)? {
        None => Ok(false),
        Some("*") => Ok(true),
        Some(_) => Err(Problem::bad(
            "bad_header",
            "a write takes If-None-Match: * only; to replace what you read, send its Sibyl-Context",
        )),
    }
}

/// 412 if a read finds a value, unless this request wrote it, or what that replaced.
async fn refuse_present(
    asked: &Asked,
    target: &Target,
    request: &PutRequest,
) -> Result<(), Problem> {
    let got = asked.call.get(target.get(false, true)).await?;
    match got.view {
        View::Gone => Ok(()),
        _ if got.knows(request) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "the key has a value, and If-None-Match: * asks that it has none; nothing was written",
        )),
    }
}

/// The answer to an acknowledged write. Whatever goes wrong while reading the view, the write stands.
async fn written(asked: &Asked, target: &Target, stored: &Stored, returns: bool) -> Answer {
    let plain = || {
        (
            StatusCode::NO_CONTENT,
            reading::write_headers(asked, &target.key, stored),
        )
            .into_response()
    };
    if !returns {
        return Ok(plain());
    }
    let got = asked.call.get(target.get(false, true)).await;
    let shown = got
        .map_err(Problem::from)
        .and_then(|got| reading::shown(asked, &target.key, got));
    Ok(shown.unwrap_or_else(|_| plain()))
}
