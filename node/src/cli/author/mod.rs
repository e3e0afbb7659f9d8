//! What an author does before anything is uploaded: `sibyl resolver new`, `build` and `test`.
//!
//! A project is a folder with a `resolver.json` that says how it is built; the templates of `resolvers/templates` are
//! in this binary. Building runs the language's own tools. Judging a module, and running cases on it, is done with the
//! node's own compile child, engine and limits, in a folder that goes away afterwards.

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
