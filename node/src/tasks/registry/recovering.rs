//! Beginning a new lineage, alone, when a majority is lost for good: the operator's word, taken by the task.
//!
//! Whether nobody can choose is judged by who can be reached at that moment; the core decides. What this node is an
//! owner of from then on, and was not before, it does not remember: its lines and horizons rise before the document
//! is on disk, so that a crash in between leaves it too careful and never too sure.

use std::collections::BTreeSet;
use std::sync::Arc;

use sibyl_core::id::NodeId;
use sibyl_core::registry::{ChangeError, Document, Event, Held};
use tokio::sync::oneshot;

use super::{Answer, ChangeFailed, Input, Registry, Task, View, gained};
use crate::peer::Net;
use crate::telemetry::Span;

/// The other members that can be reached, each with the store that the document names: they could vote.
pub fn present(net: &Net, document: &Document) -> BTreeSet<NodeId> {
    let peers = net.peers().into_iter().filter(|peer| peer.reachable);
    let votes = peers.filter(|peer| {
        let member = document.layout.members.get(&peer.node_id);
        let named = member.and_then(|member| member.store);
        let says = peer.identity.as_ref().map(|identity| identity.store);
        named.is_some_and(|store| says == Some(store.0))
    });
    votes.map(|peer| peer.node_id).collect()
}

/// What a recovery would make, and of what.
#[derive(Debug)]
pub struct Planned {
    /// What it goes on from: the document in force, or one that this node accepted and that may have been chosen.
    pub before: Document,
    /// The first document of the new lineage.
    pub after: Document,
}

impl Registry {
    /// What [`Registry::recover`] would do now, or why it would not.
    ///
    /// # Errors
    /// [`ChangeFailed`].
    pub async fn plan_recovery(&self, epoch: u64) -> Result<Planned, ChangeFailed> {
        let (done, planned) = oneshot::channel();
        let sent = self.inbox.send(Input::PlanRecovery { epoch, done }).await;
        sent.map_err(|_| ChangeFailed::Stopping)?;
        planned.await.unwrap_or(Err(ChangeFailed::Stopping))
    }

    /// Begins a new lineage with this node alone, or says why not. `epoch`: the reaping epoch that it is in.
    ///
    /// # Errors
    /// [`ChangeFailed`].
    pub async fn recover(
        &self,
        request: Option<&Span>,
        epoch: u64,
    ) -> Result<Arc<View>, ChangeFailed> {
        let number = self.view().number() + 1;
        let span = Box::new(self.tracer.registry_propose(request, number));
        let (done, decided) = oneshot::channel();
        let input = Input::Recover { epoch, span, done };
        let sent = self.inbox.send(input).await;
        sent.map_err(|_| ChangeFailed::Stopping)?;
        decided.await.unwrap_or(Err(ChangeFailed::Stopping))
    }
}

impl Task {
    pub(super) fn plan_recovery(
        &self,
        epoch: u64,
        done: oneshot::Sender<Result<Planned, ChangeFailed>>,
    ) {
        let present = present(&self.net, self.view.borrow().document());
        let after = self.machine.recovery(&present, epoch);
        let before = self.machine.recovers_from().clone();
        let planned = after.map(|after| Planned { before, after });
        // Whoever asked may have left.
        let _gone = done.send(planned.map_err(|error| ChangeError::from(error).into()));
    }

    pub(super) async fn recover(&mut self, epoch: u64, span: Box<Span>, done: Answer) {
        let before = Arc::clone(&self.view.borrow());
        let present = present(&self.net, before.document());
        self.next += 1;
        let id = self.next;
        self.waiting.insert(id, (span, done));
        if let Ok(document) = self.machine.recovery(&present, epoch) {
            let members = before.document().layout.members.len();
            let view = View::of(Held::first(document));
            let gained = gained(&self.ground.me, &before, &view);
            if let Err(error) = self.owners_changed(&view, &gained).await {
                return self.give_up(&error);
            }
            tracing::warn!(
                number = view.number(),
                lineage = ?view.document().lineage(),
                given_up = members.saturating_sub(1),
                gained = gained.len(),
                "by its operator's word this node goes on alone, in a new lineage"
            );
        }
        self.take(Event::Recover { id, present, epoch }).await;
    }
}
