//! Calls and answers: content, order, concurrency, deadlines, failure, restart, shutdown.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sibyl_core::id::Trace;
use tokio::sync::mpsc;

use super::super::{
    Answer, CallError, MAX_BODY_BYTES, MAX_HEAD_BYTES, Options, Outgoing, Reason, Responder, Sent,
};
use super::node::{Node, echo, id, identity, limited, options, request};

/// A node that hands its requests to the test.
async fn held(name: &str) -> (Node, mpsc::UnboundedReceiver<(Bytes, Responder)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let node = Node::start(
        identity(name),
        options(),
        "127.0.0.1:0",
        move |_, incoming, reply| {
            // The receiver lives as long as its test.
            let _gone = sender.send((incoming.body, reply));
        },
    );
    (node.await, receiver)
}

fn check_error(got: Result<Answer, CallError>, reason: &str, sent: Sent) {
    let err = got.expect_err("must fail");
    assert!(
        err.to_string().contains(reason),
        "{err:?} is not {reason:?}"
    );
    assert_eq!(err.sent, sent, "{err:?}");
}

#[tokio::test]
async fn everything_arrives() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let b = Node::start(
        identity("b"),
        options(),
        "127.0.0.1:0",
        move |from, incoming, reply| {
            let seen = (
                from.identity.clone(),
                incoming.registry,
                incoming.span,
                incoming.head.clone(),
            );
            sender.send(seen).expect("the test listens");
            echo(from, incoming, reply);
        },
    );
    let (a, b) = (Node::echo("a").await, b.await);
    a.knows("b", &b);
    let span = Some(Trace([4; 26]));
    let body = Bytes::from(vec![9; 5 << 20]);
    let outgoing = Outgoing {
        span,
        body: body.clone(),
        ..request(b"")
    };
    let answer = limited(a.net.call(&id("b"), outgoing))
        .await
        .expect("an answer");
    assert_eq!((&answer.head[..], answer.registry), (&b"head"[..], 3));
    assert!(answer.body == body, "5 MiB come back as they went");
    let seen = receiver.recv().await.expect("it was handled");
    assert_eq!(seen, (identity("a"), 5, span, Bytes::from_static(b"head")));
    assert_eq!(b.net.registry_seen().borrow().number, 5);
    assert_eq!(a.net.registry_seen().borrow().number, 3);
    assert_eq!(a.net.registry_seen().borrow().from, Some(id("b")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_under_concurrency_both_ways() {
    let (a, b) = (Node::echo("a").await, Node::echo("b").await);
    a.knows("b", &b);
    b.knows("a", &a);
    let calls = (0..2000_u32).map(|n| {
        let (from, to) = if n % 2 == 0 { (&a, "b") } else { (&b, "a") };
        let size = if n % 100 == 0 {
            200_000
        } else {
            n as usize % 3000
        };
        let mut body = vec![n as u8; size];
        body.extend_from_slice(&n.to_le_bytes());
        async move {
            let answer = from.call(to, &body).await.expect("an answer");
            assert!(answer.body == body, "call {n} got another call's answer");
        }
    });
    join_all(calls).await;
    let peer = a.peer("b");
    assert_eq!((peer.calls, peer.in_flight_bytes, peer.queued), (0, 0, 0));
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let calls: Vec<_> = (0..50_u8)
        .map(|n| a.net.call(&id("b"), request(&[n])))
        .collect();
    let mut held = Vec::new();
    while held.len() < 50 {
        held.push(limited(requests.recv()).await.expect("b lives"));
    }
    for (body, reply) in held.into_iter().rev() {
        reply.answer(Bytes::new(), body, 0);
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(limited(call).await.expect("an answer").body[0] as usize, n);
    }
}

#[tokio::test]
async fn every_responder_replies_once() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let reply = async |act: fn(Responder)| {
        let call = a.net.call(&id("b"), request(b"x"));
        let (_, responder) = limited(requests.recv()).await.expect("b lives");
        act(responder);
        limited(call).await
    };
    let mut reply = reply;
    check_error(reply(drop).await, "dropped without an answer", Sent::Maybe);
    check_error(
        reply(|r| r.fail("no such thing")).await,
        "no such thing",
        Sent::Maybe,
    );
    check_error(reply(Responder::shed).await, "overloaded", Sent::No);
    let large = reply(|r| r.answer(Bytes::new(), Bytes::from(vec![0; MAX_BODY_BYTES + 1]), 0));
    check_error(large.await, "over the limit", Sent::Maybe);
    assert!(
        reply(|r| r.answer(Bytes::new(), Bytes::new(), 0))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_panicking_handler_answers_and_the_connection_stays() {
    let b = Node::start(
        identity("b"),
        options(),
        "127.0.0.1:0",
        |from, incoming, reply| {
            assert!(incoming.body[..] != *b"bug", "a bug in a handler");
            echo(from, incoming, reply);
        },
    );
    let (a, b) = (Node::echo("a").await, b.await);
    a.knows("b", &b);
    check_error(
        a.call("b", b"bug").await,
        "dropped without an answer",
        Sent::Maybe,
    );
    let session = a.peer("b").session;
    a.call("b", b"fine").await.expect("an answer");
    assert_eq!(a.peer("b").session, session);
}

#[tokio::test]
async fn deadlines_hold_on_both_sides() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    a.until("b", |peer| peer.connected).await;
    let timeout = Duration::from_millis(30);
    let short = Outgoing {
        timeout,
        ..request(b"short")
    };
    let call = a.net.call(&id("b"), short);
    let (_, reply) = limited(requests.recv()).await.expect("b lives");
    check_error(limited(call).await, "no answer in time", Sent::Maybe);
    assert!(reply.deadline() <= tokio::time::Instant::now() + timeout);
    while tokio::time::Instant::now() < reply.deadline() {
        tokio::task::yield_now().await;
    }
    let before = a.peer("b").received_bytes;
    reply.answer(Bytes::new(), Bytes::from(vec![0; 100_000]), 0);
    let next = a.net.call(&id("b"), request(b"next"));
    let (body, reply) = limited(requests.recv()).await.expect("b lives");
    reply.answer(Bytes::new(), body, 0);
    limited(next).await.expect("the late answer harms nothing");
    assert!(
        a.peer("b").received_bytes < before + 100_000,
        "the late answer was not sent"
    );
}

#[tokio::test]
async fn a_call_that_was_given_up_is_forgotten() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let call = a.net.call(&id("b"), request(b"first"));
    let (_, late) = limited(requests.recv()).await.expect("b lives");
    drop(call);
    assert_eq!(a.peer("b").in_flight_bytes, 0);
    let second = a.net.call(&id("b"), request(b"second"));
    let (_, reply) = limited(requests.recv()).await.expect("b lives");
    late.answer(Bytes::new(), Bytes::from_static(b"late"), 0);
    reply.answer(Bytes::new(), Bytes::from_static(b"right"), 0);
    assert_eq!(
        limited(second).await.expect("an answer").body,
        &b"right"[..]
    );
}

#[tokio::test]
async fn what_certainly_did_not_go_out_says_so() {
    let a = Node::echo("a").await;
    check_error(a.call("b", b"").await, "not a known peer", Sent::No);
    // Port 1 of the loopback address: nobody listens there.
    a.net.set_peer(id("b"), "127.0.0.1:1".to_owned());
    check_error(a.call("b", b"").await, "unreachable", Sent::No);
    let head = Bytes::from(vec![0; MAX_HEAD_BYTES + 1]);
    let large = a.net.call(
        &id("b"),
        Outgoing {
            head,
            ..request(b"")
        },
    );
    check_error(limited(large).await, "over the limit", Sent::No);
}

#[tokio::test]
async fn a_restarted_peer_is_found_again() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let call = a.net.call(&id("b"), request(b"x"));
    let _held = limited(requests.recv()).await.expect("b lives");
    let before = a.peer("b").session;
    let addr = b.addr.clone();
    drop(b);
    let err = limited(call).await.expect_err("the connection is lost");
    assert!(matches!(err.reason, Reason::Lost(_)), "{err:?}");
    assert_eq!(err.sent, Sent::Maybe);
    a.until("b", |peer| !peer.connected && !peer.reachable)
        .await;
    let mut again = identity("b");
    again.incarnation = 2;
    let fresh = Options {
        rng: StdRng::seed_from_u64(8),
        ..options()
    };
    let b = Node::start(again, fresh, &addr, echo).await;
    let peer = a.until("b", |peer| peer.connected).await;
    assert_ne!(peer.session, before, "a new session");
    assert_eq!(peer.identity.expect("proved").incarnation, 2);
    a.call("b", b"again").await.expect("an answer");
    drop(b);
}

