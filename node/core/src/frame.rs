//! Frames: a header of 44 bytes, then optionally 26 bytes of span context, a head and a raw body.
//!
//! All numbers are little-endian. The checksum is CRC-32C over every other byte of the frame. Sizes are
//! checked before anything is allocated, and head and body of a decoded frame are slices of the read
//! buffer. A connection's reader and writer are in the shell; how long a sender still waits is told here.
//!
//! ```text
//!  0 length u32 (of the whole frame)   4 version u8   5 kind u8   6 flags u8   7 zero u8
//!  8 request id u64    16 remaining time u32 (ms)     20 registry number u64
//! 28 session u64       36 head length u32             40 CRC-32C u32
//! ```

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::id::Trace;

#[cfg(test)]
mod tests;

/// The largest head: placement, contexts (16 KiB each) and attributes (1 KiB) fit several times over.
pub const MAX_HEAD_BYTES: usize = 64 << 10;

/// The largest body: a resolver upload of 32 MiB and 2 MiB for what surrounds it; twice an object of 16 MiB.
pub const MAX_BODY_BYTES: usize = 34 << 20;

/// The largest frame: header, span context, head and body at their limits.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + SPAN_BYTES + MAX_HEAD_BYTES + MAX_BODY_BYTES;

/// Bytes before the span context.
pub const HEADER_BYTES: usize = 44;

/// Bytes of a span context: version, trace id, span id, flags.
pub const SPAN_BYTES: usize = 26;

/// Where the checksum stands.
const CRC_AT: usize = 40;

/// Flag: a span context follows the header.
const FLAG_SPAN: u8 = 1;

/// "No deadline" on the wire.
const NO_DEADLINE_MS: u32 = u32::MAX;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The dialler's first frame: who I am, whom I want.
    Hello = 1,
    /// The listener's answer: who I am, the session's number.
    Welcome = 2,
    /// Either side's end of a handshake or session, with a reason.
    Refuse = 3,
    /// A request.
    Request = 4,
    /// Its answer.
    Answer = 5,
    /// A request that was not or could not be answered.
    Error = 6,
    /// Are you there?
    Ping = 7,
    /// Yes.
    Pong = 8,
    /// My identity changed.
    Identity = 9,
    /// The first and only frame of a node that is no member: one question, one answer.
    Knock = 10,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refuse,
            4 => Self::Request,
            5 => Self::Answer,
            6 => Self::Error,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::Identity,
            10 => Self::Knock,
            _ => return None,
        })
    }
}

/// Bytes that are no frame. The connection they came from is closed: its framing cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Its parts do not fit into its length.
    #[error("a frame of {0} bytes is too short for its own header and head")]
    Short(usize),
    /// Over what the connection may send.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    Long {
        /// As stated.
        length: usize,
        /// What may be sent.
        limit: usize,
    },
    /// Over [`MAX_HEAD_BYTES`].
    #[error("a head of {0} bytes is over the limit of {MAX_HEAD_BYTES}")]
    Head(usize),
    /// Over [`MAX_BODY_BYTES`].
    #[error("a body of {0} bytes is over the limit of {MAX_BODY_BYTES}")]
    Body(usize),
    /// Of a newer protocol, or damaged.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Of a newer protocol, or damaged.
    #[error("unknown frame flags {0:#04x}")]
    Flags(u8),
    /// Not the version of the handshake.
    #[error("protocol version {got} on a connection that agreed on {agreed}")]
    Version {
        /// On this frame.
        got: u8,
        /// In the handshake.
        agreed: u8,
    },
    /// Damaged on the way.
    #[error("checksum {got:08x} instead of {want:08x}")]
    Checksum {
        /// As computed.
        got: u32,
        /// As stated.
        want: u32,
    },
    /// Well formed, and out of turn.
    #[error("a {0:?} frame has no place here")]
    Misplaced(Kind),
}

/// A frame to be written.
#[derive(Clone, Debug)]
pub struct Out<D> {
    /// What it is.
    pub kind: Kind,
    /// The request it is or belongs to; unique within a session and direction.
    pub id: u64,
    /// Until when its sender waits, by a clock that this crate does not know; none: for ever.
    pub deadline: Option<D>,
    /// The registry document its sender goes by.
    pub registry: u64,
    /// The span that caused it.
    pub span: Option<Trace>,
    /// At most [`MAX_HEAD_BYTES`].
    pub head: Bytes,
    /// At most [`MAX_BODY_BYTES`].
    pub body: Bytes,
}

impl<D> Out<D> {
    /// A frame without head, body, deadline or span.
    pub fn bare(kind: Kind, id: u64, registry: u64) -> Self {
        Self {
            kind,
            id,
            deadline: None,
            registry,
            span: None,
            head: Bytes::new(),
            body: Bytes::new(),
        }
    }

    /// Its size on the wire, in bytes.
    pub fn size(&self) -> usize {
        let span = if self.span.is_some() { SPAN_BYTES } else { 0 };
        HEADER_BYTES + span + self.head.len() + self.body.len()
    }
}

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The protocol's version.
    pub version: u8,
    /// What it is.
    pub kind: Kind,
    /// The request it is or belongs to.
    pub id: u64,
    /// Milliseconds its sender still wanted to wait; none: for ever.
    pub timeout_ms: Option<u32>,
    /// The registry document its sender goes by.
    pub registry: u64,
    /// The session it was sent in.
    pub session: u64,
    /// The span that caused it.
    pub span: Option<Trace>,
    /// What is asked or answered.
    pub head: Bytes,
    /// The raw value, if there is one.
    pub body: Bytes,
}

