//! What this node becomes an owner of by a newer document: it has not seen what was forgotten there before.
//!
//! So the lines and horizons of those partitions rise to the present, and are on disk before the document is: whoever
//! starts again with that document takes itself for an owner of long standing, and nothing would tell it otherwise.

use sibyl_core::id::{NodeId, Partition};
use sibyl_core::registry::Held;

use super::{Task, View};

/// The partitions that a node holds by a newer document and did not hold before, for buckets of any number of copies.
pub(super) fn gained(me: &NodeId, before: &View, now: &View) -> Vec<Partition> {
    let ns = now.document().ns();
    let is_new = |at, n| now.placed.holds(me, at, n) && !before.placed.holds(me, at, n);
    let all = (0..now.ring().partitions()).map(Partition);
    all.filter(|at| ns.iter().any(|n| is_new(*at, *n)))
        .collect()
}

impl Task {
    /// Raises what has to be on disk when this document is. Nobody is refused yet: the document is in force only once it
    /// is on disk.
    pub(super) async fn gain_before(&self, document: &[u8]) -> Result<(), String> {
        let next = Held::decode(document).map_err(|error| error.to_string())?;
        let (before, next) = (self.view.borrow().clone(), View::of(next));
        if next.since() <= before.since() {
            return Ok(());
        }
        let gained = gained(&self.ground.me, &before, &next);
        if gained.is_empty() {
            return Ok(());
        }
        self.owners_changed(&before, &gained).await
    }

    /// Owners changed: the writer takes nothing any more that was asked by an older document. What was gained is on disk
    /// when this returns.
    pub(super) async fn owners_changed(
        &self,
        view: &View,
        gained: &[Partition],
    ) -> Result<(), String> {
        let (since, gained) = (view.since(), gained.to_vec());
        let passed = self.ground.replica.owners_changed(since, gained).await;
        passed.map_err(|failure| failure.to_string())
    }
}

#[cfg(test)]
#[path = "gaining_tests.rs"]
mod tests;
