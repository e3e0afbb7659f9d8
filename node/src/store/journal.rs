//! Reads the engine's journals before the engine does, and says what the engine would not.
//!
//! fjall 3.1 takes any undecodable entry for a torn tail and silently drops what follows it, refuses a
//! journal whose unsynced tail happens to be torn behind an end marker, and keeps the sequence number of
//! a batch outside its checksum, so that one flipped bit brings an old value back. Each of our batches
//! ends with a marker: its number and a checksum over the whole batch. With it this file finds the end of
//! the intact prefix, gaps between batches, and what every journalled key must read as after recovery.
//!
//! It knows the journal's layout (disk format V3, uncompressed) and nothing else of fjall.

use sibyl_core::record;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::batch::Batch;

/// The engine's own key, in no space: the last batch.
pub(super) const MARKER_KEY: &[u8] = b"\0batch";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";
const VALUE: u8 = 0;
const TOMBSTONE: u8 = 1;

/// The last record of every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The batch's number, from 1.
    pub(super) number: u64,
    /// A checksum over all changes before the marker, as [`chain`] computes it.
    pub(super) checksum: u32,
}

impl Marker {
    pub(super) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        let content: &[u8; 12] = content.try_into().ok()?;
        let (number, checksum) = content.split_first_chunk::<8>()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            checksum: u32::from_le_bytes(*checksum.first_chunk()?),
        })
    }
}

/// Continues a batch's checksum over one change. Of a value its seal is enough: that covers the rest.
pub(super) fn chain(checksum: u32, placed_key: &[u8], sealed: Option<&[u8]>) -> u32 {
    let length = u32::try_from(placed_key.len()).unwrap_or(u32::MAX);
    let with_key = crc32c::crc32c_append(
        crc32c::crc32c_append(checksum, &length.to_le_bytes()),
        placed_key,
    );
    let seal = sealed.and_then(|sealed| sealed.get(..record::HEADER_BYTES));
    crc32c::crc32c_append(with_key, seal.unwrap_or(&[0]))
}

/// What the journals hold.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// The last intact batch, if there is any.
    pub(super) last: Option<u64>,
    /// Per key the checksum of its last value, or that it was deleted. Bounded by the journals' size.
    pub(super) latest: BTreeMap<Vec<u8>, Option<u32>>,
    /// The journal being written, and the end of its intact prefix.
    pub(super) active: Option<(PathBuf, u64)>,
}

/// Why journals cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Batches are missing between two that are there.
    #[error("the journal goes from batch {before} to batch {found}")]
    Gap {
        /// The last batch before the gap.
        before: u64,
        /// The first one after it.
        found: u64,
    },
    /// The operating system refuses.
    #[error("a journal cannot be read")]
    Io(#[from] io::Error),
}

/// Reads all journals of an engine's folder, oldest first.
pub(super) fn inspect(folder: &Path) -> Result<Journals, JournalError> {
    let mut found = Journals::default();
    for path in in_order(folder)? {
        let mut reader = Reader::open(&path)?;
        let mut intact = 0;
        while let Some((number, changes)) = reader.batch()? {
            if let Some(before) = found.last.filter(|last| last + 1 != number) {
                return Err(JournalError::Gap {
                    before,
                    found: number,
                });
            }
            found.last = Some(number);
            found.latest.extend(changes);
            intact = reader.position;
        }
        found.active = Some((path, intact));
    }
    Ok(found)
}

/// Cuts a torn tail off the journal being written, so that the engine opens it.
pub(super) fn cut(journals: &Journals) -> io::Result<()> {
    let Some((path, intact)) = &journals.active else {
        return Ok(());
    };
    let file = File::options().write(true).open(path)?;
    if file.metadata()?.len() > *intact {
        file.set_len(*intact)?;
        file.sync_all()?;
    }
    Ok(())
}

fn in_order(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str());
        let id = id.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        journals.extend(id.map(|id| (id, path)));
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

type Changes = Vec<(Vec<u8>, Option<u32>)>;
type Item = (Vec<u8>, Option<Vec<u8>>);

struct Reader {
    file: BufReader<File>,
    position: u64,
    remaining: u64,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            remaining: file.metadata()?.len(),
            position: 0,
            file: BufReader::with_capacity(256 * 1024, file),
        })
    }

    /// The next intact batch. `None` at the end, in preallocated zeros, and at any damage.
    fn batch(&mut self) -> io::Result<Option<(u64, Changes)>> {
        let Some([START, head @ ..]) = self.array::<13>()? else {
            return Ok(None);
        };
        let count = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if count == 0 || count > Batch::MAX_CHANGES + 1 {
            return Ok(None);
        }
        let mut changes = Vec::new();
        let mut checksum = 0;
        for _ in 1..count {
            let Some((key, sealed)) = self.item()? else {
                return Ok(None);
            };
            checksum = chain(checksum, &key, sealed.as_deref());
            let fingerprint = sealed.as_deref().map(fingerprint);
            changes.push((key, fingerprint));
        }
        let Some((key, Some(sealed))) = self.item()? else {
            return Ok(None);
        };
        let content = record::unseal(&key, &sealed).ok();
        let marker = content.and_then(Marker::decode);
        let ended = self
            .array::<13>()?
            .is_some_and(|end| end[0] == END && end[9..] == TRAILER);
        match marker {
            Some(marker) if ended && key == MARKER_KEY && marker.checksum == checksum => {
                changes.push((key, Some(fingerprint(&sealed))));
                Ok(Some((marker.number, changes)))
            }
            _ => Ok(None),
        }
    }

    /// Key and sealed value; a value that fails its seal ends the batch.
    fn item(&mut self) -> io::Result<Option<Item>> {
        let Some([ITEM, head @ ..]) = self.array::<21>()? else {
            return Ok(None);
        };
        // Kind, compression (0: none), keyspace (8), key length (2), value length (4), stored length (4).
        let (kind, compression) = (head[0], head[1]);
        let key_bytes = u16::from_le_bytes([head[10], head[11]]);
        let value_bytes = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let Some(key) = self.bytes(u64::from(key_bytes))? else {
            return Ok(None);
        };
        let Some(value) = self.bytes(u64::from(value_bytes))? else {
            return Ok(None);
        };
        let stored_alike = compression == 0 && head[12..16] == head[16..20];
        Ok(match kind {
            VALUE if stored_alike && record::unseal(&key, &value).is_ok() => {
                Some((key, Some(value)))
            }
            TOMBSTONE if stored_alike && value.is_empty() => Some((key, None)),
            _ => None,
        })
    }

    fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.remaining < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.advance(N as u64);
        Ok(Some(bytes))
    }

    fn bytes(&mut self, count: u64) -> io::Result<Option<Vec<u8>>> {
        if self.remaining < count {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(count).expect("lengths are 32 bits")];
        self.file.read_exact(&mut bytes)?;
        self.advance(count);
        Ok(Some(bytes))
    }

    fn advance(&mut self, count: u64) {
        self.position += count;
        self.remaining -= count;
    }
}

/// What tells one sealed record of a key from another: the checksum in its seal.
pub(super) fn fingerprint(sealed: &[u8]) -> u32 {
    sealed
        .get(1..record::HEADER_BYTES)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
