//! Decides what a data folder is: empty, the store it was, or one that cannot prove what it remembers.
//!
//! In a folder lie `lock`, `watermark`, one `store-<actor>` and, after amnesia, `aside-<n>` with what was
//! there before. The rename of a new watermark is the one moment at which a store changes its actor.
//! Crash points of a first start: before that rename there is no store; after it, until the watermark says
//! `ready`, the store was never written to and is begun again, under yet another actor. Of a start after
//! amnesia: the old store is moved aside first, so the old watermark finds nothing and says amnesia again.
//!
//! Invariant: an actor that may ever have been used is never drawn, nor a counter handed out, again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sibyl_core::id::Actor;

use super::counters::{BLOCK, Counters};
use super::disk::{self, FolderLock};
use super::engine;
use super::fjall::{self, Refusal};
use super::watermark::{self, LoadError, State, Watermark};
use super::{Batch, Store, WriteError, salvage};

/// The most stores kept aside; then an operator must look.
const MAX_ASIDE: u32 = 1000;

/// A data folder in use. Dropping store and watermark gives it free.
#[derive(Debug)]
pub struct Opened {
    /// The engine.
    pub store: Arc<dyn Store>,
    /// What it must not forget.
    pub watermark: Arc<Watermark>,
    /// Hands out the counter.
    pub counters: Counters,
    /// Whose store this is.
    pub actor: Actor,
    /// The first counter of this start: every partition's line is the one before it.
    pub counter: u64,
    /// How it began.
    pub start: Start,
}

/// How a store began. Whether it still has to be refilled: [`Watermark::is_rebuilding`].
#[derive(Debug)]
pub enum Start {
    /// The folder was empty.
    First,
    /// It is the store it was.
    Restarted,
    /// It could not prove what it remembers: a new store, a new actor; the old one is kept aside.
    Amnesia(Cause),
}

/// Why a store cannot prove what it remembers.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A store without its watermark.
    #[error("the watermark file is missing")]
    WatermarkMissing,
    /// The watermark is damaged before its tail.
    #[error(transparent)]
    Watermark(watermark::Damage),
    /// The engine is damaged, incomplete, gone, or behind its watermark.
    #[error(transparent)]
    Engine(fjall::Damage),
    /// The store said so itself: a peer knew more of it than it did.
    #[error("a peer knew more of this store than it did")]
    Disowned,
    /// The engine's files were damaged, and others are there to fill a new store.
    #[error(
        "the files of store {store} were damaged; {records} of its records could be read and are in the new one"
    )]
    Damaged {
        /// The store that was given up.
        store: Actor,
        /// How much of it could be taken over.
        records: u64,
    },
    /// It was made from a backup: what the lost one did since is not known.
    #[error("it was restored from a backup")]
    Restored,
    /// A start after amnesia did not finish.
    #[error("an earlier start after amnesia did not finish")]
    Unfinished,
}

/// Why a data folder cannot be used. Nothing was changed, or what was is taken up by the next start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{} is in use by another process: stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A newer build made it.
    #[error("{} was written by another version of sibyl: start that one", .0.display())]
    Version(PathBuf),
    /// The operating system refuses: rights, room, descriptors or the device.
    #[error("{} cannot be used: check rights, free space, open-file limit and the device", .path.display())]
    Io {
        /// The data folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The first write failed.
    #[error("{} does not take its first write", .path.display())]
    Write {
        /// The data folder.
        path: PathBuf,
        /// What failed.
        source: WriteError,
    },
    /// A new store's engine failed at once.
    #[error("{} does not hold a new store", .path.display())]
    New {
        /// The data folder.
        path: PathBuf,
        /// What failed.
        source: fjall::Damage,
    },
    /// Too many stores were lost here.
    #[error("{} holds {MAX_ASIDE} stores set aside: examine the disk and remove them", .0.display())]
    TooManyAside(PathBuf),
}

/// Opens a data folder, making it if need be. `fresh_actor` draws 64 random bits when a store is begun.
///
/// # Errors
/// [`OpenError`] if the folder cannot be used now; damage is no error but [`Start::Amnesia`].
pub fn open(folder: &Path, fresh_actor: impl FnOnce() -> u64) -> Result<Opened, OpenError> {
    let folder = Folder {
        path: folder.to_owned(),
    };
    let lock = folder.take()?;
    let evidence = folder.weigh(&lock)?;
    match evidence {
        Evidence::Whole(state, store) => folder.restart(*state, store, lock),
        Evidence::Nothing { counter } => folder.begin(Actor(fresh_actor()), None, counter, lock),
        Evidence::Amnesia { cause, counter } => {
            let aside = folder.set_aside()?;
            let actor = Actor(fresh_actor());
            let Cause::Damaged { store, .. } = cause else {
                return folder.begin(actor, Some(cause), counter, lock);
            };
            let mut opened = folder.begin(actor, Some(cause), counter, lock)?;
            let old = aside.join(format!("store-{store}"));
            let taken = salvage::salvage(&old, opened.store.as_ref());
            let records = taken.map_err(|error| folder.write(error))?;
            opened.start = Start::Amnesia(Cause::Damaged { store, records });
            super::commit(&*opened.store, &opened.watermark).map_err(|e| folder.write(e))?;
            Ok(opened)
        }
    }
}

