//! `set-union`: a JSON array as a set; the result holds every element that any sibling holds, once.
//!
//! Elements are any JSON values, equal if their content is equal (`1` and `1.0` are). The result is sorted,
//! in canonical JSON. A lattice: union is associative, commutative and idempotent. Removing an element only
//! works while nobody concurrent still has it; where removals matter, `cart` or `automerge` remember them.

use sibyl_resolver_kit::json::{Object, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

/// The union of JSON arrays.
pub struct SetUnion;

impl Resolver for SetUnion {
    const NAME: &'static str = "set-union";
    const SUMMARY: &'static str =
        "JSON arrays as sets: keeps every element of every sibling, once.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let sets = siblings::read_all(input, elements)?;
        Ok(Resolution::Merged(to_bytes(sets.concat())))
    }
}

impl Checked for SetUnion {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        siblings::read_json(value, elements).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        to_bytes(entropy.iter().map(|&byte| element(byte)).collect())
    }
}

fn elements(value: Value<'_>) -> Result<Vec<Value<'_>>, String> {
    match value {
        Value::Array(elements) => Ok(elements),
        other => Err(format!(
            "a set is a JSON array, and this is {}",
            other.kind()
        )),
    }
}

fn to_bytes(mut elements: Vec<Value<'_>>) -> Vec<u8> {
    // Merged sets are sorted already; the sort finds such runs in one pass.
    elements.sort();
    elements.dedup();
    Value::Array(elements).to_bytes()
}

/// One of 64 elements of several kinds, so that samples overlap.
fn element(byte: u8) -> Value<'static> {
    let number = Value::Number(u64::from(byte % 16).into());
    match byte / 16 % 4 {
        0 => number,
        1 => Value::String(format!("e{}", byte % 16).into()),
        2 => Value::Array(vec![number, Value::Null]),
        _ => Value::Object(Object::from_iter([("id".into(), number)])),
    }
}

sibyl_resolver_kit::export!(SetUnion);

#[cfg(test)]
mod tests;
