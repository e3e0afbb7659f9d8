//! The shared cases, real documents edited on both sides, and byte equality of every grouping.

use automerge::transaction::Transactable;
use automerge::{
    ActorId, AutoCommit, Automerge as Document, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
};
use proptest::prelude::*;
use sibyl_resolver_cases::{check_all, context, laws};
use sibyl_resolver_kit::{Checked, Failure, Resolver};

use crate::Automerge;

#[test]
fn does_what_the_cases_say() {
    check_all::<Automerge>();
}

/// A document with a list of maps, a text, a nested map and a counter, as one application would make it.
fn project() -> Vec<u8> {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([9_u8; 16]));
    let tasks = doc.put_object(ROOT, "tasks", ObjType::List).unwrap();
    for (i, title) in ["plan", "build"].into_iter().enumerate() {
        let task = doc.insert_object(&tasks, i, ObjType::Map).unwrap();
        doc.put(&task, "title", title).unwrap();
        doc.put(&task, "done", false).unwrap();
    }
    let notes = doc.put_object(ROOT, "notes", ObjType::Text).unwrap();
    doc.splice_text(&notes, 0, 0, "hello world").unwrap();
    let people = doc.put_object(ROOT, "people", ObjType::Map).unwrap();
    doc.put(&people, "ann", "lead").unwrap();
    doc.put(ROOT, "views", ScalarValue::counter(1)).unwrap();
    doc.save()
}

/// `base`, edited by the process `actor`.
fn edited(base: &[u8], actor: u8, edit: impl FnOnce(&mut AutoCommit)) -> Vec<u8> {
    let mut doc = AutoCommit::load(base)
        .unwrap()
        .with_actor(ActorId::from([actor; 16]));
    edit(&mut doc);
    doc.save()
}

fn at(doc: &AutoCommit, parent: &ObjId, name: &str) -> ObjId {
    doc.get(parent, name).unwrap().unwrap().1
}

fn by_ann(doc: &mut AutoCommit) {
    let (tasks, notes) = (at(doc, &ROOT, "tasks"), at(doc, &ROOT, "notes"));
    let first = doc.get(&tasks, 0).unwrap().unwrap().1;
    doc.put(&first, "done", true).unwrap();
    doc.commit();
    let new = doc.insert_object(&tasks, 2, ObjType::Map).unwrap();
    doc.put(&new, "title", "ship").unwrap();
    doc.splice_text(&notes, 0, 5, "HELLO").unwrap();
    doc.increment(ROOT, "views", 5).unwrap();
}

fn by_bob(doc: &mut AutoCommit) {
    let (tasks, notes, people) = (
        at(doc, &ROOT, "tasks"),
        at(doc, &ROOT, "notes"),
        at(doc, &ROOT, "people"),
    );
    let new = doc.insert_object(&tasks, 2, ObjType::Map).unwrap();
    let steps = doc.put_object(&new, "steps", ObjType::List).unwrap();
    doc.insert(&steps, 0, "one").unwrap();
    doc.splice_text(&notes, 11, 0, "!").unwrap();
    doc.commit();
    doc.put(&people, "bob", "dev").unwrap();
    doc.increment(ROOT, "views", 10).unwrap();
}

fn by_cid(doc: &mut AutoCommit) {
    let tasks = at(doc, &ROOT, "tasks");
    doc.delete(&tasks, 1).unwrap();
    doc.put(ROOT, "people", "nobody").unwrap();
    doc.increment(ROOT, "views", 100).unwrap();
}

fn versions() -> Vec<laws::Version> {
    let base = project();
    let edits: [fn(&mut AutoCommit); 3] = [by_ann, by_bob, by_cid];
    let edited = edits
        .into_iter()
        .zip(1..)
        .map(|(edit, actor)| edited(&base, actor, edit));
    edited
        .zip(1..)
        .map(|(bytes, at)| (Some(bytes), at))
        .collect()
}

#[test]
fn every_grouping_gives_the_same_bytes() {
    laws::lattice::<Automerge>(&context(None), &versions());
}

