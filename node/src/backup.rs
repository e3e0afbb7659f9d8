//! Backups of a node: taken from its store while it runs, checked, and restored into an empty data folder.
//!
//! A restored store is amnesia by construction: another actor, counters behind all that the lost one may have
//! used, no promise, `rebuilding`. What was in the backup lies in it, so that joins bring back whatever survived
//! nowhere else; the other owners decide the rest, as for any store that was lost. It knows the form (`core:
//! backup`), stores and what the registry keeps in them; it knows no peers and no HTTP.

mod file;
mod restore;
mod take;
#[cfg(test)]
mod tests;

pub use file::{NotWhole, Parts, verify};
pub use restore::{ORIGIN, RestoreError, Restored, restore};
pub use take::{Source, TakeError};

/// What an operator finds in a data folder in which a restore did not end; the node does not start on it.
pub const UNFINISHED: &str = "restoring";
