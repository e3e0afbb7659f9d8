//! Owners change under writers: who leaves hands over, who died is replaced by others, nobody misses a write.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Nodes of one cluster, in one process.
struct Cluster {
    nodes: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses: Vec<_> = (1..=count).map(|_| free_address()).collect();
        let named = |(at, address): (usize, &String)| (format!("n{}", at + 1), address.clone());
        let named: Vec<_> = addresses.iter().enumerate().map(named).collect();
        let members: Vec<_> = named
            .iter()
            .map(|(name, at)| format!("{name}={at}"))
            .collect();
        let members = members.join(",");
        let start = |(name, at): &(String, String)| {
            Running::start(name, &folder.path().join(name), Some(&members), at)
        };
        let nodes: Vec<_> = named.iter().map(start).collect();
        for node in &nodes {
            node.wait_for(|view| !view.forming());
            node.wait_for_peers();
        }
        Self {
            nodes,
            _folder: folder,
        }
    }

    fn stop(self) {
        self.nodes.into_iter().for_each(Running::stop);
    }
}

fn id(number: usize) -> NodeId {
    format!("n{number}").parse().expect("a node id")
}

/// Ten writers' keys: what was acknowledged, under writes that go on while `change` happens.
fn write_during(node: &Running, change: impl FnOnce()) -> Vec<String> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            while !ended.load(Ordering::Acquire) {
                let key = format!("during-{}", written.len());
                let request = PutRequest {
                    bucket: "default".into(),
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    context: None,
                    value: Some(Bytes::from_static(b"v")),
                    content_type: "text/plain".into(),
                    attributes: BTreeMap::new(),
                    idempotency_key: None,
                    w: None,
                    sloppy: Some(false),
                    timeout: Some(PATIENCE),
                };
                let span = node.span();
                let put = node.coordinator().put(&span, request);
                let stored = node.runtime.block_on(put);
                stored.expect("a change of owners fails no write");
                let got = node.get("default", &key, Level::Quorum, false);
                let view = got.expect("nor a read").view;
                assert!(matches!(view, View::One(_)), "{key}: {view:?}");
                written.push(key);
            }
            written
        });
        // A change that fails must not leave the writer writing.
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
        ended.store(true, Ordering::Release);
        if let Err(why) = changed {
            std::panic::resume_unwind(why);
        }
        writer.join().expect("the writer ends well")
    })
}

fn wait_settled(node: &Running, members: usize) {
    node.wait_for(|view| {
        let layout = &view.document().layout;
        layout.change.is_none() && layout.members.len() == members
    });
}

/// Every key is on all its owners, and nobody else keeps one.
fn check_all(nodes: &[Running], keys: &[String]) {
    let view = nodes[0].coordinator().registry().view();
    let bucket = view.bucket("default").expect("it always exists");
    for node in nodes {
        let (me, replica) = (node.coordinator().me(), node.coordinator().replica());
        let held = |at| {
            replica.scan(
                sibyl_core::id::Partition(at),
                bucket.incarnation,
                b"",
                10_000,
            )
        };
        let lets_go = |_: &Running| {
            (0..8).all(|at| {
                view.placed.holds(me, sibyl_core::id::Partition(at), 3)
                    || held(at).expect("readable").is_empty()
            })
        };
        node.until("what is not its own is let go of", lets_go);
        for at in (0..8).filter(|at| view.placed.holds(me, sibyl_core::id::Partition(*at), 3)) {
            let all = keys
                .iter()
                .map(|key| Bytes::copy_from_slice(key.as_bytes()));
            let here: Vec<Bytes> = all
                .filter(|key| view.ring().partition(bucket.incarnation, key).0 == at)
                .collect();
            // A write is acknowledged by W; the rest of its copies are on their way.
            node.until("every key of its own is here", |_| {
                let found = held(at).expect("readable").into_iter();
                let found: Vec<Bytes> = found.map(|(key, _)| key).collect();
                here.iter().all(|key| found.contains(key))
            });
        }
    }
}

#[test]
fn who_leaves_hands_over_first() {
    let mut cluster = Cluster::start(4);
    let before: Vec<String> = (0..80).map(|at| format!("k{at}")).collect();
    before
        .iter()
        .for_each(|key| cluster.nodes[0].put("default", key, Some("v"), None));
    let node = &cluster.nodes[0];
    let during = write_during(node, || {
        cluster.nodes[1].change(Change::Leave { node: id(4) });
        cluster
            .nodes
            .iter()
            .take(3)
            .for_each(|node| wait_settled(node, 3));
    });
    assert!(!during.is_empty());
    cluster.nodes[3].until("who left says so", |node| {
        let refused = node.get("default", "k1", Level::One, false);
        matches!(refused, Err(GetError::NotServing(why)) if why.contains("no member"))
    });
    let gone = cluster.nodes.pop().expect("four nodes");
    gone.stop();
    let all = [before, during].concat();
    check_all(&cluster.nodes, &all);
    for key in &all {
        let got = cluster.nodes[2].get("default", key, Level::All, false);
        assert!(matches!(got.expect("all three have it").view, View::One(_)));
    }
    cluster.stop();
}

#[test]
fn what_a_dead_node_owned_has_three_copies_again() {
    let mut cluster = Cluster::start(5);
    let before: Vec<String> = (0..80).map(|at| format!("k{at}")).collect();
    before
        .iter()
        .for_each(|key| cluster.nodes[0].put("default", key, Some("v"), None));
    cluster.nodes.pop().expect("five nodes").stop();
    let node = &cluster.nodes[0];
    let during = write_during(node, || {
        let (node, store) = (id(5), None);
        cluster.nodes[2].change(Change::Remove { node, store });
        cluster.nodes.iter().for_each(|node| wait_settled(node, 4));
    });
    check_all(&cluster.nodes, &[before, during].concat());
    cluster.stop();
}
