//! The load: a closed loop of keep-alive connections, one request in flight on each.
//!
//! It runs on one thread of its own, with plain hyper connections, so that its own cost stays near 10 µs of CPU
//! per request. Latencies run from before the request is sent until the last byte of the answer; nothing corrects
//! for coordinated omission. Errors are counted by kind and never retried within a measurement.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::histogram::Histogram;

/// Pause of one connection after it failed: a node that is gone must not turn the load into a loop of connects.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What nodes say in `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Random bytes that values are cut from: far more than a compressor's window remembers of a block.
const POOL_BYTES: usize = 1 << 20;

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Op {
    /// Write a key that was never written before.
    Put,
    /// Read one of the preloaded keys, each as likely.
    Get,
    /// One half of each.
    Mix,
}

/// Which requests a run sends.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// `op` for as long as it is not stopped; reads choose among `keys`.
    Steady {
        /// What to do.
        op: Op,
        /// How many keys are preloaded.
        keys: u64,
        /// Makes the keys of writes differ from those of any other run.
        run: u64,
    },
    /// Writes each of the first `keys` keys once.
    Preload {
        /// How many keys.
        keys: u64,
    },
    /// Reads each of the first `keys` keys once, so that no cache can help.
    Once {
        /// How many keys.
        keys: u64,
    },
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Bytes that do not compress.
    Random,
    /// Shopping carts in JSON that the shipped resolver merges, each with an item of its own.
    Carts,
}

/// What a connection does when it is told that a node has too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Asks on at once.
    None,
    /// Waits as long as `Retry-After` says, half of it more or less, so that not all come back at once.
    RetryAfter,
}

/// A load to be put on a cluster.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// `HOST:PORT` of each node; connections are spread over them in turn.
    pub(super) targets: Vec<String>,
    /// Bucket path without a slash at the end: `/v1/buckets/NAME/keys`.
    pub(super) path: String,
    /// Connections, each with one request in flight.
    pub(super) connections: usize,
    /// Size of a value.
    pub(super) value_bytes: usize,
    /// What is written.
    pub(super) values: Values,
    /// What a connection does after a 503.
    pub(super) patience: Patience,
    /// The requests.
    pub(super) work: Work,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Latencies of answers that were a success.
    pub(super) latencies: Histogram,
    /// Everything else, by status or by what broke.
    pub(super) errors: BTreeMap<String, u64>,
}

/// A load under way, on its own thread.
pub(super) struct Running {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<Seen>,
}

#[derive(Debug)]
struct Shared {
    measuring: AtomicBool,
    stopping: AtomicBool,
    next: AtomicU64,
    pool: Bytes,
}

