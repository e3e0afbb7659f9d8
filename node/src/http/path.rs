//! Names and keys from the raw path of a request.
//!
//! A key is whatever stands after its prefix, percent-decoded exactly once: `%2F`, `//`, `%00`, `..`, bytes
//! that are no UTF-8 and a trailing slash are all part of it. Nothing here normalises.

use bytes::Bytes;
use sibyl_core::id::{Digest, NodeId};

use axum::http::StatusCode;

use super::problem::Problem;

/// The longest key, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// The longest name of a bucket or a resolver, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// The `index`th segment of a path that begins with `/`, decoded and checked as a bucket's name.
pub(super) fn bucket(path: &str, index: usize) -> Result<String, Problem> {
    name(path, index, "bucket")
}

/// The same for a resolver's name.
pub(super) fn resolver(path: &str, index: usize) -> Result<String, Problem> {
    name(path, index, "resolver")
}

/// A version's digest.
pub(super) fn digest(path: &str, index: usize) -> Result<Digest, Problem> {
    let text = segment(path, index)?;
    text.parse()
        .map_err(|error: sibyl_core::id::BadDigest| Problem::bad("bad_digest", error.to_string()))
}

/// A node's name, for routes that take one in their body.
pub(super) fn node(text: &str) -> Result<NodeId, Problem> {
    text.parse()
        .map_err(|error: sibyl_core::id::BadNodeId| Problem::bad("bad_node_id", error.to_string()))
}

/// Everything from the `index`th segment on, decoded once.
pub(super) fn key(path: &str, index: usize) -> Result<Bytes, Problem> {
    let raw = path
        .splitn(index + 2, '/')
        .nth(index + 1)
        .unwrap_or_default();
    checked_key(decode(raw.as_bytes())?.into())
}

/// A key of any origin: 1 to [`MAX_KEY_BYTES`] bytes.
pub(super) fn checked_key(key: Bytes) -> Result<Bytes, Problem> {
    match key.len() {
        0 => Err(Problem::bad(
            "bad_key",
            "the key is empty: it has 1 to 1024 bytes",
        )),
        1..=MAX_KEY_BYTES => Ok(key),
        bytes => Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            "key_too_long",
            format!("the key has {bytes} bytes, at most {MAX_KEY_BYTES} are taken"),
        )),
    }
}

/// Whether this can be a bucket's or a resolver's name.
pub(super) fn is_name(text: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && !text.starts_with('_')
        && text.bytes().all(allowed)
}

fn name(path: &str, index: usize, what: &'static str) -> Result<String, Problem> {
    let text = segment(path, index)?;
    if is_name(&text) {
        return Ok(text);
    }
    let code = if what == "bucket" {
        "bad_bucket_name"
    } else {
        "bad_resolver_name"
    };
    let detail = format!(
        "{text:?} is no name of a {what}: it has 1 to 64 of a-z 0-9 . _ - and does not begin with _"
    );
    Err(Problem::bad(code, detail))
}

fn segment(path: &str, index: usize) -> Result<String, Problem> {
    let raw = path.split('/').nth(index + 1).unwrap_or_default();
    String::from_utf8(decode(raw.as_bytes())?)
        .map_err(|_| Problem::bad("bad_path", format!("{raw:?} in the path is not UTF-8")))
}

/// Percent-decodes once.
pub(super) fn decode(raw: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = tail.split_at_checked(2).and_then(|(pair, after)| {
            rest = after;
            Some(hex(pair[0])? << 4 | hex(pair[1])?)
        });
        decoded.push(digits.ok_or_else(|| {
            Problem::bad(
                "bad_percent_encoding",
                "a % in the URL is not followed by two hexadecimal digits: write a % itself as %25",
            )
        })?);
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_stands_after_its_prefix_decoded_once() {
        let check = |raw: &str, key: &[u8]| {
            let found = super::key(&format!("/v1/buckets/b/keys/{raw}"), 4).expect(raw);
            assert_eq!(found, key, "{raw}");
        };
        check("a", b"a");
        check("a%2Fb", b"a/b");
        check("a/b", b"a/b");
        check("a//b/", b"a//b/");
        check("/a", b"/a");
        check("%00", b"\0");
        check("%ff%FE", b"\xff\xfe");
        check("a%2525", b"a%25");
        check("..", b"..");
        check("../../x", b"../../x");
        check("a+b", b"a+b");
        check("\u{e9}", "\u{e9}".as_bytes());
    }

    #[test]
    fn malformed_paths_are_refused() {
        let check = |raw: &str, status: u16| {
            let problem = super::key(&format!("/key/{raw}"), 1).expect_err(raw);
            assert_eq!(problem.status().as_u16(), status, "{raw}");
        };
        check("", 400);
        check("%", 400);
        check("%4", 400);
        check("%zz", 400);
        check("%+1", 400);
        check(&"x".repeat(1025), 414);
        check(&"%20".repeat(1025), 414);
    }

    #[test]
    fn names_have_few_characters() {
        let check = |text: &str, fits: bool| assert_eq!(is_name(text), fits, "{text}");
        check("carts", true);
        check("a.b_c-9", true);
        check(&"x".repeat(64), true);
        check(&"x".repeat(65), false);
        check("", false);
        check("_node", false);
        check("Carts", false);
        check("a/b", false);
        check("\u{e9}", false);
    }
}
