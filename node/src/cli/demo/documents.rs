//! Two people edit one Automerge document on both sides of a cut.
//!
//! The documents are real, made and checked with the `automerge` crate; the node knows nothing of them but the
//! resolver that it is given. A merge is right if it has exactly the changes of both sides: the heads say so.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc};

use super::scene::Scene;

/// The resolver, as it travels in the repository.
const MODULE: &[u8] = include_bytes!("../../../../resolvers/prebuilt/automerge.wasm");

/// The scene.
pub(super) fn scene() -> Scene {
    Scene {
        title: "The Automerge document",
        bucket: "documents",
        content_type: "application/vnd.automerge",
        base: || first().map_err(|error| error.to_string()),
        left: ("writes a salutation and packs a map", |seen| {
            edit(seen, 0, "Dear friends, ", "map").map_err(|error| error.to_string())
        }),
        right: ("signs the letter and packs water", |seen| {
            edit(seen, usize::MAX, " Yours, Pythia", "water").map_err(|error| error.to_string())
        }),
        resolver: "automerge",
        module: MODULE,
        show: |value| show(value).map_err(|error| error.to_string()),
        check,
    }
}

/// What can be wrong with a document.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not an Automerge document: {0}")]
    Automerge(#[from] automerge::AutomergeError),
    #[error("the document has no {0:?}")]
    Missing(&'static str),
}

fn first() -> Result<Vec<u8>, Error> {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, "letter", ObjType::Text)?;
    document.splice_text(&text, 0, 0, "we climb to Delphi at dawn.")?;
    let list = document.put_object(ROOT, "packing", ObjType::List)?;
    document.insert(&list, 0, "bread")?;
    Ok(document.save())
}

/// Puts words into the letter, at the start or at the end, and one more thing on the list.
fn edit(seen: &[u8], at: usize, words: &str, thing: &str) -> Result<Vec<u8>, Error> {
    let mut document = AutoCommit::load(seen)?;
    let text = child(&document, "letter")?;
    let at = at.min(document.length(&text));
    document.splice_text(&text, at, 0, words)?;
    let list = child(&document, "packing")?;
    let end = document.length(&list);
    document.insert(&list, end, thing)?;
    Ok(document.save())
}

fn child(document: &AutoCommit, name: &'static str) -> Result<ObjId, Error> {
    document
        .get(ROOT, name)?
        .map(|(_, id)| id)
        .ok_or(Error::Missing(name))
}

fn show(value: &[u8]) -> Result<String, Error> {
    let document = AutoCommit::load(value)?;
    Ok(format!(
        "{:?}, packing {}",
        document.text(&child(&document, "letter")?)?,
        packing(&document)?.join(", ")
    ))
}

fn packing(document: &AutoCommit) -> Result<Vec<String>, Error> {
    let list = child(document, "packing")?;
    let mut things = Vec::new();
    for index in 0..document.length(&list) {
        let (value, _) = document
            .get(&list, index)?
            .ok_or(Error::Missing("packing"))?;
        things.push(value.as_str().unwrap_or("?").to_owned());
    }
    Ok(things)
}

/// Loads all three, merges the two sides natively and compares: same changes, both edits readable.
fn check(merged: &[u8], left: &[u8], right: &[u8]) -> Result<String, String> {
    let load = |bytes: &[u8]| AutoCommit::load(bytes).map_err(|error| error.to_string());
    let (mut found, mut expected) = (load(merged)?, load(left)?);
    expected
        .merge(&mut load(right)?)
        .map_err(|error| error.to_string())?;
    let (mut heads, mut expected_heads) = (found.get_heads(), expected.get_heads());
    heads.sort();
    expected_heads.sort();
    if heads != expected_heads {
        return Err(format!("heads {heads:?} instead of {expected_heads:?}"));
    }
    let shown = show(merged).map_err(|error| error.to_string())?;
    let edits = ["Dear friends", "dawn", "Pythia", "bread", "map", "water"];
    match edits.iter().find(|edit| !shown.contains(**edit)) {
        None => Ok(format!(
            "merged, loads with all {} changes",
            found.get_changes(&[]).len()
        )),
        Some(missing) => Err(format!("{missing:?} is missing in {shown}")),
    }
}
