//! Writes that their clients may repeat: what is looked at before one is minted.
//!
//! Such a write reads first, at the bucket's R and at least n + 1 - w, which meets every copy set that an earlier
//! try with this w was acknowledged by. A strict write is refused if too few answer. A sloppy one goes on with
//! what was found: in a cut it may then be minted twice, and views count it once when the two meet.

use std::sync::Arc;
use std::time::Duration;

use sibyl_core::message::{Coordinate, Failure, Reply, Written};
use sibyl_core::object::Object;
use sibyl_core::quorum::Level;

use super::Coordinator;
use super::request::GetRequest;
use super::write::PATIENCE;
use crate::replica::Slot;
use crate::tasks::registry::View;
use crate::telemetry::Span;

/// A write as it was answered, and whether it was there before.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The write.
    pub written: Written,
    /// Whether a retry was recognised, and nothing minted.
    pub repeated: bool,
}

impl Answered {
    /// As it travels.
    pub fn into_reply(self) -> Reply {
        match self.repeated {
            true => Reply::Repeated(self.written),
            false => Reply::Written(self.written),
        }
    }

    /// As it came; `None` for another answer.
    pub(super) fn of(reply: Reply) -> Option<Self> {
        let (written, repeated) = match reply {
            Reply::Written(written) => (written, false),
            Reply::Repeated(written) => (written, true),
            _ => return None,
        };
        Some(Self { written, repeated })
    }
}

impl Coordinator {
    /// What the key's other replicas hold, for a write that may have been made before.
    ///
    /// # Errors
    /// [`Failure::Unsure`] if the write is strict and too few answer.
    pub(super) async fn look_back(
        &self,
        span: &Span,
        (view, slot): (&Arc<View>, &Slot),
        coordinate: &Coordinate,
        left: Duration,
    ) -> Result<Object, Failure> {
        let (name, bucket) = view.bucket_of(slot.place.bucket).ok_or(Failure::Bucket)?;
        let owners = view.owners(bucket, slot.partition).len();
        let r = bucket.config.r.need(usize::from(bucket.config.n), owners);
        let meets = (owners + 1).saturating_sub(coordinate.w as usize);
        let need = r.max(meets).clamp(1, owners);
        // Without a quorum a sloppy write goes on all the same: then it must not use up the client's time.
        let patience = if coordinate.sloppy {
            PATIENCE.min(left / 3)
        } else {
            left
        };
        let read = GetRequest {
            bucket: name.to_owned(),
            key: slot.place.key.clone(),
            r: Some(Level::Count(u8::try_from(need).unwrap_or(u8::MAX))),
            sloppy: Some(coordinate.sloppy),
            timeout: Some(patience),
            partial: false,
            resolve: false,
        };
        let unsure = |replies: usize| Failure::Unsure {
            replies: u32::try_from(replies).unwrap_or(u32::MAX),
            need: u32::try_from(need).unwrap_or(u32::MAX),
        };
        match self.read(span, view, bucket, slot, &read).await {
            Ok((outcome, _)) if outcome.met || coordinate.sloppy => Ok(outcome.object),
            Ok((outcome, _)) => Err(unsure(outcome.replies)),
            Err(_) => Err(unsure(0)),
        }
    }
}
