//! The shared cases, and the laws over samples, documents and deletes.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::Checked;

use crate::Max;

#[test]
fn does_what_the_cases_say() {
    check_all::<Max>();
}

fn version(form: fn(String) -> String) -> impl Strategy<Value = laws::Version> {
    let number = any::<u8>().prop_map(|e| String::from_utf8_lossy(&Max::sample(&[e])).into_owned());
    let value = prop::option::weighted(0.9, number.prop_map(move |n| form(n).into_bytes()));
    (value, 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec(version(|number| number), 2..6)) {
        laws::lattice::<Max>(&context(None), &versions);
    }

    #[test]
    fn is_a_lattice_at_a_path(versions in prop::collection::vec(
        version(|number| format!("{{\"s\": {number}, \"by\": {}}}", number.len())), 2..6,
    )) {
        laws::lattice::<Max>(&context(Some(r#"{"path": "/s"}"#.into())), &versions);
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        prop_assert_eq!(Max::check_value(&context(None), &Max::sample(&entropy)), Ok(()));
    }
}
