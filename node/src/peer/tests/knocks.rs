//! A node that is no peer gets one answer, and nothing else.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::limits::MAX_VISITS;
use super::super::wire::{Kind, Out, Stamp};
use super::super::{KnockError, MAX_BODY_BYTES, MAX_KNOCK_BYTES, handshake, knock, visit, wire};
use super::node::{Node, id, limited};

#[tokio::test]
async fn one_question_and_one_answer_without_a_session() {
    let a = Node::echo("a").await;
    *a.banned.lock().expect("not poisoned") = Some(id("b"));
    let (head, body) = limited(knock(&a.addr, Bytes::from_static(b"may I?")))
        .await
        .expect("answered, banned or not: it is no peer");
    assert_eq!((&head[..], &body[..]), (&b"b"[..], &b"may I?"[..]));
    assert!(a.net.peers().is_empty());
}

#[tokio::test]
async fn a_knock_is_short() {
    let a = Node::echo("a").await;
    let long = Bytes::from(vec![0; MAX_KNOCK_BYTES]);
    limited(knock(&a.addr, long)).await.expect("just fits");
    let longer = Bytes::from(vec![0; MAX_KNOCK_BYTES + 1]);
    let error = limited(knock(&a.addr, longer)).await.expect_err("too long");
    assert_eq!(error, KnockError::TooLong(MAX_KNOCK_BYTES + 1));
}

#[tokio::test]
async fn nobody_there_is_said() {
    let gone = Node::echo("a").await;
    let addr = gone.addr.clone();
    limited(gone.net.shutdown()).await;
    drop(gone);
    let error = limited(knock(&addr, Bytes::new())).await.expect_err("gone");
    assert!(matches!(error, KnockError::Silent(_)), "{error:?}");
}

/// Who knocks and goes on as if it had a session is not read any more.
#[tokio::test]
async fn what_follows_a_knock_is_never_handled() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let a = Node::start(
        super::node::identity("a"),
        super::node::options(),
        "127.0.0.1:0",
        move |_, incoming, reply| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            reply.answer(incoming.head, incoming.body, 3);
        },
    )
    .await;
    let mut stream = TcpStream::connect(&a.addr).await.expect("it listens");
    let ask: (handshake::Versions, Vec<u8>) = (handshake::VERSIONS, b"x".to_vec());
    let stamp = Stamp {
        version: 1,
        session: 0,
    };
    let mut bytes = BytesMut::new();
    let knock = handshake::frame(Kind::Knock, &ask, 0);
    wire::encode(&knock, stamp, Instant::now(), &mut bytes);
    let request = Out::bare(Kind::Request, 1, 0);
    wire::encode(&request, stamp, Instant::now(), &mut bytes);
    stream.write_all(&bytes).await.expect("written");
    let mut said = BytesMut::new();
    let ended =
        limited(async { while stream.read_buf(&mut said).await.is_ok_and(|read| read > 0) {} });
    ended.await;
    let first = wire::decode(&mut said, 4096).expect("a frame");
    assert_eq!(first.map(|frame| frame.kind), Some(Kind::Answer));
    assert!(said.is_empty(), "nothing behind it");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_visit_asks_on_and_brings_more_than_a_knock() {
    let a = Node::echo("a").await;
    let ask = Bytes::from_static(b"visit");
    let (first, mut visit) = limited(visit(&a.addr, ask)).await.expect("answered");
    assert_eq!(&first.1[..], b"visit");
    for (head, size) in [("one", 0), ("two", 3 << 20), ("three", 5)] {
        let body = Bytes::from(vec![7; size]);
        let asked = limited(visit.ask(head.into(), body.clone())).await;
        let (said, brought) = asked.expect("answered");
        assert_eq!(said, format!("visit {head}"));
        assert_eq!(brought, body);
    }
    let longest = Bytes::from(vec![0; MAX_BODY_BYTES + 1]);
    let asked = limited(visit.ask(Bytes::new(), longest)).await;
    assert!(matches!(asked, Err(KnockError::TooLong(_))), "{asked:?}");
    assert!(a.net.peers().is_empty(), "nobody became a peer by it");
}

#[tokio::test]
async fn few_visit_at_a_time_and_a_closing_node_ends_them() {
    let a = Node::echo("a").await;
    let ask = || Bytes::from_static(b"visit");
    let mut visits = Vec::new();
    for _ in 0..MAX_VISITS {
        visits.push(limited(visit(&a.addr, ask())).await.expect("room").1);
    }
    let error = limited(visit(&a.addr, ask())).await.expect_err("full");
    assert!(
        matches!(&error, KnockError::Refused(why) if why.starts_with("full")),
        "{error:?}"
    );
    limited(knock(&a.addr, Bytes::from_static(b"may I?")))
        .await
        .expect("who only knocks has room");
    limited(a.net.shutdown()).await;
    let mut last = visits.remove(0);
    let asked = limited(last.ask(Bytes::new(), Bytes::new())).await;
    assert!(asked.is_err(), "{asked:?}");
}
