//! Documents: one encoding, one hash, every bound, and how a cluster begins.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{add, bound_to, first, firsts, node, put, second, secrets};
use crate::id::{Actor, Digest, Incarnation};
use crate::quorum::Level;

/// Document 4 of three members: a resolver uploaded, then bound.
fn fourth() -> Document {
    let third = add("cart", b"module")
        .apply(&second(3))
        .expect("valid")
        .expect("a change");
    put("carts", bound_to("cart", b"module"))
        .apply(&third)
        .expect("valid")
        .expect("a change")
}

/// Its successor, in which a node takes the place of another that is gone.
fn fifth() -> Document {
    let by = Joiner {
        node: node(4),
        store: Actor(44),
        peer_addr: "127.0.0.1:7174".to_owned(),
        zone: Some("zone-a".to_owned()),
        tokens: 8,
    };
    let (node, alive) = (node(3), false);
    Change::Replace { node, by, alive }
        .apply(&fourth())
        .expect("valid")
        .expect("a change")
}

#[test]
fn the_encoding_is_golden() {
    let golden: &[u8] = include_bytes!("golden/document_2.bin");
    assert_eq!(
        fifth().encode(),
        golden,
        "a new layout of the bytes needs a new FORMAT"
    );
    assert_eq!(Document::decode(golden), Ok(fifth()));
    assert_eq!(fifth().digest(), Digest::of(golden));
    let before: &[u8] = include_bytes!("golden/document_1.bin");
    assert_eq!(
        Document::decode(before),
        Err(BadDocument::Format(1)),
        "no release wrote it"
    );
}

#[test]
fn every_number_holds_its_ancestors_hashes() {
    let (one, two, four) = (first(3), second(3), fourth());
    assert_eq!(two.previous, Some(one.digest()));
    assert_eq!(
        (one.first(), two.first(), four.first()),
        (one.digest(), one.digest(), one.digest())
    );
    assert_eq!((one.lineage(), two.lineage()), (None, Some(two.digest())));
    assert_eq!(four.lineage(), Some(two.digest()));
}

#[test]
fn a_cluster_begins_with_the_default_bucket() {
    let bucket = first(3)
        .buckets
        .remove("default")
        .expect("it always exists");
    let Bucket {
        incarnation,
        revision,
        epoch,
        config,
    } = bucket;
    assert_eq!((incarnation, revision, epoch), (Incarnation(1), 1, 0));
    assert_eq!(
        (config.n, config.r, config.w),
        (3, Level::Quorum, Level::Quorum)
    );
}

#[test]
fn the_first_document_depends_on_nothing_but_flags() {
    assert_eq!(first(3), first(3));
    assert_eq!(describe_difference(&first(3), &first(3)), None);
}

/// Two first members with other flags: the difference is named.
fn check_difference(change: impl FnOnce(&mut Document), expected: &str) {
    let mut other = first(3);
    change(&mut other);
    let difference = describe_difference(&first(3), &other).expect("they differ");
    assert!(
        difference.contains(expected),
        "{difference:?} does not say {expected:?}"
    );
}

#[test]
fn other_flags_are_named() {
    check_difference(
        |d| d.cluster_id = "other".to_owned(),
        "--cluster-id: \"demo\" here, \"other\" there",
    );
    check_difference(
        |d| d.layout.partitions = 8,
        "--partitions: 16 here, 8 there",
    );
    let member = |d: &mut Document, change: fn(&mut Member)| {
        change(d.layout.members.get_mut(&node(2)).expect("a member"));
    };
    check_difference(
        |d| member(d, |m| m.tokens = 9),
        "--tokens of n2: 4 here, 9 there",
    );
    check_difference(
        |d| member(d, |m| m.zone = Some("a".to_owned())),
        "zone of n2",
    );
    check_difference(
        |d| member(d, |m| m.peer_addr = "h:1".to_owned()),
        "address of n2",
    );
    check_difference(
        |d| drop(d.layout.members.remove(&node(3))),
        "n3 is named here and not there",
    );
}

