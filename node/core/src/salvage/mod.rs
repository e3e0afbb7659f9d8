//! Salvage: taking over what a removed node still holds.
//!
//! A node that was removed and comes back may be the only one that holds a write which was acknowledged, and it may
//! hold what was deleted and forgotten since: from its own copies nobody can tell the two apart. An owner can, for
//! itself: [`decide`] holds what is brought against the owner's own copy and its reaping horizon. The node asks one
//! owner after the other ([`Giving`]); what all of them refuse stays with it, for an operator. Everything that is
//! taken over is joined, so bringing it twice, or half of it, does no harm.
//!
//! Why one owner that remembers is enough: a key is reaped only when *every* owner of its partition has sealed the
//! same tombstones. Who was an owner all the time and has reaped nothing there since then has forgotten nothing that
//! anybody deleted; `node/docs/decisions/0014` tells it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Actor, Digest, NodeId, Partition};
use crate::message::{self, Place};
use crate::object::Object;
use crate::record;
use crate::registry::{Document, Farewell, Former, Partitions};

mod giving;
#[cfg(test)]
mod tests;

pub use giving::{Effect, Event, Giving, PAUSE_MS, Record};

/// How far two members' epochs may lie apart where a store's last one is compared with another's horizon: nodes are
/// one apart at most, and what is on disk may be entered a moment later.
pub const SLACK: u64 = 2;
/// The most objects in a batch: at 1 KiB each 256 KiB, which a disk takes in one sync.
pub const MAX_BATCH: usize = 256;
/// The most bytes of objects in a batch, but for a single one that is larger: an eighth of what a frame takes.
pub const MAX_BATCH_BYTES: usize = 4 << 20;
/// The most bytes of keys in a batch: 48 keys of the greatest length, and a head of 64 KiB has room for their numbers.
pub const MAX_BATCH_KEY_BYTES: usize = 48 << 10;
/// The longest key of a bucket, in bytes: what the HTTP API takes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Under what name the node's note of its removal is sealed.
const NOTE: &[u8] = b"fenced";

/// What becomes of one object at one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It held something that was not known, and is joined now.
    Imported,
    /// Every dot of it was known already.
    Known,
    /// It holds something unknown, and this owner may have forgotten that.
    Older,
    /// Its bucket was deleted.
    Gone,
    /// The key is not this node's.
    NotMine,
}

/// Whether an owner has forgotten nothing since a store confirmed this epoch for the last time. `horizon`: the epoch
/// of the owner's last reap, or of its becoming an owner; 0 if there was neither, `None` if it cannot say.
pub fn remembers(horizon: Option<u64>, epoch: u64) -> bool {
    match horizon {
        Some(0) => true,
        Some(horizon) => horizon.saturating_add(SLACK) < epoch,
        None => false,
    }
}

/// The epoch that a store may claim to have confirmed. Epochs are counted in a lineage: whoever was sent away by a
/// recovery, or before it, counted on beside this one, and claims no more than this one began with.
pub fn claimed(document: &Document, former: &Former, epoch: u64) -> u64 {
    let recovery = document.recovery();
    let recovery = recovery.filter(|recovery| former.number <= recovery.number);
    recovery.map_or(epoch, |recovery| epoch.min(recovery.epoch))
}

/// Up to which horizon an owner remembers everything that a store holds which a recovery gave up; `None` if it says
/// nothing of that store. Whoever recovered became an owner of everything with that document, and from then on
/// nothing is forgotten without it; what was forgotten before, was so with the consent of the store that comes back,
/// as it was a member. So only what it forgot later counts, five epochs after the recovery at the earliest. `epoch`
/// tells a store that was a member to the end from an older state of one.
pub fn recovered_memory(
    document: &Document,
    former: &Former,
    owner: Actor,
    epoch: u64,
) -> Option<u64> {
    let recovery = document.recovery()?;
    let given_up = former.why == Farewell::Lost && former.number == recovery.number;
    let to_the_end = epoch.saturating_add(1) >= recovery.epoch;
    (given_up && to_the_end && owner == recovery.by).then(|| recovery.epoch.saturating_add(1))
}

/// Decides about one object, and joins it into the owner's copy if it is imported.
pub fn decide(held: &mut Object, brought: &Object, remembers: bool) -> Verdict {
    if held.context().covers(brought.context()) {
        Verdict::Known
    } else if remembers {
        held.join(brought);
        Verdict::Imported
    } else {
        Verdict::Older
    }
}

