//! Crashes, stops and lost disks under load: what was acknowledged stays, or is superseded by who had seen it.
//!
//! Clients run in closed loops through all nodes and write down what was acknowledged. Afterwards every single
//! acknowledged write is accounted for. How long a phase lasts is counted in acknowledged writes, not in time.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::ask::{Answer, get, key, put, put_bucket, text};
use crate::nodes::{Cluster, Node, until};

/// Acknowledged writes per phase of the crash test; each is at least one sync on two nodes.
const PHASE: usize = 60;
/// The cart that all clients share.
const CART: &str = "cart";

/// What a client knows about its writes.
#[derive(Default)]
struct Record {
    /// Writes of its own key, in order: whether each was acknowledged.
    chain: Vec<bool>,
    /// What it put into the shared cart and was acknowledged.
    cart: Vec<String>,
    /// What it wrote without a context to the shared heap and was acknowledged.
    heap: Vec<String>,
}

struct Load<'a> {
    cluster: [std::net::SocketAddr; 3],
    stop: &'a AtomicBool,
    acknowledged: &'a AtomicUsize,
}

impl Load<'_> {
    /// One client: turns from node to node until it is told to stop.
    fn run(&self, name: usize) -> Record {
        let mut record = Record::default();
        let mut context = String::new();
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let node = self.cluster[(name + turn) % 3];
            self.chain(node, name, &mut context, &mut record);
            self.add(node, format!("{name}.{turn}"), &mut record);
            // The heap keeps every value as a sibling, so it stays small.
            if record.heap.len() < 25 && turn % 2 == 0 {
                let value = format!("{name}-{turn}");
                let answer = put(key("heaps", "heap"), &value).send(node);
                if self.is_acknowledged(answer).is_some() {
                    record.heap.push(value);
                }
            }
        }
        record
    }

    fn is_acknowledged(&self, answer: std::io::Result<Answer>) -> Option<Answer> {
        let answer = answer.ok()?;
        assert!([204, 503].contains(&answer.status), "{answer}");
        let acknowledged = answer.status == 204;
        self.acknowledged
            .fetch_add(usize::from(acknowledged), Ordering::Relaxed);
        acknowledged.then_some(answer)
    }

    /// Writes the next value of the client's own key with the context of its last acknowledged answer.
    fn chain(
        &self,
        node: std::net::SocketAddr,
        name: usize,
        context: &mut String,
        record: &mut Record,
    ) {
        let ask = put(
            key("heaps", &format!("chain-{name}")),
            record.chain.len().to_string(),
        );
        let ask = if context.is_empty() {
            ask
        } else {
            ask.with("sibyl-context", context)
        };
        let answer = self.is_acknowledged(ask.send(node));
        record.chain.push(answer.is_some());
        if let Some(answer) = answer {
            answer.context().clone_into(context);
        }
    }

    /// Adds to the shared cart: reads, merges what there is, writes with the read's context.
    fn add(&self, node: std::net::SocketAddr, item: String, record: &mut Record) {
        let path = key("heaps", CART);
        let Ok(read) = get(&path).send(node) else {
            return;
        };
        let mut items = match read.status {
            200 | 300 | 404 => cart(&read),
            503 => return,
            _ => panic!("{read}"),
        };
        items.insert(item.clone());
        let ask = put(&path, items.into_iter().collect::<Vec<_>>().join(","));
        let ask = if read.has("sibyl-context") {
            ask.seen(&read)
        } else {
            ask
        };
        if self.is_acknowledged(ask.send(node)).is_some() {
            record.cart.push(item);
        }
    }
}

/// Everything in a cart, whatever its siblings.
fn cart(read: &Answer) -> BTreeSet<String> {
    let values = match read.status {
        300 => read.values(),
        200 => vec![read.text()],
        _ => Vec::new(),
    };
    values
        .iter()
        .flat_map(|value| value.split(',').map(str::to_owned))
        .collect()
}

