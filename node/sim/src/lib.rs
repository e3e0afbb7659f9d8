//! Sibyl's simulator: a whole cluster in one thread on virtual time, thousands of seeds a minute.
//!
//! It drives the core's put, get and registry flows unchanged, over the store's memory twin, through lost,
//! doubled, late and reordered messages, one-way cuts, crashes that lose unsynced data, failed syncs and
//! wipes, and checks after every step what `design/merge-model.md` says must always hold.
//!
//! **How to read a failure.** A failing batch prints the seed, the promise that broke (each has a file under
//! `checks/`, with its statement and source on top), the smallest plan that still breaks it, and a command:
//!
//! ```text
//! cargo run -p sibyl-sim -- replay --seed 11 --shrink -v
//! ```
//!
//! The first lines are the setting and the plan (`#17 Wipe { node: 2, .. }` is the entry's number in the
//! plan as drawn). Then comes every event: `n0 -> n2 asks Replicate` is a frame's arrival, `LOST` and `CUT`
//! are those that never arrive, `n2 holds k0 = [..]` are the dots of a copy's siblings after a change,
//! `request 6 ends` is what its client was told, and `BROKEN` is the line to start from: go up from it to
//! the last change of the copy, or the last answer, that it names. Without `--shrink` the whole plan runs.
//!
//! **What is what.** `plan` draws the setting and everything that will happen; `world` is a second shell
//! around the core's values (as `replica.rs`, `coordinator/` and `tasks/registry.rs` are the first); `oracle`
//! is a ledger of what really happened, kept outside all nodes; `zoo` has known bugs, each of which must be
//! found within its budget of seeds; `sight` lists what a batch must have met.
//!
//! **Two rooms.** `world` has keys, copies and the registry; `gossip` has membership: the core's value under the same
//! network, with clocks that drift and jump, nodes that stop, pause, lose their disk or get an older one, and a
//! registry that removes members while some cannot hear of it. One seed of eight is played in both, `run --gossip` plays all there;
//! a failure names its room.
//!
//! Not here yet: fallbacks and hints, anti-entropy (a full pairwise join stands in for it at the end, and
//! `Refill` for the exchange after a wipe), folds, owner changes, resolvers.
#![forbid(unsafe_code)]

pub mod batch;
pub mod checks;
pub mod disk;
pub mod draw;
pub mod gossip;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod scheduler;
pub mod shrink;
pub mod sight;
pub mod trace;
pub mod world;
pub mod zoo;
