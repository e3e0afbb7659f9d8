//! Background work, one task per file.
//!
//! Each waits, changes its own value and performs what that returns. Tasks do not import one another.

pub mod gossip;
pub mod registry;
