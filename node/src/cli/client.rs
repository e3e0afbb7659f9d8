//! The one door from the command line to a node: blocking HTTP against `/v1`.
//!
//! It knows paths, headers and problem documents, and reads at most [`MAX_ANSWER_BYTES`]. It retries nothing:
//! whether a repeat is safe is for the caller to know. No proxy of the environment is used, since a node on
//! loopback is not behind one.

use std::io::Read;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::blocking::RequestBuilder;
use serde_json::{Map, Value};

/// Most bytes of one answer: an object of 16 MiB as base64 in JSON, with room for the largest bucket setting.
pub(super) const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Time to get a connection: a node on the same network answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What may stand unencoded in a path segment. `/` is encoded too, so that `.` and `..` inside a key are not
/// taken for steps up.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The URL itself.
    #[error("{url:?} is not a URL of a node; expected http://HOST:PORT")]
    Url {
        /// As given.
        url: String,
    },
    /// A key that URLs cannot carry.
    #[error("the key {key:?} cannot stand in a URL; use POST /v1/buckets/{{bucket}}/batch for it")]
    Key {
        /// As given.
        key: String,
    },
    /// No answer.
    #[error("no answer from {url}: {reason}; is a node running there? `sibyl dev` starts some")]
    Unreachable {
        /// The node.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The node answered with a problem document.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The answer is not what the API promises.
    #[error("unexpected answer from {url}: {reason}")]
    Unexpected {
        /// The request's URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An RFC 9457 problem document, or what could be made of an answer without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Problem {
    /// HTTP status.
    pub(super) status: u16,
    /// What kind of problem.
    pub(super) title: String,
    /// Stable name of it.
    pub(super) code: String,
    /// What a person can do.
    pub(super) detail: String,
    /// The request's trace.
    pub(super) trace_id: String,
    /// Everything else in the document.
    pub(super) more: Map<String, Value>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} ({}): {}",
            self.status, self.title, self.code, self.detail
        )
    }
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The request's URL, for messages.
    pub(super) url: String,
    /// HTTP status.
    pub(super) status: u16,
    /// The body, whole.
    pub(super) body: Vec<u8>,
    /// From the first byte sent to the last received.
    pub(super) elapsed: Duration,
    headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// A header's text, empty if absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Headers whose name starts with `prefix`, without it.
    pub(super) fn headers_with(&self, prefix: &str) -> Vec<(String, String)> {
        let text = |value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let all = self.headers.iter();
        all.filter_map(|(name, value)| {
            Some((name.as_str().strip_prefix(prefix)?.to_owned(), text(value)))
        })
        .collect()
    }

    /// The trace id of the request.
    pub(super) fn trace_id(&self) -> &str {
        self.header("sibyl-trace-id")
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Unexpected {
            url: self.url.clone(),
            reason: format!("not JSON: {error}"),
        })
    }

    fn problem(&self) -> Problem {
        let Ok(Value::Object(mut more)) = serde_json::from_slice::<Value>(&self.body) else {
            let detail: String = String::from_utf8_lossy(&self.body)
                .chars()
                .take(500)
                .collect();
            let title = "the node gave no reason".to_owned();
            return Problem {
                status: self.status,
                title,
                detail,
                trace_id: self.trace_id().to_owned(),
                ..Problem::default()
            };
        };
        let mut take = |name: &str| match more.remove(name) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let (title, code, detail, mut trace_id) = (
            take("title"),
            take("code"),
            take("detail"),
            take("trace_id"),
        );
        let _ = (take("type"), take("status"));
        if trace_id.is_empty() {
            trace_id = self.trace_id().to_owned();
        }
        Problem {
            status: self.status,
            title,
            code,
            detail,
            trace_id,
            more,
        }
    }
}

/// What goes with a request besides its path.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// Values are percent-encoded.
    query: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Parts {
    /// A query parameter.
    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, segment(&value.to_string())));
        self
    }

    /// A query parameter that need not be text, if there is a value.
    pub(super) fn maybe_bytes(mut self, name: &'static str, value: Option<&[u8]>) -> Self {
        let encoded =
            value.map(|bytes| percent_encoding::percent_encode(bytes, SEGMENT).to_string());
        self.query.extend(encoded.map(|value| (name, value)));
        self
    }

    /// A query parameter, if there is a value.
    pub(super) fn maybe_query(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// A header.
    pub(super) fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A header, if there is a value.
    pub(super) fn maybe_header(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// The body.
    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// A JSON body.
    pub(super) fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }
}

/// A node, seen through its HTTP API.
#[derive(Clone, Debug)]
pub(super) struct Client {
    base: String,
    http: reqwest::blocking::Client,
}

