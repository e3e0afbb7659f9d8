//! How a cluster begins: document 1 from the flags, document 2 from everybody's stores.
//!
//! Document 1 is a pure function of what the operator wrote, so nobody creates it and nobody races; two
//! first members with other flags have another document 1 and are told apart by name. Document 2 names
//! the first members' stores and holds the drawn secrets. It needs every first member's acceptance: by
//! a majority, a member that was wiped while forming could make a second one.

use std::collections::BTreeMap;

use super::bucket::{Bucket, BucketConfig};
use super::document::{ContextKey, Document, Layout, Lineage, Member, Secret};
use super::rules::Malformed;
use crate::id::{Actor, Incarnation, NodeId};

/// The bucket that always exists.
pub const DEFAULT_BUCKET: &str = "default";

/// What `--members` says of one first member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Where its peers reach it: `HOST:PORT`.
    pub peer_addr: String,
    /// Its failure domain.
    pub zone: Option<String>,
}

/// What document 2 holds that nobody can guess: drawn by whoever proposes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Seals contexts.
    pub context_key: Secret,
    /// Keys Merkle leaves.
    pub cluster_key: Secret,
}

/// Document 1. A cluster of one is the same with one member.
pub fn first_document(
    cluster_id: &str,
    members: &BTreeMap<NodeId, First>,
    partitions: u32,
    tokens: u32,
) -> Result<Document, Malformed> {
    let member = |(id, first): (&NodeId, &First)| {
        let First { peer_addr, zone } = first.clone();
        (
            id.clone(),
            Member {
                peer_addr,
                zone,
                tokens,
                incarnation: 1,
                store: None,
                seat: id.clone(),
                leaving: false,
            },
        )
    };
    let bucket = Bucket {
        incarnation: Incarnation(1),
        revision: 1,
        epoch: 0,
        config: BucketConfig::default(),
    };
    let document = Document {
        number: 1,
        previous: None,
        cluster_id: cluster_id.to_owned(),
        lineage: Lineage::default(),
        layout: Layout {
            partitions,
            members: members.iter().map(member).collect(),
            since: 1,
            change: None,
            former: BTreeMap::new(),
        },
        buckets: BTreeMap::from([(DEFAULT_BUCKET.to_owned(), bucket)]),
        resolvers: BTreeMap::new(),
        context_keys: Vec::new(),
        cluster_key: None,
    };
    document.check()?;
    Ok(document)
}

/// Document 2: the first one with every member's store and the secrets.
/// None if a first member's store is missing.
pub fn second_document(
    first: &Document,
    stores: &BTreeMap<NodeId, Actor>,
    secrets: &Secrets,
) -> Option<Document> {
    let mut next = first.successor();
    for (id, member) in &mut next.layout.members {
        member.store = Some(*stores.get(id)?);
    }
    next.context_keys = vec![ContextKey {
        id: 1,
        secret: secrets.context_key,
    }];
    next.cluster_key = Some(secrets.cluster_key);
    Some(next)
}

/// Whether a successor of `document` is one that its predecessor and forming allow: what an acceptor
/// checks before it accepts, and everybody before they learn.
pub fn follows(document: &Document, next: &Document) -> bool {
    let empty = document.successor();
    let fixed = |d: &Document| {
        (
            d.number,
            d.previous,
            d.cluster_id.clone(),
            d.lineage.clone(),
            d.layout.partitions,
        )
    };
    fixed(&empty) == fixed(next)
}

/// What an operator has to make equal before two first members can form one cluster: the first
/// difference between their documents 1, in words; none if they are equal.
pub fn describe_difference(mine: &Document, theirs: &Document) -> Option<String> {
    let differs = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
        Some(format!("{what}: {a:?} here, {b:?} there"))
    };
    if mine.cluster_id != theirs.cluster_id {
        return differs("--cluster-id", &mine.cluster_id, &theirs.cluster_id);
    }
    let (a, b) = (&mine.layout, &theirs.layout);
    if a.partitions != b.partitions {
        return differs("--partitions", &a.partitions, &b.partitions);
    }
    if let Some(id) = a.members.keys().find(|id| !b.members.contains_key(id)) {
        return Some(format!("--members: {id} is named here and not there"));
    }
    if let Some(id) = b.members.keys().find(|id| !a.members.contains_key(id)) {
        return Some(format!("--members: {id} is named there and not here"));
    }
    for (id, x) in &a.members {
        let Some(y) = b.members.get(id) else { continue };
        if x.peer_addr != y.peer_addr {
            return differs(
                &format!("--members: address of {id}"),
                &x.peer_addr,
                &y.peer_addr,
            );
        }
        if x.zone != y.zone {
            return differs(&format!("--members: zone of {id}"), &x.zone, &y.zone);
        }
        if x.tokens != y.tokens {
            return differs(&format!("--tokens of {id}"), &x.tokens, &y.tokens);
        }
    }
    (mine != theirs).then(|| "the releases of the two nodes differ in their defaults".to_owned())
}
