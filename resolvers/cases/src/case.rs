//! The form of the case files.
//!
//! A value is written as `json` (its compact text with sorted members), `text` (verbatim) or `base64`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// All cases of one resolver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// Calls of `merge.resolve`.
    pub resolve: Vec<Resolve>,
    /// Calls of `check-config.check`.
    #[serde(default)]
    pub check_config: Vec<CheckConfig>,
    /// Calls of `check-value.check`.
    #[serde(default)]
    pub check_value: Vec<CheckValue>,
}

/// One call of `resolve` and its outcome.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// What it shows.
    pub name: String,
    /// The bucket's config, verbatim.
    #[serde(default, deserialize_with = "config")]
    pub config: Option<String>,
    /// In the host's order.
    pub siblings: Vec<SiblingCase>,
    /// What comes out.
    pub expect: Expect,
}

/// A value in one of its forms.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bytes {
    /// Compact JSON with sorted members.
    Json(serde_json::Value),
    /// Verbatim.
    Text(String),
    /// Bytes that are no text.
    Base64(String),
}

/// One sibling; without a value it is a tombstone.
#[derive(Debug, Deserialize)]
pub struct SiblingCase {
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    pub modified_at: u64,
    /// Says that there is no value.
    #[serde(default)]
    pub deleted: bool,
    #[serde(flatten)]
    value: Option<Bytes>,
}

/// One call of `check-config.check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// What it shows.
    pub name: String,
    /// Verbatim.
    #[serde(deserialize_with = "config_text")]
    pub config: String,
    /// A part of the message; none: accepted.
    pub refused: Option<String>,
}

/// One call of `check-value.check`.
#[derive(Debug, Deserialize)]
pub struct CheckValue {
    /// What it shows.
    pub name: String,
    /// The bucket's config, verbatim.
    #[serde(default, deserialize_with = "config")]
    pub config: Option<String>,
    #[serde(flatten)]
    value: Bytes,
    /// A part of the message; none: accepted.
    pub refused: Option<String>,
}

/// What `resolve` returns; messages are parts of the whole.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
#[expect(
    missing_docs,
    reason = "the contract's resolutions and failures, by name"
)]
pub enum Expect {
    Merged(Merged),
    Pick { index: u32 },
    Keep { indexes: Vec<u32> },
    Delete,
    Malformed { index: u32, message: String },
    BadConfig { message: String },
    Declined { message: String },
    Other { message: String },
}

/// A merged value.
#[derive(Debug, Deserialize)]
pub struct Merged {
    #[serde(flatten)]
    value: Bytes,
}

impl Merged {
    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.value.bytes()
    }
}

impl CheckValue {
    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.value.bytes()
    }
}

impl SiblingCase {
    /// The exact bytes; `None`: a tombstone.
    ///
    /// # Panics
    /// If the case says both or neither of `deleted` and a value.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        assert_eq!(self.deleted, self.value.is_none(), "a value or `deleted`");
        self.value.as_ref().map(Bytes::bytes)
    }
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Json(value) => value.to_string().into_bytes(),
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64(text) => BASE64_STANDARD.decode(text).expect("base64 in a case"),
        }
    }
}

/// The cases of the resolver `name`.
///
/// # Panics
/// If there is no such file, or it cannot be read.
#[must_use]
pub fn load(name: &str) -> Cases {
    let path = format!("{}/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A config is JSON; a string stands for text that is not.
fn config_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => text,
        json => json.to_string(),
    })
}

fn config<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    config_text(from).map(Some)
}
