//! `or-set`: a set from which elements can be removed; an addition wins over a removal that did not see it.
//!
//! `{"items": {"milk": {"ann": 3}, "eggs": {"bob": 1}}, "seen": {"ann": 4, "bob": 1}}`. Each addition has a name, its
//! writer and that writer's next number, which `seen` remembers. To add: raise your own number in `seen`, and let the
//! element have just it. To remove: take the element out, and leave `seen` as it is. Nothing else is kept of removals.
//!
//! A lattice: an addition is unseen, then there, then seen and gone, and a merge takes the later of each. A name must
//! belong to one writer at a time, and a writer must go on from its own last write. Bieniusa et al., "An optimized
//! conflict-free replicated set" (2012).

use sibyl_resolver_kit::json::{Members, Number, Object, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

/// The observed-remove set, without tombstones.
pub struct OrSet;

/// The last number of each writer.
type Numbers<'a> = Members<'a, Number<'a>>;

#[derive(Default)]
struct Set<'a> {
    /// The additions that are there, by element.
    items: Members<'a, Numbers<'a>>,
    seen: Numbers<'a>,
}

impl Resolver for OrSet {
    const NAME: &'static str = "or-set";
    const SUMMARY: &'static str =
        "A set with removals: an addition wins over a removal that did not see it.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let sets = siblings::read_all(input, Set::read)?;
        let merged = sets.into_iter().reduce(Set::join).unwrap_or_default();
        Ok(Resolution::Merged(merged.into_bytes()))
    }
}

impl Checked for OrSet {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        siblings::read_json(value, Set::read).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        let mut set = Set::default();
        for byte in entropy {
            let element = ["milk", "eggs", "tea", "jam"][usize::from(byte % 4)];
            if byte & 0xc0 == 0 {
                set.items.remove(element);
                continue;
            }
            let writer = ["ann", "bob", "cid"][usize::from(byte / 4 % 3)];
            // Two that meet here are two additions under one name, which no writer makes: it must merge all the same.
            let number = Number::from(u64::from(byte / 16 % 8) + 1);
            let last = set.seen.get(writer).cloned().unwrap_or(Number::ZERO);
            set.seen.insert(writer, last.max(number.clone()));
            let mut additions = Numbers::default();
            additions.insert(writer, number);
            set.items.insert(element, additions);
        }
        set.into_bytes()
    }
}

impl<'a> Set<'a> {
    fn read(value: Value<'a>) -> Result<Self, String> {
        let Value::Object(mut members) = value else {
            return Err(format!(
                "a set with removals is a JSON object, and this is {}",
                value.kind()
            ));
        };
        let seen = match members.remove("seen") {
            None => Numbers::default(),
            Some(seen) => numbers("\"seen\"", seen)?,
        };
        let items = match members.remove("items") {
            None => Members::default(),
            Some(Value::Object(items)) => {
                items.try_map(|element, additions| additions_of(element, additions, &seen))?
            }
            Some(other) => {
                return Err(format!(
                    "\"items\" must be an object, and is {}",
                    other.kind()
                ));
            }
        };
        match members.names().next() {
            None => Ok(Self { items, seen }),
            Some(other) => Err(format!(
                "a set with removals has \"items\" and \"seen\", and this has {other:?}"
            )),
        }
    }

    fn join(mut self, mut other: Self) -> Self {
        let (mine, theirs) = (self.items.clone(), other.items.clone());
        self.keep(&theirs, &other.seen);
        other.keep(&mine, &self.seen);
        Self {
            items: self
                .items
                .join(other.items, |mine, theirs| mine.join(theirs, Ord::max)),
            seen: self.seen.join(other.seen, Ord::max),
        }
    }

    /// Drops what another has seen and no more has.
    fn keep(&mut self, theirs: &Members<'a, Numbers<'a>>, seen: &Numbers<'a>) {
        let has = |element: &str, writer: &str, number: &Number<'a>| {
            let there = theirs
                .get(element)
                .and_then(|additions| additions.get(writer));
            there == Some(number)
        };
        let unseen =
            |writer: &str, number: &Number<'a>| seen.get(writer).is_none_or(|last| last < number);
        self.items.retain(|element, additions| {
            additions
                .retain(|writer, number| unseen(writer, number) || has(element, writer, number));
            !additions.is_empty()
        });
    }

    fn into_bytes(self) -> Vec<u8> {
        let json = |numbers: Numbers<'a>| {
            let mut members = Object::default();
            for (writer, number) in numbers.iter() {
                members.insert(writer.clone(), Value::Number(number.clone()));
            }
            Value::Object(members)
        };
        let mut items = Object::default();
        for (element, additions) in self.items.iter() {
            items.insert(element.clone(), json(additions.clone()));
        }
        let mut all = Object::default();
        all.insert("items", Value::Object(items));
        all.insert("seen", json(self.seen));
        Value::Object(all).to_bytes()
    }
}

/// The additions of an element; each is one that was seen.
fn additions_of<'a>(
    element: &str,
    additions: Value<'a>,
    seen: &Numbers<'a>,
) -> Result<Numbers<'a>, String> {
    let additions = numbers(&format!("item {element:?}"), additions)?;
    if additions.is_empty() {
        return Err(format!(
            "item {element:?} has no addition: to remove it, leave it out"
        ));
    }
    let unseen = additions
        .iter()
        .find(|(writer, number)| seen.get(writer).is_none_or(|last| last < *number));
    match unseen {
        None => Ok(additions),
        Some((writer, number)) => Err(format!(
            "item {element:?} was added by {writer:?} as number {}, which \"seen\" does not reach",
            number.as_str()
        )),
    }
}

fn numbers<'a>(what: &str, value: Value<'a>) -> Result<Numbers<'a>, String> {
    let Value::Object(members) = value else {
        return Err(format!(
            "{what} must be an object of numbers by writer, and is {}",
            value.kind()
        ));
    };
    members.try_map(|writer, number| match number {
        Value::Number(number)
            if number.is_integer() && !number.is_negative() && number != Number::ZERO =>
        {
            Ok(number)
        }
        _ => Err(format!(
            "{what}: the number of {writer:?} must be an integer, 1 or more"
        )),
    })
}

sibyl_resolver_kit::export!(OrSet);

#[cfg(test)]
mod tests;
