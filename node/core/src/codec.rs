//! The one form objects have on disk and between nodes, and the one form of a registry or message head.
//!
//! `version (1) | length of the head (4, little endian) | head (postcard) | values | CRC-32C (4)`. Values
//! stand raw behind the head, so that decoding slices them out of the buffer it was given and copies none.
//! The form is canonical: equal objects have equal bytes, so a digest of the bytes is a digest of the
//! object, and what differs between replicas has no place in it. An object with receipts is of version 2, which
//! has them at the end of the head; one without stays of version 1. Hostile bytes give an error, never a panic
//! or an allocation larger than the input. Golden files under `golden/` hold every version ever written.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::id::{Actor, Digest, Trace, WriteId};
use crate::object::{Content, Fold, Object, Receipt, Sibling};

#[cfg(test)]
mod tests;

/// The version of an object without receipts.
const PLAIN: u8 = 1;
/// The version of one with receipts, which stand behind the rest of the head.
const REMEMBERING: u8 = 2;
/// Version byte, head length and checksum.
const FRAME_BYTES: usize = 1 + 4 + 4;

/// Bytes that are not an object this code can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the form needs.
    #[error("{0} bytes are too few for an object")]
    Short(usize),
    /// A version of a newer release, or damage.
    #[error("version {0} is unknown here")]
    Version(u8),
    /// The checksum does not fit the bytes.
    #[error("the checksum does not match")]
    Checksum,
    /// The head is not what the version says.
    #[error("the head cannot be read")]
    Head,
    /// The lengths of the values do not add up to the bytes behind the head.
    #[error("the values are longer or shorter than the head says")]
    Values,
    /// The parts do not make an object: dots twice, out of order or outside the context.
    #[error("the parts break an object's invariants")]
    Unsound,
}

#[derive(Deserialize)]
struct Head {
    context: Context,
    siblings: Vec<SiblingHead>,
}

#[derive(Deserialize)]
struct SiblingHead {
    actor: Actor,
    group: u64,
    undone: bool,
    counters: Vec<u64>,
    /// The value's length; `None` is a tombstone.
    value: Option<u32>,
    content_type: String,
    attributes: BTreeMap<String, String>,
    modified_at: u64,
    write_id: WriteId,
    trace: Option<Trace>,
    fold: Option<Fold>,
}

/// A [`Head`] about to be written: the same fields in the same order, borrowed.
#[derive(Serialize)]
struct HeadOf<'a> {
    context: &'a Context,
    siblings: Vec<SiblingHeadOf<'a>>,
}

#[derive(Serialize)]
struct SiblingHeadOf<'a> {
    actor: Actor,
    group: u64,
    undone: bool,
    counters: &'a [u64],
    value: Option<u32>,
    content_type: &'a str,
    attributes: &'a BTreeMap<String, String>,
    modified_at: u64,
    write_id: WriteId,
    trace: Option<Trace>,
    fold: Option<&'a Fold>,
}

/// Room for the head of a plain object; a longer one makes the buffer grow.
const USUAL_HEAD_BYTES: usize = 192;

