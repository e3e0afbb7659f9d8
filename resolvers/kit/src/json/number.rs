//! An exact decimal number, held as its one canonical text.
//!
//! The text is the one ECMAScript and RFC 8785 give a double, extended to numbers no double can hold:
//! plain digits up to 21 integer places (and beyond, where all of them are significant), else an exponent.

mod sum;

use std::borrow::Cow;
use std::cmp::Ordering;

/// Decimal exponents reach from -400 to 400: more than any double, and too few for a short text to stand
/// for a number that nobody can write out.
const MAX_EXPONENT: i64 = 400;
/// ECMAScript writes integers up to 10^21 without an exponent.
const PLAIN_PLACES: i64 = 21;
/// ... and fractions down to 10^-6.
const PLAIN_ZEROS: i64 = 6;

/// Any natural number of so many digits fits 64 bits (10^18 < 2^60).
const SMALL_DIGITS: usize = 18;

/// An exact decimal number in canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

/// `0.d1d2d3... * 10^places`, no zero at either end; zero has no digits.
struct Parts<'a> {
    negative: bool,
    places: i64,
    digits: Cow<'a, str>,
}

impl<'a> Number<'a> {
    /// Reads a text that follows JSON's grammar for numbers.
    ///
    /// `None` if its exponent is beyond ±400, as written or in its canonical text.
    pub(super) fn from_json(text: &'a str) -> Option<Self> {
        if is_plain_integer(text) {
            return Some(Self(Cow::Borrowed(text)));
        }
        let canonical = split(text)?.readable_text()?;
        Some(Self(if canonical == text {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(canonical)
        }))
    }

    /// Reads a text of nothing but ASCII digits that is canonical: `None` if it is empty, has a leading zero,
    /// or is too long to tell without counting.
    pub(super) fn from_digits(text: &'a str) -> Option<Self> {
        let plain = match text.as_bytes() {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.len() < 21,
            _ => false,
        };
        plain.then_some(Self(Cow::Borrowed(text)))
    }

    /// Zero.
    pub const ZERO: Self = Self(Cow::Borrowed("0"));

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.0.starts_with('-')
    }

    /// The same on the other side of zero.
    #[must_use]
    pub fn negated(&self) -> Number<'static> {
        Number(Cow::Owned(match self.0.strip_prefix('-') {
            Some(rest) => rest.to_owned(),
            None if *self == Self::ZERO => self.0.to_string(),
            None => format!("-{}", self.0),
        }))
    }

    /// Whether it is an integer written without an exponent.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    }

    /// The value of a few plain digits. Two that have one are equal only if their texts are.
    fn small(&self) -> Option<u64> {
        let digits = self.0.as_bytes();
        if digits.len() > SMALL_DIGITS {
            return None;
        }
        digits.iter().try_fold(0, |value: u64, digit| {
            let digit = digit.wrapping_sub(b'0');
            (digit < 10).then(|| value * 10 + u64::from(digit))
        })
    }

    fn parts(&self) -> Parts<'_> {
        split(&self.0).expect("canonical text keeps to the exponent it was read with")
    }
}

impl From<u64> for Number<'_> {
    fn from(value: u64) -> Self {
        Self(Cow::Owned(value.to_string()))
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Some(left), Some(right)) = (self.small(), other.small()) {
            return left.cmp(&right);
        }
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let natural = |number: &Self| number.0.bytes().all(|b| b.is_ascii_digit());
        if natural(self) && natural(other) {
            // The common case: no sign, no point, no leading zero.
            return (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0));
        }
        let (left, right) = (self.parts(), other.parts());
        match (left.sign(), right.sign()) {
            (a, b) if a != b => a.cmp(&b),
            (-1, _) => right.magnitude().cmp(&left.magnitude()),
            _ => left.magnitude().cmp(&right.magnitude()),
        }
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The common case, canonical as it stands: `0`, or up to 21 digits that do not start with a zero.
fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    match digits {
        [b'0'] => text == "0",
        [b'1'..=b'9', rest @ ..] => rest.len() < 21 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn split(text: &str) -> Option<Parts<'_>> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        // An exponent too long for an i64 is beyond the limit, unless the number is zero; refused all the same.
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i64>().ok()?),
        None => (rest, 0),
    };
    if !(-MAX_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
        return None;
    }
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: Cow<'_, str> = if fraction.is_empty() {
        Cow::Borrowed(integer)
    } else {
        Cow::Owned([integer, fraction].concat())
    };
    let leading = all.len() - all.trim_start_matches('0').len();
    let places = i64::try_from(integer.len()).ok()? - i64::try_from(leading).ok()? + exponent;
    let digits: Cow<'_, str> = match all {
        Cow::Borrowed(digits) => Cow::Borrowed(digits.trim_matches('0')),
        Cow::Owned(digits) => Cow::Owned(digits.trim_matches('0').to_owned()),
    };
    let zero = digits.is_empty();
    Some(Parts {
        negative: negative && !zero,
        places: if zero { 0 } else { places },
        digits,
    })
}

impl Parts<'_> {
    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    /// Orders two numbers of one sign. Digits compare as text: both start right after the point.
    fn magnitude(&self) -> (i64, &str) {
        (self.places, &self.digits)
    }

    /// The canonical text; `None` if nobody could read it again.
    fn readable_text(&self) -> Option<String> {
        let text = self.to_text();
        (!text.contains('e') || (self.places - 1).abs() <= MAX_EXPONENT).then_some(text)
    }

    fn to_text(&self) -> String {
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        let mut out = String::with_capacity(self.digits.len() + 8);
        if self.negative {
            out.push('-');
        }
        let digits: &str = &self.digits;
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let places = usize::try_from(self.places).unwrap_or(0);
        if self.places > 0 && self.places <= PLAIN_PLACES.max(count) {
            out.push_str(&digits[..places.min(digits.len())]);
            if count > self.places {
                out.push('.');
                out.push_str(&digits[places..]);
            } else {
                out.extend(std::iter::repeat_n('0', places - digits.len()));
            }
        } else if self.places <= 0 && self.places > -PLAIN_ZEROS {
            out.push_str("0.");
            out.extend((self.places..0).map(|_| '0'));
            out.push_str(digits);
        } else {
            out.push_str(&digits[..1]);
            if digits.len() > 1 {
                out.push('.');
                out.push_str(&digits[1..]);
            }
            let exponent = self.places - 1;
            out.push('e');
            out.push(if exponent < 0 { '-' } else { '+' });
            out.push_str(&exponent.unsigned_abs().to_string());
        }
        out
    }
}
