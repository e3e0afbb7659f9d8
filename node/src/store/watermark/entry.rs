//! The watermark's format: entries with a CRC each, grouped into numbered writes.
//!
//! An entry: CRC-32C of the rest (4 bytes), payload length (4), number of the write (8), part and parts of
//! that write (2 + 2), kind (1), zeros (3), payload, zeros up to a multiple of 8. All little-endian.
//!
//! Each write is synced before the next begins, so only the last can be torn: missing parts there are
//! what a crash leaves. A missing write or part before it is damage to synced content, hence amnesia. A
//! flipped bit in the last write looks like a tear; what must not be lost to it is written twice (and a
//! start skips a block of counters besides). The last batch number is not: the engine proves more.

use std::collections::BTreeMap;

use bytes::Bytes;
use sibyl_core::id::Actor;

use super::State;

/// 2 knows incarnations; a file of version 1 holds none.
const VERSION: u8 = 2;
const OLDEST: u8 = 1;
const HEADER_BYTES: usize = 24;
const ALIGN: usize = 8;

/// One fact, or one change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Header { actor: Actor, after_amnesia: bool },
    Ready,
    Rebuilt,
    Disowned,
    Reserved(u64),
    Synced(u64),
    Promise(u64, Bytes),
    ForgetBelow(u64),
    Incarnation(u64),
}

/// Synced content of the watermark file is damaged: the node cannot prove what it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Longer than any this build writes.
    #[error("the watermark file has {0} bytes, more than any node writes")]
    TooLong(u64),
    /// The first write, made by a rename, is not whole.
    #[error("the head of the watermark file is damaged")]
    Head,
    /// A write that was followed by another is not whole.
    #[error("write {write} of {last} in the watermark file is damaged")]
    Write {
        /// The damaged write.
        write: u64,
        /// The last write found.
        last: u64,
    },
    /// Written by a newer build.
    #[error(
        "the watermark file has version {0}; this build reads {VERSION}: start the newer build"
    )]
    Newer(u8),
}

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Self::Header { .. } => 1,
            Self::Ready => 2,
            Self::Rebuilt => 3,
            Self::Disowned => 4,
            Self::Reserved(_) => 5,
            Self::Synced(_) => 6,
            Self::Promise(..) => 7,
            Self::ForgetBelow(_) => 8,
            Self::Incarnation(_) => 9,
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Header {
                actor,
                after_amnesia,
            } => {
                let mut bytes = vec![VERSION, u8::from(*after_amnesia)];
                bytes.extend_from_slice(&actor.0.to_le_bytes());
                bytes
            }
            Self::Ready | Self::Rebuilt | Self::Disowned => Vec::new(),
            Self::Reserved(number)
            | Self::Synced(number)
            | Self::ForgetBelow(number)
            | Self::Incarnation(number) => number.to_le_bytes().to_vec(),
            Self::Promise(number, promise) => {
                let mut bytes = number.to_le_bytes().to_vec();
                bytes.extend_from_slice(promise);
                bytes
            }
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Option<Self> {
        let number = || {
            payload
                .first_chunk()
                .map(|bytes| u64::from_le_bytes(*bytes))
        };
        Some(match kind {
            1 => Self::Header {
                actor: Actor(u64::from_le_bytes(*payload.get(2..)?.first_chunk()?)),
                after_amnesia: *payload.get(1)? != 0,
            },
            2 => Self::Ready,
            3 => Self::Rebuilt,
            4 => Self::Disowned,
            5 => Self::Reserved(number()?),
            6 => Self::Synced(number()?),
            7 => Self::Promise(number()?, Bytes::copy_from_slice(payload.get(8..)?)),
            8 => Self::ForgetBelow(number()?),
            9 => Self::Incarnation(number()?),
            _ => return None,
        })
    }

    /// How often a write says it. See the head of this file.
    fn copies(&self) -> usize {
        match self {
            Self::Synced(_) => 1,
            _ => 2,
        }
    }
}

/// The bytes of one write.
pub(super) fn encode(write: u64, entries: &[Entry]) -> Vec<u8> {
    let parts: usize = entries.iter().map(Entry::copies).sum();
    let parts = u16::try_from(parts).expect("a write has a few dozen entries");
    let mut bytes = Vec::new();
    let mut part = 0u16;
    for entry in entries {
        let payload = entry.payload();
        let length = u32::try_from(payload.len()).expect("promises are capped at some MiB");
        for _ in 0..entry.copies() {
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&write.to_le_bytes());
            bytes.extend_from_slice(&part.to_le_bytes());
            bytes.extend_from_slice(&parts.to_le_bytes());
            bytes.extend_from_slice(&[entry.kind(), 0, 0, 0]);
            bytes.extend_from_slice(&payload);
            let checksum = crc32c::crc32c(&bytes[start + 4..]);
            bytes[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            part += 1;
        }
    }
    bytes
}

