//! The one place that turns errors into HTTP.
//!
//! One arm per failure: status, stable code, and what a program may want to know. A 503 on a write always
//! says whether the write may still become visible: `outcome` is `unknown` or `not_written`.

use axum::http::StatusCode;
use sibyl_core::message::Failure;
use sibyl_core::object::Refused;
use sibyl_core::registry::{ChangeError, RecoverError};

use super::api::{AdminError, BucketRefused, ContextRefused};
use super::problem::Problem;
use crate::coordinator::{GetError, ListError, PutError};
use crate::door::Shed;

impl From<BucketRefused> for Problem {
    fn from(error: BucketRefused) -> Self {
        match &error {
            BucketRefused::NoBucket(_) => no_bucket(&error),
            // Asked before a value or a context is taken, so always on the way to a write.
            BucketRefused::NotServing(_) => not_written(not_serving(&error)),
        }
    }
}

impl From<ContextRefused> for Problem {
    fn from(error: ContextRefused) -> Self {
        match error {
            ContextRefused::Bucket(error) => error.into(),
            ContextRefused::Forged(_) => Self::bad("bad_context", error.to_string()),
            ContextRefused::Expired => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "context_expired",
                error.to_string(),
            ),
        }
    }
}

impl From<GetError> for Problem {
    fn from(error: GetError) -> Self {
        match &error {
            GetError::NoBucket(_) => no_bucket(&error),
            GetError::NotServing(_) => not_serving(&error),
            GetError::Shed(shed) => overloaded(*shed),
            GetError::Level { asked, members } => unavailable("too_few_nodes", &error)
                .with("need", *asked)
                .with("members", *members),
            GetError::Quorum {
                replies,
                need,
                failed,
            } => unavailable("quorum_not_reached", &error)
                .with("replies", *replies)
                .with("need", *need)
                .with("failed", *failed)
                .retry(),
        }
    }
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        match error {
            PutError::NoBucket(_) => no_bucket(&error),
            PutError::NotServing(_) => not_written(not_serving(&error)),
            PutError::Shed(shed) => not_written(overloaded(shed)),
            PutError::TooLarge { bytes, cap } => too_large(&error, bytes, cap),
            PutError::Rejected(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "value_rejected",
                error.to_string(),
            ),
            PutError::Level { asked, members } => not_written(
                unavailable("too_few_nodes", &error)
                    .with("need", asked)
                    .with("members", members),
            ),
            PutError::Read(error) => {
                let problem = Self::from(error);
                match problem.status() {
                    StatusCode::SERVICE_UNAVAILABLE => not_written(problem),
                    _ => problem,
                }
            }
            PutError::NotWritten(failure) => refused(failure),
            PutError::Unreachable { owners } => {
                not_written(unavailable("quorum_not_reached", &error))
                    .with("acks", 0)
                    .with("owners", owners)
                    .retry()
            }
            PutError::Unknown { copies, failed, w } => unknown(&error, copies, failed, w),
        }
    }
}

/// What to do about 507.
const DISK_FULL: &str = "the disks of the nodes that could take this write are below their low-water mark: \
    nothing was written. Reads go on, and deletes until half of the mark. Free space on these disks or add nodes: \
    writes are taken again by themselves";

/// A write that one node had to mint, and did not.
fn refused(failure: Failure) -> Problem {
    let conflict = |code, detail: String| Problem::new(StatusCode::CONFLICT, code, detail);
    match &failure {
        Failure::Bucket => conflict("bucket_recreated", failure.to_string()),
        Failure::Closing => not_written(conflict("change_under_way", failure.to_string())).retry(),
        Failure::Refused(refused) => match refused {
            Refused::Siblings { siblings, cap } => conflict(
                "sibling_cap",
                format!("{refused}: read the key, merge its siblings, and write with the context of that read"),
            )
            .with("siblings", *siblings)
            .with("cap", *cap),
            Refused::ObjectBytes { bytes, cap } => conflict(
                "object_cap",
                format!("{refused}: read the key, merge its siblings, and write with the context of that read"),
            )
            .with("bytes", *bytes)
            .with("cap", *cap),
            Refused::Context { intervals, cap } => conflict("context_cap", failure.to_string())
                .with("intervals", *intervals)
                .with("cap", *cap),
        },
        Failure::Unsure { replies, need } => {
            not_written(unavailable("quorum_not_reached", &failure))
                .with("replies", *replies)
                .with("need", *need)
                .retry()
        }
        Failure::Reused => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            format!("{failure}; nothing was written: send another key with another write"),
        ),
        Failure::DiskFull => {
            not_written(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", DISK_FULL))
        }
        Failure::Quorum { copies, failed, w } => {
            unknown(&failure, *copies as usize, *failed as usize, *w as usize)
        }
        _ => not_written(unavailable("not_written", &failure)).retry(),
    }
}

