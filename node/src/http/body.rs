//! Reading a request's body: never more than allowed, never for longer than allowed.
//!
//! A body that arrives in one piece is handed on without a copy; one in several is put together once, in a
//! buffer of its declared length. What is too large is read no further than politeness asks, so that the
//! client sees the answer instead of a reset connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error;
use super::problem::Problem;
use super::server::Limits;

/// How much of a body that is too large is thrown away before the answer. More than socket buffers hold.
const MAX_DISCARDED_BYTES: usize = 4 << 20;
/// How long that may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(2);

/// What bodies may take: time, and memory of all of them together.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    pause: Duration,
    total: Duration,
    room: Arc<Semaphore>,
}

/// A body's share of the memory for bodies; given back when it is dropped.
pub(super) type Room = OwnedSemaphorePermit;

/// The unit in which memory is given out.
const ROOM_BYTES: usize = 1 << 10;

impl Intake {
    /// What a listener allows.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            pause: limits.body_pause,
            total: limits.body_timeout,
            room: Arc::new(Semaphore::new(limits.max_bodies_bytes / ROOM_BYTES)),
        }
    }

    /// Reads a body of at most `cap` bytes, once there is room for it.
    pub(super) async fn read(
        &self,
        body: Body,
        declared: Option<u64>,
        cap: usize,
    ) -> Result<(Bytes, Option<Room>), Problem> {
        if let Some(bytes) = declared.filter(|bytes| *bytes > cap as u64) {
            discard(body).await;
            return Err(over(bytes, cap));
        }
        let expected = declared.and_then(|bytes| usize::try_from(bytes).ok());
        let room = match self.room(expected.unwrap_or(cap)).await {
            Ok(room) => room,
            Err(problem) => {
                discard(body).await;
                return Err(problem);
            }
        };
        let bytes = read(body, declared, cap, self.pause, self.total).await?;
        Ok((bytes, room))
    }

    /// Waits for memory. Small bodies take none: connections bound their number.
    async fn room(&self, bytes: usize) -> Result<Option<Room>, Problem> {
        let Ok(units @ 1..) = u32::try_from(bytes / ROOM_BYTES) else {
            return Ok(None);
        };
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        let room = timeout(self.pause, room).await;
        room.map(Result::ok).map_err(|_| {
            let detail = "this node is reading as many large bodies as it can: try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry()
        })
    }
}

/// What `Content-Length` says.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(
    mut body: Body,
    declared: Option<u64>,
    cap: usize,
    pause: Duration,
    total: Duration,
) -> Result<Bytes, Problem> {
    let end = Instant::now() + total;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(piece) = next(&mut body, end, pause).await? {
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