/// Writes an object in its canonical form.
///
/// # Panics
/// If a value is 4 GiB or longer, which minting never lets in.
pub fn encode(object: &Object) -> Bytes {
    let head = HeadOf {
        context: object.context(),
        siblings: object.siblings().iter().map(head_of).collect(),
    };
    let room = FRAME_BYTES + USUAL_HEAD_BYTES * head.siblings.len().max(1) + object.value_bytes();
    let mut bytes = Vec::with_capacity(room);
    let receipts = object.receipts();
    bytes.push(if receipts.is_empty() {
        PLAIN
    } else {
        REMEMBERING
    });
    bytes.extend_from_slice(&[0; 4]);
    let start = bytes.len();
    let written = if receipts.is_empty() {
        postcard::serialize_with_flavor(&head, Buffer(bytes))
    } else {
        postcard::serialize_with_flavor(&(&head, receipts), Buffer(bytes))
    };
    let mut bytes = written.expect("a head of integers, strings and maps always serialises");
    let length = u32::try_from(bytes.len() - start)
        .expect("a head is far below 4 GiB: minting caps contexts");
    bytes[start - 4..start].copy_from_slice(&length.to_le_bytes());
    for value in object
        .siblings()
        .iter()
        .filter_map(|sibling| sibling.content.value.as_ref())
    {
        bytes.extend_from_slice(value);
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.into()
}

/// Where postcard writes: at the end of a buffer that has room.
struct Buffer(Vec<u8>);

impl postcard::ser_flavors::Flavor for Buffer {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

fn head_of(sibling: &Sibling) -> SiblingHeadOf<'_> {
    let Content {
        value,
        content_type,
        attributes,
        modified_at,
        write_id,
        trace,
    } = &sibling.content;
    let length = |value: &Bytes| u32::try_from(value.len()).expect("a value is far below 4 GiB");
    SiblingHeadOf {
        actor: sibling.actor,
        group: sibling.group,
        undone: sibling.undone,
        counters: &sibling.counters,
        value: value.as_ref().map(length),
        content_type,
        attributes,
        modified_at: *modified_at,
        write_id: *write_id,
        trace: *trace,
        fold: sibling.fold.as_ref(),
    }
}

/// Reads an object; its values are slices of `bytes`.
///
/// # Errors
/// [`Malformed`] says what is wrong with the bytes.
pub fn decode(bytes: &Bytes) -> Result<Object, Malformed> {
    let (mut body, checksum) = match bytes.len().checked_sub(4) {
        Some(end) if bytes.len() >= FRAME_BYTES => {
            (bytes.slice(..end), bytes.slice(end..).get_u32_le())
        }
        _ => return Err(Malformed::Short(bytes.len())),
    };
    let version = body[0];
    if !matches!(version, PLAIN | REMEMBERING) {
        return Err(Malformed::Version(version));
    }
    if crc32c::crc32c(&body) != checksum {
        return Err(Malformed::Checksum);
    }
    body.advance(1);
    let length = body.get_u32_le() as usize;
    if length > body.len() {
        return Err(Malformed::Head);
    }
    let head = body.split_to(length);
    let (head, receipts) = head_and_receipts(version, &head)?;
    let siblings = head
        .siblings
        .into_iter()
        .map(|sibling| sibling_of(sibling, &mut body));
    let siblings = siblings.collect::<Result<Vec<_>, _>>()?;
    if !body.is_empty() {
        return Err(Malformed::Values);
    }
    let object = Object::try_from_parts(head.context, siblings);
    let object = object.and_then(|object| object.with_receipts(receipts));
    object.ok_or(Malformed::Unsound)
}

fn head_and_receipts(version: u8, bytes: &[u8]) -> Result<(Head, Vec<Receipt>), Malformed> {
    let (head, rest): (Head, &[u8]) =
        postcard::take_from_bytes(bytes).map_err(|_| Malformed::Head)?;
    if version == PLAIN {
        return match rest {
            [] => Ok((head, Vec::new())),
            _ => Err(Malformed::Head),
        };
    }
    match postcard::take_from_bytes::<Vec<Receipt>>(rest) {
        // Without any it would be the other version: equal objects have equal bytes.
        Ok((receipts, [])) if !receipts.is_empty() => Ok((head, receipts)),
        _ => Err(Malformed::Head),
    }
}

fn sibling_of(head: SiblingHead, values: &mut Bytes) -> Result<Sibling, Malformed> {
    let value = match head.value {
        Some(length) if length as usize > values.len() => return Err(Malformed::Values),
        Some(length) => Some(values.split_to(length as usize)),
        None => None,
    };
    Ok(Sibling {
        actor: head.actor,
        group: head.group,
        undone: head.undone,
        counters: head.counters,
        content: Content {
            value,
            content_type: head.content_type,
            attributes: head.attributes,
            modified_at: head.modified_at,
            write_id: head.write_id,
            trace: head.trace,
        },
        fold: head.fold,
    })
}

/// The digest of an object: SHA-256 of its canonical form.
pub fn digest(object: &Object) -> Digest {
    Digest::of(&encode(object))
}

/// How many siblings an encoded object has: of bytes that were verified when they were read, so that only
/// the head is looked at.
///
/// # Errors
/// [`Malformed`] says what is wrong with the bytes.
pub fn sibling_count(bytes: &[u8]) -> Result<u32, Malformed> {
    let Some(([version, length @ ..], rest)) = bytes.split_first_chunk::<5>() else {
        return Err(Malformed::Short(bytes.len()));
    };
    if !matches!(*version, PLAIN | REMEMBERING) {
        return Err(Malformed::Version(*version));
    }
    let length = u32::from_le_bytes(*length) as usize;
    let head = rest.get(..length).ok_or(Malformed::Head)?;
    let head: Head = postcard::from_bytes(head).map_err(|_| Malformed::Head)?;
    Ok(u32::try_from(head.siblings.len()).unwrap_or(u32::MAX))
}
