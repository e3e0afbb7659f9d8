//! The form of a backup: one file that proves that it is whole.
//!
//! [`MAGIC`], then parts: length of the payload (4 bytes), kind (1), payload, CRC-32C over all of these (4), all
//! little-endian. The first part is the [`Header`], the last the trailer: how many parts there are and the SHA-256
//! of every byte before it. Nothing follows. So a missing end, a missing piece and any flipped bit are found, and
//! an error says at which byte. A backup says what its node was at that moment, for whoever restores it must
//! know what it may not become again: actor, counters, registry number, and the epoch up to which tombstones had
//! been reaped.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Actor, Digest, NodeId};

#[cfg(test)]
mod tests;

/// Begins every backup.
pub const MAGIC: [u8; 8] = *b"SIBYLBK\n";
/// The version this build writes, and the only one it reads.
pub const FORMAT: u16 = 1;
/// In front of a payload: its length and its kind.
pub const PREFIX_BYTES: usize = 5;
/// The longest payload: the largest batch a store takes, for no record in it can be larger.
pub const MAX_PART_BYTES: usize = 256 * 1024 * 1024;

const CHECKSUM_BYTES: usize = 4;
const HEADER: u8 = 1;
const RECORD: u8 = 2;
const UNREADABLE: u8 = 3;
const MODULE: u8 = 4;
const TRAILER: u8 = 5;

/// What was backed up, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster's name.
    pub cluster_id: String,
    /// The hash of its document 2.
    pub lineage: Option<Digest>,
    /// Whose store it was.
    pub node_id: NodeId,
    /// The store: nobody may mint under this name again.
    pub actor: Actor,
    /// Counters below this may have been used by it when the backup was taken.
    pub reserved_end: u64,
    /// The node's incarnation.
    pub incarnation: u64,
    /// The last batch in it: it holds all of the batches up to this one, and nothing of later ones.
    pub batch: u64,
    /// The registry document in it.
    pub registry: u64,
    /// How many members that document names.
    pub members: u32,
    /// The node's clock, in milliseconds since 1970. Shown, never believed.
    pub taken_at_ms: u64,
    /// The reaping epoch the node was in, or was about to enter; 0 if it never was in any.
    pub reap_epoch: u64,
    /// The build that wrote it.
    pub build: String,
}

/// One part between header and trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A record of a space of the store.
    Record {
        /// The number of the space.
        space: u8,
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// A record that the node itself could not read: its other owners hold it, this backup does not.
    Unreadable {
        /// The number of the space.
        space: u8,
        /// Its key.
        key: Bytes,
    },
    /// The bytes of a resolver; their digest names them.
    Module(Bytes),
}

/// How many parts there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Resolvers.
    pub modules: u64,
    /// Bytes of all these parts, without what is around them.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    counts: Counts,
    sum: Digest,
}

/// Why a file is no whole backup. Positions are bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Something else, or its first bytes are damaged.
    #[error("it does not begin as a backup of sibyl does")]
    NoBackup,
    /// A newer build wrote it.
    #[error("it has format {0}, this build reads {FORMAT}: use the build that wrote it")]
    Format(u16),
    /// It ends too early.
    #[error("it ends at byte {at}, inside of a part or without its last one: it is not complete")]
    Truncated {
        /// Where.
        at: u64,
    },
    /// A part is longer than any part is.
    #[error("the part at byte {at} claims {bytes} bytes, more than any has: it is damaged")]
    TooLong {
        /// Where.
        at: u64,
        /// How long it says it is.
        bytes: u64,
    },
    /// A part is not what was written.
    #[error("the part at byte {at} is damaged: its checksum is another")]
    Damaged {
        /// Where.
        at: u64,
    },
    /// A part whose checksum is right and that makes no sense.
    #[error("the part at byte {at} cannot be understood")]
    Malformed {
        /// Where.
        at: u64,
    },
    /// The sum over everything is another: parts were lost, added or exchanged.
    #[error(
        "the SHA-256 of the whole is another than its last part says: parts are missing or changed"
    )]
    Sum,
    /// Something follows the last part.
    #[error("something follows the last part at byte {at}")]
    Trailing {
        /// Where.
        at: u64,
    },
}

