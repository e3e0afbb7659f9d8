//! Finds the node that mints a write: which nodes are asked to coordinate it, in which order, and when to stop.
//!
//! A write is tried elsewhere only if the node before certainly did not mint it; else its client learns that the
//! outcome is unknown. One that its client may repeat this node may repeat, too: then a try whose outcome is unknown
//! is followed by one at the next node, within the client's time.

use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::NodeId;
use sibyl_core::message::{Coordinate, Failure, Request};
use tokio::time::Instant;

use super::Coordinator;
use super::once::Answered;
use super::placement::Placement;
use super::remote::AskError;
use super::request::PutError;
use crate::telemetry::{Rpc, Span};

/// Whether a node refused because it met too few to look for the write.
fn is_unsure(error: &AskError) -> bool {
    matches!(error, AskError::Failed(Failure::Unsure { .. }))
}

/// How long one try may take: with others behind it half of what is left, so that a silent node leaves time for
/// them.
fn share(left: Duration, once: bool, is_last: bool) -> Duration {
    if once && !is_last { left / 2 } else { left }
}

impl Coordinator {
    /// What other hints held becomes part of this node's, if it stands in.
    pub(super) fn relays(&self, stands_in: bool) {
        if stands_in {
            self.net().flights().relay();
        }
    }

    /// Why this node does not mint in the owners' place.
    pub(super) fn may_stand_in(
        &self,
        placement: &Placement,
        w: usize,
        sloppy: bool,
    ) -> Result<(), Failure> {
        if !sloppy || placement.also.contains(self.me()) {
            return Err(Failure::NotOwner);
        }
        if placement.in_reach() < w {
            // What is kept here alone would help nobody now.
            let few = "too few nodes can be reached that may take the write";
            return Err(Failure::NotServing(few.into()));
        }
        Ok(())
    }

    /// Gives the write to the first node that may coordinate it, can be reached and takes it. Only if its client
    /// may repeat it is it tried again where it may have been minted; what was unknown once is so to the end.
    pub(super) async fn hand_on(
        &self,
        span: &Span,
        placement: Placement,
        (coordinate, once): (Coordinate, bool),
        value: Bytes,
        deadline: Instant,
    ) -> Result<Answered, PutError> {
        let (w, owners) = (coordinate.w as usize, placement.owners.len());
        let (mut refused, mut unknown) = (None, None);
        let mut candidates = placement.candidates().peekable();
        while let Some(owner) = candidates.next() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && (refused.is_some() || unknown.is_some()) {
                // Asking on without time could only make unknown what is certain.
                break;
            }
            let left = share(left, once, candidates.peek().is_none());
            let (ours, value) = (coordinate.clone(), value.clone());
            let result = if owner == *self.me() {
                let coordinated = self.coordinate(span, (ours, once), value, left);
                coordinated.await.map_err(AskError::Failed)
            } else {
                let forwarded = self.forward(span, &owner, (ours, once), value, left);
                forwarded.await
            };
            match result {
                Ok(answered) => return Ok(answered),
                // Who could not be asked says less than who looked for the write and met too few.
                Err(error) if error.is_unsent() => {
                    refused = refused.filter(is_unsure).or(Some(error));
                }
                Err(AskError::Failed(failure @ (Failure::Refused(_) | Failure::Reused)))
                    if unknown.is_none() =>
                {
                    return Err(PutError::NotWritten(failure));
                }
                Err(error) => {
                    let (copies, failed) = match error {
                        AskError::Failed(Failure::Quorum { copies, failed, .. }) => {
                            (copies as usize, failed as usize)
                        }
                        _ => (0, 0),
                    };
                    unknown = Some(PutError::Unknown { copies, failed, w });
                    if !once {
                        break;
                    }
                }
            }
        }
        match (unknown, refused) {
            (Some(unknown), _) => Err(unknown),
            (None, Some(AskError::Failed(failure))) => Err(PutError::NotWritten(failure)),
            _ => Err(PutError::Unreachable { owners }),
        }
    }

    /// Gives a write to another node to coordinate.
    async fn forward(
        &self,
        span: &Span,
        to: &NodeId,
        (coordinate, once): (Coordinate, bool),
        value: Bytes,
        timeout: Duration,
    ) -> Result<Answered, AskError> {
        let coordinate = Box::new(coordinate);
        let request = match once {
            true => Request::CoordinateOnce(coordinate),
            false => Request::Coordinate(coordinate),
        };
        let call = self.ask(
            span.forward(to),
            Rpc::CoordinatorForward,
            to,
            &request,
            value,
            timeout,
        );
        let (reply, _) = call.await?;
        Answered::of(reply).ok_or(AskError::Nonsense)
    }
}
