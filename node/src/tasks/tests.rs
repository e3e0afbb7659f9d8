//! For tests of tasks: what a node stands on, with a store in memory and nobody to talk to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sibyl_core::id::{Actor, NodeId};
use sibyl_core::registry::{
    BucketConfig, Change, Document, Expect, First, Held, Secret, Secrets, first_document,
    second_document,
};

use super::registry::{CHOSEN, Ground, Opened};
use crate::outside;
use crate::peer::{Identity, Incoming, Knocked, Net, Options, Remote, Responder, Service};
use crate::replica::{Count, Replica};
use crate::store::memory::Memory;
use crate::store::{self, Batch, Space, Store as _, WriteError};
use crate::telemetry::{Settings, Telemetry};

/// Nobody asks anything.
struct Nobody;

impl Service for Nobody {
    fn handle(&self, _: &Remote, _: Incoming, _: Responder) {}

    fn admit(&self, _: &Identity) -> Result<(), String> {
        Ok(())
    }

    fn knocked(&self, _: Bytes) -> Knocked {
        Box::pin(std::future::ready((Bytes::new(), Bytes::new())))
    }
}

struct Numbers(u64);

impl Count for Numbers {
    fn mint(&mut self) -> Result<u64, WriteError> {
        self.0 += 1;
        Ok(self.0)
    }

    fn peek(&self) -> u64 {
        self.0 + 1
    }
}

pub(super) fn node(number: u64) -> NodeId {
    format!("n{number}").parse().expect("a good name")
}

/// The first document of a cluster of so many, whose stores have their numbers, and one with a bucket of two copies.
fn formed(count: u64) -> (Document, Document) {
    let firsts = (1..=count).map(|number| {
        let peer_addr = format!("127.0.0.1:{number}");
        let zone = None;
        (node(number), First { peer_addr, zone })
    });
    let first = first_document("test", &firsts.collect(), 16, 4).expect("a good document");
    let stores: BTreeMap<_, _> = (1..=count).map(|at| (node(at), Actor(at))).collect();
    let secret = Secret([1; 32]);
    let secrets = Secrets {
        context_key: secret,
        cluster_key: secret,
    };
    let second = second_document(&first, &stores, &secrets).expect("a good document");
    let bucket = Change::PutBucket {
        name: "pairs".to_owned(),
        config: Box::new(BucketConfig {
            n: 2,
            ..BucketConfig::default()
        }),
        expect: Expect::Anything,
    };
    let third = bucket.apply(&second).expect("allowed");
    (first, third.expect("it changes something"))
}

/// What node `n1` of a cluster stands on.
pub(super) struct Bench {
    pub(super) memory: Arc<Memory>,
    pub(super) replica: Replica,
    pub(super) document: Document,
    pub(super) net: Net,
    pub(super) telemetry: Telemetry,
    first: Document,
    watermark: Arc<store::Watermark>,
    _folder: tempfile::TempDir,
}

/// The writer over a store.
pub(super) fn replica(memory: &Arc<Memory>) -> Replica {
    Replica::start(crate::replica::Ground {
        store: memory.clone(),
        watermark: None,
        counters: Box::new(Numbers(0)),
        actor: Actor(1),
        line: 1000,
        hint_quota_bytes: u64::MAX,
        gauge: store::disk::Gauge::boundless(),
        observer: Box::new(|_| {}),
    })
}

impl Bench {
    /// With these among the node's own records.
    pub(super) async fn new(members: u64, records: &[(&str, &[u8])]) -> Self {
        let (first, document) = formed(members);
        let (memory, mut batch) = (Arc::new(Memory::new()), Batch::new());
        let held = Held::first(document.clone()).encode();
        batch.put(Space::Meta, CHOSEN.as_bytes(), held);
        for (key, value) in records {
            batch.put(Space::Meta, key.as_bytes(), value.to_vec());
        }
        memory.apply(batch).expect("it takes it");
        memory.sync().expect("it syncs");
        let settings = Settings {
            collector: None,
            node_id: node(1),
            cluster_id: "test".to_owned(),
            service_name: None,
            ratio: 0.0,
            trust_client_sampling: false,
        };
        let folder = tempfile::tempdir().expect("a folder can be had");
        let opened = store::open(&folder.path().join("data"), || 1).expect("an empty folder");
        let identity = Identity {
            cluster_id: "test".to_owned(),
            node_id: node(1),
            store: 1,
            incarnation: 1,
            lineage: document.lineage(),
            url: String::new(),
        };
        let listener = outside::bind("127.0.0.1:0".parse().expect("an address")).await;
        let listener = listener.expect("a free port");
        let options = Options::new(rand::SeedableRng::seed_from_u64(7));
        Self {
            replica: replica(&memory),
            memory,
            document,
            net: Net::start(identity, listener, Arc::new(Nobody), options).expect("it starts"),
            telemetry: Telemetry::start(settings).expect("it starts"),
            first,
            watermark: opened.watermark,
            _folder: folder,
        }
    }

    /// Its registry, before anybody talks.
    pub(super) fn registry(&self) -> Opened {
        let ground = Ground {
            me: node(1),
            store: Actor(1),
            first: self.first.clone(),
            replica: self.replica.clone(),
            watermark: Arc::clone(&self.watermark),
            tracer: self.telemetry.tracer.clone(),
            metrics: Arc::clone(&self.telemetry.metrics),
        };
        Opened::open(ground).expect("what was kept is whole")
    }
}
