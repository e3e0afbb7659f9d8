//! Every limit of the transport, with its arithmetic.
//!
//! Nothing here is a protocol constant: two nodes with different numbers still understand each other, but
//! for the sizes of a frame, which the reader refuses before it allocates. The invariant: memory that one
//! peer can make this node hold is at most `2 * MAX_PEER_BYTES + MAX_FRAME_BYTES` in each direction.

use std::time::Duration;

pub(super) use sibyl_core::frame::MAX_FRAME_BYTES;
pub use sibyl_core::frame::{MAX_BODY_BYTES, MAX_HEAD_BYTES};

/// The largest frame before both sides have proved who they are: an [`super::Identity`] is a cluster id,
/// a node id (64), a URL and 64 bytes of numbers.
pub(super) const MAX_HELLO_BYTES: usize = 4 << 10;

/// Cluster id, node id and URL together: half of a hello, so that later fields have room.
pub(super) const MAX_IDENTITY_BYTES: usize = MAX_HELLO_BYTES / 2;

/// Text of a refusal, in bytes: a quarter of a hello.
pub(super) const MAX_REFUSAL_BYTES: usize = MAX_HELLO_BYTES / 4;

/// The longest a call may wait: far above any request; keeps clock arithmetic from overflowing.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Calls under way to one peer. At 1 KiB each that is 4 MiB; at 1 ms a round trip, 4 million calls a second.
pub const MAX_CALLS: usize = 4096;

/// Bytes under way to one peer (requests not answered, answers not taken), and again bytes queued but not
/// written. One largest body always fits beside ordinary traffic: 34 of 64 MiB.
pub const MAX_PEER_BYTES: usize = 64 << 20;

/// Frames that go into one write: 64 of 1 KiB fill a socket buffer of 64 KiB.
pub(super) const BATCH_FRAMES: usize = 64;

/// Bodies below this are copied beside their header, since 4 KiB of copying costs less than another
/// element of a vectored write and another allocation kept alive.
pub(super) const COPY_BELOW_BYTES: usize = 4 << 10;

/// What a read asks for at most when no large frame is under way.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Below this much room the read buffer grows by [`READ_BYTES`]: a frame of 1 KiB and its header, twice.
pub(super) const READ_LEAST_BYTES: usize = 4 << 10;

/// Text of an error that crosses the wire, in bytes.
pub(super) const MAX_ERROR_BYTES: usize = 4 << 10;

/// Connections that have not yet proved who they are, at a time; the rest wait in the listen queue.
pub(super) const MAX_HANDSHAKES: usize = 64;

/// Peers served at a time: far above any cluster (64 tokens each on 256 partitions).
pub(super) const MAX_SESSIONS: usize = 1024;

/// Knocks that are being answered at a time: each may propose a change of the registry, which takes one at a time.
/// They hold a place among [`MAX_HANDSHAKES`] meanwhile, and leave most of those to peers.
pub(super) const MAX_KNOCKS: usize = 8;

/// How long a knock may take to be answered: longer than a registry change takes to be given up.
pub(super) const KNOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Visits at a time: each question may be a whole frame, so nodes that are no peers make this node hold 136 MiB at
/// most; and what they bring is behind clients anyway.
pub(super) const MAX_VISITS: usize = 2;

/// How long a visitor may be silent between two questions: it reads its own disk, and syncs what it noted.
pub(super) const VISIT_PAUSE: Duration = Duration::from_secs(30);

/// The largest answer to a knock: a registry document of 4 MiB and its proof, twice over.
pub(super) const MAX_KNOCK_ANSWER_BYTES: usize = 8 << 20;

/// How long opening a TCP connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a handshake may take, each side.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// First pause before dialling again; doubles up to [`BACKOFF_MAX`], each drawn from its upper half.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// Longest pause before dialling again.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection that lived this long was a good one: the next pause is a first pause again.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Pause after `accept` failed (no file descriptors left, most likely).
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The least time between two looks for overdue calls: a look reads at most [`MAX_CALLS`] slots (4 µs).
pub(super) const EXPIRY_STEP: Duration = Duration::from_millis(2);

/// A link that said nothing for this many probe timeouts is closed and dialled again.
pub(super) const DEAD_AFTER_PROBES: u32 = 8;
/// A connection on which nothing was heard for so many probe timeouts since a ping left is closed although it takes what
/// is written: what leaves may arrive while no answer does, and the system notices that only after a quarter of an
/// hour. What the ping waits behind in our queue does not count, however slowly it leaves; what it waits behind in the
/// system's buffers does: of the 10 MiB that both ends have at most, a connection that delivers 0.35 MB/s is rid in 30 s.
pub(super) const DEAF_AFTER_PROBES: u32 = 30;

/// A client that said nothing for this many probe intervals and timeouts is closed: it pings once per interval.
pub(super) const SILENT_AFTER_PROBES: u32 = 16;

/// How often a shutdown looks whether everything under way is done.
pub(super) const DRAIN_STEP: Duration = Duration::from_millis(5);

/// How long the last writes (a refusal, the end of a drain) may take at shutdown.
pub(super) const FAREWELL: Duration = Duration::from_millis(500);
