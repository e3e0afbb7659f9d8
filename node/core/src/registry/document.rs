//! The registry document: everything about a cluster that needs one answer.
//!
//! Members, buckets, resolver versions and context keys are one numbered value that holds the hash of
//! its predecessor. Its canonical encoding is a version byte and `postcard` over ordered maps, so equal
//! documents have equal bytes and the hash names the document. Nothing here decides who may change it
//! (`change`) or how a successor is chosen (`acceptor`, `proposer`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use crate::id::{Actor, Digest, NodeId};
use crate::ring::{self, Ring, Stand};

/// The first byte of every encoded document.
pub const FORMAT: u8 = 1;
/// The largest encoded document: the bounds below give a few hundred KiB for any cluster that is used
/// as intended, and a Paxos message carries one whole document, so it must stay well below a frame.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The most members. Every member keeps a connection to every other.
pub const MAX_MEMBERS: usize = 1024;
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
}

/// Who is in the cluster and how the hash space is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Q, fixed at forming.
    pub partitions: u32,
    /// The members by name.
    pub members: BTreeMap<NodeId, Member>,
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

/// What the law check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// It was not asked.
    Unchecked,
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
    /// What the law check found.
    pub tier: Tier,
}

/// A resolver: a name and its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The versions by the digest of their bytes.
    pub versions: BTreeMap<Digest, Version>,
}

/// Where a document comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The hash of document 1, so that a node that has only its flags knows whether it belongs here.
    pub first: Option<Digest>,
    /// The hash of document 2; see [`Document::lineage`].
    pub second: Option<Digest>,
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
    /// The hashes of documents 1 and 2, once they are in the past.
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

