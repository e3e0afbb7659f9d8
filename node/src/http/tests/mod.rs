//! The API against a fake node: through the router where that is enough, over a real socket where it is not.

mod batches;
mod documents;
mod fake;
mod keys;
mod limits;
mod listing;
mod operation;
mod problems;
mod registry;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use self::fake::Fake;
use super::{Limits, Options, Surface, router};

/// A node and its routes.
pub(crate) struct Setup {
    pub(crate) fake: Fake,
    pub(crate) router: Router,
}

/// The whole API in front of a fresh fake.
pub(crate) fn setup() -> Setup {
    surface(Surface::Whole)
}

/// A part of the API in front of a fresh fake.
pub(crate) fn surface(surface: Surface) -> Setup {
    let fake = Fake::new();
    let api = Arc::new(fake.clone());
    let options = Options {
        api,
        surface,
        allow_cuts: true,
        limits: Limits::default(),
    };
    Setup {
        router: router(&options),
        fake,
    }
}

/// An answer, whole.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header's text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// What follows a pointer in the JSON body, as text.
    pub(crate) fn at(&self, pointer: &str) -> String {
        match self.json().pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => format!("nothing at {pointer} in {}", self.json()),
        }
    }
}

impl Setup {
    /// Sends `METHOD TARGET`, header lines `name: value`, and a body.
    pub(crate) async fn ask(&self, line: &str, headers: &[&str], body: impl Into<Body>) -> Reply {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let mut request = Request::builder().method(method).uri(target);
        for header in headers {
            let (name, value) = header.split_once(": ").expect("name: value");
            request = request.header(name, value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let reply = Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        };
        check_common(line, &reply);
        reply
    }

    /// Sends a request without headers and body.
    pub(crate) async fn get(&self, line: &str) -> Reply {
        self.ask(line, &[], Body::empty()).await
    }

    /// Writes a value without a context and hands its own context back.
    pub(crate) async fn put(&self, target: &str, value: &'static str) -> String {
        let reply = self
            .ask(
                &format!("PUT {target}"),
                &["content-type: text/plain"],
                value,
            )
            .await;
        assert_eq!(reply.status, 204, "{target}");
        reply.header("sibyl-context").to_owned()
    }

    /// Checks the status and, from 400 on, the code.
    pub(crate) async fn check(
        &self,
        line: &str,
        headers: &[&str],
        body: impl Into<Body>,
        expected: (u16, &str),
    ) -> Reply {
        let reply = self.ask(line, headers, body).await;
        let code = if reply.status < 400 || reply.body.is_empty() {
            String::new()
        } else {
            reply.at("/code")
        };
        assert_eq!(
            (reply.status, code.as_str()),
            expected,
            "{line} {headers:?}: {:?}",
            reply.body
        );
        reply
    }
}

/// What holds for every answer.
fn check_common(line: &str, reply: &Reply) {
    let trace_id = reply.header("sibyl-trace-id").to_owned();
    assert_eq!(trace_id.len(), 32, "{line}");
    if reply.status >= 400 {
        assert_eq!(
            reply.header("content-type"),
            "application/problem+json",
            "{line}"
        );
        if !line.starts_with("HEAD") {
            assert_eq!(reply.at("/status"), reply.status.to_string(), "{line}");
            assert_eq!(reply.at("/trace_id"), trace_id, "{line}");
            for field in ["type", "title", "code", "detail"] {
                assert!(
                    !reply.at(&format!("/{field}")).is_empty(),
                    "{line}: {field}"
                );
            }
        }
    }
}
