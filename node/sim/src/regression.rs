//! Plans kept as files: what once broke a promise, and what shows best why a rule is there.
//!
//! A seed means another plan whenever drawing changes; a file means the same for ever. Each lies in `regressions/`,
//! must hold today, and, if it names a bug of the zoo, must still catch that. A test replays them all, and
//! `sibyl-sim replay --plan FILE` one of them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::batch::{careful, careful_gossip};
use crate::gossip;
use crate::plan::Plan;
use crate::world::Report;
use crate::zoo::Bug;

/// A plan of either room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Of keys, copies and the registry.
    World(Plan),
    /// Of membership.
    Gossip(gossip::Plan),
}

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// What it is about, for whoever finds it broken.
    pub story: String,
    /// The bug of the zoo that it catches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catches: Option<String>,
    /// The plan.
    pub plan: Kept,
}

/// Why a file is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read the plan")]
    Io(#[from] std::io::Error),
    /// It does not say what a plan says.
    #[error("this is no plan: {0}")]
    Json(#[from] serde_json::Error),
    /// It names a bug that is not in the zoo.
    #[error("{0}")]
    Bug(String),
}

impl Kept {
    /// Runs it.
    pub fn run(&self, bug: Option<Bug>) -> Report {
        match self {
            Self::World(plan) => careful(plan, bug),
            Self::Gossip(plan) => careful_gossip(plan, bug),
        }
    }
}

impl Regression {
    /// Reads one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
    }

    /// Writes one, as people read it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn write(&self, path: &Path) -> Result<(), ReadError> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(std::fs::write(path, text + "\n")?)
    }

    /// The bug that it catches.
    ///
    /// # Errors
    /// [`ReadError::Bug`].
    pub fn bug(&self) -> Result<Option<Bug>, ReadError> {
        let bug = self.catches.as_deref().map(str::parse);
        bug.transpose().map_err(ReadError::Bug)
    }
}
