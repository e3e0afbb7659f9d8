//! What can be changed, each change a pure function from one document to its successor.
//!
//! A change is a wish, not a document: when somebody else's document is chosen first, the same wish is
//! applied to that one. A change that finds everything as it wants it makes no document. Whether a
//! bucket is empty, or a resolver is compiled everywhere, is asked before, not here.

use super::bucket::{BadConfig, Binding, Bucket, BucketConfig, Deletes, Laws};
use super::certificate::{Certificate, MAX_CERTIFICATES, Setting, Tier};
use super::document::{Document, Version};
use super::forming::DEFAULT_BUCKET;
use super::moving::{self, Joiner};
use super::partitions::Partitions;
use super::recovery::RecoverError;
use super::rules::{Malformed, check_name};
use crate::id::{Actor, Digest, Incarnation, NodeId};

/// What the caller believes a bucket to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: any state is fine.
    Anything,
    /// It does not exist (`If-None-Match: *`).
    Absent,
    /// It was last changed by this document (`If-Match`).
    Revision(u64),
}

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Create a bucket or replace its configuration; binds, rebinds and unbinds a resolver too.
    PutBucket {
        /// Its name.
        name: String,
        /// All of its configuration.
        config: Box<BucketConfig>,
        /// What the caller believes it to be.
        expect: Expect,
    },
    /// Forget a bucket. Its keys become unreachable at once.
    DeleteBucket {
        /// Its name.
        name: String,
        /// What the caller believes it to be.
        expect: Expect,
    },
    /// Name an uploaded resolver version; a version that is known stays as it is.
    AddVersion {
        /// The resolver.
        name: String,
        /// SHA-256 of the uploaded bytes.
        digest: Digest,
        /// What is known of them.
        version: Version,
    },
    /// Forget a resolver version that no bucket is bound to.
    RemoveVersion {
        /// The resolver.
        name: String,
        /// The version.
        digest: Digest,
    },
    /// Learn what a law check found of a version; what is known of it already stays.
    Certify {
        /// The resolver.
        name: String,
        /// The version.
        digest: Digest,
        /// What it was given besides siblings.
        setting: Setting,
        /// What was found.
        certificate: Certificate,
    },
    /// Take a node in; it fetches what it is to own.
    Join(Joiner),
    /// Let a member hand over what it owns and go; or one that is just joining turn round.
    Leave {
        /// The member.
        node: NodeId,
    },
    /// Give up a member that failed for good: others fetch what it owned.
    Remove {
        /// The member.
        node: NodeId,
        /// Only if this is still its store.
        store: Option<Actor>,
    },
    /// Let a node take the places of a member.
    Replace {
        /// The member.
        node: NodeId,
        /// Who takes its places.
        by: Joiner,
        /// Whether the member is there and hands over; else it is given up.
        alive: bool,
    },
    /// A new owner has fetched what it was missing.
    Filled {
        /// The change of owners that it was fetched for.
        began: u64,
        /// The new owner.
        node: NodeId,
        /// Its store.
        store: Actor,
        /// What it has by now.
        partitions: Partitions,
    },
    /// Everybody who must know that all is switched does: end the change of owners.
    Retire {
        /// Which.
        began: u64,
    },
    /// Let a member that lost its store vote again, and count, with a new one.
    NameStore {
        /// The member.
        node: NodeId,
        /// Its new store.
        store: Actor,
    },
}

