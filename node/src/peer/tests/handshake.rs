//! Who is let in: mismatches are refused by name, on both sides, and changes reach standing connections.

use sibyl_core::id::Digest;

use super::super::{Identity, PeerView, Reason, Sent};
use super::node::{Node, echo, id, identity, options};

async fn as_who(who: Identity) -> Node {
    Node::start(who, options(), "127.0.0.1:0", echo).await
}

fn says(code: &'static str) -> impl Fn(&PeerView) -> bool {
    move |peer| {
        !peer.connected
            && peer
                .refused
                .as_ref()
                .is_some_and(|why| why.starts_with(code))
    }
}

/// Two nodes that know each other refuse each other with this code, and say so on both sides.
async fn check_refused(a: Identity, b: Identity, code: &'static str) {
    let (name_a, name_b) = (a.node_id.to_string(), b.node_id.to_string());
    let (a, b) = (as_who(a).await, as_who(b).await);
    a.knows(&name_b, &b);
    b.knows(&name_a, &a);
    a.until(&name_b, says(code)).await;
    b.until(&name_a, says(code)).await;
    let err = a.call(&name_b, b"").await.expect_err("refused");
    assert!(
        matches!(&err.reason, Reason::Refused(why) if why.starts_with(code)),
        "{err:?}"
    );
    assert_eq!(err.sent, Sent::No);
}

#[tokio::test]
async fn another_cluster() {
    let mut other = identity("b");
    other.cluster_id = "other".to_owned();
    check_refused(identity("a"), other, "wrong_cluster").await;
}

#[tokio::test]
async fn another_lineage() {
    let mut other = identity("b");
    other.lineage = Some(Digest([2; 32]));
    check_refused(identity("a"), other, "wrong_lineage").await;
}

#[tokio::test]
async fn a_lineage_not_yet_known_is_let_in() {
    let mut forming = identity("b");
    forming.lineage = None;
    let (a, b) = (Node::echo("a").await, as_who(forming).await);
    a.knows("b", &b);
    a.call("b", b"x").await.expect("an answer");
}

#[tokio::test]
async fn another_node_than_the_one_dialled() {
    let (a, b) = (Node::echo("a").await, Node::echo("b").await);
    a.knows("c", &b);
    let peer = a.until("c", says("wrong_node")).await;
    let why = peer.refused.expect("refused");
    assert!(why.contains("wanted c, reached b"), "{why}");
}

#[tokio::test]
async fn a_second_node_of_the_same_name() {
    let (a, twin) = (Node::echo("a").await, Node::echo("a").await);
    a.knows("b", &twin);
    a.until("b", says("duplicate_node")).await;
    a.knows("a", &twin);
    assert_eq!(a.net.peers().len(), 1, "a node is no peer of itself");
}

#[tokio::test]
async fn the_service_has_the_last_word() {
    let (a, b) = (Node::echo("a").await, Node::echo("b").await);
    a.knows("b", &b);
    a.until("b", |peer| peer.connected).await;
    *b.banned.lock().expect("not poisoned") = Some(id("a"));
    b.net.set_peer(id("a"), a.addr.clone());
    b.net.remove_peer(&id("a"));
    let peer = a.until("b", says("not_admitted")).await;
    assert!(peer.refused.expect("refused").contains("a was removed"));
    *b.banned.lock().expect("not poisoned") = None;
    a.until("b", |peer| peer.connected && peer.refused.is_none())
        .await;
}

#[tokio::test]
async fn a_changed_identity_reaches_standing_connections() {
    let mut forming = identity("b");
    forming.lineage = None;
    let (a, b) = (Node::echo("a").await, as_who(forming.clone()).await);
    a.knows("b", &b);
    b.knows("a", &a);
    let session = a.until("b", |peer| peer.connected).await.session;
    b.until("a", |peer| peer.connected).await;
    b.net.set_identity(identity("b"));
    let knows = |peer: &PeerView| peer.identity.as_ref() == Some(&identity("b"));
    assert_eq!(a.until("b", knows).await.session, session);
    // And when it turns out to be another cluster of the same name, the link ends on both sides.
    forming.lineage = Some(Digest([9; 32]));
    b.net.set_identity(forming);
    a.until("b", says("wrong_lineage")).await;
    b.until("a", says("wrong_lineage")).await;
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older() {
    let (first, b) = (Node::echo("a").await, Node::echo("b").await);
    b.net.set_peer(id("a"), first.addr.clone());
    first.knows("b", &b);
    let before = b.until("a", |peer| peer.incoming_session.is_some()).await;
    let second = Node::echo("a").await;
    second.knows("b", &b);
    let newer = |peer: &PeerView| {
        peer.incoming_session.is_some() && peer.incoming_session != before.incoming_session
    };
    b.until("a", newer).await;
}
