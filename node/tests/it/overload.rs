//! A node that is asked for more than it runs at a time: who is told so, who is not, and that it recovers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ask::{get, key, put};
use crate::nodes::{Cluster, Node};

/// Clients that ask at once: far more than the one that runs and the four that wait.
const CLIENTS: u64 = 48;

fn counted(node: &Node, name: &str) -> f64 {
    let text = node.ask(&get("/metrics")).expect(200).text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[test]
fn what_a_node_cannot_run_is_refused_and_nothing_else_suffers() {
    let mut cluster = Cluster::plan(3, &["--partitions=16"]);
    cluster.nodes[0].set_flag("max-requests", "1");
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let (busy, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (shed, done, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let client = |number: u64| {
        for at in 0.. {
            let path = key("default", &format!("k-{number}-{at}"));
            let answer = busy.ask(&put(&path, "v"));
            match answer.status {
                204 => done.fetch_add(1, Ordering::Relaxed),
                _ => {
                    let answer = answer.refused(503, "overloaded");
                    assert_eq!(answer.header("retry-after"), "1");
                    assert_eq!(answer.json()["outcome"], "not_written");
                    // What was not begun is not there: no owner ever heard of it.
                    if at == 0 {
                        other.ask(&get(&path)).refused(404, "no_value");
                    }
                    shed.fetch_add(1, Ordering::Relaxed)
                }
            };
            if enough.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || client(number));
        }
        let began = Instant::now();
        let seen = || shed.load(Ordering::Relaxed) > 0 && done.load(Ordering::Relaxed) > 0;
        while !seen() && began.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        // While the line is full: health and operation are answered, and so is whatever another node accepted.
        for path in ["/health/live", "/health/ready", "/v1/cluster", "/metrics"] {
            busy.ask(&get(path)).expect(200);
        }
        for at in 0..20 {
            let path = format!("{}?w=all", key("default", &format!("other-{at}")));
            other.ask(&put(path, "v")).expect(204);
        }
        enough.store(true, Ordering::Relaxed);
    });
    assert!(done.into_inner() > 0, "it goes on serving");
    let shed = shed.into_inner();
    assert!(shed > 0, "and refuses what it cannot");
    let counted = counted(busy, "sibyl_requests_shed_total{op=\"put\"");
    assert!(counted >= shed as f64, "{counted} of {shed} are counted");
    // The line is empty: the next one is let in at once.
    busy.ask(&put(key("default", "after"), "v")).expect(204);
}