/// What a connection puts on every frame it writes and expects on every frame it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The protocol's version.
    pub version: u8,
    /// The session's number.
    pub session: u64,
}

/// Appends header, span context and head to `into`; the body (which the checksum covers) is the caller's to
/// write next. `left` is how long its sender still waits, by the frame's deadline.
///
/// # Panics
/// If head or body are over their limits.
pub fn encode<D>(out: &Out<D>, stamp: Stamp, left: impl Fn(&D) -> Duration, into: &mut BytesMut) {
    let start = into.len();
    let size = u32::try_from(out.size()).expect("heads and bodies within their limits fit 32 bits");
    let head = u32::try_from(out.head.len()).expect("a head is at most 64 KiB");
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&size.to_le_bytes());
    header[4] = stamp.version;
    header[5] = out.kind as u8;
    header[6] = if out.span.is_some() { FLAG_SPAN } else { 0 };
    header[8..16].copy_from_slice(&out.id.to_le_bytes());
    header[16..20].copy_from_slice(&remaining_ms(out.deadline.as_ref().map(left)).to_le_bytes());
    header[20..28].copy_from_slice(&out.registry.to_le_bytes());
    header[28..36].copy_from_slice(&stamp.session.to_le_bytes());
    header[36..40].copy_from_slice(&head.to_le_bytes());
    into.extend_from_slice(&header);
    if let Some(span) = &out.span {
        into.extend_from_slice(&span.0);
    }
    into.extend_from_slice(&out.head);
    let written = &into[start..];
    let crc = checksum(written, &out.body);
    into[start + CRC_AT..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Milliseconds left, rounded up so that a live request never arrives as an expired one.
fn remaining_ms(left: Option<Duration>) -> u32 {
    let Some(left) = left else {
        return NO_DEADLINE_MS;
    };
    u32::try_from(left.as_micros().div_ceil(1000))
        .unwrap_or(NO_DEADLINE_MS)
        .min(NO_DEADLINE_MS - 1)
}

/// CRC-32C of a frame without its own four bytes.
fn checksum(frame: &[u8], rest: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&frame[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &frame[HEADER_BYTES..]);
    crc32c::crc32c_append(crc, rest)
}

/// Takes the first frame out of `buf` if it is there as a whole. `limit` is the longest frame this
/// connection may send. A frame that has only begun makes room for its rest, and no more.
///
/// # Errors
/// [`BadFrame`] for bytes that can be no frame; header fields are judged before the rest has come.
pub fn decode(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, BadFrame> {
    if buf.len() < HEADER_BYTES {
        return Ok(None);
    }
    let header = Header::read(&buf[..HEADER_BYTES], limit)?;
    if buf.len() < header.length {
        buf.reserve(header.length - buf.len());
        return Ok(None);
    }
    let got = checksum(&buf[..header.length], &[]);
    if got != header.crc {
        let want = header.crc;
        return Err(BadFrame::Checksum { got, want });
    }
    let frame = buf.split_to(header.length).freeze();
    Ok(Some(header.frame(frame)))
}

struct Header {
    length: usize,
    version: u8,
    kind: Kind,
    span: bool,
    id: u64,
    timeout_ms: u32,
    registry: u64,
    session: u64,
    head: usize,
    crc: u32,
}

impl Header {
    /// Reads and checks a header; `bytes` holds all of it.
    fn read(mut bytes: &[u8], limit: usize) -> Result<Self, BadFrame> {
        let length = bytes.get_u32_le() as usize;
        let version = bytes.get_u8();
        let kind = bytes.get_u8();
        let flags = bytes.get_u8();
        let zero = bytes.get_u8();
        if length > limit {
            return Err(BadFrame::Long { length, limit });
        }
        if flags & !FLAG_SPAN != 0 || zero != 0 {
            return Err(BadFrame::Flags(flags | zero));
        }
        let header = Self {
            length,
            version,
            kind: Kind::of(kind).ok_or(BadFrame::Kind(kind))?,
            span: flags & FLAG_SPAN != 0,
            id: bytes.get_u64_le(),
            timeout_ms: bytes.get_u32_le(),
            registry: bytes.get_u64_le(),
            session: bytes.get_u64_le(),
            head: bytes.get_u32_le() as usize,
            crc: bytes.get_u32_le(),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BadFrame> {
        if self.head > MAX_HEAD_BYTES {
            return Err(BadFrame::Head(self.head));
        }
        let body = self
            .length
            .checked_sub(self.prefix() + self.head)
            .ok_or(BadFrame::Short(self.length))?;
        if body > MAX_BODY_BYTES {
            return Err(BadFrame::Body(body));
        }
        Ok(())
    }

    /// Bytes before the head.
    fn prefix(&self) -> usize {
        HEADER_BYTES + if self.span { SPAN_BYTES } else { 0 }
    }

    /// Cuts a whole frame, whose length this header states, into its parts.
    fn frame(self, bytes: Bytes) -> Frame {
        let prefix = self.prefix();
        let span = self.span.then(|| {
            let mut span = [0; SPAN_BYTES];
            span.copy_from_slice(&bytes[HEADER_BYTES..prefix]);
            Trace(span)
        });
        Frame {
            version: self.version,
            kind: self.kind,
            id: self.id,
            timeout_ms: (self.timeout_ms != NO_DEADLINE_MS).then_some(self.timeout_ms),
            registry: self.registry,
            session: self.session,
            span,
            head: bytes.slice(prefix..prefix + self.head),
            body: bytes.slice(prefix + self.head..),
        }
    }
}
