//! Test cases of a resolver as data, in the form of `resolvers/cases/*.json`.
//!
//! A value is written as `json` (compact, members sorted), `text` (verbatim) or `base64`. Messages are parts of what
//! the resolver must say. What is not understood is refused: a case that tests nothing would pass for ever.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::resolver::{Failure, Input, Resolution};

/// All cases of one file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// Calls of `merge.resolve`.
    #[serde(default)]
    pub(super) resolve: Vec<Resolve>,
    /// Calls of `check-config.check`.
    #[serde(default)]
    pub(super) check_config: Vec<CheckConfig>,
    /// Calls of `check-value.check`.
    #[serde(default)]
    pub(super) check_value: Vec<CheckValue>,
}

/// One call of `resolve` and its outcome.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    pub(super) name: String,
    #[serde(default, deserialize_with = "config")]
    pub(super) config: Option<String>,
    /// In the host's order.
    pub(super) siblings: Vec<Sibling>,
    pub(super) expect: Expect,
}

/// One call of `check-config.check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckConfig {
    pub(super) name: String,
    #[serde(deserialize_with = "config_text")]
    pub(super) config: String,
    /// A part of the message; none: accepted.
    pub(super) refused: Option<String>,
}

/// One call of `check-value.check`.
#[derive(Debug, Deserialize)]
pub(super) struct CheckValue {
    pub(super) name: String,
    #[serde(default, deserialize_with = "config")]
    pub(super) config: Option<String>,
    /// A part of the message; none: accepted.
    pub(super) refused: Option<String>,
    #[serde(flatten)]
    pub(super) value: Given,
}

/// One sibling; without a value it is a tombstone.
#[derive(Debug, Deserialize)]
pub(super) struct Sibling {
    #[serde(default)]
    modified_at: u64,
    #[serde(default)]
    deleted: bool,
    #[serde(flatten)]
    value: MaybeGiven,
}

impl Sibling {
    /// As the platform takes it.
    pub(super) fn input(&self) -> Result<Input, String> {
        match (&self.value.0, self.deleted) {
            (None, false) => Err("a sibling has neither a value nor `deleted`".to_owned()),
            (Some(_), true) => Err("a sibling has a value and is `deleted`".to_owned()),
            (value, _) => Ok(Input {
                value: value.clone(),
                modified_at: self.modified_at,
                attributes: Vec::new(),
            }),
        }
    }
}

/// A value in one of its forms.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(super) struct Given(pub(super) Bytes);

/// The same, or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
struct MaybeGiven(Option<Bytes>);

impl TryFrom<Map<String, Value>> for Given {
    type Error = String;

    fn try_from(forms: Map<String, Value>) -> Result<Self, String> {
        let MaybeGiven(given) = forms.try_into()?;
        given
            .map(Self)
            .ok_or_else(|| "a value is missing: `json`, `text` or `base64`".to_owned())
    }
}

impl TryFrom<Map<String, Value>> for MaybeGiven {
    type Error = String;

    fn try_from(forms: Map<String, Value>) -> Result<Self, String> {
        if forms.len() > 1 {
            let names: Vec<_> = forms.keys().map(String::as_str).collect();
            return Err(format!("{} at once: one value is meant", names.join(", ")));
        }
        let given = forms
            .into_iter()
            .next()
            .map(|(form, value)| match (form.as_str(), value) {
                ("json", value) => Ok(Bytes::from(value.to_string())),
                ("text", Value::String(text)) => Ok(Bytes::from(text)),
                ("base64", Value::String(text)) => STANDARD
                    .decode(text)
                    .map(Bytes::from)
                    .map_err(|error| format!("base64: {error}")),
                (form, _) => Err(format!(
                    "`{form}` is no `json`, `text` or `base64` with a text"
                )),
            });
        given.transpose().map(Self)
    }
}

/// What `resolve` returns; messages are parts of the whole.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub(super) enum Expect {
    Merged(Given),
    Pick {
        index: usize,
    },
    Keep {
        indexes: Vec<usize>,
    },
    Delete,
    Malformed {
        index: usize,
        message: String,
    },
    BadConfig {
        message: String,
    },
    Declined {
        message: String,
    },
    Other {
        message: String,
    },
    /// The guest was stopped: it crashed, or a limit was met.
    Crashed {
        message: String,
    },
}

impl Expect {
    /// Whether the resolver did that.
    pub(super) fn is_met(&self, outcome: &Result<Resolution, Failure>) -> bool {
        match (self, outcome) {
            (Self::Merged(Given(value)), Ok(Resolution::Merged(found))) => value == found,
            (Self::Pick { index }, Ok(Resolution::Pick(found))) => index == found,
            (Self::Keep { indexes }, Ok(Resolution::Keep(found))) => indexes == found,
            (Self::Delete, Ok(Resolution::Delete)) => true,
            (
                Self::Malformed { index, message },
                Err(Failure::Malformed {
                    index: found,
                    message: said,
                }),
            ) => index == found && said.contains(message),
            (Self::BadConfig { message }, Err(Failure::BadConfig(said)))
            | (Self::Declined { message }, Err(Failure::Declined(said)))
            | (Self::Other { message }, Err(Failure::Other(said))) => said.contains(message),
            (Self::Crashed { message }, Err(failure)) => {
                !is_own(failure) && failure.to_string().contains(message)
            }
            _ => false,
        }
    }
}

/// Whether the resolver itself said so.
fn is_own(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Malformed { .. }
            | Failure::BadConfig(_)
            | Failure::Declined(_)
            | Failure::Other(_)
    )
}

/// A config is JSON; a string stands for text that is not.
fn config_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        json => json.to_string(),
    })
}

fn config<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    config_text(from).map(Some)
}
