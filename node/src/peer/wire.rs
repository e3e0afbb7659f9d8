//! Frames of the core, with deadlines by this process's clock.
//!
//! Their form, and everything that refuses bytes, is `core: frame`; connections are `pump.rs`. What is here is
//! only what the core may not know: what time it is.

use bytes::BytesMut;
use tokio::time::Instant;

pub(super) use sibyl_core::frame::{BadFrame, Frame, Kind, Stamp, decode};

/// A frame to be written, and until when its sender waits.
pub(super) type Out = sibyl_core::frame::Out<Instant>;

/// As [`sibyl_core::frame::encode`], at this moment.
pub(super) fn encode(out: &Out, stamp: Stamp, now: Instant, into: &mut BytesMut) {
    let left = |deadline: &Instant| deadline.saturating_duration_since(now);
    sibyl_core::frame::encode(out, stamp, left, into);
}
