//! How a platform is set up, and why it may not start.
//!
//! Values only. What a bucket may choose is in `call::Limits`; what every node must have alike is in `engine`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The largest upload, in bytes.
pub const UPLOAD_BYTES_MAX: u64 = 32 << 20;

/// How the platform is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where module bytes, compiled code and the node's key live; one node at a time.
    pub dir: PathBuf,
    /// The program that serves [`COMPILE_COMMAND`]: the node's own.
    pub compiler: PathBuf,
    /// How many resolvers run at a time, 1 to 256; each reserves 16 GiB of address space, not memory.
    pub permits: usize,
    /// Wall-clock and processor limit of one compilation, 1 s or more.
    pub compile_timeout: Duration,
    /// Address-space limit of one compilation, in bytes.
    pub compile_memory_bytes: u64,
    /// Compiled code held ready, in bytes; what was not called for longest goes first.
    pub loaded_bytes: u64,
}

impl Settings {
    /// Four permits for each core, at least 16; 180 s and 4 GiB for a compilation; 1 GiB of code.
    pub fn new(dir: impl Into<PathBuf>, compiler: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            dir: dir.into(),
            compiler: compiler.into(),
            permits: (4 * cores).clamp(16, 256),
            compile_timeout: Duration::from_secs(180),
            compile_memory_bytes: 4 << 30,
            loaded_bytes: 1 << 30,
        }
    }
}

/// Why the platform cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The permits are none or too many.
    #[error("{0} resolvers at a time: choose 1 to 256")]
    Permits(usize),
    /// The engine does not start.
    #[error("the WebAssembly engine does not start: {0:#}")]
    Engine(wasmtime::Error),
    /// The directory cannot be used.
    #[error("the resolver directory cannot be used: {0}")]
    Disk(#[from] io::Error),
}
