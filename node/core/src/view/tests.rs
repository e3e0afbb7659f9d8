//! What each policy and each outcome shows.

use std::collections::BTreeSet;

use super::*;
use crate::context::Context;
use crate::id::Actor;
use crate::object::Receipt;

/// A sibling: dot counter, value (`-` is a tombstone), modified-at, write id.
type Row = (u64, &'static str, u64, u8);

fn object(rows: &[Row]) -> Object {
    let sibling = |&(counter, value, modified_at, write): &Row| {
        let content = Content {
            value: (value != "-").then(|| Bytes::from_static(value.as_bytes())),
            content_type: format!("text/{value}"),
            attributes: BTreeMap::new(),
            modified_at,
            write_id: WriteId([write; 16]),
            trace: None,
        };
        Sibling::written(
            Dot {
                actor: Actor(1),
                counter,
            },
            content,
        )
    };
    let siblings: Vec<_> = rows.iter().map(sibling).collect();
    let context: Context = siblings.iter().flat_map(Sibling::dots).collect();
    Object::from_parts(context, siblings)
}

fn check_faces(rows: &[Row], deletes: Deletes, expected: &[&str]) {
    check_shown(&object(rows), deletes, expected);
}

fn check_shown(object: &Object, deletes: Deletes, expected: &[&str]) {
    let text = |sibling: &Sibling| {
        let value = sibling.content.value.as_deref().unwrap_or(b"-");
        String::from_utf8_lossy(value).into_owned()
    };
    let shown = match faces(object, deletes) {
        Faces::Gone => vec![],
        Faces::One(one) => vec![text(one)],
        Faces::Several(several) => several.into_iter().map(text).collect(),
    };
    assert_eq!(shown, expected, "{object:?} under {deletes:?}");
}

#[test]
fn policies_say_what_a_tombstone_means() {
    use Deletes::{DeleteWins, Resolver, WriteWins};
    let all = [WriteWins, DeleteWins, Resolver];
    all.iter().for_each(|policy| check_faces(&[], *policy, &[]));
    all.iter()
        .for_each(|policy| check_faces(&[(1, "-", 1, 1), (2, "-", 2, 2)], *policy, &[]));
    all.iter()
        .for_each(|policy| check_faces(&[(1, "a", 1, 1)], *policy, &["a"]));
    let beside = [(1, "a", 1, 1), (2, "-", 2, 2)];
    check_faces(&beside, WriteWins, &["a"]);
    check_faces(&beside, DeleteWins, &[]);
    check_faces(&beside, Resolver, &["a", "-"]);
}

#[test]
fn siblings_stand_in_canonical_order() {
    check_faces(
        &[(1, "b", 9, 1), (2, "a", 3, 2), (3, "c", 3, 3)],
        Deletes::WriteWins,
        &{
            let by_digest = |a: &str, b: &str| Digest::of(a.as_bytes()) < Digest::of(b.as_bytes());
            if by_digest("a", "c") {
                ["a", "c", "b"]
            } else {
                ["c", "a", "b"]
            }
        },
    );
}

#[test]
fn a_write_counts_once_and_equal_payloads_count_each() {
    check_faces(
        &[(1, "a", 1, 7), (2, "a", 2, 7)],
        Deletes::WriteWins,
        &["a"],
    );
    check_faces(
        &[(1, "a", 1, 7), (2, "a", 2, 8)],
        Deletes::WriteWins,
        &["a", "a"],
    );
}

/// Rows, and dots of write 7 that this client may repeat: those without a row were superseded.
fn check_remembered(rows: &[Row], minted: &[u64], deletes: Deletes, expected: &[&str]) {
    let dot = |counter: &u64| Dot {
        actor: Actor(1),
        counter: *counter,
    };
    let (mut context, siblings) = object(rows).into_parts();
    context.extend(minted.iter().map(dot));
    let mut object = Object::from_parts(context, siblings);
    for counter in minted {
        object.remember(Receipt {
            at: *counter,
            write_id: WriteId([7; 16]),
            dot: dot(counter),
        });
    }
    check_shown(&object, deletes, expected);
}

#[test]
fn a_write_is_over_once_one_of_its_twins_was_superseded() {
    use Deletes::{DeleteWins, Resolver, WriteWins};
    // Both twins are there: the lowest counts.
    check_remembered(
        &[(1, "a", 1, 7), (2, "a", 2, 7)],
        &[1, 2],
        WriteWins,
        &["a"],
    );
    // Somebody saw the first, or the second, and wrote over it.
    check_remembered(
        &[(2, "a", 2, 7), (3, "b", 3, 1)],
        &[1, 2],
        WriteWins,
        &["b"],
    );
    check_remembered(
        &[(1, "a", 1, 7), (3, "b", 3, 1)],
        &[1, 2],
        WriteWins,
        &["b"],
    );
    // Or deleted it.
    for policy in [WriteWins, DeleteWins, Resolver] {
        check_remembered(&[(2, "a", 2, 7), (3, "-", 3, 1)], &[1, 2], policy, &[]);
    }
    // A delete that was repeated and written over no longer wins.
    check_remembered(
        &[(2, "-", 2, 7), (3, "b", 3, 1)],
        &[1, 2],
        DeleteWins,
        &["b"],
    );
    // What was superseded of other writes says nothing.
    check_remembered(
        &[(2, "a", 2, 8), (3, "b", 3, 1)],
        &[1],
        WriteWins,
        &["a", "b"],
    );
}

#[test]
fn without_a_resolver_equal_payloads_are_one_answer() {
    let same = object(&[(1, "a", 1, 1), (2, "a", 2, 2)]);
    let differ = object(&[(1, "a", 1, 1), (2, "b", 2, 2)]);
    let several = |object| match faces(object, Deletes::WriteWins) {
        Faces::Several(several) => several,
        other => panic!("{other:?}"),
    };
    assert!(unanimous(&several(&same)).is_some());
    assert!(unanimous(&several(&differ)).is_none());
    assert!(unanimous(&[]).is_none());
}

fn check_resolved(resolution: &Resolution, expected: &Result<&str, Invalid>) {
    let object = object(&[
        (1, "a", 1, 1),
        (2, "-", 2, 2),
        (3, "c", 3, 3),
        (4, "-", 4, 4),
    ]);
    let Faces::Several(several) = faces(&object, Deletes::Resolver) else {
        panic!("several")
    };
    let shown = resolved(&several, resolution).map(|view| match view {
        View::Gone => "gone".to_owned(),
        View::One(content) => {
            let value = content.value.expect("a value");
            format!(
                "{} {} {}",
                String::from_utf8_lossy(&value),
                content.content_type,
                content.modified_at
            )
        }
        View::Siblings(siblings) => {
            let counters: BTreeSet<u64> = siblings
                .iter()
                .map(|sibling| sibling.dot().counter)
                .collect();
            format!("{counters:?}")
        }
    });
    assert_eq!(
        shown.as_deref().map_err(|invalid| *invalid),
        expected.as_ref().map(|s| *s).map_err(|e| *e)
    );
}

#[test]
fn outcomes_inherit() {
    let merged = Resolution::Merged(Bytes::from_static(b"m"));
    check_resolved(&merged, &Ok("m text/c 4"));
    check_resolved(&Resolution::Pick(2), &Ok("c text/c 3"));
    check_resolved(&Resolution::Keep(vec![2, 0]), &Ok("{1, 3}"));
    check_resolved(&Resolution::Delete, &Ok("gone"));
}

#[test]
fn outcomes_that_fit_no_sibling_set_are_failures() {
    check_resolved(
        &Resolution::Pick(4),
        &Err(Invalid::OutOfRange {
            index: 4,
            siblings: 4,
        }),
    );
    check_resolved(&Resolution::Pick(1), &Err(Invalid::PicksTombstone(1)));
    check_resolved(
        &Resolution::Keep(vec![0, 9]),
        &Err(Invalid::OutOfRange {
            index: 9,
            siblings: 4,
        }),
    );
    check_resolved(&Resolution::Keep(vec![0, 0]), &Err(Invalid::Twice(0)));
    check_resolved(&Resolution::Keep(vec![]), &Err(Invalid::KeepsNothing));
}
