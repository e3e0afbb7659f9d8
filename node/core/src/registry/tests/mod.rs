//! Tests of the registry: documents, changes, single machines, and whole clusters under trouble.

use std::collections::BTreeMap;

use super::{
    Binding, BucketConfig, Change, Document, Expect, First, Kind, Laws, Limits, Mode, Secret,
    Secrets, Version,
};
use crate::id::{Actor, Digest, NodeId};

mod ballots;
mod certificates;
mod changes;
mod choice;
mod documents;
mod machines;
mod moving;
mod plan;
mod recovery;
mod world;

fn node(number: usize) -> NodeId {
    format!("n{number}").parse().expect("a valid name")
}

fn firsts(members: usize) -> BTreeMap<NodeId, First> {
    let first = |number| First {
        peer_addr: format!("127.0.0.1:{}", 7170 + number),
        zone: None,
    };
    (1..=members)
        .map(|number| (node(number), first(number)))
        .collect()
}

/// Document 1 of a cluster of so many.
fn first(members: usize) -> Document {
    super::first_document("demo", &firsts(members), 16, 4).expect("a valid document")
}

fn secrets(seed: u8) -> Secrets {
    Secrets {
        context_key: Secret([seed; 32]),
        cluster_key: Secret([!seed; 32]),
    }
}

/// Document 2 of a cluster of so many; member k has store k.
fn second(members: usize) -> Document {
    let stores = (1..=members)
        .map(|number| (node(number), Actor(number as u64)))
        .collect();
    super::second_document(&first(members), &stores, &secrets(7)).expect("all stores are told")
}

fn put(name: &str, config: BucketConfig) -> Change {
    Change::PutBucket {
        name: name.to_owned(),
        config: Box::new(config),
        expect: Expect::Anything,
    }
}

fn version(description: &str) -> Version {
    Version {
        bytes: 15_566,
        kind: Kind::Component,
        uploaded_at_ms: 1_790_000_000_000,
        description: description.to_owned(),
        certificates: BTreeMap::new(),
    }
}

fn add(name: &str, module: &[u8]) -> Change {
    let (name, digest) = (name.to_owned(), Digest::of(module));
    Change::AddVersion {
        name,
        digest,
        version: version("adds up"),
    }
}

fn bound_to(name: &str, module: &[u8]) -> BucketConfig {
    let binding = Binding {
        name: name.to_owned(),
        version: Digest::of(module),
        config: "{}".to_owned(),
        mode: Mode::Active,
        laws: Laws::Off,
        limits: Limits::default(),
    };
    BucketConfig {
        resolver: Some(binding),
        ..BucketConfig::default()
    }
}
