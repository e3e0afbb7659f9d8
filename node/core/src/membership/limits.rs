//! Every limit of membership, with its arithmetic.
//!
//! Nothing here is a protocol constant but [`MAX_MESSAGE_BYTES`]: nodes with other numbers still understand each
//! other. The invariant: what one node can make another remember is one record per member of the registry.

/// Members a node exchanges records with per interval. News reach m members in about log base 4 of m rounds: 128
/// members in 4.
pub const FANOUT: usize = 3;
/// Members that are asked to probe somebody that one could not reach: with three, a tenth of all links broken at
/// random accuses a live member once in 10,000 probes.
pub const HELPERS: usize = 3;
/// Probes under way at once: each waits a few seconds at most, so a cluster of 1,024 is looked through in a minute.
pub const MAX_PROBES: usize = 64;
/// Probes under way for others: 64 of each of four members.
pub const MAX_RELAYS: usize = 256;
/// Suspicions that a record carries. A node that suspects more is itself cut off, and that is the news.
pub const MAX_OPINIONS: usize = 64;
/// The largest record: 2 names of at most 66 bytes, 12 numbers of at most 10, and [`MAX_OPINIONS`] of 86.
pub(super) const MAX_RECORD_BYTES: usize = 256 + MAX_OPINIONS * 86;
/// Records of one message together. A usual record has 100 bytes: one message carries a cluster of 1,024.
pub const MAX_DELTA_BYTES: usize = 128 << 10;
/// The largest message: records, or a digest of 1,024 members of 86 bytes, or both, beside the sender's own record,
/// one about the receiver, and a few numbers.
pub const MAX_MESSAGE_BYTES: usize =
    MAX_DELTA_BYTES + MAX_DIGEST * 86 + 2 * MAX_RECORD_BYTES + (1 << 10);
/// Entries of a digest: as many members as a registry document has at most.
pub(super) const MAX_DIGEST: usize = crate::registry::MAX_MEMBERS;
/// A life beyond this is damage: ten heartbeats a second for three thousand years.
pub(super) const MAX_COUNTER: u64 = 1 << 40;
/// So is an incarnation beyond this: a start every second for a hundred years.
pub(super) const MAX_INCARNATION: u64 = 1 << 32;
/// Intervals of silence that a suspicion needs at least: one may be lost, and one is always under way.
pub const MIN_SILENT_INTERVALS: u64 = 3;
/// After so many intervals without anything newer a member is probed.
pub(super) const PROBE_AFTER_INTERVALS: u64 = 2;
/// News go out after this part of an interval, not after a whole one.
pub(super) const URGENT_PART: u64 = 10;
/// The least and the most that a probe waits; half an interval in between.
pub(super) const PROBE_MS: (u64, u64) = (200, 1_000);
