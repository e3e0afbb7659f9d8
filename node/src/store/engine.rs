//! Which engine a store is made of: fjall, or what a test puts in its place for a thread.
//!
//! As with `outside.rs`, nobody behind this door knows which one it is. What takes its place keeps stores by
//! their folders, and what was synced in them when a node dies; the watermark is a file in either case.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use super::Store;
use super::disk::FolderLock;
use super::fjall::{Damage, Fjall, Refusal};

/// What takes fjall's place.
pub trait Engine: 'static {
    /// Makes a new, empty store.
    fn create(&self, folder: &Path) -> Arc<dyn Store>;
    /// The store of this folder as it was left; none if there is none.
    fn reopen(&self, folder: &Path) -> Option<Arc<dyn Store>>;
}

thread_local! {
    static INSTEAD: OnceCell<Box<dyn Engine>> = const { OnceCell::new() };
}

/// Puts an engine in fjall's place, for all that happens on this thread from now on.
///
/// # Panics
/// If there is one already.
pub fn replace(engine: impl Engine) {
    let second = INSTEAD.with(|cell| cell.set(Box::new(engine)).is_err());
    assert!(!second, "this thread has an engine already");
}

fn instead<T>(ask: impl FnOnce(&dyn Engine) -> T) -> Option<T> {
    INSTEAD.with(|cell| cell.get().map(|engine| ask(engine.as_ref())))
}

/// Makes a new, empty store.
pub(super) fn create(
    folder: &Path,
    lock: Option<Arc<FolderLock>>,
) -> Result<Arc<dyn Store>, Refusal> {
    match instead(|engine| engine.create(folder)) {
        Some(store) => Ok(store),
        None => Ok(Arc::new(Fjall::create(folder, lock)?)),
    }
}

/// Opens a store that holds at least batch `synced`.
pub(super) fn recover(
    folder: &Path,
    synced: u64,
    lock: Option<Arc<FolderLock>>,
) -> Result<Arc<dyn Store>, Refusal> {
    let Some(kept) = instead(|engine| engine.reopen(folder)) else {
        return Ok(Arc::new(Fjall::recover(folder, synced, lock)?));
    };
    let store = kept.ok_or(Damage::Missing)?;
    let recovered = store.last_batch();
    match recovered < synced {
        true => Err(Damage::Behind { synced, recovered }.into()),
        false => Ok(store),
    }
}
