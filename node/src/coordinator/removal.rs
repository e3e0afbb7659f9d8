//! Gives up members that stay away, without an operator: looks, asks the core, proposes what it says.
//!
//! What is proposed names the store that is away: if the member comes back with another one meanwhile, nothing
//! happens. A removal that has to wait is said where operators look.

use std::collections::BTreeMap;
use std::time::Duration;

use sibyl_core::id::{Actor, NodeId};
use sibyl_core::membership::{Removal, Seen, Verdict};
use sibyl_core::registry::{Change, Farewell};
use tokio::time::Instant;

use super::Coordinator;

/// Between two looks; far below the least time that is worth measuring here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a removal that has to wait is called among what an operator must know.
const NOTE: &str = "removal";

impl Coordinator {
    /// Gives up members that are away for so long; zero: none. Looks until the node ends.
    pub async fn give_up_lost(self, down_after: Duration) {
        let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut removal = Removal::new(whole(down_after));
        let began = Instant::now();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let note = match look(&mut removal, &self, whole(began.elapsed())) {
                Verdict::Nothing => None,
                Verdict::Held { node, why } => Some(format!("{node} should be removed: {why}")),
                Verdict::Remove { node, store } => self.give_up(node, store).await,
            };
            self.registry().note(NOTE, note);
        }
    }

    /// Proposes it; why it did not come to be.
    async fn give_up(&self, node: NodeId, store: Actor) -> Option<String> {
        tracing::warn!(%node, %store, "a member has been away for too long: it is to be removed");
        let change = Change::Remove {
            node: node.clone(),
            store: Some(store),
        };
        match self.registry().change(None, change).await {
            Ok(view) => {
                tracing::warn!(%node, number = view.number(), "a member that was away for too long is removed");
                None
            }
            Err(error) => {
                tracing::warn!(%node, %error, "a member that has been away for too long cannot be removed");
                Some(format!("{node} should be removed: {error}"))
            }
        }
    }
}

fn look(removal: &mut Removal, coordinator: &Coordinator, now_ms: u64) -> Verdict {
    let (view, document) = (coordinator.gossip().view(), coordinator.registry().view());
    let layout = &document.document().layout;
    let stored = layout.members.iter();
    let members: BTreeMap<NodeId, Actor> = stored
        .filter_map(|(node, member)| Some((node.clone(), member.store?)))
        .collect();
    let former = layout.former.values();
    let copies = document.document().ns().into_iter().max().unwrap_or(0);
    removal.look(&Seen {
        now_ms,
        me: coordinator.me(),
        view: &view.view,
        members: &members,
        removed: former
            .filter(|former| former.why == Farewell::Removed)
            .count(),
        owners_change: layout.change.is_some(),
        copies: usize::from(copies),
    })
}
