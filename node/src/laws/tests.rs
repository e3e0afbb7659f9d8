//! Resolvers that people really write, told apart: what each may do, which law it breaks, and what it looks like.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::resolver::{Failure, Input, Resolution};

type Merge = Box<dyn Fn(&[Input]) -> Result<Resolution, Failure>>;

/// A resolver as a function, and the values it is for.
struct Native {
    merge: Merge,
    value: fn(&[u8]) -> Vec<u8>,
    accepts: fn(&[u8]) -> bool,
}

impl Subject for Native {
    fn resolve(&self, siblings: &[Input]) -> Ran {
        Ran {
            outcome: (self.merge)(siblings),
            fuel: 0,
            memory_bytes: 0,
        }
    }

    fn accepts(&self, value: &Input) -> bool {
        value.value.as_deref().is_none_or(self.accepts)
    }

    fn sample(&self, entropy: &[u8]) -> Option<Vec<u8>> {
        Some((self.value)(entropy))
    }
}

fn native(value: fn(&[u8]) -> Vec<u8>, merge: impl Fn(&[Value]) -> Value + 'static) -> Native {
    let merge = move |siblings: &[Input]| {
        let values: Vec<Value> = siblings.iter().filter_map(read).collect();
        Ok(Resolution::Merged(Bytes::from(merge(&values).to_string())))
    };
    Native {
        merge: Box::new(merge),
        value,
        accepts: |_| true,
    }
}

fn read(input: &Input) -> Option<Value> {
    serde_json::from_slice(input.value.as_deref()?).ok()
}

fn number(entropy: &[u8]) -> Vec<u8> {
    entropy
        .iter()
        .map(|byte| u32::from(*byte))
        .sum::<u32>()
        .to_string()
        .into_bytes()
}

fn float(entropy: &[u8]) -> Vec<u8> {
    let sum: f64 = entropy
        .iter()
        .map(|byte| f64::from(*byte) * 0.1 + 0.01)
        .sum();
    json!(sum).to_string().into_bytes()
}

fn list(entropy: &[u8]) -> Vec<u8> {
    let mut all: Vec<u8> = entropy.iter().map(|byte| byte % 16).collect();
    all.sort_unstable();
    all.dedup();
    json!(all).to_string().into_bytes()
}

fn object(entropy: &[u8]) -> Vec<u8> {
    let members = entropy
        .iter()
        .map(|byte| (["a", "b", "c"][usize::from(byte % 3)], byte / 3));
    json!(members.collect::<BTreeMap<_, _>>())
        .to_string()
        .into_bytes()
}

fn numbers(values: &[Value]) -> impl Iterator<Item = f64> + '_ {
    values.iter().filter_map(Value::as_f64)
}

fn entries(values: &[Value]) -> Vec<Value> {
    values
        .iter()
        .filter_map(Value::as_array)
        .flatten()
        .cloned()
        .collect()
}

fn union(values: &[Value]) -> Vec<Value> {
    let all = entries(values);
    let all: std::collections::BTreeSet<u64> = all.iter().filter_map(Value::as_u64).collect();
    all.into_iter().map(Value::from).collect()
}

fn certificate(subject: &Native) -> Certificate {
    let plan = Plan {
        cases: 256,
        seed: 7,
        deletes: false,
        until: None,
    };
    let values = Values::new("application/json", Vec::new());
    check(subject, &values, plan, &Progress::default()).expect("all values are accepted")
}

/// Its tier, and one law that it breaks with what that looks like.
#[track_caller]
fn is(subject: &Native, tier: Tier, broken: Option<(Law, Suspicion)>) {
    let certificate = certificate(subject);
    let found = |law: Law| {
        let finding = certificate.laws.iter().find(|finding| finding.law == law);
        finding.and_then(|finding| finding.broken.as_ref())
    };
    assert_eq!(certificate.tier, tier, "{:#?}", certificate.laws);
    if let Some((law, suspicion)) = broken {
        let counterexample = found(law).expect("the law is broken");
        assert_eq!(counterexample.suspicion, suspicion, "{counterexample:#?}");
    }
}

fn lww(siblings: &[Input]) -> Resolution {
    Resolution::Pick(siblings.len() - 1)
}

#[test]
fn what_forms_a_lattice_is_one() {
    is(
        &native(list, |values| json!(union(values))),
        Tier::Lattice,
        None,
    );
    let greatest = |values: &[Value]| json!(values.iter().filter_map(Value::as_u64).max());
    is(&native(number, greatest), Tier::Lattice, None);
    let newest = Native {
        merge: Box::new(|siblings| Ok(lww(siblings))),
        ..native(object, |_| json!(0))
    };
    is(&newest, Tier::Lattice, None);
}

