//! A hint: what a node keeps of a key for owners that could not take it.
//!
//! One record per key, however many owners it is for: one object, and the set of its targets. What comes for
//! one target is joined into the object and goes to all of them; replication only joins, so that is never
//! wrong, and a stand-in that mints again finds all it has ever minted for the key in one place. A target is
//! crossed off only by an acknowledgement whose dots cover the whole object; a hint without targets may go.
//! A hint that counted is a copy: nothing here drops one for age or size.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::context::Context;
use crate::id::{NodeId, Trace};
use crate::object::Object;

pub mod ledger;

#[cfg(test)]
mod tests;

/// The version of records that this code writes and reads.
const VERSION: u8 = 1;
/// The most span contexts a hint keeps, the latest: 26 bytes each, and a span takes 128 links in all.
pub const MAX_TRACES: usize = 8;

/// What is kept of a key for owners that could not take it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The join of all that came.
    pub object: Object,
    /// Whom it is for, and since when: milliseconds since the Unix epoch.
    pub targets: BTreeMap<NodeId, u64>,
    /// Spans of the writes that came, the latest last.
    pub traces: Vec<Trace>,
}

/// A record's head: what a scan looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whom it is for, and since when.
    pub targets: BTreeMap<NodeId, u64>,
    /// Spans of the writes that came.
    pub traces: Vec<Trace>,
}

/// Bytes that are not a hint of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hint of version {VERSION}")]
pub struct Malformed;

impl Hint {
    /// Takes in what came for these owners.
    pub fn keep<'a>(
        &mut self,
        object: &Object,
        targets: impl IntoIterator<Item = &'a NodeId>,
        now_ms: u64,
        trace: Option<Trace>,
    ) {
        self.object.join(object);
        for target in targets {
            self.targets.entry(target.clone()).or_insert(now_ms);
        }
        if let Some(trace) = trace.filter(|trace| !self.traces.contains(trace)) {
            self.traces.push(trace);
            let surplus = self.traces.len().saturating_sub(MAX_TRACES);
            self.traces.drain(..surplus);
        }
    }

    /// A target has these dots on disk. Crosses it off if they are all of the object's: what came since the
    /// delivery began keeps it. Answers whether it was crossed off.
    pub fn settle(&mut self, target: &NodeId, acked: &Context) -> bool {
        acked.covers(self.object.context()) && self.targets.remove(target).is_some()
    }

    /// A target owns the key no longer: everybody who does takes its place.
    pub fn reroute(&mut self, target: &NodeId, owners: &[NodeId]) {
        if let Some(since_ms) = self.targets.remove(target) {
            for owner in owners {
                let since = self.targets.entry(owner.clone()).or_insert(since_ms);
                *since = since_ms.min(*since);
            }
        }
    }

    /// Whether nobody waits for it any more.
    pub fn is_settled(&self) -> bool {
        self.targets.is_empty()
    }

    /// Writes a record.
    pub fn encode(&self) -> Bytes {
        let head = Head {
            targets: self.targets.clone(),
            traces: self.traces.clone(),
        };
        let head =
            postcard::to_extend(&head, Vec::new()).expect("names and numbers always serialise");
        let object = codec::encode(&self.object);
        let mut bytes = Vec::with_capacity(5 + head.len() + object.len());
        bytes.push(VERSION);
        let length = u32::try_from(head.len()).expect("a head has few targets");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&object);
        bytes.into()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let (Head { targets, traces }, object) = split(bytes)?;
        let object = codec::decode(&object).map_err(|_| Malformed)?;
        Ok(Self {
            object,
            targets,
            traces,
        })
    }
}

/// A record's head and its object, still encoded: byte for byte what an owner's record would be.
///
/// # Errors
/// [`Malformed`].
pub fn split(bytes: &Bytes) -> Result<(Head, Bytes), Malformed> {
    let mut rest = bytes.clone();
    if rest.len() < 5 || rest.get_u8() != VERSION {
        return Err(Malformed);
    }
    let length = rest.get_u32_le() as usize;
    if length > rest.len() {
        return Err(Malformed);
    }
    let head = rest.split_to(length);
    match postcard::take_from_bytes(&head) {
        Ok((head, [])) => Ok((head, rest)),
        _ => Err(Malformed),
    }
}
