//! Sibyl's values and decisions.
//!
//! Nothing in this crate opens a socket, reads a clock, draws a random number, spawns a task or
//! iterates a hash map. A flow is a value: it takes an event and answers with effects. The node's
//! shell performs them on real disks and sockets; the simulator performs them on a seeded scheduler.
//! Modules stand in reading order.
#![forbid(unsafe_code)]

pub mod admission;
pub mod backup;
pub mod codec;
pub mod context;
pub mod flow;
pub mod frame;
pub mod hint;
pub mod id;
pub mod joining;
pub mod membership;
pub mod merkle;
pub mod message;
pub mod object;
pub mod pace;
pub mod quorum;
pub mod reap;
pub mod record;
pub mod refill;
pub mod registry;
pub mod retry;
pub mod ring;
pub mod room;
pub mod salvage;
pub mod seal;
pub mod view;
