//! Prints `resolvers/cases/automerge.json`: a real document, edited on two sides, and what is no document.
//!
//! The documents have constant actors and times, so the output only changes with the `automerge` crate's
//! format. The merged bytes are what this source makes of them; the prebuilt module must make the same.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sibyl_resolver_automerge::Automerge;
use sibyl_resolver_cases::laws;

fn main() -> Result<(), AutomergeError> {
    let mut base = AutoCommit::new().with_actor(ActorId::from([9_u8; 16]));
    let tasks = base.put_object(ROOT, "tasks", ObjType::List)?;
    base.insert(&tasks, 0, "plan")?;
    let notes = base.put_object(ROOT, "notes", ObjType::Text)?;
    base.splice_text(&notes, 0, 0, "hello world")?;
    let base = saved(base);
    let ann = edited(&base, 1, |doc, tasks, notes| {
        doc.insert(tasks, 1, "ship")?;
        doc.splice_text(notes, 0, 5, "HELLO")
    })?;
    let bob = edited(&base, 2, |doc, tasks, notes| {
        doc.insert(tasks, 1, "build")?;
        doc.splice_text(notes, 11, 0, "!")
    })?;
    println!("{:#}", cases(&base, &ann, &bob));
    Ok(())
}

fn edited(
    base: &[u8],
    actor: u8,
    edit: impl FnOnce(&mut AutoCommit, &ObjId, &ObjId) -> Result<(), AutomergeError>,
) -> Result<Vec<u8>, AutomergeError> {
    let mut doc = AutoCommit::load(base)?.with_actor(ActorId::from([actor; 16]));
    let object = |name| -> Result<ObjId, AutomergeError> {
        Ok(doc.get(ROOT, name)?.expect("made by the base").1)
    };
    let (tasks, notes) = (object("tasks")?, object("notes")?);
    edit(&mut doc, &tasks, &notes)?;
    Ok(saved(doc))
}

fn saved(mut doc: AutoCommit) -> Vec<u8> {
    doc.commit_with(CommitOptions::default().with_time(0));
    doc.save()
}

fn cases(base: &[u8], ann: &[u8], bob: &[u8]) -> Value {
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let sibling = |at: u64, bytes: &[u8]| json!({ "modified_at": at, "base64": text(bytes) });
    let merged = |versions: &[&[u8]]| {
        let versions: Vec<_> = versions
            .iter()
            .map(|bytes| (Some(bytes.to_vec()), 1))
            .collect();
        let value = laws::merge::<Automerge>(&sibyl_resolver_cases::context(None), &versions).0;
        json!({ "outcome": "merged", "base64": text(&value.unwrap_or_default()) })
    };
    json!({
        "resolve": [
            {
                "name": "edits of both sides are kept",
                "siblings": [sibling(1, ann), sibling(2, bob)],
                "expect": merged(&[ann, bob])
            },
            {
                "name": "order does not matter, nor that one side has no edits",
                "siblings": [sibling(1, bob), sibling(2, base), sibling(3, ann)],
                "expect": merged(&[ann, bob])
            },
            {
                "name": "equal documents are picked as they are",
                "siblings": [sibling(1, ann), sibling(2, ann)],
                "expect": { "outcome": "pick", "index": 1 }
            },
            {
                "name": "a document wins over a tombstone",
                "siblings": [sibling(1, ann), { "modified_at": 2, "deleted": true }],
                "expect": merged(&[ann, ann, base])
            },
            {
                "name": "what is no document is named",
                "siblings": [sibling(1, ann), { "modified_at": 2, "text": "{}" }],
                "expect": { "outcome": "malformed", "index": 1, "message": "not an Automerge document" }
            },
            {
                "name": "a document cut short is named",
                "siblings": [sibling(1, &ann[..ann.len() - 1]), sibling(2, bob)],
                "expect": { "outcome": "malformed", "index": 0, "message": "not an Automerge document" }
            }
        ],
        "check_config": [
            { "name": "it takes none", "config": { "a": 1 }, "refused": "automerge takes no configuration" }
        ],
        "check_value": [
            { "name": "a document", "base64": text(ann) },
            { "name": "nothing", "text": "", "refused": "it is empty" },
            { "name": "JSON", "text": "{\"a\":1}", "refused": "not an Automerge document" }
        ]
    })
}