#[tokio::test]
async fn a_shutdown_drains() {
    let (b, mut requests) = held("b").await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let call = a.net.call(&id("b"), request(b"x"));
    let (body, reply) = limited(requests.recv()).await.expect("b lives");
    let net = b.net.clone();
    let closing = tokio::spawn(async move { net.shutdown().await });
    // New requests are turned away, certain not to be handled; the old one is still answered.
    let refused = loop {
        let asked = a.net.call(&id("b"), request(b"y"));
        tokio::select! {
            refused = asked => break refused,
            _handled_before_the_drain = requests.recv() => {}
        }
    };
    check_error(refused, "shutting down", Sent::No);
    assert!(!closing.is_finished(), "it waits for the answer");
    reply.answer(Bytes::new(), body, 0);
    assert_eq!(limited(call).await.expect("an answer").body, &b"x"[..]);
    limited(closing).await.expect("it ends");
    a.until("b", |peer| !peer.connected).await;
    check_error(b.call("a", b"").await, "shutting down", Sent::No);
}

#[tokio::test]
async fn a_shutdown_gives_up_in_the_end() {
    let (b, mut requests) = held("b").await;
    let mut impatient = options();
    impatient.drain_timeout = Duration::from_millis(20);
    let a = Node::start(identity("a"), impatient, "127.0.0.1:0", echo).await;
    a.knows("b", &b);
    let call = a.net.call(&id("b"), request(b"x"));
    let _held = limited(requests.recv()).await.expect("b lives");
    limited(a.net.shutdown()).await;
    check_error(limited(call).await, "shutting down", Sent::Maybe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_silent_peer_is_not_reachable_and_comes_back() {
    // A handler that blocks its connection stands for a paused process: pings stay unanswered.
    let (resume, paused) = std::sync::mpsc::channel::<()>();
    let paused = Mutex::new(paused);
    let b = Node::start(
        identity("b"),
        options(),
        "127.0.0.1:0",
        move |from, incoming, reply| {
            let paused = paused.lock().expect("not poisoned");
            // In place: a worker that blocks otherwise may take the timers of the whole runtime with it.
            tokio::task::block_in_place(|| paused.recv()).expect("the test resumes it");
            echo(from, incoming, reply);
        },
    );
    let mut quick = options();
    quick.ping_every = Duration::from_millis(10);
    quick.probe_timeout = Duration::from_millis(200);
    let a = Node::start(identity("a"), quick, "127.0.0.1:0", echo).await;
    let b = b.await;
    a.knows("b", &b);
    let session = a.until("b", |peer| peer.reachable).await.session;
    let call = a.net.call(&id("b"), request(b"x"));
    a.until("b", |peer| !peer.reachable && peer.connected).await;
    assert!(!a.net.is_reachable(&id("b")));
    resume.send(()).expect("b lives");
    limited(call).await.expect("an answer");
    let peer = a.until("b", |peer| peer.reachable).await;
    assert_eq!(
        peer.session, session,
        "silence alone for a while does not close the link"
    );
}
