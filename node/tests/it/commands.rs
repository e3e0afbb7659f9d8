//! The command line against a running cluster: what scripts rely on, exit codes and JSON.
//!
//! `cli.rs` has what needs no node. Every command is a process; nothing is checked through tables, which are
//! for people.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::ask::{Answer, get, key, put, text};
use crate::nodes::{Cluster, SIBYL, Shared, free_addresses, until};
use crate::resolver::fixture;

static CLUSTER: Shared = Shared::new();

/// Runs commands, written as a person would, each against the next node.
struct Shell {
    cluster: Arc<Cluster>,
    turn: AtomicUsize,
}

impl Shell {
    fn new() -> Self {
        let (cluster, turn) = (Cluster::shared(&CLUSTER), AtomicUsize::new(0));
        Self { cluster, turn }
    }

    fn run(&self, line: &str) -> Output {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.cluster.nodes.len();
        let mut command = Command::new(SIBYL);
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command.env(
            "SIBYL_URL",
            format!("http://{}", self.cluster.nodes[turn].http),
        );
        command
            .env_remove("SIBYL_BUCKET")
            .env_remove("SIBYL_OUTPUT");
        command.output().unwrap()
    }

    /// A command that works; what it prints.
    #[track_caller]
    fn works(&self, line: &str) -> String {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, as JSON.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let printed = self.works(&format!("{line} --output json"));
        let parsed = serde_json::from_str(&printed);
        parsed.unwrap_or_else(|error| panic!("{line}: {error}: {printed}"))
    }

    /// Fails unless what a command tells at this place is this.
    #[track_caller]
    fn tells(&self, line: &str, pointer: &str, wanted: Value) {
        let told = self.json(line);
        assert_eq!(told.pointer(pointer), Some(&wanted), "{line}: {told}");
    }

    /// A command that fails, held to its exit code and words.
    #[track_caller]
    fn fails(&self, line: &str, code: i32, words: &str) {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(
            said.contains(words),
            "{line}: {said:?} does not say {words:?}"
        );
    }
}

#[test]
fn data_comes_and_goes_with_contexts() {
    let shell = Shell::new();
    let first = shell.json("put cli/a one -t text/plain -a owner=ann");
    assert!(text(&first["acks"]).starts_with("owners="), "{first}");
    shell.tells("get cli/a", "/value", json!("one"));
    shell.tells("get cli/a", "/status", json!(200));
    shell.tells("get cli/a", "/content_type", json!("text/plain"));
    shell.tells("get cli/a", "/attributes", json!({ "owner": "ann" }));
    assert_eq!(shell.works("get cli/a --raw"), "one");

    shell.works("put cli/a two");
    let several = shell.json("get cli/a");
    assert_eq!(several["siblings"].as_array().map(Vec::len), Some(2));
    shell.fails("get cli/a --raw", 1, "2 siblings");
    let context = text(&several["context"]);
    shell.works(&format!("put cli/a three --context {context}"));
    assert_eq!(shell.works("get cli/a --raw -r all"), "three");
    shell.fails("put cli/a four --if-absent", 1, "412");
    let keyed = "put cli/keyed v --idempotency-key order-17";
    shell.tells(keyed, "/repeated", json!(false));
    shell.tells(keyed, "/repeated", json!(true));
    let reused = "put cli/keyed w --idempotency-key order-17";
    shell.fails(reused, 1, "idempotency_key_reused");
    let gone = "delete cli/keyed --blind --idempotency-key order-18";
    shell.tells(gone, "/repeated", json!(false));
    shell.tells(gone, "/repeated", json!(true));
    shell.fails(
        &format!("put cli/b four --context {context}"),
        1,
        "bad_context",
    );
    shell.tells("explain cli/a", "/preference_list/2/siblings", json!(1));
    shell.fails("delete cli/a", 2, "--context");
    shell.works("delete cli/a --blind");
    shell.fails("get cli/a", 1, "no_value");
    shell.fails("delete cli/never --blind", 1, "no_value");
    shell.fails("get x --bucket nowhere", 1, "no_bucket");
}

#[test]
fn keys_are_listed_by_pages_or_all() {
    let shell = Shell::new();
    for name in ["a", "b", "c", "d"] {
        shell.works(&format!("put list/{name} v"));
    }
    let page = "list --prefix list/ --limit 3";
    shell.tells(page, "/keys", json!(["list/a", "list/b", "list/c"]));
    shell.tells(page, "/next", json!("list/c"));
    shell.tells(
        &format!("{page} --start list/c"),
        "/keys",
        json!(["list/d"]),
    );
    assert_eq!(shell.works("list --prefix list/ --all").lines().count(), 4);
    shell.fails("list --limit 1001", 2, "--limit");
}

