//! Deletes a bucket only while nobody can write to it.
//!
//! Whether a bucket is empty is worth nothing if a write comes after the look. So every member first takes no
//! more writes for it, and says so once those it had taken are in its store; then all owners of every partition
//! are heard, and then the registry is changed. A write that was acknowledged is seen, one that comes later is
//! refused, and nobody's is lost with the bucket. A member that cannot be asked keeps the bucket: it may hold a
//! write that nobody else has.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sibyl_core::id::{Incarnation, NodeId};
use sibyl_core::message::{Failure, Reply, Request};
use tokio::time::Instant;

use super::{BucketFailed, Coordinator};
use crate::telemetry::{Rpc, Span};

/// How long a bucket stays closed if whoever closed it dies: above the look and the change together.
const HOLD: Duration = Duration::from_secs(60);
/// How much of that the look may take. What remains is for the change, which is given up far earlier.
const LOOK: Duration = Duration::from_secs(30);
/// How long one node may take to close it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Runs `work` while no member takes a write for the bucket. Whatever comes of it, the bucket is open again
    /// afterwards, if it is still there.
    pub(super) async fn while_closed<T>(
        &self,
        span: &Span,
        bucket: Incarnation,
        work: impl Future<Output = Result<T, BucketFailed>>,
    ) -> Result<T, BucketFailed> {
        let done = match self.close(span, bucket, HOLD).await {
            None => work.await,
            Some((node, why)) => Err(BucketFailed::NotClosed { node, why }),
        };
        if done.is_err() {
            // Whoever is not told opens it when the time is over.
            let _untold = self.close(span, bucket, Duration::ZERO).await;
        }
        done
    }

    /// Whether there is still time to change the registry after a look that began then.
    pub(super) fn is_still_closed(began: Instant) -> bool {
        began.elapsed() < LOOK
    }

    /// Takes no more writes for a bucket here. A node that still keeps some of it for owners that were away
    /// refuses: they are not in any list yet.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn close_here(&self, bucket: Incarnation, hold: Duration) -> Result<(), Failure> {
        self.replica().close(bucket, hold).await?;
        if hold.is_zero() || !self.replica().keeps_hints_of(bucket)? {
            return Ok(());
        }
        self.replica().close(bucket, Duration::ZERO).await?;
        let why = "it keeps writes to the bucket for nodes that were away: ask again once they are delivered";
        Err(Failure::NotServing(why.into()))
    }

    /// Tells every member; the first that could not be told, and why.
    async fn close(
        &self,
        span: &Span,
        bucket: Incarnation,
        hold: Duration,
    ) -> Option<(NodeId, String)> {
        let question = Request::Close {
            bucket,
            hold_ms: u32::try_from(hold.as_millis()).unwrap_or(u32::MAX),
        };
        let members = self.registry().view().document().layout.members.clone();
        let others = members.into_keys().filter(|node| node != self.me());
        let mut told: FuturesUnordered<_> = others
            .map(|node| {
                let rpc = span.rpc_client(Rpc::BucketClose, &node);
                let answer = self.ask(
                    rpc,
                    Rpc::BucketClose,
                    &node,
                    &question,
                    Bytes::new(),
                    CLOSE_TIMEOUT,
                );
                async move { (node, answer.await) }
            })
            .collect();
        let mine = self.close_here(bucket, hold).await;
        let mut failed = mine.err().map(|why| (self.me().clone(), why.to_string()));
        while let Some((node, answer)) = told.next().await {
            match answer {
                Ok((Reply::Joined, _)) => {}
                Ok(_) => failed = Some((node, "its answer makes no sense".to_owned())),
                Err(why) => failed = Some((node, why.to_string())),
            }
        }
        failed
    }
}
