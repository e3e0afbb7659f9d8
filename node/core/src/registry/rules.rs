//! The bounds and rules that every document keeps, and the words for a document that does not.
//!
//! Checked wherever a document comes from outside: when it is read, proposed, accepted or learned.

use super::bucket::{BadConfig, Bucket};
use super::certificate::{Certificate, MAX_CERTIFICATES, MAX_REPORT_BYTES};
use super::document::{
    Beginning, Document, Layout, MAX_ADDRESS_BYTES, MAX_BUCKETS, MAX_CONTEXT_KEYS,
    MAX_DESCRIPTION_BYTES, MAX_DOCUMENT_BYTES, MAX_FORMER, MAX_MEMBERS, MAX_RESOLVERS,
    MAX_VERSIONS, Member, Resolver,
};
use super::owners::{OwnerChange, Seat};
use super::partitions::Partitions;
use super::recovery::MAX_PAST;
use crate::id::{Digest, NodeId};
use crate::ring;

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
        source: BadConfig,
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
    /// What is said of a version's laws is no certificate.
    #[error(
        "a certificate of resolver {0:?} is none: laws out of order, or a report above {MAX_REPORT_BYTES} bytes"
    )]
    Certificate(String),
    /// What is said of a change of owners does not fit the members.
    #[error("the change of owners: {0}")]
    OwnerChange(&'static str),
    /// Number, hashes and secrets do not fit each other.
    #[error("document {number} lacks or has what only other numbers have: {what}")]
    Number {
        /// The document's number.
        number: u64,
        /// What does not fit.
        what: &'static str,
    },
}

impl Document {
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
        count("former members", self.layout.former.len(), 0, MAX_FORMER)?;
        self.check_owner_change()?;
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
        } else if !self.begins_well() {
            fault("the lineage")
        } else if self.context_keys.is_empty() == formed || self.cluster_key.is_some() != formed {
            fault("the secrets")
        } else if stores != if formed { self.layout.members.len() } else { 0 } {
            fault("the members' stores")
        } else {
            Ok(())
        }
    }

    fn begins_well(&self) -> bool {
        match &self.lineage.second {
            Beginning::Forming => self.number < 3,
            Beginning::Formed(_) => self.number >= 3,
            Beginning::Recovered(recovery) => {
                (3..=self.number).contains(&recovery.number)
                    && (1..=MAX_PAST).contains(&recovery.past.len())
                    && !recovery.past.contains(&recovery.lineage)
            }
        }
    }

    fn check_owner_change(&self) -> Result<(), Malformed> {
        let fault = |what| Err(Malformed::OwnerChange(what));
        let Layout {
            partitions,
            members,
            since,
            change,
            former,
        } = &self.layout;
        if *since > self.number {
            return fault("owners changed in a document to come");
        }
        let stores = members.values().filter_map(|member| member.store);
        if stores.into_iter().any(|store| former.contains_key(&store)) {
            return fault("a member has a store that was sent away");
        }
        let Some(OwnerChange {
            began,
            before,
            missing,
        }) = change
        else {
            let leaves = members.values().any(|member| member.leaving);
            return if leaves {
                fault("a member leaves without one")
            } else {
                Ok(())
            };
        };
        if *began > self.number || before.is_empty() || before.len() > MAX_MEMBERS {
            return fault("it has no beginning");
        }
        for Seat { tokens, zone, .. } in before.values() {
            let zone = zone.as_ref().map_or(1, String::len);
            if !(1..=ring::MAX_TOKENS).contains(tokens) || !(1..=MAX_ADDRESS_BYTES).contains(&zone)
            {
                return fault("a seat of before is none");
            }
        }
        let fits = |(node, set): (&NodeId, &Partitions)| {
            members.contains_key(node) && !set.is_empty() && set.is_canonical(*partitions)
        };
        if missing.iter().all(fits) {
            Ok(())
        } else {
            fault("what is missing is not one")
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
        )?;
        let certificates = &version.certificates;
        count(
            "certificates of a version",
            certificates.len(),
            0,
            MAX_CERTIFICATES,
        )?;
        if certificates.values().all(Certificate::is_sound) {
            Ok(())
        } else {
            Err(Malformed::Certificate(name.to_owned()))
        }
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
