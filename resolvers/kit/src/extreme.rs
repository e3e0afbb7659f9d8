//! What `max` and `min` share: one sibling is picked whole, by the number at a JSON Pointer.
//!
//! The order is total: the number, then the whole document in JSON order, then its bytes, then time. The end
//! of a total order is a lattice, and since a sibling is picked, not made, its other members stay together.

use std::cmp::Ordering;

use crate::json::{self, Number, Value};
use crate::{Context, Failure, Resolution, Sibling, siblings};

/// JSON Schema of the configuration.
pub const CONFIG_SCHEMA: &str = include_str!("extreme.schema.json");

/// Picks the sibling whose number is at the end that `end` says, as compared with the others.
///
/// # Errors
/// `bad-config` for a wrong path; `malformed` for a value without a number there.
pub fn pick(ctx: &Context, input: &[Sibling], end: Ordering) -> Result<Resolution, Failure> {
    let path = path_of(ctx).map_err(Failure::BadConfig)?;
    let mut best: Option<(Number<'_>, Value<'_>, &[u8], usize)> = None;
    for (index, bytes) in siblings::values(input) {
        let (number, document) =
            read(bytes, &path).map_err(|why| siblings::malformed(index, why))?;
        let found = (number, document, bytes, index);
        // The host sorts by time: of equal bytes the later index is the newer one, for both ends.
        let better = best.as_ref().is_none_or(|best| {
            let order = (&found.0, &found.1, found.2).cmp(&(&best.0, &best.1, best.2));
            order == end || order == Ordering::Equal
        });
        if better {
            best = Some(found);
        }
    }
    Ok(best.map_or(Resolution::Delete, |(.., index)| {
        // At most 100 siblings: the index fits.
        Resolution::Pick(u32::try_from(index).unwrap_or(u32::MAX))
    }))
}

/// Refuses a value that has no number at the path.
///
/// # Errors
/// What is wrong with the value or the path.
pub fn check_value(ctx: &Context, value: &[u8]) -> Result<(), String> {
    read(value, &path_of(ctx)?).map(drop)
}

/// Refuses a configuration that is no path.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_config(config: &str) -> Result<(), String> {
    path(config).map(drop)
}

/// A number, as the values are without a path: 16 of them, so that samples tie.
#[must_use]
pub fn sample(entropy: &[u8]) -> Vec<u8> {
    let byte = entropy.first().copied().unwrap_or(0);
    let sign = if byte & 16 == 0 { "" } else { "-" };
    // Three ways to write one number, of which only the bytes differ.
    let form = ["", ".0", "e0"][usize::from(byte >> 5) % 3];
    format!("{sign}{}{form}", byte % 16).into_bytes()
}

fn read<'a>(bytes: &'a [u8], path: &[String]) -> Result<(Number<'a>, Value<'a>), String> {
    siblings::read_json(bytes, |document| {
        let found = path
            .iter()
            .try_fold(&document, |value, segment| match value {
                Value::Object(members) => members.get(segment),
                _ => None,
            });
        match found {
            Some(Value::Number(number)) => Ok((number.clone(), document)),
            other => Err(format!(
                "needs a number at \"{}\", and there is {}",
                path.iter()
                    .map(|name| format!("/{name}"))
                    .collect::<String>(),
                other.map_or("nothing", Value::kind)
            )),
        }
    })
}

fn path_of(ctx: &Context) -> Result<Vec<String>, String> {
    path(ctx.config.as_deref().unwrap_or_default())
}

/// The segments of the configured JSON Pointer; without a configuration, the whole value.
fn path(config: &str) -> Result<Vec<String>, String> {
    const EXPECTED: &str =
        "must be {\"path\": \"/a/b\"}, the JSON Pointer of the number, or nothing";
    if config.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value = json::parse(config.as_bytes()).map_err(|error| format!("config: {error}"))?;
    let mut members = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(members) => members,
        other => return Err(format!("config: {EXPECTED}; it is {}", other.kind())),
    };
    let path = members.remove("path");
    if let Some(name) = members.names().next() {
        return Err(format!("config: unknown member {name:?}; {EXPECTED}"));
    }
    match path {
        None => Ok(Vec::new()),
        Some(Value::String(path)) => segments(&path).ok_or_else(|| {
            format!(
                "path {path:?}: {EXPECTED}; it starts with `/`, and `~` is `~0`, `/` in a name `~1`"
            )
        }),
        Some(other) => Err(format!("path: {EXPECTED}; it is {}", other.kind())),
    }
}

fn segments(path: &str) -> Option<Vec<String>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    let segment = |text: &str| {
        let plain = text.replace("~0", "").replace("~1", "");
        (!plain.contains('~')).then(|| text.replace("~1", "/").replace("~0", "~"))
    };
    path.strip_prefix('/')?.split('/').map(segment).collect()
}