/// Begins a store for what a backup holds: as after amnesia, and behind the counters that the lost store may have
/// used. The folder is not used by anybody and becomes a data folder by its rename.
///
/// # Errors
/// [`OpenError`].
pub fn restored(
    folder: &Path,
    actor: Actor,
    reserved_end: u64,
    incarnation: u64,
) -> Result<Opened, OpenError> {
    let folder = Folder {
        path: folder.to_owned(),
    };
    let lock = folder.take()?;
    let opened = folder.begin(actor, Some(Cause::Restored), skip(reserved_end), lock)?;
    let raised = opened.watermark.raise_incarnation(incarnation + 1);
    raised.map_err(|error| folder.write(error))?;
    Ok(opened)
}

/// Puts a store aside that its node has no use for any more, and begins an empty one that has nothing to do with it.
/// Does nothing if that was done before: then the folder's store is another. Where the old one is, if it was put aside.
///
/// # Errors
/// [`OpenError`].
pub fn renew(
    folder: &Path,
    old: Actor,
    fresh_actor: impl FnOnce() -> u64,
) -> Result<Option<PathBuf>, OpenError> {
    let folder = Folder {
        path: folder.to_owned(),
    };
    let lock = folder.take()?;
    let state = match watermark::load(&folder.path) {
        Ok(state) if state.actor == old => state,
        Err(LoadError::Io(error)) => return Err(folder.io(error)),
        // Whatever else it is, the next start judges it.
        Ok(_) | Err(_) => return Ok(None),
    };
    let aside = folder.set_aside()?;
    let counter = skip(state.reserved_end);
    folder.begin(Actor(fresh_actor()), None, counter, lock)?;
    Ok(Some(aside))
}

/// What a folder proves.
enum Evidence {
    Nothing { counter: u64 },
    Whole(Box<State>, Arc<dyn Store>),
    Amnesia { cause: Cause, counter: u64 },
}

struct Folder {
    path: PathBuf,
}

