//! The shared cases, and the laws over any bytes.

use proptest::prelude::*;
use sibyl_resolver_cases::{check, context, laws};

use crate::Lww;

#[test]
fn does_what_the_cases_say() {
    check::<Lww>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec((prop::option::of(prop::collection::vec(0_u8..4, 0..3)), 0_u64..4), 2..6)) {
        laws::lattice::<Lww>(&context(None), &distinct(versions));
    }
}

/// A delete and a value of one time have no order that a resolver could see twice, so times of deletes differ.
fn distinct(versions: Vec<laws::Version>) -> Vec<laws::Version> {
    let spread = |(value, at): laws::Version| {
        let at = at * 2 + u64::from(value.is_none());
        (value, at)
    };
    versions.into_iter().map(spread).collect()
}
