//! The node's platform on this machine, for one module, without a node.
//!
//! The module is compiled in the child process that a node would start. Its code stays in the user's own cache folder
//! for an hour, so that `build`, `test` and `check` of one module compile it once; never in a project, since whoever
//! writes into the folder makes this process run what he likes. Where there is no such folder, or no use of it, a
//! temporary one does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::dev::executable;
use super::super::failure::Failure;
use crate::resolver::{Admitted, Platform, Refusal, Settings};

/// How long a module stays in the cache. Within it, code is bounded by the platform to 1 GiB, and bytes by how often
/// anybody builds: 30 times with Python are half a gigabyte.
const CACHED: Duration = Duration::from_secs(60 * 60);

/// A module that a node would take.
pub(in super::super) struct Local {
    pub(in super::super) platform: Platform,
    pub(in super::super) runtime: Runtime,
    pub(in super::super) admitted: Admitted,
    _folder: Option<TempDir>,
}

impl Local {
    /// Validates, wraps, compiles and starts the module, as an upload would.
    pub(in super::super) fn admit(bytes: Bytes) -> Result<Self, Failure> {
        let runtime = Runtime::new().map_err(|error| Failure::Failed(error.to_string()))?;
        if let Some(folder) = cache_folder()
            && let Ok(platform) = open(&folder)
        {
            let admitted = runtime.block_on(platform.admit(bytes.clone()));
            // Another run may be using the cache at this moment, or the disk is full; the module is not to blame.
            if !matches!(&admitted, Err(refusal) if refusal.is_transient()) {
                forget_old(&platform);
                return Self::of(platform, runtime, admitted, None);
            }
        }
        let folder = tempfile::tempdir().map_err(|source| Failure::File {
            doing: "create a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        let platform = open(folder.path())?;
        let admitted = runtime.block_on(platform.admit(bytes));
        Self::of(platform, runtime, admitted, Some(folder))
    }

    fn of(
        platform: Platform,
        runtime: Runtime,
        admitted: Result<Admitted, Refusal>,
        folder: Option<TempDir>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            admitted: admitted.map_err(|refusal| Failure::Failed(refusal.to_string()))?,
            platform,
            runtime,
            _folder: folder,
        })
    }
}

fn open(folder: &Path) -> Result<Platform, Failure> {
    Platform::open(Settings::new(folder, executable()?))
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// `$XDG_CACHE_HOME/sibyl/resolvers`, or that below `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let caches = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    caches
        .is_absolute()
        .then(|| caches.join("sibyl").join("resolvers"))
}

/// What stays although it is old is found again by the next run.
fn forget_old(platform: &Platform) {
    for digest in platform.kept_for(CACHED).unwrap_or_default() {
        let _ = platform.forget(&digest);
    }
}
