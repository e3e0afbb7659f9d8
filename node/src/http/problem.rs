//! Problem documents: what every failed request answers (RFC 9457).
//!
//! A [`Problem`] is made where the failure is known and rendered at the edge, which alone knows the trace.
//! `code` is stable and for programs, `detail` is for people and says what to do. Which failure has which
//! status stands in `error`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// The media type of problem documents.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which an overloaded or forming node is worth another try.
const RETRY_AFTER_S: &str = "1";

/// A failed request.
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with its stable code.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// 400: something in the request is malformed or not known.
    pub(super) fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// One more field of the document.
    pub(super) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(field.to_owned(), value.into());
        self
    }

    /// A header of the answer.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Says that the same request may succeed soon.
    pub(super) fn retry(self) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S))
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The document.
    pub(super) fn document(&self, trace_id: &str) -> Map<String, Value> {
        let Parts {
            status,
            code,
            detail,
            more,
            ..
        } = &*self.0;
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:sibyl:problem:{code}").into());
        document.insert("title".into(), title(code).into());
        document.insert("status".into(), status.as_u16().into());
        document.insert("code".into(), (*code).into());
        document.insert("detail".into(), detail.as_str().into());
        document.insert("trace_id".into(), trace_id.into());
        document.extend(more.clone());
        document
    }

    /// The answer, with the trace in it.
    pub(super) fn render(self, trace_id: &str) -> Response {
        let body = Value::Object(self.document(trace_id)).to_string();
        let Parts {
            status,
            mut headers,
            ..
        } = *self.0;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        (status, headers, body).into_response()
    }
}

/// `sibling_cap` as people write it: `Sibling cap`.
fn title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

impl IntoResponse for Problem {
    /// An empty answer that carries the problem to the edge, where it is rendered.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
