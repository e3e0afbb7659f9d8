//! The seal of one record: a version byte and a CRC-32C over key and content, in front of the content.
//!
//! The engine has checksums of its own, but not over everything: a flipped sequence number brings an old
//! version back, and a block written to the wrong place is a valid block. The seal covers the key with its
//! space, so a record found under another key fails too. A content is never handed out unverified.

use bytes::Bytes;

/// The version this build writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// Bytes in front of the content: version and checksum.
pub const HEADER_BYTES: usize = 5;

/// A record that is not what was written under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// Shorter than a header.
    #[error("{0} bytes are too short for a record")]
    Short(usize),
    /// Written by a newer build, or damaged.
    #[error("record version {0} is unknown to this build")]
    Version(u8),
    /// The checksum does not match key and content.
    #[error("the checksum is {found:08x}, key and content give {expected:08x}")]
    Checksum {
        /// As stored.
        found: u32,
        /// As computed.
        expected: u32,
    },
}

fn checksum(placed_key: &[u8], content: &[u8]) -> u32 {
    let length = u32::try_from(placed_key.len()).unwrap_or(u32::MAX);
    let head = crc32c::crc32c_append(u32::from(VERSION), &length.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(head, placed_key), content)
}

/// Seals a content for the key it is stored under (with the space's prefix).
pub fn seal(placed_key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER_BYTES + content.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&checksum(placed_key, content).to_le_bytes());
    sealed.extend_from_slice(content);
    sealed
}

/// The content of a sealed record, if it is what was written under this key.
///
/// # Errors
/// [`Unsealed`] says what is wrong; nothing of the content is handed out.
pub fn unseal<'a>(placed_key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Unsealed> {
    let Some((header, content)) = sealed.split_at_checked(HEADER_BYTES) else {
        return Err(Unsealed::Short(sealed.len()));
    };
    if header[0] != VERSION {
        return Err(Unsealed::Version(header[0]));
    }
    let found = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    let expected = checksum(placed_key, content);
    if found == expected {
        Ok(content)
    } else {
        Err(Unsealed::Checksum { found, expected })
    }
}

/// As [`unseal`], copied once into shared bytes.
///
/// # Errors
/// As [`unseal`].
pub fn unseal_copy(placed_key: &[u8], sealed: &[u8]) -> Result<Bytes, Unsealed> {
    unseal(placed_key, sealed).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_under_its_own_key_only() {
        let sealed = seal(b"\x01key", b"content");
        assert_eq!(unseal(b"\x01key", &sealed), Ok(&b"content"[..]));
        assert!(unseal(b"\x02key", &sealed).is_err());
        assert!(unseal(b"\x01ke", &sealed).is_err());
        assert!(unseal(b"\x01keyc", &seal(b"\x01key", b"content")).is_err());
        assert_eq!(unseal(b"", &[1, 2]), Err(Unsealed::Short(2)));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let sealed = seal(b"\x01key", b"some content");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"\x01key", &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_layout_is_golden() {
        // Changing these bytes makes every existing store unreadable: raise VERSION and keep reading 1.
        assert_eq!(
            seal(b"\x01k", b"v"),
            [1, 137, 112, 44, 216, b'v'],
            "version, checksum, content"
        );
    }
}
