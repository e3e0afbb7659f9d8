//! Sibyl's simulator: a whole cluster in one thread on virtual time, thousands of seeds a minute.
//!
//! It drives the core's put, get and registry flows unchanged, over the store's memory twin, through lost,
//! doubled, late and reordered messages, one-way cuts, crashes that lose unsynced data, failed syncs, wipes, damaged,
//! truncated, restored and full disks, pauses and changes of owners, and checks after every step what `design/merge-model.md` says must always hold.
//!
//! How to read a failure, and what is where, is told in the manual below.
#![doc = include_str!("../MANUAL.md")]
#![forbid(unsafe_code)]

pub mod batch;
pub mod checks;
pub mod disk;
pub mod draw;
pub mod gossip;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod regression;
pub mod scheduler;
pub mod script;
pub mod shrink;
pub mod sight;
pub mod trace;
pub mod world;
pub mod zoo;
