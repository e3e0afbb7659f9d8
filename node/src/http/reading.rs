//! What a read found, as an answer: 200, 300, 304 or 404 with the headers of the API.
//!
//! The one place that writes those headers, for reads and for writes. A value goes out as the bytes that came
//! in; JSON is made only for siblings.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::Incarnation;
use sibyl_core::object::{Content, Sibling};
use sibyl_core::view::View;

use super::asked::{Answer, Asked, json_answer};
use super::header;
use super::json;
use super::moment;
use super::multipart;
use super::problem::Problem;
use super::siblings::SiblingList;
use crate::coordinator::{Acks, Got, Resolved, ResolverNote, Stored};

/// The longest context that goes out as a header. Minting keeps sealed contexts within 16 KiB, which is
/// 21,848 characters; a join of copies may exceed that a little. A client must be able to send it back within
/// the 32 KiB of a request's headers.
const MAX_CONTEXT_CHARS: usize = 24 << 10;

/// Answers a read: 304 if the client has it already.
pub(super) fn answer(asked: &Asked, key: &Bytes, got: Got) -> Answer {
    if !matches!(got.view, View::Gone) && header::none_match(asked.headers(), &got.etag) {
        let headers = read_headers(asked, key, &got);
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    shown(asked, key, got)
}

/// Shows what was found, whatever the client has.
pub(super) fn shown(asked: &Asked, key: &Bytes, got: Got) -> Answer {
    let mut headers = read_headers(asked, key, &got);
    match got.view {
        View::Gone => Err(gone(headers, &got.context)),
        View::One(content) => Ok(value(headers, content)),
        View::Siblings(siblings) => {
            headers.insert(VARY, HeaderValue::from_static("accept"));
            newest(&mut headers, &siblings);
            let sealed = sealed(asked, got.bucket, key, &got.context);
            Ok(several(asked.headers(), headers, &siblings, sealed))
        }
    }
}

/// Answers `?siblings=true`: all of them, however many.
pub(super) fn all(asked: &Asked, key: &Bytes, got: &Got) -> Response {
    let mut headers = read_headers(asked, key, got);
    newest(&mut headers, &got.siblings);
    let list = SiblingList::new(&got.siblings, sealed(asked, got.bucket, key, &got.context));
    (headers, json_answer(StatusCode::OK, &list)).into_response()
}

fn value(mut headers: HeaderMap, content: Content) -> Response {
    text(&mut headers, CONTENT_TYPE, &content.content_type);
    text(
        &mut headers,
        LAST_MODIFIED,
        &moment::http_date(content.modified_at),
    );
    for (name, value) in &content.attributes {
        if let Ok(name) = HeaderName::try_from(format!("{}{name}", header::ATTRIBUTE)) {
            text(&mut headers, name, value);
        }
    }
    (headers, Body::from(content.value.unwrap_or_default())).into_response()
}

fn several(
    asked: &HeaderMap,
    mut headers: HeaderMap,
    siblings: &[Sibling],
    context: String,
) -> Response {
    let multipart = header::wants(asked, "multipart/mixed").filter(|weight| *weight > 0);
    if multipart.is_some() && multipart >= header::wants(asked, "application/json") {
        let body = multipart::body(&mut headers, siblings);
        return (StatusCode::MULTIPLE_CHOICES, headers, body).into_response();
    }
    let list = SiblingList::new(siblings, context);
    (headers, json_answer(StatusCode::MULTIPLE_CHOICES, &list)).into_response()
}

/// 404, with the context if there is a tombstone.
fn gone(mut headers: HeaderMap, context: &Context) -> Problem {
    let detail = if context.is_empty() {
        headers.remove(header::CONTEXT);
        "the key has no value: nothing was ever written to it here"
    } else {
        "the key has no value: it was deleted; send the Sibyl-Context of this answer to write it anew"
    };
    headers.remove(ETAG);
    let problem = Problem::new(StatusCode::NOT_FOUND, "no_value", detail);
    headers
        .into_iter()
        .fold(problem, |problem, (name, value)| match name {
            Some(name) => problem.header(name, value),
            None => problem,
        })
}

fn newest(headers: &mut HeaderMap, siblings: &[Sibling]) {
    let newest = siblings
        .iter()
        .map(|sibling| sibling.content.modified_at)
        .max();
    if let Some(at) = newest {
        text(headers, LAST_MODIFIED, &moment::http_date(at));
    }
}

/// The headers of a read.
pub(super) fn read_headers(asked: &Asked, key: &Bytes, got: &Got) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    context(&mut headers, sealed(asked, got.bucket, key, &got.context));
    text(&mut headers, ETAG, &got.etag);
    headers.insert(header::SIBLINGS, got.live.into());
    acks(&mut headers, got.acks);
    if let Some(note) = &got.resolver {
        text(&mut headers, header::RESOLVER, &resolver(note));
    }
    if !got.met {
        headers.insert(header::PARTIAL, HeaderValue::from_static("true"));
    }
    text(
        &mut headers,
        header::COORDINATOR,
        asked.call.node_id().as_str(),
    );
    headers
}

