//! **Gossip removes nobody and brings nobody back.** A node sees a member `down` or `left` exactly if the document that
//! it holds says so, however long a cut was and whatever others still believe.
//!
//! Source: cluster, *Membership and failure*: "Removed members stay in the registry's history, so gossip cannot bring
//! them back"; issue: "a minority removes nobody"; failure catalogue, G4. Continuous.

use sibyl_core::id::NodeId;
use sibyl_core::membership::State;

use super::{Held, broken};

const CHECK: &str = "gossip removes nobody and brings nobody back";

/// A node's view of a member, and whether the document it holds removed that one.
pub fn view(by: &NodeId, of: &NodeId, state: State, removed: bool) -> Held {
    if matches!(state, State::Down | State::Left) == removed {
        return Ok(());
    }
    let state = state.as_str();
    let found = format!("{by} sees {of} {state}; its document removed it: {removed}");
    broken(CHECK, found)
}
