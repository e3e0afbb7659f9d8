//! Certificates: what they allow, and that they are only ever joined.

use proptest::prelude::*;

use super::super::{
    BucketConfig, Certificate, Change, Deletes, Document, Law, Laws, MAX_CERTIFICATES,
    MAX_REPORT_BYTES, Setting, Tier, Tried,
};
use super::{add, bound_to, put, second};
use crate::id::Digest;

fn tried(law: Law, cases: u32, broken: Option<&str>) -> Tried {
    Tried {
        law,
        cases,
        seed: 7,
        broken: broken.map(str::to_owned),
    }
}

fn without(broken: &[Law]) -> Certificate {
    let report = |law: &Law| broken.contains(law).then_some("{}");
    Certificate::new(Law::ALL.iter().map(|law| tried(*law, 256, report(law))))
}

fn setting() -> Setting {
    Setting {
        config: Digest::of(b"{}"),
        deletes: false,
    }
}

fn certify(setting: Setting, certificate: Certificate) -> Change {
    Change::Certify {
        name: "carts".into(),
        digest: Digest::of(b"wasm"),
        setting,
        certificate,
    }
}

fn wanting(laws: Laws) -> BucketConfig {
    let mut config = bound_to("carts", b"wasm");
    if let Some(binding) = &mut config.resolver {
        binding.laws = laws;
    }
    config
}

fn after(document: &Document, change: &Change) -> Document {
    let next = change.apply(document).expect("a change that is granted");
    next.expect("a change that changes something")
}

fn uploaded() -> Document {
    after(&second(3), &add("carts", b"wasm"))
}

#[test]
fn the_tier_says_what_is_broken() {
    let tiers = [
        (&[][..], Tier::Lattice),
        (&[Law::Repetition], Tier::Foldable),
        (&[Law::Absorption], Tier::Foldable),
        (&[Law::Regrouping, Law::Absorption], Tier::Deterministic),
        (&[Law::Deletes], Tier::Deterministic),
        (&[Law::Determinism], Tier::None),
        (&[Law::Totality, Law::Repetition], Tier::None),
        (&[Law::Closure], Tier::None),
    ];
    for (broken, tier) in tiers {
        assert_eq!(without(broken).tier(), tier, "{broken:?}");
    }
}

#[test]
fn laws_decide_what_may_be_bound() {
    let certified = |broken: &[Law]| after(&uploaded(), &certify(setting(), without(broken)));
    let adding = certified(&[Law::Absorption]);
    let capped = certified(&[Law::Regrouping]);
    let failing = certified(&[Law::Totality]);
    let granted = [
        (&adding, Laws::Enforce, true),
        (&capped, Laws::Enforce, false),
        (&capped, Laws::Warn, true),
        (&failing, Laws::Warn, false),
        (&failing, Laws::Off, true),
        (&uploaded(), Laws::Warn, false),
        (&uploaded(), Laws::Off, true),
    ];
    for (document, laws, may) in granted {
        let bound = put("b", wanting(laws)).apply(document);
        assert_eq!(bound.is_ok(), may, "{laws:?}: {bound:?}");
    }
    let refused = put("b", wanting(Laws::Enforce)).apply(&uploaded());
    let said = refused.expect_err("it is not checked").to_string();
    assert!(
        said.contains("is unchecked and laws: enforce wants foldable"),
        "{said}"
    );
}

#[test]
fn a_certificate_counts_for_its_own_setting_only() {
    let document = after(&uploaded(), &certify(setting(), without(&[])));
    let mut other = wanting(Laws::Enforce);
    other.deletes = Deletes::Resolver;
    assert!(put("b", other.clone()).apply(&document).is_err());
    let mut configured = wanting(Laws::Enforce);
    if let Some(binding) = &mut configured.resolver {
        binding.config = r#"{"cap":3}"#.into();
    }
    assert!(put("b", configured).apply(&document).is_err());
    let shown = Setting {
        deletes: true,
        ..setting()
    };
    let document = after(&document, &certify(shown, without(&[])));
    assert!(put("b", other).apply(&document).is_ok());
}

#[test]
fn what_is_bound_stays_bound_when_it_is_found_out() {
    let document = after(&uploaded(), &certify(setting(), without(&[])));
    let document = after(&document, &put("b", wanting(Laws::Enforce)));
    let document = after(&document, &certify(setting(), without(&[Law::Regrouping])));
    let other = BucketConfig {
        max_siblings: 7,
        ..wanting(Laws::Enforce)
    };
    let document = after(&document, &put("b", other));
    assert_eq!(document.buckets["b"].config.max_siblings, 7);
    let anew = put("c", wanting(Laws::Enforce)).apply(&document);
    assert!(anew.is_err(), "{anew:?}");
}

#[test]
fn what_broke_once_is_broken() {
    let mut known = without(&[Law::Absorption]);
    known.join(&without(&[]));
    assert_eq!(known.tier(), Tier::Foldable);
    let longer = Certificate::new([tried(Law::Closure, 4_096, None)]);
    known.join(&longer);
    assert_eq!(known.laws()[2].cases, 4_096);
    known.join(&Certificate::new([tried(Law::Closure, 3, Some("late"))]));
    let closure = &known.laws()[2];
    assert_eq!(
        (closure.cases, closure.broken.as_deref()),
        (4_096, Some("late"))
    );
    assert_eq!(known.tier(), Tier::None);
}

#[test]
fn settings_are_bounded_and_the_idle_ones_go() {
    let of = |number: usize| Setting {
        config: Digest::of(number.to_string().as_bytes()),
        deletes: false,
    };
    let mut document = after(&uploaded(), &certify(setting(), without(&[])));
    document = after(&document, &put("b", wanting(Laws::Enforce)));
    for number in 0..2 * MAX_CERTIFICATES {
        document = after(&document, &certify(of(number), without(&[])));
    }
    let kept = &document.resolvers["carts"].versions[&Digest::of(b"wasm")].certificates;
    assert_eq!(kept.len(), MAX_CERTIFICATES);
    assert!(kept.contains_key(&setting()), "a bucket uses it");
    assert!(
        kept.contains_key(&of(2 * MAX_CERTIFICATES - 1)),
        "it was found last"
    );
}

#[test]
fn a_report_that_is_too_long_is_refused() {
    let long = "x".repeat(MAX_REPORT_BYTES + 1);
    let certificate = Certificate::new([tried(Law::Closure, 1, Some(&long))]);
    let refused = certify(setting(), certificate).apply(&uploaded());
    assert!(refused.is_err(), "{refused:?}");
    let empty = certify(setting(), Certificate::default()).apply(&uploaded());
    assert!(empty.is_err(), "{empty:?}");
}

fn any_certificate() -> impl Strategy<Value = Certificate> {
    let one = (0..Law::ALL.len(), 0..9_u32, any::<bool>());
    prop::collection::vec(one, 1..9).prop_map(|all| {
        let tried = |(law, cases, broken): (usize, u32, bool)| {
            tried(Law::ALL[law], cases, broken.then_some("why"))
        };
        Certificate::new(all.into_iter().map(tried))
    })
}

proptest! {
    #[test]
    fn joining_never_raises_a_tier(known in any_certificate(), more in any_certificate()) {
        let mut joined = known.clone();
        joined.join(&more);
        prop_assert!(joined.tier() <= known.tier().min(more.tier()));
        prop_assert!(joined.is_sound());
        let mut again = joined.clone();
        again.join(&more);
        again.join(&known);
        prop_assert_eq!(again, joined);
    }
}
