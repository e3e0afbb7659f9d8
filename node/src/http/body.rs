//! Reading a request's body: never more than allowed, never for longer than allowed.
//!
//! A body that arrives in one piece is handed on without a copy; one in several is put together once, in a
//! buffer of its declared length. What is too large is read no further than politeness asks, so that the
//! client sees the answer instead of a reset connection.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::error;
use super::problem::Problem;

/// How much of a body that is too large is thrown away before the answer. More than socket buffers hold.
const MAX_DISCARDED_BYTES: usize = 4 << 20;
/// How long that may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(2);

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two pieces.
    pub(super) pause: Duration,
    /// Altogether.
    pub(super) total: Duration,
}

/// What `Content-Length` says.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `cap` bytes.
pub(super) async fn read(
    mut body: Body,
    declared: Option<u64>,
    cap: usize,
    patience: Patience,
) -> Result<Bytes, Problem> {
    if let Some(bytes) = declared.filter(|bytes| *bytes > cap as u64) {
        discard(body).await;
        return Err(over(bytes, cap));
    }
    let end = Instant::now() + patience.total;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(piece) = next(&mut body, end, patience.pause).await? {
        let bytes = first.len() + rest.len() + piece.len();
        if bytes > cap {
            discard(body).await;
            return Err(over(bytes as u64, cap));
        }
        if first.is_empty() && rest.is_empty() {
            first = piece;
            continue;
        }
        if rest.is_empty() {
            let whole = declared.and_then(|bytes| usize::try_from(bytes).ok());
            rest.reserve(whole.unwrap_or(bytes));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&piece);
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// The next piece that is not empty; `None` at the end.
async fn next(body: &mut Body, end: Instant, pause: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        let slow = |_| {
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!(
                    "the body did not arrive in time; a pause may last {} ms",
                    pause.as_millis()
                ),
            )
        };
        let until = end.min(Instant::now() + pause);
        let frame = match timeout_at(until, body.frame()).await.map_err(slow)? {
            None => return Ok(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Err(Problem::bad(
                    "bad_body",
                    format!("the body broke off: {error}"),
                ));
            }
        };
        match frame.into_data() {
            Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
            _ => {}
        }
    }
}

/// Ends because it stops after [`MAX_DISCARDED_BYTES`] or [`MAX_DISCARD_TIME`].
async fn discard(mut body: Body) {
    let read = async {
        let mut bytes = 0;
        while bytes < MAX_DISCARDED_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                _ => return,
            }
        }
    };
    // Running out of time is as good an end as any: the answer is the same.
    let _ = timeout(MAX_DISCARD_TIME, read).await;
}

fn over(bytes: u64, cap: usize) -> Problem {
    error::too_large(
        &format!("the body has at least {bytes} bytes, at most {cap} are taken here"),
        bytes,
        cap,
    )
}
