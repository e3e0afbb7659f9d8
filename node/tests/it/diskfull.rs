//! Real nodes on real file systems that fill up: what is refused, what goes on, and that they recover.
//!
//! Each test runs itself again in a mount namespace of its own, where the nodes' folders are small file systems in
//! memory. That needs the right to mount: root, or user namespaces. Where there is neither, the test says so on
//! standard error and checks nothing (`failing_disk` runs everywhere); the gate `diskfull` sets `DISKFULL=required`,
//! and then it fails.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::ask::{delete, get, key, post, put};
use crate::failing_disk::equal;
use crate::nodes::{Cluster, Node, until};

const MIB: u64 = 1 << 20;
/// Of a node's file system: two journals and what lies beside them.
const DISK_BYTES: u64 = 64 * MIB;
/// The mark of these nodes.
const LOW_WATER_BYTES: u64 = 16 * MIB;

/// Runs a test of this module again where it may mount, if this process may not. Whether the caller is there.
fn may_mount(test: &str) -> bool {
    if std::env::var_os("DISKFULL_INSIDE").is_some() {
        return true;
    }
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let works = |way: &&&[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let tried = Command::new("unshare")
            .args(**way)
            .args(["mount", "-t", "tmpfs", "none"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        let why = format!(
            "{test}: NOTHING WAS CHECKED: this process may not mount, and no full disk can be made"
        );
        assert!(
            std::env::var("DISKFULL").as_deref() != Ok("required"),
            "{why}"
        );
        // Past the harness, which keeps what tests print.
        let _unheard = writeln!(
            File::options().append(true).open("/dev/stderr").unwrap(),
            "{why}"
        );
        return false;
    };
    let output = Command::new("unshare")
        .args(*way)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("diskfull::{test}"), "--nocapture"])
        .env("DISKFULL_INSIDE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Puts a node's folder on a file system of its own.
fn mount(node: &Node) {
    std::fs::create_dir(&node.folder).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "none"])
        .arg(&node.folder)
        .status();
    assert!(mounted.unwrap().success());
}

fn free(folder: &Path) -> u64 {
    let stat = rustix::fs::statvfs(folder).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Somebody else fills the disk until only so much is free.
fn fill(folder: &Path, leave: u64) {
    let mut ballast = File::options()
        .create(true)
        .append(true)
        .open(folder.join("ballast"))
        .unwrap();
    while free(folder) > leave {
        let bytes = (free(folder) - leave).min(MIB);
        match ballast.write_all(&vec![1; usize::try_from(bytes).unwrap()]) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            written => written.unwrap(),
        }
    }
}

/// Somebody else makes room.
fn clear(folder: &Path) {
    std::fs::remove_file(folder.join("ballast")).unwrap();
}

fn nodes(count: usize, low_water_bytes: u64) -> Cluster {
    let mark = format!("--low-water-bytes={low_water_bytes}");
    let mut cluster = Cluster::plan(count, &["--partitions=8", &mark]);
    cluster.nodes.iter().for_each(mount);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    cluster
}

/// The level that a node's metrics show.
fn level(node: &Node) -> f64 {
    metric(node, "sibyl_storage_disk_level")
}

