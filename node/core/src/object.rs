//! What a replica stores for a key, and the join: the only thing replication does.
//!
//! An object is a context and the siblings whose dots survive in it. Join keeps a dot if both sides hold
//! it, or if one side holds it and the other side's context does not contain it; contexts are united.
//! Every dot belongs to a group: for a plain write its own counter, for a fold a fresh number of the
//! folder. For every dot the higher (group, undone) wins, and dots of one group form one sibling. No user
//! code runs here, so the store stays correct if every resolver is broken.
//! Beside them it remembers writes that their clients may repeat (`receipts`), which no join reads.
//! Invariants: every sibling's dots are in the context; no dot stands in two siblings; siblings are in the
//! order of (actor, group). `design/merge-model.md` has the model, `tests` its laws.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::id::{Actor, Digest, Dot, Trace, WriteId};

mod receipts;
#[cfg(test)]
mod tests;

pub use receipts::{MAX_RECEIPTS, Recall, Receipt};

/// What a client wrote: a value or a tombstone, and what belongs to it. Stamped once by the coordinator,
/// equal on every replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// The bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The media type the client named.
    pub content_type: String,
    /// Attributes the client attached, by name.
    pub attributes: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch: max(coordinator's clock, 1 + the newest it covered).
    pub modified_at: u64,
    /// The client request that made it.
    pub write_id: WriteId,
    /// The span context of the writer, for links from a merge back to the writes.
    pub trace: Option<Trace>,
}

impl Content {
    /// Whether this says deleted.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// One input of a fold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Input {
    /// The input's counter; its actor is the folder's.
    pub counter: u64,
    /// The input's write id.
    pub write_id: WriteId,
    /// SHA-256 of the input's payload.
    pub payload: Digest,
    /// The input's modified-at.
    pub modified_at: u64,
}

/// Provenance of a folded payload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fold {
    /// The resolver that made the payload.
    pub resolver: Digest,
    /// SHA-256 of the configuration it was given.
    pub config: Digest,
    /// The epoch of the binding.
    pub epoch: u64,
    /// What it was made from, in the order of counters.
    pub inputs: Vec<Input>,
}

/// Stands for one dot, or, after a fold, for several dots of one actor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling {
    /// Who minted its dots, and alone may fold them.
    pub actor: Actor,
    /// The group: the counter of a plain write, or the folder's fresh number.
    pub group: u64,
    /// Whether somebody undid this fold.
    pub undone: bool,
    /// The counters of the dots it still stands for, ascending; never empty.
    pub counters: Vec<u64>,
    /// The payload and what belongs to it.
    pub content: Content,
    /// Where a folded payload comes from; `None` for a plain write.
    pub fold: Option<Fold>,
}

impl Sibling {
    /// A plain write.
    pub fn written(dot: Dot, content: Content) -> Self {
        Self {
            actor: dot.actor,
            group: dot.counter,
            undone: false,
            counters: vec![dot.counter],
            content,
            fold: None,
        }
    }

    /// The dots it stands for.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.counters.iter().map(|counter| Dot {
            actor: self.actor,
            counter: *counter,
        })
    }

    /// The lowest of its dots: the name the API gives it.
    pub fn dot(&self) -> Dot {
        Dot {
            actor: self.actor,
            counter: self.counters[0],
        }
    }

    /// Whether its payload is valid: a plain write, or a fold all of whose inputs survive and that
    /// nobody undid.
    pub fn is_whole(&self) -> bool {
        let all = |fold: &Fold| {
            !self.undone
                && fold
                    .inputs
                    .iter()
                    .map(|input| input.counter)
                    .eq(self.counters.iter().copied())
        };
        self.fold.as_ref().is_none_or(all)
    }

    fn key(&self) -> (Actor, u64) {
        (self.actor, self.group)
    }
}

/// What a replica stores for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    context: Context,
    siblings: Vec<Sibling>,
    /// Writes that their clients may repeat, superseded ones too.
    receipts: Vec<Receipt>,
}

/// What a write asks for, apart from its dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What the client had seen; `None` is a blind write.
    pub context: Option<Context>,
    /// The dots of tombstones that a read before a blind write found (`delete_wins` buckets).
    pub tombstones: Context,
    /// The payload. Its `modified_at` is the coordinator's clock; minting may raise it.
    pub content: Content,
}

/// A fresh dot, and how far down its actor vouches for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The fresh dot.
    pub dot: Dot,
    /// The partition's line: the counter above which the minter vouches for its copies.
    pub line: u64,
}

/// Bounds that minting keeps; joins are never refused for size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The most siblings a write without a causal predecessor may leave: live ones, and if it is a
    /// tombstone, tombstones with them (deletes repeated with one context would pile up without end).
    pub siblings: usize,
    /// The most bytes of values an object may hold.
    pub object_bytes: usize,
    /// The most intervals a context may take.
    pub context_intervals: usize,
}

