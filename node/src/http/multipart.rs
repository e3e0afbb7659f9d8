//! Siblings as `multipart/mixed`: one part per sibling, its bytes as they are.
//!
//! The boundary is random, so no value can contain it but by guessing 128 bits. Values are not copied: the
//! body is a list of pieces with a known length.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::stream;
use rand::RngExt as _;
use sibyl_core::object::Sibling;

use super::header;
use super::moment;
use super::siblings::bytes_of;
use crate::outside;

/// The body of an answer; puts its type and length into the headers.
pub(super) fn body(headers: &mut HeaderMap, siblings: &[Sibling]) -> Body {
    let boundary = format!("sibyl-{:032x}", outside::rng().random::<u128>());
    let mut pieces = Vec::with_capacity(2 * siblings.len() + 1);
    for (at, sibling) in siblings.iter().enumerate() {
        let line = if at == 0 { "--" } else { "\r\n--" };
        pieces.push(Bytes::from(format!(
            "{line}{boundary}\r\n{}\r\n",
            head(sibling)
        )));
        pieces.push(bytes_of(sibling));
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    headers.insert(CONTENT_LENGTH, bytes.into());
    let kind = format!("multipart/mixed; boundary={boundary}");
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(kind).expect("ASCII"));
    Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
}

/// The headers of a part, each with its line end. What clients wrote was checked to be fit for headers.
fn head(sibling: &Sibling) -> String {
    let content = &sibling.content;
    let mut head = format!("Content-Type: {}\r\n", content.content_type);
    let mut line = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
    line("Content-Length", &bytes_of(sibling).len().to_string());
    line("Last-Modified", &moment::http_date(content.modified_at));
    line(header::DOT.as_str(), &sibling.dot().to_string());
    if content.is_tombstone() {
        line(header::DELETED.as_str(), "true");
    }
    for (name, value) in &content.attributes {
        line(&format!("{}{name}", header::ATTRIBUTE), value);
    }
    head
}