fn check_refused(change: impl FnOnce(&mut Document), expected: &str) {
    let mut document = second(3);
    change(&mut document);
    let error = document.check().expect_err("it breaks a rule").to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

#[test]
fn every_bound_is_kept() {
    let named = |name: &str| {
        let name = name.to_owned();
        move |d: &mut Document| {
            let bucket = d.buckets["default"].clone();
            d.buckets.insert(name, bucket);
        }
    };
    for bad in ["", "_own", "Big", "a/b", "ä"] {
        check_refused(named(bad), "bucket");
    }
    check_refused(named(&"a".repeat(65)), "1 to 64");
    check_refused(|d| d.cluster_id = "A b".to_owned(), "cluster id");
    check_refused(|d| d.layout.partitions = 3, "power of two");
    check_refused(|d| d.layout.members.clear(), "members");
    check_refused(|d| d.cluster_key = None, "secrets");
    check_refused(|d| d.context_keys.clear(), "secrets");
    check_refused(|d| d.previous = None, "hash of its predecessor");
    check_refused(|d| d.number = 3, "lineage");
    check_refused(|d| d.number = 0, "start at 1");
    check_refused(
        |d| (1..=1024).for_each(|i| named(&format!("b{i}"))(d)),
        "buckets must be from 0 to 1024",
    );
    let resolver = |d: &mut Document| {
        d.buckets.insert(
            "x".to_owned(),
            Bucket {
                config: bound_to("gone", b"gone"),
                ..d.buckets["default"].clone()
            },
        )
    };
    check_refused(|d| drop(resolver(d)), "not uploaded");
    for bad in [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
    ] {
        let change = |d: &mut Document| {
            d.layout
                .members
                .get_mut(&node(1))
                .expect("a member")
                .peer_addr = bad.to_owned();
        };
        check_refused(change, "HOST:PORT");
    }
}

#[test]
fn a_missing_store_makes_no_second_document() {
    let stores = BTreeMap::from([(node(1), Actor(1)), (node(2), Actor(2))]);
    assert_eq!(second_document(&first(3), &stores, &secrets(1)), None);
}

#[test]
fn zones_come_from_the_flags() {
    let mut members = firsts(3);
    members.get_mut(&node(2)).expect("a member").zone = Some("zone-a".to_owned());
    let document = first_document("demo", &members, 16, 4).expect("valid");
    assert_eq!(
        document.layout.members[&node(2)].zone.as_deref(),
        Some("zone-a")
    );
    assert!(first_document("demo", &members, 17, 4).is_err());
    assert!(first_document("demo", &members, 16, 0).is_err());
}

#[test]
fn secrets_do_not_show() {
    assert!(!format!("{:?}", second(1)).contains("7, 7"));
}

fn check_config(change: impl FnOnce(&mut BucketConfig), expected: &str) {
    let mut config = bound_to("cart", b"module");
    change(&mut config);
    let error = config.check().expect_err("it breaks a rule").to_string();
    assert!(
        error.starts_with(expected),
        "{error:?} does not start with {expected:?}"
    );
}

#[test]
fn a_bad_field_is_named() {
    assert_eq!(BucketConfig::default().check(), Ok(()));
    check_config(|c| c.n = 0, "n must be from 1 to 15, not 0");
    check_config(|c| c.n = 16, "n must be");
    check_config(|c| c.r = Level::Count(4), "r must be at most n, 3, not 4");
    check_config(|c| c.w = Level::Count(0), "w must be");
    check_config(|c| c.max_siblings = 0, "max_siblings");
    check_config(|c| c.max_value_bytes = (16 << 20) + 1, "max_value_bytes");
    check_config(
        |c| c.max_object_bytes = 1000,
        "max_object_bytes must be from 1048576",
    );
    check_config(
        |c| c.resolver.as_mut().expect("bound").config = String::new(),
        "resolver.config",
    );
    check_config(
        |c| c.resolver.as_mut().expect("bound").name = "_x".to_owned(),
        "resolver.name",
    );
    check_config(
        |c| c.resolver.as_mut().expect("bound").limits.fuel = 1,
        "resolver.limits.fuel",
    );
    check_config(
        |c| (c.deletes, c.resolver) = (Deletes::Resolver, None),
        "deletes is resolver",
    );
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Document::decode(&bytes);
        let _ = Held::decode(&bytes);
        let _ = Machine::open(node(1), Actor(1), first(1), Some(&bytes), None);
        let _ = Machine::open(node(1), Actor(1), first(1), None, Some(&bytes));
    }

    #[test]
    fn changed_bytes_are_another_document_or_none(at: prop::sample::Index, flip in 1..=255_u8) {
        let document = fourth();
        let mut bytes = document.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = Document::decode(&bytes) {
            prop_assert_ne!(&other, &document);
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}

#[test]
fn longer_shorter_and_newer_bytes_are_refused() {
    let bytes = fourth().encode();
    assert_eq!(
        Document::decode(&[&bytes[..], &[0]].concat()),
        Err(BadDocument::Garbled)
    );
    assert_eq!(
        Document::decode(&bytes[..bytes.len() - 1]),
        Err(BadDocument::Garbled)
    );
    assert_eq!(
        Document::decode(&[&[FORMAT + 1], &bytes[1..]].concat()),
        Err(BadDocument::Format(FORMAT + 1))
    );
    let large = vec![FORMAT; MAX_DOCUMENT_BYTES + 1];
    assert_eq!(
        Document::decode(&large),
        Err(BadDocument::TooLarge(large.len()))
    );
}
