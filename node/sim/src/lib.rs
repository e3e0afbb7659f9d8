//! Sibyl's simulator: the core's flows, a memory store and a whole cluster in one thread on virtual time.
#![forbid(unsafe_code)]

pub mod batch;
pub mod checks;
pub mod disk;
pub mod draw;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod scheduler;
pub mod shrink;
pub mod sight;
pub mod trace;
pub mod world;
pub mod zoo;
