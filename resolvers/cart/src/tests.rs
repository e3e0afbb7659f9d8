//! The shared cases, the laws over samples and deletes, and the cost of large carts.

use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::Checked;
use sibyl_resolver_kit::json::parse;

use crate::Cart;

#[test]
fn does_what_the_cases_say() {
    check_all::<Cart>();
}

#[test]
fn large_carts() {
    let cart = |range: std::ops::Range<u32>, qty: u32| {
        let items: Vec<_> = range.map(|i| format!("\"item-{i:06}\":{qty}")).collect();
        items.join(",")
    };
    let whole =
        |items: &[String]| Some(format!("{{\"items\":{{{}}}}}", items.join(",")).into_bytes());
    let merged = laws::merge::<Cart>(
        &context(None),
        &[
            (whole(&[cart(0..20_000, 1)]), 1),
            (whole(&[cart(10_000..30_000, 2)]), 2),
        ],
    );
    assert_eq!(
        merged,
        (whole(&[cart(0..10_000, 1), cart(10_000..30_000, 2)]), 2)
    );
}

/// What a client may write: samples, and carts with notes and other members.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let noted = (0_u8..3, 0_u8..3, 0_u8..2, "[ab]?").prop_map(|(qty, note, rev, owner)| {
        format!(
            r#"{{"items":{{"book":{{"note":{note},"qty":{qty},"rev":{rev}}}}},"owner":"{owner}"}}"#
        )
        .into_bytes()
    });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|entropy| Cart::sample(&entropy)),
        noted
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec((prop::option::weighted(0.9, value()), 0_u64..4), 2..6)) {
        laws::lattice::<Cart>(&context(None), &versions);
    }

    #[test]
    fn samples_are_values(entropy: Vec<u8>) {
        let sample = Cart::sample(&entropy);
        prop_assert_eq!(Cart::check_value(&context(None), &sample), Ok(()));
        prop_assert_eq!(parse(&sample).unwrap().to_bytes(), sample);
    }
}