#[test]
fn edits_of_both_sides_are_there() {
    let merged = laws::merge::<Automerge>(&context(None), &versions()[..2])
        .0
        .unwrap();
    let doc = AutoCommit::load(&merged).unwrap();
    let text = doc.text(at(&doc, &ROOT, "notes")).unwrap();
    assert_eq!(text, "HELLO world!");
    assert_eq!(doc.length(at(&doc, &ROOT, "tasks")), 4);
    assert_eq!(
        doc.get(ROOT, "views").unwrap().unwrap().0,
        ScalarValue::counter(16).into()
    );
    let people = at(&doc, &ROOT, "people");
    assert_eq!(doc.keys(people).collect::<Vec<_>>(), ["ann", "bob"]);
}

/// Automerge's own merge decides what a document says; only the bytes are ours.
#[test]
fn says_what_automerge_itself_would() {
    let versions = versions();
    let merged = laws::merge::<Automerge>(&context(None), &versions)
        .0
        .unwrap();
    let mut own = Document::new();
    for version in &versions {
        own.merge(&mut Document::load(version.0.as_deref().unwrap()).unwrap())
            .unwrap();
    }
    let merged = Document::load(&merged).unwrap();
    assert_eq!(merged.hydrate(None), own.hydrate(None));
    assert_eq!(merged.get_heads(), own.get_heads());
}

#[test]
fn a_document_in_pieces_is_one_document() {
    let base = project();
    let mut doc = AutoCommit::load(&base)
        .unwrap()
        .with_actor(ActorId::from([1_u8; 16]));
    by_ann(&mut doc);
    let pieces = [base.clone(), doc.save_incremental()].concat();
    let bob = (Some(edited(&base, 2, by_bob)), 2);
    let merge =
        |bytes: Vec<u8>| laws::merge::<Automerge>(&context(None), &[(Some(bytes), 1), bob.clone()]);
    assert_eq!(merge(pieces), merge(doc.save()));
}

#[test]
fn a_document_that_lacks_changes_is_refused() {
    let base = project();
    let mut doc = AutoCommit::load(&base)
        .unwrap()
        .with_actor(ActorId::from([1_u8; 16]));
    by_ann(&mut doc);
    doc.save_incremental();
    doc.put(ROOT, "later", 1).unwrap();
    let partial = [base, doc.save_incremental()].concat();
    let message = Automerge::check_value(&context(None), &partial).unwrap_err();
    assert!(
        message.starts_with("the document lacks change "),
        "{message}"
    );
}

#[test]
fn one_actor_on_two_sides_is_refused() {
    let base = project();
    let sides = [edited(&base, 1, by_ann), edited(&base, 1, by_bob)];
    let siblings = laws::sorted(&sides.map(|bytes| (Some(bytes), 1)));
    match Automerge::resolve(&context(None), &siblings) {
        Err(Failure::Other(message)) => assert!(
            message.contains("needs an actor id of its own"),
            "{message}"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_histories() {
    let base = project();
    let long = |actor, name: &'static str| {
        edited(&base, actor, move |doc| {
            let notes = at(doc, &ROOT, "notes");
            for i in 0..300 {
                doc.splice_text(&notes, i, 0, name).unwrap();
                doc.commit();
            }
        })
    };
    let merged = laws::merge::<Automerge>(
        &context(None),
        &[(Some(long(1, "a")), 1), (Some(long(2, "b")), 2)],
    );
    let doc = AutoCommit::load(&merged.0.unwrap()).unwrap();
    assert_eq!(doc.text(at(&doc, &ROOT, "notes")).unwrap().len(), 611);
}

fn version() -> impl Strategy<Value = laws::Version> {
    let sample =
        prop::collection::vec(any::<u8>(), 0..8).prop_map(|entropy| Automerge::sample(&entropy));
    (prop::option::weighted(0.95, sample), 0_u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn is_a_lattice(versions in prop::collection::vec(version(), 2..4)) {
        laws::lattice::<Automerge>(&context(None), &versions);
    }

    #[test]
    fn samples_are_values(entropy in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(Automerge::check_value(&context(None), &Automerge::sample(&entropy)), Ok(()));
    }

    #[test]
    fn hostile_bytes_are_refused(mut bytes in Just(project()), at: prop::sample::Index, flip in 1_u8..) {
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Automerge::check_value(&context(None), &bytes).is_err());
    }
}