impl Load {
    /// Starts the load. Nothing is counted until [`Running::measure`], except for work that ends by itself, of which
    /// everything counts.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self) -> std::io::Result<Running> {
        let shared = Arc::new(Shared {
            measuring: AtomicBool::new(!matches!(self.work, Work::Steady { .. })),
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            pool: random_pool(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let inside = Arc::clone(&shared);
        let run = move || runtime.block_on(self.run(inside));
        Ok(Running {
            shared,
            thread: std::thread::Builder::new()
                .name("load".to_owned())
                .spawn(run)?,
        })
    }

    async fn run(self, shared: Arc<Shared>) -> Seen {
        let load = Arc::new(self);
        let loops = (0..load.connections).map(|index| {
            let (load, shared) = (Arc::clone(&load), Arc::clone(&shared));
            tokio::spawn(async move { Loop::new(&load, &shared, index).run().await })
        });
        let mut seen = Seen::default();
        for running in loops.collect::<Vec<_>>() {
            seen.add(
                &running
                    .await
                    .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            );
        }
        seen
    }
}

impl Running {
    /// Counts from now on.
    pub(super) fn measure(&self) {
        self.shared.measuring.store(true, Ordering::Relaxed);
    }

    /// How many requests of a preload have been taken on.
    pub(super) fn taken(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Whether all connections have ended by themselves.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Counts no more, lets requests in flight end, and returns what was seen.
    pub(super) fn stop(self) -> Seen {
        self.shared.measuring.store(false, Ordering::Relaxed);
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until a preload has done everything.
    pub(super) fn wait(self) -> Seen {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.latencies.merge(&other.latencies);
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }

    /// How many requests were no success.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// One connection's loop. It ends when told to stop, or when a preload has no key left.
struct Loop<'a> {
    load: &'a Load,
    shared: &'a Shared,
    target: &'a str,
    index: usize,
    random: u64,
    sent: u64,
    seen: Seen,
}

impl<'a> Loop<'a> {
    fn new(load: &'a Load, shared: &'a Shared, index: usize) -> Loop<'a> {
        let target = load.targets[index % load.targets.len()].as_str();
        Loop {
            load,
            shared,
            target,
            index,
            random: index as u64,
            sent: 0,
            seen: Seen::default(),
        }
    }

    async fn run(mut self) -> Seen {
        let mut connection: Option<SendRequest<Full<Bytes>>> = None;
        while !self.shared.stopping.load(Ordering::Relaxed) {
            let sender = match connection.take() {
                Some(sender) => Ok(sender),
                None => connect(self.target).await,
            };
            let mut sender = match sender {
                Ok(sender) => sender,
                Err(what) => {
                    self.failed(what).await;
                    continue;
                }
            };
            let Some(request) = self.request() else { break };
            let started = Instant::now();
            match exchange(&mut sender, request).await {
                Ok(status) => {
                    self.answered(status, started.elapsed());
                    connection = Some(sender);
                    self.wait_after(status).await;
                }
                Err(error) => self.failed(format!("connection: {error}")).await,
            }
        }
        self.seen
    }

    fn answered(&mut self, status: u16, elapsed: Duration) {
        if !self.shared.measuring.load(Ordering::Relaxed) {
            return;
        }
        if (200..300).contains(&status) {
            self.seen
                .latencies
                .record(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        } else {
            *self.seen.errors.entry(status.to_string()).or_default() += 1;
        }
    }

    async fn wait_after(&mut self, status: u16) {
        if status == 503 && self.load.patience == Patience::RetryAfter {
            let share = self.draw() % 1000;
            tokio::time::sleep(
                RETRY_AFTER / 2 + RETRY_AFTER * u32::try_from(share).unwrap_or(0) / 1000,
            )
            .await;
        }
    }

    async fn failed(&mut self, what: String) {
        if self.shared.measuring.load(Ordering::Relaxed) {
            *self.seen.errors.entry(what).or_default() += 1;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }

    /// The next request, or `None` when a preload is done.
    fn request(&mut self) -> Option<Request<Full<Bytes>>> {
        self.sent += 1;
        match self.load.work {
            Work::Preload { keys } => {
                let key = self.shared.next.fetch_add(1, Ordering::Relaxed);
                (key < keys).then(|| self.put(&format!("k{key:08}")))
            }
            Work::Once { keys } => {
                let key = self.shared.next.fetch_add(1, Ordering::Relaxed);
                (key < keys).then(|| self.get(&format!("k{key:08}")))
            }
            Work::Steady { op, keys, run } => {
                let draw = self.draw();
                let read = op == Op::Get || op == Op::Mix && draw & 1 == 0;
                if read {
                    // The low bit has chosen the operation; the others choose the key.
                    return Some(self.get(&format!("k{:08}", (draw >> 1) % keys.max(1))));
                }
                Some(self.put(&format!("w{run:x}-{}-{}", self.index, self.sent)))
            }
        }
    }

    fn get(&self, key: &str) -> Request<Full<Bytes>> {
        self.build(Method::GET, key, Bytes::new())
    }

    fn put(&mut self, key: &str) -> Request<Full<Bytes>> {
        let draw = self.draw();
        let value = match self.load.values {
            Values::Random => self.random_value(draw),
            Values::Carts => cart(draw, self.load.value_bytes),
        };
        self.build(Method::PUT, key, value)
    }

    fn random_value(&self, draw: u64) -> Bytes {
        let size = self.load.value_bytes;
        let room = self.shared.pool.len().saturating_sub(size).max(1);
        let start = usize::try_from(draw).unwrap_or(usize::MAX) % room;
        match self.shared.pool.get(start..start + size) {
            Some(_) => self.shared.pool.slice(start..start + size),
            // Larger than the pool: rare, so the copy does not matter.
            None => self
                .shared
                .pool
                .iter()
                .copied()
                .cycle()
                .skip(start)
                .take(size)
                .collect(),
        }
    }

    fn build(&self, method: Method, key: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("{}/{key}", self.load.path))
            .header("host", self.target)
            .body(Full::new(body))
            .expect("path and target were checked when the load was made")
    }

    /// SplitMix64: fast, even, and the same sequence for the same connection.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

async fn connect(target: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| format!("connect: {}", error.kind()))?;
    stream
        .set_nodelay(true)
        .map_err(|error| format!("connect: {}", error.kind()))?;
    let (sender, connection) = Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("connection: {error}"))?;
    // Its error is the same that the request in flight sees.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<u16, hyper::Error> {
    sender.ready().await?;
    let mut response = sender.send_request(request).await?;
    while let Some(frame) = response.frame().await {
        frame?;
    }
    Ok(response.status().as_u16())
}

/// A cart of about `size` bytes: items named and counted by `draw`, so that two carts share some and differ in some.
fn cart(draw: u64, size: usize) -> Bytes {
    // `"item-12":345,` takes 14 bytes; `{"items":{}}` the other 12.
    let items = (size.saturating_sub(12) / 14).clamp(1, 90) as u64;
    let items: Vec<String> = (0..items)
        .map(|item| {
            format!(
                "\"item-{:02}\":{}",
                item + 10,
                100 + (draw >> (item % 57)) % 900
            )
        })
        .collect();
    Bytes::from(format!("{{\"items\":{{{}}}}}", items.join(",")))
}

/// Bytes that do not compress; a fixed seed, since only their disorder matters.
fn random_pool() -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let word = || -> Result<[u8; 8], Infallible> {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Ok(state.to_le_bytes())
    };
    std::iter::repeat_with(word)
        .take(POOL_BYTES / 8)
        .flatten()
        .flatten()
        .collect()
}
