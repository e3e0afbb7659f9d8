//! What a node takes from outside of itself: connections, chance, the time of day, a thread for slow work.
//!
//! Everything that decides something asks here, and time that passes is tokio's. Outside of tests each of these
//! is the system's, behind one look at an empty cell of the thread. A test may put a [`Stand`] in its place for
//! a thread (decision 16): then nothing leaves that thread, and one seed repeats all of a run.
//! It knows no part of the node; what lies on disk is `store`'s.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use std::{future, io};

use rand::{Rng as _, TryRng};
use tokio::task::JoinError;

mod net;

pub use net::{Listener, Stream, bind, connect};

/// What takes a while.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What stands in for the system.
pub trait Stand: 'static {
    /// Connects to `HOST:PORT`.
    fn connect(&self, to: String) -> Later<'static, io::Result<Box<dyn Wire>>>;
    /// Listens.
    fn bind(&self, at: SocketAddr) -> Later<'static, io::Result<Box<dyn Listening>>>;
    /// The time of day.
    fn now(&self) -> SystemTime;
    /// 64 bits by chance.
    fn draw(&self) -> u64;
    /// How long the disk takes for a sync.
    fn sync_takes(&self) -> Duration;
}

/// A connection of a stand-in.
pub trait Wire: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Sync + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// A listener of a stand-in.
pub trait Listening: Send + Sync {
    /// The next connection, and where it comes from.
    fn accept(&self) -> Later<'_, io::Result<(Box<dyn Wire>, SocketAddr)>>;
    /// Where it listens.
    ///
    /// # Errors
    /// Those of the system.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

thread_local! {
    static STAND: OnceCell<Box<dyn Stand>> = const { OnceCell::new() };
}

/// Puts a stand-in in the place of the system, for all that happens on this thread from now on.
///
/// # Panics
/// If there is one already: a run that had two could not be repeated.
pub fn replace(stand: impl Stand) {
    let second = STAND.with(|cell| cell.set(Box::new(stand)).is_err());
    assert!(!second, "this thread has a stand-in already");
}

/// Whether there is one on this thread: then everything happens on it.
pub fn is_replaced() -> bool {
    STAND.with(|cell| cell.get().is_some())
}

fn stand<T>(ask: impl FnOnce(&dyn Stand) -> T) -> Option<T> {
    STAND.with(|cell| cell.get().map(|stand| ask(stand.as_ref())))
}

/// The time of day.
pub fn now() -> SystemTime {
    stand(Stand::now).unwrap_or_else(SystemTime::now)
}

/// Chance: the thread's generator of the system, or the stand-in's.
pub fn rng() -> Chance {
    Chance(())
}

/// See [`rng`].
#[derive(Debug)]
pub struct Chance(());

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half is as good as the lower one.
        Ok(stand(Stand::draw).map_or_else(|| rand::rng().next_u32(), |drawn| (drawn >> 32) as u32))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(stand(Stand::draw).unwrap_or_else(|| rand::rng().next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        if !is_replaced() {
            rand::rng().fill_bytes(bytes);
            return Ok(());
        }
        for piece in bytes.chunks_mut(8) {
            let drawn = self.try_next_u64()?.to_le_bytes();
            piece.copy_from_slice(&drawn[..piece.len()]);
        }
        Ok(())
    }
}

/// Does what blocks (disks, long computations) on a thread that may be blocked; in place if there is a stand-in.
///
/// # Errors
/// If it panicked.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_replaced() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// What a sync takes where the disk takes no time of its own.
pub async fn sync_takes() {
    match stand(Stand::sync_takes) {
        Some(takes) => tokio::time::sleep(takes).await,
        None => future::ready(()).await,
    }
}
