//! Asks a peer one thing: a frame out, a frame back, a span and a metric around it.
//!
//! The one place where this module touches the transport. An error keeps what the caller must know before it asks
//! somebody else: whether the peer may have acted.

use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::NodeId;
use sibyl_core::message::{self, Failure, Reply, Request};
use tokio::time::Instant;

use super::Coordinator;
use crate::peer::{CallError, Outgoing, Reason, Sent};
use crate::tasks::registry::result_of_call;
use crate::telemetry::metrics::RpcResult;
use crate::telemetry::{Rpc, Span};

/// How long a newer registry document is waited for, once a peer went by it: it is in force after up to three syncs,
/// each of some 10 ms, or of some 100 where the disk is busy. Until then a write that met it cannot begin again.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The word of a replica that did not answer in time.
pub(super) const TIMEOUT: &str = RpcResult::Timeout.as_str();
/// The word of a replica that said it could not.
pub(super) const REFUSED: &str = RpcResult::Rejected.as_str();

/// The word of a replica that goes by a newer registry document, which changed owners.
pub(super) const STALE: &str = "stale";

/// Why a peer gave no answer that can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The question or its answer was lost on the way.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The peer said that it could not.
    #[error(transparent)]
    Failed(Failure),
    /// The peer answered another question.
    #[error("the peer's answer makes no sense")]
    Nonsense,
}

impl AskError {
    /// Whether the peer certainly did not act on the question.
    pub(super) fn is_unsent(&self) -> bool {
        match self {
            Self::Call(error) => error.sent == Sent::No,
            Self::Failed(failure) => super::was_not_minted(failure),
            Self::Nonsense => false,
        }
    }

    /// What it says of whether the peer is there; `None`: nothing, since the trouble is on this side.
    fn answered(&self) -> Option<bool> {
        match self {
            Self::Call(error) => match &error.reason {
                Reason::Unreachable(_) | Reason::Timeout | Reason::Lost(_) | Reason::Cut => {
                    Some(false)
                }
                Reason::Remote(_) => Some(true),
                Reason::Refused(_) | Reason::Overloaded | Reason::TooLarge | Reason::Closing => {
                    None
                }
            },
            Self::Failed(_) | Self::Nonsense => Some(true),
        }
    }

    fn result(&self) -> RpcResult {
        match self {
            Self::Call(error) => result_of_call(error),
            Self::Failed(_) | Self::Nonsense => RpcResult::Rejected,
        }
    }

    /// A stable word for spans.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Failed(Failure::Stale(_)) => STALE,
            _ => self.result().as_str(),
        }
    }

    /// The document that changed owners, if the question went by an older one.
    fn stale(&self) -> Option<u64> {
        match self {
            Self::Failed(Failure::Stale(number)) => Some(*number),
            _ => None,
        }
    }
}

impl Coordinator {
    /// Asks a peer, below a span that says so. The question leaves when this is called, not when the
    /// future is first polled.
    pub(super) fn ask(
        &self,
        span: Span,
        rpc: Rpc,
        to: &NodeId,
        request: &Request,
        body: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Reply, Bytes), AskError>> + Send + use<> {
        let began = Instant::now();
        let outgoing = Outgoing {
            head: message::encode(request),
            body,
            timeout,
            registry: self.registry().view().number(),
            span: Some(span.context()),
        };
        let call = self.net().call(to, outgoing);
        let (metrics, to) = (self.inner.ground.metrics.clone(), to.clone());
        let (gossip, registry) = (self.gossip().clone(), self.registry().clone());
        let coordinator = self.clone();
        async move {
            let result =
                call.await.map_err(AskError::Call).and_then(|answer| {
                    match message::decode(&answer.head) {
                        Ok(Reply::Failed(failure)) => Err(AskError::Failed(failure)),
                        Ok(reply) => Ok((reply, answer.body)),
                        Err(_) => Err(AskError::Nonsense),
                    }
                });
            let answered = result
                .as_ref()
                .map_or_else(AskError::answered, |_| Some(true));
            if let Some(answered) = answered {
                gossip.outcome(&to, answered);
            }
            let word = match &result {
                Ok(_) => RpcResult::Ok,
                Err(error) => {
                    span.fail(error.word(), error);
                    error.result()
                }
            };
            let took = began.elapsed();
            // Every owner gets every write, and all answers are waited for: that compares like with like.
            let counts = matches!(word, RpcResult::Ok | RpcResult::Timeout);
            if rpc == Rpc::ReplicaPut && counts {
                coordinator.took(&to, took);
            }
            metrics.rpc(rpc, to.as_str(), word, took, Some(&span));
            if let Some(number) = result.as_ref().err().and_then(AskError::stale) {
                // Whoever asked goes on by the newer one, or hears that there is none to be had.
                registry.catch_up(to, number, CATCH_UP).await;
            }
            result
        }
    }
}
