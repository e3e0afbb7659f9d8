//! What is known of a version's laws, and `…/check`: having them checked.
//!
//! The certificate of a version is the registry's; a report in it is JSON text that only the law check wrote. A check of
//! one's own is answered when it is done; a thorough one is a job of the node that took the upload.

use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sibyl_core::id::Digest;
use sibyl_core::registry::{self, Setting, Tried};
use utoipa::ToSchema;

use super::api::CheckWish;
use super::asked::{Answer, Asked, ok};
use super::document::{ResolverPath, VersionPath, problems};
use super::form::MediaType;
use super::json::{Octets, Whole};
use super::path;
use super::problem::Problem;
use crate::resolver::FUEL_SCHEDULE;

/// The largest request for a check: samples.
const MAX_CHECK_BYTES: usize = 8 << 20;
/// The most samples.
const MAX_SAMPLES: usize = 64;
/// The most cases of each law while a client waits.
const MAX_CASES: u32 = 4_096;

/// What the law check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Every law holds.
    Lattice,
    /// All but repetition and absorption.
    Foldable,
    /// Determinism, totality and closure.
    Deterministic,
    /// Less.
    None,
    /// It was not asked.
    Unchecked,
}

impl From<registry::Tier> for Tier {
    fn from(tier: registry::Tier) -> Self {
        match tier {
            registry::Tier::None => Self::None,
            registry::Tier::Deterministic => Self::Deterministic,
            registry::Tier::Foldable => Self::Foldable,
            registry::Tier::Lattice => Self::Lattice,
        }
    }
}

/// One law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LawResult {
    /// Its name.
    pub law: String,
    /// Whether it held.
    pub holds: bool,
    /// How many cases were tried.
    pub cases: u64,
    /// Where drawing them began.
    pub seed: String,
    /// The smallest that broke it.
    pub counterexample: Option<Value>,
    /// What is probably wrong.
    pub suspicion: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
}

impl From<&Tried> for LawResult {
    fn from(tried: &Tried) -> Self {
        let report = tried.broken.as_ref();
        let report: Option<Value> =
            report.map(|text| serde_json::from_str(text).unwrap_or_default());
        let text = |field: &str| Some(report.as_ref()?.get(field)?.as_str()?.to_owned());
        Self {
            law: tried.law.name().to_owned(),
            holds: tried.broken.is_none(),
            cases: tried.cases.into(),
            seed: tried.seed.to_string(),
            counterexample: report
                .as_ref()
                .and_then(|it| it.get("counterexample").cloned()),
            suspicion: text("suspicion"),
            remedy: text("remedy"),
        }
    }
}

/// What is known of a version's behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Certificate {
    /// The tier.
    pub tier: Tier,
    /// Each law that was checked.
    pub laws: Vec<LawResult>,
    /// The seed that breaks a law, or that of the check; null if there was none.
    pub seed: Option<String>,
    /// The schedule that fuel was counted with.
    pub fuel_schedule: u32,
    /// Why it is unchecked, if this request tried to check it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Certificate {
    /// Of a version that was not checked.
    pub fn unchecked() -> Self {
        Self {
            tier: Tier::Unchecked,
            laws: Vec::new(),
            seed: None,
            fuel_schedule: FUEL_SCHEDULE,
            reason: None,
        }
    }
}

impl From<&registry::Certificate> for Certificate {
    fn from(known: &registry::Certificate) -> Self {
        let broken = known.laws().iter().find(|tried| tried.broken.is_some());
        let seed = broken
            .or(known.laws().first())
            .map(|tried| tried.seed.to_string());
        Self {
            tier: known.tier().into(),
            laws: known.laws().iter().map(LawResult::from).collect(),
            seed,
            ..Self::unchecked()
        }
    }
}

/// What is known of a version with one configuration.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SettingCertificate {
    /// SHA-256 of the configuration, as its binding has it.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub config: String,
    /// Whether it sees deleted siblings.
    pub deletes: bool,
    /// What is known.
    pub certificate: Certificate,
}

impl SettingCertificate {
    /// Of what the registry has.
    pub fn new(setting: &Setting, known: &registry::Certificate) -> Self {
        Self {
            config: setting.config.to_string(),
            deletes: setting.deletes,
            certificate: known.into(),
        }
    }
}

/// What one call of a certain size cost.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CostJson {
    /// Bytes of two siblings.
    pub input_bytes: u64,
    /// Bytes of the result.
    pub output_bytes: u64,
    /// Fuel used.
    pub fuel: u64,
    /// The most memory held.
    pub memory_bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Checked {
    /// The version.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: String,
    /// What this check found. What the registry knows of the version may be less.
    pub certificate: Certificate,
    /// What merging two values of growing size costs.
    pub costs: Vec<CostJson>,
}

