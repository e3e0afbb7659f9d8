//! A node for tests: an identity, a transport and a service whose handler is a closure.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sibyl_core::id::{Digest, NodeId};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::super::{
    Answer, CallError, Identity, Incoming, Knocked, Net, Options, Outgoing, PeerView, Remote,
    Responder, Service,
};

/// No test waits longer for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

type Handler = dyn Fn(&Remote, Incoming, Responder) + Send + Sync;

struct Closure {
    handler: Box<Handler>,
    banned: Arc<Mutex<Option<NodeId>>>,
}

impl Service for Closure {
    fn handle(&self, from: &Remote, incoming: Incoming, reply: Responder) {
        (self.handler)(from, incoming, reply);
    }

    fn admit(&self, remote: &Identity) -> Result<(), String> {
        match &*self.banned.lock().expect("not poisoned") {
            Some(banned) if *banned == remote.node_id => Err(format!("{banned} was removed")),
            _ => Ok(()),
        }
    }

    /// Says who was banned, and what was asked.
    fn knocked(&self, ask: Bytes) -> Knocked {
        let banned = self.banned.lock().expect("not poisoned").clone();
        let head = banned.map_or_else(|| "nobody".to_owned(), |banned| banned.to_string());
        Box::pin(std::future::ready((head.into(), ask)))
    }

    fn visits(&self, ask: &Bytes) -> bool {
        &ask[..] == b"visit"
    }

    /// Says what began the visit, and what was brought.
    fn visited(&self, ask: Bytes, head: Bytes, body: Bytes) -> Knocked {
        let said = [&ask[..], b" ", &head[..]].concat();
        Box::pin(std::future::ready((said.into(), body)))
    }
}

/// A node under test.
pub(super) struct Node {
    pub(super) net: Net,
    pub(super) addr: String,
    pub(super) banned: Arc<Mutex<Option<NodeId>>>,
}

pub(super) fn id(name: &str) -> NodeId {
    name.parse().expect("a good node id")
}

pub(super) fn identity(name: &str) -> Identity {
    Identity {
        cluster_id: "test".to_owned(),
        node_id: id(name),
        store: 1,
        incarnation: 1,
        lineage: Some(Digest([1; 32])),
        url: format!("http://{name}.example"),
    }
}

pub(super) fn options() -> Options {
    Options {
        allow_cuts: true,
        ..Options::new(StdRng::seed_from_u64(7))
    }
}

/// Answers with what was asked.
pub(super) fn echo(_: &Remote, incoming: Incoming, reply: Responder) {
    reply.answer(incoming.head, incoming.body, 3);
}

impl Node {
    pub(super) async fn start(
        identity: Identity,
        options: Options,
        addr: &str,
        handler: impl Fn(&Remote, Incoming, Responder) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the port is free");
        let addr = listener.local_addr().expect("it is bound").to_string();
        let banned = Arc::default();
        let service = Arc::new(Closure {
            handler: Box::new(handler),
            banned: Arc::clone(&banned),
        });
        let net = Net::start(identity, listener, service, options).expect("it starts");
        Self { net, addr, banned }
    }

    /// An echoing node.
    pub(super) async fn echo(name: &str) -> Self {
        Self::start(identity(name), options(), "127.0.0.1:0", echo).await
    }

    pub(super) fn knows(&self, name: &str, other: &Self) {
        self.net.set_peer(id(name), other.addr.clone());
    }

    pub(super) fn peer(&self, name: &str) -> PeerView {
        let peers = self.net.peers();
        let peer = peers.into_iter().find(|peer| peer.node_id == id(name));
        peer.expect("a known peer")
    }

    /// Waits until the view of a peer is as wanted.
    pub(super) async fn until(&self, name: &str, wanted: impl Fn(&PeerView) -> bool) -> PeerView {
        let mut changes = self.net.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let peer = self.peer(name);
                if wanted(&peer) {
                    return peer;
                }
                changes.changed().await.expect("the node lives");
            }
        };
        match timeout(LIMIT, waiting).await {
            Ok(peer) => peer,
            Err(_) => panic!("never as wanted: {:?}", self.peer(name)),
        }
    }

    pub(super) async fn call(&self, name: &str, body: &[u8]) -> Result<Answer, CallError> {
        limited(self.net.call(&id(name), request(body))).await
    }
}

pub(super) fn request(body: &[u8]) -> Outgoing {
    Outgoing {
        head: Bytes::from_static(b"head"),
        body: Bytes::copy_from_slice(body),
        timeout: LIMIT,
        registry: 5,
        span: None,
    }
}

/// A future that must not take for ever.
pub(super) async fn limited<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it ends in time")
}
