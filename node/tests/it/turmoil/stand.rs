//! What stands in for the system: turmoil's network and clock, a seeded generator, stores in memory.
//!
//! A store outlives its node: what was synced is there when it starts again, of the rest any part (`Memory::crash`).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use ::turmoil::net::{TcpListener, TcpStream};
use sibyl::outside::{Later, Listening, Stand, Wire};
use sibyl::store::Store;
use sibyl::store::engine::Engine;
use sibyl::store::memory::Memory;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::trace::{Trace, What, hash};
use super::{HTTP, PEERS};
use crate::flips::Draw;

/// When all runs begin, in seconds since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The system of one run.
pub(super) struct Around {
    pub(super) trace: Trace,
    pub(super) draw: Rc<Mutex<Draw>>,
}

fn next(draw: &Mutex<Draw>) -> u64 {
    let mut draw = draw.lock().unwrap();
    let mut half = || draw.below(1 << 32) as u64;
    half() << 32 | half()
}

impl Stand for Around {
    fn connect(&self, to: String) -> Later<'static, io::Result<Box<dyn Wire>>> {
        let trace = self.trace.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            Ok(Box::new(Traced::new(stream, trace)?) as Box<dyn Wire>)
        })
    }

    fn bind(&self, at: SocketAddr) -> Later<'static, io::Result<Box<dyn Listening>>> {
        let trace = self.trace.clone();
        Box::pin(async move {
            let listener = TcpListener::bind(at).await?;
            Ok(Box::new(Accepting { listener, trace }) as Box<dyn Listening>)
        })
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + ::turmoil::sim_elapsed().unwrap_or_default()
    }

    fn draw(&self) -> u64 {
        next(&self.draw)
    }

    /// Mostly quick; at times as slow as a disk that others use too.
    fn sync_takes(&self) -> Duration {
        let drawn = next(&self.draw);
        let most_ms = if drawn.is_multiple_of(16) { 150 } else { 6 };
        Duration::from_millis(1 + (drawn >> 8) % most_ms)
    }
}

struct Accepting {
    listener: TcpListener,
    trace: Trace,
}

impl Listening for Accepting {
    fn accept(&self) -> Later<'_, io::Result<(Box<dyn Wire>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            let stream = Traced::new(stream, self.trace.clone())?;
            Ok((Box::new(stream) as Box<dyn Wire>, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A stream whose bytes are noted.
struct Traced {
    stream: TcpStream,
    here: SocketAddr,
    there: SocketAddr,
    trace: Trace,
}

impl Traced {
    fn new(stream: TcpStream, trace: Trace) -> io::Result<Self> {
        let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
        debug_assert!(
            [here, there]
                .iter()
                .any(|at| [HTTP, PEERS].contains(&at.port()))
        );
        Ok(Self {
            stream,
            here,
            there,
            trace,
        })
    }

    fn note(&self, written: bool, bytes: &[u8]) {
        let is_dated = self.here.port() == HTTP || self.there.port() == HTTP;
        self.trace.note(What::Passed {
            here: self.here,
            there: self.there,
            written,
            bytes: bytes.len(),
            hash: if is_dated { 0 } else { hash(bytes) },
        });
    }
}

impl AsyncRead for Traced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        this.note(false, &buffer.filled()[before..]);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        if let Ok(count) = &written {
            this.note(true, &bytes[..*count]);
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The disks of all nodes.
pub(super) struct Disks {
    pub(super) stores: Mutex<BTreeMap<PathBuf, Arc<Memory>>>,
    pub(super) draw: Rc<Mutex<Draw>>,
    pub(super) trace: Trace,
}

impl Engine for Disks {
    fn create(&self, folder: &Path) -> Arc<dyn Store> {
        let store = Arc::new(Memory::new());
        let mut stores = self.stores.lock().unwrap();
        stores.insert(folder.to_owned(), Arc::clone(&store));
        store
    }

    fn reopen(&self, folder: &Path) -> Option<Arc<dyn Store>> {
        let store = Arc::clone(self.stores.lock().unwrap().get(folder)?);
        let (last, synced) = (store.last_batch(), store.synced());
        store.crash(|_| next(&self.draw).is_multiple_of(2));
        let kept = store.last_batch();
        self.trace.say(format!(
            "a store of {last} batches, {synced} synced, is left with {kept}"
        ));
        // What the watermark says is compared by whoever opens it.
        store.reopen().ok()?;
        Some(store)
    }
}