#[test]
fn buckets_are_made_and_changed() {
    let shell = Shell::new();
    let made = shell.json("bucket set plain --n 2 --max-siblings 7");
    assert_eq!((&made["n"], &made["max_siblings"]), (&json!(2), &json!(7)));
    shell.works("bucket set plain --w 1");
    shell.tells("bucket get plain", "/w", json!(1));
    shell.tells("bucket get plain", "/max_siblings", json!(7));
    shell.fails("bucket set plain --n 3", 1, "fixed_n");
    shell.fails("bucket get nowhere", 1, "no_bucket");
    shell.works("put k v --bucket plain");
    shell.fails("bucket delete plain", 1, "bucket_not_empty");
    assert!(shell.json("bucket list").to_string().contains("\"plain\""));
    shell.works("bucket delete plain --purge");
    assert!(!shell.json("bucket list").to_string().contains("\"plain\""));
}

#[test]
fn resolvers_are_pushed_tried_and_bound() {
    let shell = Shell::new();
    let folder = tempfile::tempdir().unwrap();
    let wat = |name: &str, body: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, fixture::guest(body)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let picks = wat("picks.wat", &fixture::pick(1));
    let pushed = shell.json(&format!("resolver push newest {picks}"));
    assert!(text(&pushed["digest"]).starts_with("sha256:"), "{pushed}");
    shell.tells("resolver try newest a b", "/index", json!(1));
    shell.works("bucket set shop");
    shell.fails("resolver bind shop newest", 1, "laws_broken");
    shell.works("resolver bind shop newest --laws warn");
    shell.works("put k 1 --bucket shop");
    shell.works("put k 2 --bucket shop");
    assert_eq!(shell.works("get k --raw --bucket shop"), "2");
    shell.tells(
        "explain k --bucket shop",
        "/resolver/outcome",
        json!("picked"),
    );
    shell.tells("resolver list newest", "/versions/0/bound", json!(["shop"]));
    shell.tells("resolver list", "/resolvers/0/name", json!("newest"));
    let older = text(&pushed["digest"]).to_owned();
    shell.fails("resolver rollback shop", 1, "no version older");
    let logs = format!("{} {}", fixture::log(1, 10), fixture::pick(0));
    let newer = shell.json(&format!("resolver push newest {}", wat("logs.wat", &logs)));
    assert_eq!(newer["certificate"]["tier"], "lattice", "{newer}");
    shell.works("resolver bind shop newest");
    // Each command goes to the next node, and each node keeps its own log.
    for _ in &shell.cluster.nodes {
        assert_eq!(shell.works("get k --raw --bucket shop"), "1");
    }
    shell.tells(
        "resolver logs newest",
        "/lines/0/message",
        json!("a sentence"),
    );
    shell.tells(
        "resolver logs newest",
        "/lines/0/version",
        newer["digest"].clone(),
    );
    shell.fails("resolver rollback shop", 1, "laws_broken");
    shell.works("resolver bind shop newest --laws warn");
    shell.tells("resolver rollback shop", "/to", json!(older));
    assert_eq!(shell.works("get k --raw --bucket shop"), "2");
    shell.works("resolver unbind shop");
    shell.tells("get k --bucket shop", "/siblings/1/value", json!("2"));

    let traps = wat("traps.wat", "unreachable");
    shell.works(&format!("resolver push traps {traps}"));
    let failed = shell.run("resolver try traps a b --output json");
    let outcome: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{outcome}");
    assert_eq!(outcome["outcome"], "failed", "{outcome}");
    shell.fails("resolver push none /no/such/file", 1, "/no/such/file");
    shell.fails("resolver bind shop nowhere", 1, "no_resolver");
}

#[test]
fn the_cluster_is_looked_at() {
    let shell = Shell::new();
    shell.tells("health", "/ready", json!(true));
    shell.tells("cluster status", "/healthy", json!(true));
    shell.tells("cluster status", "/members/2/state", json!("alive"));
    shell.tells("cluster ring", "/partitions", json!(16));
    shell.tells("cluster registry", "/members/2/node_id", json!("n3"));
    for table in [
        "health",
        "cluster status",
        "cluster ring",
        "cluster registry",
    ] {
        assert!(!shell.works(table).is_empty(), "{table}");
    }
    shell.fails("cluster cut n9", 1, "no_peer");
    shell.fails("cluster join n9 --plan", 1, "no_candidate");
    shell.fails("cluster replace n1 --with n9 --yes", 1, "no_candidate");
    shell.fails("cluster remove n9 --yes", 1, "no_member");
    shell.fails("cluster remove n1 --plan", 1, "member_answers");
    shell.fails("cluster leave n1 --plan", 1, "too_few_members");
    shell.fails("cluster leave n9", 1, "no_member");
    shell.fails("cluster leave n1 --plan --yes", 2, "--yes");
    shell.fails("cluster replace n1", 2, "--with");
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
