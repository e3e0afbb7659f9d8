//! Whole nodes in one process, each with a runtime of its own: what only shows when all parts stand together.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use sibyl_core::id::{Digest, Incarnation};
use sibyl_core::message::Failure;
use sibyl_core::object::Object;
use sibyl_core::quorum::Level;
use sibyl_core::registry::{
    Binding, BucketConfig, Change, Durability, Expect, Kind, Laws, Mode, Version,
};
use sibyl_core::view::View;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::*;
use crate::config::{FLAGS, Layer, Settings as Given};
use crate::coordinator::{
    BucketFailed, Emptiness, GetError, GetRequest, Got, PutError, PutRequest, Resolved, Stored,
};
use crate::telemetry::Span;

/// Far longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

mod owners;
mod parcels;

struct Running {
    runtime: Runtime,
    node: Node,
}

impl Running {
    fn start(name: &str, folder: &Path, members: Option<&str>, peer_listen: &str) -> Self {
        Self::started(name, folder, members, peer_listen, &[])
    }

    fn started(
        name: &str,
        folder: &Path,
        members: Option<&str>,
        peer_listen: &str,
        flags: &[(&str, &str)],
    ) -> Self {
        let mut given = Given::default();
        let mut set = |name: &str, value: &str| {
            let flag = FLAGS.iter().find(|flag| flag.name == name).expect("a flag");
            given.set(flag, Layer::Flag, value.to_owned());
        };
        set("node-id", name);
        set("listen", "127.0.0.1:0");
        set("peer-listen", peer_listen);
        set("data-dir", folder.to_str().expect("a folder of this test"));
        set("partitions", "8");
        if let Some(members) = members {
            set("cluster-id", "test");
            set("members", members);
        }
        flags.iter().for_each(|(name, value)| set(name, value));
        let config = Config::resolve(&given).expect("a good configuration");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.expect("threads can be had");
        let node = runtime.block_on(Node::start(config)).expect("it starts");
        Self { runtime, node }
    }

    fn alone(folder: &Path) -> Self {
        let running = Self::start("n1", folder, None, &free_address());
        running.wait_for(|view| !view.forming());
        running
    }

    fn stop(self) {
        self.runtime.block_on(self.node.stop());
        self.runtime.shutdown_timeout(PATIENCE);
    }

    fn coordinator(&self) -> &Coordinator {
        &self.node.coordinator
    }

    fn span(&self) -> Span {
        self.coordinator()
            .registry()
            .tracer()
            .request("GET", "/", None)
    }

    fn wait_for(&self, there: impl FnMut(&Arc<crate::tasks::registry::View>) -> bool) {
        let mut view = self.coordinator().registry().watch();
        let waited = self
            .runtime
            .block_on(async { timeout(PATIENCE, view.wait_for(there)).await.map(drop) });
        waited.expect("the registry says so in time");
    }

