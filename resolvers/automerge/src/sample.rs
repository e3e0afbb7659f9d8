//! Documents for the law check: one shared beginning, then edits of one actor per entropy.
//!
//! Samples relate, as real siblings do: unrelated documents would only show that a union is a union.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ObjType, ROOT, ScalarValue};

/// A document with one edit per byte of `entropy`, on top of a beginning that all samples share.
pub(crate) fn document(entropy: &[u8]) -> Vec<u8> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1_u8; 16]));
    edit_all(&mut document, entropy).expect("the edits below fit the document they build");
    document.save()
}

fn edit_all(document: &mut AutoCommit, entropy: &[u8]) -> Result<(), AutomergeError> {
    let list = document.put_object(ROOT, "list", ObjType::List)?;
    let text = document.put_object(ROOT, "text", ObjType::Text)?;
    document.splice_text(&text, 0, 0, "sibyl")?;
    document.put(ROOT, "count", ScalarValue::counter(0))?;
    commit(document);
    document.set_actor(actor_of(entropy));
    for &byte in entropy {
        let value = i64::from(byte / 8);
        match byte % 8 {
            0 | 1 => document.put(ROOT, format!("m{}", byte / 64), value)?,
            2 | 3 => document.insert(&list, 0, value)?,
            4 => {
                let map = document.put_object(ROOT, "map", ObjType::Map)?;
                document.put(&map, "inner", value)?;
            }
            5 => document.increment(ROOT, "count", value)?,
            6 => document.splice_text(&text, 1, 1, "ab")?,
            _ => document.delete(ROOT, "map")?,
        }
        commit(document);
    }
    Ok(())
}

/// Without a clock: equal entropy is to make equal bytes.
fn commit(document: &mut AutoCommit) {
    document.commit_with(CommitOptions::default().with_time(0));
}

/// An actor per entropy (FNV-1a, twice), since one actor must not make two histories.
fn actor_of(entropy: &[u8]) -> ActorId {
    let fnv = |seed: u64| {
        entropy.iter().fold(seed, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let halves = [fnv(0xcbf2_9ce4_8422_2325), fnv(0x8422_2325_cbf2_9ce4)];
    ActorId::from(halves.map(u64::to_be_bytes).concat())
}
