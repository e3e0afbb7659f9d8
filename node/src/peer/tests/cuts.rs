//! Cutting and healing one link.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::{
    CutError, Identity, Incoming, Knocked, Net, Options, Reason, Remote, Responder, Sent, Service,
    StartError,
};
use super::node::{Node, echo, id, identity, limited, options, request};

/// A service that is never asked anything.
struct Deaf;

impl Service for Deaf {
    fn handle(&self, _: &Remote, _: Incoming, _: Responder) {}

    fn admit(&self, _: &Identity) -> Result<(), String> {
        Ok(())
    }

    fn knocked(&self, ask: Bytes) -> Knocked {
        Box::pin(std::future::ready((ask, Bytes::new())))
    }
}

async fn pair() -> (Node, Node) {
    let (a, b) = (Node::echo("a").await, Node::echo("b").await);
    a.knows("b", &b);
    b.knows("a", &a);
    a.until("b", |peer| {
        peer.connected && peer.incoming_session.is_some()
    })
    .await;
    b.until("a", |peer| {
        peer.connected && peer.incoming_session.is_some()
    })
    .await;
    (a, b)
}

#[tokio::test]
async fn a_cut_on_one_side_stops_both_directions_until_it_is_healed() {
    let (a, b) = pair().await;
    let c = Node::echo("c").await;
    b.knows("c", &c);
    a.net.cut(&id("b"), true).expect("allowed");
    let view = a.until("b", |peer| peer.incoming_session.is_none()).await;
    assert!(view.cut && !view.connected && !view.reachable, "{view:?}");
    let refused = b
        .until("a", |peer| peer.refused.is_some() && !peer.connected)
        .await;
    assert!(refused.refused.expect("refused").starts_with("cut:"));
    for (node, peer) in [(&a, "b"), (&b, "a")] {
        let err = node.call(peer, b"x").await.expect_err("cut");
        assert_eq!((err.reason, err.sent), (Reason::Cut, Sent::No));
    }
    b.call("c", b"x").await.expect("other links stay");
    a.net.cut(&id("b"), false).expect("allowed");
    a.call("b", b"x")
        .await
        .expect("healed: the call waits for the connection");
    b.until("a", |peer| peer.connected && peer.refused.is_none())
        .await;
    b.call("a", b"x").await.expect("healed");
}

#[tokio::test]
async fn a_link_cut_on_both_sides_heals_when_both_heal() {
    let (a, b) = pair().await;
    a.net.cut(&id("b"), true).expect("allowed");
    b.net.cut(&id("a"), true).expect("allowed");
    a.net.cut(&id("b"), false).expect("allowed");
    let err = a.call("b", b"x").await.expect_err("still cut over there");
    assert_eq!((err.reason, err.sent), (Reason::Cut, Sent::No));
    b.net.cut(&id("a"), false).expect("allowed");
    a.until("b", |peer| peer.connected).await;
    b.until("a", |peer| peer.connected).await;
}

#[tokio::test]
async fn calls_under_way_learn_of_the_cut() {
    let (sender, mut held) = mpsc::unbounded_channel();
    let holding = move |_: &Remote, _: Incoming, reply: Responder| {
        // The receiver lives as long as its test.
        let _gone = sender.send(reply);
    };
    let b = Node::start(identity("b"), options(), "127.0.0.1:0", holding).await;
    let a = Node::echo("a").await;
    a.knows("b", &b);
    let call = a.net.call(&id("b"), request(b"x"));
    let _reply = limited(held.recv()).await.expect("b lives");
    a.net.cut(&id("b"), true).expect("allowed");
    let err = limited(call).await.expect_err("cut");
    assert_eq!((err.reason, err.sent), (Reason::Cut, Sent::Maybe));
}

#[tokio::test]
async fn cuts_are_for_those_who_asked() {
    let a = Node::start(
        identity("a"),
        Options {
            allow_cuts: false,
            ..options()
        },
        "127.0.0.1:0",
        echo,
    );
    let a = a.await;
    assert_eq!(a.net.cut(&id("b"), true), Err(CutError::NotAllowed));
    let a = Node::echo("a").await;
    assert_eq!(
        a.net.cut(&id("b"), true),
        Err(CutError::UnknownPeer(id("b")))
    );
    let open = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let started = Net::start(identity("a"), open, Arc::new(Deaf), options());
    assert!(matches!(started, Err(StartError::CutsNeedLoopback(_))));
}