/// Write 0 of a new file: everything the state says.
pub(super) fn snapshot(state: &State) -> Vec<u8> {
    let mut entries = vec![Entry::Header {
        actor: state.actor,
        after_amnesia: state.after_amnesia,
    }];
    let flags = [
        (state.ready, Entry::Ready),
        (state.rebuilt, Entry::Rebuilt),
        (state.disowned, Entry::Disowned),
    ];
    entries.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, e)| e));
    entries.push(Entry::Reserved(state.reserved_end));
    entries.push(Entry::Synced(state.synced));
    entries.push(Entry::Incarnation(state.incarnation));
    let promises = state.promises.iter();
    entries.extend(promises.map(|(number, bytes)| Entry::Promise(*number, bytes.clone())));
    encode(0, &entries)
}

/// What a fact changes. Numbers only grow, so reading a copy twice is harmless.
pub(super) fn apply(state: &mut State, entry: Entry) {
    match entry {
        Entry::Header {
            actor,
            after_amnesia,
        } => {
            state.actor = actor;
            state.after_amnesia = after_amnesia;
        }
        Entry::Ready => state.ready = true,
        Entry::Rebuilt => state.rebuilt = true,
        Entry::Disowned => state.disowned = true,
        Entry::Reserved(end) => state.reserved_end = state.reserved_end.max(end),
        Entry::Synced(batch) => state.synced = state.synced.max(batch),
        Entry::Incarnation(number) => state.incarnation = state.incarnation.max(number),
        Entry::Promise(number, bytes) => {
            state.promises.insert(number, bytes);
        }
        Entry::ForgetBelow(number) => state.promises.retain(|kept, _| *kept >= number),
    }
}

/// The valid parts found of one write.
#[derive(Default)]
struct Write {
    parts: u16,
    entries: BTreeMap<u16, Entry>,
}

impl Write {
    fn is_whole(&self) -> bool {
        self.entries.len() == usize::from(self.parts)
    }
}

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<State, Damage> {
    let writes = collect(bytes)?;
    let last = writes.keys().next_back().copied().ok_or(Damage::Head)?;
    if !writes.get(&0).is_some_and(Write::is_whole) {
        return Err(Damage::Head);
    }
    // The loop runs over writes found, of which there are fewer than bytes; `missing` ends it early.
    for (expected, (number, write)) in (0..).zip(&writes) {
        if *number != expected || (!write.is_whole() && *number != last) {
            let write = expected;
            return Err(Damage::Write { write, last });
        }
    }
    let mut state = State::unborn(Actor(0), false, 0);
    let entries = writes.into_values().flat_map(|write| write.entries);
    entries.for_each(|(_, entry)| apply(&mut state, entry));
    Ok(state)
}

fn collect(bytes: &[u8]) -> Result<BTreeMap<u64, Write>, Damage> {
    let mut writes = BTreeMap::<u64, Write>::new();
    let mut position = 0;
    while position + HEADER_BYTES <= bytes.len() {
        let Some((length, number, part, parts, entry)) = parse(&bytes[position..])? else {
            // Zeros or damage: go on at the next place where an entry can begin.
            position += ALIGN;
            continue;
        };
        let write = writes.entry(number).or_default();
        write.parts = parts;
        write.entries.insert(part, entry);
        position += length;
    }
    Ok(writes)
}

type Parsed = (usize, u64, u16, u16, Entry);

fn parse(bytes: &[u8]) -> Result<Option<Parsed>, Damage> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let end = HEADER_BYTES + word(4) as usize;
    let Some(covered) = bytes.get(4..end) else {
        return Ok(None);
    };
    if header[20] == 0 || crc32c::crc32c(covered) != word(0) {
        return Ok(None);
    }
    let payload = &bytes[HEADER_BYTES..end];
    let version = payload.first().copied();
    let known = version.is_some_and(|version| (OLDEST..=VERSION).contains(&version));
    if header[20] == 1 && !known {
        return Err(Damage::Newer(payload.first().copied().unwrap_or(0)));
    }
    let number = u64::from(word(8)) | u64::from(word(12)) << 32;
    let length = end.next_multiple_of(ALIGN);
    Ok(Entry::decode(header[20], payload).map(|entry| (length, number, half(16), half(18), entry)))
}
