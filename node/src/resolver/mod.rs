//! The resolver platform: takes uploaded WebAssembly, compiles it safely, and merges siblings with it.
//!
//! The only door to wasmtime and its family. Uploads are judged and compiled in a child process, compiled
//! code is cached under a MAC, and every call gets a fresh instance with limits. The platform decides nothing
//! about data: whatever goes wrong is a [`Failure`], and then the siblings stay. It knows no bucket, registry
//! or HTTP, and compiles nothing on the path of a request: [`Platform::resolve`] needs [`Platform::prepare`].

mod admission;
mod bindings;
mod call;
mod child;
mod compile;
mod disk;
mod engine;
mod inspect;
mod loaded;
mod refusal;
mod sandbox;
mod settings;
mod shelf;
mod virtual_wasi;
mod workers;
mod wrap;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sibyl_core::id::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use wasmtime::Engine;
use wasmtime::component::Linker;

pub use admission::Kind;
pub use bindings::WIT;
pub use call::{
    BadIndex, Call, Description, Failure, Input, Level, Limits, LogLine, Report, Resolution,
};
pub use child::{COMPILE_COMMAND, compile_child};
pub use engine::FUEL_SCHEDULE;
pub use refusal::{Import, Refusal};
pub use settings::{OpenError, Settings, UPLOAD_BYTES_MAX};
pub use shelf::ModuleState;
pub use workers::quietly;

use child::Artifact;
use compile::Compiler;
use disk::Disk;
use loaded::Loaded;
use sandbox::Guest;
use shelf::{Shelf, Turn};
use workers::Workers;

/// Calls that may wait for each permit: at a millisecond each, the last waits 16 of them.
const WAITING_PER_PERMIT: usize = 16;

/// Law checks that run or wait: at ten seconds each, the last waits for well over a minute.
const CHECKS_WAITING: usize = 8;

/// How long a call waits for a permit before it is overload; a request has little more.
const PERMIT_WAIT: Duration = Duration::from_secs(2);

/// Why a resolver is not ready on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The node does not have the bytes.
    #[error("this node does not have the bytes of the resolver: fetch and keep them first")]
    Absent,
    /// The bytes are not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// An upload that was taken: kept, compiled and ready on this node.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// SHA-256 of the uploaded bytes: the version.
    pub digest: Digest,
    /// In which form it came.
    pub kind: Kind,
    /// How many bytes came.
    pub bytes: u64,
    /// What it says of itself, if it does.
    pub description: Option<Description>,
    /// The optional interfaces it exports: `describe`, `check-config`, `check-value`, `sampling`.
    pub optional: Vec<&'static str>,
    /// From the start of the child until it was ready; next to nothing for bytes that were ready before.
    pub compile: Duration,
}

/// The platform; a clone is the same one. Async functions need a Tokio runtime.
#[derive(Clone)]
pub struct Platform {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linker: Linker<Guest>,
    disk: Disk,
    compiler: Compiler,
    /// Where merges run that take long.
    workers: Workers,
    shelf: Shelf,
    permits: Semaphore,
    /// Permits, and places in the queue for them.
    places: Semaphore,
    /// One module is loaded at a time: the pool has one place for its trial.
    loading: Semaphore,
    /// One law check runs at a time in each lane: the pool has a place for its calls.
    checks: [Arc<Semaphore>; 2],
    /// Checks that run or wait.
    check_places: Semaphore,
}

/// Where a law check waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Somebody waits for the answer.
    Short,
    /// It may take minutes.
    Long,
}

/// A ready module with the platform's place for law checks, until it is dropped. Every call takes a fresh instance on
/// the calling thread.
pub struct Checker {
    loaded: Arc<Loaded>,
    _turn: OwnedSemaphorePermit,
}

impl Checker {
    /// Merges.
    pub fn resolve(&self, call: &Call) -> Report {
        self.loaded.resolve(call)
    }

