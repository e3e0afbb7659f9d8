//! What makes a repeated request the same write: a client's idempotency key, and the write id made of it.
//!
//! The first 96 bits name the request: the client's key, the operation's place in a batch, the bucket's
//! incarnation and the object's key, so that one key may be used for many objects and means nothing in another
//! bucket. The last 32 are a fingerprint of what is written, so that a key which is used again for something
//! else is told from a retry, wherever the write is met: in a sibling, or in what is remembered of it
//! (`object/receipts.rs`). The context is not part of it: a client that read again repeats the same write.
//! Nothing here is secret, and nothing is believed: whoever may write may also choose the key.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::id::{Incarnation, WriteId};
use crate::message::Place;

/// The longest idempotency key, in bytes: a UUID has 36, a SHA-512 in hexadecimal 128.
pub const MAX_KEY_BYTES: usize = 255;
/// How much of a write id names the request. Ids are only compared within one object.
const REQUEST_BYTES: usize = 12;

/// What a client calls a request that it may repeat: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    text: String,
    /// The operation's place in its batch; `None` if the key is its own.
    op: Option<u32>,
}

/// A key that is empty, too long, or holds something else than visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to {MAX_KEY_BYTES} visible ASCII characters, without spaces")]
pub struct BadKey;

impl Key {
    /// A key as a client gave it.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn new(text: &str) -> Result<Self, BadKey> {
        let fits = (1..=MAX_KEY_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        let text = text.to_owned();
        fits.then_some(Self { text, op: None }).ok_or(BadKey)
    }

    /// The key of one operation of a batch that has one key for all.
    #[must_use]
    pub fn of_op(mut self, op: u32) -> Self {
        self.op = Some(op);
        self
    }
}

/// What a write id is a fingerprint of.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The media type.
    pub content_type: &'a str,
    /// Attributes by name.
    pub attributes: &'a BTreeMap<String, String>,
}

/// The write id of a request that may be repeated.
pub fn write_id(key: &Key, place: &Place, payload: Payload<'_>) -> WriteId {
    let Incarnation(bucket) = place.bucket;
    let mut request = Sha256::new_with_prefix(b"sibyl idempotency key 1\0");
    part(&mut request, key.text.as_bytes());
    request.update([u8::from(key.op.is_some())]);
    request.update(key.op.unwrap_or_default().to_be_bytes());
    request.update(bucket.to_be_bytes());
    part(&mut request, &place.key);

    let mut content = Sha256::new_with_prefix(b"sibyl idempotency payload 1\0");
    content.update([u8::from(payload.value.is_some())]);
    part(&mut content, payload.value.unwrap_or_default());
    part(&mut content, payload.content_type.as_bytes());
    for (name, value) in payload.attributes {
        part(&mut content, name.as_bytes());
        part(&mut content, value.as_bytes());
    }

    let mut id = [0; 16];
    let (names, prints) = id.split_at_mut(REQUEST_BYTES);
    names.copy_from_slice(&request.finalize()[..REQUEST_BYTES]);
    prints.copy_from_slice(&content.finalize()[..16 - REQUEST_BYTES]);
    WriteId(id)
}

/// Its length in front: no two lists of parts have the same bytes.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Whether two writes come of one request, whatever they wrote.
pub fn is_same_request(a: WriteId, b: WriteId) -> bool {
    a.0[..REQUEST_BYTES] == b.0[..REQUEST_BYTES]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;

    fn id(key: &Key, bucket: u64, place: &'static str, value: Option<&str>, kind: &str) -> WriteId {
        let place = Place {
            bucket: Incarnation(bucket),
            key: Bytes::from_static(place.as_bytes()),
        };
        let payload = Payload {
            value: value.map(str::as_bytes),
            content_type: kind,
            attributes: &BTreeMap::new(),
        };
        write_id(key, &place, payload)
    }

    fn key(text: &str) -> Key {
        Key::new(text).expect("a valid key")
    }

    #[test]
    fn keys_keep_their_bounds() {
        let check = |text: &str, fits: bool| assert_eq!(Key::new(text).is_ok(), fits, "{text:?}");
        check("k", true);
        check("\"order-17/3\"", true);
        check(&"k".repeat(MAX_KEY_BYTES), true);
        check(&"k".repeat(MAX_KEY_BYTES + 1), false);
        check("", false);
        check("k k", false);
        check("k\n", false);
        check("k\u{e9}", false);
    }

    #[test]
    fn every_part_of_a_request_makes_another_write() {
        let ids = [
            id(&key("a"), 1, "k", Some("v"), "t/t"),
            id(&key("b"), 1, "k", Some("v"), "t/t"),
            id(&key("a"), 2, "k", Some("v"), "t/t"),
            id(&key("a"), 1, "kk", Some("v"), "t/t"),
            id(&key("a").of_op(0), 1, "k", Some("v"), "t/t"),
            id(&key("a").of_op(1), 1, "k", Some("v"), "t/t"),
            id(&key("a"), 1, "k", Some(""), "t/t"),
            id(&key("a"), 1, "k", None, "t/t"),
            id(&key("a"), 1, "k", Some("v"), "t/u"),
        ];
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        let first = ids[0];
        let same: Vec<bool> = ids.iter().map(|id| is_same_request(first, *id)).collect();
        assert_eq!(same[1..6], [false; 5], "another request");
        assert_eq!(same[6..], [true; 3], "the same request, another payload");
    }

    #[test]
    fn an_id_stays_what_it_is() {
        // What an older build wrote must be recognised by this one.
        let id = id(&key("order-17"), 1, "cart", Some("milk"), "text/plain");
        assert_eq!(format!("{id:?}"), "8aa5a5098e6cda5ab82b1f0d0692643a");
    }
}
