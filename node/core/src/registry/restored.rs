//! What the registry of a restored node begins with.
//!
//! A backup holds a document that named the lost store. Where there are other members nothing changes: they are
//! asked to name the new store, and until they did this node is an amnesiac that does not vote. The only member of
//! a cluster has nobody to ask. That its acceptor is gone is then the word of the operator who restores it, so the
//! next document names the new store without a proof; whatever was chosen after the backup was known to nobody
//! else.

use super::change::{Change, ChangeError};
use super::held::Held;
use crate::id::{Actor, NodeId};

impl Held {
    /// As the only member goes on with another store; `None` if there are other members, which decide.
    ///
    /// # Errors
    /// [`ChangeError`] if the document does not name this node.
    pub fn restored_alone(&self, node: &NodeId, store: Actor) -> Result<Option<Self>, ChangeError> {
        if self.document.layout.members.len() > 1 {
            return Ok(None);
        }
        let change = Change::NameStore {
            node: node.clone(),
            store,
        };
        let next = change.apply(&self.document)?;
        Ok(Some(next.map_or_else(|| self.clone(), Self::first)))
    }
}