/// A wish that cannot be granted on this document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The cluster has no secrets yet.
    #[error("the cluster is still forming: all first members must be reachable once")]
    Forming,
    /// No bucket of that name.
    #[error("there is no bucket {0:?}")]
    NoBucket(String),
    /// The bucket is not what the caller believes.
    #[error("bucket {name:?} is at revision {found:?} now: read it again")]
    Precondition {
        /// The bucket.
        name: String,
        /// Its revision; none if it does not exist.
        found: Option<u64>,
    },
    /// The number of copies is fixed.
    #[error("n of bucket {name:?} is {n} and cannot change; create another bucket")]
    FixedN {
        /// The bucket.
        name: String,
        /// Its number of copies.
        n: u8,
    },
    /// The default bucket cannot go.
    #[error("bucket \"default\" always exists")]
    DefaultBucket,
    /// No resolver, or no version of it, is called so.
    #[error("there is no resolver version {name}@{digest}: upload it first")]
    NoVersion {
        /// The resolver.
        name: String,
        /// The version.
        digest: Digest,
    },
    /// A version that may not be bound so.
    #[error(
        "{name}@{digest} is {} and laws: {} wants {}: see the version's report, or bind it with other laws",
        tier_name(*.tier), .laws.name(), tier_name(.laws.least())
    )]
    Tier {
        /// The resolver.
        name: String,
        /// The version.
        digest: Digest,
        /// What it is; `None`: it was not checked with this configuration.
        tier: Option<Tier>,
        /// What is asked of it.
        laws: Laws,
    },
    /// A version that is in use.
    #[error("{name}@{digest} is bound to {}: bind another version there first", buckets.join(", "))]
    Bound {
        /// The resolver.
        name: String,
        /// The version.
        digest: Digest,
        /// The buckets, in order.
        buckets: Vec<String>,
    },
    /// No such member.
    #[error("{0} is not a member of this cluster")]
    NoMember(NodeId),
    /// One change of owners at a time.
    #[error(
        "owners are changing since document {began}: wait until that is done, see GET /v1/cluster"
    )]
    UnderWay {
        /// The document that began it.
        began: u64,
    },
    /// Fewer members than copies.
    #[error(
        "{left} members would be left for the {n} copies of bucket {bucket:?}: add a node first, or replace this one"
    )]
    TooFew {
        /// How many would be left.
        left: usize,
        /// The bucket with the most copies.
        bucket: String,
        /// How many.
        n: u8,
    },
    /// Another store has this name.
    #[error(
        "{0} is a member with another store: give the new node another name, or replace the member"
    )]
    NameTaken(NodeId),
    /// A store that was sent away.
    #[error(
        "this store belonged to {node}, which document {number} sent away: start it with an empty data folder"
    )]
    Fenced {
        /// Whose it was.
        node: NodeId,
        /// The document without it.
        number: u64,
    },
    /// This member may not recover.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The successor would break a bound.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Change {
    /// The successor of `document` with this change; none if everything is as wished already.
    pub fn apply(&self, document: &Document) -> Result<Option<Document>, ChangeError> {
        if document.number < 2 {
            return Err(ChangeError::Forming);
        }
        let mut next = document.successor();
        match self {
            Self::PutBucket {
                name,
                config,
                expect,
            } => put_bucket(&mut next, name, config, *expect),
            Self::DeleteBucket { name, expect } => delete_bucket(&mut next, name, *expect),
            Self::AddVersion {
                name,
                digest,
                version,
            } => add_version(&mut next, name, *digest, version),
            Self::RemoveVersion { name, digest } => remove_version(&mut next, name, *digest),
            Self::Certify {
                name,
                digest,
                setting,
                certificate,
            } => certify(&mut next, name, *digest, *setting, certificate),
            Self::Join(joiner) => moving::join(&mut next, joiner),
            Self::Leave { node } => moving::leave(&mut next, node),
            Self::Remove { node, store } => moving::remove(&mut next, node, *store),
            Self::Replace { node, by, alive } => moving::replace(&mut next, node, by, *alive),
            Self::Filled {
                began,
                node,
                store,
                partitions,
            } => {
                moving::filled(&mut next, *began, node, *store, partitions);
                Ok(())
            }
            Self::Retire { began } => moving::retire(&mut next, *began),
            Self::NameStore { node, store } => name_store(&mut next, node, *store),
        }?;
        let same = next.buckets == document.buckets
            && next.resolvers == document.resolvers
            && next.layout == document.layout;
        if same {
            return Ok(None);
        }
        next.check()?;
        Ok(Some(next))
    }
}

/// The buckets bound to a version, in order.
pub fn bound<'a>(
    document: &'a Document,
    name: &'a str,
    digest: Digest,
) -> impl Iterator<Item = &'a str> {
    let is_bound = move |bucket: &Bucket| {
        let binding = bucket.config.resolver.as_ref();
        binding.is_some_and(|b| b.name == name && b.version == digest)
    };
    document
        .buckets
        .iter()
        .filter(move |(_, bucket)| is_bound(bucket))
        .map(|(name, _)| name.as_str())
}

fn put_bucket(
    next: &mut Document,
    name: &str,
    config: &BucketConfig,
    expect: Expect,
) -> Result<(), ChangeError> {
    check_name("bucket", name)?;
    config.check()?;
    check_expectation(next, name, expect)?;
    if let Some(binding) = &config.resolver {
        check_version(next, &binding.name, binding.version)?;
        let known = next.buckets.get(name).map(|bucket| &bucket.config);
        let same = |known: &BucketConfig| {
            known.resolver == config.resolver && known.deletes == config.deletes
        };
        // What is bound stays bound if it is found out later: it does not fold any more, and views go on.
        if !known.is_some_and(same) {
            check_tier(next, binding, config.deletes)?;
        }
    }
    let number = next.number;
    let Some(bucket) = next.buckets.get_mut(name) else {
        let epoch = u64::from(config.resolver.is_some());
        let incarnation = Incarnation(number);
        let bucket = Bucket {
            incarnation,
            revision: number,
            epoch,
            config: config.clone(),
        };
        next.buckets.insert(name.to_owned(), bucket);
        return Ok(());
    };
    if bucket.config.n != config.n {
        return Err(ChangeError::FixedN {
            name: name.to_owned(),
            n: bucket.config.n,
        });
    }
    if bucket.config.resolver != config.resolver {
        bucket.epoch += 1;
    }
    if bucket.config != *config {
        bucket.revision = number;
        bucket.config = config.clone();
    }
    Ok(())
}