/// A thorough check of a version on this node.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CheckView {
    /// `running`, `done` or `failed`.
    #[schema(pattern = "^(running|done|failed)$")]
    pub state: &'static str,
    /// The law that is tried.
    pub law: &'static str,
    /// Its cases so far.
    pub cases: u64,
    /// The cases that each law is to have.
    pub of: u64,
    /// Why it failed.
    pub detail: Option<String>,
}

/// A check to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    /// Default: the version uploaded last.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    version: Option<String>,
    /// Real values; edits of them are tried.
    #[serde(default)]
    #[schema(max_items = 64)]
    samples: Vec<Octets>,
    /// Of each law; default 256.
    #[schema(value_type = Option<u32>, required = false, minimum = 1, maximum = 4096)]
    cases: Option<Whole<u64>>,
    /// Where drawing begins; default 0.
    #[schema(pattern = "^[0-9]{1,18}$")]
    seed: Option<String>,
    /// Handed to the resolver as it is.
    config: Option<Value>,
    /// Whether it is shown deleted siblings, as in a bucket with `deletes: resolver`.
    #[serde(default)]
    deletes: bool,
    /// What the values are; default: the first media type that it describes.
    media_type: Option<MediaType>,
}

impl CheckBody {
    fn wish(self, name: String) -> Result<CheckWish, Problem> {
        let bad = |detail: String| Problem::bad("bad_check", detail);
        if self.samples.len() > MAX_SAMPLES {
            let detail = format!("{} samples: at most {MAX_SAMPLES}", self.samples.len());
            return Err(bad(detail));
        }
        let cases = match self.cases {
            None => None,
            Some(Whole(cases)) => match u32::try_from(cases) {
                Ok(cases @ 1..=MAX_CASES) => Some(cases),
                _ => return Err(bad(format!("cases is {cases}: from 1 to {MAX_CASES}"))),
            },
        };
        let digits = |text: &String| {
            (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let seed = match self.seed {
            None => 0,
            Some(text) if digits(&text) => text.parse().unwrap_or(0),
            Some(text) => return Err(bad(format!("seed {text:?} is not 1 to 18 digits"))),
        };
        let parse = |text: String| {
            text.parse::<Digest>()
                .map_err(|error| bad(format!("version: {error}")))
        };
        let samples: Vec<Bytes> = self.samples.into_iter().map(|sample| sample.0).collect();
        Ok(CheckWish {
            name,
            version: self.version.map(parse).transpose()?,
            samples,
            cases,
            seed,
            config: self.config.map(|config| config.to_string()),
            deletes: self.deletes,
            media_type: self.media_type.map(|kind| kind.0),
        })
    }
}

problems!(CheckProblems: 404 409 422 503);
problems!(ProgressProblems: 404 503);

/// Check a version's laws
///
/// What is found is kept with the version: a law that breaks once is broken.
#[utoipa::path(post, path = "/v1/resolvers/{name}/check", tag = "resolvers", operation_id = "checkResolver",
    params(ResolverPath),
    request_body(content = CheckBody),
    responses((status = 200, description = "What was found, broken laws too", body = Checked), CheckProblems))]
pub(super) async fn check(mut asked: Asked) -> Answer {
    asked.query(&[])?;
    let name = path::resolver(asked.path(), 2)?;
    let body: CheckBody = asked.json(MAX_CHECK_BYTES).await?;
    ok(&asked.call.check(body.wish(name)?).await?)
}

/// Read how far a thorough check is
///
/// Of the check that this node runs or ran last.
#[utoipa::path(get, path = "/v1/resolvers/{name}/versions/{digest}/check", tag = "resolvers", operation_id = "getResolverCheck",
    params(VersionPath),
    responses((status = 200, description = "How far it is", body = CheckView), ProgressProblems))]
pub(super) async fn progress(asked: Asked) -> Answer {
    asked.query(&[])?;
    let (name, digest) = (
        path::resolver(asked.path(), 2)?,
        path::digest(asked.path(), 4)?,
    );
    let running = asked.call.checking(&name, digest)?;
    let nothing = || {
        let detail = format!(
            "this node has no thorough check of {digest}: begin one with PUT /v1/resolvers/{name}?check=thorough; its \
             result is in the version's certificate, on every node"
        );
        Problem::new(StatusCode::NOT_FOUND, "no_check", detail)
    };
    ok(&running.ok_or_else(nothing)?)
}