/// The headers of an acknowledged write.
pub(super) fn write_headers(asked: &Asked, key: &Bytes, stored: &Stored) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    context(
        &mut headers,
        sealed(asked, stored.bucket, key, &stored.context),
    );
    text(
        &mut headers,
        LAST_MODIFIED,
        &moment::http_date(stored.modified_at),
    );
    text(&mut headers, header::DOT, &stored.dot.to_string());
    headers.insert(header::SIBLINGS, stored.live.into());
    if stored.repeated {
        headers.insert(header::REPEATED, HeaderValue::from_static("true"));
    }
    acks(&mut headers, stored.acks);
    text(
        &mut headers,
        header::COORDINATOR,
        stored.coordinator.as_str(),
    );
    headers
}

/// A context as clients hold it.
pub(super) fn sealed(asked: &Asked, bucket: Incarnation, key: &Bytes, context: &Context) -> String {
    json::context_text(&asked.call.seal(bucket, key, context))
}

fn context(headers: &mut HeaderMap, sealed: String) {
    if sealed.len() > MAX_CONTEXT_CHARS {
        text(
            headers,
            header::CONTEXT_OMITTED,
            "too long for a header; ?siblings=true has it",
        );
    } else if let Ok(value) = HeaderValue::try_from(sealed) {
        headers.insert(header::CONTEXT, value);
    }
}

fn acks(headers: &mut HeaderMap, acks: Acks) {
    let Acks { owners, fallbacks } = acks;
    text(
        headers,
        header::ACKS,
        &format!("owners={owners} fallbacks={fallbacks}"),
    );
}

/// `cart@sha256:…; outcome=merged`.
fn resolver(note: &ResolverNote) -> String {
    format!(
        "{}@{}; outcome={}",
        note.name,
        note.version,
        outcome(note.outcome)
    )
}

/// The word of the API for what a resolver did.
pub(super) fn outcome(resolved: Resolved) -> &'static str {
    match resolved {
        Resolved::Merged => "merged",
        Resolved::Picked => "picked",
        Resolved::Kept => "kept",
        Resolved::Deleted => "deleted",
        Resolved::Failed => "failed",
    }
}

/// Sets a header. What clients wrote was checked to fit; what does not fit all the same is left out.
fn text(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_too_long_for_a_request_is_left_out_and_said_so() {
        let check = |chars: usize, kept: bool| {
            let mut headers = HeaderMap::new();
            context(&mut headers, "A".repeat(chars));
            assert_eq!(headers.contains_key(header::CONTEXT), kept, "{chars}");
            assert_eq!(
                headers.contains_key(header::CONTEXT_OMITTED),
                !kept,
                "{chars}"
            );
        };
        // 16 KiB, the most that minting allows, always fits.
        check((16 << 10) * 4 / 3 + 1, true);
        check(MAX_CONTEXT_CHARS, true);
        check(MAX_CONTEXT_CHARS + 1, false);
    }
}
