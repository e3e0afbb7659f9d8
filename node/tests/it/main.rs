//! The one integration binary: everything that needs more than one part of the shell, or a process.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod cli;
