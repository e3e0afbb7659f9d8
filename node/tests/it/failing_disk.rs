//! Real nodes on a disk that fails: a shared object in front of the C library makes writes and syncs fail while a
//! file exists. It needs no rights, so it runs everywhere that the tests can be linked.
//!
//! A write fails in its middle: half of it reaches the file, as on a disk that fills up. Whatever was acknowledged
//! is read back after the next start, from the same store: nothing of this is amnesia.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ask::{Ask, get, key, put};
use crate::nodes::{Cluster, Node, until};

/// Fails `fsync` and `fdatasync` with EIO while `$FAIL.sync` exists, and `write` to journals with ENOSPC, after half
/// of the bytes, while `$FAIL.write` does. What else the process writes is left alone.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/uio.h>
static int told(const char *what) {
    char path[4096];
    const char *base = getenv("FAIL");
    if (!base) return 0;
    snprintf(path, sizeof path, "%s.%s", base, what);
    return access(path, F_OK) == 0;
}
static int is_journal(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 4) return 0;
    path[n] = 0;
    return strcmp(path + n - 4, ".jnl") == 0;
}
int fsync(int fd) {
    if (told("sync")) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    if (told("sync")) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
static __thread int halves;
ssize_t write(int fd, const void *bytes, size_t count) {
    ssize_t (*next)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (is_journal(fd) && told("write")) {
        if (count > 1 && !halves) { halves = 1; return next(fd, bytes, count / 2); }
        errno = ENOSPC;
        return -1;
    }
    return next(fd, bytes, count);
}
"#;

/// A disk that fails when told.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("shim.c");
        std::fs::write(&source, SHIM).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(&source)
            .arg("-ldl")
            .status();
        assert!(
            built.unwrap().success(),
            "a C compiler links the tests, and builds this"
        );
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The node lives on it from its next start on.
    fn under(&self, node: &mut Node) {
        node.env = vec![
            ("LD_PRELOAD", self.path("shim.so")),
            ("FAIL", self.path("fail")),
        ];
    }

    fn fails(&self, what: &str, fails: bool) {
        let told = self.path(&format!("fail.{what}"));
        match fails {
            true => std::fs::write(told, "").unwrap(),
            false => std::fs::remove_file(told).unwrap(),
        }
    }
}

/// Writes until the node ends; what was acknowledged.
fn write_until_it_ends(node: &Node, prefix: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for at in 0.. {
        let path = key("default", &format!("{prefix}-{at}"));
        match put(&path, &path).send(node.http) {
            Ok(answer) if answer.status == 204 => acknowledged.push(path),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{answer}");
                break;
            }
            Err(_) => break,
        }
    }
    acknowledged
}

#[track_caller]
fn check_kept(node: &Node, paths: &[String]) {
    for path in paths {
        let answer = node.ask(&get(path.as_str())).expect(200);
        assert_eq!(answer.text(), *path);
    }
}

/// The store that is in use, and that no other was set aside.
fn store(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut stores: Vec<String> = names
        .filter(|name| name.starts_with("store-") || name.starts_with("aside-"))
        .collect();
    stores.sort();
    stores
}

/// One node whose disk fails in one way: it acknowledges nothing more, ends, and goes on as the same store.
fn check(what: &str) {
    let disk = Disk::new();
    let mut cluster = Cluster::plan(1, &["--partitions=8"]);
    let node = &mut cluster.nodes[0];
    disk.under(node);
    node.start();
    node.wait_ready();
    let before: Vec<String> = (0..20)
        .map(|at| key("default", &format!("before-{at}")))
        .collect();
    for path in &before {
        node.ask(&put(path.as_str(), path)).expect(204);
    }
    let stores = store(&node.folder);
    disk.fails(what, true);
    let during = write_until_it_ends(node, "during");
    assert_eq!(
        during,
        [] as [String; 0],
        "no write is acknowledged by a disk that fails"
    );
    let status = node.ended();
    assert!(
        !status.success(),
        "a node whose store failed does not end well"
    );
    assert!(node.said().contains("the store failed"), "{}", node.said());

    disk.fails(what, false);
    node.start();
    node.wait_ready();
    assert_eq!(store(&node.folder), stores, "it is the store it was");
    check_kept(node, &before);
    let path = key("default", "after");
    node.ask(&put(&path, &path)).expect(204);
    check_kept(node, &[path]);
}

#[test]
fn a_failed_sync_stops_the_node_and_loses_nothing() {
    check("sync");
}

#[test]
fn a_write_that_fails_in_its_middle_stops_the_node_and_loses_nothing() {
    check("write");
}

#[test]
fn while_one_disk_fails_the_others_take_the_writes() {
    let disk = Disk::new();
    let mut cluster = Cluster::plan(3, &["--partitions=8"]);
    disk.under(&mut cluster.nodes[0]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    disk.fails("write", true);
    // Through a healthy node, because the failing one takes its clients' connections with it.
    let paths: Vec<String> = (0..40)
        .map(|at| key("default", &format!("k-{at}")))
        .collect();
    let acknowledged: Vec<&String> = paths
        .iter()
        .filter(|path| {
            let answer = cluster.nodes[1].ask(&put(path.as_str(), path));
            // Minted on the failing disk: nobody knows whether it will be there.
            assert!([204, 503].contains(&answer.status), "{answer}");
            answer.status == 204
        })
        .collect();
    assert!(acknowledged.len() > paths.len() / 2, "{acknowledged:?}");
    assert!(!cluster.nodes[0].ended().success());
    disk.fails("write", false);
    cluster.nodes[0].start();
    cluster.wait_whole();
    let ask: Ask = crate::ask::post("/v1/cluster/anti-entropy", &serde_json::json!({}));
    cluster.nodes[0].ask(&ask);
    for path in acknowledged {
        until("all copies are equal", || equal(&cluster.nodes[1], path));
        let answer = cluster.nodes[0].ask(&get(path.as_str())).expect(200);
        assert_eq!(answer.text(), *path);
    }
}

/// Whether the three owners hold the same of a key, by what they say, without repairing them by a read.
pub(crate) fn equal(node: &Node, path: &str) -> Result<(), String> {
    let answer = node
        .ask(&get(format!("{path}?explain=true&r=1")))
        .expect(200);
    let body = answer.json();
    let list = body["preference_list"].as_array().unwrap();
    let digests: Vec<_> = list
        .iter()
        .filter(|owner| owner["role"] == "primary")
        .map(|owner| &owner["object_digest"])
        .collect();
    match digests
        .iter()
        .all(|digest| !digest.is_null() && *digest == digests[0])
    {
        true => Ok(()),
        false => Err(answer.text()),
    }
}