#[test]
fn a_crash_of_any_node_under_load_loses_no_acknowledged_write() {
    let mut cluster = Cluster::three();
    cluster.nodes[0]
        .ask(&put_bucket("heaps", &json!({ "max_siblings": 1000 })))
        .expect(201);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addresses = [0, 1, 2].map(|at| cluster.nodes[at].http);
    let more = |what: &str| {
        let from = acknowledged.load(Ordering::Relaxed);
        until(what, || match acknowledged.load(Ordering::Relaxed) {
            now if now >= from + PHASE => Ok(()),
            now => Err(format!("{} acknowledged", now - from)),
        });
    };
    let load = Load {
        cluster: addresses,
        stop: &stop,
        acknowledged: &acknowledged,
    };
    let records: Vec<Record> = std::thread::scope(|scope| {
        // However this ends, the clients must.
        let stopper = Stopper(&stop);
        let load = &load;
        let clients: Vec<_> = (0..3)
            .map(|name| scope.spawn(move || load.run(name)))
            .collect();
        more("load before any crash");
        for at in 0..3 {
            cluster.nodes[at].kill();
            more("load while a node is away");
            cluster.nodes[at].start();
            cluster.wait_whole();
            more("load after it is back");
        }
        drop(stopper);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert!(
        records.iter().any(|record| record.chain.contains(&false)),
        "no crash was felt: the load proves little"
    );
    for node in &cluster.nodes {
        account(node, &records);
    }
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Accounts for every acknowledged write as one node shows it.
fn account(node: &Node, records: &[Record]) {
    for (name, record) in records.iter().enumerate() {
        let answer = node.ask(&get(key("heaps", &format!("chain-{name}"))));
        let shown: BTreeSet<usize> = cart(&answer)
            .iter()
            .map(|value| value.parse().unwrap())
            .collect();
        let last = record
            .chain
            .iter()
            .rposition(|acknowledged| *acknowledged)
            .expect("some were acknowledged");
        // Whatever is newer than the last acknowledged write was written by who had seen that one.
        assert!(
            shown.iter().any(|&value| value >= last),
            "{}: write {last} is lost: {answer}",
            node.id
        );
        let back = shown
            .iter()
            .find(|&&value| value < last && record.chain[value]);
        assert!(
            back.is_none(),
            "{}: write {back:?} was superseded by {last}: {answer}",
            node.id
        );
        // An unacknowledged write was covered by every acknowledged one only if its dot was seen; it may stay.
        assert!(
            shown.iter().all(|&value| value < record.chain.len()),
            "{answer}"
        );
    }
    let answer = node.ask(&get(key("heaps", CART)));
    let shown = cart(&answer);
    let lost: Vec<_> = records
        .iter()
        .flat_map(|record| &record.cart)
        .filter(|item| !shown.contains(*item))
        .collect();
    assert!(
        lost.is_empty(),
        "{}: {lost:?} of the cart are lost: {answer}",
        node.id
    );
    let heap = node
        .ask(&get(key("heaps", "heap") + "?siblings=true"))
        .expect(200)
        .values();
    let lost: Vec<_> = records
        .iter()
        .flat_map(|record| &record.heap)
        .filter(|value| !heap.contains(value))
        .collect();
    assert!(
        lost.is_empty(),
        "{}: {lost:?} of the heap are lost",
        node.id
    );
}

#[test]
fn a_node_that_is_told_to_stop_answers_what_is_under_way() {
    let mut cluster = Cluster::three();
    let path = key("default", "drained");
    let before = cluster.nodes[1]
        .ask(&put(key("default", "before"), "b"))
        .expect(204);
    // The node waits for the rest of a write when it is told to stop; it says itself that it does.
    let ask = put(&path, "0123456789").with("expect", "100-continue");
    let mut stream = TcpStream::connect(cluster.nodes[1].http).unwrap();
    stream.write_all(ask.head().as_bytes()).unwrap();
    let mut said = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&ask.body()[..5]).unwrap();
    cluster.nodes[1].tell_to_stop();
    until("it takes no new connection", || {
        match get("/health/ready").send(cluster.nodes[1].http) {
            Err(_) => Ok(()),
            Ok(answer) => Err(answer.to_string()),
        }
    });
    stream.write_all(&ask.body()[5..]).unwrap();
    ask.hear(stream).unwrap().expect(204);
    assert_eq!(
        cluster.nodes[1].ended().code(),
        Some(0),
        "{}",
        cluster.nodes[1].said()
    );
    assert_eq!(
        cluster.nodes[0].ask(&get(&path)).expect(200).text(),
        "0123456789"
    );

    let starts = cluster.nodes[1]
        .said()
        .matches("the store is as it was left")
        .count();
    cluster.nodes[1].start();
    cluster.wait_whole();
    assert_eq!(
        cluster.nodes[1]
            .said()
            .matches("the store is as it was left")
            .count(),
        starts + 1
    );
    cluster.nodes[1]
        .ask(&put(key("default", "before"), "c").seen(&before))
        .expect(204);
    assert_eq!(
        cluster.nodes[1]
            .ask(&get(key("default", "before") + "?r=all"))
            .expect(200)
            .text(),
        "c"
    );
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate().code(), Some(0), "{}", node.said());
    }
}

