//! Resolvers as the API shows them, and trials as it takes them.
//!
//! Shapes and their checks, no handlers: those are in `resolvers`. What is known of a version's laws is in
//! `certificates`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sibyl_core::id::Digest;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::api::{LogLine, Trial, TrialSibling, Tried, TriedOutcome};
use super::certificates::{Certificate, SettingCertificate};
use super::form::{Attributes, MediaType};
use super::header;
use super::json::{KeyOctets, Octets};
use super::moment;
use super::path;
use super::problem::Problem;

/// The most siblings of a trial: what a bucket keeps at most by default.
const MAX_SIBLINGS: usize = 100;

/// What was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// A component.
    Component,
    /// A core module, made a component by the node.
    Core,
    /// WebAssembly text of either.
    Wat,
}

/// Whether a node can run a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Compiled.
    Ready,
    /// Being compiled.
    Compiling,
    /// It does not hold the bytes yet.
    Missing,
    /// It did not answer.
    Unreachable,
}

/// A version of a resolver.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct VersionView {
    /// `sha256:…` of the uploaded bytes.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: String,
    /// Their number.
    pub bytes: u64,
    /// When it came, RFC 3339.
    #[schema(format = DateTime)]
    pub uploaded_at: String,
    /// What it is.
    pub kind: ModuleKind,
    /// What is known of it with an empty configuration, where it sees no deleted siblings.
    pub certificate: Certificate,
    /// The same for every configuration that it was checked with.
    pub settings: Vec<SettingCertificate>,
    /// Buckets that use it.
    pub bound: Vec<String>,
    /// Which nodes hold it compiled.
    pub nodes: BTreeMap<String, Readiness>,
}

/// A resolver with its versions.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ResolverView {
    /// Its name.
    pub name: String,
    /// Its versions, the one uploaded last at the end.
    pub versions: Vec<VersionView>,
}

impl ResolverView {
    /// The version uploaded last.
    pub(super) fn newest(&self) -> Result<Digest, Problem> {
        let newest = self
            .versions
            .last()
            .and_then(|version| version.digest.parse().ok());
        newest.ok_or_else(|| no_version(&format!("the resolver {:?} has no version", self.name)))
    }

    /// One of its versions.
    pub(super) fn version(self, digest: Digest) -> Result<VersionView, Problem> {
        let (name, wanted) = (self.name, digest.to_string());
        let found = self
            .versions
            .into_iter()
            .find(|version| version.digest == wanted);
        found.ok_or_else(|| no_version(&format!("the resolver {name:?} has no version {wanted}")))
    }
}

fn no_version(detail: &str) -> Problem {
    Problem::new(axum::http::StatusCode::NOT_FOUND, "no_version", detail)
}

/// Every resolver.
#[derive(Serialize, ToSchema)]
pub(super) struct ResolverList {
    /// By name.
    pub(super) resolvers: Vec<ResolverView>,
}

/// A sibling to try a resolver on: a value, or a tombstone.
#[derive(Deserialize)]
#[serde(try_from = "SiblingFields")]
struct TrySibling {
    /// `None`: a tombstone.
    value: Option<Bytes>,
    modified_at: Option<String>,
    content_type: Option<MediaType>,
    attributes: Option<Attributes>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SiblingFields {
    /// Null or left out, with `deleted`: a tombstone.
    value: Option<Octets>,
    /// RFC 3339, from 1970 on; default: the epoch and as many milliseconds as its place in the list.
    #[schema(format = DateTime)]
    modified_at: Option<String>,
    deleted: Option<bool>,
    content_type: Option<MediaType>,
    attributes: Option<Attributes>,
}

impl TryFrom<SiblingFields> for TrySibling {
    type Error = &'static str;

    fn try_from(fields: SiblingFields) -> Result<Self, Self::Error> {
        let value = match (fields.value, fields.deleted.unwrap_or(false)) {
            (Some(value), false) => Some(value.0),
            (None, true) => None,
            (Some(_), true) => return Err("a sibling has a value and is deleted"),
            (None, false) => return Err("a sibling has no value and is not deleted"),
        };
        Ok(Self {
            value,
            modified_at: fields.modified_at,
            content_type: fields.content_type,
            attributes: fields.attributes,
        })
    }
}

impl PartialSchema for TrySibling {
    fn schema() -> RefOr<Schema> {
        let kind = |needed: &str, value: RefOr<Schema>, deleted: Vec<Value>| {
            let mut fields = SiblingFields::schema();
            if let RefOr::T(Schema::Object(fields)) = &mut fields {
                fields.required = vec![needed.to_owned()];
                fields.properties.insert("value".to_owned(), value);
                let deleted = ObjectBuilder::new()
                    .enum_values(Some(deleted))
                    .schema_type(SchemaType::from_iter([Type::Boolean, Type::Null]));
                fields
                    .properties
                    .insert("deleted".to_owned(), deleted.into());
            }
            fields
        };
        let null = ObjectBuilder::new().schema_type(Type::Null);
        let octets = Ref::from_schema_name(Octets::name());
        OneOfBuilder::new()
            .item(kind(
                "value",
                octets.into(),
                vec![false.into(), Value::Null],
            ))
            .item(kind("deleted", null.into(), vec![true.into()]))
            .into()
    }
}

impl ToSchema for TrySibling {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SiblingFields::schemas(schemas);
    }
}

