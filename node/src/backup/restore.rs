//! Makes a new store of a backup: another actor, behind the lost one's counters, without its promises.
//!
//! The whole file is checked before the first byte is written. The store is made beside its place and renamed at
//! the end, so a folder holds a whole restored store or none. Of the node's own records only the registry's
//! document is taken over, with what says that this node must be refilled: progress of an earlier refill,
//! counts and trees follow from the objects. Objects and hints come as they were; they join with what the others
//! hold, and until enough of those were asked nothing here answers or mints.
//!
//! A key that was deleted since is deleted at its other owners, and stays so; one that was reaped since is unknown
//! to them. So nothing of a restored store is shown to anybody before its partition was held against the epoch of
//! its last reap (`tasks/reap`): the epoch of the backup stays in the store for that, under [`IMAGE`].

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sibyl_core::backup::{Counts, Header, Part};
use sibyl_core::id::Actor;
use sibyl_core::registry::{BadDocument, ChangeError, Held};

use super::{NotWhole, Parts, UNFINISHED, verify};
use crate::resolver;
use crate::store::{self, Batch, IMAGE, OpenError, Opened, Space, WriteError};
use crate::tasks::reap::{EPOCH, FLOOR};
use crate::tasks::registry::{CHOSEN, REBUILDING};

/// Where a restored store says what it was restored from.
pub const ORIGIN: &str = "restored";

/// A restored store.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What it was restored from.
    pub header: Header,
    /// What was in there.
    pub counts: Counts,
    /// The new store.
    pub actor: Actor,
    /// Whether the node is the only one of its cluster: it serves at once.
    pub alone: bool,
}

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is not whole; nothing was written.
    #[error(transparent)]
    NotWhole(#[from] NotWhole),
    /// Something is there already; nothing was written.
    #[error("{} is not empty: a backup is restored into a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The document in it makes no sense.
    #[error("the registry document in the backup cannot be used: {0}")]
    Registry(#[from] BadDocument),
    /// The document in it does not name the node.
    #[error("the registry document in the backup does not fit: {0}")]
    Foreign(#[from] ChangeError),
    /// There is no document in it.
    #[error("the backup holds no registry document")]
    NoRegistry,
    /// A space this build does not know.
    #[error("the backup holds records of space {0}, which this build does not know")]
    Space(u8),
    /// The new store does not begin.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store does not take what was in the backup.
    #[error("the new store cannot be written")]
    Write(#[from] WriteError),
    /// The operating system refuses.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Restores a backup into a data folder that is empty or not there yet.
///
/// # Errors
/// [`RestoreError`]. If something was written, the folder holds [`UNFINISHED`], and no node starts on it.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Restored, RestoreError> {
    let (header, counts) = verify(file)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { path, source }
    };
    std::fs::create_dir_all(data_dir).map_err(failed(data_dir))?;
    let mut there = std::fs::read_dir(data_dir).map_err(failed(data_dir))?;
    if there.next().is_some() {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let building = data_dir.join(UNFINISHED);
    let actor = Actor(rand::random());
    let opened = store::restored(&building, actor, header.reserved_end, header.incarnation)?;
    let mut fill = Fill {
        header: &header,
        store: &opened,
        modules: data_dir.join("resolvers"),
        batch: Batch::new(),
        chosen: None,
    };
    let mut parts = Parts::open(file)?;
    while let Some(part) = parts.part()? {
        fill.take(part)?;
    }
    let alone = fill.end()?;
    drop(opened);
    let place = data_dir.join("data");
    std::fs::rename(&building, &place).map_err(failed(&place))?;
    store::disk::sync_folder(data_dir).map_err(failed(data_dir))?;
    Ok(Restored {
        header,
        counts,
        actor,
        alone,
    })
}

struct Fill<'a> {
    header: &'a Header,
    store: &'a Opened,
    modules: PathBuf,
    batch: Batch,
    chosen: Option<Bytes>,
}

impl Fill<'_> {
    fn take(&mut self, part: Part) -> Result<(), RestoreError> {
        match part {
            Part::Record { space, key, value } => match Space::of(space) {
                Some(space @ (Space::Objects | Space::Hints)) => {
                    self.batch.put(space, &key, value);
                }
                Some(Space::Meta) if key == CHOSEN.as_bytes() => self.chosen = Some(value),
                // What was aside then is no part of what this node knew.
                Some(Space::Meta | Space::Leaves | Space::Aside) => {}
                None => return Err(RestoreError::Space(space)),
            },
            // Absent here: its other owners hold it.
            Part::Unreadable { .. } => {}
            Part::Module(bytes) => {
                let kept = resolver::keep_offline(&self.modules, &bytes);
                kept.map_err(|source| RestoreError::Io {
                    path: self.modules.clone(),
                    source,
                })?;
            }
        }
        if self.batch.is_full() {
            self.store.store.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    /// Ends with what makes it a store of this node; answers whether it is the only one of its cluster.
    fn end(mut self) -> Result<bool, RestoreError> {
        let chosen = self.chosen.take().ok_or(RestoreError::NoRegistry)?;
        let held = Held::decode(&chosen)?;
        let alone = held.restored_alone(&self.header.node_id, self.store.actor)?;
        let origin = sibyl_core::backup::encode_header(self.header);
        self.batch.put(Space::Meta, ORIGIN.as_bytes(), origin);
        match &alone {
            Some(held) => {
                let document = held.encode();
                self.batch.put(Space::Meta, CHOSEN.as_bytes(), document);
                // What it reaped before the backup was taken it does not remember one by one.
                let epoch = self.header.reap_epoch.to_le_bytes().to_vec();
                self.batch.put(Space::Meta, EPOCH.as_bytes(), epoch.clone());
                self.batch.put(Space::Meta, FLOOR.as_bytes(), epoch);
            }
            None => {
                self.batch.put(Space::Meta, CHOSEN.as_bytes(), chosen);
                let mark = Bytes::from_static(b"1");
                self.batch.put(Space::Meta, REBUILDING.as_bytes(), mark);
                // What was reaped since must not come back with it.
                let epoch = self.header.reap_epoch.to_le_bytes().to_vec();
                self.batch.put(Space::Meta, IMAGE.as_bytes(), epoch);
            }
        }
        self.store.store.apply(self.batch)?;
        store::commit(&*self.store.store, &self.store.watermark)?;
        if alone.is_some() {
            // Nobody else holds anything: there is nothing to refill from.
            self.store.watermark.rebuilt()?;
        }
        Ok(alone.is_some())
    }
}
