//! The shared cases, and the laws over samples and deletes.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::Checked;

use crate::OrSet;

#[test]
fn does_what_the_cases_say() {
    check_all::<OrSet>();
}

fn version() -> impl Strategy<Value = laws::Version> {
    let value = prop::option::weighted(
        0.9,
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|e| OrSet::sample(&e)),
    );
    (value, 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec(version(), 2..6)) {
        laws::lattice::<OrSet>(&context(None), &versions);
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        prop_assert_eq!(OrSet::check_value(&context(None), &OrSet::sample(&entropy)), Ok(()));
    }
}
