//! HTTP as bytes on a socket: the path, the headers and the body go out exactly as a test writes them.
//!
//! Not a client library: one request per connection, nothing is normalised, retried or followed. That is the
//! point, since keys may hold `..`, `//`, `%2F` and bytes that are no UTF-8.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A node answers within seconds, but an upload is compiled by a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    headers: Vec<(String, String)>,
    /// For messages.
    asked: String,
}

/// Reads.
pub(crate) fn get(path: impl Into<String>) -> Ask {
    Ask::new("GET", path, b"")
}

/// Reads headers.
pub(crate) fn head(path: impl Into<String>) -> Ask {
    Ask::new("HEAD", path, b"")
}

/// Writes.
pub(crate) fn put(path: impl Into<String>, body: impl AsRef<[u8]>) -> Ask {
    Ask::new("PUT", path, body.as_ref())
}

/// Deletes.
pub(crate) fn delete(path: impl Into<String>) -> Ask {
    Ask::new("DELETE", path, b"")
}

/// Sends JSON.
pub(crate) fn post(path: impl Into<String>, body: &Value) -> Ask {
    let ask = Ask::new("POST", path, body.to_string().as_bytes());
    ask.with("content-type", "application/json")
}

/// Creates or configures a bucket.
pub(crate) fn put_bucket(name: &str, config: &Value) -> Ask {
    let ask = put(format!("/v1/buckets/{name}"), config.to_string());
    ask.with("content-type", "application/json")
}

/// Where a key is.
pub(crate) fn key(bucket: &str, key: &str) -> String {
    format!("/v1/buckets/{bucket}/keys/{key}")
}

impl Ask {
    fn new(method: &'static str, path: impl Into<String>, body: &[u8]) -> Self {
        let (path, body) = (path.into(), body.to_vec());
        Self {
            method,
            path,
            headers: Vec::new(),
            body,
        }
    }

    /// A header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The context of an earlier answer.
    pub(crate) fn seen(self, answer: &Answer) -> Self {
        self.with("sibyl-context", answer.context())
    }

    /// The context of a list of siblings.
    pub(crate) fn seen_json(self, siblings: &Value) -> Self {
        self.with("sibyl-context", &text(&siblings["context"]))
    }

    /// The head as it goes out.
    pub(crate) fn head(&self) -> String {
        let Self {
            method,
            path,
            headers,
            body,
        } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: sibyl\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        format!("{head}content-length: {}\r\n\r\n", body.len())
    }

    /// The body as it goes out.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Sends it and waits for the answer.
    pub(crate) fn send(&self, to: SocketAddr) -> io::Result<Answer> {
        self.send_within(to, PATIENCE)
    }

    /// Sends it and waits so long for each part of the answer.
    pub(crate) fn send_within(&self, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(self.head().as_bytes())?;
        // A node that refuses a body closes while it is still coming; its answer says why.
        let _refused = stream.write_all(&self.body);
        self.hear(stream)
    }

    /// Takes the answer from a connection on which the request was sent.
    pub(crate) fn hear(&self, mut stream: TcpStream) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        self.heard(&bytes, read)
    }

    /// The answer in what was read until the connection ended.
    pub(crate) fn heard(&self, bytes: &[u8], read: io::Result<usize>) -> io::Result<Answer> {
        let (method, path) = (self.method, self.path.chars().take(80).collect::<String>());
        match (Answer::parse(bytes, format!("{method} {path}")), read) {
            (Some(answer), _) => Ok(answer),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

impl Answer {
    fn parse(bytes: &[u8], asked: String) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(pair).collect();
        let body = bytes[end + 4..].to_vec();
        let answer = Self {
            status,
            body,
            headers,
            asked,
        };
        let length = answer.header("content-length").parse().ok();
        let whole = answer.asked.starts_with("HEAD ")
            || matches!(status, 204 | 304)
            || length == Some(answer.body.len());
        whole.then_some(answer)
    }

    /// A header, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether a header is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(found, _)| found == name)
    }

    /// The context that the answer hands out.
    pub(crate) fn context(&self) -> &str {
        let context = self.header("sibyl-context");
        assert!(!context.is_empty(), "{self} has no context");
        context
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// The code of a problem document; empty if it is none.
    pub(crate) fn code(&self) -> String {
        let problem = self.header("content-type") == "application/problem+json";
        let code = problem.then(|| self.json()["code"].as_str().map(str::to_owned));
        code.flatten().unwrap_or_default()
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Fails unless it is a problem with this status and code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self}"
        );
        self
    }

    /// The values of a list of siblings, in byte order.
    pub(crate) fn values(&self) -> Vec<String> {
        let body = self.json();
        let siblings = body["siblings"].as_array();
        let siblings = siblings.unwrap_or_else(|| panic!("{self} has no siblings"));
        let live = siblings
            .iter()
            .filter(|sibling| sibling["deleted"] == false);
        let mut values: Vec<_> = live.map(|sibling| text(&sibling["value"])).collect();
        values.sort();
        values
    }
}

/// A JSON string as it is, anything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(600).collect();
        write!(
            f,
            "{}: {} {:?} {body}",
            self.asked, self.status, self.headers
        )
    }
}