fn unknown(error: &impl ToString, copies: usize, failed: usize, w: usize) -> Problem {
    unavailable("quorum_not_reached", error)
        .with("outcome", "unknown")
        .with("acks", copies)
        .with("need", w)
        .with("failed", failed)
        .retry()
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::NoBucket(_) => no_bucket(&error),
            ListError::NotServing(_) => not_serving(&error),
            ListError::Shed(shed) => overloaded(shed),
            ListError::Uncovered(_) => unavailable("partition_uncovered", &error).retry(),
            ListError::Read(error) => error.into(),
        }
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        let detail = error.to_string();
        let new = |status, code| Self::new(status, code, &detail);
        match error {
            AdminError::NoMajority { missing, members } => {
                not_written(unavailable("no_majority", &detail))
                    .with("missing", missing)
                    .with("members", members)
                    .retry()
            }
            AdminError::Unknown(_) => unavailable("change_unknown", &detail)
                .with("outcome", "unknown")
                .retry(),
            AdminError::NotFound { code, .. } => new(StatusCode::NOT_FOUND, code),
            AdminError::Conflict { code, .. } => new(StatusCode::CONFLICT, code),
            AdminError::InProgress(_) => new(StatusCode::CONFLICT, "change_under_way").retry(),
            AdminError::Precondition(_) => {
                new(StatusCode::PRECONDITION_FAILED, "precondition_failed")
            }
            AdminError::Invalid { code, .. } => new(StatusCode::BAD_REQUEST, code),
            AdminError::NotWasm { code, .. } => new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code),
            AdminError::NotResolver { code, .. } => new(StatusCode::UNPROCESSABLE_ENTITY, code),
            AdminError::Laws {
                code, certificate, ..
            } => {
                let problem = new(StatusCode::UNPROCESSABLE_ENTITY, code);
                match certificate.and_then(|found| serde_json::to_value(found).ok()) {
                    Some(found) => problem.with("certificate", found),
                    None => problem,
                }
            }
            AdminError::Busy { code, .. } => unavailable(code, &detail).retry(),
            AdminError::NotServing(_) => not_serving(&detail),
        }
    }
}

impl From<ChangeError> for AdminError {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Forming => Self::NotServing(detail),
            ChangeError::NoBucket(_) => Self::NotFound {
                code: "no_bucket",
                detail,
            },
            ChangeError::NoVersion { .. } => Self::NotFound {
                code: "no_version",
                detail,
            },
            ChangeError::NoMember(_) => Self::NotFound {
                code: "no_member",
                detail,
            },
            ChangeError::Precondition { .. } => Self::Precondition(detail),
            ChangeError::UnderWay { .. } => Self::InProgress(detail),
            ChangeError::TooFew { .. } => Self::Conflict {
                code: "too_few_members",
                detail,
            },
            ChangeError::NameTaken(_) => Self::Conflict {
                code: "name_taken",
                detail,
            },
            ChangeError::Fenced { .. } => Self::Conflict {
                code: "fenced",
                detail,
            },
            ChangeError::FixedN { .. } => Self::Conflict {
                code: "fixed_n",
                detail,
            },
            ChangeError::DefaultBucket => Self::Conflict {
                code: "default_bucket",
                detail,
            },
            ChangeError::Bound { .. } => Self::Conflict {
                code: "resolver_bound",
                detail,
            },
            ChangeError::Tier { .. } => Self::Laws {
                code: "laws_broken",
                detail,
                certificate: None,
            },
            ChangeError::Recover(RecoverError::Forming) => Self::NotServing(detail),
            ChangeError::Recover(RecoverError::NoMember(_)) => Self::NotFound {
                code: "no_member",
                detail,
            },
            ChangeError::Recover(RecoverError::Majority { .. }) => Self::Conflict {
                code: "majority_answers",
                detail,
            },
            ChangeError::Recover(RecoverError::Malformed(_)) => Self::Conflict {
                code: "registry_full",
                detail,
            },
            ChangeError::Config(_) => Self::Invalid {
                code: "bad_config",
                detail,
            },
            ChangeError::Malformed(_) => Self::Conflict {
                code: "registry_full",
                detail,
            },
        }
    }
}

/// 413, with the two numbers.
pub(super) fn too_large(
    detail: &impl ToString,
    bytes: impl Into<serde_json::Value>,
    cap: usize,
) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        detail.to_string(),
    )
    .with("bytes", bytes)
    .with("cap", cap)
}

fn no_bucket(error: &impl ToString) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_bucket", error.to_string())
}

/// Nothing was begun: whoever comes back in a second, or turns to another node, is as well off as now.
fn overloaded(shed: Shed) -> Problem {
    unavailable("overloaded", &shed).retry()
}

fn not_serving(error: &impl ToString) -> Problem {
    unavailable("not_serving", error).retry()
}

fn unavailable(code: &'static str, error: &impl ToString) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
}

fn not_written(problem: Problem) -> Problem {
    problem.with("outcome", "not_written")
}