/// A header's bytes: the format, then its fields. A restored store keeps them.
pub fn encode_header(header: &Header) -> Vec<u8> {
    let format = FORMAT.to_le_bytes().to_vec();
    postcard::to_extend(header, format).expect("writing to memory cannot fail")
}

/// Makes the bytes of a backup, part by part.
#[derive(Debug)]
pub struct Writer {
    sum: Sha256,
    counts: Counts,
}

impl Writer {
    /// Begins one.
    pub fn begin(header: &Header, out: &mut Vec<u8>) -> Self {
        let mut writer = Self {
            sum: Sha256::new(),
            counts: Counts::default(),
        };
        let start = out.len();
        out.extend(MAGIC);
        writer.sum.update(&out[start..]);
        writer.part(HEADER, &[&encode_header(header)], out);
        writer
    }

    /// Adds a part.
    pub fn put(&mut self, part: &Part, out: &mut Vec<u8>) {
        match part {
            Part::Record { space, key, value } => {
                self.counts.records += 1;
                self.counts.bytes += (key.len() + value.len()) as u64;
                let length = key_length(key);
                self.part(RECORD, &[&[*space], &length, key, value], out);
            }
            Part::Unreadable { space, key } => {
                self.counts.unreadable += 1;
                self.part(UNREADABLE, &[&[*space], key], out);
            }
            Part::Module(bytes) => {
                self.counts.modules += 1;
                self.counts.bytes += bytes.len() as u64;
                self.part(MODULE, &[bytes], out);
            }
        }
    }

    /// Ends it; how much there was.
    pub fn end(mut self, out: &mut Vec<u8>) -> Counts {
        let counts = self.counts;
        let sum = Digest(self.sum.clone().finalize().into());
        let trailer = postcard::to_stdvec(&Trailer { counts, sum });
        let trailer = trailer.expect("writing to memory cannot fail");
        self.part(TRAILER, &[&trailer], out);
        counts
    }

    fn part(&mut self, kind: u8, payload: &[&[u8]], out: &mut Vec<u8>) {
        let start = out.len();
        let length: usize = payload.iter().map(|piece| piece.len()).sum();
        let length = u32::try_from(length).expect("a record is far below 4 GiB");
        out.extend(length.to_le_bytes());
        out.push(kind);
        payload.iter().for_each(|piece| out.extend(*piece));
        let checksum = crc32c::crc32c(&out[start..]);
        out.extend(checksum.to_le_bytes());
        self.sum.update(&out[start..]);
    }
}

fn key_length(key: &Bytes) -> [u8; 2] {
    let length = u16::try_from(key.len()).expect("a key takes 4 KiB at most");
    length.to_le_bytes()
}

/// What a part that was read is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The first one.
    Header(Box<Header>),
    /// One between.
    Part(Part),
    /// The last one: everything before it is whole.
    End(Counts),
}

/// Checks a backup while its bytes are read, in order: [`Reader::magic`], then for each part
/// [`Reader::length`] of its first bytes and [`Reader::part`] of the rest, until [`Read::End`].
#[derive(Debug)]
pub struct Reader {
    sum: Sha256,
    counts: Counts,
    at: u64,
    begun: bool,
    ended: bool,
}

impl Reader {
    /// A reader of the bytes that every backup begins with.
    ///
    /// # Errors
    /// [`Bad::NoBackup`].
    pub fn magic(bytes: &[u8]) -> Result<Self, Bad> {
        if bytes != MAGIC {
            return Err(Bad::NoBackup);
        }
        Ok(Self {
            sum: Sha256::new_with_prefix(bytes),
            counts: Counts::default(),
            at: bytes.len() as u64,
            begun: false,
            ended: false,
        })
    }

    /// How many bytes of a part follow its prefix.
    ///
    /// # Errors
    /// [`Bad::TooLong`], [`Bad::Trailing`].
    pub fn length(&self, prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Bad> {
        let at = self.at;
        if self.ended {
            return Err(Bad::Trailing { at });
        }
        let [a, b, c, d, _] = *prefix;
        let length = u32::from_le_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(length) if length <= MAX_PART_BYTES => Ok(length + CHECKSUM_BYTES),
            _ => Err(Bad::TooLong {
                at,
                bytes: u64::from(length),
            }),
        }
    }