/// Why a write was not minted; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The write would leave more siblings than the bucket allows, and covers none.
    #[error("the key would have {siblings} siblings, the bucket allows {cap}")]
    Siblings {
        /// How many there would be.
        siblings: usize,
        /// How many there may be.
        cap: usize,
    },
    /// The write would make the object larger than the bucket allows.
    #[error("the key would hold {bytes} bytes in all its siblings, the bucket allows {cap}")]
    ObjectBytes {
        /// How many there would be.
        bytes: usize,
        /// How many there may be.
        cap: usize,
    },
    /// The context would become too long to hand to a client.
    #[error(
        "the key's context would take {intervals} intervals, at most {cap} can be handed to a client"
    )]
    Context {
        /// How many there would be.
        intervals: usize,
        /// How many there may be.
        cap: usize,
    },
}

/// What a write leaves behind, besides the changed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What goes to the other replicas: the one sibling with the writer's context, to be joined there.
    /// Never the object's context: it would claim what the sibling's writer did not know.
    pub shipment: Object,
    /// What the client may reuse: the request's context and the new dot, nothing more.
    pub answer: Context,
    /// How many siblings the write covered.
    pub covered: usize,
}

impl Object {
    /// An object of these parts.
    ///
    /// # Panics
    /// If a sibling has no dot or one outside the context, or if two siblings share a dot or a group.
    pub fn from_parts(context: Context, siblings: Vec<Sibling>) -> Self {
        let object = Self::parts(context, siblings);
        assert!(
            object.is_sound(),
            "an object breaks its invariants: {object:?}"
        );
        object
    }

    /// As [`Object::from_parts`], for parts that come from outside: `None` where the other panics.
    pub fn try_from_parts(context: Context, siblings: Vec<Sibling>) -> Option<Self> {
        let object = Self::parts(context, siblings);
        object.is_sound().then_some(object)
    }

    fn parts(context: Context, siblings: Vec<Sibling>) -> Self {
        Self {
            context,
            siblings,
            receipts: Vec::new(),
        }
    }

    fn is_sound(&self) -> bool {
        let ordered = self
            .siblings
            .windows(2)
            .all(|pair| pair[0].key() < pair[1].key());
        let ascending = |counters: &[u64]| counters.windows(2).all(|pair| pair[0] < pair[1]);
        let held = self.siblings.iter().all(|sibling| {
            !sibling.counters.is_empty()
                && ascending(&sibling.counters)
                && sibling.dots().all(|dot| self.context.contains(dot))
        });
        ordered && held && self.remembers_soundly() && {
            let mut dots: Vec<_> = self.siblings.iter().flat_map(Sibling::dots).collect();
            dots.sort_unstable();
            dots.windows(2).all(|pair| pair[0] < pair[1])
        }
    }

    /// The context and the siblings.
    pub fn into_parts(self) -> (Context, Vec<Sibling>) {
        (self.context, self.siblings)
    }

    /// Every dot this copy has ever known of.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The siblings, in the order of (actor, group).
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// The siblings that are not tombstones.
    pub fn live(&self) -> impl Iterator<Item = &Sibling> {
        self.siblings
            .iter()
            .filter(|sibling| !sibling.content.is_tombstone())
    }

    /// The dots of the tombstones.
    pub fn tombstones(&self) -> Context {
        let dead = self
            .siblings
            .iter()
            .filter(|sibling| sibling.content.is_tombstone());
        dead.flat_map(Sibling::dots).collect()
    }

