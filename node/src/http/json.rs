//! Bytes and names inside JSON.
//!
//! A byte string is a JSON string when it is UTF-8, else `{"base64": "…"}`; both are read. Unknown fields of
//! a request are refused and named, never ignored.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::path::MAX_KEY_BYTES;
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
        octets_schema(ObjectBuilder::new().schema_type(Type::String), "*")
    }
}

impl ToSchema for Octets {}

/// Documents a key in a request: bytes, 1 to 1024 of them.
pub(super) struct KeyOctets;

impl PartialSchema for KeyOctets {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        octets_schema(
            text.min_length(Some(1)).max_length(Some(MAX_KEY_BYTES)),
            "{0,341}",
        )
    }
}

impl ToSchema for KeyOctets {}

/// Text, or base64 of so many groups of three bytes and a rest.
fn octets_schema(text: ObjectBuilder, groups: &str) -> RefOr<Schema> {
    // The last character before the padding has unused bits, which are zero.
    let end = "([A-Za-z0-9+/][AQgw]={0,2}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)";
    let end = if groups == "*" {
        format!("{end}?")
    } else {
        end.to_owned()
    };
    let encoded = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^([A-Za-z0-9+/]{{4}}){groups}{end}$")));
    OneOfBuilder::new()
        .item(text)
        .item(
            ObjectBuilder::new()
                .property("base64", encoded)
                .required("base64")
                .additional_properties(Some(AdditionalProperties::FreeForm(false))),
        )
        .description(Some("Bytes: a string when they are UTF-8, else base64."))
        .into()
}

/// Documents a body that is bytes as they are.
pub(super) struct Raw;

impl PartialSchema for Raw {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(binary))
            .into()
    }
}

impl ToSchema for Raw {}

/// A whole number as JSON has it: `3`, and `3.0` too.
#[derive(Clone, Copy)]
pub(super) struct Whole<T>(pub(super) T);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number that is not negative")]
enum Number {
    Whole(u64),
    Real(f64),
}

/// The largest number below which a float tells all whole ones apart.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Number::deserialize(deserializer)? {
            Number::Whole(number) => Some(number),
            Number::Real(number) => whole(number),
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        number
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a number is not whole, or out of bounds"))
    }
}

fn whole(number: f64) -> Option<u64> {
    let fits = number.fract() == 0.0 && (0.0..MAX_EXACT).contains(&number);
    fits.then(|| format!("{number:.0}").parse().ok()).flatten()
}

impl<T: Serialize> Serialize for Whole<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<T: PartialSchema> PartialSchema for Whole<T> {
    fn schema() -> RefOr<Schema> {
        T::schema()
    }
}

/// Writes a sealed context.
pub(super) fn context_text(sealed: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sealed)
}

/// Reads a sealed context, padded or not; a sentence that says what is wrong with it.
pub(super) fn sealed_bytes(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err(format!("{NO_CONTEXT} (it is empty): leave it out instead"));
    }
    ANY_URL
        .decode(text)
        .map_err(|error| format!("{NO_CONTEXT} ({error}): pass it on exactly as it was received"))
}

/// How a sentence about an unreadable context begins.
const NO_CONTEXT: &str = "the context is not base64url";

/// A request's body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let code = match &text {
            text if text.starts_with("unknown field") => "unknown_field",
            text if text.starts_with(NO_CONTEXT) => "bad_context",
            _ => "bad_json",
        };
        Problem::bad(
            code,
            format!("the body is not what this route takes: {text}"),
        )
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
    fn whole_numbers_have_two_forms() {
        let check = |json: &str, number: Option<u8>| {
            let read = parse::<Whole<u8>>(json.as_bytes()).ok();
            assert_eq!(read.map(|whole| whole.0), number, "{json}");
        };
        check("3", Some(3));
        check("3.0", Some(3));
        check("3.5", None);
        check("256", None);
        check("256.0", None);
        check("-1", None);
        check("-1.0", None);
        check("1e400", None);
        check("\"3\"", None);
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
