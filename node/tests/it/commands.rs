//! The command line against a running cluster: what scripts rely on, exit codes and JSON.
//!
//! `cli.rs` has what needs no node. Every command is a process; nothing is checked through tables, which are
//! for people.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::ask::{Answer, get, key, put, text};
use crate::nodes::{Cluster, SIBYL, Shared, free_addresses, until};
use crate::resolver::fixture;

static CLUSTER: Shared = Shared::new();

/// Runs a command against a node of the cluster.
fn sibyl(cluster: &Cluster, args: &[&str]) -> Output {
    static TURN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut command = Command::new(SIBYL);
    let url = format!("http://{}", cluster.nodes[turn % cluster.nodes.len()].http);
    command
        .args(args)
        .env("SIBYL_URL", url)
        .env_remove("SIBYL_BUCKET")
        .env_remove("SIBYL_OUTPUT");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that works; what it prints.
#[track_caller]
fn works(cluster: &Cluster, args: &[&str]) -> String {
    let output = sibyl(cluster, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, as JSON.
#[track_caller]
fn told(cluster: &Cluster, args: &[&str]) -> Value {
    let printed = works(cluster, &[args, &["--output", "json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error}: {printed}"))
}

/// Runs a command that fails, and holds it to its exit code and words.
#[track_caller]
fn fails(cluster: &Cluster, args: &[&str], code: i32, words: &str) {
    let output = sibyl(cluster, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(
        said.contains(words),
        "{args:?}: {said:?} does not say {words:?}"
    );
}

#[test]
fn data_comes_and_goes_with_contexts() {
    let cluster = Cluster::shared(&CLUSTER);
    let run = |args: &[&str]| told(&cluster, args);
    let first = run(&["put", "cli/a", "one", "-t", "text/plain", "-a", "owner=ann"]);
    assert!(
        first["acks"]
            .as_str()
            .is_some_and(|acks| acks.starts_with("owners=")),
        "{first}"
    );
    let read = run(&["get", "cli/a"]);
    assert_eq!(
        (&read["value"], &read["status"], &read["content_type"]),
        (&json!("one"), &json!(200), &json!("text/plain"))
    );
    assert_eq!(read["attributes"], json!({ "owner": "ann" }));
    assert_eq!(works(&cluster, &["get", "cli/a", "--raw"]), "one");

    run(&["put", "cli/a", "two"]);
    let several = run(&["get", "cli/a"]);
    assert_eq!(
        several["siblings"].as_array().map(Vec::len),
        Some(2),
        "{several}"
    );
    fails(&cluster, &["get", "cli/a", "--raw"], 1, "2 siblings");
    let context = text(&several["context"]);
    run(&["put", "cli/a", "three", "--context", &context]);
    assert_eq!(
        works(&cluster, &["get", "cli/a", "--raw", "-r", "all"]),
        "three"
    );
    fails(&cluster, &["put", "cli/a", "four", "--if-absent"], 1, "412");
    fails(
        &cluster,
        &["put", "cli/other", "four", "--context", &context],
        1,
        "bad_context",
    );

    let explained = run(&["explain", "cli/a"]);
    assert_eq!(
        explained["preference_list"].as_array().map(Vec::len),
        Some(3),
        "{explained}"
    );
    for name in ["cli/b", "cli/c c", "cli/d"] {
        run(&["put", name, "v"]);
    }
    let listed = run(&["list", "--prefix", "cli/", "--limit", "3"]);
    assert_eq!(
        (&listed["keys"], &listed["next"]),
        (&json!(["cli/a", "cli/b", "cli/c c"]), &json!("cli/c c"))
    );
    assert_eq!(
        run(&["list", "--prefix", "cli/", "--start", "cli/c c"])["keys"],
        json!(["cli/d"])
    );
    assert_eq!(
        works(&cluster, &["list", "--prefix", "cli/", "--all"])
            .lines()
            .count(),
        4
    );

    fails(&cluster, &["delete", "cli/a"], 2, "--context");
    run(&["delete", "cli/a", "--blind"]);
    fails(&cluster, &["get", "cli/a"], 1, "no_value");
    fails(&cluster, &["delete", "cli/never", "--blind"], 1, "no_value");
    fails(
        &cluster,
        &["get", "x", "--bucket", "nowhere"],
        1,
        "no bucket",
    );
}

#[test]
fn buckets_and_resolvers_are_set_up_from_a_shell() {
    let cluster = Cluster::shared(&CLUSTER);
    let run = |args: &[&str]| told(&cluster, args);
    let made = run(&["bucket", "set", "shop", "--n", "2", "--max-siblings", "7"]);
    assert_eq!(
        (&made["n"], &made["max_siblings"]),
        (&json!(2), &json!(7)),
        "{made}"
    );
    run(&["bucket", "set", "shop", "--w", "1"]);
    let now = run(&["bucket", "get", "shop"]);
    assert_eq!(
        (&now["max_siblings"], &now["w"]),
        (&json!(7), &json!(1)),
        "what was not named stays: {now}"
    );
    fails(
        &cluster,
        &["bucket", "set", "shop", "--n", "3"],
        1,
        "fixed_n",
    );
    fails(&cluster, &["bucket", "get", "nowhere"], 1, "no_bucket");

    let folder = tempfile::tempdir().unwrap();
    let wat = |name: &str, body: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, fixture::guest(body)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (picks, traps) = (
        wat("picks.wat", &fixture::pick(1)),
        wat("traps.wat", "unreachable"),
    );
    let pushed = run(&["resolver", "push", "newest", &picks]);
    assert!(text(&pushed["digest"]).starts_with("sha256:"), "{pushed}");
    let tried = run(&["resolver", "try", "newest", "a", "b"]);
    assert_eq!(
        (&tried["outcome"], &tried["index"]),
        (&json!("picked"), &json!(1)),
        "{tried}"
    );
    run(&["resolver", "bind", "shop", "newest"]);
    for value in ["1", "2"] {
        run(&["put", "k", value, "--bucket", "shop"]);
    }
    assert_eq!(
        works(&cluster, &["get", "k", "--raw", "--bucket", "shop"]),
        "2"
    );
    assert_eq!(
        run(&["explain", "k", "--bucket", "shop"])["resolver"]["outcome"],
        "picked"
    );
    let versions = run(&["resolver", "list", "newest"]);
    assert_eq!(
        versions["versions"][0]["bound"],
        json!(["shop"]),
        "{versions}"
    );

    run(&["resolver", "push", "broken", &traps]);
    let failed = sibyl(
        &cluster,
        &["resolver", "try", "broken", "a", "b", "--output", "json"],
    );
    let outcome: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(
        (failed.status.code(), &outcome["outcome"]),
        (Some(1), &json!("failed")),
        "{outcome}"
    );
    fails(
        &cluster,
        &["resolver", "push", "none", "/no/such/file"],
        1,
        "/no/such/file",
    );
    fails(
        &cluster,
        &["resolver", "bind", "shop", "nowhere"],
        1,
        "no_resolver",
    );
    works(&cluster, &["resolver", "unbind", "shop"]);
    assert_eq!(
        run(&["get", "k", "--bucket", "shop"])["siblings"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    fails(
        &cluster,
        &["bucket", "delete", "shop"],
        1,
        "bucket_not_empty",
    );
    works(&cluster, &["bucket", "delete", "shop", "--purge"]);
    let names: Vec<_> = run(&["bucket", "list"])["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(&one["name"]))
        .collect();
    assert!(!names.contains(&"shop".to_owned()), "{names:?}");
}

#[test]
fn the_cluster_is_looked_at_from_a_shell() {
    let cluster = Cluster::shared(&CLUSTER);
    let run = |args: &[&str]| told(&cluster, args);
    assert_eq!(run(&["health"])["ready"], true);
    let status = run(&["cluster", "status"]);
    assert_eq!(
        (
            &status["healthy"],
            status["members"].as_array().map(Vec::len)
        ),
        (&json!(true), Some(3)),
        "{status}"
    );
    let ring = run(&["cluster", "ring"]);
    assert_eq!(
        (&ring["partitions"], ring["owners"].as_array().map(Vec::len)),
        (&json!(16), Some(16))
    );
    assert!(run(&["cluster", "registry"])["number"].as_u64() >= Some(2));
    for table in [
        &["health"][..],
        &["cluster", "status"],
        &["cluster", "ring"],
        &["cluster", "registry"],
    ] {
        assert!(!works(&cluster, table).is_empty());
    }
    fails(&cluster, &["cluster", "cut", "n9"], 1, "no_peer");
}

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<i32> {
    let of = |pid: &str| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
        // The name in brackets may hold spaces; state and parent come after it.
        stat.rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse::<u32>()
            .ok()
    };
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap());
    all.filter(|pid| pid.parse::<i32>().is_ok() && of(pid) == Some(parent))
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[test]
fn dev_runs_a_cluster_until_it_is_told_to_stop_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Clients of two nodes, and their peers 100 above.
    let first = free_addresses(&[0, 1, 100, 101]);
    let mut command = Command::new(SIBYL);
    command
        .args([
            "dev",
            "--nodes",
            "2",
            "--port",
            &first.port().to_string(),
            "--data-dir",
        ])
        .arg(folder.path());
    let mut dev = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let second = std::net::SocketAddr::from((first.ip(), first.port() + 1));
    let ready = |answer: std::io::Result<Answer>| match answer {
        Ok(answer) if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    for address in [first, second] {
        until("a node of dev is ready", || {
            assert!(dev.try_wait().unwrap().is_none(), "dev has ended");
            ready(get("/health/ready").send(address))
        });
    }
    put(key("default", "k"), "v")
        .send(first)
        .unwrap()
        .expect(204);
    assert_eq!(
        get(key("default", "k"))
            .send(second)
            .unwrap()
            .expect(200)
            .text(),
        "v"
    );
    let nodes = children(dev.id());
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    kill_process(
        Pid::from_raw(dev.id().try_into().unwrap()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    let status = until("dev ends", || {
        dev.try_wait().unwrap().ok_or_else(String::new)
    });
    assert_eq!(status.code(), Some(0));
    for node in nodes {
        assert!(
            test_kill_process(Pid::from_raw(node).unwrap()).is_err(),
            "process {node} is left behind"
        );
    }
    assert!(get("/health/live").send(first).is_err() && get("/health/live").send(second).is_err());
}
