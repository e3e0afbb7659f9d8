//! Takes a backup of a running node: a picture of its store between two batches, and the modules it names.
//!
//! Nothing is held up: the writer goes on, reads go past it, and what is overwritten meanwhile stays on disk until
//! the picture is dropped. A record that cannot be read is named in the backup and does not end it; leaves of
//! Merkle trees are left out, for they follow from the objects.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sibyl_core::backup::{Counts, Header, Part, Writer};
use sibyl_core::id::NodeId;
use sibyl_core::registry::{BadDocument, Document, Held};

use crate::resolver::Platform;
use crate::store::{Picture, ReadError, Space, Store, Watermark, following};
use crate::tasks::reap::EPOCH;
use crate::tasks::registry::CHOSEN;

/// Records read at a time, at most; a scan's bytes are bounded by the store.
const PAGE: usize = 256;
/// Bytes handed on at a time: some ten packets of a fast network's largest.
const CHUNK_BYTES: usize = 256 * 1024;
/// What is backed up of a store, in this order.
const SPACES: [Space; 3] = [Space::Meta, Space::Objects, Space::Hints];

/// What a backup is taken from.
#[derive(Clone)]
pub struct Source {
    /// This node.
    pub me: NodeId,
    /// Its store.
    pub store: Arc<dyn Store>,
    /// What the store must not forget.
    pub watermark: Arc<Watermark>,
    /// Where resolvers' bytes are.
    pub platform: Platform,
}

/// Why a backup was not taken to its end. What was written of it is no backup: it has no last part.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no registry document yet, so there is nothing to back up.
    #[error("the node is still forming its cluster")]
    Forming,
    /// The document makes no sense.
    #[error(transparent)]
    Registry(#[from] BadDocument),
    /// Whoever wanted it has gone.
    #[error("whoever asked for the backup has gone")]
    Gone,
}

impl Source {
    /// Takes one, and hands its bytes on in pieces until `sink` says no. Blocks.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take(&self, sink: impl FnMut(Bytes) -> bool) -> Result<Counts, TakeError> {
        let picture = self.store.picture()?;
        let until = following(CHOSEN.as_bytes());
        let chosen = picture.scan(Space::Meta, CHOSEN.as_bytes(), &until, 1)?;
        let (_, chosen) = chosen.first().ok_or(TakeError::Forming)?;
        let document = Held::decode(chosen)?.document;
        let reap_epoch = reap_epoch(picture.as_ref())?;
        let mut out = Vec::with_capacity(CHUNK_BYTES);
        let writer = Writer::begin(
            &self.header(picture.as_ref(), &document, reap_epoch),
            &mut out,
        );
        let mut copy = Copy { writer, out, sink };
        for space in SPACES {
            copy.space(picture.as_ref(), space)?;
        }
        drop(picture);
        for digest in document
            .resolvers
            .values()
            .flat_map(|resolver| resolver.versions.keys())
        {
            match self.platform.bytes(digest) {
                Ok(Some(module)) => copy.put(&Part::Module(module))?,
                Ok(None) => {
                    tracing::warn!(%digest, "a resolver is not on this node: it is not in its backup");
                }
                Err(error) => {
                    tracing::warn!(%digest, %error, "a resolver cannot be read: it is not in the backup");
                }
            }
        }
        copy.end()
    }

    /// The watermark is read after the picture was taken: it knows at least every counter that is in it.
    fn header(&self, picture: &dyn Picture, document: &Document, reap_epoch: u64) -> Header {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        Header {
            cluster_id: document.cluster_id.clone(),
            lineage: document.lineage(),
            node_id: self.me.clone(),
            actor: self.watermark.actor(),
            reserved_end: self.watermark.reserved_end(),
            incarnation: self.watermark.incarnation(),
            batch: picture.batch(),
            registry: document.number,
            members: u32::try_from(document.layout.members.len()).unwrap_or(u32::MAX),
            taken_at_ms: u64::try_from(now).unwrap_or(u64::MAX),
            reap_epoch,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The epoch the node was in when the picture was taken, or was about to enter; 0 if it never was in any.
fn reap_epoch(picture: &dyn Picture) -> Result<u64, ReadError> {
    let until = following(EPOCH.as_bytes());
    let kept = picture.scan(Space::Meta, EPOCH.as_bytes(), &until, 1)?;
    let bytes = kept
        .first()
        .and_then(|(_, value)| value.as_ref().try_into().ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

struct Copy<S> {
    writer: Writer,
    out: Vec<u8>,
    sink: S,
}

impl<S: FnMut(Bytes) -> bool> Copy<S> {
    /// Ends: every turn begins behind the last record of the one before.
    fn space(&mut self, picture: &dyn Picture, space: Space) -> Result<(), TakeError> {
        let mut from = Vec::new();
        loop {
            let (records, damaged) = match picture.scan(space, &from, b"", PAGE) {
                Ok(records) => (records, None),
                Err(ReadError::Corrupt { key, .. }) => {
                    let before = picture.scan(space, &from, &key, PAGE)?;
                    let damaged = before.is_empty().then_some(key);
                    (before, damaged)
                }
                Err(failed) => return Err(failed.into()),
            };
            let last = records.last().map(|(key, _)| key).or(damaged.as_ref());
            let Some(last) = last else {
                return Ok(());
            };
            from = following(last);
            for (key, value) in records {
                let space = space as u8;
                self.put(&Part::Record { space, key, value })?;
            }
            if let Some(key) = damaged {
                tracing::warn!(?space, "a record cannot be read: it is not in the backup");
                let space = space as u8;
                self.put(&Part::Unreadable { space, key })?;
            }
        }
    }

    fn put(&mut self, part: &Part) -> Result<(), TakeError> {
        self.writer.put(part, &mut self.out);
        if self.out.len() >= CHUNK_BYTES {
            return self.hand_on();
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), TakeError> {
        let piece = std::mem::replace(&mut self.out, Vec::with_capacity(CHUNK_BYTES));
        match (self.sink)(piece.into()) {
            true => Ok(()),
            false => Err(TakeError::Gone),
        }
    }

    fn end(self) -> Result<Counts, TakeError> {
        let Self {
            writer,
            mut out,
            mut sink,
        } = self;
        let counts = writer.end(&mut out);
        match sink(out.into()) {
            true => Ok(counts),
            false => Err(TakeError::Gone),
        }
    }
}
