//! What an author does before anything is uploaded: `sibyl resolver new`, `build` and `test`.
//!
//! A project is a folder with a `resolver.json` that says how it is built; the templates of `resolvers/templates` are
//! in this binary. Building runs the language's own tools. Judging a module, and running cases on it, is done with the
//! node's own compile child, engine and limits.

pub(super) mod build;
mod cases;
mod difference;
pub(super) mod local;
pub(super) mod new;
mod project;
mod templates;
pub(super) mod test;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::failure::Failure;
use project::Project;

/// The module that is meant by a file, or by the folder of a project that was built.
pub(super) fn module(file_or_project: &Path) -> Result<PathBuf, Failure> {
    if !file_or_project.is_dir() {
        return Ok(file_or_project.to_owned());
    }
    let module = Project::open(file_or_project)?.output();
    if module.is_file() {
        return Ok(module);
    }
    Err(Failure::Failed(format!(
        "{} is not built yet: run `sibyl resolver build {}`",
        module.display(),
        file_or_project.display()
    )))
}
