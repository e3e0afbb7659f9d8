//! Keeps this node's trees right: computes unclean partitions anew, and looks at clean ones now and then.
//!
//! The writer does the computing (`replica/leaves.rs`), in steps between which clients go first. A look at a
//! clean partition is the same thing; leaves that turn out wrong there are a bug or a damaged disk, and are
//! right afterwards.

use std::sync::Arc;
use std::time::Duration;

use sibyl_core::id::Partition;

use super::{AntiEntropy, copies};

/// Between two looks at a clean partition: 256 partitions of 4,000 keys are looked at once in four hours.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a partition could not be read.
const AGAIN: Duration = Duration::from_secs(10);

impl AntiEntropy {
    pub(super) async fn keep_trees(self) {
        let mut view = self.ground().registry.watch();
        if view.wait_for(|view| !view.forming()).await.is_err() {
            return;
        }
        let mut marks = self.ground().replica.marks();
        let partitions = self.ground().registry.view().ring().partitions();
        let mut next = 0;
        loop {
            let unclean = self.ground().replica.unclean(partitions);
            if !unclean.is_empty() {
                let count = unclean.len();
                tracing::info!(
                    count,
                    "Merkle trees are not known to be right: they are computed anew"
                );
                for partition in unclean.iter().copied() {
                    self.compute(partition).await;
                }
                if self.ground().replica.unclean(partitions) == unclean {
                    // Nothing could be made right: more is damaged than can be remembered.
                    tokio::time::sleep(AGAIN).await;
                }
                continue;
            }
            tokio::select! {
                changed = marks.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(LOOK_EVERY) => {
                    self.compute(Partition(next % partitions)).await;
                    next += 1;
                }
            }
        }
    }

    /// Computes a partition's leaves anew. Ends: each step begins behind the last one.
    async fn compute(&self, partition: Partition) {
        let replica = &self.ground().replica;
        let was_clean = replica.is_clean(partition);
        let known = Arc::new(copies(&self.ground().registry.view()));
        loop {
            self.yield_to_clients().await;
            match replica.step_tree(partition, Arc::clone(&known)).await {
                Ok(step) if step.done => {
                    if was_clean && step.wrong > 0 {
                        let (partition, wrong) = (partition.0, step.wrong);
                        tracing::error!(
                            partition,
                            wrong,
                            "leaves of a Merkle tree were wrong: they are right now"
                        );
                    }
                    break;
                }
                Ok(_) => {}
                Err(failure) => {
                    tracing::error!(partition = partition.0, %failure, "a partition cannot be read: its tree stays as it is");
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
            }
        }
        self.inner.bell.notify_one();
    }
}
