//! The judge, judged: it stays silent about what is right, and names each planted wrong.
//!
//! Histories are made by hand; a put is called by its value, and its name is its place in the record.

use std::collections::BTreeMap;

use super::judge::{Record, Saw, Shown, StrictRead, Told, Wrong, judge, judge_reads};

/// Writes key `k`: a value or `None`, what it saw, and what its client was told.
fn write(record: &mut Record, value: Option<&str>, saw: &[usize], told: &str) -> usize {
    let saw = Saw::Writes(saw.iter().copied().collect());
    let id = record.begin("k", value.map(str::to_owned), saw);
    end(record, id, told);
    id
}

fn end(record: &mut Record, id: usize, told: &str) {
    let told = match told {
        "yes" => Told::Acknowledged(format!("dot:{id}")),
        "unknown" => Told::Unknown,
        _ => Told::NotWritten,
    };
    record.end(id, told);
}

/// What is wrong if a read of `k` shows these values.
fn check(record: &Record, view: &[&str], wanted: &[Wrong]) {
    let view: Vec<String> = view.iter().map(|value| (*value).to_owned()).collect();
    let name = |value: &String| {
        (
            format!("dot:{}", record.by_value.get(value).unwrap_or(&99)),
            Some(value.clone()),
        )
    };
    let mut siblings: Vec<_> = view.iter().map(name).collect();
    siblings.dedup();
    let shown = BTreeMap::from([("k".to_owned(), Shown { view, siblings })]);
    assert_eq!(judge(record, &shown), wanted);
}

#[test]
fn an_acknowledged_write_is_shown_or_superseded_by_who_saw_it() {
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    let b = write(&mut record, Some("b"), &[], "yes");
    check(&record, &["a", "b"], &[]);
    check(&record, &["a"], &[Wrong::Lost(b)]);
    // Superseded by what its client does not know to be there, which was seen in its turn.
    let c = write(&mut record, Some("c"), &[a], "unknown");
    check(&record, &["b", "c"], &[]);
    check(&record, &["a", "b"], &[]);
    check(&record, &["b"], &[Wrong::Lost(a)]);
    let d = write(&mut record, Some("d"), &[b, c], "yes");
    check(&record, &["d"], &[]);
    check(
        &record,
        &[],
        &[Wrong::Lost(a), Wrong::Lost(b), Wrong::Lost(d)],
    );
    check(&record, &["a", "d"], &[Wrong::BackAgain(a)]);
}

#[test]
fn what_was_deleted_may_be_gone_but_not_back() {
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    let b = write(&mut record, Some("b"), &[a], "yes");
    write(&mut record, None, &[b], "unknown");
    check(&record, &["b"], &[]);
    check(&record, &[], &[]);
    write(&mut record, None, &[b], "yes");
    check(&record, &[], &[]);
    check(&record, &["b"], &[Wrong::BackAgain(b)]);
    check(&record, &["a"], &[Wrong::BackAgain(a)]);
    let c = write(&mut record, Some("c"), &[], "yes");
    check(&record, &[], &[Wrong::Lost(c)]);
}

#[test]
fn a_delete_that_read_by_itself_covers_what_was_begun_before_it_ended() {
    let mut record = Record::default();
    write(&mut record, Some("a"), &[], "yes");
    let delete = record.begin("k", None, Saw::Anything);
    write(&mut record, Some("b"), &[], "yes");
    end(&mut record, delete, "yes");
    let c = write(&mut record, Some("c"), &[], "yes");
    check(&record, &["c"], &[]);
    check(&record, &["a", "b", "c"], &[]);
    check(&record, &["a"], &[Wrong::Lost(c)]);
    // One whose end nobody knows may come later.
    let delete = record.begin("k", None, Saw::Anything);
    end(&mut record, delete, "unknown");
    write(&mut record, Some("d"), &[], "yes");
    check(&record, &[], &[]);
    // What was refused deletes nothing.
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    write(&mut record, None, &[a], "no");
    check(&record, &[], &[Wrong::Lost(a)]);
}

#[test]
fn a_name_is_of_one_write_and_a_write_is_shown_once() {
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    check(&record, &["a", "a"], &[Wrong::Doubled(a)]);
    let refused = write(&mut record, Some("b"), &[], "no");
    check(&record, &["a", "b"], &[Wrong::Written(refused)]);
    let invented = Wrong::Invented {
        key: "k".to_owned(),
        value: "x".to_owned(),
    };
    check(&record, &["a", "x"], &[invented]);
    let c = record.begin("k", Some("c".to_owned()), Saw::Writes([a].into()));
    record.end(c, Told::Acknowledged(format!("dot:{a}")));
    let one_name = |writes| Wrong::OneName {
        dot: "dot:0".to_owned(),
        writes,
    };
    check(&record, &["c"], &[one_name([a, c].into())]);

    // Two payloads under one name, of which one is only seen on a disk.
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    let b = write(&mut record, Some("b"), &[a], "unknown");
    let shown = Shown {
        view: vec!["b".to_owned()],
        siblings: vec![("dot:0".to_owned(), Some("b".to_owned()))],
    };
    let shown = BTreeMap::from([("k".to_owned(), shown)]);
    assert_eq!(judge(&record, &shown), [one_name([a, b].into())]);
}

#[test]
fn a_strict_read_shows_what_was_acknowledged_or_what_saw_it() {
    let mut record = Record::default();
    let a = write(&mut record, Some("a"), &[], "yes");
    let b = write(&mut record, Some("b"), &[a], "unknown");
    let c = write(&mut record, Some("c"), &[], "yes");
    for shown in [[a].into(), [b].into(), [b, c].into()] {
        record.reads.push(StrictRead { after: a, shown });
    }
    assert_eq!(judge_reads(&record), []);
    for shown in [[].into(), [c].into()] {
        record.reads.push(StrictRead { after: a, shown });
    }
    assert_eq!(judge_reads(&record), [Wrong::Unread(a), Wrong::Unread(a)]);
}
