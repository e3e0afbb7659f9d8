//! Changes of the registry as clients ask for them: made by a majority, then told to everybody in reach.
//!
//! The registry's task decides nothing about clients. This adds what a client expects of an answer: what was
//! just made through one node can be used through any other that can be reached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sibyl_core::id::Incarnation;
use sibyl_core::message::Request;
use sibyl_core::registry::Change;

use super::Coordinator;
use crate::tasks::registry::{ChangeFailed, View};
use crate::telemetry::{Rpc, Span};

/// How long an answer waits for nodes that the majority did not need: above what a fetch takes.
const SPREAD: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Makes a change and waits, within bounds, until every node that can be reached has it in force.
    ///
    /// # Errors
    /// [`ChangeFailed`].
    pub async fn change(&self, span: &Span, change: Change) -> Result<Arc<View>, ChangeFailed> {
        let view = self.registry().change(Some(span), change).await?;
        self.spread(span).await;
        Ok(view)
    }

    /// A node that is asked anything learns the asker's registry number before it answers, so the least
    /// question does. Whoever does not answer learns it from the next frame that reaches it.
    async fn spread(&self, span: &Span) {
        let question = Request::Conflicts {
            bucket: Incarnation(0),
            after: None,
            limit: 0,
        };
        let others = self.net().peers().into_iter().filter(|peer| peer.reachable);
        let told: FuturesUnordered<_> = others
            .map(|peer| {
                let rpc = span.rpc_client(Rpc::NodeStatus, &peer.node_id);
                self.ask(
                    rpc,
                    Rpc::NodeStatus,
                    &peer.node_id,
                    &question,
                    Bytes::new(),
                    SPREAD,
                )
            })
            .collect();
        let _answers: Vec<_> = told.collect().await;
    }
}