/// What the node that gives asks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who owns this partition?
    Owners(Partition),
    /// Take these.
    Take(Batch),
}

/// Objects on their way to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last reaping epoch that the store confirmed.
    pub epoch: u64,
    /// The operator wants everything, whatever may have been deleted.
    pub all: bool,
    /// The objects, as they lie on disk.
    pub objects: Vec<(Place, Bytes)>,
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Where the owners are reached.
    Owners(Vec<String>),
    /// What became of each object; what was taken is on disk.
    Took(Vec<Verdict>),
    /// Not now, for this reason.
    Later(String),
}

/// The head of a question; objects lie in the body, one behind the other.
#[derive(Serialize, Deserialize)]
enum Head {
    Owners(Partition),
    Take {
        epoch: u64,
        all: bool,
        places: Vec<(Place, u32)>,
    },
}

/// Bytes that are no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a question of a node that gives what it holds")]
pub struct Malformed;

impl Ask {
    /// Head and body of a frame.
    pub fn encode(&self) -> (Bytes, Bytes) {
        let Self::Take(batch) = self else {
            return (message::encode(&self.head()), Bytes::new());
        };
        let objects = batch.objects.iter();
        let body: Vec<u8> = objects
            .flat_map(|(_, object)| object.iter().copied())
            .collect();
        (message::encode(&self.head()), body.into())
    }

    fn head(&self) -> Head {
        match self {
            Self::Owners(partition) => Head::Owners(*partition),
            Self::Take(batch) => {
                let length = |object: &Bytes| u32::try_from(object.len()).unwrap_or(u32::MAX);
                let objects = batch.objects.iter();
                Head::Take {
                    epoch: batch.epoch,
                    all: batch.all,
                    places: objects
                        .map(|(place, object)| (place.clone(), length(object)))
                        .collect(),
                }
            }
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Malformed`], and nothing is allocated for what is not there.
    pub fn decode(head: &[u8], body: &Bytes) -> Result<Self, Malformed> {
        let (epoch, all, places) = match message::decode(head).map_err(|_| Malformed)? {
            Head::Owners(partition) if body.is_empty() => return Ok(Self::Owners(partition)),
            Head::Owners(_) => return Err(Malformed),
            Head::Take { epoch, all, places } => (epoch, all, places),
        };
        if places.len() > MAX_BATCH {
            return Err(Malformed);
        }
        let (mut rest, mut objects) = (body.clone(), Vec::with_capacity(places.len()));
        for (place, length) in places {
            let length = length as usize;
            if length > rest.len() || place.key.len() > MAX_KEY_BYTES {
                return Err(Malformed);
            }
            objects.push((place, rest.split_to(length)));
        }
        if !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Self::Take(Batch {
            epoch,
            all,
            objects,
        }))
    }
}

/// What became of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Objects that held something nobody knew.
    pub imported: u64,
    /// Objects of which everything was known.
    pub known: u64,
    /// Objects that nobody may take: they may have been deleted and forgotten since.
    pub quarantined: u64,
    /// Objects of buckets that were deleted.
    pub gone: u64,
    /// Records that cannot be read.
    pub damaged: u64,
}

impl Tally {
    /// Counts one more.
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Imported => self.imported += 1,
            Verdict::Known => self.known += 1,
            Verdict::Gone => self.gone += 1,
            Verdict::Older | Verdict::NotMine => {}
        }
    }

    /// Counts another tally in.
    pub fn add(&mut self, other: &Self) {
        self.imported += other.imported;
        self.known += other.known;
        self.quarantined += other.quarantined;
        self.gone += other.gone;
        self.damaged += other.damaged;
    }
}

/// What a node notes of its removal, beside its store: it survives that store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Its name as a member.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster_id: String,
    /// Which of that name.
    pub lineage: Option<Digest>,
    /// The store that was sent away.
    pub store: Actor,
    /// The document that did so.
    pub number: u64,
    /// Where members were reached when it was one.
    pub members: Vec<String>,
    /// Partitions of which everything was given.
    pub done: Partitions,
    /// What became of those.
    pub tally: Tally,
    /// Whether all is given, or the operator wants nothing to be: the store may be put aside.
    pub over: bool,
}

impl Fenced {
    /// The bytes of the note.
    pub fn encode(&self) -> Vec<u8> {
        record::seal(NOTE, &message::encode(self))
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let note = record::unseal(NOTE, bytes).map_err(|_| Malformed)?;
        message::decode(note).map_err(|_| Malformed)
    }
}
