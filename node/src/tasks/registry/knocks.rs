//! Who knocks at this node, for whoever asks: kept in memory, bounded, forgotten after a while.
//!
//! The list is a value of the core; this gives it a clock and a lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use sibyl_core::id::NodeId;
use sibyl_core::joining::{Candidate, Candidates, Knock, Refusal};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most nodes of other lineages that are remembered until somebody looks: the latest say what there is to say.
const MOST_APART: usize = 3;

/// Who knocks. Clones are one.
#[derive(Clone)]
pub struct Knocks {
    list: Arc<Mutex<Candidates>>,
    apart: Arc<Apart>,
    began: Instant,
}

/// Who asked to return from another lineage, and where that is reached.
#[derive(Default)]
struct Apart {
    latest: Mutex<VecDeque<(NodeId, String)>>,
    bell: Notify,
}

impl Default for Knocks {
    fn default() -> Self {
        Self {
            list: Arc::default(),
            apart: Arc::default(),
            began: Instant::now(),
        }
    }
}

impl Knocks {
    /// Somebody does.
    ///
    /// # Errors
    /// [`Refusal`], if it cannot be remembered.
    pub fn note(&self, knock: &Knock) -> Result<(), Refusal> {
        self.change(|list, now_ms| list.note(knock, now_ms))
    }

    /// Somebody of another lineage asks to return, which this one does not follow from: it may follow from this one.
    pub fn note_apart(&self, knock: &Knock) {
        let (node, address) = (knock.joiner.node.clone(), knock.joiner.peer_addr.clone());
        let mut latest = self.latest_apart();
        latest.retain(|(_, other)| *other != address);
        latest.push_back((node, address));
        if latest.len() > MOST_APART {
            latest.pop_front();
        }
        drop(latest);
        self.apart.bell.notify_one();
    }

    /// Who did, since this was last asked.
    pub fn take_apart(&self) -> VecDeque<(NodeId, String)> {
        std::mem::take(&mut *self.latest_apart())
    }

    /// Waits until somebody does.
    pub async fn apart(&self) {
        self.apart.bell.notified().await;
    }

    fn latest_apart(&self) -> std::sync::MutexGuard<'_, VecDeque<(NodeId, String)>> {
        let latest = self.apart.latest.lock();
        latest.unwrap_or_else(PoisonError::into_inner)
    }

    /// It was taken in.
    pub fn forget(&self, node: &NodeId) {
        self.change(|list, _| list.forget(node));
    }

    /// Who knocked lately, by name, each with how long ago that was.
    pub fn list(&self) -> Vec<(Candidate, u64)> {
        self.change(|list, now_ms| {
            let list = list.list(now_ms).into_iter();
            list.map(|one| {
                let age_ms = now_ms.saturating_sub(one.heard_ms);
                (one, age_ms)
            })
            .collect()
        })
    }

    /// Whoever is called so, if it knocked lately.
    pub fn find(&self, node: &NodeId) -> Option<Candidate> {
        let mut list = self.list().into_iter().map(|(candidate, _)| candidate);
        list.find(|candidate| candidate.joiner.node == *node)
    }

    fn change<T>(&self, act: impl FnOnce(&mut Candidates, u64) -> T) -> T {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        act(
            &mut self.list.lock().unwrap_or_else(PoisonError::into_inner),
            now_ms,
        )
    }
}