impl Client {
    /// A client of the node at `base`; no request takes longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::Url`] unless `base` is `http://HOST[:PORT]`.
    pub(super) fn new(base: &str, timeout: Duration) -> Result<Client, Error> {
        let trimmed = base.trim_end_matches('/');
        let wrong = || Error::Url {
            url: base.to_owned(),
        };
        let url = reqwest::Url::parse(trimmed).map_err(|_| wrong())?;
        if url.scheme() != "http" || url.path() != "/" || url.query().is_some() {
            return Err(wrong());
        }
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .map_err(|error| Error::Unreachable {
                url: trimmed.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Client {
            base: trimmed.to_owned(),
            http,
        })
    }

    /// GET.
    pub(super) fn get(&self, path: &str, parts: Parts) -> Result<Answer, Error> {
        self.send(Method::GET, path, parts)
    }

    /// PUT.
    pub(super) fn put(&self, path: &str, parts: Parts) -> Result<Answer, Error> {
        self.send(Method::PUT, path, parts)
    }

    /// POST.
    pub(super) fn post(&self, path: &str, parts: Parts) -> Result<Answer, Error> {
        self.send(Method::POST, path, parts)
    }

    /// DELETE.
    pub(super) fn delete(&self, path: &str, parts: Parts) -> Result<Answer, Error> {
        self.send(Method::DELETE, path, parts)
    }

    /// GET of something long: its bytes as they come. The time-out counts for each read.
    pub(super) fn download(&self, path: &str) -> Result<reqwest::blocking::Response, Error> {
        let url = format!("{}{path}", self.base);
        let response = self.http.get(&url).send();
        let response = response.map_err(|error| Error::Unreachable {
            url: self.base.clone(),
            reason: innermost(&error),
        })?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        Err(Error::Refused(Box::new(
            self.whole(url, response)?.problem(),
        )))
    }

    /// Sends a request; statuses below 400 are answers, the others [`Error::Refused`].
    pub(super) fn send(&self, method: Method, path: &str, parts: Parts) -> Result<Answer, Error> {
        let url = format!("{}{path}{}", self.base, query_text(&parts.query));
        let mut request = self.http.request(method, &url);
        for (name, value) in parts.headers {
            request = request.header(name, value);
        }
        if let Some(body) = parts.body {
            request = request.body(body);
        }
        let answer = self.receive(url, request)?;
        if answer.status < 400 {
            Ok(answer)
        } else {
            Err(Error::Refused(Box::new(answer.problem())))
        }
    }

    fn receive(&self, url: String, request: RequestBuilder) -> Result<Answer, Error> {
        let started = Instant::now();
        let response = request.send().map_err(|error| match error.is_builder() {
            true => Error::Unexpected {
                url: url.clone(),
                reason: innermost(&error),
            },
            false => Error::Unreachable {
                url: self.base.clone(),
                reason: innermost(&error),
            },
        })?;
        let answer = self.whole(url, response)?;
        let elapsed = started.elapsed();
        Ok(Answer { elapsed, ..answer })
    }

    fn whole(&self, url: String, response: reqwest::blocking::Response) -> Result<Answer, Error> {
        let unreachable = |reason| Error::Unreachable {
            url: self.base.clone(),
            reason,
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        let mut limited = response.take(MAX_ANSWER_BYTES + 1);
        limited
            .read_to_end(&mut body)
            .map_err(|error| unreachable(format!("the answer broke off: {error}")))?;
        if body.len() as u64 > MAX_ANSWER_BYTES {
            return Err(Error::Unexpected {
                url,
                reason: format!("more than {MAX_ANSWER_BYTES} bytes"),
            });
        }
        Ok(Answer {
            url,
            status,
            body,
            elapsed: Duration::ZERO,
            headers,
        })
    }
}

/// `/v1/buckets/{bucket}`.
pub(super) fn bucket_path(bucket: &str) -> String {
    format!("/v1/buckets/{}", segment(bucket))
}

/// `/v1/buckets/{bucket}/keys/{key}`.
///
/// # Errors
/// [`Error::Key`] for an empty key, `.` and `..`, which URL parsers take away however they are encoded.
pub(super) fn key_path(bucket: &str, key: &str) -> Result<String, Error> {
    if matches!(key, "" | "." | "..") {
        return Err(Error::Key {
            key: key.to_owned(),
        });
    }
    Ok(format!("{}/keys/{}", bucket_path(bucket), segment(key)))
}

/// The same of a key that need not be text.
///
/// # Errors
/// As [`key_path`].
pub(super) fn key_bytes_path(bucket: &str, key: &[u8]) -> Result<String, Error> {
    if matches!(key, b"" | b"." | b"..") {
        let key = String::from_utf8_lossy(key).into_owned();
        return Err(Error::Key { key });
    }
    let key = percent_encoding::percent_encode(key, SEGMENT);
    Ok(format!("{}/keys/{key}", bucket_path(bucket)))
}

/// `/v1/resolvers/{name}`.
pub(super) fn resolver_path(name: &str) -> String {
    format!("/v1/resolvers/{}", segment(name))
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn query_text(query: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// The last cause: "connection refused" says more than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