    /// Waits until something is so.
    fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !so(self) {
            assert!(std::time::Instant::now() < until, "waited for: {what}");
            std::thread::yield_now();
        }
    }

    /// Waits until every peer can be reached.
    fn wait_for_peers(&self) {
        let net = self.coordinator().net();
        let mut changes = net.changes();
        let all = || net.peers().iter().all(|peer| peer.reachable);
        let waited = self.runtime.block_on(async {
            timeout(PATIENCE, changes.wait_for(|_| all()))
                .await
                .map(drop)
        });
        waited.expect("all peers can be reached in time");
    }

    fn put(&self, bucket: &str, key: &str, value: Option<&'static str>, got: Option<&Got>) {
        self.try_put(bucket, key, value, got)
            .expect("all copies are written");
    }

    fn try_put(
        &self,
        bucket: &str,
        key: &str,
        value: Option<&'static str>,
        got: Option<&Got>,
    ) -> Result<Stored, PutError> {
        let request = PutRequest {
            bucket: bucket.to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            context: got.map(|got| got.context.clone()),
            value: value.map(Bytes::from),
            content_type: "text/plain".into(),
            attributes: BTreeMap::new(),
            idempotency_key: None,
            w: Some(Level::All),
            sloppy: None,
            timeout: Some(PATIENCE),
        };
        self.runtime
            .block_on(self.coordinator().put(&self.span(), request))
    }

    fn get(&self, bucket: &str, key: &str, r: Level, resolve: bool) -> Result<Got, GetError> {
        let request = GetRequest {
            bucket: bucket.to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            r: Some(r),
            sloppy: None,
            timeout: None,
            partial: false,
            resolve,
        };
        self.runtime
            .block_on(self.coordinator().get(&self.span(), request))
    }

    fn change(&self, change: Change) {
        let registry = self.coordinator().registry();
        self.runtime
            .block_on(registry.change(None, change))
            .expect("the registry takes it");
    }

    /// Creates a bucket that is quick to write to.
    fn bucket(&self, name: &str) -> Incarnation {
        let config = BucketConfig {
            durability: Durability::Buffered,
            ..BucketConfig::default()
        };
        self.put_bucket(name, config);
        self.coordinator()
            .registry()
            .view()
            .bucket(name)
            .expect("it was created")
            .incarnation
    }

    fn put_bucket(&self, name: &str, config: BucketConfig) {
        self.change(Change::PutBucket {
            name: name.to_owned(),
            config: Box::new(config),
            expect: Expect::Anything,
        });
    }

    fn delete(&self, bucket: &str, emptiness: Emptiness) -> Result<(), BucketFailed> {
        let (coordinator, span) = (self.coordinator(), self.span());
        let deleted = coordinator.delete_bucket(&span, bucket, emptiness, Expect::Anything);
        self.runtime.block_on(deleted)
    }

    fn exists(&self, bucket: &str) -> bool {
        self.coordinator()
            .registry()
            .view()
            .bucket(bucket)
            .is_some()
    }

    fn records(&self, bucket: Incarnation) -> usize {
        let scan = |at| {
            self.coordinator()
                .replica()
                .scan(sibyl_core::id::Partition(at), bucket, b"", 1000)
        };
        (0..8).map(|at| scan(at).expect("readable").len()).sum()
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn a_wiped_node_comes_back_under_a_new_store_and_counts_once_it_is_filled() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses: Vec<_> = (0..3).map(|_| free_address()).collect();
    let names = ["n1", "n2", "n3"];
    let members: Vec<_> = names
        .iter()
        .zip(&addresses)
        .map(|(name, at)| format!("{name}={at}"))
        .collect();
    let members = members.join(",");
    let start = |at: usize| {
        let folder = folder.path().join(names[at]);
        Running::start(names[at], &folder, Some(&members), &addresses[at])
    };
    let mut nodes: Vec<_> = (0..3).map(start).collect();
    for node in &nodes {
        node.wait_for(|view| !view.forming());
        node.wait_for_peers();
        assert!(!node.coordinator().is_rebuilding());
    }
    nodes[0].put("default", "k", Some("v"), None);
    nodes[0].bucket("b");

    let wiped = nodes.pop().expect("three nodes");
    let (id, before) = (
        wiped.coordinator().me().clone(),
        wiped.coordinator().replica().actor(),
    );
    wiped.stop();
    let kept = nodes[0].delete("b", Emptiness::Required);
    let away = |kept: &_| matches!(kept, Err(BucketFailed::NotClosed { node, .. }) if *node == id);
    assert!(
        away(&kept),
        "it may hold a write that nobody else has: {kept:?}"
    );
    std::fs::remove_dir_all(folder.path().join("n3")).expect("its folder is there");
    let wiped = start(2);
    let after = wiped.coordinator().replica().actor();
    assert_ne!(before, after);
    for node in nodes.iter().chain([&wiped]) {
        node.wait_for(|view| {
            let members = &view.document().layout.members;
            members
                .get(&id)
                .is_some_and(|member| member.store == Some(after))
        });
    }
    wiped.until("it is filled", |node| !node.coordinator().is_rebuilding());
    let mark = wiped.coordinator().replica().kept("rebuilding");
    assert_eq!(mark.expect("readable").as_deref(), Some(&b"0"[..]));
    wiped.wait_for_peers();
    let all = wiped.get("default", "k", Level::All, true);
    assert!(matches!(all.expect("all count").view, View::One(_)));
    nodes.into_iter().chain([wiped]).for_each(Running::stop);
}

#[test]
fn a_bucket_is_not_empty_because_its_first_keys_were_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    node.bucket("b");
    for at in 0..200 {
        let key = format!("a{at:03}");
        node.put("b", &key, Some("v"), None);
        let got = node.get("b", &key, Level::One, true).expect("just written");
        node.put("b", &key, None, Some(&got));
    }
    node.put("b", "z", Some("v"), None);
    let refused = node.delete("b", Emptiness::Required);
    assert!(
        matches!(refused, Err(BucketFailed::NotEmpty)),
        "{refused:?}"
    );
    let got = node.get("b", "z", Level::One, true).expect("still there");
    node.put("b", "z", None, Some(&got));
    node.delete("b", Emptiness::Required)
        .expect("now it is empty");
    node.stop();
}

