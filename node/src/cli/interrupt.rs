//! Ctrl-C and termination signals, as something to ask and to wait for.
//!
//! The first signal only sets a flag, so that whoever holds child processes stops them in order. The second one
//! ends the process at once; nodes started by it see their standard input close and stop by themselves.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::failure::{Failure, INTERRUPTED};

/// Set once a signal came.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt {
    came: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// Starts to listen, on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread or no signal handler.
    pub(super) fn listen() -> Result<Interrupt, Failure> {
        let source = |source| Failure::File {
            doing: "listen for",
            path: "signals".into(),
            source,
        };
        let interrupt = Interrupt::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(source)?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new().map_err(source)?
        };
        let told = interrupt.clone();
        let listen = move || runtime.block_on(told.follow(signals));
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(listen)
            .map_err(source)?;
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub(super) fn came(&self) -> bool {
        *self.came.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if a signal came.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.came() {
            Err(Failure::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Waits for that time or for a signal, whichever is first. True if a signal came.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let (flag, changed) = &*self.came;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, time, |came| !*came);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    async fn follow(self, mut signals: Signals) {
        signals.next().await;
        *self.came.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.came.1.notify_all();
        signals.next().await;
        std::process::exit(INTERRUPTED.into());
    }
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
