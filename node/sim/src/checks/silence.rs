//! **Silence is judged by one's own steady clock, and only while awake.** A member is suspected for silence only if the
//! suspecting node learnt nothing newer for `suspect_after` by its own steady clock, leaving out what it slept through
//! but for one interval: it cannot know when within an interval it fell asleep.
//!
//! Source: cluster, *Membership and failure*, the `suspect` row; failure catalogue, H5 (clocks) and G5 (long pauses).
//! Continuous; the simulator keeps the clocks.

use sibyl_core::id::NodeId;

use super::{Held, broken};

const CHECK: &str = "silence is judged by one's own clock";

/// A node suspects a member for silence after so long without anything newer, by its steady clock while awake.
pub fn suspected(by: &NodeId, of: &NodeId, silent_ms: u64, after_ms: u64) -> Held {
    // A millisecond of rounding on each side.
    if silent_ms + 2 >= after_ms {
        return Ok(());
    }
    let found = format!(
        "{by} suspects {of} after {silent_ms} ms awake without a word; it takes {after_ms} ms"
    );
    broken(CHECK, found)
}