#[test]
fn a_bucket_made_and_deleted_while_the_node_runs_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    let bucket = node.bucket("b");
    (0..20).for_each(|at| node.put("b", &at.to_string(), Some("v"), None));
    assert_eq!(node.records(bucket), 20);
    node.delete("b", Emptiness::Purge).expect("purged");
    let until = std::time::Instant::now() + PATIENCE;
    while node.records(bucket) > 0 {
        assert!(
            std::time::Instant::now() < until,
            "the bucket's records are never erased"
        );
        std::thread::yield_now();
    }
    node.stop();
}

#[test]
fn a_failed_view_has_the_tag_of_the_siblings_it_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    node.bucket("b");
    let digest = Digest::of(b"a module that no node holds");
    let version = Version {
        bytes: 1,
        kind: Kind::Core,
        uploaded_at_ms: 0,
        description: String::new(),
        certificates: BTreeMap::new(),
    };
    node.change(Change::AddVersion {
        name: "r".into(),
        digest,
        version,
    });
    let binding = Binding {
        name: "r".into(),
        version: digest,
        config: "{}".into(),
        mode: Mode::Active,
        laws: Laws::Off,
        limits: sibyl_core::registry::Limits::default(),
    };
    node.put_bucket(
        "b",
        BucketConfig {
            resolver: Some(binding),
            durability: Durability::Buffered,
            ..BucketConfig::default()
        },
    );
    node.put("b", "k", Some("v"), None);
    node.put("b", "k", Some("w"), None);
    let failed = node.get("b", "k", Level::One, true).expect("readable");
    assert_eq!(
        failed.resolver.map(|note| note.outcome),
        Some(Resolved::Failed)
    );
    let plain = node.get("b", "k", Level::One, false).expect("readable");
    assert_eq!(failed.etag, plain.etag);
    node.stop();
}

#[test]
fn below_the_low_water_mark_deletes_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    // Between the mark and half of it, whatever else is written to that disk meanwhile.
    let room = store::disk::room(folder.path()).expect("a disk");
    let mark = (room.available_bytes / 2 * 3).to_string();
    let mark = ("low-water-bytes", mark.as_str());
    let node = Running::started("n1", folder.path(), None, &free_address(), &[mark]);
    node.wait_for(|view| !view.forming());
    let object = |value: Option<Bytes>| {
        let dot = sibyl_core::id::Dot {
            actor: sibyl_core::id::Actor(1),
            counter: 1,
        };
        let content = sibyl_core::object::Content {
            value,
            content_type: "text/plain".into(),
            attributes: BTreeMap::new(),
            modified_at: 1,
            write_id: sibyl_core::id::WriteId([1; 16]),
            trace: None,
        };
        let sibling = sibyl_core::object::Sibling::written(dot, content);
        Object::from_parts(sibyl_core::context::Context::of(dot), vec![sibling])
    };
    let room_for = |object| crate::answers::has_room(node.coordinator(), &object);
    assert_eq!(room_for(object(None)), Ok(()));
    let live = object(Some(Bytes::from_static(b"v")));
    assert_eq!(room_for(live), Err(Failure::DiskFull));
    let refused = node.try_put("default", "k", Some("v"), None);
    assert!(matches!(
        refused,
        Err(PutError::NotWritten(Failure::DiskFull))
    ));
    node.put("default", "k", None, None);
    node.stop();
}

