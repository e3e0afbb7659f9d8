//! `pn-counter`: a counter that nobody counts twice. Each writer has a total of what it added and one of what it took.
//!
//! `{"inc": {"ann": 7, "bob": 3}, "dec": {"bob": 1}, "value": 9}`. To add 2, ann raises her own total in `inc` to 9; to
//! take 1, hers in `dec`. `value` is what it comes to: written by every merge, right or left out when it is read.
//!
//! A lattice: per writer the greater total wins, so grouping and repetition do not matter, and whoever reads the counter
//! may write it back. A name must belong to one writer at a time: two that raise one total at once lose an addition.
//! Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data Types" (2011), 3.1.3.

use sibyl_resolver_kit::json::{Members, Number, Object, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

/// Totals by writer: what was added, and what was taken.
pub struct PnCounter;

/// Totals by writer.
type Totals<'a> = Members<'a, Number<'a>>;

#[derive(Default)]
struct Counter<'a> {
    added: Totals<'a>,
    taken: Totals<'a>,
}

impl Resolver for PnCounter {
    const NAME: &'static str = "pn-counter";
    const SUMMARY: &'static str =
        "A counter with totals by writer: per writer the greater total, and what they come to.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let counters = siblings::read_all(input, Counter::read)?;
        let merged = counters.into_iter().fold(Counter::default(), Counter::join);
        let bytes = merged.into_bytes();
        Ok(Resolution::Merged(bytes.map_err(Failure::Other)?))
    }
}

impl Checked for PnCounter {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        siblings::read_json(value, Counter::read).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        let mut counter = Counter::default();
        for pair in entropy.chunks(2) {
            let writer = ["ann", "bob", "cid"][usize::from(pair[0] % 3)];
            let totals = if pair[0] & 0x80 == 0 {
                &mut counter.added
            } else {
                &mut counter.taken
            };
            let total = pair.get(1).copied().unwrap_or(1);
            totals.insert(writer, Number::from(u64::from(total)));
        }
        counter.into_bytes().unwrap_or_default()
    }
}

impl<'a> Counter<'a> {
    fn read(value: Value<'a>) -> Result<Self, String> {
        let Value::Object(mut members) = value else {
            return Err(format!(
                "a counter is a JSON object, and this is {}",
                value.kind()
            ));
        };
        let counter = Self {
            added: totals("inc", members.remove("inc"))?,
            taken: totals("dec", members.remove("dec"))?,
        };
        let said = members.remove("value");
        if let Some(other) = members.names().next() {
            return Err(format!(
                "a counter has \"inc\", \"dec\" and \"value\", and this has {other:?}"
            ));
        }
        let value = counter.value()?;
        match said {
            None => Ok(counter),
            Some(Value::Number(said)) if said == value => Ok(counter),
            Some(_) => Err(format!(
                "\"value\" must be {}, what \"inc\" and \"dec\" come to, or be left out",
                value.as_str()
            )),
        }
    }

    fn join(self, other: Self) -> Self {
        Self {
            added: self.added.join(other.added, Ord::max),
            taken: self.taken.join(other.taken, Ord::max),
        }
    }

    /// What it comes to.
    fn value(&self) -> Result<Number<'static>, String> {
        let mut all: Vec<Number<'_>> = self.added.values().cloned().collect();
        for total in self.taken.values() {
            all.push(total.negated());
        }
        Number::sum(&all).ok_or_else(|| "the totals are too large to be added".to_owned())
    }

    fn into_bytes(self) -> Result<Vec<u8>, String> {
        let value = self.value()?;
        let Self { added, taken } = self;
        let mut members = Object::default();
        for (name, totals) in [("dec", taken), ("inc", added)] {
            let totals = totals.try_map(|_, total| Ok::<_, String>(Value::Number(total)))?;
            members.insert(name, Value::Object(totals));
        }
        members.insert("value", Value::Number(value));
        Ok(Value::Object(members).to_bytes())
    }
}

fn totals<'a>(name: &str, value: Option<Value<'a>>) -> Result<Totals<'a>, String> {
    match value {
        None => Ok(Totals::default()),
        Some(Value::Object(totals)) => totals.try_map(|writer, total| match total {
            Value::Number(total) if total.is_integer() && !total.is_negative() => Ok(total),
            _ => Err(format!(
                "the total of {writer:?} in {name:?} must be an integer, 0 or more"
            )),
        }),
        Some(other) => Err(format!(
            "{name:?} must be an object of totals, and is {}",
            other.kind()
        )),
    }
}

sibyl_resolver_kit::export!(PnCounter);

#[cfg(test)]
mod tests;
