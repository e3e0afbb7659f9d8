//! JSON as values with a total order and one canonical text, so that equal content is equal bytes.
//!
//! Numbers are exact decimals of any length: `1`, `1.0` and `10e-1` are one number, written `1`; nothing is
//! rounded through a float. Canonical text has no white space, members sorted by code point, and numbers and
//! escapes as RFC 8785 writes them (where that is exact). What JSON leaves open is refused rather than
//! guessed: a member twice, lone surrogates, invalid UTF-8, more than [`MAX_DEPTH`] levels.

mod members;
mod number;
mod parse;
mod write;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use members::Members;
pub use number::Number;
pub use parse::{Error, MAX_DEPTH, parse};

/// A JSON value. The order is null, booleans, numbers, strings, arrays, objects; within a kind the natural
/// one (arrays and objects by their first difference).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An exact decimal.
    Number(Number<'a>),
    /// Text; borrowed from the input where it holds no escape.
    String(Cow<'a, str>),
    /// Values in their order.
    Array(Vec<Value<'a>>),
    /// Members.
    Object(Object<'a>),
}

/// Members sorted by name, each name once.
pub type Object<'a> = Members<'a, Value<'a>>;

impl Value<'_> {
    /// The canonical text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Most values fit: growing copies what is written so far.
        let mut out = Vec::with_capacity(1 << 12);
        write::value(self, &mut out);
        out
    }

    /// The kind of value, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}
