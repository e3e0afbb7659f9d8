//! What is on its way to this node while owners change: for operators, metrics and one span.
//!
//! A transfer is a partition that comes here from one owner of before. It is listed until the document says that
//! this node has the partition; whoever gives it away lists nothing, because it is fetched and not sent. The span
//! `ring.transfer` stands for all of them: from the document that began the change until nothing is missing here.

use std::collections::BTreeMap;
use std::sync::Arc;

use sibyl_core::flow::exchange::Summary;
use sibyl_core::id::{NodeId, Partition};

use super::AntiEntropy;
use super::transfer::Progress;
use crate::telemetry::Span;

/// A partition on its way here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The partition.
    pub partition: Partition,
    /// An owner of before.
    pub from: NodeId,
    /// Objects that its exchanges brought so far.
    pub keys: u64,
    /// Bytes of objects that they moved.
    pub bytes: u64,
    /// How it stands.
    pub stage: Stage,
}

/// How a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its turn has not come, or it has to be tried again.
    Waiting,
    /// An exchange is under way.
    Running,
    /// All was fetched from this owner, and the registry is to say so.
    Fetched,
}

impl Stage {
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Fetched => "fetched",
        }
    }
}

/// What exchanges for transfers moved, and the span that stands for them.
#[derive(Default)]
pub(super) struct Moved {
    by: BTreeMap<(Partition, NodeId), (u64, u64)>,
    span: Option<Arc<Span>>,
}

impl std::fmt::Debug for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.by).finish()
    }
}

impl Moved {
    /// The span that what is proposed for the change belongs to.
    pub(super) fn span(&self) -> Option<Arc<Span>> {
        self.span.clone()
    }

    /// A change began by which so many partitions are to come here, or it goes on, or nothing is missing any more.
    pub(super) fn follow(
        &mut self,
        began: Option<u64>,
        missing: usize,
        start: impl FnOnce() -> Span,
    ) {
        if began.is_some() {
            (self.by, self.span) = (BTreeMap::new(), None);
        }
        match (&self.span, missing) {
            (None, 1..) => {
                let span = start();
                span.transfer_began(began, missing);
                self.span = Some(Arc::new(span));
            }
            (Some(span), 0) => {
                let sum = |of: fn(&(u64, u64)) -> u64| self.by.values().map(of).sum();
                span.transfer_ended(sum(|moved| moved.0), sum(|moved| moved.1));
                self.span = None;
            }
            _ => {}
        }
    }
}

impl AntiEntropy {
    /// What is on its way here.
    pub fn transfers(&self) -> Vec<Transfer> {
        let state = self.state();
        let Progress {
            needs, done, moved, ..
        } = &state.transfer;
        let mut transfers = Vec::new();
        for (at, needs) in needs {
            let mut others: Vec<&NodeId> = needs.iter().flat_map(|need| &need.others).collect();
            others.sort();
            others.dedup();
            transfers.extend(others.into_iter().map(|from| {
                let key = (*at, from.clone());
                let (keys, bytes) = moved.by.get(&key).copied().unwrap_or_default();
                let peer = state.peers.get(from);
                let runs = peer.is_some_and(|peer| peer.running == Some(*at));
                let fetched = done.get(at).is_some_and(|done| done.contains_key(from));
                Transfer {
                    partition: *at,
                    from: from.clone(),
                    keys,
                    bytes,
                    stage: match (fetched, runs) {
                        (true, _) => Stage::Fetched,
                        (false, true) => Stage::Running,
                        (false, false) => Stage::Waiting,
                    },
                }
            }));
        }
        transfers
    }

    /// An exchange moved something of a partition that is to come here.
    pub(super) fn note_moved(&self, partition: Partition, from: &NodeId, summary: &Summary) {
        let mut state = self.state();
        let progress = &mut state.transfer;
        if progress.needs.contains_key(&partition) {
            let by = progress.moved.by.entry((partition, from.clone()));
            let (keys, bytes) = by.or_default();
            *keys += u64::from(summary.received);
            *bytes += summary.bytes;
        }
    }
}
