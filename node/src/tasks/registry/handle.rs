//! What the rest of the node holds of the registry: reads what is in force, asks for changes, passes messages on.
//!
//! Every call is a message to the task or a look at what it published; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::message::Failure;
use sibyl_core::registry::{Change, ChangeError, Event, Message};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Input, Knocks, REBUILDING, View, WHOLE};
use crate::replica::Replica;
use crate::telemetry::{Span, Tracer};

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFailed {
    /// It does not fit what is in force; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// Too few members answered.
    #[error("{missing} more of the {members} members must answer")]
    NoMajority {
        /// How many more had to answer.
        missing: usize,
        /// How many there are.
        members: usize,
        /// Whether it may still come into force.
        unknown: bool,
    },
    /// Whether it came into force is not known.
    #[error("other changes came in between")]
    Unknown,
    /// Too many changes wait; nothing was changed.
    #[error("too many changes wait already")]
    Busy,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A handle to the registry.
#[derive(Clone)]
pub struct Registry {
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) alarms: Arc<watch::Sender<BTreeMap<String, String>>>,
    pub(super) knocks: Knocks,
    pub(super) tracer: Tracer,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) rebuilding: Arc<AtomicBool>,
    pub(super) filled: Arc<RwLock<BTreeSet<Partition>>>,
}

/// Counts a change as waiting until it is decided, or nobody waits for it any more.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Starts spans.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// What is in force.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Follows what is in force.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// What an operator must know, by kind.
    pub fn alarms(&self) -> Vec<String> {
        self.alarms.borrow().values().cloned().collect()
    }

    /// Adds to what an operator must know, or takes it away.
    pub fn note(&self, kind: &str, note: Option<String>) {
        self.alarms.send_if_modified(|alarms| match note {
            Some(note) if alarms.get(kind) == Some(&note) => false,
            Some(note) => {
                alarms.insert(kind.to_owned(), note);
                true
            }
            None => alarms.remove(kind).is_some(),
        });
    }

    /// Who knocks at this node.
    pub fn knocks(&self) -> &Knocks {
        &self.knocks
    }

    /// The number that is being chosen, if a change waits to be decided.
    pub fn pending(&self) -> Option<u64> {
        (self.waiting.load(Ordering::Relaxed) > 0).then(|| self.view().number() + 1)
    }

    /// Whether this node lost its data and has not been refilled. It may become true when the registry is
    /// first learned: an empty folder does not know that it was a member's.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.load(Ordering::Acquire)
    }

    /// Whether this node's copies of a partition count and may be minted on: always, unless it lost its data
    /// and that partition has not been refilled.
    pub fn vouches(&self, partition: Partition) -> bool {
        !self.is_rebuilding()
            || self
                .filled
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&partition)
    }

    /// These partitions have been refilled.
    pub(in crate::tasks) fn fill(&self, partitions: impl Iterator<Item = Partition>) {
        self.filled
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(partitions);
    }

    /// All have been.
    pub(in crate::tasks) fn rebuilt(&self) {
        self.rebuilding.store(false, Ordering::Release);
    }

    /// Keeps on disk that all have been, before [`Registry::rebuilt`].
    pub(in crate::tasks) async fn forget_loss(&self, replica: &Replica) -> Result<(), Failure> {
        replica
            .remember(REBUILDING, Bytes::from_static(WHOLE))
            .await
    }

    /// Makes a change, or says why not. `request` is the span of the request that asks for it.
    ///
    /// # Errors
    /// [`ChangeFailed`].
    pub async fn change(
        &self,
        request: Option<&Span>,
        change: Change,
    ) -> Result<Arc<View>, ChangeFailed> {
        let number = self.view().number() + 1;
        let span = Box::new(self.tracer.registry_propose(request, number));
        let (done, decided) = oneshot::channel();
        let input = Input::Change { change, span, done };
        let _waits = Waits::begin(&self.waiting);
        self.inbox
            .send(input)
            .await
            .map_err(|_| ChangeFailed::Stopping)?;
        decided.await.unwrap_or(Err(ChangeFailed::Stopping))
    }

    /// Takes a peer's message. The span ends when it was handled.
    pub fn hear(&self, from: NodeId, message: Message, span: Option<Span>) {
        // A full queue loses it, as a network may.
        let _lost = self.inbox.try_send(Input::Heard {
            from,
            message,
            span: span.map(Box::new),
        });
    }

    /// Somebody acts on a higher number: fetch that document, in the background.
    pub fn seen(&self, from: NodeId, number: u64) {
        // A full queue loses it: it will be said again.
        let _lost = self
            .inbox
            .try_send(Input::Event(Event::Seen { from, number }));
    }

    /// A peer carried a higher number. Waits until it is in force here, or the time is up.
    pub async fn catch_up(&self, from: NodeId, number: u64, patience: Duration) {
        let _lost = self
            .inbox
            .try_send(Input::Event(Event::Seen { from, number }));
        let mut view = self.view.clone();
        let there = view.wait_for(|view| view.number() >= number);
        // Too late: the caller goes on with what there is, and answers by that.
        let _late = tokio::time::timeout(patience, there).await;
    }
}
