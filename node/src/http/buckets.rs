//! `/v1/buckets`: creating, configuring and deleting buckets.
//!
//! A PUT carries the whole configuration: what it leaves out has its default, only `n` stays what it was. The
//! revision is the ETag, so a read, a change and a PUT with `If-Match` never overwrite somebody else's.

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sibyl_core::id::Digest;
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
problems!(PutProblems: 404 409 412 422 503);
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
    let precondition = Precondition::of(&asked)?;
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
    if keep_n && let Ok(present) = asked.call.bucket(&name) {
        config.n = present.config.n;
    }
    // Which version is the newest is state; whether the rest fits is not.
    let (newest, named) = (
        Digest::of(b""),
        resolver.as_ref().map(|wanted| wanted.version),
    );
    config.resolver = resolver.map(|wanted| {
        let version = wanted.version.unwrap_or(newest);
        wanted.bound(version)
    });
    config
        .check()
        .map_err(|error| Problem::bad("bad_config", error.to_string()))?;
    let expect = precondition.expect(&asked, &name)?;
    if let (Some(None), Some(binding)) = (named, &mut config.resolver) {
        binding.version = asked.call.resolver(&binding.name).await?.newest()?;
    }
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
    let (purge, precondition) = (query.flag("purge")?, Precondition::of(&asked)?);
    let expect = precondition.expect(&asked, &name)?;
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

/// What the headers ask of the bucket, in form.
enum Precondition {
    Nothing,
    Absent,
    /// Its revision is one of these; `*` is any.
    Tags(Vec<String>),
    /// `If-Match` and `If-None-Match: *` at once: no bucket is both there and not there.
    Contradiction,
}

impl Precondition {
    fn of(asked: &Asked) -> Result<Self, Problem> {
        let tags = header::once(asked.headers(), &IF_MATCH)?;
        let none = header::once(asked.headers(), &IF_NONE_MATCH)?;
        if none.is_some_and(|none| none != "*") {
            return Err(bad(&IF_NONE_MATCH, "is * here"));
        }
        match (tags, none) {
            (None, None) => Ok(Self::Nothing),
            (None, Some(_)) => Ok(Self::Absent),
            (Some(tags), None) => Self::tags(tags).map(Self::Tags),
            (Some(tags), Some(_)) => Self::tags(tags).map(|_| Self::Contradiction),
        }
    }

    fn tags(tags: &str) -> Result<Vec<String>, Problem> {
        let parse = |tag: &str| {
            let tag = tag.trim();
            let quoted = || tag.strip_prefix('"')?.strip_suffix('"');
            if tag == "*" { Some(tag) } else { quoted() }.map(str::to_owned)
        };
        let tags: Option<Vec<_>> = tags.split(',').map(parse).collect();
        tags.ok_or_else(|| bad(&IF_MATCH, "is the ETag of a read, in its quotes"))
    }

    /// What the registry is asked to see to. A list of tags becomes the one that fits now.
    fn expect(&self, asked: &Asked, name: &str) -> Result<Expect, Problem> {
        match self {
            Self::Nothing => Ok(Expect::Anything),
            Self::Absent => Ok(Expect::Absent),
            Self::Tags(tags) => matching(asked, name, tags),
            Self::Contradiction => Err(failed(
                "If-Match asks for a bucket that is there, If-None-Match: * for one that is not",
            )),
        }
    }
}

fn matching(asked: &Asked, name: &str, tags: &[String]) -> Result<Expect, Problem> {
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
