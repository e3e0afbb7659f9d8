//! `sum`: each value is an increment, a JSON number; the result is their exact sum.
//!
//! Every write counts, equal ones too. Foldable, not a lattice: adding is associative and commutative, but a sum
//! that meets its own parts again counts them twice. So write increments without a context; a client that reads
//! the sum and writes it back must pass the context it read. Numbers are exact decimals of any size.

use sibyl_resolver_kit::json::{Number, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

/// The exact sum of JSON numbers.
pub struct Sum;

impl Resolver for Sum {
    const NAME: &'static str = "sum";
    const SUMMARY: &'static str =
        "JSON numbers as increments: their exact sum, every write counted.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        let numbers = siblings::read_all(input, number)?;
        if numbers.is_empty() {
            return Ok(Resolution::Delete);
        }
        let sum = Number::sum(&numbers)
            .ok_or_else(|| Failure::Other("the sum's exponent is beyond 400".into()))?;
        Ok(Resolution::Merged(Value::Number(sum).to_bytes()))
    }
}

impl Checked for Sum {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        siblings::read_json(value, number).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        let byte = |at: usize| entropy.get(at).copied().unwrap_or(0);
        let sign = if byte(0) & 1 == 0 { "" } else { "-" };
        let places = byte(2) % 4;
        // Halves, tenths and large integers, where floats would drift.
        format!("{sign}{}.{}e{}", byte(0) >> 1, byte(1), places * 7).into_bytes()
    }
}

fn number(value: Value<'_>) -> Result<Number<'_>, String> {
    match value {
        Value::Number(number) => Ok(number),
        other => Err(format!(
            "an increment is a JSON number, and this is {}",
            other.kind()
        )),
    }
}

sibyl_resolver_kit::export!(Sum);

#[cfg(test)]
mod tests;
