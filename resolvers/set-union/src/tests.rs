//! The shared cases, the laws over samples and deletes, and the cost of large sets.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::Checked;
use sibyl_resolver_kit::json::parse;

use crate::SetUnion;

#[test]
fn does_what_the_cases_say() {
    check_all::<SetUnion>();
}

#[test]
fn large_sets() {
    let set = |range: std::ops::Range<u32>| {
        let elements: Vec<_> = range.map(|i| format!("\"element-{i:06}\"")).collect();
        Some(format!("[{}]", elements.join(",")).into_bytes())
    };
    let all = laws::merge::<SetUnion>(
        &context(None),
        &[(set(0..40_000), 1), (set(20_000..60_000), 2)],
    );
    assert_eq!(all, (set(0..60_000), 2));
}

fn version() -> impl Strategy<Value = laws::Version> {
    let value = prop::option::weighted(
        0.9,
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|e| SetUnion::sample(&e)),
    );
    (value, 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec(version(), 2..6)) {
        laws::lattice::<SetUnion>(&context(None), &versions);
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        let sample = SetUnion::sample(&entropy);
        prop_assert_eq!(SetUnion::check_value(&context(None), &sample), Ok(()));
        prop_assert_eq!(parse(&sample).unwrap().to_bytes(), sample);
    }
}
