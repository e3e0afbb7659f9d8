//! What a peer cannot make a node hold: too many calls, too many bytes, answers nobody reads.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::wire::Kind;
use super::super::{MAX_BODY_BYTES, MAX_CALLS, MAX_PEER_BYTES, Outgoing, Reason, Responder, Sent};
use super::hostile::{Raw, ask};
use super::node::{Node, id, identity, limited, options, request};

/// A node that keeps every request unanswered.
async fn keeper(name: &str) -> (Node, Arc<Mutex<Vec<Responder>>>) {
    let kept: Arc<Mutex<Vec<Responder>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    let node = Node::start(
        identity(name),
        options(),
        "127.0.0.1:0",
        move |_, _, reply| {
            keeping.lock().expect("not poisoned").push(reply);
        },
    );
    (node.await, kept)
}

#[tokio::test]
async fn too_many_calls_are_turned_away_at_once() {
    let (b, _kept) = keeper("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let calls: Vec<_> = (0..MAX_CALLS)
        .map(|_| a.net.call(&id("b"), request(b"x")))
        .collect();
    let err = a.call("b", b"x").await.expect_err("one too many");
    assert_eq!((err.reason, err.sent), (Reason::Overloaded, Sent::No));
    drop(calls);
    assert_eq!((a.peer("b").calls, a.peer("b").in_flight_bytes), (0, 0));
}

#[tokio::test]
async fn too_many_bytes_are_turned_away_at_once() {
    let (b, _kept) = keeper("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let body = Bytes::from(vec![0; MAX_BODY_BYTES]);
    let large = || Outgoing {
        body: body.clone(),
        ..request(b"")
    };
    let first = a.net.call(&id("b"), large());
    let err = limited(a.net.call(&id("b"), large()))
        .await
        .expect_err("68 of 64 MiB");
    assert_eq!((err.reason, err.sent), (Reason::Overloaded, Sent::No));
    assert!(a.peer("b").in_flight_bytes <= MAX_PEER_BYTES);
    // A call given up frees its share only once it is out of the queue as well.
    drop(first);
    assert_eq!(a.peer("b").in_flight_bytes, 0);
}

#[tokio::test]
async fn a_server_sheds_what_its_handlers_do_not_finish() {
    let (b, kept) = keeper("b").await;
    let mut raw = Raw::greeted("a", &b).await;
    for id in 0..=MAX_CALLS as u64 {
        raw.send(&ask(id, b"x")).await;
    }
    let frame = raw.frame().await.expect("a reply");
    assert_eq!((frame.kind, frame.id), (Kind::Error, MAX_CALLS as u64));
    assert_eq!(frame.head[..], [1]);
    assert_eq!(kept.lock().expect("not poisoned").len(), MAX_CALLS);
    let one = kept.lock().expect("not poisoned").pop().expect("kept");
    one.answer(Bytes::new(), Bytes::new(), 0);
    assert_eq!(raw.frame().await.expect("a reply").kind, Kind::Answer);
}

#[tokio::test]
async fn answers_nobody_reads_do_not_pile_up() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let b = Node::start(
        identity("b"),
        options(),
        "127.0.0.1:0",
        move |_, _, reply| {
            // The receiver lives as long as its test.
            let _gone = sender.send(reply);
        },
    );
    let b = b.await;
    let mut raw = Raw::greeted("a", &b).await;
    let body = Bytes::from(vec![0; MAX_BODY_BYTES]);
    let answers = 2 * MAX_PEER_BYTES / MAX_BODY_BYTES;
    let mut replies: Vec<Responder> = Vec::new();
    for id in 0..=answers as u64 {
        raw.send(&ask(id, b"")).await;
        replies.push(limited(requests.recv()).await.expect("b lives"));
    }
    for reply in replies {
        reply.answer(Bytes::new(), body.clone(), 0);
    }
    // Nothing was read so far: what was over the limit became an error.
    for _ in 0..answers {
        assert_eq!(
            raw.frame().await.expect("an answer").body.len(),
            MAX_BODY_BYTES
        );
    }
    let last = raw.frame().await.expect("a reply");
    assert_eq!((last.kind, &last.head[..]), (Kind::Error, &[4][..]));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_either() {
    let (b, kept) = keeper("b").await;
    let mut raw = Raw::greeted("a", &b).await;
    let body = Bytes::from(vec![0; MAX_BODY_BYTES]);
    // Two answers of 34 MiB fill the queue, so the third request stays in the socket...
    for id in 0..2 {
        raw.send(&ask(id, b"")).await;
    }
    let take = async || {
        let reply = loop {
            if let Some(reply) = kept.lock().expect("not poisoned").pop() {
                break reply;
            }
            tokio::task::yield_now().await;
        };
        reply.answer(Bytes::new(), body.clone(), 0);
    };
    limited(take()).await;
    limited(take()).await;
    raw.send(&ask(2, b"")).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(kept.lock().expect("not poisoned").is_empty());
    // ... until the first answer is read.
    assert_eq!(
        raw.frame().await.expect("an answer").body.len(),
        MAX_BODY_BYTES
    );
    limited(take()).await;
}
