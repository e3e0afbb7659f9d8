//! One flipped bit in the folder of one node: no wrong answer, nothing acknowledged lost, repaired by itself.
//!
//! A cluster is loaded once, with tables, journals, siblings and tombstones. Then, again and again: a node stops,
//! one bit of one of its files is flipped, it starts, and every key is read at all owners until they are whole; an
//! answer may be late, never wrong. Places are drawn from a seed, which a failure prints. `SIBYL_FLIPS` says how
//! many (`.ci/run flips` does more of them), `SIBYL_FLIP_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::Signal;
use serde_json::json;

use crate::ask::{Answer, delete, get, key, put, put_bucket};
use crate::backup::wait_same;
use crate::nodes::{Cluster, Node, until};

/// Flips in a run of all tests: each is a stop, a start and a read of everything.
const FLIPS: usize = 6;
/// Values of this size push what lies in memory into a table, which happens at 64 MiB.
const LARGE_BYTES: usize = 14 << 20;
const LARGE: usize = 5;

/// A key and the values that it must show; none if it is deleted.
struct Wanted {
    path: String,
    values: Vec<String>,
}

impl Wanted {
    /// Whether an answer is right; wrong ones fail, the others are none.
    fn is_shown_by(&self, answer: &Answer, what: &str) -> bool {
        let shown = match answer.status {
            200 => answer.values(),
            404 => Vec::new(),
            _ => return false,
        };
        assert_eq!(shown, self.values, "{what}: {answer}");
        true
    }
}

/// A write may take a minute: 14 MiB on three disks that others are busy on, too.
fn patiently(path: &str) -> String {
    format!("{path}?timeout_ms=60000")
}

fn write(cluster: &Cluster, wanted: &mut Vec<Wanted>, range: std::ops::Range<usize>) {
    for at in range {
        let path = key("default", &format!("k{at}"));
        let node = &cluster.nodes[at % 3];
        let mut values = vec![format!("value {at}")];
        node.ask(&put(patiently(&path), &values[0])).expect(204);
        if at % 5 == 0 {
            values.push(format!("{at} again"));
            node.ask(&put(patiently(&path), &values[1])).expect(204);
        }
        if at % 7 == 0 {
            values.clear();
            let blind = patiently(&path) + "&blind=true";
            node.ask(&delete(blind)).expect(204);
        }
        values.sort();
        wanted.push(Wanted { path, values });
    }
}

/// A cluster whose nodes have a table and a journal with something in both; what must be read, and large keys.
fn loaded() -> (Cluster, Vec<Wanted>, Vec<String>) {
    let mut cluster = Cluster::plan(3, &["--partitions=16"]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let mut wanted = Vec::new();
    write(&cluster, &mut wanted, 0..120);
    let config = json!({ "max_value_bytes": LARGE_BYTES });
    cluster.nodes[0]
        .ask(&put_bucket("large", &config))
        .expect(201);
    let large: Vec<String> = (0..LARGE).map(|at| key("large", &at.to_string())).collect();
    for (at, path) in large.iter().enumerate() {
        let value = vec![at as u8; LARGE_BYTES];
        let node = &cluster.nodes[at % 3];
        node.ask(&put(patiently(path), value)).expect(204);
    }
    write(&cluster, &mut wanted, 120..160);
    until("there is a table", || {
        let files = files(&cluster.nodes[2].folder);
        let table = files.iter().any(|(path, _)| is_table(path));
        if table {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    });
    (cluster, wanted, large)
}

fn is_table(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder.ends_with("tables"))
}

/// What a node has written: files in use, and how much of each is not zeros at its end.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, usize)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.join("data")]);
    while let Some(next) = folders.pop() {
        // What a node that runs set aside or compacted meanwhile is gone.
        let entries = fs::read_dir(next).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("aside-") || name == "lock" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_default();
            let end = bytes.iter().rposition(|byte| *byte != 0);
            found.extend(end.map(|end| (path, end + 1)));
        }
    }
    found.sort();
    found
}

/// A small generator of our own: the same places for the same seed, everywhere.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    /// The ends of files hold what the rest hangs on, so every third place is near one.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        match self.below(3) {
            0 => self.below(length.min(256)),
            1 => length - 1 - self.below(length.min(4096)),
            _ => self.below(length),
        }
    }
}

/// In place, as a disk does it: whoever has the file open sees it. A node that runs may have removed the file.
pub(crate) fn flip(path: &Path, at: usize, bit: usize) -> io::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let (mut byte, at) = ([0], at as u64);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1 << bit], at)
}

/// Stops a node. One that gives its store up just then is becoming another process, and ends as any process that
/// was not asked in time to tell of signals.
fn stop(node: &mut Node) {
    let ended = node.terminate();
    let told = ended.code() == Some(0) || ended.signal() == Some(Signal::TERM.as_raw());
    assert!(told, "{ended}: {}", node.said());
}

