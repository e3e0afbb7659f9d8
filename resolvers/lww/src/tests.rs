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
        laws::lattice::<Lww>(&context(None), &versions);
    }
}
