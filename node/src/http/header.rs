//! Headers of the API: names, and what requests say with them.
//!
//! A header whose feature does not exist, here or on that route, is refused by name, never ignored: a client that
//! sends `Idempotency-Key` relies on it.

use std::collections::BTreeMap;

use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use sibyl_core::retry::{BadKey, Key};

use super::problem::Problem;

pub(super) const CONTEXT: HeaderName = HeaderName::from_static("sibyl-context");
pub(super) const CONTEXT_OMITTED: HeaderName = HeaderName::from_static("sibyl-context-omitted");
pub(super) const SIBLINGS: HeaderName = HeaderName::from_static("sibyl-siblings");
pub(super) const RESOLVER: HeaderName = HeaderName::from_static("sibyl-resolver");
pub(super) const ACKS: HeaderName = HeaderName::from_static("sibyl-acks");
pub(super) const PARTIAL: HeaderName = HeaderName::from_static("sibyl-partial");
pub(super) const COORDINATOR: HeaderName = HeaderName::from_static("sibyl-coordinator");
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("sibyl-trace-id");
pub(super) const DOT: HeaderName = HeaderName::from_static("sibyl-dot");
pub(super) const DELETED: HeaderName = HeaderName::from_static("sibyl-deleted");
/// Of an answer: the write was there before.
pub(super) const REPEATED: HeaderName = HeaderName::from_static("sibyl-repeated");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What the names of attributes begin with.
pub(super) const ATTRIBUTE: &str = "sibyl-attr-";

/// The most attributes of a value.
pub(super) const MAX_ATTRIBUTES: usize = 16;
/// The most bytes of all their names and values.
pub(super) const MAX_ATTRIBUTE_BYTES: usize = 1024;
/// The longest media type of a value, in bytes.
pub(super) const MAX_CONTENT_TYPE_BYTES: usize = 255;
/// The media type of a value whose writer named none.
pub(super) const OCTET_STREAM: &str = "application/octet-stream";

/// What a route makes of headers that promise something.
#[derive(Clone, Copy)]
pub(super) struct Promises {
    /// Whether it is about keys, where a precondition that is not checked would lose writes.
    pub(super) keys: bool,
    /// Whether it takes writes that their clients may repeat.
    pub(super) repeats: bool,
}

impl Promises {
    /// Those of a route.
    pub(super) fn of(method: &Method, route: &str) -> Self {
        let of_key = route.contains("/keys/");
        // A method that a route does not have is told so by the router, whatever the headers.
        let reads = *method == Method::GET || *method == Method::HEAD;
        let only_writes = route == "/key" || route.ends_with("/batch");
        Self {
            keys: of_key || route.starts_with("/key"),
            repeats: only_writes || of_key && !reads,
        }
    }
}

/// Refuses headers that ask for what does not exist, here or at all.
pub(super) fn refuse_unsupported(headers: &HeaderMap, promises: Promises) -> Result<(), Problem> {
    let refuse = |name: &HeaderName, instead: &str| match headers.contains_key(name) {
        true => Err(Problem::bad(
            "unsupported_header",
            format!(
                "the header {name} is not supported here, and ignoring it would be wrong: {instead}"
            ),
        )
        .with("header", name.as_str())),
        false => Ok(()),
    };
    if !promises.repeats {
        refuse(
            &IDEMPOTENCY_KEY,
            "only writes and deletes of keys, and batches of them, can be repeated by it",
        )?;
    }
    refuse(
        &AUTHORIZATION,
        "this node knows no tokens; send the request without it",
    )?;
    if promises.keys {
        refuse(
            &IF_MATCH,
            "send the Sibyl-Context of your last read instead",
        )?;
        refuse(
            &IF_UNMODIFIED_SINCE,
            "send the Sibyl-Context of your last read instead",
        )?;
    }
    Ok(())
}

/// A header that may stand at most once, as text.
pub(super) fn once<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    let bad = |what: &str| {
        Problem::bad("bad_header", format!("the header {name} {what}"))
            .with("header", name.as_str())
    };
    if values.next().is_some() {
        return Err(bad("is given twice"));
    }
    first
        .map(|value| std::str::from_utf8(value.as_bytes()).map_err(|_| bad("is not UTF-8")))
        .transpose()
}

/// The key by which the client may repeat the request.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let text = once(headers, &IDEMPOTENCY_KEY)?;
    let bad = |bad: BadKey| {
        Problem::bad("bad_idempotency_key", bad.to_string())
            .with("header", IDEMPOTENCY_KEY.as_str())
    };
    text.map(Key::new).transpose().map_err(bad)
}

