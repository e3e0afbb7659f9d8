//! Merges the values that the siblings hold at one path, from the root down.
//!
//! Every path looks at every sibling, also at those that have nothing there, so what happens at a path
//! depends on that path alone. Where no rule is set and some sibling holds an object, the objects are merged
//! and anything else there yields to them: a kind that always wins keeps the grouping irrelevant.

use std::fmt;

use sibyl_resolver_kit::json::{Object, Value};

use crate::rules::{Fitting, Rule, Rules, escape};

/// What one sibling holds at a path.
#[derive(Clone, Copy)]
pub(crate) struct Input<'v, 'a> {
    pub(crate) index: usize,
    pub(crate) modified_at: u64,
    pub(crate) value: Option<&'v Value<'a>>,
}

/// A value that the rule of its path does not take.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) index: usize,
    path: String,
    expected: &'static str,
    found: &'static str,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            expected,
            found,
            ..
        } = self;
        write!(
            f,
            "at {path:?} the bucket's rule expects {expected}, and this is {found}"
        )
    }
}

/// The merged document; `None` if nothing is left of it.
pub(crate) fn document<'a>(
    rules: &Rules,
    inputs: &[Input<'_, 'a>],
) -> Result<Option<Value<'a>>, Mismatch> {
    let mut merge = Merge {
        default: rules.default,
        path: Vec::new(),
    };
    merge.at(&Fitting::root(rules), inputs)
}

struct Merge<'v> {
    default: Rule,
    /// Names down to here, for messages.
    path: Vec<&'v str>,
}

impl<'v> Merge<'v> {
    fn at<'a>(
        &mut self,
        fitting: &Fitting<'_>,
        inputs: &[Input<'v, 'a>],
    ) -> Result<Option<Value<'a>>, Mismatch> {
        let objects = |input: &Input<'_, 'a>| matches!(input.value, Some(Value::Object(_)));
        match fitting.rule() {
            None if inputs.iter().any(objects) => self.members(fitting, inputs).map(Some),
            None => self.choose(self.default, inputs),
            Some(Rule::Object) => {
                self.expect(inputs, "an object", |value| {
                    matches!(value, Value::Object(_))
                })?;
                if !inputs.iter().any(objects) {
                    return Ok(None);
                }
                self.members(fitting, inputs).map(Some)
            }
            Some(rule) => self.choose(rule, inputs),
        }
    }

    fn members<'a>(
        &mut self,
        fitting: &Fitting<'_>,
        inputs: &[Input<'v, 'a>],
    ) -> Result<Value<'a>, Mismatch> {
        let mut left: Vec<_> = inputs
            .iter()
            .map(|input| {
                let object = input.value.and_then(as_object);
                object.into_iter().flat_map(Object::iter).peekable()
            })
            .collect();
        let mut merged = Vec::new();
        // Ends: each round takes the least name out of every object that has it.
        while let Some(name) = left
            .iter_mut()
            .filter_map(|members| members.peek().map(|&(name, _)| name))
            .min()
        {
            let below: Vec<_> = inputs
                .iter()
                .zip(&mut left)
                .map(|(input, members)| Input {
                    value: members.next_if(|&(n, _)| n == name).map(|(_, value)| value),
                    ..*input
                })
                .collect();
            self.path.push(name);
            if let Some(value) = self.at(&fitting.member(name), &below)? {
                merged.push((name.clone(), value));
            }
            self.path.pop();
        }
        let merged = Object::new(merged).expect("taken in order, each once");
        Ok(Value::Object(merged))
    }

    /// Applies a rule that takes each value as a whole.
    fn choose<'a>(
        &self,
        rule: Rule,
        inputs: &[Input<'v, 'a>],
    ) -> Result<Option<Value<'a>>, Mismatch> {
        let present = inputs
            .iter()
            .filter_map(|i| Some((i.modified_at, i.value?)));
        let chosen = match rule {
            Rule::Lww => present.max().map(|(_, value)| value),
            Rule::First => present.min().map(|(_, value)| value),
            Rule::Max => present.map(|(_, value)| value).max(),
            Rule::Min => present.map(|(_, value)| value).min(),
            Rule::Newest => {
                let newest = inputs.iter().max_by_key(|i| (i.modified_at, i.value));
                newest.and_then(|input| input.value)
            }
            Rule::Union => return self.union(inputs),
            Rule::Counter => {
                self.expect(inputs, "numbers, or objects of them", is_counter)?;
                let counters = present.map(|(_, value)| value.clone());
                return Ok(counters.reduce(join_counters));
            }
            Rule::Object => unreachable!("objects are merged member by member"),
        };
        Ok(chosen.cloned())
    }

    fn union<'a>(&self, inputs: &[Input<'v, 'a>]) -> Result<Option<Value<'a>>, Mismatch> {
        self.expect(inputs, "an array", |value| matches!(value, Value::Array(_)))?;
        let mut arrays = inputs.iter().filter_map(|input| match input.value {
            Some(Value::Array(elements)) => Some(elements),
            _ => None,
        });
        let Some(first) = arrays.next() else {
            return Ok(None);
        };
        let mut union: Vec<_> = first.iter().chain(arrays.flatten()).cloned().collect();
        union.sort();
        union.dedup();
        Ok(Some(Value::Array(union)))
    }

    fn expect(
        &self,
        inputs: &[Input<'_, '_>],
        expected: &'static str,
        fits: impl Fn(&Value<'_>) -> bool,
    ) -> Result<(), Mismatch> {
        for input in inputs {
            if let Some(value) = input.value
                && !fits(value)
            {
                return Err(Mismatch {
                    index: input.index,
                    path: self
                        .path
                        .iter()
                        .map(|name| format!("/{}", escape(name)))
                        .collect(),
                    expected,
                    found: value.kind(),
                });
            }
        }
        Ok(())
    }
}

fn as_object<'v, 'a>(value: &'v Value<'a>) -> Option<&'v Object<'a>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

fn is_counter(value: &Value<'_>) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Object(members) => members.values().all(is_counter),
        _ => false,
    }
}

/// The greater number, and an object before a number.
fn join_counters<'a>(left: Value<'a>, right: Value<'a>) -> Value<'a> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            Value::Object(left.join(right, join_counters))
        }
        // In JSON order an object is greater than any number.
        (left, right) => left.max(right),
    }
}
