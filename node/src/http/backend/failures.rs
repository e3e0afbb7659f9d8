//! What the coordinator and the platform could not do, in the words of the API.
//!
//! Only translation: a code, a sentence that says what to do, and what a program wants to know beside it. Which status
//! a failure has stands in `http/error.rs`.

use sibyl_core::registry;

use crate::coordinator::{BucketFailed, CheckFailed, ModuleFailed};
use crate::http::api::AdminError;
use crate::http::certificates::Certificate;
use crate::resolver::Refusal;
use crate::tasks::registry::ChangeFailed;

pub(super) fn no_bucket(name: &str) -> AdminError {
    let detail = format!("there is no bucket {name:?}: create it with PUT /v1/buckets/{name}");
    AdminError::NotFound {
        code: "no_bucket",
        detail,
    }
}

pub(super) fn no_resolver(name: &str) -> AdminError {
    let detail = format!("there is no resolver {name:?}: upload it with PUT /v1/resolvers/{name}");
    AdminError::NotFound {
        code: "no_resolver",
        detail,
    }
}

/// A change of the registry that was not made.
pub(super) fn unchanged(failed: ChangeFailed) -> AdminError {
    let detail = failed.to_string();
    match failed {
        ChangeFailed::Refused(error) => error.into(),
        ChangeFailed::NoMajority { unknown: true, .. } | ChangeFailed::Unknown => {
            AdminError::Unknown(detail)
        }
        ChangeFailed::NoMajority {
            missing,
            members,
            unknown: false,
        } => AdminError::NoMajority { missing, members },
        ChangeFailed::Busy => AdminError::Busy {
            code: "registry_busy",
            detail,
        },
        ChangeFailed::Stopping => AdminError::NotServing(detail),
    }
}

pub(super) fn refused(failed: BucketFailed) -> AdminError {
    let detail = failed.to_string();
    match failed {
        BucketFailed::Registry(failed) => unchanged(failed),
        BucketFailed::Module(failed) => not_taken(failed),
        BucketFailed::Config(_) => AdminError::Invalid {
            code: "bad_resolver_config",
            detail,
        },
        BucketFailed::Check(_) => AdminError::Conflict {
            code: "check_config_failed",
            detail,
        },
        BucketFailed::Laws(failed) => not_checked(failed, detail),
        BucketFailed::Tier { certificate, .. } => laws_broken(&certificate, &detail),
        BucketFailed::NotEmpty => AdminError::Conflict {
            code: "bucket_not_empty",
            detail,
        },
        BucketFailed::NotClosed { .. } | BucketFailed::TooSlow => AdminError::Busy {
            code: "cannot_close",
            detail,
        },
        BucketFailed::List(_) => AdminError::Busy {
            code: "cannot_list",
            detail,
        },
    }
}

/// With the first broken law in words; the document has all of them.
fn laws_broken(found: &registry::Certificate, detail: &str) -> AdminError {
    let certificate = Certificate::from(found);
    let broken = certificate.laws.iter().find(|law| !law.holds);
    let said = broken.map_or_else(String::new, |law| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (suspicion, remedy) = (text(&law.suspicion), text(&law.remedy));
        format!("; {} is broken: it {suspicion}; {remedy}", law.law)
    });
    AdminError::Laws {
        code: "laws_broken",
        detail: format!("{detail}{said}"),
        certificate: Some(Box::new(certificate)),
    }
}

pub(super) fn not_checked(failed: CheckFailed, detail: String) -> AdminError {
    match failed {
        CheckFailed::Module(failed) => not_taken(failed),
        CheckFailed::Registry(failed) => unchanged(failed),
        CheckFailed::Busy => AdminError::Busy {
            code: "checks_busy",
            detail,
        },
        CheckFailed::Config(_) => AdminError::Invalid {
            code: "bad_resolver_config",
            detail,
        },
        CheckFailed::CheckConfig(_) | CheckFailed::Sampling(_) | CheckFailed::Inconclusive(_) => {
            AdminError::Laws {
                code: "laws_unknown",
                detail,
                certificate: None,
            }
        }
    }
}

pub(super) fn not_taken(failed: ModuleFailed) -> AdminError {
    let detail = failed.to_string();
    match failed {
        ModuleFailed::Refused(refusal) => refused_module(&refusal),
        ModuleFailed::Registry(failed) => unchanged(failed),
        ModuleFailed::NotReady { .. } => AdminError::InProgress(detail),
        ModuleFailed::NotServing(why) => AdminError::NotServing(why),
    }
}

fn refused_module(refusal: &Refusal) -> AdminError {
    let (code, detail) = (refusal.code(), refusal.to_string());
    if refusal.is_transient() {
        AdminError::Busy { code, detail }
    } else if is_too_costly(refusal) {
        AdminError::NotResolver { code, detail }
    } else {
        AdminError::NotWasm { code, detail }
    }
}

/// A resolver in form that this node cannot compile or run within its limits.
fn is_too_costly(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Compile(_)
            | Refusal::CompileTime { .. }
            | Refusal::CompileMemory { .. }
            | Refusal::CompilerCrashed(_)
            | Refusal::Resources(_)
            | Refusal::Trial(_)
    )
}