#[test]
fn adding_numbers_may_be_folded_and_not_written_back() {
    let sum = |values: &[Value]| json!(values.iter().filter_map(Value::as_u64).sum::<u64>());
    let adds = native(number, sum);
    is(
        &adds,
        Tier::Foldable,
        Some((Law::Repetition, Suspicion::AddsNumbers)),
    );
    is(
        &adds,
        Tier::Foldable,
        Some((Law::Absorption, Suspicion::AddsNumbers)),
    );
}

#[test]
fn averaging_may_not() {
    let mean = |values: &[Value]| {
        let (sum, count) =
            numbers(values).fold((0.0, 0.0), |(sum, count), it| (sum + it, count + 1.0));
        json!(sum / count)
    };
    is(
        &native(float, mean),
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::Averages)),
    );
}

#[test]
fn float_sums_differ_by_rounding() {
    let sum = |values: &[Value]| json!(numbers(values).sum::<f64>());
    is(
        &native(float, sum),
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::FloatSum)),
    );
}

#[test]
fn concatenation_repeats_what_is_there() {
    let all = |values: &[Value]| json!(entries(values));
    is(
        &native(list, all),
        Tier::Deterministic,
        Some((Law::Repetition, Suspicion::Concatenates)),
    );
}

#[test]
fn a_capped_list_forgets_by_place() {
    let capped = |values: &[Value]| {
        let mut seen = Vec::new();
        for entry in entries(values).into_iter().rev() {
            if !seen.contains(&entry) {
                seen.push(entry);
            }
        }
        seen.truncate(2);
        seen.sort_by_key(Value::to_string);
        json!(seen)
    };
    is(
        &native(list, capped),
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::CappedList)),
    );
}

#[test]
fn theirs_over_mine_lets_old_members_win() {
    let over = |values: &[Value]| {
        let members = values.iter().filter_map(Value::as_object).flatten();
        json!(members.collect::<BTreeMap<_, _>>())
    };
    is(
        &native(object, over),
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::LaterOverEarlier)),
    );
}

#[test]
fn the_first_as_a_new_value_is_another_one_next_time() {
    let first = |siblings: &[Input]| {
        let value = siblings[0].value.clone().unwrap_or_default();
        Ok(Resolution::Merged(value))
    };
    let first = Native {
        merge: Box::new(first),
        ..native(object, |_| json!(0))
    };
    is(
        &first,
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::PicksByPlace)),
    );
}

#[test]
fn members_in_an_order_left_to_chance_are_seen_as_that() {
    let written = |siblings: &[Input]| {
        let values: Vec<Value> = siblings.iter().filter_map(read).collect();
        let mut members = BTreeMap::new();
        for (name, value) in values.iter().filter_map(Value::as_object).flatten() {
            let greatest = members.entry(name).or_insert(value);
            *greatest = std::cmp::max_by_key(*greatest, value, |value| value.as_u64());
        }
        let mut members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{name:?}:{value}"))
            .collect();
        // As a hash map that knows how many it holds.
        if siblings.len().is_multiple_of(2) {
            members.reverse();
        }
        Ok(Resolution::Merged(Bytes::from(format!(
            "{{{}}}",
            members.join(",")
        ))))
    };
    let chance = Native {
        merge: Box::new(written),
        ..native(object, |_| json!(0))
    };
    is(
        &chance,
        Tier::Deterministic,
        Some((Law::Regrouping, Suspicion::JsonOrder)),
    );
}

#[test]
fn a_union_in_another_order_is_no_union() {
    let unsorted = |values: &[Value]| {
        let mut all = union(values);
        all.sort_by_key(Value::to_string);
        json!(all)
    };
    is(
        &native(list, unsorted),
        Tier::Foldable,
        Some((Law::Repetition, Suspicion::JsonOrder)),
    );
}