/// A trial.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TryBody {
    /// Default: the version uploaded last.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    version: Option<String>,
    #[schema(min_items = 2, max_items = 100)]
    siblings: Vec<TrySibling>,
    /// Handed to the resolver as it is.
    config: Option<Value>,
    /// The key it shall see; default `try`.
    #[schema(value_type = Option<KeyOctets>)]
    key: Option<Octets>,
}

impl TryBody {
    /// Checks it.
    pub(super) fn trial(self, name: String) -> Result<Trial, Problem> {
        let count = self.siblings.len();
        if !(2..=MAX_SIBLINGS).contains(&count) {
            return Err(bad(&format!(
                "{count} siblings: a resolver gets 2 to {MAX_SIBLINGS}"
            )));
        }
        let digest = |text: String| {
            text.parse()
                .map_err(|error: sibyl_core::id::BadDigest| bad(&format!("version: {error}")))
        };
        let siblings = self.siblings.into_iter().enumerate();
        Ok(Trial {
            name,
            version: self.version.map(digest).transpose()?,
            siblings: siblings
                .map(|(at, sibling)| sibling.checked(at))
                .collect::<Result<_, _>>()?,
            config: self.config.map(|config| config.to_string()),
            key: path::checked_key(self.key.map_or(Bytes::from_static(b"try"), |key| key.0))?,
        })
    }
}

impl TrySibling {
    fn checked(self, at: usize) -> Result<TrialSibling, Problem> {
        let modified_at = match &self.modified_at {
            None => at as u64,
            Some(text) => moment::parse(text).ok_or_else(|| {
                bad(&format!(
                    "sibling {at}: modified_at {text:?} is not RFC 3339, or before 1970"
                ))
            })?,
        };
        let attributes = self.attributes.unwrap_or_default().0;
        header::check_attributes(&attributes)?;
        let content_type = self
            .content_type
            .map_or_else(|| header::OCTET_STREAM.to_owned(), |kind| kind.0);
        Ok(TrialSibling {
            value: self.value,
            modified_at,
            content_type,
            attributes,
        })
    }
}

fn bad(detail: &str) -> Problem {
    Problem::bad("bad_trial", detail)
}

/// Why a resolver failed.
#[derive(Serialize, ToSchema)]
struct FailureJson {
    /// `declined`, `malformed`, `bad_config`, `trap`, `fuel`, `memory`, `output` or another.
    kind: String,
    message: String,
}

/// A line of a guest's log.
#[derive(Serialize, ToSchema)]
struct LogJson {
    level: String,
    message: String,
}

/// What a trial came to. Indices count in the order of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct TryResult {
    #[schema(pattern = "^(merged|picked|kept|deleted|failed)$")]
    outcome: &'static str,
    /// Of `merged`.
    value: Option<Octets>,
    /// Of `picked`.
    index: Option<usize>,
    /// Of `kept`.
    indices: Option<Vec<usize>>,
    /// Of `failed`.
    failure: Option<FailureJson>,
    fuel: u64,
    memory_bytes: u64,
    duration_us: u64,
    log: Vec<LogJson>,
}

impl From<Tried> for TryResult {
    fn from(tried: Tried) -> Self {
        let mut result = Self {
            outcome: "deleted",
            value: None,
            index: None,
            indices: None,
            failure: None,
            fuel: tried.fuel,
            memory_bytes: tried.memory_bytes,
            duration_us: tried.duration.as_micros().try_into().unwrap_or(u64::MAX),
            log: tried
                .log
                .into_iter()
                .map(|LogLine { level, message }| LogJson { level, message })
                .collect(),
        };
        match tried.outcome {
            TriedOutcome::Merged(value) => {
                (result.outcome, result.value) = ("merged", Some(Octets(value)));
            }
            TriedOutcome::Picked(index) => (result.outcome, result.index) = ("picked", Some(index)),
            TriedOutcome::Kept(indices) => {
                (result.outcome, result.indices) = ("kept", Some(indices));
            }
            TriedOutcome::Deleted => {}
            TriedOutcome::Failed { kind, message } => {
                (result.outcome, result.failure) = ("failed", Some(FailureJson { kind, message }));
            }
        }
        result
    }
}
