//! A resolver project: the folder with `resolver.json`, and what that file says.
//!
//! The manifest holds shell commands, as a `package.json` does: who builds a project trusts it. Tools are looked for in
//! the project's own `.venv` and `node_modules` first, so that nothing must be installed for the whole machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::super::failure::Failure;
use super::super::resolver::read_file;

/// The manifest's name.
pub(super) const MANIFEST: &str = "resolver.json";

/// Where a project's own tools lie.
const OWN_TOOLS: [&str; 2] = [".venv/bin", "node_modules/.bin"];

/// A project on this machine.
pub(super) struct Project {
    dir: PathBuf,
    pub(super) manifest: Manifest,
}

/// What `resolver.json` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The resolver's name on a cluster.
    pub(super) name: String,
    /// What it is written in; for people.
    pub(super) language: String,
    /// Tools that building needs.
    #[serde(default)]
    pub(super) needs: Vec<Need>,
    /// Shell commands, one after the other, in the project's folder.
    pub(super) build: Vec<String>,
    /// The module that they make.
    output: PathBuf,
}

/// A tool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Need {
    /// Its name, for people.
    pub(super) tool: String,
    /// A shell command that succeeds if it is there.
    pub(super) check: String,
    /// How to get it.
    pub(super) get: String,
}

impl Project {
    /// Reads the manifest of a folder.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            return Err(Failure::Usage(format!(
                "{} has no {MANIFEST}: is it a resolver's project? `sibyl resolver new` makes one",
                dir.display()
            )));
        }
        let manifest = serde_json::from_slice(&read_file(&path)?);
        let manifest = manifest
            .map_err(|error| Failure::Usage(format!("{} is wrong: {error}", path.display())))?;
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }

    /// The module that building makes.
    pub(super) fn output(&self) -> PathBuf {
        self.dir.join(&self.manifest.output)
    }

    /// The folder with test cases.
    pub(super) fn cases(&self) -> PathBuf {
        self.dir.join("cases")
    }

    /// A shell that runs one command in the folder and stops at its first failure.
    pub(super) fn shell(&self, command: &str) -> Result<Command, Failure> {
        let mut shell = Command::new("sh");
        shell
            .args(["-eu", "-c", command])
            .current_dir(&self.dir)
            .env("PATH", self.search_path()?);
        Ok(shell)
    }

    fn search_path(&self) -> Result<OsString, Failure> {
        let dir = std::path::absolute(&self.dir).map_err(|source| Failure::File {
            doing: "find",
            path: self.dir.clone(),
            source,
        })?;
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let own = OWN_TOOLS.iter().map(|tools| dir.join(tools));
        std::env::join_paths(own.chain(std::env::split_paths(&inherited))).map_err(|error| {
            Failure::Usage(format!("{} cannot be in PATH: {error}", dir.display()))
        })
    }
}