fn metric(node: &Node, name: &str) -> f64 {
    let text = node.ask(&get("/metrics")).expect(200).text();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[track_caller]
fn wait_level(node: &Node, wanted: f64) {
    until(
        &format!("{} is at level {wanted}", node.id),
        || match level(node) {
            found if (found - wanted).abs() < 0.5 => Ok(()),
            found => Err(found.to_string()),
        },
    );
}

fn reasons(node: &Node) -> Value {
    let body = get("/health/ready").send(node.http).unwrap().json();
    body["reasons"].clone()
}

#[test]
fn a_full_disk_refuses_values_and_recovers_without_a_restart() {
    if !may_mount("a_full_disk_refuses_values_and_recovers_without_a_restart") {
        return;
    }
    let cluster = nodes(3, LOW_WATER_BYTES);
    let [first, second, third] = &cluster.nodes[..] else {
        unreachable!("three were planned");
    };
    let kept = key("default", "kept");
    second
        .ask(&put(&kept, "v").with("content-type", "text/plain"))
        .expect(204);

    // One disk: the others take the writes.
    fill(&first.folder, LOW_WATER_BYTES * 3 / 4);
    wait_level(first, 1.0);
    assert!(
        reasons(first).to_string().contains("low-water mark"),
        "{}",
        reasons(first)
    );
    let missed: Vec<String> = (0..20)
        .map(|at| key("default", &format!("missed-{at}")))
        .collect();
    for path in &missed {
        first.ask(&put(path.as_str(), path)).expect(204);
    }

    // All disks: values are refused, and nothing else is.
    for node in [second, third] {
        fill(&node.folder, LOW_WATER_BYTES * 3 / 4);
        wait_level(node, 1.0);
    }
    let new = key("default", "new");
    for node in &cluster.nodes {
        let problem = node.ask(&put(&new, "v")).refused(507, "disk_full").json();
        assert_eq!(problem["outcome"], "not_written");
        assert!(
            problem["detail"].as_str().unwrap().contains("Free space"),
            "{problem}"
        );
        let shown = metric(node, "sibyl_storage_disk_available_bytes");
        assert!(shown < LOW_WATER_BYTES as f64, "{shown}");
    }
    first.ask(&get(&new)).refused(404, "no_value");
    let read = second.ask(&get(&kept)).expect(200);
    let gone = delete(&kept).seen(&read);
    third.ask(&gone).expect(204);
    second.ask(&get(&kept)).refused(404, "no_value");

    // Below half of the mark not even deletes.
    let read = second.ask(&get(&missed[0])).expect(200);
    for node in &cluster.nodes {
        fill(&node.folder, LOW_WATER_BYTES / 4);
        wait_level(node, 2.0);
    }
    first
        .ask(&delete(&missed[0]).seen(&read))
        .refused(507, "disk_full");
    second.ask(&get(&missed[0])).expect(200);

    // Room again: nobody restarts, and what the first node missed comes to it.
    for node in &cluster.nodes {
        clear(&node.folder);
        wait_level(node, 0.0);
    }
    first.ask(&put(&new, "v")).expect(204);
    first.ask(&post("/v1/cluster/anti-entropy", &json!({})));
    for path in &missed {
        until("all copies are equal", || equal(third, path));
    }
    assert!(cluster.nodes.iter().all(Node::runs));
}

#[test]
fn below_the_mark_hints_are_delivered_all_the_same() {
    if !may_mount("below_the_mark_hints_are_delivered_all_the_same") {
        return;
    }
    let mut cluster = nodes(4, LOW_WATER_BYTES);
    let names = (0..).map(|at| format!("k-{at}"));
    let owned: Vec<String> = names
        .filter(|name| cluster.owners("default", name)[..3].contains(&"n1".to_owned()))
        .map(|name| key("default", &name))
        .take(10)
        .collect();
    cluster.nodes[0].kill();
    cluster.wait_whole();
    for path in &owned {
        cluster.nodes[1]
            .ask(&put(format!("{path}?w=all"), path))
            .expect(204);
    }
    fill(&cluster.nodes[0].folder, LOW_WATER_BYTES * 3 / 4);
    // Nothing but hints can bring the copies: no exchange begins on a disk below its mark.
    cluster.nodes[0].start();
    cluster.wait_whole();
    wait_level(&cluster.nodes[0], 1.0);
    for path in &owned {
        until("the hint is delivered", || equal(&cluster.nodes[1], path));
    }
    wait_level(&cluster.nodes[0], 1.0);
}

#[test]
fn a_disk_that_runs_out_stops_the_node_and_loses_nothing() {
    if !may_mount("a_disk_that_runs_out_stops_the_node_and_loses_nothing") {
        return;
    }
    // Without a mark nothing keeps the node from writing until the disk is full.
    let mut cluster = nodes(3, 0);
    let folder = cluster.nodes[0].folder.clone();
    fill(&folder, 4 * MIB);
    let value = |at: u64| vec![u8::try_from(at % 251).unwrap(); 100_000];
    let path = |at: u64| key("default", &format!("k-{at}"));
    // Clients keep writing, through a node that has room; the first ends on the way.
    let mut acknowledged = Vec::new();
    for at in 0..200 {
        let answer = cluster.nodes[1].ask(&put(path(at), value(at)));
        assert!([204, 503].contains(&answer.status), "{answer}");
        if answer.status == 204 {
            acknowledged.push(at);
        }
    }
    assert!(acknowledged.len() > 150, "two of three take writes");
    assert!(!cluster.nodes[0].ended().success());
    let said = cluster.nodes[0].said();
    assert!(said.contains("the store failed"), "{said}");

    // A start on the full disk changes nothing of what is there.
    fill(&folder, 0);
    cluster.nodes[0].start();
    let refused = !cluster.nodes[0].ended().success();
    let said = cluster.nodes[0].said();
    assert!(refused && said.contains("free space"), "{said}");
    clear(&folder);
    cluster.nodes[0].start();
    cluster.wait_whole();
    let entries = std::fs::read_dir(folder.join("data")).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        !names.any(|name| name.starts_with("aside-")),
        "it is the store it was"
    );
    cluster.nodes[0].ask(&post("/v1/cluster/anti-entropy", &json!({})));
    for at in acknowledged {
        until("all copies are equal", || {
            equal(&cluster.nodes[1], &path(at))
        });
        let answer = cluster.nodes[0].ask(&get(path(at))).expect(200);
        assert!(answer.body == value(at), "{at}");
    }
}
