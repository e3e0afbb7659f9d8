//! Fields that several bodies share: their form, as the document says it and as it is checked.
//!
//! What a schema can say is checked while the body is read, so a body that breaks it is refused whole, before
//! anything that depends on the node's state. Bounds that a schema cannot say (bytes of all attributes
//! together, the seal of a context) are checked where the field is used.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sibyl_core::retry::Key;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::header::{self, MAX_ATTRIBUTES, MAX_CONTENT_TYPE_BYTES};
use super::json;

/// Base64url of a sealed context; padding may be left out.
pub(super) const CONTEXT_PATTERN: &str = "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{4}|[A-Za-z0-9_-][AQgw]={0,2}|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=?)$";
/// `type/subtype`, perhaps with parameters.
const MEDIA_TYPE_PATTERN: &str =
    "^ *[A-Za-z0-9!#$%&'*+.^_`|~-]+/[A-Za-z0-9!#$%&'*+.^_`|~-]+ *(;[ -~]*)?$";
/// 1 to 255 visible ASCII characters.
pub(super) const IDEMPOTENCY_KEY_PATTERN: &str = "^[!-~]{1,255}$";
/// What can be part of a header's name, in lower case.
const ATTRIBUTE_NAME_PATTERN: &str = "^[a-z0-9!#$%&'*+.^_`|~-]+$";
/// What can be a header's value.
const ATTRIBUTE_VALUE_PATTERN: &str = r"^[^\x00-\x08\x0a-\x1f\x7f]*$";

/// A sealed context as it came: base64url, decoded, not opened.
pub(super) struct Sealed(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        json::sealed_bytes(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

impl PartialSchema for Sealed {
    fn schema() -> RefOr<Schema> {
        text(CONTEXT_PATTERN).into()
    }
}

impl ToSchema for Sealed {}

/// The media type of a value.
pub(super) struct MediaType(pub(super) String);

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if header::is_content_type(&text) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(header::CONTENT_TYPE_FORM))
    }
}

impl PartialSchema for MediaType {
    fn schema() -> RefOr<Schema> {
        text(MEDIA_TYPE_PATTERN)
            .max_length(Some(MAX_CONTENT_TYPE_BYTES))
            .into()
    }
}

impl ToSchema for MediaType {}

/// The key by which a client may repeat a write.
#[derive(Clone)]
pub(super) struct IdempotencyKey(pub(super) Key);

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Key::new(&text).map(Self).map_err(D::Error::custom)
    }
}

impl PartialSchema for IdempotencyKey {
    fn schema() -> RefOr<Schema> {
        text(IDEMPOTENCY_KEY_PATTERN).into()
    }
}

impl ToSchema for IdempotencyKey {}

/// Attributes of a value, each of which can be a header of an answer.
#[derive(Default)]
pub(super) struct Attributes(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let attributes = BTreeMap::deserialize(deserializer)?;
        header::check_attribute_form(&attributes).map_err(D::Error::custom)?;
        Ok(Self(attributes))
    }
}

impl PartialSchema for Attributes {
    fn schema() -> RefOr<Schema> {
        let value = AdditionalProperties::RefOr(text(ATTRIBUTE_VALUE_PATTERN).into());
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(text(ATTRIBUTE_NAME_PATTERN)))
            .additional_properties(Some(value))
            .max_properties(Some(MAX_ATTRIBUTES))
            .description(Some("At most 16, 1 KiB together."))
            .into()
    }
}

impl ToSchema for Attributes {}

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
}
