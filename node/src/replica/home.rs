//! Where the writer lives, and how one waits for it.
//!
//! It has a thread of its own, since disks block, and waits for nothing but commands there. Over a stand-in for
//! the disk (`outside.rs`) it also waits for each sync, and is a task beside all others; nobody can wait for it
//! there without letting it run, so what blocks here has no place in such a run.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use sibyl_core::message::Failure;
use tokio::sync::{mpsc, oneshot};

use super::{Command, Done, Facts, Replica, Writer};
use crate::outside;

/// Lets it begin; its thread, if it has one.
pub(super) fn begin(
    writer: Writer,
    mut commands: mpsc::Receiver<Command>,
) -> Option<JoinHandle<()>> {
    let writing = async move {
        // Said before the queue is given up: who waits there is to find out why.
        let _last_words = LastWords(Arc::clone(&writer.facts));
        writer.run(&mut commands).await;
    };
    if outside::is_replaced() {
        tokio::spawn(writing);
        return None;
    }
    let thread = thread::Builder::new().name("sibyl-writer".into());
    let thread = thread.spawn(move || stay(writing));
    Some(thread.expect("a thread can be had at start"))
}

/// Tells the node if the writer panics: nothing could be written any more, and nobody would know why.
struct LastWords(Arc<Facts>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the writer panicked".into());
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Stays on this thread until it ends.
fn stay(future: impl Future<Output = ()>) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    while future.as_mut().poll(&mut cx) == Poll::Pending {
        thread::park();
    }
}

impl Replica {
    /// Waits until the queue is empty and the thread has ended; call it when nobody submits any more.
    pub fn stop(self) {
        let Self {
            store: _,
            queue,
            facts,
        } = self;
        drop(queue);
        let thread = facts
            .thread
            .lock()
            .expect("nobody panics while holding it")
            .take();
        if let Some(thread) = thread {
            // A panic of the writer was reported where it happened.
            let _ended = thread.join();
        }
    }

    /// Puts everything applied so far on disk, `buffered` writes included. Blocks.
    ///
    /// # Errors
    /// If the store failed.
    pub fn flush(&self) -> Result<(), Failure> {
        self.in_turn(|counts| Command::Flush { counts })
    }

    /// As [`Replica::flush`], and says on disk that the store was closed in order. Call it last.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn shut(&self) -> Result<(), Failure> {
        let (done, shut) = oneshot::channel();
        let counts = Box::new(move |result| drop(done.send(result)));
        let submitted = self.queue.send(Command::Shut { counts }).await;
        submitted.map_err(|_| self.stopped())?;
        shut.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Waits for the writer. Blocks.
    pub(super) fn in_turn(&self, command: impl FnOnce(Done<()>) -> Command) -> Result<(), Failure> {
        assert!(
            !outside::is_replaced(),
            "the writer is a task of this thread, which would wait for itself"
        );
        let (done, flushed) = std::sync::mpsc::sync_channel(1);
        let counts = Box::new(move |result| drop(done.send(result)));
        self.submit_in_turn(command(counts));
        flushed.recv().unwrap_or_else(|_| Err(self.stopped()))
    }

    /// As [`Replica::submit`], but blocks while the queue is full.
    fn submit_in_turn(&self, command: Command) {
        use mpsc::error::TrySendError;
        let refused = match self.queue.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => self
                .queue
                .blocking_send(command)
                .err()
                .map(|refused| refused.0),
            Err(TrySendError::Closed(command)) => Some(command),
        };
        if let Some(command) = refused {
            command.refuse(&self.stopped());
        }
    }
}
