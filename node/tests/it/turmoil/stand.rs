//! What stands in for the system: turmoil's network and clock, a seeded generator, stores in memory.
//!
//! A store outlives its node: what was synced is there when it starts again, of the rest any part (`Memory::crash`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

use ::turmoil::net::{TcpListener, TcpStream};
use sibyl::outside::{Later, Listening, Stand, Wire};
use sibyl::store::Store;
use sibyl::store::engine::Engine;
use sibyl::store::memory::Memory;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Handle, Id};

use super::trace::{Trace, What, hash};
use super::{HTTP, PEERS};
use crate::flips::Draw;

/// When all runs begin, in seconds since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The system of one run.
pub(super) struct Around {
    pub(super) trace: Trace,
    pub(super) draw: Rc<Mutex<Draw>>,
    pub(super) holds: Holds,
    pub(super) places: Places,
    pub(super) slow_disks: bool,
}

/// From whom to whom nothing arrives for now. What is sent waits at its end, as behind a node that is busy.
#[derive(Clone, Default)]
pub(super) struct Holds(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    links: BTreeSet<(IpAddr, IpAddr)>,
    readers: Vec<Waker>,
}

impl Holds {
    pub(super) fn begin(&self, from: IpAddr, to: IpAddr) {
        self.0.lock().unwrap().links.insert((from, to));
    }

    pub(super) fn end(&self, from: IpAddr, to: IpAddr) {
        let mut held = self.0.lock().unwrap();
        held.links.remove(&(from, to));
        let readers = std::mem::take(&mut held.readers);
        drop(held);
        readers.into_iter().for_each(Waker::wake);
    }

    /// Whether a reader has to wait; then it is woken when it is worth another look.
    fn holds(&self, from: IpAddr, to: IpAddr, reader: &Waker) -> bool {
        let mut held = self.0.lock().unwrap();
        let holds = held.links.contains(&(from, to));
        if holds {
            held.readers.push(reader.clone());
        }
        holds
    }
}

/// Whose clock is asked: each node has a runtime of its own.
#[derive(Clone, Default)]
pub(super) struct Places(Rc<RefCell<HashMap<Id, i64>>>);

impl Places {
    /// The clock of the node that runs here goes wrong by so much.
    pub(super) fn clock_is_off(&self, by_ms: i64) {
        self.0.borrow_mut().insert(Handle::current().id(), by_ms);
    }

    fn off_ms(&self) -> i64 {
        let here = Handle::try_current().map(|here| here.id());
        let off = here
            .ok()
            .and_then(|here| self.0.borrow().get(&here).copied());
        off.unwrap_or_default()
    }
}

fn next(draw: &Mutex<Draw>) -> u64 {
    let mut draw = draw.lock().unwrap();
    let mut half = || draw.below(1 << 32) as u64;
    half() << 32 | half()
}

impl Stand for Around {
    fn connect(&self, to: String) -> Later<'static, io::Result<Box<dyn Wire>>> {
        let (trace, holds) = (self.trace.clone(), self.holds.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            Ok(Box::new(Traced::new(stream, trace, holds)?) as Box<dyn Wire>)
        })
    }

    fn bind(&self, at: SocketAddr) -> Later<'static, io::Result<Box<dyn Listening>>> {
        let (trace, holds) = (self.trace.clone(), self.holds.clone());
        Box::pin(async move {
            let listener = TcpListener::bind(at).await?;
            let accepting = Accepting {
                listener,
                trace,
                holds,
            };
            Ok(Box::new(accepting) as Box<dyn Listening>)
        })
    }

    fn now(&self) -> SystemTime {
        let right = EPOCH + ::turmoil::sim_elapsed().unwrap_or_default();
        let off_ms = self.places.off_ms();
        let off = Duration::from_millis(off_ms.unsigned_abs());
        SystemTime::UNIX_EPOCH + if off_ms < 0 { right - off } else { right + off }
    }

    fn draw(&self) -> u64 {
        next(&self.draw)
    }

    /// Mostly quick; at times as slow as a disk that others use too.
    fn sync_takes(&self) -> Duration {
        let drawn = next(&self.draw);
        let slow = self.slow_disks || drawn.is_multiple_of(16);
        let most_ms = if slow { 150 } else { 6 };
        Duration::from_millis(1 + (drawn >> 8) % most_ms)
    }
}

struct Accepting {
    listener: TcpListener,
    trace: Trace,
    holds: Holds,
}

impl Listening for Accepting {
    fn accept(&self) -> Later<'_, io::Result<(Box<dyn Wire>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            let stream = Traced::new(stream, self.trace.clone(), self.holds.clone())?;
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
    holds: Holds,
}

impl Traced {
    fn new(stream: TcpStream, trace: Trace, holds: Holds) -> io::Result<Self> {
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
            holds,
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
        let (from, to) = (this.there.ip(), this.here.ip());
        if this.holds.holds(from, to, cx.waker()) {
            return Poll::Pending;
        }
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
    /// Nothing that was not synced outlasts a loss of power; else any part of it does.
    pub(super) forgets_all: bool,
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
        store.crash(|_| !self.forgets_all && next(&self.draw).is_multiple_of(2));
        let kept = store.last_batch();
        self.trace.say(format!(
            "a store of {last} batches, {synced} synced, is left with {kept}"
        ));
        // What the watermark says is compared by whoever opens it.
        store.reopen().ok()?;
        Some(store)
    }
}