    /// Takes a part: its prefix, and as many bytes as [`Reader::length`] said.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn part(&mut self, prefix: &[u8; PREFIX_BYTES], rest: &Bytes) -> Result<Read, Bad> {
        let at = self.at;
        let Some((payload, checksum)) = rest
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .map(|end| rest.split_at(end))
        else {
            return Err(Bad::Truncated { at });
        };
        let expected = crc32c::crc32c_append(crc32c::crc32c(prefix), payload);
        if expected.to_le_bytes() != checksum {
            return Err(Bad::Damaged { at });
        }
        let payload = rest.slice(..payload.len());
        let before = Digest(self.sum.clone().finalize().into());
        self.sum.update(prefix);
        self.sum.update(rest);
        self.at += (prefix.len() + rest.len()) as u64;
        let read = read(prefix[PREFIX_BYTES - 1], &payload).map_err(|bad| bad.at(at))?;
        match &read {
            Parsed::Header(_) if self.begun => return Err(Bad::Malformed { at }),
            Parsed::Header(_) => self.begun = true,
            _ if !self.begun => return Err(Bad::Malformed { at }),
            Parsed::Part(part) => self.count(part),
            Parsed::Trailer(trailer) if trailer.sum != before || trailer.counts != self.counts => {
                return Err(Bad::Sum);
            }
            Parsed::Trailer(_) => self.ended = true,
        }
        Ok(match read {
            Parsed::Header(header) => Read::Header(header),
            Parsed::Part(part) => Read::Part(part),
            Parsed::Trailer(trailer) => Read::End(trailer.counts),
        })
    }

    /// Where the next part begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    fn count(&mut self, part: &Part) {
        let bytes = match part {
            Part::Record { key, value, .. } => {
                self.counts.records += 1;
                key.len() + value.len()
            }
            Part::Unreadable { .. } => {
                self.counts.unreadable += 1;
                0
            }
            Part::Module(bytes) => {
                self.counts.modules += 1;
                bytes.len()
            }
        };
        self.counts.bytes += bytes as u64;
    }
}

enum Parsed {
    Header(Box<Header>),
    Part(Part),
    Trailer(Trailer),
}

enum Senseless {
    Format(u16),
    Payload,
}

impl Senseless {
    fn at(self, at: u64) -> Bad {
        match self {
            Self::Format(format) => Bad::Format(format),
            Self::Payload => Bad::Malformed { at },
        }
    }
}

fn read(kind: u8, payload: &Bytes) -> Result<Parsed, Senseless> {
    let part = match kind {
        HEADER => {
            let (format, rest) = payload.split_first_chunk().ok_or(Senseless::Payload)?;
            let format = u16::from_le_bytes(*format);
            if format != FORMAT {
                return Err(Senseless::Format(format));
            }
            let header = postcard::from_bytes(rest).map_err(|_| Senseless::Payload)?;
            return Ok(Parsed::Header(Box::new(header)));
        }
        TRAILER => {
            let trailer = postcard::from_bytes(payload).map_err(|_| Senseless::Payload)?;
            return Ok(Parsed::Trailer(trailer));
        }
        RECORD => record(payload),
        UNREADABLE => payload.first().map(|space| Part::Unreadable {
            space: *space,
            key: payload.slice(1..),
        }),
        MODULE => Some(Part::Module(payload.clone())),
        _ => None,
    };
    part.map(Parsed::Part).ok_or(Senseless::Payload)
}

fn record(payload: &Bytes) -> Option<Part> {
    const HEAD: usize = 3;
    let [space, low, high] = *payload.first_chunk::<HEAD>()?;
    let end = HEAD + usize::from(u16::from_le_bytes([low, high]));
    (end <= payload.len()).then(|| Part::Record {
        space,
        key: payload.slice(HEAD..end),
        value: payload.slice(end..),
    })
}
