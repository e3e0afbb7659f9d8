//! Whom the registry names, as gossip hears of it.
//!
//! Gossip knows no documents: it is handed names and standings whenever those in force change.

use std::collections::BTreeMap;

use sibyl_core::id::NodeId;
use sibyl_core::membership::Standing;
use sibyl_core::registry::{Document, Farewell};
use tokio::sync::watch;

use crate::tasks::gossip::Listed;
use crate::tasks::registry::{Registry, View};

/// Whom a document names, and as what: members, and who was one.
fn standings(document: &Document) -> BTreeMap<NodeId, Standing> {
    let ended = document.departed().into_iter().map(|former| {
        let standing = match former.why {
            Farewell::Left => Standing::Left,
            Farewell::Removed | Farewell::Lost => Standing::Down,
        };
        (former.node.clone(), standing)
    });
    let members = document.layout.members.keys();
    ended
        .chain(members.map(|node| (node.clone(), Standing::Member)))
        .collect()
}

/// Whom the registry names, as it changes. A member that a document does not name any more was removed.
pub(super) fn listed(registry: &Registry) -> watch::Receiver<Listed> {
    let read = |view: &View| Listed {
        number: view.number(),
        members: standings(view.document()),
    };
    let mut documents = registry.watch();
    let (listed, receiver) = watch::channel(read(&documents.borrow_and_update()));
    tokio::spawn(async move {
        while documents.changed().await.is_ok() {
            let now = read(&documents.borrow_and_update());
            if listed.send(now).is_err() {
                return;
            }
        }
    });
    receiver
}
