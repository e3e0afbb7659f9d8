//! One connection's loop: whole frames out of the socket, whole batches into it.
//!
//! A single task does both directions, since an answer made while reading then leaves without waking
//! anybody. Reading never waits for writing (else two nodes that both write would wait for ever), with one
//! exception: a server stops reading requests while its answers pile up, and clients always read. Frames of
//! another session are discarded.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::batch::Batch;
use super::handshake::{Identity, Refusal};
use super::limits::{MAX_FRAME_BYTES, READ_BYTES, READ_LEAST_BYTES};
use super::outbox::Outbox;
use super::wire::{self, BadFrame, Frame, Out, Stamp};
use crate::outside::Stream;

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Close {
    #[error("the peer closed the connection")]
    Ended,
    #[error("connection lost: {0}")]
    Lost(Arc<io::Error>),
    #[error("bad frame: {0}")]
    Bad(#[from] BadFrame),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the link is cut")]
    Cut,
    #[error("the peer has been silent for too long")]
    Silent,
    #[error("the peer opened a newer connection")]
    Replaced,
    #[error("the peer was removed")]
    Removed,
    #[error("this node shuts down")]
    Shutdown,
}

impl From<io::Error> for Close {
    fn from(err: io::Error) -> Self {
        Self::Lost(Arc::new(err))
    }
}

/// What the two ends of a connection do with frames: the client completes calls, the server takes requests.
pub(super) trait Role {
    /// Takes the frames of one read, in order, and empties the list.
    fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Close>;

    /// Whether the socket may be read now. Only what the writer does may turn a no into a yes.
    fn may_read(&self) -> bool;

    /// Keeps what should still be written, and notes it as written from here on.
    fn sending(&mut self, frames: &mut Vec<Out>, now: Instant);

    /// `read` and `written` bytes passed.
    fn moved(&mut self, read: usize, written: usize);

    /// All that was last kept in [`Role::sending`] has left.
    fn left(&mut self) {}
}

/// An open connection: its socket, what was read beyond the handshake, its stamp, and who we said we are.
pub(super) struct Open {
    pub(super) stream: Stream,
    pub(super) buf: BytesMut,
    pub(super) stamp: Stamp,
    pub(super) told: Arc<Identity>,
}

/// Moves frames until the connection ends, and says why it did.
pub(super) async fn run<R: Role>(open: Open, outbox: &Outbox, role: &mut R) -> Close {
    let mut pump = Pump {
        open,
        outbox,
        role,
        batch: Batch::default(),
        taken: Vec::new(),
        frames: Vec::new(),
        fresh: true,
    };
    let why = poll_fn(|cx| pump.poll(cx)).await;
    outbox.abandon(&why);
    why
}

struct Pump<'a, R> {
    open: Open,
    outbox: &'a Outbox,
    role: &'a mut R,
    batch: Batch,
    taken: Vec<Out>,
    frames: Vec<Frame>,
    /// The buffer may hold whole frames that came behind the handshake.
    fresh: bool,
}

impl<R: Role> Pump<'_, R> {
    /// Ends in `Pending` because each round moves bytes, and a socket that always has some is made to
    /// pause by tokio's cooperative budget.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        self.outbox.register(cx.waker());
        loop {
            let moved = match self.round(cx) {
                Ok(moved) => moved,
                Err(why) => return Poll::Ready(why),
            };
            if let Some(why) = self.outbox.ended() {
                return Poll::Ready(why);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        let read = self.role.may_read() && self.read(cx)?;
        let wrote = self.write(cx)?;
        Ok(read || wrote)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        if std::mem::take(&mut self.fresh) {
            self.parse()?;
        }
        let buf = &mut self.open.buf;
        if buf.capacity() - buf.len() < READ_LEAST_BYTES {
            buf.reserve(READ_BYTES);
        }
        match pin!(self.open.stream.read_buf(buf)).poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(Close::Ended),
            Poll::Ready(Ok(bytes)) => {
                self.role.moved(bytes, 0);
                self.parse()?;
                Ok(true)
            }
            Poll::Ready(Err(err)) => Err(err.into()),
        }
    }

    /// Hands on all whole frames in the buffer.
    fn parse(&mut self) -> Result<(), Close> {
        let agreed = self.open.stamp.version;
        while let Some(frame) = wire::decode(&mut self.open.buf, MAX_FRAME_BYTES)? {
            let got = frame.version;
            if got != agreed {
                return Err(BadFrame::Version { got, agreed }.into());
            }
            if frame.session == self.open.stamp.session {
                self.frames.push(frame);
            }
        }
        if !self.frames.is_empty() {
            self.role.receive(&mut self.frames)?;
        }
        Ok(())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        // Ends: each round takes frames, or there are none left.
        while self.batch.is_empty() {
            if !self.fill() {
                return Ok(false);
            }
        }
        let stream = Pin::new(&mut self.open.stream);
        let written = self
            .batch
            .with_slices(|slices| stream.poll_write_vectored(cx, slices));
        match written {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(Close::Ended),
            Poll::Ready(Ok(bytes)) => {
                self.role.moved(0, bytes);
                if let Some((frames, size)) = self.batch.advance(bytes) {
                    self.outbox.release(frames, size);
                    self.role.left();
                }
                Ok(true)
            }
            Poll::Ready(Err(err)) => Err(err.into()),
        }
    }

    /// Puts queued frames into the batch; false if there are none.
    fn fill(&mut self) -> bool {
        self.outbox.take(&mut self.taken);
        if self.taken.is_empty() {
            return false;
        }
        let now = Instant::now();
        let (count, size) = (self.taken.len(), size_of_all(&self.taken));
        self.role.sending(&mut self.taken, now);
        let kept = (self.taken.len(), size_of_all(&self.taken));
        if kept.0 < count {
            self.outbox.release(count - kept.0, size - kept.1);
        }
        for frame in self.taken.drain(..) {
            self.batch.push(frame, self.open.stamp, now);
        }
        self.batch.seal();
        true
    }
}

fn size_of_all(frames: &[Out]) -> usize {
    frames.iter().map(Out::size).sum()
}
