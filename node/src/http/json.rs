//! Bytes and names inside JSON.
//!
//! A byte string is a JSON string when it is UTF-8, else `{"base64": "…"}`; both are read. Unknown fields of
//! a request are refused and named, never ignored.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD,
};
use base64::engine::DecodePaddingMode;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{
    AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::RefOr;
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const ANY_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A byte string as JSON writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Octets(pub(super) Bytes);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<T> {
    base64: T,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "bytes are a string or {\"base64\": \"…\"}")]
enum Either {
    Text(String),
    Encoded(Encoded<String>),
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded {
                base64: STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Text(text) => Ok(Self(text.into())),
            Either::Encoded(Encoded { base64 }) => ANY_STANDARD
                .decode(&base64)
                .map(|bytes| Self(bytes.into()))
                .map_err(|error| serde::de::Error::custom(format!("base64: {error}"))),
        }
    }
}

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        let encoded = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("byte".into())))
            .pattern(Some("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"));
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(
                ObjectBuilder::new()
                    .property("base64", encoded)
                    .required("base64")
                    .additional_properties(Some(AdditionalProperties::FreeForm(false))),
            )
            .description(Some("Bytes: a string when they are UTF-8, else base64."))
            .into()
    }
}

impl ToSchema for Octets {}

/// Writes a sealed context.
pub(super) fn context_text(sealed: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sealed)
}

/// Reads a sealed context, padded or not.
pub(super) fn context_bytes(text: &str) -> Result<Vec<u8>, Problem> {
    ANY_URL.decode(text.trim()).map_err(|error| {
        Problem::bad(
            "bad_context",
            format!("the context is not base64url ({error}): pass it on exactly as it was received"),
        )
    })
}

/// A request's body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let code = if text.starts_with("unknown field") { "unknown_field" } else { "bad_json" };
        Problem::bad(code, format!("the body is not what this route takes: {text}"))
    })
}

/// 32 hexadecimal digits.
pub(super) fn trace_id(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_base64() {
        let check = |bytes: &'static [u8], json: &str| {
            let octets = Octets(Bytes::from_static(bytes));
            assert_eq!(serde_json::to_string(&octets).expect("serialises"), json);
            assert_eq!(parse::<Octets>(json.as_bytes()).expect(json), octets);
        };
        check(b"", r#""""#);
        check(b"a\"b", r#""a\"b""#);
        check(b"\xff", r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn other_forms_are_refused() {
        let check = |json: &str| assert!(parse::<Octets>(json.as_bytes()).is_err(), "{json}");
        check("1");
        check("null");
        check(r#"{"base64":"*"}"#);
        check(r#"{"base64":"/w==","more":1}"#);
    }
}
