//! `/v1/resolvers`: uploading, looking at, trying and deleting the modules that merge siblings.
//!
//! What an upload really is the node finds out; here only its size and its declared type are checked.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::api::{Check, Form, Upload};
use super::asked::{Answer, Asked, json_answer, ok};
use super::document::{ResolverPath, VersionPath, parameters, problems};
use super::header;
use super::json::Raw;
use super::path;
use super::problem::Problem;
use super::query::{Kind, Parameter, parameter};
use super::resolver_shapes::{ResolverList, ResolverView, TryBody, TryResult, VersionView};

/// The largest upload.
pub(super) const MAX_UPLOAD_BYTES: usize = 32 << 20;
/// The largest trial: siblings of 16 MiB in base64, and the rest.
const MAX_TRY_BYTES: usize = 24 << 20;

const UPLOAD: &[Parameter] = &[parameter(
    "check",
    Kind::Word(&["quick", "thorough", "off"]),
    "The law check: `quick` (default) within seconds, before the answer; `thorough` as a job; or none.",
)];

parameters!(UploadQuery, query UPLOAD);
problems!(ListProblems: 503);
problems!(GetProblems: 404 503);
problems!(UploadProblems: 409 415 422 503);
problems!(DeleteProblems: 404 409 503);
problems!(TryProblems: 404 414 503);

/// Upload a resolver version
#[utoipa::path(put, path = "/v1/resolvers/{name}", tag = "resolvers", operation_id = "putResolver",
    params(ResolverPath, UploadQuery),
    request_body(content(
        (Raw = "application/wasm"),
        (String = "text/plain"),
    ), description = "A component or a core module, or WAT."),
    responses(
        (status = 200, description = "This version was there already", body = VersionView),
        (status = 201, description = "A new version", body = VersionView),
        (status = 202, description = "Its laws are being checked: Location says how far that is", body = VersionView),
        UploadProblems,
    ))]
pub(super) async fn upload(mut asked: Asked) -> Answer {
    let query = asked.query(UPLOAD)?;
    let check = match query.word("check")? {
        Some("thorough") => Check::Thorough,
        Some("off") => Check::Off,
        _ => Check::Quick,
    };
    let name = path::resolver(asked.path(), 2)?;
    let form = form(&asked)?;
    let bytes = asked.body(MAX_UPLOAD_BYTES).await?;
    let uploaded = asked
        .call
        .upload(Upload {
            name: name.clone(),
            form,
            bytes,
            check,
        })
        .await?;
    let mut location = format!("/v1/resolvers/{name}/versions/{}", uploaded.version.digest);
    let status = if check == Check::Thorough {
        location.push_str("/check");
        StatusCode::ACCEPTED
    } else if uploaded.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let headers = [(axum::http::header::LOCATION, location)];
    Ok((headers, json_answer(status, &uploaded.version)).into_response())
}

fn form(asked: &Asked) -> Result<Form, Problem> {
    if header::carries(asked.headers(), "application/wasm") {
        return Ok(Form::Wasm);
    }
    if header::carries(asked.headers(), "text/plain") {
        return Ok(Form::Wat);
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "send a component or a core module as Content-Type: application/wasm, or WAT as text/plain",
    ))
}

/// List resolvers
#[utoipa::path(get, path = "/v1/resolvers", tag = "resolvers", operation_id = "listResolvers",
    responses((status = 200, description = "Every resolver", body = ResolverList), ListProblems))]
pub(super) async fn list(asked: Asked) -> Answer {
    asked.query(&[])?;
    ok(&ResolverList {
        resolvers: asked.call.resolvers().await?,
    })
}

/// Read a resolver's versions
#[utoipa::path(get, path = "/v1/resolvers/{name}", tag = "resolvers", operation_id = "getResolver",
    params(ResolverPath),
    responses((status = 200, description = "Its versions", body = ResolverView), GetProblems))]
pub(super) async fn get(asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::resolver(asked.path(), 2)?;
    ok(&asked.call.resolver(&name).await?)
}

/// Read a version
#[utoipa::path(get, path = "/v1/resolvers/{name}/versions/{digest}", tag = "resolvers", operation_id = "getResolverVersion",
    params(VersionPath),
    responses((status = 200, description = "The version", body = VersionView), GetProblems))]
pub(super) async fn version(asked: Asked) -> Answer {
    asked.query(&[])?;
    let (name, digest) = (
        path::resolver(asked.path(), 2)?,
        path::digest(asked.path(), 4)?,
    );
    ok(&asked.call.resolver(&name).await?.version(digest)?)
}

/// Download a version
#[utoipa::path(get, path = "/v1/resolvers/{name}/versions/{digest}/wasm", tag = "resolvers", operation_id = "getResolverBytes",
    params(VersionPath),
    responses(
        (status = 200, description = "The bytes as they were uploaded", content(
            (Raw = "application/wasm"),
            (String = "text/plain"),
        )),
        GetProblems,
    ))]
pub(super) async fn wasm(asked: Asked) -> Answer {
    asked.query(&[])?;
    let (name, digest) = (
        path::resolver(asked.path(), 2)?,
        path::digest(asked.path(), 4)?,
    );
    let module = asked.call.module(&name, digest).await?;
    let kind = match module.form {
        Form::Wasm => "application/wasm",
        Form::Wat => "text/plain; charset=utf-8",
    };
    Ok(([(CONTENT_TYPE, kind)], module.bytes).into_response())
}

/// Delete a version
#[utoipa::path(delete, path = "/v1/resolvers/{name}/versions/{digest}", tag = "resolvers", operation_id = "deleteResolverVersion",
    params(VersionPath),
    responses((status = 204, description = "Deleted"), DeleteProblems))]
pub(super) async fn delete(asked: Asked) -> Answer {
    asked.query(&[])?;
    let (name, digest) = (
        path::resolver(asked.path(), 2)?,
        path::digest(asked.path(), 4)?,
    );
    asked.call.delete_version(&name, digest).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Try a version on siblings of your own
///
/// Stores nothing.
#[utoipa::path(post, path = "/v1/resolvers/{name}/try", tag = "resolvers", operation_id = "tryResolver",
    params(ResolverPath),
    request_body(content = TryBody),
    responses((status = 200, description = "What it came to, failures too", body = TryResult), TryProblems))]
pub(super) async fn try_resolver(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::resolver(asked.path(), 2)?;
    let body: TryBody = asked.json(MAX_TRY_BYTES).await?;
    let tried = asked.call.try_resolver(body.trial(name)?).await?;
    ok(&TryResult::from(tried))
}
