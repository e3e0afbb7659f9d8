//! An axum server that stores nothing: what HTTP alone costs, for `sibyl bench` to compare with.
//!
//! It reads a whole body and answers with a constant, on the same library and settings as the node. It is no part
//! of a node and registers no route there.

use std::io;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

/// Serves until the process ends: GET any path answers with `value`, PUT and POST any path with 204 (so it is also a
/// collector of spans that keeps none).
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, value: Bytes) -> io::Result<()> {
    let routes = get(|State(value): State<Bytes>| async move { value })
        .put(take)
        .post(take);
    let router = Router::new().route("/{*path}", routes).with_state(value);
    let listener = listener.tap_io(|stream| {
        // A connection that is gone already says so at its first read.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

async fn take(body: Bytes) -> StatusCode {
    // The length must be looked at, or a body that breaks off would be a success.
    if body.len() > isize::MAX as usize {
        StatusCode::PAYLOAD_TOO_LARGE
    } else {
        StatusCode::NO_CONTENT
    }
}
