//! The registry document: everything about a cluster that needs one answer.
//!
//! Members, buckets, resolver versions and context keys are one numbered value that holds the hash of
//! its predecessor. Its canonical encoding is a version byte and `postcard` over ordered maps, so equal
//! documents have equal bytes and the hash names the document. Nothing here decides who may change it
//! (`change`) or how a successor is chosen (`acceptor`, `proposer`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::bucket::{Binding, Bucket, Deletes};
use super::certificate::{Certificate, Setting};
use super::owners::{Former, OwnerChange};
use super::recovery::Recovery;
use super::rules::Malformed;
use crate::id::{Actor, Digest, NodeId};
use crate::ring::Ring;

/// The first byte of every encoded document.
pub const FORMAT: u8 = 2;
/// The largest encoded document: the bounds below give a few hundred KiB for any cluster that is used
/// as intended, and a Paxos message carries one whole document, so it must stay well below a frame.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The most members. Every member keeps a connection to every other.
pub const MAX_MEMBERS: usize = 1024;
/// The most stores of former members that are remembered: some 100 bytes each. A cluster that replaces a node
/// every day fills it in eleven years.
pub const MAX_FORMER: usize = 4096;
/// The most buckets.
pub const MAX_BUCKETS: usize = 1024;
/// The most resolvers.
pub const MAX_RESOLVERS: usize = 256;
/// The most versions of one resolver.
pub const MAX_VERSIONS: usize = 64;
/// The longest description of a resolver version, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;
/// The most context keys: the one that seals, and those that contexts may still carry.
pub const MAX_CONTEXT_KEYS: usize = 8;
/// The longest peer address or zone, in bytes: a DNS name and a port.
pub const MAX_ADDRESS_BYTES: usize = 263;

/// 32 random bytes that never show in a log.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key that seals contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextKey {
    /// Names the key inside a sealed context.
    pub id: u32,
    /// The key.
    pub secret: Secret,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where its peers reach it: `HOST:PORT`.
    pub peer_addr: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// How many places it has on the ring.
    pub tokens: u32,
    /// How often the registry has named a new store for it.
    pub incarnation: u64,
    /// The store that speaks for it. Document 1 knows none yet.
    pub store: Option<Actor>,
    /// Whose places on the ring it has: its own, unless it took those of another.
    pub seat: NodeId,
    /// It hands over what it owns, and then it goes.
    pub leaving: bool,
}

/// Who is in the cluster and how the hash space is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Q, fixed at forming.
    pub partitions: u32,
    /// The members by name.
    pub members: BTreeMap<NodeId, Member>,
    /// The last document that changed who owns what, for anybody: frames of older ones are refused.
    pub since: u64,
    /// The change of owners under way.
    pub change: Option<OwnerChange>,
    /// The stores of former members: gossip and returning nodes cannot bring them back.
    pub former: BTreeMap<Actor, Former>,
}

/// What was uploaded as a resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A WebAssembly component.
    Component,
    /// A core module, which the node wraps.
    Core,
    /// WebAssembly text.
    Wat,
}

/// A version of a resolver; its name is the digest of its bytes, which the document does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Size of the uploaded bytes.
    pub bytes: u64,
    /// What the bytes are.
    pub kind: Kind,
    /// When it was uploaded, in milliseconds since 1970.
    pub uploaded_at_ms: u64,
    /// What the resolver says of itself; may be empty.
    pub description: String,
    /// What the law check found, by what a bucket hands the resolver; empty if it was not asked.
    pub certificates: BTreeMap<Setting, Certificate>,
}

impl Version {
    /// What is known of it under this binding and policy.
    pub fn certificate(&self, binding: &Binding, deletes: Deletes) -> Option<&Certificate> {
        self.certificates.get(&binding.setting(deletes))
    }
}

/// A resolver: a name and its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The versions by the digest of their bytes.
    pub versions: BTreeMap<Digest, Version>,
}

/// Where a document comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The hash of document 1, so that a node that has only its flags knows whether it belongs here.
    pub first: Option<Digest>,
    /// How it began; see [`Document::lineage`].
    pub second: Beginning,
}

/// How a lineage began. The first two are, byte for byte, the optional digest that stood here once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beginning {
    /// It has not, or it does with this document.
    #[default]
    Forming,
    /// With the document of this hash: document 2.
    Formed(Digest),
    /// With one member of another lineage that was lost.
    Recovered(Box<Recovery>),
}

/// One state of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its number, from 1.
    pub number: u64,
    /// The hash of document `number` - 1; none in document 1.
    pub previous: Option<Digest>,
    /// The name that the operator gave the cluster.
    pub cluster_id: String,
    /// Where it comes from: document 1 and how its lineage began, once they are in the past.
    pub lineage: Lineage,
    /// Members and partitions.
    pub layout: Layout,
    /// The buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// The resolvers by name.
    pub resolvers: BTreeMap<String, Resolver>,
    /// The keys of contexts; the last one seals. Drawn in document 2.
    pub context_keys: Vec<ContextKey>,
    /// The key of Merkle leaves. Drawn in document 2.
    pub cluster_key: Option<Secret>,
}

/// Bytes that are not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// Too many of them.
    #[error("a registry document has at most {MAX_DOCUMENT_BYTES} bytes, not {0}")]
    TooLarge(usize),
    /// Written by another release.
    #[error("this release reads registry format {FORMAT}, not {0}")]
    Format(u8),
    /// Cut short, changed or not canonical.
    #[error("the bytes are not one canonical registry document")]
    Garbled,
    /// Readable, but it breaks a rule.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Document {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("writing to memory cannot fail")
    }

    /// Reads canonical bytes and checks the document.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(BadDocument::TooLarge(bytes.len()));
        }
        let (&format, rest) = bytes.split_first().ok_or(BadDocument::Garbled)?;
        if format != FORMAT {
            return Err(BadDocument::Format(format));
        }
        let document: Self = postcard::from_bytes(rest).map_err(|_| BadDocument::Garbled)?;
        if document.encode() != bytes {
            return Err(BadDocument::Garbled);
        }
        document.check()?;
        Ok(document)
    }

    /// The hash that names this document.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// What every handshake compares: the hash of document 2, or what a recovery made of it; none in document 1.
    pub fn lineage(&self) -> Option<Digest> {
        match &self.lineage.second {
            Beginning::Forming => (self.number == 2).then(|| self.digest()),
            Beginning::Formed(second) => Some(*second),
            Beginning::Recovered(recovery) => Some(recovery.lineage),
        }
    }

    /// The hash of document 1: what the first members must agree on before they form.
    pub fn first(&self) -> Digest {
        self.lineage.first.unwrap_or_else(|| self.digest())
    }

    /// The member and store pairs that vote on the next document.
    pub fn voters(&self) -> BTreeMap<NodeId, Option<Actor>> {
        self.layout
            .members
            .iter()
            .map(|(id, member)| (id.clone(), member.store))
            .collect()
    }

    /// The ring by which copies count; see [`Document::owners`].
    pub fn ring(&self) -> Ring {
        self.owners().ring
    }

    /// An empty successor: the same content under the next number, holding this document's hash.
    pub fn successor(&self) -> Self {
        let digest = self.digest();
        let mut next = self.clone();
        next.number += 1;
        next.previous = Some(digest);
        match self.number {
            1 => next.lineage.first = Some(digest),
            2 => next.lineage.second = Beginning::Formed(digest),
            _ => {}
        }
        next
    }
}
