//! What a broken law looks like to somebody who has seen many: a name for it, and what to do.
//!
//! Guesses from values alone, and called that. The order of looking matters: the narrowest guess that fits wins.

use bytes::Bytes;
use serde_json::Value;

use super::Law;
use super::judge::{Given, Side};

/// Floats that differ by no more than this part of themselves differ by rounding.
const ROUNDING: f64 = 1e-9;

/// What it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Twice the same input, two answers.
    Unsteady,
    /// The same JSON in other bytes.
    JsonOrder,
    /// Sums that differ by rounding.
    FloatSum,
    /// Numbers that are added.
    AddsNumbers,
    /// A mean of means.
    Averages,
    /// Values put one behind the other.
    Concatenates,
    /// A list that is cut to a length.
    CappedList,
    /// One of the inputs, by its place.
    PicksByPlace,
    /// Members taken from whoever comes last.
    LaterOverEarlier,
    /// It refuses values that nothing told to refuse.
    RefusesValues,
    /// Its own result is refused.
    LeavesItsValues,
    /// None of these.
    DependsOnGrouping,
    /// Counted twice, in no known way.
    CountsAgain,
}

impl Suspicion {
    /// What it looks like, in a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unsteady => {
                "gives other answers from call to call: it keeps something between them, or reads something that changes"
            }
            Self::JsonOrder => {
                "writes the same JSON in other bytes: members or lists stand in an order that is left to chance"
            }
            Self::FloatSum => {
                "adds floats: both results are nearly the same number, and rounding depends on the order"
            }
            Self::AddsNumbers => {
                "adds numbers: a value already merged gets counted again when it meets its own past"
            }
            Self::Averages => "averages: a mean of means forgets how many values each stands for",
            Self::Concatenates => {
                "puts values one behind the other: what is there already is there twice afterwards"
            }
            Self::CappedList => {
                "keeps so many entries only: which ones are cut off depends on who was merged first"
            }
            Self::PicksByPlace => {
                "answers one of the inputs by its place in the list, as a new value: as that it is as new as the newest of them, and stands elsewhere next time"
            }
            Self::LaterOverEarlier => {
                "takes each member from whoever comes last: a merged value is as new as its newest part, so its older members win against newer ones"
            }
            Self::RefusesValues => "fails on values that its check-value accepts",
            Self::LeavesItsValues => "makes values that its own check-value refuses",
            Self::DependsOnGrouping => "depends on who is merged first",
            Self::CountsAgain => "counts again: a merged value that meets its own past changes",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unsteady => {
                "let the answer depend on the arguments alone: no statics, no addresses, no iteration over a hash map"
            }
            Self::JsonOrder => {
                "write members in the order of their names and sets in the order of their entries (a sorted map)"
            }
            Self::FloatSum => {
                "add integers (cents, not euros), or keep each writer's part and add only what is shown"
            }
            Self::AddsNumbers => {
                "fine where each value is an increment and clients never write back what they read (tier foldable); else keep a count per writer and take the highest of each, as pn-counter does"
            }
            Self::Averages => {
                "keep the sum and the count of each writer, and divide where the value is shown"
            }
            Self::Concatenates => {
                "give entries an identity and take their union, as set-union does"
            }
            Self::CappedList => {
                "keep all, or cut by a total order of the entries themselves (the greatest n), never by place"
            }
            Self::PicksByPlace => {
                "answer `pick` with its index: the picked value keeps its own time; or choose by the value itself"
            }
            Self::LaterOverEarlier => {
                "compare the members themselves (the greatest, a union), or give each a time or a revision of its own and compare those"
            }
            Self::RefusesValues => {
                "export check-value and refuse such values when they are written, or merge them"
            }
            Self::LeavesItsValues => "let check-value accept everything that resolve can answer",
            Self::DependsOnGrouping => {
                "merge by an operation that is associative: union, maximum, per-member rules"
            }
            Self::CountsAgain => {
                "merge by an operation that is idempotent: union or maximum instead of adding up"
            }
        }
    }
}

