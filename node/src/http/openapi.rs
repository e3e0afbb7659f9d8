//! The OpenAPI 3.1 document: what the handlers say of themselves, and what all of them have in common.
//!
//! Collected by the router from the handlers' own attributes, so a route without a description cannot be
//! registered. Added here: the trace header on every answer, the headers of keys, and the problems that the
//! edge answers for any route.

use axum::extract::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{OpenApi as _, ToSchema};

use super::asked::{Answer, Asked};
use super::document::problem_response;
use super::edge;
use super::explain::Explanation;

/// A failed request.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "describes what `problem` writes")]
struct ProblemShape {
    /// `urn:sibyl:problem:` and the code.
    r#type: String,
    /// The code as people write it.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For programs; never changes.
    #[schema(pattern = "^[a-z0-9_]+$")]
    code: String,
    /// For people: what is wrong and what to do.
    detail: String,
    /// Of the request.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    trace_id: String,
    /// On failed writes: whether the write may still become visible.
    #[schema(pattern = "^(unknown|not_written)$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Sibyl",
        description = "A leaderless key-value store whose conflicts are merged by your WebAssembly.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemShape, Explanation)),
    tags(
        (name = "keys", description = "Values and their siblings"),
        (name = "plain", description = "Strings in the bucket `default`, as JSON"),
        (name = "buckets", description = "Configuration of buckets"),
        (name = "resolvers", description = "Modules that merge siblings"),
        (name = "cluster", description = "Members, ring, registry"),
        (name = "node", description = "Health, metrics, tracing of one node"),
    ),
)]
struct Base;

/// The document before any route.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// The served document.
#[derive(Clone)]
pub(super) struct Document(pub(super) Bytes);

/// Read this document
#[utoipa::path(get, path = "/openapi.json", tag = "node", operation_id = "getOpenapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn openapi(Extension(document): Extension<Document>, asked: Asked) -> Answer {
    asked.query(&[])?;
    Ok(([(CONTENT_TYPE, "application/json")], document.0).into_response())
}

/// Problems that every route can answer.
const ANYWHERE: [u16; 4] = [400, 431, 500, 503];
/// Problems of every route that takes a body.
const WITH_BODY: [u16; 2] = [408, 413];

/// Adds what all routes have in common.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        operations(&mut item).into_iter().for_each(complete);
        document.paths.paths.insert(edge::template(&path), item);
    }
    document
}

fn operations(item: &mut PathItem) -> Vec<&mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        head,
        ..
    } = item;
    [get, put, post, delete, head]
        .into_iter()
        .flatten()
        .collect()
}

fn complete(operation: &mut Operation) {
    let body: &[u16] = if operation.request_body.is_some() {
        &WITH_BODY
    } else {
        &[]
    };
    let is_head = operation.operation_id.as_deref() == Some("headKey");
    let keyed = is_keyed(operation);
    let responses = &mut operation.responses.responses;
    for status in ANYWHERE.iter().chain(body) {
        let response = || RefOr::T(problem_response(*status));
        responses.entry(status.to_string()).or_insert_with(response);
    }
    for (status, response) in responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if is_head {
            response.content.clear();
        }
        let names: &[(&str, &str)] = if keyed { key_headers(status) } else { &[] };
        describe(response, names);
    }
}

fn is_keyed(operation: &Operation) -> bool {
    let keyed = [
        "getKey",
        "headKey",
        "putKey",
        "deleteKey",
        "postKey",
        "getPlainKey",
    ];
    operation
        .operation_id
        .as_deref()
        .is_some_and(|id| keyed.contains(&id))
}

fn describe(response: &mut Response, names: &[(&str, &str)]) {
    let trace = (
        "Sibyl-Trace-Id",
        "The trace of the request: 32 hexadecimal digits.",
    );
    for (name, about) in names.iter().chain([&trace]) {
        response
            .headers
            .insert((*name).to_owned(), RefOr::T(text_header(about)));
    }
}

fn text_header(about: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new()
        .schema(Some(text))
        .description(Some(about))
        .build()
}

/// What an answer about a key says in its headers, by status.
fn key_headers(status: &str) -> &'static [(&'static str, &'static str)] {
    const CONTEXT: (&str, &str) = (
        "Sibyl-Context",
        "Pass it on with the next write of this key.",
    );
    const SIBLINGS: (&str, &str) = ("Sibyl-Siblings", "Live siblings seen.");
    const ACKS: (&str, &str) = ("Sibyl-Acks", "`owners=2 fallbacks=0`: who took part.");
    const COORDINATOR: (&str, &str) = ("Sibyl-Coordinator", "The node that carried it out.");
    match status {
        "200" | "300" | "304" => &[
            CONTEXT,
            SIBLINGS,
            ACKS,
            COORDINATOR,
            ("ETag", "Names the view; for If-None-Match."),
            (
                "Last-Modified",
                "When the newest of what is shown was written.",
            ),
            (
                "Sibyl-Resolver",
                "`name@sha256:…; outcome=…`, if a resolver ran or failed.",
            ),
            ("Sibyl-Partial", "`true`: fewer than R answered."),
            (
                "Sibyl-Repeated",
                "Of `POST /key`, `true`: a retry by Idempotency-Key; the write was there before.",
            ),
        ],
        "204" => &[
            CONTEXT,
            SIBLINGS,
            ACKS,
            COORDINATOR,
            ("Sibyl-Dot", "Names the write."),
            (
                "Sibyl-Repeated",
                "`true`: a retry by Idempotency-Key; the write was there before.",
            ),
            ("Last-Modified", "When it was written."),
        ],
        "404" => &[CONTEXT, SIBLINGS, ACKS, COORDINATOR],
        _ => &[],
    }
}
