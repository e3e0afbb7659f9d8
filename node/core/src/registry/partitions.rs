//! A set of partitions, as registry documents hold it.
//!
//! It has one encoding, a bit for each and no zero byte at the end, because equal documents have equal bytes. It
//! does not know how many partitions there are: the document's rules do.

use serde::{Deserialize, Serialize};

use crate::id::Partition;
use crate::ring::MAX_PARTITIONS;

/// A set of partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions(Vec<u8>);

impl Partitions {
    /// Whether it is in the set.
    pub fn contains(&self, partition: Partition) -> bool {
        let (byte, bit) = place(partition);
        self.0.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    /// Adds one.
    pub fn insert(&mut self, partition: Partition) {
        let (byte, bit) = place(partition);
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= bit;
    }

    /// Takes those of another set out.
    pub fn subtract(&mut self, other: &Self) {
        let both = self.0.iter_mut().zip(&other.0);
        both.for_each(|(mine, theirs)| *mine &= !theirs);
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Partition> + '_ {
        let bits = u32::try_from(self.0.len() * 8).unwrap_or(MAX_PARTITIONS);
        (0..bits).map(Partition).filter(|at| self.contains(*at))
    }

    /// Whether these are the bytes that [`Partitions::insert`] makes, all below `partitions`.
    pub(super) fn is_canonical(&self, partitions: u32) -> bool {
        self.0.last() != Some(&0) && self.iter().all(|at| at.0 < partitions)
    }
}

impl FromIterator<Partition> for Partitions {
    fn from_iter<T: IntoIterator<Item = Partition>>(partitions: T) -> Self {
        let mut set = Self::default();
        partitions.into_iter().for_each(|at| set.insert(at));
        set
    }
}

fn place(partition: Partition) -> (usize, u8) {
    (partition.0 as usize / 8, 1 << (partition.0 % 8))
}
