//! The API against a fake node: through the router where that is enough, over a real socket where it is not.

mod fake;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
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
    let fake = Fake::new();
    let options = Options {
        api: Arc::new(fake.clone()),
        surface: Surface::Whole,
        allow_cuts: true,
        limits: Limits::default(),
    };
    Setup { router: router(&options), fake }
}
