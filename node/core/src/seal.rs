//! The causal context as a client holds it: opaque, authentic, and bound to one key of one bucket.
//!
//! `version (1) | key id (4) | sealed at (8, milliseconds) | context (postcard) | HMAC-SHA-256, 16 bytes`.
//! The code covers the bucket's incarnation and the key, so a context cannot be forged, nor used on another
//! key or on a bucket that was re-created under the same name. The secrets are drawn when the cluster forms
//! and live in the registry. The shell writes the bytes as base64url.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::context::Context;
use crate::id::Incarnation;
use crate::registry::ContextKey;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const FRAME_BYTES: usize = 1 + 4 + 8 + MAC_BYTES;

/// What a context is good for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The bucket's incarnation.
    pub bucket: Incarnation,
    /// The key.
    pub key: &'a [u8],
}

/// Why a sealed context was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// Not the form of a sealed context.
    #[error("not a context of this store")]
    Form,
    /// Sealed with a key this cluster does not hold.
    #[error("a context of another cluster, or one sealed with a key that was retired")]
    Key,
    /// Altered, or handed out for another key or bucket.
    #[error(
        "a context that was altered, or that belongs to another key or to a bucket since re-created"
    )]
    Place,
}

/// A context a client handed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What the client had seen.
    pub context: Context,
    /// When it was sealed, in milliseconds since the Unix epoch, by the sealing node's clock.
    pub sealed_at: u64,
}

/// Seals a context for a client.
pub fn seal(key: &ContextKey, place: Place<'_>, sealed_at: u64, context: &Context) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + 32);
    bytes.push(VERSION);
    bytes.extend(key.id.to_le_bytes());
    bytes.extend(sealed_at.to_le_bytes());
    let body = postcard::to_stdvec(context).expect("intervals of integers always serialise");
    bytes.extend(body);
    let code = mac(key, place, &bytes).finalize().into_bytes();
    bytes.extend(&code[..MAC_BYTES]);
    bytes
}

/// Opens what a client handed back for this place.
///
/// # Errors
/// [`Forged`] if it was not sealed by this cluster for exactly this place.
pub fn open(keys: &[ContextKey], place: Place<'_>, bytes: &[u8]) -> Result<Opened, Forged> {
    if bytes.len() < FRAME_BYTES || bytes[0] != VERSION {
        return Err(Forged::Form);
    }
    let (signed, code) = bytes.split_at(bytes.len() - MAC_BYTES);
    let (head, body) = signed.split_at(FRAME_BYTES - MAC_BYTES);
    let id = u32::from_le_bytes(head[1..5].try_into().expect("four bytes"));
    let sealed_at = u64::from_le_bytes(head[5..13].try_into().expect("eight bytes"));
    let key = keys.iter().find(|key| key.id == id).ok_or(Forged::Key)?;
    mac(key, place, signed)
        .verify_truncated_left(code)
        .map_err(|_| Forged::Place)?;
    let context = postcard::from_bytes(body).map_err(|_| Forged::Form)?;
    Ok(Opened { context, sealed_at })
}

fn mac(key: &ContextKey, place: Place<'_>, signed: &[u8]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&key.secret.0).expect("HMAC takes keys of any length");
    mac.update(b"sibyl context");
    mac.update(&place.bucket.0.to_be_bytes());
    mac.update(&(place.key.len() as u64).to_be_bytes());
    mac.update(place.key);
    mac.update(signed);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Actor, Dot};
    use crate::registry::Secret;

    const KEY: ContextKey = ContextKey {
        id: 3,
        secret: Secret([7; 32]),
    };
    const PLACE: Place<'_> = Place {
        bucket: Incarnation(5),
        key: b"cart",
    };

    fn sealed() -> (Context, Vec<u8>) {
        let context: Context = [(1, 4), (1, 9), (2, 1)]
            .map(|(actor, counter)| Dot {
                actor: Actor(actor),
                counter,
            })
            .into_iter()
            .collect();
        let bytes = seal(&KEY, PLACE, 1_234, &context);
        (context, bytes)
    }

    #[test]
    fn it_opens_where_it_was_sealed_for_and_nowhere_else() {
        let (context, bytes) = sealed();
        let open_at = |place| open(&[KEY], place, &bytes);
        assert_eq!(
            open_at(PLACE),
            Ok(Opened {
                context,
                sealed_at: 1_234
            })
        );
        assert_eq!(
            open_at(Place {
                key: b"cars",
                ..PLACE
            }),
            Err(Forged::Place)
        );
        assert_eq!(
            open_at(Place {
                bucket: Incarnation(6),
                ..PLACE
            }),
            Err(Forged::Place)
        );
        let other = ContextKey { id: 4, ..KEY };
        assert_eq!(open(&[other], PLACE, &bytes), Err(Forged::Key));
        let liar = ContextKey {
            secret: Secret([8; 32]),
            ..KEY
        };
        assert_eq!(open(&[liar], PLACE, &bytes), Err(Forged::Place));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (_, bytes) = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&[KEY], PLACE, &forged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&[KEY], PLACE, &bytes).is_err());
        }
    }
}