    /// As [`Platform::check_value`].
    ///
    /// # Errors
    /// The check failed, which says nothing about the value.
    pub fn check_value(&self, call: &Call) -> Result<Result<(), String>, Failure> {
        self.loaded.check_value(call)
    }

    /// What its `sampling` makes of these bytes; `None` if it has none.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn sample(&self, entropy: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.loaded.sample(entropy)
    }

    /// The first media type that it describes.
    pub fn media_type(&self) -> Option<String> {
        let description = self.loaded.description.as_ref().ok()?.as_ref()?;
        description.media_types.first().cloned()
    }
}

/// Keeps a module's bytes for a platform that will be opened on this directory later.
///
/// # Errors
/// That of the system.
pub fn keep_offline(dir: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    disk::keep_offline(dir, bytes)
}

impl Platform {
    /// Starts the engine and opens the directory. Nothing is compiled.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let permits = u32::try_from(settings.permits)
            .ok()
            .filter(|permits| (1..=256).contains(permits));
        let permits = permits.ok_or(OpenError::Permits(settings.permits))?;
        let engine = engine::executing(permits + 3).map_err(OpenError::Engine)?;
        let linker = sandbox::linker(&engine).map_err(OpenError::Engine)?;
        let disk = Disk::open(&settings.dir, engine::fingerprint(&engine))?;
        let compiler = Compiler::new(
            settings.compiler,
            settings.compile_timeout,
            settings.compile_memory_bytes,
        );
        let inner = Inner {
            engine,
            linker,
            disk,
            compiler,
            workers: Workers::start()?,
            shelf: Shelf::new(settings.loaded_bytes),
            permits: Semaphore::new(settings.permits),
            places: Semaphore::new(settings.permits * (1 + WAITING_PER_PERMIT)),
            loading: Semaphore::new(1),
            checks: [Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1))],
            check_places: Semaphore::new(CHECKS_WAITING),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Judges an upload. If it is taken, its bytes are kept on disk and it is ready on this node.
    pub async fn admit(&self, bytes: Bytes) -> Result<Admitted, Refusal> {
        let started = Instant::now();
        let length = bytes.len() as u64;
        if length > UPLOAD_BYTES_MAX {
            return Err(Refusal::TooLarge {
                bytes: length,
                limit: UPLOAD_BYTES_MAX,
            });
        }
        if bytes.is_empty() {
            return Err(Refusal::Empty);
        }
        let digest = Digest::of(&bytes);
        self.inner.shelf.retry(&digest);
        let loaded = self.ready(digest, bytes.clone()).await?;
        let description = loaded
            .description
            .clone()
            .map_err(|failure| self.undo(&digest, &failure))?;
        let platform = self.clone();
        blocking(move || platform.keep(digest, &bytes))
            .await
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        Ok(Admitted {
            digest,
            kind: loaded.kind,
            bytes: length,
            description,
            optional: loaded.optional.clone(),
            compile: started.elapsed(),
        })
    }

    /// Takes back what admitting left of a module that cannot describe itself, unless another node admitted it.
    fn undo(&self, digest: &Digest, failure: &Failure) -> Refusal {
        if !self.inner.disk.is_kept(digest)
            && let Err(error) = self.forget(digest)
        {
            tracing::warn!(%error, %digest, "compiled code of a refused resolver stays on disk");
        }
        Refusal::Trial(format!("describe: {failure}"))
    }

    /// Keeps module bytes that another node admitted. Fails with `InvalidData` if they are not `digest`.
    pub fn keep(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        self.inner.shelf.retry(&digest);
        self.inner.disk.keep(&digest, bytes)
    }

    /// The kept bytes of a module, verified; none if this node does not have them.
    pub fn bytes(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        Ok(self.inner.disk.bytes(digest)?.map(Bytes::from))
    }

    /// Removes a module from this node: bytes, compiled code, memory. Calls that run finish.
    pub fn forget(&self, digest: &Digest) -> io::Result<()> {
        self.inner.shelf.remove(digest);
        self.inner.disk.forget(digest)
    }

    /// The modules whose bytes this node kept, and was not told to keep anew, for so long.
    pub fn kept_for(&self, age: Duration) -> io::Result<Vec<Digest>> {
        self.inner.disk.kept_for(age)
    }

    /// Makes a module whose bytes are kept ready to be called; at once if it is.
    ///
    /// Callers at the same time share one compilation, which goes on if they leave. A module that was refused
    /// stays refused until it is admitted or kept anew, or the node restarts.
    pub async fn prepare(&self, digest: Digest) -> Result<(), PrepareError> {
        if self.inner.shelf.get(&digest).is_some() {
            return Ok(());
        }
        let platform = self.clone();
        let bytes = blocking(move || platform.bytes(&digest)).await;
        let bytes = bytes
            .map_err(|error| Refusal::Unavailable(error.to_string()))?
            .ok_or(PrepareError::Absent)?;
        self.ready(digest, bytes).await?;
        Ok(())
    }

    /// What this node has of a module.
    pub fn state(&self, digest: &Digest) -> ModuleState {
        self.inner.shelf.state(digest).unwrap_or_else(|| {
            if self.inner.disk.is_kept(digest) {
                ModuleState::Kept
            } else {
                ModuleState::Absent
            }
        })
    }

    /// What a ready module says of itself.
    pub fn describe(&self, digest: &Digest) -> Option<Description> {
        self.inner
            .shelf
            .get(digest)?
            .description
            .clone()
            .ok()
            .flatten()
    }

    /// How many compilations this node has started since it started.
    pub fn compilations(&self) -> u64 {
        self.inner.compiler.started()
    }

    /// Merges on the calling thread, for as long as the limits allow. Never waits: without a permit it is overload.
    pub fn resolve_now(&self, digest: &Digest, call: &Call) -> Report {
        let Some(loaded) = self.inner.shelf.get(digest) else {
            return Report::refused(Failure::MissingModule);
        };
        match self.inner.permits.try_acquire() {
            Ok(_permit) => loaded.resolve(call),
            Err(_) => Report::refused(Failure::Overload),
        }
    }

    /// Merges: at once if it is likely to be over in a moment, else on a thread for guests, which gives way to requests.
    ///
    /// A caller that leaves does not stop a merge that runs; its limits do.
    pub async fn resolve(&self, digest: Digest, call: Call) -> Report {
        let Some(loaded) = self.inner.shelf.get(&digest) else {
            return Report::refused(Failure::MissingModule);
        };
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(failure) => return Report::refused(failure),
        };
        if let Some(report) = loaded.resolve_inline(&call) {
            return report;
        }
        drop(permit);
        self.on_thread(move || loaded.resolve(&call))
            .await
            .unwrap_or_else(Report::refused)
    }

    /// Asks a ready module whether a bucket's configuration is good. The outer error is a check that failed.
    pub async fn check_config(
        &self,
        digest: Digest,
        config: String,
    ) -> Result<Result<(), String>, Failure> {
        self.checked(digest, move |loaded| loaded.check_config(&config))
            .await
    }

    /// Asks a ready module whether a value may be written: the only sibling of `call`. The outer error is a
    /// check that failed, which says nothing about the value.
    pub async fn check_value(
        &self,
        digest: Digest,
        call: Call,
    ) -> Result<Result<(), String>, Failure> {
        self.checked(digest, move |loaded| loaded.check_value(&call))
            .await
    }

    async fn checked(
        &self,
        digest: Digest,
        check: impl FnOnce(&Loaded) -> Result<Result<(), String>, Failure> + Send + 'static,
    ) -> Result<Result<(), String>, Failure> {
        let loaded = self.inner.shelf.get(&digest);
        let loaded = loaded.ok_or(Failure::MissingModule)?;
        self.on_thread(move || check(&loaded)).await?
    }

    /// A ready module for a law check, which calls it many times on a thread of its own. One check runs at a time
    /// in each lane, and has a place of its own, so that it takes none from merges; others wait here.
    ///
    /// # Errors
    /// The module is not ready, or so many checks wait already.
    pub async fn checker(&self, digest: &Digest, lane: Lane) -> Result<Checker, Failure> {
        let _place = self
            .inner
            .check_places
            .try_acquire()
            .map_err(|_| Failure::Overload)?;
        let turn = Arc::clone(&self.inner.checks[lane as usize])
            .acquire_owned()
            .await;
        let turn = turn.map_err(|_| Failure::Overload)?;
        self.checker_of(digest, turn)
    }

    /// The same in the short lane, at once or not at all.
    ///
    /// # Errors
    /// The module is not ready, or another check runs.
    pub fn checker_now(&self, digest: &Digest) -> Result<Checker, Failure> {
        let turn = Arc::clone(&self.inner.checks[Lane::Short as usize]).try_acquire_owned();
        self.checker_of(digest, turn.map_err(|_| Failure::Overload)?)
    }

    fn checker_of(&self, digest: &Digest, turn: OwnedSemaphorePermit) -> Result<Checker, Failure> {
        let loaded = self.inner.shelf.get(digest);
        Ok(Checker {
            loaded: loaded.ok_or(Failure::MissingModule)?,
            _turn: turn,
        })
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let _place = self
            .inner
            .places
            .try_acquire()
            .map_err(|_| Failure::Overload)?;
        let permit = tokio::time::timeout(PERMIT_WAIT, self.inner.permits.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(Failure::Overload)
    }

    /// Runs a guest on a thread for guests, with a permit.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        // The thread needs its own: a caller that leaves must not free the place of a guest that runs.
        self.permit().await?.forget();
        let returned = Returned(self.clone());
        let done = self.inner.workers.run(move || {
            let _returned = returned;
            work()
        });
        Ok(done.await)
    }

    /// The module, loaded; compiled first if need be.
    async fn ready(&self, digest: Digest, bytes: Bytes) -> Result<Arc<Loaded>, Refusal> {
        match self.inner.shelf.turn(&digest) {
            Turn::Done(outcome) => outcome,
            Turn::Wait(waiting) => waiting.outcome().await,
            Turn::Make(making, waiting) => {
                let platform = self.clone();
                // Detached: others wait for it, and a client that leaves shall not waste the work.
                tokio::spawn(async move {
                    making.finish(&platform.inner.shelf, platform.make(digest, bytes).await);
                });
                waiting.outcome().await
            }
        }
    }

    async fn make(&self, digest: Digest, bytes: Bytes) -> Result<Loaded, Refusal> {
        let platform = self.clone();
        if let Some(artifact) = blocking(move || platform.inner.disk.code(&digest)).await {
            return self.load(artifact).await;
        }
        let artifact = Arc::new(self.inner.compiler.compile(bytes).await?);
        let loaded = self.load_shared(artifact.clone()).await?;
        let platform = self.clone();
        let kept = blocking(move || platform.inner.disk.keep_code(&digest, &artifact)).await;
        if let Err(error) = kept {
            // It works now; the next start compiles it again.
            tracing::warn!(%error, %digest, "compiled resolver not cached");
        }
        Ok(loaded)
    }

    async fn load(&self, artifact: Artifact) -> Result<Loaded, Refusal> {
        self.load_shared(Arc::new(artifact)).await
    }

    async fn load_shared(&self, artifact: Arc<Artifact>) -> Result<Loaded, Refusal> {
        let _turn = self
            .inner
            .loading
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let platform = self.clone();
        blocking(move || Loaded::load(&platform.inner.engine, &platform.inner.linker, &artifact))
            .await
    }
}

/// Gives a forgotten permit back on drop.
struct Returned(Platform);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.inner.permits.add_permits(1);
    }
}

/// Runs blocking work; a panic in it goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match crate::outside::aside(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("blocking work that was started is never cancelled"),
        },
    }
}
