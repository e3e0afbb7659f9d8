//! What the rest of the node holds of gossip: who is there, what a request's end says, and news to subscribe to.
//!
//! Every call is a message to the task or a look at what it published; nothing is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sibyl_core::id::{NodeId, Trace};
use sibyl_core::membership::{self, MemberView, Question, View};
use sibyl_core::message::Failure;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::calls::names;
use super::{Input, refuse};
use crate::peer::Responder;
use crate::telemetry::Tracer;

/// News that others act on: hints are delivered and asked for, copies are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A member is there again, or for the first time since this node's start, or started anew.
    Returned {
        /// Who.
        member: NodeId,
        /// Its incarnation now.
        incarnation: u64,
        /// The span in which that was seen; what follows from it links there as `gossip_cause`.
        cause: Option<Trace>,
    },
    /// This node was suspected, in this process or an earlier one: it may have missed writes.
    WasSuspected {
        /// Who told.
        by: NodeId,
        /// As above.
        cause: Option<Trace>,
    },
}

/// This node learnt that it was suspected.
#[derive(Clone, Debug)]
pub struct Suspected {
    /// Who told.
    pub by: NodeId,
    /// When.
    pub heard: Instant,
}

/// What this node thinks of everyone.
#[derive(Clone, Debug)]
pub struct Published {
    /// Members by name.
    pub view: View,
    /// The last time that this node learnt that it was suspected, since its start.
    pub suspected: Option<Suspected>,
    began: Instant,
}

impl Published {
    pub(super) fn new(view: View, began: Instant, suspected: Option<Suspected>) -> Self {
        Self {
            view,
            suspected,
            began,
        }
    }

    /// One member.
    pub fn member(&self, node: &NodeId) -> Option<&MemberView> {
        self.view.members.get(node)
    }

    /// How long ago something was, by the clock that the view's times are of.
    pub fn age_ms(&self, at_ms: u64) -> u64 {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(at_ms)
    }
}

/// A handle to gossip.
#[derive(Clone)]
pub struct Gossip {
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) published: watch::Receiver<Arc<Published>>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) away: Arc<AtomicUsize>,
    pub(super) tracer: Tracer,
}

impl Gossip {
    /// What this node thinks of everyone.
    pub fn view(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// News from now on. Who lags too far behind misses some, is told so, and should look at everyone.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Whether a member is thought to be away. It chooses whom to ask first; it never decides what is safe.
    pub fn is_suspect(&self, node: &NodeId) -> bool {
        self.away.load(Ordering::Relaxed) > 0 && self.published.borrow().view.is_suspect(node)
    }

    /// A request to a member ended: it answered, whatever it said, or it did not. Costs a look at a number unless
    /// that contradicts what is thought.
    pub fn outcome(&self, member: &NodeId, answered: bool) {
        if answered != self.is_suspect(member) {
            return;
        }
        let member = member.clone();
        // A full queue forgets it: there will be other requests.
        let _forgotten = self.inbox.try_send(Input::Outcome { member, answered });
    }

    /// Takes a peer's question; it is answered later.
    pub fn hear(
        &self,
        from: NodeId,
        body: &[u8],
        parent: Option<Trace>,
        reply: Responder,
        number: u64,
    ) {
        let message = match membership::decode::<Question>(body) {
            Ok(message) => message,
            Err(error) => return refuse(reply, Failure::Malformed(error.to_string()), number),
        };
        let rpc = names(&message.body).1;
        // A round that its asker does not record begins no traces here.
        let span = parent.map(|parent| self.tracer.rpc_server(rpc, &from, Some(parent)));
        let input = Input::Asked {
            from,
            message,
            span,
            reply,
        };
        if let Err(error) = self.inbox.try_send(input)
            && let Input::Asked { reply, .. } = error.into_inner()
        {
            refuse(reply, Failure::Overloaded, number);
        }
    }
}
