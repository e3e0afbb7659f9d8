//! Threads for guests that take long: few, and behind everything that answers requests.
//!
//! A resolver may burn fuel for a tenth of a second and more, on as many calls as there are permits. On threads like any
//! other, requests that have nothing to do with it would get what is left of the processors. Here it is the other way
//! round. Lowering a thread's priority is for good, so these threads do nothing else.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use rustix::process::nice;
use tokio::sync::oneshot;

use crate::outside;

/// Added to the niceness of the node: a tenth of what a request's thread gets where both want to run.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// As many threads as there are processors. They end with the platform.
pub(super) struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors {
            let waiting = Arc::clone(&waiting);
            spawn(move || {
                loop {
                    let job = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    match job {
                        Ok(job) => job(),
                        Err(mpsc::RecvError) => return,
                    }
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Does it on one of the threads; a panic in it goes on in the caller. Callers hold permits, which bound the queue.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if outside::is_replaced() {
            return work();
        }
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move || answered(done, work));
        self.jobs
            .send(job)
            .expect("the threads wait as long as the platform is there");
        given(answer).await
    }
}

/// Does what takes seconds on a thread of its own, behind everything that answers requests.
///
/// # Errors
/// The system gives no thread.
pub async fn quietly<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if outside::is_replaced() {
        return Ok(work());
    }
    let (done, answer) = oneshot::channel();
    spawn(move || answered(done, work))?;
    Ok(given(answer).await)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let lowered = move || {
        if let Err(error) = nice(NICENESS) {
            tracing::warn!(%error, "resolvers run as if they were requests");
        }
        work();
    };
    thread::Builder::new()
        .name("resolvers".to_owned())
        .spawn(lowered)?;
    Ok(())
}

type Answered<T> = Result<T, Box<dyn Any + Send>>;

fn answered<T>(done: oneshot::Sender<Answered<T>>, work: impl FnOnce() -> T) {
    // Nobody may wait any more: then nobody wants to know.
    let _gone = done.send(catch_unwind(AssertUnwindSafe(work)));
}

async fn given<T>(answer: oneshot::Receiver<Answered<T>>) -> T {
    match answer
        .await
        .expect("every job is done, or panics and says so")
    {
        Ok(done) => done,
        Err(panic) => resume_unwind(panic),
    }
}
