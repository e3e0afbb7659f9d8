//! The room of gossip: memberships of the core under a bad network, bad clocks and bad luck.
//!
//! `plan` draws what happens, `world` is the transport, the disks and the clocks around the core's value, `faults` what
//! becomes of them, `watch` what is looked at. What must
//! hold stands in `checks`: `removed`, `incarnations`, `silence` all the time, `agreed` once all is calm.

mod faults;
mod plan;
mod watch;
mod world;

pub use plan::{Plan, Setting, What};
pub use world::run;
