//! The shared cases, and regrouping and order over samples and deletes.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::Checked;

use crate::Sum;

#[test]
fn does_what_the_cases_say() {
    check_all::<Sum>();
}

#[test]
fn repetition_counts() {
    let one = (Some(b"1".to_vec()), 1);
    let sum = laws::merge::<Sum>(&context(None), &[one.clone(), one]);
    assert_eq!(sum, (Some(b"2".to_vec()), 1));
}

fn version() -> impl Strategy<Value = laws::Version> {
    let value = prop::option::weighted(0.9, any::<[u8; 3]>().prop_map(|e| Sum::sample(&e)));
    (value, 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn is_foldable(versions in prop::collection::vec(version(), 2..7)) {
        laws::foldable::<Sum>(&context(None), &versions);
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        prop_assert_eq!(Sum::check_value(&context(None), &Sum::sample(&entropy)), Ok(()));
    }
}
