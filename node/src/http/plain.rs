//! `/key`: the plain form, for whoever just wants to store a string.
//!
//! Bucket `default`, JSON in and out. A write without a context reads first and replaces what it saw, so a
//! client that knows nothing of contexts still leaves one value behind.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sibyl_core::view::View;
use utoipa::ToSchema;

use super::asked::{Answer, Asked, json_answer, ok};
use super::document::{self, PlainKeyPath, parameters, problems};
use super::form::Sealed;
use super::header::{self, OCTET_STREAM};
use super::json::{KeyOctets, Octets};
use super::keys::Target;
use super::path;
use super::problem::Problem;
use super::query::Query;
use super::reading;

/// The bucket of the plain form.
const BUCKET: &str = "default";
/// The media type of a value that is text.
const TEXT: &str = "text/plain; charset=utf-8";
/// What JSON adds to a value at most: base64 is 4/3, and an escaped character is 6 bytes for 1.
const JSON_FACTOR: usize = 6;
/// What JSON adds besides: names, a key and a context.
const JSON_EXTRA_BYTES: usize = 64 << 10;

parameters!(PlainHeaders, [document::idempotency_key()]);

problems!(ReadProblems: 404 414 503);
problems!(WriteProblems: 404 409 412 414 422 503 507);

/// A value to store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlainWrite {
    /// The key: 1 to 1024 bytes.
    #[schema(value_type = KeyOctets)]
    key: Octets,
    /// The value.
    value: Octets,
    /// Of your last read; without it the write replaces what the node sees now.
    context: Option<Sealed>,
}

/// A value that was stored.
#[derive(Serialize, ToSchema)]
pub(super) struct PlainWritten {
    key: Octets,
    value: Octets,
    /// Stands for this write and what it replaced.
    context: String,
}

/// A value.
#[derive(Serialize, ToSchema)]
pub(super) struct PlainValue {
    key: Octets,
    value: Octets,
    context: String,
    /// Live siblings that the value was merged from.
    siblings: usize,
}

/// Several values that nothing merged.
#[derive(Serialize, ToSchema)]
pub(super) struct PlainValues {
    key: Octets,
    /// In canonical order.
    values: Vec<Octets>,
    context: String,
    siblings: usize,
}

/// Store a value
#[utoipa::path(post, path = "/key", tag = "plain", operation_id = "postKey",
    params(PlainHeaders),
    request_body(content = PlainWrite),
    responses((status = 200, description = "Acknowledged", body = PlainWritten), WriteProblems))]
pub(super) async fn post(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let idempotency_key = header::idempotency_key(asked.headers())?;
    let cap = asked.call.max_value_bytes(BUCKET)?;
    let body: PlainWrite = asked
        .json(
            cap.saturating_mul(JSON_FACTOR)
                .saturating_add(JSON_EXTRA_BYTES),
        )
        .await?;
    let key = path::checked_key(body.key.0)?;
    let mut target = Target::new(BUCKET.to_owned(), key.clone(), &Query::default())?;
    target.begin();
    let context = match &body.context {
        Some(sealed) => asked.open(BUCKET, &key, sealed)?,
        None => asked.call.get(target.get(false, true)).await?.context,
    };
    let kind = if std::str::from_utf8(&body.value.0).is_ok() {
        TEXT
    } else {
        OCTET_STREAM
    };
    let mut request = target.put(Some(context), Some(body.value.0.clone()), kind.to_owned());
    request.idempotency_key = idempotency_key;
    let stored = asked.call.put(request).await?;
    let context = reading::sealed(&asked, stored.bucket, &key, &stored.context);
    let headers = reading::write_headers(&asked, &key, &stored);
    let answer = ok(&PlainWritten {
        key: Octets(key),
        value: body.value,
        context,
    })?;
    Ok(axum::response::IntoResponse::into_response((
        headers, answer,
    )))
}

/// Read a value
#[utoipa::path(get, path = "/key/{*key}", tag = "plain", operation_id = "getPlainKey",
    params(PlainKeyPath),
    responses(
        (status = 200, description = "The value", body = PlainValue),
        (status = 300, description = "Several values that nothing merged", body = PlainValues),
        ReadProblems,
    ))]
pub(super) async fn get(asked: Asked) -> Answer {
    asked.query(&[])?;
    let key = path::key(asked.path(), 1)?;
    let target = Target::new(BUCKET.to_owned(), key.clone(), &Query::default())?;
    let got = asked.call.get(target.get(false, true)).await?;
    let context = reading::sealed(&asked, got.bucket, &key, &got.context);
    let (siblings, headers) = (got.live, reading::read_headers(&asked, &key, &got));
    let key = Octets(key);
    let answer = match got.view {
        View::Gone if got.context.is_empty() => {
            Err(gone("nothing was ever written to it here", None))
        }
        View::Gone => Err(gone("it was deleted", Some(context))),
        View::One(content) => {
            let value = Octets(content.value.unwrap_or_default());
            ok(&PlainValue {
                key,
                value,
                context,
                siblings,
            })
        }
        View::Siblings(list) => {
            let values = list
                .iter()
                .filter_map(|sibling| sibling.content.value.clone())
                .map(Octets)
                .collect();
            Ok(json_answer(
                StatusCode::MULTIPLE_CHOICES,
                &PlainValues {
                    key,
                    values,
                    context,
                    siblings,
                },
            ))
        }
    };
    Ok(axum::response::IntoResponse::into_response((
        headers, answer?,
    )))
}

fn gone(why: &str, context: Option<String>) -> Problem {
    let problem = Problem::new(
        StatusCode::NOT_FOUND,
        "no_value",
        format!("the key has no value: {why}"),
    );
    match context {
        Some(context) => problem.with("context", context),
        None => problem,
    }
}
