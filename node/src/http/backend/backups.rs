//! Backups as a request takes them: one at a time, on a thread of its own, no faster than they are read.
//!
//! A client that goes away ends its backup with the next piece. What goes wrong is logged here, since the client
//! sees no more than a connection that breaks.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Shared;
use crate::backup::TakeError;
use crate::http::api::{AdminError, Pieces};

/// Pieces made before they are read: of 256 KiB, or as large as the largest object.
const AHEAD: usize = 4;

impl Shared {
    pub(super) fn backup(&self) -> Result<Pieces, AdminError> {
        self.coordinator.serving().map_err(AdminError::NotServing)?;
        let turn = Arc::clone(&self.backing_up).try_acquire_owned();
        let turn = turn.map_err(|_| AdminError::Busy {
            code: "backup_running",
            detail: "another backup of this node is being taken: wait until it is done".to_owned(),
        })?;
        let (pieces, taken) = mpsc::channel(AHEAD);
        let source = self.backups.clone();
        tokio::task::spawn_blocking(move || {
            let took = source.take(|piece| pieces.blocking_send(Ok(piece)).is_ok());
            match took {
                Ok(counts) => {
                    let (records, unreadable) = (counts.records, counts.unreadable);
                    tracing::info!(records, unreadable, "a backup was taken");
                }
                Err(TakeError::Gone) => tracing::warn!("a backup was given up by its client"),
                Err(error) => {
                    tracing::error!(%error, "a backup failed");
                    // The client may have gone, too.
                    let _gone = pieces.blocking_send(Err(error));
                }
            }
            drop(turn);
        });
        Ok(taken)
    }
}
