//! `/v1/buckets`: creating, configuring and deleting buckets.
//!
//! A PUT carries the whole configuration: what it leaves out has its default, only `n` stays what it was. The
//! revision is the ETag, so a read, a change and a PUT with `If-Match` never overwrite somebody else's.

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sibyl_core::registry::{Bucket, Expect};
use utoipa::ToSchema;

use super::api::{AdminError, DeleteBucket, PutBucket};
use super::asked::{Answer, Asked, json_answer, ok};
use super::bucket_config::{BucketJson, ConfigBody, Wanted};
use super::document::{self, BucketPath, parameters, problems};
use super::header;
use super::path;
use super::problem::Problem;
use super::query::{Kind, Parameter, parameter};

/// The largest configuration: 64 KiB of a resolver's config, and the rest.
const MAX_BODY_BYTES: usize = 128 << 10;

const DELETE: &[Parameter] = &[parameter(
    "purge",
    Kind::Flag,
    "Delete the bucket although it holds keys.",
)];

parameters!(DeleteQuery, query DELETE);
parameters!(
    PutHeaders,
    [
        if_match(),
        document::request_header(
            "If-None-Match",
            "`*`: only if there is no such bucket yet.",
            Some("^\\*$")
        )
    ]
);
parameters!(DeleteHeaders, [if_match()]);
problems!(ListProblems: 503);
problems!(GetProblems: 404 503);
problems!(PutProblems: 404 409 412 503);
problems!(DeleteProblems: 404 409 412 503);

fn if_match() -> utoipa::openapi::path::Parameter {
    document::request_header(
        "If-Match",
        "The ETag of your last read: only if nobody changed the bucket since.",
        Some("^(\\*|\"[0-9]+\")$"),
    )
}

/// Every bucket.
#[derive(Serialize, ToSchema)]
pub(super) struct BucketList {
    /// By name.
    buckets: Vec<BucketJson>,
}

/// List buckets
#[utoipa::path(get, path = "/v1/buckets", tag = "buckets", operation_id = "listBuckets",
    responses((status = 200, description = "Every bucket", body = BucketList), ListProblems))]
pub(super) async fn list(asked: Asked) -> Answer {
    asked.query(&[])?;
    let buckets = asked.call.buckets()?;
    ok(&BucketList {
        buckets: buckets
            .iter()
            .map(|(name, bucket)| BucketJson::new(name, &bucket.config))
            .collect(),
    })
}

/// Read a bucket's configuration
#[utoipa::path(get, path = "/v1/buckets/{bucket}", tag = "buckets", operation_id = "getBucket",
    params(BucketPath),
    responses((status = 200, description = "Its configuration", body = BucketJson), GetProblems))]
pub(super) async fn get(asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::bucket(asked.path(), 2)?;
    let bucket = asked.call.bucket(&name)?;
    Ok(shown(StatusCode::OK, &name, &bucket))
}

/// Create or configure a bucket
#[utoipa::path(put, path = "/v1/buckets/{bucket}", tag = "buckets", operation_id = "putBucket",
    params(BucketPath, PutHeaders),
    request_body(content = ConfigBody),
    responses(
        (status = 200, description = "Configured", body = BucketJson),
        (status = 201, description = "Created", body = BucketJson),
        PutProblems,
    ))]
pub(super) async fn put(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::bucket(asked.path(), 2)?;
    let expect = expect(&asked, &name)?;
    let body = asked.body(MAX_BODY_BYTES).await?;
    let body: ConfigBody = if body.is_empty() {
        super::json::parse(b"{}")?
    } else {
        super::json::parse(&body)?
    };
    let Wanted {
        mut config,
        keep_n,
        resolver,
    } = body.wanted(&name)?;
    if let Some(wanted) = resolver {
        let version = match wanted.version {
            Some(version) => version,
            None => asked.call.resolver(&wanted.name).await?.newest()?,
        };
        config.resolver = Some(wanted.bound(version));
    }
    if keep_n && let Ok(present) = asked.call.bucket(&name) {
        config.n = present.config.n;
    }
    config
        .check()
        .map_err(|error| Problem::bad("bad_config", error.to_string()))?;
    let change = PutBucket {
        name: name.clone(),
        config,
        keep_n,
        expect,
    };
    let changed = asked.call.put_bucket(change).await?;
    let status = if changed.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(shown(status, &name, &changed.bucket))
}

/// Delete a bucket
#[utoipa::path(delete, path = "/v1/buckets/{bucket}", tag = "buckets", operation_id = "deleteBucket",
    params(BucketPath, DeleteQuery, DeleteHeaders),
    responses((status = 204, description = "Deleted"), DeleteProblems))]
pub(super) async fn delete(asked: Asked) -> Answer {
    let query = asked.query(DELETE)?;
    let name = path::bucket(asked.path(), 2)?;
    let (purge, expect) = (query.flag("purge")?, expect(&asked, &name)?);
    asked
        .call
        .delete_bucket(DeleteBucket {
            name,
            purge,
            expect,
        })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn shown(status: StatusCode, name: &str, bucket: &Bucket) -> Response {
    let etag = format!("\"{}\"", bucket.revision);
    (
        [(ETAG, etag)],
        json_answer(status, &BucketJson::new(name, &bucket.config)),
    )
        .into_response()
}

/// What the preconditions ask of the bucket. A list of tags becomes the one that fits now.
fn expect(asked: &Asked, name: &str) -> Result<Expect, Problem> {
    let tags = header::once(asked.headers(), &IF_MATCH)?;
    match (tags, header::once(asked.headers(), &IF_NONE_MATCH)?) {
        (None, None) => Ok(Expect::Anything),
        (None, Some("*")) => Ok(Expect::Absent),
        (Some(tags), None) => matching(asked, name, tags),
        (None, Some(_)) => Err(bad(&IF_NONE_MATCH, "is * here")),
        (Some(_), Some(_)) => Err(bad(&IF_MATCH, "and If-None-Match contradict each other")),
    }
}

fn matching(asked: &Asked, name: &str, tags: &str) -> Result<Expect, Problem> {
    let parse = |tag: &str| {
        tag.trim()
            .strip_prefix('"')?
            .strip_suffix('"')
            .map(str::to_owned)
    };
    let tags: Option<Vec<_>> = tags
        .split(',')
        .map(|tag| {
            if tag.trim() == "*" {
                Some("*".into())
            } else {
                parse(tag)
            }
        })
        .collect();
    let tags = tags.ok_or_else(|| bad(&IF_MATCH, "is the ETag of a read, in its quotes"))?;
    let bucket = match asked.call.bucket(name) {
        Ok(bucket) => bucket,
        Err(AdminError::NotFound { .. }) => {
            return Err(failed(&format!("there is no bucket {name:?}")));
        }
        Err(error) => return Err(error.into()),
    };
    let now = bucket.revision;
    if tags.iter().any(|tag| tag == "*" || *tag == now.to_string()) {
        return Ok(Expect::Revision(now));
    }
    Err(failed(&format!(
        "the bucket is at revision \"{now}\" now: read it again"
    )))
}

fn failed(detail: &str) -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        detail,
    )
}

fn bad(name: &HeaderName, what: &str) -> Problem {
    Problem::bad("bad_header", format!("the header {name} {what}")).with("header", name.as_str())
}