/// What was set aside is for an operator; here it would only fill the disk.
fn forget_aside(folder: &Path) {
    for entry in fs::read_dir(folder.join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("aside-")
        {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// Reads everything at all owners until they are whole.
fn check(cluster: &Cluster, wanted: &[Wanted], large: &[String], what: &str) {
    for (at, wanted) in wanted.iter().enumerate() {
        let node = &cluster.nodes[at % 3];
        for level in ["quorum", "all"] {
            let ask = get(format!("{}?siblings=true&r={level}", wanted.path));
            until(
                &format!("{what}: {} is read at {level}", wanted.path),
                || {
                    // The node may be beginning a new store just now.
                    let answer = ask.send(node.http).map_err(|error| error.to_string())?;
                    match wanted.is_shown_by(&answer, what) {
                        true => Ok(()),
                        false => Err(answer.to_string()),
                    }
                },
            );
        }
        wait_same(&cluster.nodes[at % 2], &wanted.path);
    }
    large
        .iter()
        .for_each(|path| wait_same(&cluster.nodes[0], path));
}

/// A number of the environment, else the default.
pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_flipped_bit_is_repaired_and_never_answered() {
    let (mut cluster, wanted, large) = loaded();
    let seed = number("SIBYL_FLIP_SEED", 20_261);
    let mut draw = Draw(seed as u64 | 1);
    check(&cluster, &wanted, &large, "before");
    for turn in 0..number("SIBYL_FLIPS", FLIPS) {
        // Every fourth one while the node runs; what it has in memory may hide it until a later start.
        let running = turn % 4 == 2;
        if !running {
            stop(&mut cluster.nodes[2]);
            // Not before: it may be taking over what it set aside.
            forget_aside(&cluster.nodes[2].folder);
        }
        let files = files(&cluster.nodes[2].folder);
        // Every second one in a table, where most of a large store is.
        let tables: Vec<_> = files.iter().filter(|(path, _)| is_table(path)).collect();
        let (path, length) = match turn % 2 {
            0 if !tables.is_empty() => tables[draw.below(tables.len())],
            _ => &files[draw.below(files.len())],
        };
        let (at, bit) = (draw.place(*length), draw.below(8));
        let what = format!(
            "seed {seed}, turn {turn}: bit {bit} of byte {at} of {length} in {}",
            path.display()
        );
        println!("{what}");
        let flipped = flip(path, at, bit);
        if !running {
            flipped.unwrap();
            cluster.nodes[2].start();
        }
        cluster.wait_whole();
        check(&cluster, &wanted, &large, &what);
    }
}

/// Alone it cannot be filled, so it waits, however little of its store can be used, until others are there.
#[test]
fn a_damaged_node_waits_until_others_can_fill_a_new_store() {
    let (mut cluster, wanted, large) = loaded();
    let before = store_of(&cluster.nodes[1], "n1");
    let (one, others) = cluster.nodes.split_first_mut().unwrap();
    others.iter_mut().for_each(stop);
    let tables = files(&one.folder).into_iter();
    for (path, length) in tables.filter(|(path, _)| is_table(path)) {
        // While it runs: at a start the engine would refuse to open, and the store be given up at once.
        for at in (0..length / 2).step_by(4096) {
            flip(&path, at, 3).unwrap();
        }
    }
    let (value, mut writes) = (vec![7; LARGE_BYTES], 0);
    until("its store fails, and it waits", || {
        writes += 1;
        let path = key("large", &format!("more-{writes}"));
        // Whatever it answers, or nothing: sooner or later what it wrote is compacted with what is damaged.
        let _any = put(format!("{path}?w=1&timeout_ms=2000"), &value).send(one.http);
        match one.said() {
            said if said.contains("it is given up once a majority") => Ok(()),
            said => Err(said.lines().last().unwrap_or_default().to_owned()),
        }
    });
    others.iter_mut().for_each(Node::start);
    until("it begins a new store", || {
        match store_of(&cluster.nodes[1], "n1") {
            store if !store.is_empty() && store != before => Ok(()),
            store => Err(store),
        }
    });
    cluster.wait_whole();
    check(&cluster, &wanted, &large, "after the damage");
}

/// The store that speaks for a member.
fn store_of(node: &Node, member: &str) -> String {
    let Ok(answer) = get("/v1/registry").send(node.http) else {
        return String::new();
    };
    let members = answer.json()["members"].as_array().cloned();
    let mut members = members.unwrap_or_default().into_iter();
    let found = members.find(|one| one["node_id"] == member);
    found
        .map(|one| crate::ask::text(&one["store"]))
        .unwrap_or_default()
}
