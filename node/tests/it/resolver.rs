//! The resolver platform from outside: uploads, refusals, limits, the cache, hostile compilers.
//!
//! Guests are WAT, a screen at most, made by `fixture`. Every test opens a platform of its own on a fresh
//! directory with this build's binary as compile child; `Bench` is the only one that knows the API.

mod cache;
pub(crate) mod fixture;
mod limits;
mod outcome;
mod refusals;
mod uploads;
mod virtual_wasi;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sibyl::resolver::{Admitted, Call, Input, Limits, Platform, Refusal, Report, Settings};
use sibyl_core::id::Digest;
use tempfile::TempDir;

/// A platform on a directory of its own.
struct Bench {
    platform: Platform,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let platform = open(dir.path(), change);
        Self { platform, dir }
    }

    /// The same directory after a restart of the node.
    fn restarted(self) -> Self {
        let Self { platform, dir } = self;
        drop(platform);
        let platform = open(dir.path(), |_| {});
        Self { platform, dir }
    }

    async fn upload(&self, bytes: impl Into<Bytes>) -> Result<Admitted, Refusal> {
        self.platform.admit(bytes.into()).await
    }

    async fn accepted(&self, bytes: impl Into<Bytes>) -> Digest {
        self.upload(bytes)
            .await
            .expect("a good resolver is taken")
            .digest
    }

    /// Uploads a guest and merges `siblings` with it.
    async fn merged(&self, wat: &str, siblings: &[&str], limits: Limits) -> Report {
        let digest = self.accepted(wat.to_owned()).await;
        self.platform.resolve_now(&digest, &call(siblings, limits))
    }

    fn compiled_files(&self) -> Vec<PathBuf> {
        let files =
            std::fs::read_dir(self.dir.path().join("compiled")).expect("the cache directory");
        files.map(|entry| entry.expect("an entry").path()).collect()
    }
}

fn open(dir: &Path, change: impl FnOnce(&mut Settings)) -> Platform {
    let mut settings = Settings::new(dir, env!("CARGO_BIN_EXE_sibyl"));
    settings.permits = 2;
    settings.compile_timeout = Duration::from_secs(60);
    change(&mut settings);
    Platform::open(settings).expect("the platform starts")
}

fn call(siblings: &[&str], limits: Limits) -> Call {
    let inputs = siblings.iter().enumerate().map(|(index, value)| Input {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        modified_at: 1_000 + index as u64,
        attributes: vec![("content-type".to_owned(), "text/plain".to_owned())],
    });
    Call {
        bucket: "carts".to_owned(),
        key: Bytes::from_static(b"k"),
        config: Some("{}".to_owned()),
        siblings: inputs.collect(),
        limits,
    }
}
