//! The listener: accepts connections, keeps their limits, and drains them when the node stops.
//!
//! Only connections; requests are the router's. A client that is slow with its head, slow to take its answer,
//! or one too many costs a bounded amount of memory for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rand::RngExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::problem::{self, Problem};
use super::stall::Unstalled;
use super::{header, json};
use crate::outside::{self, Listener, Stream};

/// The most bytes of a request's head that are parsed. Twice what the edge admits, so that a head only a
/// little too large still gets a problem document; larger ones get a bare 431.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many connections beyond the limit are told so at once; the others are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long telling may take.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Each costs a task and two buffers, some 20 KiB, when idle.
    pub max_connections: usize,
    /// For a request's head; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Between two pieces of a body, in either direction.
    pub body_pause: Duration,
    /// For a whole request body.
    pub body_timeout: Duration,
    /// Memory for request bodies that are being read or used, of all requests together; at least the largest
    /// body, an upload of 32 MiB.
    pub max_bodies_bytes: usize,
    /// For requests under way when the node stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout: Duration::from_secs(10),
            body_pause: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            max_bodies_bytes: 256 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A listener with its routes.
#[derive(Debug)]
pub struct Server {
    /// Where clients connect.
    pub listener: Listener,
    /// What they get.
    pub router: Router,
    /// How much of it.
    pub limits: Limits,
}

impl Server {
    /// Serves until `stop` is done, then lets the requests under way finish, for at most
    /// [`Limits::drain_timeout`]. Answers how many connections had to be cut off.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> usize {
        let Self {
            listener,
            router,
            limits,
        } = self;
        let places = Arc::new(Semaphore::new(limits.max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            while connections.try_join_next().is_some() {}
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let connection = connection(stream, router.clone(), limits);
                let connection = graceful.watch(connection);
                connections.spawn(async move {
                    // How a connection ends is its client's business.
                    let _ = connection.await;
                    drop(place);
                });
            } else if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                connections.spawn(async move {
                    let _ = timeout(REFUSAL_TIME, refuse(stream)).await;
                    drop(turn);
                });
            }
        }
        drop(listener);
        let _ = timeout(limits.drain_timeout, graceful.shutdown()).await;
        while connections.try_join_next().is_some() {}
        connections.len()
    }
}

type Io = TokioIo<Unstalled<Stream>>;

fn connection(
    stream: Stream,
    router: Router,
    limits: Limits,
) -> http1::Connection<Io, TowerToHyperService<Router>> {
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let io = TokioIo::new(Unstalled::new(stream, limits.body_pause));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(io, TowerToHyperService::new(router))
}

/// Says that there is no room. Reads what the client sent, or closing would reset the connection before the
/// client has seen the answer.
async fn refuse(mut stream: Stream) -> std::io::Result<()> {
    stream.write_all(refusal().as_bytes()).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 4096];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// An answer without a request: there is no call yet, so the trace id is one that nobody records.
fn refusal() -> String {
    let trace_id = json::trace_id(outside::rng().random());
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_connections",
        "this node has all the connections it takes: close some, or use another node",
    );
    let body = Value::Object(problem.document(&trace_id)).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nconnection: close\r\n{}: {trace_id}\r\n\r\n{body}",
        problem::MEDIA_TYPE,
        header::TRACE_ID,
    )
}