/// A document that breaks a bound or a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A name that is not one.
    #[error("{what} {name:?}: a name is 1 to 64 of a-z 0-9 . _ - and does not start with _")]
    Name {
        /// What is named so.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An address that is not one.
    #[error("member {node}: {addr:?} is not HOST:PORT of at most {MAX_ADDRESS_BYTES} bytes")]
    Address {
        /// The member.
        node: NodeId,
        /// The address.
        addr: String,
    },
    /// A zone that is empty or too long.
    #[error("member {node}: zone {zone:?} must have 1 to {MAX_ADDRESS_BYTES} bytes")]
    Zone {
        /// The member.
        node: NodeId,
        /// The zone.
        zone: String,
    },
    /// A number outside its bounds.
    #[error("{what} must be from {least} to {most}, not {value}")]
    Bounds {
        /// What is counted.
        what: &'static str,
        /// The count.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// See [`ring::BadPartitions`].
    #[error(transparent)]
    Partitions(#[from] ring::BadPartitions),
    /// A bucket's configuration breaks a rule.
    #[error("bucket {bucket:?}: {source}")]
    Config {
        /// The bucket.
        bucket: String,
        /// The rule.
        source: super::bucket::BadConfig,
    },
    /// A bucket is bound to a resolver version that the document does not name.
    #[error("bucket {bucket:?} is bound to {resolver}@{version}, which was not uploaded")]
    Unbound {
        /// The bucket.
        bucket: String,
        /// The resolver.
        resolver: String,
        /// The version.
        version: Digest,
    },
    /// Number, hashes and secrets do not fit each other.
    #[error("document {number} lacks or has what only other numbers have: {what}")]
    Number {
        /// The document's number.
        number: u64,
        /// What does not fit.
        what: &'static str,
    },
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

    /// The hash of document 2, which every handshake compares; none in document 1.
    pub fn lineage(&self) -> Option<Digest> {
        if self.number == 2 {
            Some(self.digest())
        } else {
            self.lineage.second
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

    /// Who owns what.
    pub fn ring(&self) -> Ring {
        let stands: Vec<Stand> = self.layout.members.iter().map(stand).collect();
        Ring::new(&self.cluster_id, self.layout.partitions, &stands)
            .expect("a checked document has a valid number of partitions")
    }

    /// An empty successor: the same content under the next number, holding this document's hash.
    pub fn successor(&self) -> Self {
        let digest = self.digest();
        let mut next = self.clone();
        next.number += 1;
        next.previous = Some(digest);
        match self.number {
            1 => next.lineage.first = Some(digest),
            2 => next.lineage.second = Some(digest),
            _ => {}
        }
        next
    }

    /// Says whether the document keeps every bound and rule of this module.
    pub fn check(&self) -> Result<(), Malformed> {
        self.check_number()?;
        check_name("cluster id", &self.cluster_id)?;
        ring::check_partitions(self.layout.partitions)?;
        count("members", self.layout.members.len(), 1, MAX_MEMBERS)?;
        count("buckets", self.buckets.len(), 0, MAX_BUCKETS)?;
        count("resolvers", self.resolvers.len(), 0, MAX_RESOLVERS)?;
        count("context keys", self.context_keys.len(), 0, MAX_CONTEXT_KEYS)?;
        self.layout
            .members
            .iter()
            .try_for_each(|(node, member)| check_member(node, member))?;
        self.resolvers
            .iter()
            .try_for_each(|(name, resolver)| check_resolver(name, resolver))?;
        self.buckets
            .iter()
            .try_for_each(|(name, bucket)| self.check_bucket(name, bucket))?;
        let largest = MAX_DOCUMENT_BYTES as u64;
        bounds(
            "bytes of the registry document",
            self.encode().len() as u64,
            0,
            largest,
        )
    }

    fn check_number(&self) -> Result<(), Malformed> {
        let fault = |what| {
            Err(Malformed::Number {
                number: self.number,
                what,
            })
        };
        let formed = self.number >= 2;
        let stores = self
            .layout
            .members
            .values()
            .filter(|m| m.store.is_some())
            .count();
        if self.number == 0 {
            fault("numbers start at 1")
        } else if self.previous.is_some() != formed {
            fault("the hash of its predecessor")
        } else if self.lineage.first.is_some() != formed {
            fault("the hash of document 1")
        } else if self.lineage.second.is_some() != (self.number >= 3) {
            fault("the lineage")
        } else if self.context_keys.is_empty() == formed || self.cluster_key.is_some() != formed {
            fault("the secrets")
        } else if stores != if formed { self.layout.members.len() } else { 0 } {
            fault("the members' stores")
        } else {
            Ok(())
        }
    }

    fn check_bucket(&self, name: &str, bucket: &Bucket) -> Result<(), Malformed> {
        check_name("bucket", name)?;
        bucket.config.check().map_err(|source| Malformed::Config {
            bucket: name.to_owned(),
            source,
        })?;
        let Some(binding) = &bucket.config.resolver else {
            return Ok(());
        };
        let known = self
            .resolvers
            .get(&binding.name)
            .is_some_and(|resolver| resolver.versions.contains_key(&binding.version));
        if known {
            return Ok(());
        }
        Err(Malformed::Unbound {
            bucket: name.to_owned(),
            resolver: binding.name.clone(),
            version: binding.version,
        })
    }
}

/// Says whether a bucket, resolver or cluster may be called so.
pub fn check_name(what: &'static str, name: &str) -> Result<(), Malformed> {
    let fits = (1..=64).contains(&name.len())
        && !name.starts_with('_')
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        });
    if fits {
        Ok(())
    } else {
        Err(Malformed::Name {
            what,
            name: name.to_owned(),
        })
    }
}

fn stand((id, member): (&NodeId, &Member)) -> Stand {
    Stand {
        id: id.clone(),
        tokens: member.tokens,
        zone: member.zone.clone(),
    }
}

fn check_member(node: &NodeId, member: &Member) -> Result<(), Malformed> {
    let addr = &member.peer_addr;
    let port = addr
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    let reachable = port
        .and_then(|port| port.parse::<u16>().ok())
        .is_some_and(|port| port > 0);
    if !reachable || addr.len() > MAX_ADDRESS_BYTES {
        return Err(Malformed::Address {
            node: node.clone(),
            addr: addr.clone(),
        });
    }
    if let Some(zone) = &member.zone
        && !(1..=MAX_ADDRESS_BYTES).contains(&zone.len())
    {
        return Err(Malformed::Zone {
            node: node.clone(),
            zone: zone.clone(),
        });
    }
    bounds(
        "tokens of a member",
        u64::from(member.tokens),
        1,
        u64::from(ring::MAX_TOKENS),
    )
}

fn check_resolver(name: &str, resolver: &Resolver) -> Result<(), Malformed> {
    check_name("resolver", name)?;
    count(
        "versions of a resolver",
        resolver.versions.len(),
        1,
        MAX_VERSIONS,
    )?;
    resolver.versions.values().try_for_each(|version| {
        count(
            "bytes of a description",
            version.description.len(),
            0,
            MAX_DESCRIPTION_BYTES,
        )
    })
}

fn count(what: &'static str, value: usize, least: u64, most: usize) -> Result<(), Malformed> {
    bounds(what, value as u64, least, most as u64)
}

fn bounds(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), Malformed> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Malformed::Bounds {
            what,
            value,
            least,
            most,
        })
    }
}
