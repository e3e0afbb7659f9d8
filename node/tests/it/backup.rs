//! Backups of nodes that run, and what becomes of what is restored from them.
//!
//! Commands are processes, nodes are real. A restored node must be another store that holds everything again, and
//! nothing that was deleted since may come back by it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::ask::{delete, get, key, put, put_bucket, text};
use crate::nodes::{Cluster, Node, SIBYL, until};

fn sibyl(args: &[&str]) -> Output {
    let mut command = Command::new(SIBYL);
    command.args(args).stdin(Stdio::null());
    for name in ["SIBYL_URL", "SIBYL_BUCKET", "SIBYL_OUTPUT"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// A command that works; what it says as JSON.
#[track_caller]
fn says(args: &[&str]) -> Value {
    let output = sibyl(&[args, &["--output", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A command that fails, held to its words.
#[track_caller]
fn fails(args: &[&str], words: &str) {
    let output = sibyl(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
}

fn url(node: &Node) -> String {
    format!("http://{}", node.http)
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Takes a backup of a node into a file beside its folder.
fn back_up(node: &Node, name: &str) -> (PathBuf, Value) {
    let file = node.folder.with_file_name(name);
    let told = says(&["backup", text_of(&file), "--url", &url(node)]);
    assert_eq!(told["node"], node.id, "{told}");
    (file, told)
}

/// Its disk is lost, and made anew from a backup.
fn restore(node: &mut Node, file: &Path) -> Value {
    std::fs::remove_dir_all(&node.folder).unwrap();
    let told = says(&[
        "restore",
        text_of(file),
        "--data-dir",
        text_of(&node.folder),
    ]);
    node.start();
    told
}

/// The dots of a key's siblings.
fn dots(node: &Node, path: &str) -> BTreeSet<String> {
    let answer = node.ask(&get(format!("{path}?siblings=true&r=all")));
    let body = answer.expect(200).json();
    let siblings = body["siblings"].as_array().unwrap();
    siblings
        .iter()
        .map(|sibling| text(&sibling["dot"]))
        .collect()
}

/// Waits until every owner of a key holds the same object.
#[track_caller]
pub(crate) fn wait_same(node: &Node, path: &str) {
    until("all owners hold the same", || {
        let answer = node.ask(&get(format!("{path}?explain=true&r=1&partial=true")));
        let body = answer.json();
        let owners = body["preference_list"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut digests = owners.iter().map(|owner| &owner["object_digest"]);
        let first = digests.next().cloned().unwrap_or_default();
        match !first.is_null() && digests.all(|digest| *digest == first) {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    });
}

/// Writes through one node until it is told to stop; how many writes were acknowledged.
fn load(node: std::net::SocketAddr, stop: &AtomicBool, acknowledged: &AtomicUsize) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = key("default", &format!("load-{}", turn % 50));
        let answer = put(path, turn.to_string()).send(node);
        if answer.is_ok_and(|answer| answer.status == 204) {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A cluster with siblings, deletes, and buckets that will and will not be there later.
fn filled() -> (Cluster, Vec<String>) {
    let cluster = Cluster::three();
    let nodes = &cluster.nodes;
    for bucket in ["lone", "doomed"] {
        let config = json!({ "w": 1 });
        nodes[0].ask(&put_bucket(bucket, &config)).expect(201);
    }
    let paths: Vec<String> = (0..40)
        .map(|at| key("default", &format!("k{at}")))
        .collect();
    for (at, path) in paths.iter().enumerate() {
        let node = &nodes[at % 3];
        node.ask(&put(path, [0, 255, at as u8])).expect(204);
        if at % 4 == 0 {
            node.ask(&put(path, "a sibling")).expect(204);
        }
        node.ask(&put(key("doomed", &format!("k{at}")), "old"))
            .expect(204);
    }
    (cluster, paths)
}

#[test]
fn a_node_restored_from_a_backup_is_another_store_that_holds_everything_again() {
    let (mut cluster, paths) = filled();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (file, told) = std::thread::scope(|scope| {
        let node = cluster.nodes[0].http;
        let (stop, acknowledged) = (&stop, &acknowledged);
        scope.spawn(move || load(node, stop, acknowledged));
        until("there is load", || {
            match acknowledged.load(Ordering::Relaxed) {
                0..20 => Err("little".to_owned()),
                _ => Ok(()),
            }
        });
        let taken = std::panic::catch_unwind(|| back_up(&cluster.nodes[2], "n3.backup"));
        stop.store(true, Ordering::Relaxed);
        taken.unwrap()
    });
    assert!(told["records"].as_u64() > Some(80), "{told}");
    let checked = says(&["backup", text_of(&file), "--verify"]);
    assert_eq!(checked["batch"], told["batch"]);
    fails(
        &["backup", text_of(&file), "--url", &url(&cluster.nodes[0])],
        "is there already",
    );

    // What the others do meanwhile stays done.
    let nodes = &cluster.nodes;
    for path in &paths[..10] {
        let seen = nodes[0].ask(&get(format!("{path}?siblings=true")));
        nodes[0]
            .ask(&delete(path).seen_json(&seen.json()))
            .expect(204);
    }
    nodes[0].ask(&put(&paths[11], "newer")).expect(204);
    nodes[0]
        .ask(&delete("/v1/buckets/doomed?purge=true"))
        .expect(204);
    nodes[0].ask(&put_bucket("doomed", &json!({}))).expect(201);
    nodes[0].ask(&put(key("doomed", "k0"), "new")).expect(204);
    let before: Vec<_> = paths[10..]
        .iter()
        .map(|path| dots(&nodes[0], path))
        .collect();

    cluster.nodes[2].kill();
    let restored = restore(&mut cluster.nodes[2], &file);
    cluster.wait_whole();
    let (old, new) = (text(&restored["store"]), text(&restored["new_store"]));
    assert_eq!(old, text(&told["store"]));
    assert_ne!(old, new);

    let nodes = &cluster.nodes;
    for node in nodes {
        for path in &paths[..10] {
            node.ask(&get(format!("{path}?r=all"))).expect(404);
        }
        for (path, before) in paths[10..].iter().zip(&before) {
            assert_eq!(
                &dots(node, path),
                before,
                "{path}: nothing new, nothing lost"
            );
        }
        let listed = node.ask(&get("/v1/buckets/doomed/keys")).expect(200).json();
        assert_eq!(
            listed["keys"],
            json!(["k0"]),
            "a deleted bucket stays deleted"
        );
    }
    paths.iter().for_each(|path| wait_same(&nodes[0], path));
    // The restored node mints, under its new name alone.
    let minted: Vec<String> = (0..30)
        .map(|at| key("default", &format!("later{at}")))
        .filter(|path| {
            let answer = nodes[2].ask(&put(path, "later")).expect(204);
            answer.header("sibyl-coordinator") == "n3"
        })
        .collect();
    assert!(!minted.is_empty());
    for path in &minted {
        let found = dots(&nodes[0], path);
        assert!(
            found.iter().all(|dot| dot.starts_with(&new)),
            "{found:?}, not {new}"
        );
    }
}

#[test]
fn what_survived_in_a_backup_alone_comes_back_to_all_owners() {
    let (mut cluster, _) = filled();
    for (a, b) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
        cluster.nodes[a].cut(&cluster.nodes[b], true);
    }
    cluster.nodes[2].wait_reaches(&[]);
    // With W = 1 it goes on alone; nobody else ever hears of these.
    let lone: Vec<String> = (0..20).map(|at| key("lone", &format!("k{at}"))).collect();
    for path in &lone {
        cluster.nodes[2].ask(&put(path, "only here")).expect(204);
    }
    let (file, _) = back_up(&cluster.nodes[2], "n3.backup");
    cluster.nodes[2].kill();
    for node in 0..2 {
        cluster.nodes[node].cut(&cluster.nodes[2], false);
    }
    restore(&mut cluster.nodes[2], &file);
    cluster.wait_whole();
    for path in &lone {
        wait_same(&cluster.nodes[0], path);
        let read = cluster.nodes[0].ask(&get(format!("{path}?r=all")));
        assert_eq!(read.expect(200).text(), "only here");
    }
}

#[test]
fn a_cluster_of_one_serves_what_was_in_its_backup_at_once() {
    let mut cluster = Cluster::plan(1, &["--partitions=16"]);
    cluster.nodes[0].start();
    cluster.wait_whole();
    let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resolvers/prebuilt/set-union.wasm");
    let wasm = std::fs::read(wasm).unwrap();
    let node = &cluster.nodes[0];
    let upload = put("/v1/resolvers/union", &wasm).with("content-type", "application/wasm");
    let uploaded = node.ask(&upload).expect(201).json();
    let config = json!({ "n": 1, "resolver": { "name": "union", "version": uploaded["digest"] } });
    node.ask(&put_bucket("sets", &config)).expect(201);
    for value in [r#"["a"]"#, r#"["b"]"#] {
        let write = put(key("sets", "s"), value).with("content-type", "application/json");
        node.ask(&write).expect(204);
    }
    node.ask(&put(key("default", "k"), "then")).expect(204);
    let merged = node.ask(&get(key("sets", "s"))).expect(200).text();
    let (file, told) = back_up(node, "n1.backup");
    assert_eq!(
        (&told["resolvers"], &told["members"]),
        (&json!(1), &json!(1))
    );
    node.ask(&put(key("default", "later"), "lost")).expect(204);

    check_damaged(node, &file);
    cluster.nodes[0].kill();
    fails(
        &[
            "restore",
            text_of(&file),
            "--data-dir",
            text_of(&cluster.nodes[0].folder),
        ],
        "is not empty",
    );
    let restored = restore(&mut cluster.nodes[0], &file);
    for restart in [true, false] {
        cluster.wait_whole();
        let node = &cluster.nodes[0];
        assert!(node.said().contains("restored from a backup"));
        assert_eq!(
            node.ask(&get(key("default", "k"))).expect(200).text(),
            "then"
        );
        node.ask(&get(key("default", "later"))).expect(404);
        until("the resolver is compiled anew and merges", || {
            let answer = node.ask(&get(key("sets", "s")));
            match answer.status == 200 && answer.text() == merged {
                true => Ok(()),
                false => Err(answer.to_string()),
            }
        });
        let path = key("default", &format!("new-{restart}"));
        node.ask(&put(&path, "v")).expect(204);
        let new = text(&restored["new_store"]);
        assert!(dots(node, &path).iter().all(|dot| dot.starts_with(&new)));
        if restart {
            // Its registry goes on, too: the new store votes alone.
            node.ask(&put_bucket("more", &json!({ "n": 1 })))
                .expect(201);
            assert_eq!(cluster.nodes[0].terminate().code(), Some(0));
            cluster.nodes[0].start();
        }
    }
}

/// A backup with one flipped bit, or without its end, is refused by name, and nothing is written.
fn check_damaged(node: &Node, file: &Path) {
    let whole = std::fs::read(file).unwrap();
    let damaged = file.with_file_name("damaged.backup");
    let target = node.folder.with_file_name("never");
    let refused = |bytes: &[u8], words: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let never = text_of(&target);
        fails(&["restore", text_of(&damaged), "--data-dir", never], words);
        fails(&["restore", text_of(&damaged), "--check"], "damaged.backup");
        fails(&["backup", text_of(&damaged), "--verify"], words);
        assert!(!target.exists());
    };
    for at in [3, 20, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        refused(&bytes, "is not a whole backup");
    }
    refused(&whole[..whole.len() - 40], "it is not complete");
}
