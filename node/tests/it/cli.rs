//! The command line as processes: exit codes, what goes to which stream, and that no process is left behind.
//!
//! No node is needed here: where a server must be there, the one that stores nothing stands in. Every process
//! that a test starts is stopped by it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sibyl::cli::local_cluster::{Error, LocalCluster, Plan};

const SIBYL: &str = env!("CARGO_BIN_EXE_sibyl");

/// Generous: a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn sibyl(args: &[&str]) -> Output {
    let mut command = Command::new(SIBYL);
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("SIBYL_URL")
        .env_remove("SIBYL_OUTPUT");
    command.output().unwrap()
}

fn check(args: &[&str], code: i32, stderr: &str) {
    let output = sibyl(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(
        said.contains(stderr),
        "{args:?}: {said:?} does not say {stderr:?}"
    );
    assert!(
        !said.contains('\u{1b}'),
        "{args:?}: colours without a terminal"
    );
}

fn baseline(folder: &tempfile::TempDir) -> LocalCluster {
    let args = ["bench", "baseline"];
    let mut server =
        LocalCluster::start_other(SIBYL.as_ref(), folder.path(), "baseline", &args).unwrap();
    server.wait_ready(LIMIT, || false).unwrap();
    server
}

#[test]
fn exit_codes_and_messages() {
    check(&[], 2, "Usage");
    check(&["get"], 2, "Usage");
    check(&["serve", "--listen", "0.0.0.0:7070"], 2, "--insecure");
    check(
        &["serve", "--join", "127.0.0.1:7170"],
        2,
        "this node's own --peer-listen",
    );
    check(
        &["serve", "--gossip-interval", "5"],
        2,
        "--gossip-interval = \"5\"",
    );
    check(
        &["get", "key", "--url", "http://127.0.0.1:9"],
        1,
        "no answer from http://127.0.0.1:9",
    );
    check(
        &[
            "put",
            "key",
            "--url",
            "http://127.0.0.1:9",
            "--file",
            "/no/such/file",
        ],
        1,
        "/no/such/file",
    );
}

#[test]
fn a_server_stops_when_it_is_told_and_when_its_starter_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = baseline(&folder);
    assert!(server.nodes_mut()[0].is_running());
    assert_eq!(server.stop(), Vec::<String>::new());
    assert!(!server.nodes_mut()[0].is_running());

    let mut orphan = Command::new(SIBYL);
    orphan.args([
        "bench",
        "baseline",
        "--listen",
        "127.0.0.1:0",
        "--stop-with-stdin",
    ]);
    let mut orphan = orphan
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(orphan.stdin.take());
    let started = Instant::now();
    while orphan.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < LIMIT, "it outlives its standard input");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_cannot_start_is_reported_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        executable: SIBYL.into(),
        nodes: 1,
        folder: folder.path().to_owned(),
        ports: None,
        cluster_id: "test".to_owned(),
        flags: vec!["--tokens=0".to_owned()],
        outlive: false,
    };
    let mut cluster = LocalCluster::start(&plan).unwrap();
    let error = cluster.wait_ready(LIMIT, || false).unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("--tokens = \"0\": expected a number from 1 to 1024"),
        "{error}"
    );
}

#[test]
fn a_taken_port_is_named() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    check(
        &["dev", "--port", &port.to_string(), "--data-dir", data],
        1,
        &format!("port {port} is taken"),
    );
}

#[test]
fn bench_reports_as_json_and_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = baseline(&folder);
    let node = &server.nodes()[0];
    let file = folder.path().join("results.json");
    let (pid, out) = (node.pid().to_string(), file.to_str().unwrap());
    let line = [
        "bench",
        "--url",
        &node.url,
        "--pids",
        &pid,
        "--seconds",
        "1",
        "--warm-up",
        "10ms",
        "--keys",
        "50",
    ];
    let more = [
        "--connections",
        "2",
        "--op",
        "put,get",
        "--output",
        "json",
        "--out",
        out,
    ];
    let output = sibyl(&[&line[..], &more].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut written = String::new();
    std::fs::File::open(file)
        .unwrap()
        .read_to_string(&mut written)
        .unwrap();
    assert_eq!(written.as_bytes(), output.stdout);
    let report: serde_json::Value = serde_json::from_str(&written).unwrap();
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2);
    for cell in cells {
        assert!(
            cell["operations"].as_u64().unwrap() > 0
                && cell["errors"].as_object().unwrap().is_empty(),
            "{cell}"
        );
    }
    assert!(
        report["command"]
            .as_str()
            .unwrap()
            .contains("--connections 2")
    );
}
