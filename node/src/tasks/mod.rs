//! Background work, one task per file.
//!
//! Each waits, changes its own value and performs what that returns. Tasks do not import one another.

pub mod anti_entropy;
pub mod gossip;
pub mod handoff;
pub mod reap;
pub mod registry;
#[cfg(test)]
mod tests;
