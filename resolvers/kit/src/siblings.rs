//! What the resolvers of structured values do alike with their siblings.
//!
//! A tombstone reaches a resolver only in a bucket whose delete policy is `resolver`. For all but `lww` it
//! is a sibling that says nothing: values win over it, and tombstones alone stay a delete.

use crate::json::{self, Value};
use crate::{BadSibling, Failure, Resolution, Sibling};

/// What needs no look into the values: all deleted, or all byte for byte the same (then the newest is
/// picked as it is, so merging a value with itself changes nothing).
pub fn alike(siblings: &[Sibling]) -> Option<Resolution> {
    let (last, rest) = siblings.split_last()?;
    if rest.iter().any(|sibling| sibling.value != last.value) {
        return None;
    }
    Some(match last.value {
        None => Resolution::Delete,
        // At most 100 siblings: the index fits.
        Some(_) => Resolution::Pick(u32::try_from(rest.len()).unwrap_or(u32::MAX)),
    })
}

/// The siblings that are not tombstones, with their index.
pub fn values(siblings: &[Sibling]) -> impl Iterator<Item = (usize, &[u8])> {
    siblings
        .iter()
        .enumerate()
        .filter_map(|(index, sibling)| Some((index, sibling.value.as_deref()?)))
}

/// Reads every value as JSON and then as what `read` makes of it.
///
/// # Errors
/// `malformed` with the index of the first value that is not JSON or that `read` refuses, and why.
pub fn read_all<'a, T>(
    siblings: &'a [Sibling],
    read: impl Fn(Value<'a>) -> Result<T, String>,
) -> Result<Vec<T>, Failure> {
    values(siblings)
        .map(|(index, bytes)| read_json(bytes, &read).map_err(|why| malformed(index, why)))
        .collect()
}

/// Reads one value as JSON and then as what `read` makes of it; what a `check-value` needs.
///
/// # Errors
/// What is wrong with the value.
pub fn read_json<'a, T>(
    bytes: &'a [u8],
    read: impl Fn(Value<'a>) -> Result<T, String>,
) -> Result<T, String> {
    let value =
        json::parse(bytes).map_err(|error| format!("not JSON this resolver reads: {error}"))?;
    read(value)
}

/// The failure that names a sibling.
pub fn malformed(index: usize, message: impl Into<String>) -> Failure {
    Failure::Malformed(BadSibling {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        message: message.into(),
    })
}
