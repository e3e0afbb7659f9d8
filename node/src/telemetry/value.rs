//! The words spans are made of: kinds, link kinds and attribute values.
//!
//! They stand for OpenTelemetry's own types, so that no file outside of `telemetry` names those. Values are
//! built only for spans that are recorded.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

/// Links kept on one span; the SDK drops more. Siblings are capped at 100, so a resolver span fits.
pub const MAX_LINKS: usize = 128;

/// Which side of what a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work inside this node.
    Internal,
    /// Answering someone.
    Server,
    /// Asking another node.
    Client,
    /// Leaving something for later.
    Producer,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
        }
    }
}

/// What a link means: the value of `sibyl.link.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// To a write that a hint carries.
    OriginalWrite,
    /// To a write whose sibling a resolver merged.
    ConflictingWrite,
    /// To the read that found stale copies.
    RepairedRead,
    /// To the round in which a member was seen to be away, or there again.
    GossipCause,
}

impl LinkKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OriginalWrite => "original_write",
            Self::ConflictingWrite => "conflicting_write",
            Self::RepairedRead => "repaired_read",
            Self::GossipCause => "gossip_cause",
        }
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number; larger ones than `i64::MAX` are cut off there.
    Int(i64),
    /// Text of few different values, unless `names.rs` says otherwise.
    Text(Cow<'static, str>),
}

macro_rules! value_from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}
value_from_integer!(u8, u16, u32, u64, usize, i64);

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned().into())
    }
}

pub(super) fn key_value(name: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Bool(yes) => KeyValue::new(name, yes),
        Value::Int(number) => KeyValue::new(name, number),
        Value::Text(text) => KeyValue::new(name, text),
    }
}
