//! Changes: what each does, and what each refuses.

use super::super::*;
use super::{add, bound_to, first, node, put, second};
use crate::id::{Actor, Digest, Incarnation};
use crate::quorum::Level;

fn apply(document: &Document, change: &Change) -> Document {
    let next = change
        .apply(document)
        .expect("a valid change")
        .expect("it changes something");
    assert_eq!(
        (next.number, next.previous),
        (document.number + 1, Some(document.digest()))
    );
    assert_eq!(next.check(), Ok(()));
    next
}

fn check_refused(document: &Document, change: &Change, expected: &str) {
    let error = change
        .apply(document)
        .expect_err("it is refused")
        .to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

fn small() -> BucketConfig {
    BucketConfig {
        max_siblings: 7,
        ..BucketConfig::default()
    }
}

fn expecting(name: &str, config: BucketConfig, expect: Expect) -> Change {
    Change::PutBucket {
        name: name.to_owned(),
        config: Box::new(config),
        expect,
    }
}

fn delete(name: &str, expect: Expect) -> Change {
    Change::DeleteBucket {
        name: name.to_owned(),
        expect,
    }
}

#[test]
fn a_bucket_is_created_altered_and_deleted() {
    let three = apply(&second(3), &put("carts", BucketConfig::default()));
    assert_eq!(three.buckets["carts"].incarnation, Incarnation(3));
    let four = apply(&three, &put("carts", small()));
    let bucket = &four.buckets["carts"];
    assert_eq!(
        (
            bucket.incarnation,
            bucket.revision,
            bucket.config.max_siblings
        ),
        (Incarnation(3), 4, 7)
    );
    let five = apply(&four, &delete("carts", Expect::Revision(4)));
    assert!(!five.buckets.contains_key("carts"));
    let six = apply(&five, &put("carts", small()));
    assert_eq!(
        six.buckets["carts"].incarnation,
        Incarnation(6),
        "another bucket of the same name"
    );
}

#[test]
fn the_same_again_changes_nothing() {
    let three = apply(&second(3), &put("carts", small()));
    assert_eq!(put("carts", small()).apply(&three), Ok(None));
    let four = apply(&three, &add("cart", b"module"));
    assert_eq!(add("cart", b"module").apply(&four), Ok(None));
    let store = Change::NameStore {
        node: node(1),
        store: Actor(1),
    };
    assert_eq!(store.apply(&four), Ok(None));
}

#[test]
fn expectations_are_held() {
    let three = apply(&second(3), &put("carts", small()));
    let other = BucketConfig {
        w: Level::All,
        ..small()
    };
    check_refused(
        &three,
        &expecting("carts", other.clone(), Expect::Absent),
        "revision Some(3)",
    );
    check_refused(
        &three,
        &expecting("carts", other.clone(), Expect::Revision(2)),
        "read it again",
    );
    check_refused(
        &three,
        &expecting("gone", other.clone(), Expect::Revision(2)),
        "None",
    );
    check_refused(
        &three,
        &delete("carts", Expect::Revision(9)),
        "read it again",
    );
    apply(
        &three,
        &expecting("carts", other.clone(), Expect::Revision(3)),
    );
    apply(&three, &expecting("new", other, Expect::Absent));
}

#[test]
fn what_must_not_change_does_not() {
    let two = second(3);
    let five = BucketConfig {
        n: 5,
        ..BucketConfig::default()
    };
    check_refused(
        &two,
        &put("default", five),
        "n of bucket \"default\" is 3 and cannot change",
    );
    check_refused(&two, &delete("default", Expect::Anything), "always exists");
    check_refused(
        &two,
        &delete("gone", Expect::Anything),
        "no bucket \"gone\"",
    );
    check_refused(&two, &put("_own", small()), "does not start with _");
    check_refused(
        &two,
        &put("x", BucketConfig { n: 0, ..small() }),
        "n must be",
    );
    check_refused(&first(3), &put("x", small()), "still forming");
}

#[test]
fn a_bound_version_stays() {
    let digest = Digest::of(b"module");
    let remove = Change::RemoveVersion {
        name: "cart".to_owned(),
        digest,
    };
    check_refused(
        &second(3),
        &put("carts", bound_to("cart", b"module")),
        "upload it first",
    );
    check_refused(&second(3), &remove, "there is no resolver version");
    let three = apply(&second(3), &add("cart", b"module"));
    let four = apply(&three, &put("carts", bound_to("cart", b"module")));
    assert_eq!(bound(&four, "cart", digest).collect::<Vec<_>>(), ["carts"]);
    check_refused(&four, &remove, "is bound to carts");
    let five = apply(&four, &put("carts", BucketConfig::default()));
    let six = apply(&five, &remove);
    assert!(six.resolvers.is_empty());
}

#[test]
fn the_epoch_only_grows() {
    let epoch = |document: &Document| document.buckets["carts"].epoch;
    let mut document = apply(&second(3), &add("cart", b"one"));
    document = apply(&document, &add("cart", b"two"));
    document = apply(&document, &put("carts", bound_to("cart", b"one")));
    assert_eq!(epoch(&document), 1);
    document = apply(&document, &put("carts", bound_to("cart", b"two")));
    assert_eq!(epoch(&document), 2);
    document = apply(&document, &put("carts", BucketConfig::default()));
    assert_eq!(epoch(&document), 3);
    document = apply(&document, &put("carts", small()));
    assert_eq!(epoch(&document), 3, "nothing was bound or unbound");
    document = apply(&document, &put("carts", bound_to("cart", b"one")));
    assert_eq!(epoch(&document), 4);
}

#[test]
fn a_new_store_counts_as_a_new_incarnation() {
    let three = apply(
        &second(3),
        &Change::NameStore {
            node: node(2),
            store: Actor(99),
        },
    );
    let member = &three.layout.members[&node(2)];
    assert_eq!((member.store, member.incarnation), (Some(Actor(99)), 2));
    let stranger = Change::NameStore {
        node: node(8),
        store: Actor(99),
    };
    check_refused(&three, &stranger, "n8 is not a member");
}

#[test]
fn limits_of_the_document_hold() {
    let mut document = second(1);
    for number in 0..MAX_VERSIONS {
        document = apply(&document, &add("cart", number.to_string().as_bytes()));
    }
    check_refused(
        &document,
        &add("cart", b"one more"),
        "versions of a resolver must be from 1 to 64",
    );
}
