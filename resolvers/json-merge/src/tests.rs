//! The shared cases, the laws for the rules that claim them, and what the others do not promise.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::json::parse;
use sibyl_resolver_kit::{Checked, Resolver};

use crate::JsonMerge;
use crate::rules::Rule;

/// Every rule that claims to be a lattice, over documents whose kinds differ from sibling to sibling.
const LATTICE: &str = r#"{"rules":[
    {"path":"/a","rule":"max"},
    {"path":"/b","rule":"newest"},
    {"path":"/c/x","rule":"min"},
    {"path":"/c/*","rule":"newest"},
    {"path":"/t","rule":"union"},
    {"path":"/n","rule":"counter"},
    {"path":"/o","rule":"object"},
    {"path":"/o/*","rule":"max"}],
    "default":"DEFAULT"}"#;

#[test]
fn does_what_the_cases_say() {
    check_all::<JsonMerge>();
}

#[test]
fn the_schema_knows_every_rule() {
    let schema: serde_json::Value =
        serde_json::from_str(JsonMerge::CONFIG_SCHEMA.unwrap()).unwrap();
    let rules = &schema["properties"]["rules"]["items"]["properties"]["rule"]["enum"];
    assert_eq!(*rules, serde_json::json!(Rule::NAMES.map(|(name, _)| name)));
    let takes_all = Rule::NAMES.into_iter().filter(|(_, rule)| rule.takes_all());
    let defaults: Vec<_> = takes_all.map(|(name, _)| name).collect();
    assert_eq!(
        schema["properties"]["default"]["enum"],
        serde_json::json!(defaults)
    );
}

/// Why `lww` is only deterministic: a merged document is as new as its newest input, and so are its members.
#[test]
fn lww_depends_on_grouping() {
    let version = |text: &str, at| (Some(text.as_bytes().to_vec()), at);
    let (a, b, c) = (
        version(r#"{"x":1}"#, 10),
        version(r#"{"y":2}"#, 30),
        version(r#"{"x":3}"#, 20),
    );
    let merge = |versions: &[laws::Version]| laws::merge::<JsonMerge>(&context(None), versions);
    let at_once = merge(&[a.clone(), b.clone(), c.clone()]);
    let grouped = merge(&[merge(&[a, b]), c]);
    assert_eq!(at_once, version(r#"{"x":3,"y":2}"#, 30));
    assert_eq!(grouped, version(r#"{"x":1,"y":2}"#, 30));
}

#[test]
fn large_documents() {
    let document = |range: std::ops::Range<u32>| {
        let members: Vec<_> = range
            .map(|i| format!("\"member-{i:06}\":{{\"n\":{i}}}"))
            .collect();
        Some(format!("{{{}}}", members.join(",")).into_bytes())
    };
    let merged = laws::merge::<JsonMerge>(
        &context(None),
        &[(document(0..20_000), 1), (document(10_000..30_000), 2)],
    );
    assert_eq!(merged, (document(0..30_000), 2));
}

/// Documents that the rules of [`LATTICE`] accept.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0_u8..4).prop_map(|n| n.to_string()),
        Just("null".to_owned()),
        Just("[1]".to_owned()),
        Just("\"s\"".to_owned()),
    ];
    let object = |leaf: BoxedStrategy<String>| {
        prop::collection::btree_map("[xyz]", leaf, 0..3).prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(k, v)| format!("\"{k}\":{v}"))
                .collect();
            format!("{{{}}}", members.join(","))
        })
    };
    let number = (0_u8..4).prop_map(|n| n.to_string()).boxed();
    let any = prop_oneof![leaf.clone(), object(leaf.clone().boxed())].boxed();
    let counter = prop_oneof![
        number.clone(),
        object(prop_oneof![number.clone(), object(number)].boxed())
    ];
    let tags = prop::collection::vec(0_u8..4, 0..3).prop_map(|tags| format!("{tags:?}"));
    let member = |name: &'static str, value: BoxedStrategy<String>| {
        prop::option::weighted(
            0.7,
            value.prop_map(move |value| format!("\"{name}\":{value}")),
        )
    };
    let members = (
        member("a", any.clone()),
        member("b", any.clone()),
        member("c", any.clone()),
        member("d", any.clone()),
        member("t", tags.boxed()),
        member("n", counter.boxed()),
        member("o", object(any.clone()).boxed()),
    );
    let whole = members.prop_map(|(a, b, c, d, t, n, o)| {
        let members: Vec<_> = [a, b, c, d, t, n, o].into_iter().flatten().collect();
        format!("{{{}}}", members.join(","))
    });
    prop_oneof![20 => whole, 1 => any]
}

fn version() -> impl Strategy<Value = laws::Version> {
    let value = document().prop_map(|text| parse(text.as_bytes()).unwrap().to_bytes());
    (prop::option::weighted(0.95, value), 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lattice_rules_make_a_lattice(
        versions in prop::collection::vec(version(), 2..5),
        default in prop::sample::select(vec!["max", "min", "newest"]),
    ) {
        let config = LATTICE.replace("DEFAULT", default);
        JsonMerge::check_config(&config).unwrap();
        laws::lattice::<JsonMerge>(&context(Some(config)), &versions);
    }

    #[test]
    fn any_rules_do_not_depend_on_order(versions in prop::collection::vec(version(), 2..5)) {
        let mut reversed = versions.clone();
        reversed.reverse();
        let merge = |versions| laws::merge::<JsonMerge>(&context(None), versions);
        prop_assert_eq!(merge(&versions), merge(&reversed));
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        let sample = JsonMerge::sample(&entropy);
        prop_assert_eq!(JsonMerge::check_value(&context(None), &sample), Ok(()));
        prop_assert_eq!(parse(&sample).unwrap().to_bytes(), sample);
    }
}