/// Attributes of a value, by name.
pub(super) fn attributes(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Problem> {
    let mut found = BTreeMap::new();
    for name in headers.keys() {
        if let Some(short) = name.as_str().strip_prefix(ATTRIBUTE) {
            let value = once(headers, name)?.unwrap_or_default();
            found.insert(short.to_owned(), value.to_owned());
        }
    }
    check_attributes(&found)?;
    Ok(found)
}

/// Whether attributes of any origin keep their bounds and can be headers of an answer.
pub(super) fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Problem> {
    let bad = |detail: String| Problem::bad("bad_attributes", detail);
    check_attribute_form(attributes).map_err(bad)?;
    let bytes: usize = attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_ATTRIBUTE_BYTES {
        return Err(bad(format!(
            "the names and values of all attributes have {bytes} bytes, at most {MAX_ATTRIBUTE_BYTES} are kept"
        )));
    }
    Ok(())
}

/// Whether attributes are few and can be headers of an answer; a sentence that says why not.
pub(super) fn check_attribute_form(attributes: &BTreeMap<String, String>) -> Result<(), String> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(format!(
            "{} attributes, a value has at most {MAX_ATTRIBUTES}",
            attributes.len()
        ));
    }
    let fits = |(name, value): (&String, &String)| {
        !name.is_empty()
            && HeaderName::from_lowercase(name.as_bytes()).is_ok()
            && HeaderValue::from_str(value).is_ok()
    };
    match attributes.iter().find(|pair| !fits(*pair)) {
        Some((name, _)) => Err(format!(
            "the attribute {name:?} cannot be sent as a header: names are a-z 0-9 and - , values have no control characters"
        )),
        None => Ok(()),
    }
}

/// The media type that a value is kept with.
pub(super) fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    checked_content_type(once(headers, &CONTENT_TYPE)?.unwrap_or(OCTET_STREAM))
}

/// What a media type has to be.
pub(super) const CONTENT_TYPE_FORM: &str =
    "the content type is type/subtype in ASCII, at most 255 bytes";

/// A media type of any origin: `type/subtype`, perhaps with parameters.
pub(super) fn checked_content_type(text: &str) -> Result<String, Problem> {
    if is_content_type(text) {
        return Ok(text.to_owned());
    }
    Err(Problem::bad("bad_content_type", CONTENT_TYPE_FORM))
}

/// Whether this is `type/subtype`, perhaps with parameters, in ASCII and not too long.
pub(super) fn is_content_type(text: &str) -> bool {
    let token = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    text.len() <= MAX_CONTENT_TYPE_BYTES
        && text.bytes().all(|b| (b' '..0x7f).contains(&b))
        && essence
            .split_once('/')
            .is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// Whether a request names this media type as what it carries, parameters aside.
pub(super) fn carries(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// How much a request wants an answer of this media type, in thousandths; `None` if `Accept` does not name
/// it. `*/*` names nothing.
pub(super) fn wants(headers: &HeaderMap, media_type: &str) -> Option<u16> {
    let (kind, _) = media_type.split_once('/')?;
    let lists = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let weights = lists.flat_map(|list| list.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let named = name == media_type || name.strip_suffix("/*") == Some(kind);
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
        named.then(|| thousandths(weight))
    });
    weights.max()
}

fn thousandths(weight: f32) -> u16 {
    let steps = (0..=1000_u16).rev();
    steps
        .into_iter()
        .find(|step| f32::from(*step) <= weight * 1000.0)
        .unwrap_or(0)
}

/// Whether `If-None-Match` names this ETag, compared weakly as the header asks.
pub(super) fn none_match(headers: &HeaderMap, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(bare)
        .any(|tag| tag == "*" || tag == bare(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                value.parse().expect("a header value"),
            )
        };
        let mut map = HeaderMap::new();
        pairs.iter().map(pair).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn accept_says_how_much() {
        let check = |accept: &str, multipart: Option<u16>| {
            let headers = headers(&[("accept", accept)]);
            assert_eq!(wants(&headers, "multipart/mixed"), multipart, "{accept}");
        };
        check("multipart/mixed", Some(1000));
        check("application/json, Multipart/Mixed;q=0.5", Some(500));
        check("multipart/*;q=0", Some(0));
        check("multipart/mixed;q=x", Some(0));
        check("*/*", None);
        check("", None);
    }

    #[test]
    fn media_types_are_checked() {
        let check = |text: &str, fits: bool| {
            assert_eq!(checked_content_type(text).is_ok(), fits, "{text}");
        };
        check("text/plain", true);
        check("application/vnd.a+json; charset=utf-8", true);
        check("", false);
        check("text", false);
        check("text/", false);
        check("te xt/plain", false);
        check("text/plain\u{e9}", false);
        check(&format!("text/{}", "x".repeat(251)), false);
    }

    #[test]
    fn attributes_keep_their_bounds() {
        let check = |pairs: Vec<(String, String)>, fits: bool| {
            assert_eq!(
                check_attributes(&pairs.iter().cloned().collect()).is_ok(),
                fits,
                "{pairs:?}"
            );
        };
        let many = |count: usize| {
            (0..count)
                .map(|i| (format!("a{i}"), String::new()))
                .collect()
        };
        check(many(16), true);
        check(many(17), false);
        check(vec![("a".into(), "x".repeat(1023))], true);
        check(vec![("a".into(), "x".repeat(1024))], false);
        check(vec![(String::new(), String::new())], false);
        check(vec![("A".into(), String::new())], false);
        check(vec![("a".into(), "\n".into())], false);
    }

    #[test]
    fn if_none_match_is_a_list() {
        let check = |value: &str, hits: bool| {
            assert_eq!(
                none_match(&headers(&[("if-none-match", value)]), "\"e\""),
                hits,
                "{value}"
            );
        };
        check("\"e\"", true);
        check("\"x\", W/\"e\"", true);
        check("*", true);
        check("\"x\"", false);
    }
}