/// The store that the registry names for a member, as a node sees it.
fn named(node: &Node, member: &str) -> String {
    let body = node.ask(&get("/v1/registry")).expect(200).json();
    let members = body["members"].as_array().unwrap();
    text(&members.iter().find(|one| one["node_id"] == member).unwrap()["store"])
}

#[test]
fn a_node_that_lost_its_disk_comes_back_as_another_and_counts_once_it_is_filled() {
    let mut cluster = Cluster::three();
    let paths: Vec<String> = (0..12)
        .map(|at| key("default", &format!("k{at}")))
        .collect();
    let minted = |answers: &[Answer]| {
        let by = |answer: &&Answer| answer.header("sibyl-coordinator") == "n2";
        answers.iter().filter(by).count()
    };
    let write = |node: &Node, seen: Option<&[Answer]>| -> Vec<Answer> {
        let ask = |(at, path): (usize, &String)| match seen {
            Some(seen) => node.ask(&put(path, "v").seen(&seen[at])).expect(204),
            None => node.ask(&put(path, "v")).expect(204),
        };
        paths.iter().enumerate().map(ask).collect()
    };
    let written = write(&cluster.nodes[0], None);
    assert!(minted(&written) > 0, "n2 minted before");
    let before = named(&cluster.nodes[0], "n2");

    cluster.nodes[1].kill();
    std::fs::remove_dir_all(&cluster.nodes[1].folder).unwrap();
    cluster.nodes[2].kill();
    cluster.nodes[1].start();
    rebuilds(&cluster.nodes[1]);
    // One other owner is too few to ask: what n2 and n3 had acknowledged need not be on n1.
    cluster.nodes[0].wait_reaches(&["n2"]);
    cluster.nodes[1].wait_reaches(&["n1"]);
    pretends_nothing(&cluster.nodes[..2], &paths);
    let written = write(&cluster.nodes[1], Some(&written));
    assert_eq!(minted(&written), 0, "n2 mints nothing yet");
    // It knows after another restart, too.
    assert_eq!(cluster.nodes[1].terminate().code(), Some(0));
    cluster.nodes[1].start();
    rebuilds(&cluster.nodes[1]);

    cluster.nodes[2].start();
    cluster.wait_whole();
    let now = named(&cluster.nodes[0], "n2");
    assert!(now != before && now != "null", "{now} is a new store");
    for path in &paths {
        let all = cluster.nodes[0].ask(&get(format!("{path}?r=all")));
        assert_eq!(all.expect(200).text(), "v");
    }
    assert_eq!(cluster.nodes[1].terminate().code(), Some(0));
    cluster.nodes[1].start();
    cluster.wait_whole();
    assert_eq!(named(&cluster.nodes[0], "n2"), now, "the new store stays");
    // Everything is on its own disk, and it mints again.
    cluster.nodes[0].kill();
    cluster.nodes[2].wait_reaches(&["n2"]);
    let written = write(&cluster.nodes[2], Some(&written));
    assert!(minted(&written) > 0, "n2 mints again");
    cluster.nodes[2].kill();
    cluster.nodes[1].wait_reaches(&[]);
    for path in &paths {
        let own = cluster.nodes[1].ask(&get(format!("{path}?r=one")));
        assert_eq!(own.expect(200).text(), "v");
    }
}

/// Waits until a node says that it rebuilds.
fn rebuilds(lost: &Node) {
    until("it says that it rebuilds", || {
        match get("/health/ready").send(lost.http) {
            Ok(answer)
                if answer.status == 503
                    && answer.json()["reasons"].to_string().contains("rebuilding") =>
            {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", lost.said())),
        }
    });
    let status = lost
        .ask(&get("/v1/cluster/anti-entropy"))
        .expect(200)
        .json();
    assert!(status["rebuilding"]["partitions"] == 16, "{status}");
}

/// With one copy that counts and one that does not, no answer is better than a wrong one.
fn pretends_nothing(nodes: &[Node], paths: &[String]) {
    for node in nodes {
        let body = node
            .ask(&get(&paths[0]))
            .refused(503, "quorum_not_reached")
            .json();
        assert!(
            body["replies"].as_u64() <= Some(1) && body["need"] == 2,
            "{body}"
        );
        node.ask(&get("/v1/buckets/default/keys"))
            .refused(503, "partition_uncovered");
        for path in paths {
            let partial = node.ask(&get(format!("{path}?partial=true"))).expect(200);
            assert_eq!(partial.header("sibyl-partial"), "true");
        }
    }
}
