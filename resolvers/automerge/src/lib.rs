//! `automerge`: merges Automerge documents, with the same bytes whatever the grouping.
//!
//! `load`, `merge` and `save` agree on the content but not on the bytes. Here the document is rebuilt: every
//! change of every sibling once, parents first and ties by hash, into an empty document with a constant
//! actor, in one call. A lattice: the result is a function of the union of the changes.

mod changes;
mod sample;

#[cfg(target_arch = "wasm32")]
mod randomness;

use automerge::{ActorId, Automerge as Document};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

use changes::Changes;

/// Merges Automerge documents.
pub struct Automerge;

impl Resolver for Automerge {
    const NAME: &'static str = "automerge";
    const SUMMARY: &'static str = "Automerge documents: every change of every sibling is kept.";
    const MEDIA_TYPES: &'static [&'static str] =
        &["application/vnd.automerge", "application/automerge"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let mut changes = Changes::default();
        for (index, bytes) in siblings::values(input) {
            let document = load(bytes).map_err(|why| siblings::malformed(index, why))?;
            changes.add(&document).map_err(Failure::Other)?;
        }
        // The actor of a document that never writes: it only has to be the same everywhere.
        let mut merged = Document::new().with_actor(ActorId::from([0_u8; 16]));
        merged
            .apply_changes(changes.in_order())
            .map_err(|error| Failure::Other(format!("these histories do not fit: {error}")))?;
        Ok(Resolution::Merged(merged.save()))
    }
}

impl Checked for Automerge {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        load(value).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        sample::document(entropy)
    }
}

/// A complete document: rebuilding from one that waits for missing changes would drop the waiting ones.
fn load(bytes: &[u8]) -> Result<Document, String> {
    use automerge::ReadDoc;

    if bytes.is_empty() {
        return Err("not an Automerge document: it is empty".to_owned());
    }
    let document =
        Document::load(bytes).map_err(|error| format!("not an Automerge document: {error}"))?;
    match document.get_missing_deps(&[]).first() {
        None => Ok(document),
        Some(hash) => Err(format!(
            "the document lacks change {hash}, on which others rest: write complete documents (`save`), \
             not single changes"
        )),
    }
}

sibyl_resolver_kit::export!(Automerge);

#[cfg(test)]
mod tests;
