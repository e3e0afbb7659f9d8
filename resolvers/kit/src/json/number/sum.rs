//! Adds decimals exactly: one column per decimal place, carried once at the end.
//!
//! No float and no rounding, so the sum does not depend on the order. The columns are as many as the exponents that
//! numbers may have allow.

use super::{Number, Parts};

impl Number<'_> {
    /// The exact sum, whatever the order; of nothing, zero. `None` if its exponent is beyond ±400.
    #[must_use]
    pub fn sum(numbers: &[Self]) -> Option<Number<'static>> {
        let all: Vec<_> = numbers.iter().map(Self::parts).collect();
        let low = all.iter().map(lowest).min().unwrap_or(0);
        let high = all.iter().map(|parts| parts.places).max().unwrap_or(0);
        // A column holds at most 9 for each number: no count of siblings overflows it.
        let mut columns = vec![0_i64; usize::try_from(high - low).ok()?];
        for parts in &all {
            let sign = i64::from(parts.sign());
            let from = usize::try_from(lowest(parts) - low).ok()?;
            for (column, digit) in columns[from..].iter_mut().zip(parts.digits.bytes().rev()) {
                *column += sign * i64::from(digit - b'0');
            }
        }
        to_number(columns, low)
    }
}

/// The decimal place of the last digit.
fn lowest(parts: &Parts<'_>) -> i64 {
    parts.places - i64::try_from(parts.digits.len()).unwrap_or(i64::MAX)
}

/// `columns` from the lowest place up.
fn to_number(mut columns: Vec<i64>, low: i64) -> Option<Number<'static>> {
    let mut negative = false;
    let mut carry = carried(&mut columns);
    if carry < 0 {
        negative = true;
        columns.iter_mut().for_each(|column| *column = -*column);
        carry = -carry + carried(&mut columns);
    }
    // Ends: the carry loses a digit each time.
    while carry > 0 {
        columns.push(carry % 10);
        carry /= 10;
    }
    let places = low + i64::try_from(columns.len()).ok()?;
    let text: String = columns
        .iter()
        .rev()
        .filter_map(|&column| char::from_digit(u32::try_from(column).ok()?, 10))
        .collect();
    let significant = text.trim_start_matches('0');
    let leading = i64::try_from(text.len() - significant.len()).ok()?;
    let digits = significant.trim_end_matches('0');
    let sum = Parts {
        negative: negative && !digits.is_empty(),
        places: if digits.is_empty() {
            0
        } else {
            places - leading
        },
        digits: digits.into(),
    };
    Some(Number(sum.readable_text()?.into()))
}

/// Leaves one digit in each column and returns what is beyond the last; below zero if the number is.
fn carried(columns: &mut [i64]) -> i64 {
    columns.iter_mut().fold(0, |carry, column| {
        let total = *column + carry;
        *column = total.rem_euclid(10);
        total.div_euclid(10)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Number;

    fn sum(texts: &[&str]) -> Option<String> {
        let numbers: Option<Vec<_>> = texts.iter().map(|text| Number::from_json(text)).collect();
        Some(Number::sum(&numbers?)?.as_str().to_owned())
    }

    #[test]
    fn is_exact() {
        let check = |texts: &[&str], expected: &str| {
            assert_eq!(sum(texts).as_deref(), Some(expected), "{texts:?}");
        };
        check(&[], "0");
        check(&["0", "-0.0"], "0");
        check(&["0.1", "0.2"], "0.3");
        check(&["1e3", "-1000.0"], "0");
        check(&["5", "-7.5"], "-2.5");
        check(&["-95", "-5"], "-100");
        check(&["99999999999999999999999999999", "1"], "1e+29");
        check(&["1e30", "0.5"], "1000000000000000000000000000000.5");
        check(&["9e400", "-9e400", "1e-400"], "1e-400");
    }

    #[test]
    fn what_nobody_could_read_again_is_refused() {
        assert_eq!(sum(&["9e400", "9e400"]), None);
        assert_eq!(sum(&["10e400"]), None);
        assert_eq!(sum(&["0.1e-400"]), None);
    }

    proptest! {
        #[test]
        fn is_the_sum_of_integers(numbers in prop::collection::vec(any::<i64>(), 0..20)) {
            let texts: Vec<_> = numbers.iter().map(i64::to_string).collect();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let expected: i128 = numbers.iter().map(|&number| i128::from(number)).sum();
            let expected = expected.to_string();
            let canonical = Number::from_json(&expected).map(|n| n.as_str().to_owned());
            prop_assert_eq!(sum(&texts), canonical);
        }
    }
}