fn delete_bucket(next: &mut Document, name: &str, expect: Expect) -> Result<(), ChangeError> {
    if name == DEFAULT_BUCKET {
        return Err(ChangeError::DefaultBucket);
    }
    check_expectation(next, name, expect)?;
    match next.buckets.remove(name) {
        Some(_) => Ok(()),
        None => Err(ChangeError::NoBucket(name.to_owned())),
    }
}

fn add_version(
    next: &mut Document,
    name: &str,
    digest: Digest,
    version: &Version,
) -> Result<(), ChangeError> {
    check_name("resolver", name)?;
    let resolver = next.resolvers.entry(name.to_owned()).or_default();
    resolver
        .versions
        .entry(digest)
        .or_insert_with(|| version.clone());
    Ok(())
}

fn remove_version(next: &mut Document, name: &str, digest: Digest) -> Result<(), ChangeError> {
    check_version(next, name, digest)?;
    let buckets: Vec<String> = bound(next, name, digest).map(str::to_owned).collect();
    if !buckets.is_empty() {
        return Err(ChangeError::Bound {
            name: name.to_owned(),
            digest,
            buckets,
        });
    }
    if let Some(resolver) = next.resolvers.get_mut(name) {
        resolver.versions.remove(&digest);
    }
    next.resolvers
        .retain(|_, resolver| !resolver.versions.is_empty());
    Ok(())
}

fn check_tier(next: &Document, binding: &Binding, deletes: Deletes) -> Result<(), ChangeError> {
    let Some(least) = binding.laws.least() else {
        return Ok(());
    };
    let resolver = next.resolvers.get(&binding.name);
    let version = resolver.and_then(|resolver| resolver.versions.get(&binding.version));
    let certificate = version.and_then(|version| version.certificate(binding, deletes));
    let tier = certificate.map(Certificate::tier);
    if tier.is_some_and(|tier| tier >= least) {
        return Ok(());
    }
    Err(ChangeError::Tier {
        name: binding.name.clone(),
        digest: binding.version,
        tier,
        laws: binding.laws,
    })
}

fn tier_name(tier: Option<Tier>) -> &'static str {
    tier.map_or("unchecked", Tier::name)
}

fn certify(
    next: &mut Document,
    name: &str,
    digest: Digest,
    setting: Setting,
    certificate: &Certificate,
) -> Result<(), ChangeError> {
    check_version(next, name, digest)?;
    let used: Vec<Setting> = next
        .buckets
        .values()
        .filter_map(|bucket| Some((bucket.config.resolver.as_ref()?, bucket.config.deletes)))
        .filter(|(binding, _)| binding.name == name && binding.version == digest)
        .map(|(binding, deletes)| binding.setting(deletes))
        .collect();
    let versions = next.resolvers.get_mut(name).map(|it| &mut it.versions);
    let Some(version) = versions.and_then(|versions| versions.get_mut(&digest)) else {
        return Ok(());
    };
    let known = &mut version.certificates;
    if known.len() >= MAX_CERTIFICATES && !known.contains_key(&setting) {
        let idle = known.keys().find(|it| !used.contains(it)).copied();
        idle.and_then(|idle| known.remove(&idle));
    }
    known.entry(setting).or_default().join(certificate);
    Ok(())
}

fn name_store(next: &mut Document, node: &NodeId, store: Actor) -> Result<(), ChangeError> {
    moving::check_store(next, store)?;
    let member = next
        .layout
        .members
        .get_mut(node)
        .ok_or_else(|| ChangeError::NoMember(node.clone()))?;
    if member.store != Some(store) {
        member.store = Some(store);
        member.incarnation += 1;
        moving::lost(next, node);
    }
    Ok(())
}

fn check_version(document: &Document, name: &str, digest: Digest) -> Result<(), ChangeError> {
    let known = document
        .resolvers
        .get(name)
        .is_some_and(|r| r.versions.contains_key(&digest));
    if known {
        Ok(())
    } else {
        Err(ChangeError::NoVersion {
            name: name.to_owned(),
            digest,
        })
    }
}

fn check_expectation(document: &Document, name: &str, expect: Expect) -> Result<(), ChangeError> {
    let found = document.buckets.get(name).map(|bucket| bucket.revision);
    let met = match expect {
        Expect::Anything => true,
        Expect::Absent => found.is_none(),
        Expect::Revision(revision) => found == Some(revision),
    };
    if met {
        Ok(())
    } else {
        Err(ChangeError::Precondition {
            name: name.to_owned(),
            found,
        })
    }
}
