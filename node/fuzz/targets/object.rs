//! Objects from a disk or a peer: whatever can be read keeps every law when it is joined.
//!
//! Golden files are the first inputs; the checksum is put right, which a fuzzer would not guess. That hostile objects
//! can be joined at all is the point: peers check checksums and not intentions.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sibyl_core::codec::{decode, encode};
use sibyl_core::object::Object;

/// Between two objects.
const MARK: &[u8] = b"joined with";

/// Reads an object whose last four bytes were made its checksum: a fuzzer would not guess it.
fn read(mut bytes: Vec<u8>) -> Option<Object> {
    let end = bytes.len().checked_sub(4)?;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    decode(&Bytes::from(bytes)).ok()
}

fn joined(left: &Object, right: &Object) -> Object {
    let mut both = left.clone();
    both.join(right);
    both
}

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(&Bytes::copy_from_slice(bytes));
    // Golden files are inputs as they are; a second object stands behind this mark.
    let mark = bytes.windows(MARK.len()).position(|window| window == MARK);
    let (first, second) = bytes.split_at(mark.unwrap_or(bytes.len()));
    let Some(left) = read(first.to_vec()) else {
        return;
    };
    assert_eq!(decode(&encode(&left)).as_ref(), Ok(&left));
    assert_eq!(joined(&left, &left), left, "idempotent");
    let second = second.strip_prefix(MARK).unwrap_or_default();
    let Some(right) = read(second.to_vec()) else {
        return;
    };
    let both = joined(&left, &right);
    assert_eq!(decode(&encode(&both)).as_ref(), Ok(&both));
    assert_eq!(joined(&both, &left), both);
    assert_eq!(joined(&both, &right), both);
});
