//! Merkle trees over the objects of one (partition, n): 4,096 leaves, each the sum of its objects' tags.
//!
//! A tag is HMAC-SHA-256 of (bucket incarnation, key, canonical object) under the cluster key. A leaf is the
//! sum of tags modulo 2^256, so a write changes it by one subtraction and one addition, whatever else lies
//! under it. Never XOR: an object counted twice would cancel itself. Interior nodes are SHA-256 and computed
//! when somebody asks. Nothing here knows where leaves are kept (`replica/leaves.rs`) or who compares them
//! (`flow/exchange`). Laws, in `tests`: order does not matter, adding and removing is nothing, equal sets have
//! equal roots, one differing key changes exactly one leaf. After Dynamo (section 4.7); sums instead of
//! sorted lists as in Bellare and Micciancio's AdHash, keyed because an unkeyed sum can be forged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Incarnation, Partition};
use crate::registry::Secret;
use crate::ring;

#[cfg(test)]
mod tests;

/// Leaves per tree. A million keys on 256 partitions are four thousand per tree: one key per leaf, so a
/// differing leaf names few keys that do not differ. 2^16 partitions of 12 bits stay within 64 bits of hash.
pub const LEAVES: u16 = 4096;
/// Children of an interior node: three rounds from the root to the leaves, and a round of one differing leaf
/// carries 16 hashes.
pub const FAN_OUT: u16 = 16;
/// The level of the leaves; the root is level 0.
pub const DEPTH: u8 = 3;
/// Bytes of a node's hash between nodes: 128 bits, of which nobody without the cluster key can choose one.
pub const NODE_BYTES: usize = 16;

/// Names a tree. Buckets of different n have different owners, so each n has a tree of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tree {
    /// The partition.
    pub partition: Partition,
    /// Copies of the buckets it covers.
    pub n: u8,
}

/// Which leaf a key lies under: the last 12 bits of its place on the circle, whose first bits are the
/// partition.
pub fn leaf(bucket: Incarnation, key: &[u8]) -> u16 {
    let last = ring::position(bucket, key) % u64::from(LEAVES);
    u16::try_from(last).expect("less than 4,096")
}

/// A number modulo 2^256: a tag, or a sum of tags.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self([0; 4]);

    /// The number in 32 bytes, lowest first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Sum::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = chunk
                .iter()
                .rev()
                .fold(0, |sum, b| (sum << 8) | u64::from(*b));
        }
        Self(limbs)
    }

    /// The number as it travels: its lowest 128 bits.
    pub fn node(self) -> Node {
        cut(&self.to_bytes())
    }

    /// The sum, modulo 2^256.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (mut limbs, mut carry) = ([0; 4], false);
        for ((limb, a), b) in limbs.iter_mut().zip(self.0).zip(other.0) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
        Self(limbs)
    }

    /// The difference, modulo 2^256.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let (mut limbs, mut borrow) = ([0; 4], false);
        for ((limb, a), b) in limbs.iter_mut().zip(self.0).zip(other.0) {
            let (rest, first) = a.overflowing_sub(b);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first || second);
        }
        Self(limbs)
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

/// Makes tags. Holds the key's two hash states, so that a tag costs the hashing of its input only.
#[derive(Clone)]
pub struct Tagger(Hmac<Sha256>);

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger(..)")
    }
}

impl Tagger {
    /// With the registry's cluster key.
    pub fn new(key: &Secret) -> Self {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
        mac.update(b"sibyl leaf");
        Self(mac)
    }

    /// The tag of an object in its canonical form under its bucket and key.
    pub fn tag(&self, bucket: Incarnation, key: &[u8], object: &[u8]) -> Sum {
        let mut mac = self.0.clone();
        mac.update(&bucket.0.to_be_bytes());
        mac.update(&(key.len() as u64).to_be_bytes());
        mac.update(key);
        mac.update(object);
        Sum::from_bytes(mac.finalize().into_bytes().into())
    }
}

/// A node's hash as it travels.
pub type Node = [u8; NODE_BYTES];

/// The leaves of a tree that are not empty, from which every node is computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves(BTreeMap<u16, Sum>);

impl Leaves {
    /// Sets a leaf; one that does not exist is nobody's.
    pub fn set(&mut self, leaf: u16, sum: Sum) {
        if sum == Sum::ZERO {
            self.0.remove(&leaf);
        } else if leaf < LEAVES {
            self.0.insert(leaf, sum);
        }
    }

    /// Takes from a leaf and adds to it.
    pub fn change(&mut self, leaf: u16, gone: Sum, come: Sum) {
        self.set(leaf, self.get(leaf).minus(gone).plus(come));
    }

    /// A leaf.
    pub fn get(&self, leaf: u16) -> Sum {
        self.0.get(&leaf).copied().unwrap_or_default()
    }

    /// The leaves that are not empty, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Sum)> + '_ {
        self.0.iter().map(|(leaf, sum)| (*leaf, *sum))
    }

    /// The root.
    pub fn root(&self) -> Node {
        let (nodes, empty) = self.level(0);
        cut(nodes.get(&0).unwrap_or(&empty))
    }

    /// The children of these nodes of the level above, in order; parents that do not exist have none.
    pub fn children(&self, level: u8, parents: &[u16]) -> Vec<Node> {
        let (nodes, empty) = self.level(level);
        let last = FAN_OUT.saturating_pow(u32::from(level));
        let there = parents.iter().flat_map(|parent| children(*parent));
        let node = |at| cut(nodes.get(&at).unwrap_or(&empty));
        there.filter(|at| *at < last).map(node).collect()
    }

    /// The nodes of a level that are not empty, and the one that all empty ones are. At most 128 KiB of SHA-256.
    fn level(&self, level: u8) -> (BTreeMap<u16, [u8; 32]>, [u8; 32]) {
        let mut nodes: BTreeMap<u16, [u8; 32]> =
            self.iter().map(|(at, sum)| (at, sum.to_bytes())).collect();
        let mut empty = [0; 32];
        for _ in level..DEPTH {
            let parents: BTreeSet<u16> = nodes.keys().map(|at| at / FAN_OUT).collect();
            let child = |at: u16| nodes.get(&at).unwrap_or(&empty);
            let hash = |parent: u16| (parent, interior(children(parent).map(child)));
            nodes = parents.into_iter().map(hash).collect();
            empty = interior((0..FAN_OUT).map(|_| &empty));
        }
        (nodes, empty)
    }
}

/// The numbers of a node's children, in the level below.
pub fn children(parent: u16) -> impl Iterator<Item = u16> {
    (0..FAN_OUT).filter_map(move |at| parent.checked_mul(FAN_OUT)?.checked_add(at))
}

fn interior<'a>(children: impl Iterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    children.for_each(|child| hash.update(child));
    hash.finalize().into()
}

fn cut(node: &[u8; 32]) -> Node {
    let mut short = [0; NODE_BYTES];
    short.copy_from_slice(&node[..NODE_BYTES]);
    short
}
