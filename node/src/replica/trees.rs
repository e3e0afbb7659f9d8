//! What others ask of this node's trees: nodes, pages of keys, objects for a parcel, a step of a rebuild.
//!
//! Reads go past the writer to the store, as all reads do; they block, so callers stand on a thread that may.
//! A record that turns out to be damaged is noted, for somebody to fetch it from other owners. Nothing here
//! knows peers, or when an exchange is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::flow::exchange::{BATCH_BYTES, Delivery, Page};
use sibyl_core::id::{Incarnation, Partition};
use sibyl_core::merkle::{self, Tagger, Tree};
use sibyl_core::message::{Failure, Place};
use sibyl_core::object::Object;
use sibyl_core::registry::Secret;
use tokio::sync::{oneshot, watch};

use super::leaves::{Marks, Step, read};
use super::{Command, Done, Replica, Slot, taken_apart, unreadable};

/// Damaged records remembered; more are found again when these are healed. At 1 KiB a key, 1 MiB.
const DAMAGED: usize = 1024;

/// A step of a rebuild, asked for.
pub(super) struct Asked {
    pub(super) partition: Partition,
    pub(super) copies: Arc<BTreeMap<Incarnation, u8>>,
    pub(super) done: Done<Step>,
}

/// Records that cannot be read, and a bell that rings when there is a new one.
pub type Damaged = watch::Receiver<BTreeSet<Slot>>;

/// What the writer tells and others look at.
#[derive(Default)]
pub(super) struct Shared {
    tagger: OnceLock<Tagger>,
    marks: watch::Sender<Marks>,
    damaged: watch::Sender<BTreeSet<Slot>>,
}

impl Shared {
    pub(super) fn tagger(&self) -> Option<&Tagger> {
        self.tagger.get()
    }

    pub(super) fn publish(&self, marks: &Marks) {
        self.marks.send_if_modified(|published| {
            let changed = *published != *marks;
            if changed {
                published.clone_from(marks);
            }
            changed
        });
    }

    pub(super) fn note_damage(&self, slot: &Slot) {
        self.damaged
            .send_if_modified(|damaged| damaged.len() < DAMAGED && damaged.insert(slot.clone()));
    }
}

impl Replica {
    /// From now on leaves are kept under this key; only the first call counts.
    pub fn use_cluster_key(&self, key: &Secret) {
        // The key never changes within a lineage.
        let _second = self.facts.trees.tagger.set(Tagger::new(key));
    }

    /// Makes tags, once the cluster key is known.
    pub fn tagger(&self) -> Option<&Tagger> {
        self.facts.trees.tagger()
    }

    /// Whether a partition's trees are known to be right.
    pub fn is_clean(&self, partition: Partition) -> bool {
        self.facts.trees.marks.borrow().is_clean(partition)
    }

    /// Partitions whose trees are not known to be right, among the first so many.
    pub fn unclean(&self, partitions: u32) -> Vec<Partition> {
        self.facts
            .trees
            .marks
            .borrow()
            .unclean(partitions)
            .collect()
    }

    /// Follows which trees are known to be right.
    pub fn marks(&self) -> watch::Receiver<Marks> {
        self.facts.trees.marks.subscribe()
    }

    /// Records that cannot be read and that nobody has healed yet.
    pub fn damaged(&self) -> Damaged {
        self.facts.trees.damaged.subscribe()
    }

    /// One step of computing a partition's leaves from its objects; `copies` are those of all buckets.
    ///
    /// # Errors
    /// [`Failure`] if the store cannot be read, or the node is stopping.
    pub async fn step_tree(
        &self,
        partition: Partition,
        copies: Arc<BTreeMap<Incarnation, u8>>,
    ) -> Result<Step, Failure> {
        let (done, stepped) = oneshot::channel();
        // The waiter may be gone; the step is made all the same.
        let done = Box::new(move |result| drop(done.send(result)));
        let asked = Asked {
            partition,
            copies: Arc::clone(&copies),
            done,
        };
        let sent = self.queue.send(Command::Step(asked)).await;
        sent.map_err(|_| self.stopped())?;
        let step = stepped.await.unwrap_or_else(|_| Err(self.stopped()))?;
        for record in &step.damaged {
            self.note_record(record, &copies);
        }
        Ok(step)
    }

