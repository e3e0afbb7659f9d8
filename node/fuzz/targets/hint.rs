//! Hint records: what can be read is read again as it was written, and takes what comes after.
//!
//! The object inside has a checksum, which every second input gets right. Who keeps hints, and for how long, is not
//! looked at here.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sibyl_core::hint::{Hint, split};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (stamped, mut bytes) = input;
    if stamped && let Some(end) = bytes.len().checked_sub(4) {
        // The object inside begins behind version, length and head, and ends with its checksum.
        let begin = bytes.get(1..5).map_or(0, |length| {
            let length: [u8; 4] = length.try_into().expect("four bytes");
            5_usize.saturating_add(u32::from_le_bytes(length) as usize)
        });
        if begin <= end {
            let crc = crc32c::crc32c(&bytes[begin..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let bytes = Bytes::from(bytes);
    let _ = split(&bytes);
    let Ok(mut hint) = Hint::decode(&bytes) else {
        return;
    };
    assert_eq!(Hint::decode(&hint.encode()).as_ref(), Ok(&hint));
    let targets: Vec<_> = hint.targets.keys().cloned().collect();
    let all = hint.object.context().clone();
    for target in &targets {
        assert!(
            hint.settle(target, &all),
            "who has every dot waits for none"
        );
    }
    assert!(hint.is_settled());
});
