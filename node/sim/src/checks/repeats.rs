//! **A client's repeated write is one write: it is minted once where that can be known, counts once, and does not
//! come back once it was superseded.**
//!
//! Source: merge-model, *Write*: "Write ids count once, in views only"; decision 10. Minting is checked where the look
//! before it met owners that met the first try's: `sloppy=false` makes sure of both. The rest is checked on what all
//! owners agree on in the end. Receipts of copies that were wiped away are not promised, nor those of a write that
//! nobody acknowledged: what lies on no disk is remembered by nobody.

use std::collections::BTreeSet;

use sibyl_core::id::Dot;
use sibyl_core::object::Object;

use super::{Held, broken};
use crate::oracle::{Oracle, Writes};

const CHECK: &str = "a repeated write is one write";

/// A retry is about to be minted although these of its twins must have been found.
pub fn minted(oracle: &Oracle, certain: Writes) -> Held {
    let kept = |write: &usize| oracle.writes[*write].destroyed == 0;
    match certain.iter().find(kept) {
        None => Ok(()),
        Some(write) => {
            let name = oracle.name(write);
            broken(
                CHECK,
                format!("minted again after it was acknowledged: {name}"),
            )
        }
    }
}

/// What counts in the end.
pub fn end(oracle: &Oracle, last: &Object, counting: &BTreeSet<Dot>) -> Held {
    let surviving = oracle.surviving(last);
    // What a context claims otherwise is another check's.
    let seen = oracle.known(surviving);
    let mut requests = BTreeSet::new();
    for write in counting.iter().filter_map(|dot| oracle.find(*dot)) {
        let request = oracle.writes[write].request;
        if !requests.insert(request) {
            return broken(CHECK, format!("counts twice: {}", oracle.name(write)));
        }
        let twins = oracle.of_request(request).without(surviving);
        let mut over = twins.common(seen).iter().filter(|twin| {
            let twin = &oracle.writes[*twin];
            twin.promised.is_some() && twin.destroyed == 0
        });
        if let Some(twin) = over.next() {
            let (name, twin) = (oracle.name(write), oracle.name(twin));
            return broken(CHECK, format!("{name} counts, and {twin} was superseded"));
        }
    }
    Ok(())
}
