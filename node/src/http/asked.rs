//! A request as handlers take it: its call, its parts, and the ways to read them.
//!
//! Made by the edge, which has already refused what no route supports. A handler names the query parameters
//! it takes; everything else in the query is refused before it runs.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sibyl_core::context::Context;

use super::api::Call;
use super::body::{self, Intake, Room};
use super::form::Sealed;
use super::header;
use super::json;
use super::problem::Problem;
use super::query::{Parameter, Query};

/// What every handler answers.
pub(super) type Answer = Result<Response, Problem>;

/// A request.
pub(super) struct Asked {
    /// The node, for this request.
    pub(super) call: Arc<dyn Call>,
    parts: Parts,
    /// Never locked: it only makes the request shareable between threads, which a body alone is not.
    body: Mutex<Body>,
    intake: Intake,
    /// Held until the request is answered.
    room: Option<Room>,
}

/// What the edge puts beside a request.
#[derive(Clone)]
pub(super) struct Entered {
    /// The node, for this request.
    pub(super) call: Arc<dyn Call>,
    /// What its body may take.
    pub(super) intake: Intake,
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Entered { call, intake } = parts
            .extensions
            .remove()
            .expect("every route is behind the edge, which puts it there");
        Ok(Self {
            call,
            parts,
            body: Mutex::new(body),
            intake,
            room: None,
        })
    }
}

impl Asked {
    /// The path, as it came.
    pub(super) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The query, if every parameter of it is known.
    pub(super) fn query(&self, known: &'static [Parameter]) -> Result<Query, Problem> {
        Query::parse(self.parts.uri.query(), known)
    }

    /// The body, taken once: later calls give an empty one.
    pub(super) async fn body(&mut self, cap: usize) -> Result<Bytes, Problem> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let body = std::mem::take(body);
        let declared = body::declared(&self.parts.headers);
        let (bytes, room) = self.intake.read(body, declared, cap).await?;
        self.room = room;
        Ok(bytes)
    }

    /// The body as JSON. Its `Content-Type` is not looked at: people use plain `curl -d`.
    pub(super) async fn json<T: DeserializeOwned>(&mut self, cap: usize) -> Result<T, Problem> {
        json::parse(&self.body(cap).await?)
    }

    /// The context of an earlier answer, if the request has one, not opened yet.
    pub(super) fn sealed(&self) -> Result<Option<Sealed>, Problem> {
        let text = header::once(self.headers(), &header::CONTEXT)?;
        let sealed = |text| json::sealed_bytes(text).map(Sealed);
        text.map(sealed)
            .transpose()
            .map_err(|why| Problem::bad("bad_context", why))
    }

    /// Opens a context of an earlier answer.
    pub(super) fn open(
        &self,
        bucket: &str,
        key: &[u8],
        sealed: &Sealed,
    ) -> Result<Context, Problem> {
        Ok(self.call.open(bucket, key, &sealed.0)?)
    }
}

/// An answer in JSON.
pub(super) fn json_answer(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("answers have string keys and no failing parts");
    let kind = (axum::http::header::CONTENT_TYPE, "application/json");
    (status, [kind], text).into_response()
}

/// 200 in JSON.
pub(super) fn ok(body: &impl Serialize) -> Answer {
    Ok(json_answer(StatusCode::OK, body))
}
