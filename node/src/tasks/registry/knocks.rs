//! Who knocks at this node, for whoever asks: kept in memory, bounded, forgotten after a while.
//!
//! The list is a value of the core; this gives it a clock and a lock.

use std::sync::{Arc, Mutex, PoisonError};

use sibyl_core::id::NodeId;
use sibyl_core::joining::{Candidate, Candidates, Knock, Refusal};
use tokio::time::Instant;

/// Who knocks. Clones are one.
#[derive(Clone)]
pub struct Knocks {
    list: Arc<Mutex<Candidates>>,
    began: Instant,
}

impl Default for Knocks {
    fn default() -> Self {
        Self {
            list: Arc::default(),
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