impl Folder {
    fn take(&self) -> Result<Arc<FolderLock>, OpenError> {
        std::fs::create_dir_all(&self.path).map_err(|e| self.io(e))?;
        if let Some(parent) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            disk::sync_folder(parent).map_err(|e| self.io(e))?;
        }
        let lock = disk::lock(&self.path).map_err(|e| self.io(e))?;
        lock.map(Arc::new)
            .ok_or_else(|| OpenError::InUse(self.path.clone()))
    }

    fn weigh(&self, lock: &Arc<FolderLock>) -> Result<Evidence, OpenError> {
        let state = match watermark::load(&self.path) {
            Ok(state) => state,
            Err(LoadError::Io(error)) => return Err(self.io(error)),
            Err(LoadError::Damaged(watermark::Damage::Newer(_))) => {
                return Err(OpenError::Version(self.path.clone()));
            }
            Err(LoadError::Missing) if self.remains()?.is_empty() => {
                return Ok(Evidence::Nothing { counter: 0 });
            }
            Err(LoadError::Missing) => return Ok(forgotten(Cause::WatermarkMissing, 0)),
            Err(LoadError::Damaged(damage)) => return Ok(forgotten(Cause::Watermark(damage), 0)),
        };
        let counter = skip(state.reserved_end);
        if state.disowned {
            let (store, records) = (state.actor, 0);
            let cause = match salvage::is_marked(&self.path, store) {
                true => Cause::Damaged { store, records },
                false => Cause::Disowned,
            };
            return Ok(forgotten(cause, counter));
        }
        if !state.ready {
            return Ok(if state.after_amnesia {
                forgotten(Cause::Unfinished, counter)
            } else {
                self.discard(state.actor)?;
                Evidence::Nothing { counter }
            });
        }
        match engine::recover(&self.store(state.actor), state.synced, Some(lock.clone())) {
            Ok(store) => Ok(Evidence::Whole(Box::new(state), store)),
            Err(Refusal::Content(damage)) => Ok(forgotten(Cause::Engine(damage), counter)),
            Err(Refusal::Locked) => Err(OpenError::InUse(self.path.clone())),
            Err(Refusal::Version) => Err(OpenError::Version(self.path.clone())),
            Err(Refusal::Surroundings(error)) => Err(self.io(error)),
        }
    }

    fn restart(
        &self,
        mut state: State,
        store: Arc<dyn Store>,
        lock: Arc<FolderLock>,
    ) -> Result<Opened, OpenError> {
        let counter = skip(state.reserved_end);
        state.reserved_end = counter + BLOCK;
        state.incarnation += 1;
        // Batches beyond the watermark were applied but never synced; they are from now on.
        state.synced = store.sync().map_err(|e| self.write(e))?;
        let watermark = Watermark::create(&self.path, state, Some(lock)).map_err(|e| self.io(e))?;
        Ok(opened(store, watermark, counter, Start::Restarted))
    }

    fn begin(
        &self,
        actor: Actor,
        cause: Option<Cause>,
        counter: u64,
        lock: Arc<FolderLock>,
    ) -> Result<Opened, OpenError> {
        let counter = counter.max(1);
        let state = State::unborn(actor, cause.is_some(), counter + BLOCK);
        let watermark = Watermark::create(&self.path, state, Some(lock.clone()));
        let watermark = watermark.map_err(|e| self.io(e))?;
        let store =
            engine::create(&self.store(actor), Some(lock)).map_err(|refusal| match refusal {
                Refusal::Locked => OpenError::InUse(self.path.clone()),
                Refusal::Version => OpenError::Version(self.path.clone()),
                Refusal::Surroundings(error) => self.io(error),
                Refusal::Content(source) => OpenError::New {
                    path: self.path.clone(),
                    source,
                },
            })?;
        disk::sync_folder(&self.path).map_err(|e| self.io(e))?;
        let first = store.apply(Batch::new()).and_then(|()| store.sync());
        first
            .and_then(|batch| watermark.ready(batch))
            .map_err(|e| self.write(e))?;
        let start = cause.map_or(Start::First, Start::Amnesia);
        Ok(opened(store, watermark, counter, start))
    }

    /// Moves the watermark and all stores into a new `aside-<n>`, the watermark last; where that is.
    fn set_aside(&self) -> Result<PathBuf, OpenError> {
        let mut number = 1;
        while self.aside(number).try_exists().map_err(|e| self.io(e))? {
            number += 1;
            if number > MAX_ASIDE {
                return Err(OpenError::TooManyAside(self.path.clone()));
            }
        }
        let aside = self.aside(number);
        std::fs::create_dir(&aside).map_err(|e| self.io(e))?;
        for remains in self.remains()? {
            if remains.starts_with("store-") {
                std::fs::rename(self.path.join(&remains), aside.join(&remains))
                    .map_err(|e| self.io(e))?;
            }
        }
        // A copy: the old watermark stays in force until the new one is renamed over it.
        match std::fs::copy(self.path.join("watermark"), aside.join("watermark")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(error)),
            _ => {}
        }
        disk::sync_folder(&aside).map_err(|e| self.io(e))?;
        disk::sync_folder(&self.path).map_err(|e| self.io(e))?;
        Ok(aside)
    }

    /// Names of stores, present or set aside.
    fn remains(&self) -> Result<Vec<String>, OpenError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|e| self.io(e))? {
            let name = entry.map_err(|e| self.io(e))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("store-") || name.starts_with("aside-") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes a store that was begun and never written to.
    fn discard(&self, actor: Actor) -> Result<(), OpenError> {
        match std::fs::remove_dir_all(self.store(actor)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io(error)),
            _ => Ok(()),
        }
    }

    fn store(&self, actor: Actor) -> PathBuf {
        self.path.join(format!("store-{actor}"))
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path.join(format!("aside-{number}"))
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn write(&self, source: WriteError) -> OpenError {
        OpenError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

fn forgotten(cause: Cause, counter: u64) -> Evidence {
    Evidence::Amnesia { cause, counter }
}

/// Where counters go on after a start: one block beyond the last reserved one. The last write of the
/// watermark may be lost without a trace, and one write reserves at most one block.
fn skip(reserved_end: u64) -> u64 {
    reserved_end + BLOCK
}

fn opened(store: Arc<dyn Store>, watermark: Watermark, counter: u64, start: Start) -> Opened {
    let watermark = Arc::new(watermark);
    Opened {
        store,
        counters: Counters::new(watermark.clone(), counter),
        actor: watermark.actor(),
        watermark,
        counter,
        start,
    }
}
