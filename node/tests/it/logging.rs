//! What a running node logs, changed while it runs.

use crate::ask::{get, put};
use crate::nodes::{Cluster, Node};

#[test]
fn levels_change_while_a_node_runs() {
    let mut cluster = Cluster::plan(1, &[]);
    cluster.nodes.iter_mut().for_each(Node::start);
    let node = &cluster.nodes[0];
    node.wait_ready();
    let change = |filter: &str| {
        let body = serde_json::json!({ "filter": filter });
        node.ask(&put("/v1/log", body.to_string()).with("content-type", "application/json"))
    };
    let shown = || node.ask(&get("/v1/log")).expect(200).json()["filter"].clone();
    assert_eq!(shown(), "info", "what it was started with");
    // Each change is a warning of this module; it is written by the filter that it sets.
    change("warn,sibyl::http=error").expect(200);
    change("error,sibyl::http=warn").expect(200);
    assert_eq!(shown(), "error,sibyl::http=warn");
    change("sibyl=loudly").refused(400, "bad_filter");
    assert_eq!(shown(), "error,sibyl::http=warn", "all stays as it was");
    let said = node.said();
    let told = |filter: &str| said.lines().filter(|line| line.contains(filter)).count();
    assert_eq!(told("warn,sibyl::http=error"), 0, "{said}");
    assert_eq!(told("error,sibyl::http=warn"), 1, "{said}");
}
