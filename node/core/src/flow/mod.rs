//! The flows: small values that take events and answer with effects.
//!
//! A flow knows no socket, clock, file, task or random number. The shell feeds it replies and timers and
//! performs what it returns; the simulator does the same on its own scheduler.

pub mod exchange;
pub mod get;
pub mod list;
pub mod put;