#[test]
fn what_changes_by_itself_or_fails_or_leaves_its_values_is_good_for_nothing() {
    let calls = Cell::new(0_u64);
    let unsteady = move |_: &[Input]| {
        calls.set(calls.get() + 1);
        Ok(Resolution::Merged(Bytes::from(calls.get().to_string())))
    };
    let unsteady = Native {
        merge: Box::new(unsteady),
        ..native(number, |_| json!(0))
    };
    is(
        &unsteady,
        Tier::None,
        Some((Law::Determinism, Suspicion::Unsteady)),
    );

    let picky = |siblings: &[Input]| match siblings.len() {
        4 => Err(Failure::Trap("unreachable".into())),
        _ => Ok(lww(siblings)),
    };
    let picky = Native {
        merge: Box::new(picky),
        ..native(number, |_| json!(0))
    };
    is(
        &picky,
        Tier::None,
        Some((Law::Totality, Suspicion::RefusesValues)),
    );

    let leaves = Native {
        accepts: |value| value.len() < 4,
        ..native(
            |entropy| number(&entropy[..entropy.len().min(2)]),
            |values| json!(numbers(values).sum::<f64>() + 1000.0),
        )
    };
    is(
        &leaves,
        Tier::None,
        Some((Law::Closure, Suspicion::LeavesItsValues)),
    );
}

#[test]
fn a_counterexample_is_small_and_tells_every_step() {
    let sum = |values: &[Value]| json!(values.iter().filter_map(Value::as_u64).sum::<u64>());
    let certificate = certificate(&native(number, sum));
    let finding = certificate
        .laws
        .iter()
        .find(|finding| finding.law == Law::Repetition);
    let broken = finding
        .and_then(|finding| finding.broken.clone())
        .expect("broken");
    let [one] = &broken.siblings[..] else {
        panic!("one sibling is enough: {broken:#?}");
    };
    assert_eq!(
        one.value.as_deref(),
        Some(&b"1"[..]),
        "the smallest number that counts"
    );
    assert_eq!(
        broken.sides[0].values,
        Ok(vec![Some(Bytes::from_static(b"1"))])
    );
    assert_eq!(
        broken.sides[1].values,
        Ok(vec![Some(Bytes::from_static(b"2"))])
    );
    assert_eq!(
        broken.steps.last().map(|step| step.of.as_str()),
        Some(&*broken.sides[1].of)
    );
    assert!(broken.always);
}

#[test]
fn a_seed_repeats_everything() {
    let mean = |values: &[Value]| json!(numbers(values).sum::<f64>() / 2.0);
    let subject = native(number, mean);
    let texts = [certificate(&subject), certificate(&subject)].map(|it| format!("{:?}", it.laws));
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn tombstones_are_tried_when_they_are_shown() {
    // As new as the newest, and that may be a delete that this one never heard of.
    let count = |siblings: &[Input]| {
        let dead = siblings
            .iter()
            .filter(|sibling| sibling.value.is_none())
            .count();
        match dead % 2 {
            0 => Ok(lww(siblings)),
            _ => Ok(Resolution::Delete),
        }
    };
    let odd = Native {
        merge: Box::new(count),
        ..native(number, |_| json!(0))
    };
    is(&odd, Tier::Lattice, None);
    let plan = Plan {
        cases: 256,
        seed: 7,
        deletes: true,
        until: None,
    };
    let values = Values::new("application/json", Vec::new());
    let shown = check(&odd, &values, plan, &Progress::default()).expect("all values are accepted");
    assert_eq!(shown.tier, Tier::Deterministic);
}

#[test]
fn without_values_nothing_is_said() {
    let refuses = Native {
        accepts: |_| false,
        ..native(number, |_| json!(0))
    };
    let plan = Plan {
        cases: 16,
        seed: 7,
        deletes: false,
        until: None,
    };
    let values = Values::new("application/json", Vec::new());
    let inconclusive =
        check(&refuses, &values, plan, &Progress::default()).expect_err("nothing was tried");
    assert_eq!((inconclusive.law, inconclusive.cases), (Law::Totality, 0));
}

#[test]
fn samples_are_edited_and_keep_their_shape() {
    let sample = Bytes::from_static(br#"{"name":"x","count":3,"tags":["a","b"]}"#);
    let refuses_others =
        |value: &[u8]| serde_json::from_slice::<Value>(value).is_ok_and(|value| value.is_object());
    let subject = Native {
        accepts: refuses_others,
        merge: Box::new(|siblings| Ok(lww(siblings))),
        ..native(number, |_| json!(0))
    };
    let plan = Plan {
        cases: 64,
        seed: 7,
        deletes: false,
        until: None,
    };
    let values = Values::new("application/json", vec![sample]);
    let certificate =
        check(&subject, &values, plan, &Progress::default()).expect("edits keep the shape");
    assert_eq!(certificate.tier, Tier::Lattice);
    let sizes: Vec<u64> = certificate
        .costs
        .iter()
        .map(|cost| cost.input_bytes)
        .collect();
    assert_eq!(sizes.len(), COST_ENTROPY.len());
}
