//! The transport over real sockets on the loopback address (but for `slow`): two nodes or more in one process.
//!
//! Nothing sleeps and nothing asserts a duration: a test waits for a change of the peers' state, for a
//! message from a handler, or for a future, under one generous limit.

mod calls;
mod cuts;
mod handshake;
mod hostile;
mod knocks;
mod limits;
mod node;
mod slow;
