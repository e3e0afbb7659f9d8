//! Gossip's calls: a frame out, a frame back or none, each a task of its own that ends by its timeout.
//!
//! Spans: few rounds are recorded, looks for a member always ask the ratio, and a ping on behalf of another node is
//! below that node's question.

use std::sync::Arc;
use std::time::Duration;

use sibyl_core::id::NodeId;
use sibyl_core::membership::{self, Answer, Cause, Message, Question};
use sibyl_core::message::{self, Reply, Request};

use super::{Input, Task};
use crate::peer::Outgoing;
use crate::telemetry::metrics::{GossipKind, Success};
use crate::telemetry::{ROUNDS_PER_SPAN, Rpc, Span};

/// What a question is called in metrics and spans.
pub(super) fn names(question: &Question) -> (GossipKind, Rpc) {
    match question {
        Question::Exchange { .. } => (GossipKind::Pull, Rpc::GossipDigest),
        Question::Tell { .. } => (GossipKind::Push, Rpc::GossipDelta),
        Question::Ping => (GossipKind::Ping, Rpc::GossipPing),
        Question::PingFor { .. } => (GossipKind::PingReq, Rpc::GossipPingReq),
    }
}

impl Task {
    pub(super) fn send(
        &mut self,
        call: u64,
        to: NodeId,
        message: &Message<Question>,
        timeout: Duration,
        cause: &Cause,
    ) {
        let (kind, rpc) = names(&message.body);
        let parent = self.parent(cause);
        let span = parent.as_ref().filter(|parent| parent.is_recording());
        let span = span.map(|parent| parent.rpc_client(rpc, &to));
        if let (Some(span), Question::Tell { records }) = (&span, &message.body) {
            span.gossip_moved(records.len(), 0);
        }
        let outgoing = Outgoing {
            head: message::encode(&Request::Gossip),
            body: membership::encode(message),
            timeout,
            registry: self.ground.listed.borrow().number,
            span: span.as_ref().map(Span::context),
        };
        let metrics = Arc::clone(&self.ground.metrics);
        metrics.gossip_message(kind, outgoing.body.len());
        let answered = self.net.call(&to, outgoing);
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let answer = match answered.await {
                Ok(answer) if matches!(message::decode(&answer.head), Ok(Reply::Gossip)) => {
                    membership::decode::<Answer>(&answer.body).ok()
                }
                _ => None,
            };
            let result = match (&answer, &span) {
                (Some(message), span) => {
                    if let (Answer::Exchanged { records, .. }, Some(span)) = (&message.body, span) {
                        span.gossip_moved(0, records.len());
                    }
                    Success::Ok
                }
                (None, span) => {
                    if let Some(span) = span {
                        span.fail("no_answer", "the member did not answer");
                    }
                    Success::Failed
                }
            };
            metrics.gossip_round(kind, result);
            drop(span);
            if let Some(inbox) = inbox.upgrade() {
                let span = parent;
                // Closed: the node is stopping.
                let _gone = inbox
                    .send(Input::Ended {
                        call,
                        to,
                        answer,
                        span,
                    })
                    .await;
            }
        });
    }

    /// The span that a call stands below.
    fn parent(&mut self, cause: &Cause) -> Option<Arc<Span>> {
        match cause {
            Cause::Relay(ask) => self.asks.get(ask).and_then(|(_, span)| span.clone()),
            Cause::Probe(member) => {
                // The next step of a probe is below the first; a probe that a round led to begins anew.
                let current = self.current.clone();
                let tracer = &self.ground.tracer;
                current.or_else(|| Some(Arc::new(tracer.gossip_probe(member))))
            }
            Cause::Round => {
                if self.current.is_none() {
                    self.round += 1;
                    if self.round % ROUNDS_PER_SPAN == 1 {
                        let fanout = membership::FANOUT;
                        let span = self.ground.tracer.gossip_round(self.round, fanout);
                        self.current = Some(Arc::new(span));
                    }
                }
                self.current.clone()
            }
        }
    }
}
