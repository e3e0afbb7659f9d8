//! Frames: any bytes in any pieces, and frames whose length and checksum are right around hostile contents.
//!
//! A fuzzer would not guess a checksum, so every second input gets the right one.
//! The connection around them is not here: this is what its reader gives to the decoder, piece by piece.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sibyl_core::frame::{HEADER_BYTES, Kind, Out, Stamp, decode, encode};

/// What the connection may send: small, so that limits are met.
const LIMIT: usize = 4096;

fn stamp(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).expect("inputs are small");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    let crc = crc32c::crc32c_append(crc, &bytes[HEADER_BYTES..]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fuzz_target!(|input: (bool, u8, Vec<u8>)| {
    let (stamped, step, mut bytes) = input;
    if stamped && bytes.len() >= HEADER_BYTES {
        stamp(&mut bytes);
    }
    let mut buf = BytesMut::new();
    for piece in bytes.chunks(usize::from(step).max(1)) {
        buf.extend_from_slice(piece);
        loop {
            match decode(&mut buf, LIMIT) {
                Ok(Some(frame)) => {
                    assert!(frame.head.len() + frame.body.len() <= LIMIT);
                    let deadline = frame.timeout_ms.map(u64::from);
                    let out = Out {
                        deadline,
                        span: frame.span,
                        head: frame.head.clone(),
                        body: frame.body.clone(),
                        ..Out::bare(frame.kind, frame.id, frame.registry)
                    };
                    check_written(&out, &frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(
            buf.capacity() <= 4 * LIMIT.max(bytes.len()),
            "a bounded buffer"
        );
    }
});

/// What is read of a frame that is written again is the same frame.
fn check_written(out: &Out<u64>, frame: &sibyl_core::frame::Frame) {
    let stamp = Stamp {
        version: frame.version,
        session: frame.session,
    };
    let mut again = BytesMut::new();
    encode(
        out,
        stamp,
        |ms| std::time::Duration::from_millis(*ms),
        &mut again,
    );
    again.extend_from_slice(&out.body);
    let read = decode(&mut again, LIMIT).expect("it was written here");
    assert_eq!(read.as_ref(), Some(frame));
    assert!(frame.kind as u8 >= Kind::Hello as u8);
}
