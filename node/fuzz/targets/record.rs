//! Sealed records of the store: whatever opens under a key is what was sealed for that key.
//!
//! The engine below is not here: this is the seal that every record has in front of its content, and a changed burst of
//! bits must break it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sibyl_core::record::{HEADER_BYTES, seal, unseal, unseal_copy};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, Option<(u16, u8)>)| {
    let (key, bytes, change) = input;
    if let Ok(content) = unseal(&key, &bytes) {
        assert_eq!(seal(&key, content), bytes);
    }
    let mut sealed = seal(&key, &bytes);
    assert_eq!(unseal_copy(&key, &sealed).as_deref(), Ok(&bytes[..]));
    assert_eq!(sealed.len(), HEADER_BYTES + bytes.len());
    if let Some((at, mask)) = change {
        let at = usize::from(at) % sealed.len();
        sealed[at] ^= mask;
        // A checksum of 32 bits finds every burst of up to 32.
        assert_eq!(unseal(&key, &sealed).is_ok(), mask == 0);
    }
});
