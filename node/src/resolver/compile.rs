//! The node's side of compilation: starts the child, feeds it, and does not believe it.
//!
//! One child at a time, a bounded queue before it, a wall-clock limit on it. However it dies, the module is
//! refused and the node goes on. Nothing here looks into the module.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::call::bounded;
use super::child::{Artifact, COMPILE_COMMAND, from_frame};
use super::refusal::Refusal;

/// Children at a time: each may take a core and the whole memory limit.
const CHILDREN_MAX: usize = 1;

/// Modules that may wait for the child: at 5 s each, the last waits five minutes.
const WAITING_MAX: u64 = 64;

/// Compiled code of one module; the largest seen (Python) has 38 MB.
const CODE_BYTES_MAX: u64 = 256 << 20;

/// What is kept of the child's last words.
const LAST_WORDS_BYTES_MAX: u64 = 4 << 10;

/// How much address space the child's allocator takes at a time, in KiB, by the name it reads. Its own step of
/// 1 GiB would count in full towards the child's limit before anything is compiled.
const ALLOCATOR_STEP: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "32768");

/// Starts compile children and counts them.
pub(super) struct Compiler {
    program: PathBuf,
    timeout: Duration,
    memory_bytes: u64,
    gate: Semaphore,
    waiting: AtomicU64,
    started: AtomicU64,
}

impl Compiler {
    pub(super) fn new(program: PathBuf, timeout: Duration, memory_bytes: u64) -> Self {
        Self {
            program,
            timeout,
            memory_bytes,
            gate: Semaphore::new(CHILDREN_MAX),
            waiting: AtomicU64::new(0),
            started: AtomicU64::new(0),
        }
    }

    /// How many children were started since the node started.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Compiles one module when its turn comes.
    pub(super) async fn compile(&self, module: Bytes) -> Result<Artifact, Refusal> {
        let place = Waiting::take(&self.waiting)?;
        let turn = self.gate.acquire().await.expect("the gate is never closed");
        drop(place);
        self.started.fetch_add(1, Ordering::Relaxed);
        let child = self
            .spawn()
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        // Dropping the child at the limit kills it.
        let made = tokio::time::timeout(self.timeout, self.converse(child, module)).await;
        drop(turn);
        made.unwrap_or(Err(self.too_slow()))
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let cpu_seconds = self.timeout.as_secs().max(1);
        Command::new(&self.program)
            .arg(COMPILE_COMMAND)
            .arg(self.memory_bytes.to_string())
            .arg(cpu_seconds.to_string())
            .env_clear()
            .env(ALLOCATOR_STEP.0, ALLOCATOR_STEP.1)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    async fn converse(&self, mut child: Child, module: Bytes) -> Result<Artifact, Refusal> {
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three are piped in spawn");
        };
        let feed = async move {
            // A child that refuses early closes its end; what it says is on the other pipes.
            let _ = stdin.write_all(&module).await;
        };
        let ((), frame, words) = tokio::join!(
            feed,
            read(stdout, CODE_BYTES_MAX),
            read(stderr, LAST_WORDS_BYTES_MAX)
        );
        let status = child
            .wait()
            .await
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        match from_frame(&frame) {
            Some(made) if status.success() => made,
            _ => Err(self.died(status, &String::from_utf8_lossy(&words))),
        }
    }

    /// Why there is no frame.
    fn died(&self, status: ExitStatus, words: &str) -> Refusal {
        if status.signal() == Some(Signal::XCPU.as_raw()) {
            return self.too_slow();
        }
        let no_memory = [
            "memory allocation of",
            "Cannot allocate memory",
            "out of memory",
        ];
        if no_memory.iter().any(|text| words.contains(text)) {
            return Refusal::CompileMemory {
                limit_bytes: self.memory_bytes,
            };
        }
        Refusal::CompilerCrashed(bounded(format!("{status}. {}", words.trim()).trim()))
    }

    fn too_slow(&self) -> Refusal {
        let limit_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        Refusal::CompileTime { limit_ms }
    }
}

async fn read(from: impl AsyncRead + Unpin, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A broken pipe shows as a frame that is cut off.
    let _ = from.take(limit).read_to_end(&mut bytes).await;
    bytes
}

/// A place in the queue, given back on drop.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn take(waiting: &'a AtomicU64) -> Result<Self, Refusal> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        if before >= WAITING_MAX {
            Err(Refusal::Busy { waiting: before })
        } else {
            Ok(place)
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
