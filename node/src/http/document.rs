//! The pieces that handlers describe themselves with in the OpenAPI document.
//!
//! Path and header parameters, and the problems a route can answer. What every route has in common (the trace
//! header, 400, 431 and 500) is added once, in `openapi`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required};

use super::form;
use super::path;
use super::problem;

/// Declares a type that documents parameters: from a table of query parameters, or from a list of functions.
macro_rules! parameters {
    ($name:ident, query $table:expr) => {
        pub(super) struct $name;
        impl utoipa::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                $table.iter().map(super::query::Parameter::document).collect()
            }
        }
    };
    ($name:ident, [$($parameter:expr),* $(,)?]) => {
        pub(super) struct $name;
        impl utoipa::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                vec![$($parameter),*]
            }
        }
    };
}

/// Declares a type that documents the problems of a route, by status.
macro_rules! problems {
    ($name:ident: $($status:literal)+) => {
        pub(super) struct $name;
        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
            > {
                super::document::problem_responses(&[$($status),+])
            }
        }
    };
}

pub(super) use {parameters, problems};

/// Problem answers, by status.
pub(super) fn problem_responses(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let response = |status: &u16| (status.to_string(), RefOr::T(problem_response(*status)));
    statuses.iter().map(response).collect()
}

/// A problem answer.
pub(super) fn problem_response(status: u16) -> Response {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(reason.unwrap_or("Problem"))
        .content(problem::MEDIA_TYPE, content)
        .build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn path_parameter(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

/// A header of a request.
pub(super) fn request_header(name: &str, about: &str, pattern: Option<&str>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(text().pattern(pattern)))
        .build()
}

/// The header by which a client may repeat a write.
pub(super) fn idempotency_key() -> Parameter {
    let about = "Your name for this request, so that you may repeat it: the same write again, through whichever node, is no second one. Never use one for another write of the same key.";
    request_header(
        "Idempotency-Key",
        about,
        Some(form::IDEMPOTENCY_KEY_PATTERN),
    )
}

fn name_schema() -> ObjectBuilder {
    text()
        .pattern(Some("^[a-z0-9.-][a-z0-9._-]{0,63}$"))
        .min_length(Some(1))
        .max_length(Some(path::MAX_NAME_BYTES))
}

fn bucket() -> Parameter {
    path_parameter("bucket", "The bucket.", name_schema())
}

fn key() -> Parameter {
    let schema = text()
        .min_length(Some(1))
        .max_length(Some(path::MAX_KEY_BYTES));
    path_parameter(
        "key",
        "The key: 1 to 1024 bytes, percent-encoded once; `/` may stand as it is.",
        schema,
    )
}

fn resolver() -> Parameter {
    path_parameter("name", "The resolver.", name_schema())
}

fn digest() -> Parameter {
    let schema = text().pattern(Some("^sha256:[0-9a-f]{64}$"));
    path_parameter("digest", "The SHA-256 of the uploaded bytes.", schema)
}

parameters!(BucketPath, [bucket()]);
parameters!(KeyPath, [bucket(), key()]);
parameters!(PlainKeyPath, [key()]);
parameters!(ResolverPath, [resolver()]);
parameters!(VersionPath, [resolver(), digest()]);
