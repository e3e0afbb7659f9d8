//! The node's platform on this machine, for one module, without a node.
//!
//! The module is compiled in the child process that a node would start, and what that leaves lies in a folder of its
//! own until this value is dropped.

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::dev::executable;
use super::super::failure::Failure;
use crate::resolver::{Admitted, Platform, Settings};

/// A module that a node would take.
pub(in super::super) struct Local {
    pub(in super::super) platform: Platform,
    pub(in super::super) runtime: Runtime,
    pub(in super::super) admitted: Admitted,
    _folder: TempDir,
}

impl Local {
    /// Validates, wraps, compiles and starts the module, as an upload would.
    pub(in super::super) fn admit(bytes: Bytes) -> Result<Self, Failure> {
        let failed = |what: String| Failure::Failed(what);
        let folder = tempfile::tempdir().map_err(|source| Failure::File {
            doing: "create a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        let platform = Platform::open(Settings::new(folder.path(), executable()?));
        let platform = platform.map_err(|error| failed(error.to_string()))?;
        let runtime = Runtime::new().map_err(|error| failed(error.to_string()))?;
        let admitted = runtime.block_on(platform.admit(bytes));
        Ok(Self {
            admitted: admitted.map_err(|refusal| failed(refusal.to_string()))?,
            platform,
            runtime,
            _folder: folder,
        })
    }
}