    /// Whether nothing was ever written here.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty() && self.siblings.is_empty()
    }

    /// The bytes of all values.
    pub fn value_bytes(&self) -> usize {
        let bytes = |sibling: &Sibling| sibling.content.value.as_ref().map_or(0, Bytes::len);
        self.siblings.iter().map(bytes).sum()
    }

    /// Joins another copy into this one: associative, commutative, idempotent, and it loses nothing that
    /// neither side has superseded. Answers whether anything changed.
    pub fn join(&mut self, other: &Self) -> bool {
        if other.is_empty() || self == other {
            return false;
        }
        if self.is_empty() {
            self.clone_from(other);
            return true;
        }
        let ours = by_dot(self);
        let theirs = by_dot(other);
        let mut groups: BTreeMap<(Actor, u64), (Ranked<'_>, Vec<u64>)> = BTreeMap::new();
        let dots: BTreeSet<Dot> = ours.keys().chain(theirs.keys()).copied().collect();
        for dot in dots {
            let winner = match (ours.get(&dot), theirs.get(&dot)) {
                (Some(a), Some(b)) => Some(*a.max(b)),
                (Some(a), None) => (!other.context.contains(dot)).then_some(*a),
                (None, Some(b)) => (!self.context.contains(dot)).then_some(*b),
                (None, None) => None,
            };
            if let Some(winner) = winner {
                let group = groups.entry(winner.0.key()).or_insert((winner, Vec::new()));
                group.0 = group.0.max(winner);
                group.1.push(dot.counter);
            }
        }
        let siblings: Vec<_> = groups
            .into_values()
            .map(|(Ranked(sibling), counters)| regroup(sibling, counters))
            .collect();
        let mut context = self.context.clone();
        context.join(&other.context);
        let receipts = receipts::newest(&self.receipts, &other.receipts);
        let joined = Self {
            context,
            siblings,
            receipts,
        };
        let changed = *self != joined;
        *self = joined;
        changed
    }

    /// A dot under which two copies hold different payloads, which no history makes: somebody minted it twice,
    /// or bytes were damaged where no checksum looks. (Equal contexts with different siblings are no such
    /// thing: a blind write covers its coordinator's tombstones by dot only, and what those had deleted may
    /// survive elsewhere until the next join.)
    pub fn contradiction(&self, other: &Self) -> Option<Dot> {
        let theirs = by_dot(other);
        let same = |a: &Sibling, b: &Sibling| a.content == b.content && a.fold == b.fold;
        by_dot(self).into_iter().find_map(|(dot, Ranked(ours))| {
            let Ranked(theirs) = theirs.get(&dot)?;
            let rank = |sibling: &Sibling| (sibling.group, sibling.undone);
            (rank(ours) == rank(theirs) && !same(ours, theirs)).then_some(dot)
        })
    }

    /// Adds a client's write under a fresh dot: removes the dots it covers, raises its `modified_at` above
    /// the newest of them, and joins its context and dot into the object's.
    ///
    /// # Errors
    /// [`Refused`] if the caps forbid it; then nothing has changed.
    pub fn write(&mut self, mint: Mint, write: Write, caps: Caps) -> Result<Written, Refused> {
        let answered = write.context.clone().unwrap_or_default();
        let mut covers = write.tombstones;
        match &write.context {
            Some(context) => covers.join(context),
            None => covers.join(&self.tombstones()),
        }
        let (kept, newest, covered) = self.without(&covers);
        let mut content = write.content;
        content.modified_at = content
            .modified_at
            .max(newest.map_or(0, |at| at.saturating_add(1)));

        let Dot { actor, counter } = mint.dot;
        let after = self
            .context
            .highest_above(actor, mint.line)
            .unwrap_or(counter - 1);
        let mut known = covers;
        known.insert_interval(actor, after, counter);

        let sibling = Sibling::written(mint.dot, content);
        let mut next = Self {
            context: self.context.clone(),
            siblings: kept,
            receipts: self.receipts.clone(),
        };
        next.context.join(&known);
        let at = next
            .siblings
            .partition_point(|old| old.key() < sibling.key());
        next.siblings.insert(at, sibling.clone());
        next.keep_caps(self, sibling.content.is_tombstone(), covered, caps)?;
        *self = next;

        let mut answer = answered;
        answer.insert(mint.dot);
        Ok(Written {
            shipment: Self::parts(known, vec![sibling]),
            answer,
            covered,
        })
    }

    /// The siblings without the dots of a context, the newest `modified_at` that lost a dot, and how many
    /// siblings did.
    fn without(&self, covers: &Context) -> (Vec<Sibling>, Option<u64>, usize) {
        let (mut kept, mut newest, mut covered) = (Vec::new(), None, 0);
        for sibling in &self.siblings {
            let counters: Vec<u64> = sibling
                .dots()
                .filter(|dot| !covers.contains(*dot))
                .map(|dot| dot.counter)
                .collect();
            if counters.len() < sibling.counters.len() {
                newest = newest.max(Some(sibling.content.modified_at));
                covered += 1;
            }
            if !counters.is_empty() {
                kept.push(regroup(sibling, counters));
            }
        }
        (kept, newest, covered)
    }

    fn keep_caps(
        &self,
        before: &Self,
        deletes: bool,
        covered: usize,
        caps: Caps,
    ) -> Result<(), Refused> {
        let siblings = if deletes {
            self.siblings.len()
        } else {
            self.live().count()
        };
        if covered == 0 && siblings > caps.siblings {
            return Err(Refused::Siblings {
                siblings,
                cap: caps.siblings,
            });
        }
        let bytes = self.value_bytes();
        if bytes > caps.object_bytes && bytes > before.value_bytes() {
            return Err(Refused::ObjectBytes {
                bytes,
                cap: caps.object_bytes,
            });
        }
        let intervals = self.context.len();
        if intervals > caps.context_intervals && intervals > before.context.len() {
            return Err(Refused::Context {
                intervals,
                cap: caps.context_intervals,
            });
        }
        Ok(())
    }
}

/// A sibling as a candidate for a dot: the higher (group, undone) wins. Content breaks a tie that only
/// damage can make, so that join stays commutative even then.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ranked<'a>(&'a Sibling);

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |Self(sibling): &Self| (sibling.group, sibling.undone);
        key(self)
            .cmp(&key(other))
            .then_with(|| (&self.0.content, &self.0.fold).cmp(&(&other.0.content, &other.0.fold)))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn by_dot(object: &Object) -> BTreeMap<Dot, Ranked<'_>> {
    let dots = |sibling| Sibling::dots(sibling).map(move |dot| (dot, Ranked(sibling)));
    object.siblings.iter().flat_map(dots).collect()
}

/// The same sibling, standing for these of its dots.
fn regroup(sibling: &Sibling, counters: Vec<u64>) -> Sibling {
    Sibling {
        counters,
        ..sibling.clone()
    }
}
