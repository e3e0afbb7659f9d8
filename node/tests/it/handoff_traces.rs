//! The trace of a write that a fallback kept, and of its delivery: two traces, and a link from one to the other.

use crate::ask::{get, key, put};
use crate::nodes::{Cluster, Node, until};
use crate::otlp::{ExportedSpan, Receiver, attribute};

/// One owner of three is away: the trace of a write, and the owner.
fn play(endpoint: &str) -> (String, String) {
    let endpoint = format!("--otlp-endpoint={endpoint}");
    let mut cluster = Cluster::plan(4, &["--partitions=16", &endpoint]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let names = (0..1000).map(|at| format!("traced-{at}"));
    let mut placed = names.map(|name| (cluster.owners("default", &name), name));
    let (owners, name) = placed
        .find(|(nodes, _)| nodes[0] == "n1")
        .expect("n1 is first somewhere");
    let path = key("default", &name);
    let owner = owners[2].clone();
    let at = cluster.nodes.iter().position(|node| node.id == owner);
    let at = at.expect("a member");
    cluster.nodes[at].kill();
    cluster.wait_whole();
    let written = cluster.nodes[0].ask(&put(format!("{path}?w=all"), "kept"));
    let written = written.expect(204);
    assert_eq!(written.header("sibyl-acks"), "owners=2 fallbacks=1");
    cluster.nodes[at].start();
    cluster.wait_whole();
    let fallback = cluster.node(&owners[3]);
    until("the hint is delivered", || {
        let body = fallback.ask(&get("/v1/cluster/handoff")).expect(200).json();
        match body["hints"].as_array() {
            Some(hints) if hints.is_empty() => Ok(()),
            _ => Err(body.to_string()),
        }
    });
    // Stopped in order, every node sends what it has.
    cluster.nodes.iter_mut().for_each(|node| {
        node.terminate();
    });
    (written.header("sibyl-trace-id").to_owned(), owner)
}

fn said(span: &ExportedSpan, name: &str) -> String {
    attribute(&span.attributes, name).unwrap_or_else(|| panic!("{name} of {span:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_links_to_the_write_that_it_carries() {
    let receiver = Receiver::grpc().await;
    let endpoint = receiver.endpoint.clone();
    let (trace, owner) = tokio::task::spawn_blocking(move || play(&endpoint))
        .await
        .expect("the scene is played");
    // The target may be heard of before it serves: then a first try fails, and the hint stays.
    let delivered = |span: &ExportedSpan| {
        span.name == "hint.replay"
            && attribute(&span.attributes, "sibyl.hint.result").as_deref() == Some("delivered")
    };
    let spans = receiver.wait(|spans| spans.iter().any(delivered)).await;
    let of_write = |name: &str| {
        let mut found = spans.iter();
        let found = found.find(|span| span.trace_id == trace && span.name == name);
        found.unwrap_or_else(|| panic!("{name} of the write"))
    };
    let (quorum, store) = (of_write("quorum.write"), of_write("hint.store"));
    assert_eq!(store.parent_span_id, quorum.span_id);
    assert_eq!(said(store, "sibyl.hint.target"), owner);
    assert_eq!(said(store, "sibyl.hint.result"), "stored");
    assert_eq!(said(quorum, "sibyl.quorum.sloppy"), "true");
    // On a busy machine a second fallback may have been asked for, too.
    let asked =
        |span: &&ExportedSpan| span.name == "Replica/Hint" && span.parent_span_id == store.span_id;
    assert!(spans.iter().any(|span| asked(&span)), "{spans:?}");
    let events: Vec<&str> = quorum
        .events
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert!(events.contains(&"fallback.chosen"), "{events:?}");

    let replay = spans
        .iter()
        .find(|span| delivered(span))
        .expect("waited for");
    assert_ne!(replay.trace_id, trace, "a root of its own");
    let links: Vec<_> = replay
        .links
        .iter()
        .map(|link| {
            let kind = attribute(&link.attributes, "sibyl.link.kind");
            (link.trace_id.as_str(), link.span_id.as_str(), kind)
        })
        .collect();
    let cause = (
        trace.as_str(),
        store.span_id.as_str(),
        Some("original_write".to_owned()),
    );
    assert_eq!(links, [cause]);
    assert_eq!(said(replay, "sibyl.hint.target"), owner);
    assert_eq!(said(replay, "sibyl.hint.batch.size"), "1");
    assert_eq!(said(replay, "sibyl.hint.result"), "delivered");
    let sent = spans
        .iter()
        .find(|span| span.name == "Replica/Handoff" && span.parent_span_id == replay.span_id);
    assert!(sent.is_some(), "the call that carries it");
}