    /// Puts an object in the place of a record that cannot be read, and syncs it.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn replace(&self, slot: Slot, object: Object) -> Result<(), Failure> {
        let (done, replaced) = oneshot::channel();
        let counts = Box::new(move |result| drop(done.send(result)));
        let command = Command::Replace {
            slot: slot.clone(),
            object,
            counts,
        };
        self.queue.send(command).await.map_err(|_| self.stopped())?;
        replaced.await.unwrap_or_else(|_| Err(self.stopped()))?;
        self.facts
            .trees
            .damaged
            .send_if_modified(|damaged| damaged.remove(&slot));
        Ok(())
    }

    /// A record that could not be read can be read again: its tree is looked at anew if it does not count it.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store failed.
    pub async fn readable(&self, slot: Slot) -> Result<(), Failure> {
        let (done, noted) = oneshot::channel();
        let counts = Box::new(move |result| drop(done.send(result)));
        let command = Command::Readable {
            slot: slot.clone(),
            counts,
        };
        self.queue.send(command).await.map_err(|_| self.stopped())?;
        noted.await.unwrap_or_else(|_| Err(self.stopped()))?;
        self.not_damaged(&slot);
        Ok(())
    }

    /// Forgets that a record was damaged: it is not this node's any more.
    pub fn not_damaged(&self, slot: &Slot) {
        self.facts
            .trees
            .damaged
            .send_if_modified(|damaged| damaged.remove(slot));
    }

    /// A tree's leaves. Blocks.
    ///
    /// # Errors
    /// [`Failure::TreeUnclean`] if they are not known to be right, [`Failure::Unreadable`].
    pub fn leaves(&self, tree: Tree) -> Result<merkle::Leaves, Failure> {
        if !self.is_clean(tree.partition) {
            return Err(Failure::TreeUnclean);
        }
        read::leaves(self.store.as_ref(), tree)
    }

    /// A page of the keys under some leaves, in buckets of the tree's n. Blocks.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn page(
        &self,
        tree: Tree,
        leaves: &[u16],
        from: Option<&Place>,
        copies: &BTreeMap<Incarnation, u8>,
    ) -> Result<Page, Failure> {
        let tagger = self.tagger().ok_or(Failure::TreeUnclean)?;
        let asked = read::Asked {
            tree,
            leaves,
            from,
            copies,
        };
        let page = read::page(self.store.as_ref(), tagger, &asked);
        let (page, damaged) = page.map_err(|error| unreadable(&error))?;
        for record in &damaged {
            self.note_record(record, copies);
        }
        Ok(page)
    }

    /// Objects for a parcel, up to its size. Blocks.
    pub fn pack(&self, tree: Tree, places: Vec<Place>) -> Delivery {
        let (mut delivery, mut bytes) = (Delivery::default(), 0);
        for place in places {
            if bytes > BATCH_BYTES {
                break;
            }
            let slot = Slot {
                partition: tree.partition,
                n: tree.n,
                place,
            };
            let read = self.encoded(&slot).ok().flatten();
            match read.filter(|object| codec::sibling_count(object).is_ok()) {
                Some(object) => {
                    bytes += object.len();
                    delivery.objects.push((slot.place, object));
                }
                None => delivery.without.push(slot.place),
            }
        }
        delivery
    }

    /// Notes a damaged record whose bucket is known; answers whether it is.
    fn note_record(&self, record: &Bytes, copies: &BTreeMap<Incarnation, u8>) -> bool {
        let Some((partition, bucket, key)) = taken_apart(record) else {
            return false;
        };
        let Some(n) = copies.get(&bucket).copied() else {
            return false;
        };
        let place = read::place_of(bucket, key);
        self.facts.trees.note_damage(&Slot {
            partition,
            n,
            place,
        });
        true
    }
}