#[test]
fn a_node_that_stops_says_so_at_once_and_finishes_what_it_accepted() {
    use std::io::{Read as _, Write as _};

    use crate::http::{Api as _, Arrival};

    let folder = tempfile::tempdir().expect("a folder");
    let Running { runtime, node } = Running::alone(folder.path());
    let (coordinator, telemetry) = (node.coordinator.clone(), node.telemetry.clone());
    let given = Given::default();
    let config = Config::resolve(&given).expect("the defaults are good");
    let beside = tempfile::tempdir().expect("a folder");
    let opened = store::open(beside.path(), || 1).expect("a new store");
    let backups = backup::Source {
        me: coordinator.me().clone(),
        store: Arc::clone(coordinator.replica().store()),
        watermark: opened.watermark,
        platform: coordinator.platform().clone(),
    };
    let backend = backend::Backend::new(coordinator.clone(), telemetry, &config, backups);
    let health = || {
        let arrival = Arrival {
            method: "GET",
            route: "/health/ready",
            query: None,
            traceparent: None,
            request_bytes: 0,
        };
        backend.begin(arrival).health()
    };
    assert!(health().ready);

    let mut client = std::net::TcpStream::connect(node.listen()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    let head = "PUT /v1/buckets/default/keys/k HTTP/1.1\r\nhost: n1\r\ncontent-length: 2\r\n\
                expect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 64];
    let length = client.read(&mut answer).expect("asked to go on");
    assert!(answer[..length].starts_with(b"HTTP/1.1 100"), "accepted");

    let stopping = runtime.spawn(node.stop());
    let until = std::time::Instant::now() + PATIENCE;
    while health().ready {
        assert!(std::time::Instant::now() < until, "it stays ready");
        std::thread::yield_now();
    }
    assert!(!stopping.is_finished(), "a request is under way");
    assert_eq!(
        health().reasons.first().map(String::as_str),
        Some(crate::coordinator::STOPPING)
    );
    client
        .write_all(b"vv")
        .expect("the connection is still there");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    runtime.block_on(stopping).expect("it stops");
    runtime.shutdown_timeout(PATIENCE);
}

#[test]
fn a_module_that_nothing_names_is_erased_and_one_with_a_name_is_not() {
    use crate::resolver::ModuleState;

    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    let (named, unnamed) = (b"(module $named)", b"(module $unnamed)");
    let version = Version {
        bytes: 1,
        kind: Kind::Wat,
        uploaded_at_ms: 0,
        description: String::new(),
        certificates: BTreeMap::new(),
    };
    node.change(Change::AddVersion {
        name: "r".into(),
        digest: Digest::of(named),
        version,
    });
    let platform = node.coordinator().platform().clone();
    for bytes in [&named[..], unnamed] {
        platform.keep(Digest::of(bytes), bytes).expect("kept");
    }
    let coordinator = node.coordinator().clone();
    let erasing = coordinator.erase_unnamed(Duration::ZERO, Duration::from_millis(1));
    let erasing = node.runtime.spawn(erasing);
    let until = std::time::Instant::now() + PATIENCE;
    while platform.state(&Digest::of(unnamed)) != ModuleState::Absent {
        assert!(std::time::Instant::now() < until, "it is never erased");
        std::thread::yield_now();
    }
    assert_ne!(platform.state(&Digest::of(named)), ModuleState::Absent);
    erasing.abort();
    node.stop();
}

#[test]
fn a_bucket_that_is_being_deleted_takes_no_writes_and_opens_again_if_it_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    let bucket = node.bucket("b");
    let close = |hold| {
        let closed = node.coordinator().replica().close(bucket, hold);
        node.runtime.block_on(closed).expect("the writer runs");
    };
    close(PATIENCE);
    let refused = node.try_put("b", "k", Some("v"), None);
    let closing = |refused: &_| matches!(refused, Err(PutError::NotWritten(Failure::Closing)));
    assert!(closing(&refused), "{refused:?}");
    node.put("default", "k", Some("v"), None);
    close(Duration::ZERO);
    node.put("b", "k", Some("v"), None);
    let kept = node.delete("b", Emptiness::Required);
    assert!(matches!(kept, Err(BucketFailed::NotEmpty)), "{kept:?}");
    node.put("b", "l", Some("v"), None);
    node.stop();
}

/// The race itself: whoever wins, an acknowledged write is not gone with its bucket.
#[test]
fn no_acknowledged_write_is_lost_with_its_bucket() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    for round in 0..20 {
        let name = format!("b{round}");
        node.bucket(&name);
        let written = std::thread::scope(|scope| {
            let (name, node) = (&name, &node);
            let writer = scope.spawn(move || {
                let put = |at: usize| node.try_put(name, &at.to_string(), Some("v"), None);
                (0..1000)
                    .take_while(|_| node.exists(name))
                    .any(|at| put(at).is_ok())
            });
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            let deleted = node.delete(name, Emptiness::Required);
            (writer.join().expect("it writes"), deleted)
        });
        match written {
            (true, deleted) => {
                let kept = matches!(deleted, Err(BucketFailed::NotEmpty));
                assert!(kept, "an acknowledged write is lost: {deleted:?}");
            }
            (false, deleted) => deleted.expect("it is empty"),
        }
    }
    node.stop();
}