/// The best guess.
pub(super) fn of(law: Law, siblings: &[Given], sides: &[Side; 2], always: bool) -> Suspicion {
    if !always || law == Law::Determinism {
        return Suspicion::Unsteady;
    }
    match law {
        Law::Totality => return Suspicion::RefusesValues,
        Law::Closure => return Suspicion::LeavesItsValues,
        _ => {}
    }
    let inputs: Vec<&Bytes> = siblings
        .iter()
        .filter_map(|given| given.value.as_ref())
        .collect();
    let known = match [value(&sides[0]), value(&sides[1])] {
        [Some(one), Some(other)] => of_values(law, &inputs, one, other),
        _ => None,
    };
    known.unwrap_or(match law {
        Law::Repetition | Law::Absorption => Suspicion::CountsAgain,
        _ => Suspicion::DependsOnGrouping,
    })
}

fn value(side: &Side) -> Option<&Bytes> {
    match side.values.as_deref() {
        Ok([Some(value)]) => Some(value),
        _ => None,
    }
}

fn of_values(law: Law, inputs: &[&Bytes], one: &Bytes, other: &Bytes) -> Option<Suspicion> {
    let (left, right) = (json(one), json(other));
    if left.is_some() && left == right {
        return Some(Suspicion::JsonOrder);
    }
    let again = matches!(law, Law::Repetition | Law::Absorption);
    if let (Some(left), Some(right)) = (
        left.as_ref().and_then(Value::as_f64),
        right.as_ref().and_then(Value::as_f64),
    ) {
        let near = (left - right).abs() <= ROUNDING * left.abs().max(right.abs());
        let between = |number: f64| {
            let numbers = inputs.iter().filter_map(|input| json(input)?.as_f64());
            let (low, high) = numbers.fold((f64::MAX, f64::MIN), |(low, high), it| {
                (low.min(it), high.max(it))
            });
            (low..=high).contains(&number)
        };
        let picks = inputs.contains(&one) && inputs.contains(&other);
        return match (near, again) {
            (true, _) => Some(Suspicion::FloatSum),
            (_, true) => Some(Suspicion::AddsNumbers),
            _ if picks => Some(Suspicion::PicksByPlace),
            _ if between(left) && between(right) => Some(Suspicion::Averages),
            _ => None,
        };
    }
    if inputs.contains(&one) && inputs.contains(&other) {
        return Some(Suspicion::PicksByPlace);
    }
    if again && is_repeated(one, other) {
        return Some(Suspicion::Concatenates);
    }
    match (left, right) {
        (Some(Value::Array(left)), Some(Value::Array(right)))
            if again && right.len() > left.len() =>
        {
            Some(Suspicion::Concatenates)
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) if left.len() == right.len() => {
            let sorted = |items: Vec<Value>| {
                let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
                items.sort();
                items
            };
            let same = sorted(left) == sorted(right);
            Some(if same {
                Suspicion::JsonOrder
            } else {
                Suspicion::CappedList
            })
        }
        (Some(Value::Object(left)), Some(Value::Object(right))) if left.keys().eq(right.keys()) => {
            let of_inputs = |name: &str, value: &Value| {
                inputs
                    .iter()
                    .any(|input| json(input).is_some_and(|input| input.get(name) == Some(value)))
            };
            let all = left
                .iter()
                .chain(&right)
                .all(|(name, value)| of_inputs(name, value));
            all.then_some(Suspicion::LaterOverEarlier)
        }
        _ => None,
    }
}

fn json(bytes: &Bytes) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// Whether the second is longer, and holds the first at its beginning or end.
fn is_repeated(one: &Bytes, other: &Bytes) -> bool {
    !one.is_empty() && other.len() > one.len() && (other.starts_with(one) || other.ends_with(one))
}
