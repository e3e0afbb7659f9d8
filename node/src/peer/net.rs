//! The node's door to its peers: calls out, requests in, and how each link stands.
//!
//! [`Net`] is a handle; its clones share one transport, which ends when the last of them is dropped or with
//! [`Net::shutdown`] (a service that keeps a handle of its own needs the latter). It knows peers only by what
//! it is told ([`Net::set_peer`]): membership and placement are decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use sibyl_core::id::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::client;
use super::error::Reason;
use super::flights::Flights;
use super::handshake::Identity;
use super::limits::{DRAIN_STEP, FAREWELL, MAX_IDENTITY_BYTES, SILENT_AFTER_PROBES};
use super::link::{Call, Link, Outgoing};
use super::pump::Close;
use super::server;
use super::service::Service;
use super::shared::Shared;
use crate::outside::Listener;

/// How a transport behaves.
#[derive(Debug)]
pub struct Options {
    /// Whether [`Net::cut`] may be used; only on a loopback address.
    pub allow_cuts: bool,
    /// Draws session numbers and the jitter of reconnects.
    pub rng: StdRng,
    /// A link that heard nothing for this long is pinged.
    pub ping_every: Duration,
    /// A peer that leaves a ping unanswered for this long is not reachable.
    pub probe_timeout: Duration,
    /// How long [`Net::shutdown`] waits for what is under way.
    pub drain_timeout: Duration,
}

impl Options {
    /// The defaults: no cuts, ping after 1 s, probe timeout 1 s, drain 10 s.
    pub fn new(rng: StdRng) -> Self {
        Self {
            allow_cuts: false,
            rng,
            ping_every: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Cuts are for demonstrations and tests on one machine.
    #[error(
        "--allow-cuts needs a loopback peer address, not {0}; listen on 127.0.0.1 or leave it out"
    )]
    CutsNeedLoopback(std::net::SocketAddr),
    /// The identity would not fit a handshake.
    #[error(
        "cluster id, node id and URL take {0} bytes together; the limit is {MAX_IDENTITY_BYTES}"
    )]
    IdentityTooLong(usize),
    /// The listener has no address.
    #[error("the peer listener has no local address: {0}")]
    Listener(#[from] std::io::Error),
}

/// A link could not be cut or healed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The node was started without `--allow-cuts`.
    #[error("links can only be cut on a node started with --allow-cuts")]
    NotAllowed,
    /// No such peer.
    #[error("{0} is not a peer of this node")]
    UnknownPeer(NodeId),
}

/// The highest registry number any peer's frame carried so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySeen {
    /// The number; 0 before any frame.
    pub number: u64,
    /// The peer that carried it first.
    pub from: Option<NodeId>,
}

/// How the link to one peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The peer.
    pub node_id: NodeId,
    /// Its peer address, `HOST:PORT`, as it was told to [`Net::set_peer`].
    pub addr: String,
    /// Our connection to it stands.
    pub connected: bool,
    /// It is connected and answered within the probe timeout.
    pub reachable: bool,
    /// The link is cut by this node.
    pub cut: bool,
    /// Milliseconds since anything came from it, on either connection.
    pub last_heard_ms: Option<u64>,
    /// Number of the session we opened.
    pub session: Option<u64>,
    /// Number of the session it opened.
    pub incoming_session: Option<u64>,
    /// Why one side last refused the other, `code: explanation`; none once connected.
    pub refused: Option<String>,
    /// The highest registry number it was heard to go by; 0 if none was.
    pub registry: u64,
    /// Who it says it is, since the last handshake.
    pub identity: Option<Identity>,
    /// Requests queued and not written.
    pub queued: usize,
    /// Calls not yet completed.
    pub calls: usize,
    /// Bytes of requests not answered and answers not taken.
    pub in_flight_bytes: usize,
    /// Bytes sent to it, on both connections.
    pub sent_bytes: u64,
    /// Bytes received from it, on both connections.
    pub received_bytes: u64,
}

/// A node's transport.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
    last: Arc<Last>,
    allow_cuts: bool,
    drain_timeout: Duration,
}

/// Ends the transport with its last handle.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        close(&self.0);
        let mut tasks = self
            .0
            .tasks
            .lock()
            .expect("nothing panics while it holds the tasks");
        tasks.abort_all();
    }
}

fn close(shared: &Shared) {
    shared.closing.store(true, Ordering::Release);
    for link in shared.links() {
        link.remove(&Reason::Closing, &Close::Shutdown);
    }
    for session in shared.sessions() {
        session.outbox.close(Close::Shutdown, false);
    }
}

impl Net {
    /// Starts to listen. Must be called within a tokio runtime.
    pub fn start(
        identity: Identity,
        listener: impl Into<Listener>,
        service: Arc<dyn Service>,
        options: Options,
    ) -> Result<Self, StartError> {
        let listener = listener.into();
        let addr = listener.local_addr()?;
        if options.allow_cuts && !addr.ip().is_loopback() {
            return Err(StartError::CutsNeedLoopback(addr));
        }
        let said = identity.cluster_id.len() + identity.node_id.as_str().len() + identity.url.len();
        if said > MAX_IDENTITY_BYTES {
            return Err(StartError::IdentityTooLong(said));
        }
        let (allow_cuts, drain_timeout) = (options.allow_cuts, options.drain_timeout);
        let silent_after = SILENT_AFTER_PROBES * (options.ping_every + options.probe_timeout);
        let shared = Arc::new(Shared::new(identity, service, options));
        shared.spawn(server::listen(listener, Arc::clone(&shared)));
        shared.spawn(server::sweep(Arc::clone(&shared), silent_after));
        Ok(Self {
            last: Arc::new(Last(Arc::clone(&shared))),
            shared,
            allow_cuts,
            drain_timeout,
        })
    }

    /// Learns a peer, or its new address (`HOST:PORT`; a name is resolved on every dial), and dials it. A
    /// standing connection stays. The node's own id is ignored.
    pub fn set_peer(&self, node: NodeId, addr: String) {
        if node == self.shared.identity().node_id {
            return;
        }
        let mut links = self
            .shared
            .links
            .write()
            .expect("nobody panics while writing it");
        if let Some(link) = links.get(&node) {
            let moved = std::mem::replace(&mut link.lock().addr, addr.clone()) != addr;
            if moved && !self.shared.is_cut(&node) {
                link.reopen();
            }
            return;
        }
        let known = self.shared.session(&node);
        let meters = known.map(|session| Arc::clone(&session.meters));
        let link = Arc::new(Link::new(node.clone(), addr, meters.unwrap_or_default()));
        if self.shared.is_cut(&node) {
            link.shut(&Reason::Cut, &Close::Cut);
        }
        links.insert(node, Arc::clone(&link));
        drop(links);
        self.shared
            .spawn(client::run(Arc::clone(&link), Arc::clone(&self.shared)));
        self.shared
            .spawn(client::keep(link, Arc::clone(&self.shared)));
        self.shared.note_change();
    }

    /// Forgets a peer: calls to it fail, and its connections end. Whether it may come back in is up to
    /// [`Service::admit`].
    pub fn remove_peer(&self, node: &NodeId) {
        let mut links = self
            .shared
            .links
            .write()
            .expect("nobody panics while writing it");
        let removed = links.remove(node);
        drop(links);
        if let Some(link) = removed {
            let reason = Reason::Unreachable(format!("{node} was removed"));
            link.remove(&reason, &Close::Removed);
        }
        if let Some(session) = self.shared.session(node) {
            session.outbox.close(Close::Removed, true);
        }
        self.shared.note_change();
    }

    /// Sends a request. It is entered at once, before the future is polled, unless the peer is unknown or
    /// not connected, or too much is under way to it: then the error says that nothing was sent. A peer
    /// that is being dialled for the first time is waited for within the timeout. Dropping the future gives
    /// the call up.
    pub fn call(&self, node: &NodeId, outgoing: Outgoing) -> Call {
        if self.shared.is_closing() {
            return Call::failed(Reason::Closing);
        }
        match self.shared.link(node) {
            Some(link) => link.call(outgoing),
            None => Call::failed(Reason::Unreachable(format!("{node} is not a known peer"))),
        }
    }

    /// Whether the peer is connected and answered within the probe timeout. One lookup and one load.
    pub fn is_reachable(&self, node: &NodeId) -> bool {
        let link = self.shared.link(node);
        link.is_some_and(|link| link.reachable.load(Ordering::Acquire))
    }

    /// What is under way on this node, by epoch.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.shared.flights
    }

    /// Peers that may still act on something that was sent to them, and the epoch of the oldest such message.
    pub fn unsettled(&self) -> BTreeMap<NodeId, u64> {
        let links = self.shared.links();
        let oldest = |link: &Arc<Link>| Some((link.node.clone(), link.lock().sent.oldest()?));
        links.iter().filter_map(oldest).collect()
    }

    /// The number of the session that stands with a peer, opened by this node.
    pub fn session(&self, node: &NodeId) -> Option<u64> {
        self.shared.link(node)?.lock().session
    }

    /// A peer said in this session that nothing of earlier ones is left with it. Void if another one stands now.
    pub fn settle(&self, node: &NodeId, session: u64) {
        if let Some(link) = self.shared.link(node) {
            let mut state = link.lock();
            if state.session == Some(session) {
                state.sent.settled();
            }
        }
    }

    /// Whether nothing is left here of a peer's sessions but this one: no connection, and no request of one that is
    /// not answered.
    pub fn has_only(&self, node: &NodeId, session: u64) -> bool {
        let held = self.shared.held(node);
        held.into_iter().all(|number| number == session)
    }

    /// Every node of whose sessions something is left.
    pub fn callers(&self) -> BTreeSet<NodeId> {
        self.shared.holders()
    }

    /// Changes when a peer connects, disconnects, is refused, or its reachability changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The highest registry number seen from peers, as it rises.
    pub fn registry_seen(&self) -> watch::Receiver<RegistrySeen> {
        self.shared.seen.subscribe()
    }

    /// The number that pings, handshakes and errors carry.
    pub fn set_registry(&self, number: u64) {
        self.shared.registry.store(number, Ordering::Relaxed);
    }

    /// Who this node says it is.
    pub fn identity(&self) -> Identity {
        (*self.shared.identity()).clone()
    }

    /// Changes who this node says it is (its lineage became known) and tells every connected peer, which
    /// judges it again. The node id must stay.
    pub fn set_identity(&self, identity: Identity) {
        self.shared.set_identity(identity);
    }

    /// Cuts or heals the link to a peer. A cut closes both connections, fails the calls under way and
    /// refuses the peer, in both directions, until it is healed here.
    pub fn cut(&self, node: &NodeId, cut: bool) -> Result<(), CutError> {
        if !self.allow_cuts {
            return Err(CutError::NotAllowed);
        }
        let link = self.shared.link(node);
        let link = link.ok_or_else(|| CutError::UnknownPeer(node.clone()))?;
        let mut cuts = self
            .shared
            .cuts
            .write()
            .expect("nobody panics while writing it");
        let changed = if cut {
            cuts.insert(node.clone())
        } else {
            cuts.remove(node)
        };
        drop(cuts);
        if changed && cut {
            link.shut(&Reason::Cut, &Close::Cut);
            if let Some(session) = self.shared.session(node) {
                session.outbox.close(Close::Cut, true);
            }
        } else if changed {
            link.reopen();
        }
        self.shared.note_change();
        Ok(())
    }

    /// Every known peer, by node id.
    pub fn peers(&self) -> Vec<PeerView> {
        let links = self.shared.links();
        let mut peers: Vec<_> = links.iter().map(|link| self.view(link)).collect();
        peers.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        peers
    }

    fn view(&self, link: &Link) -> PeerView {
        let incoming = self.shared.session(&link.node);
        let heard_in = incoming
            .as_ref()
            .map_or(0, |session| session.heard_ms.load(Ordering::Relaxed));
        let heard = link.heard_ms.load(Ordering::Relaxed).max(heard_in);
        let queued = link.queued();
        let state = link.lock();
        PeerView {
            node_id: link.node.clone(),
            addr: state.addr.clone(),
            connected: state.session.is_some(),
            reachable: link.reachable.load(Ordering::Acquire),
            cut: self.shared.is_cut(&link.node),
            last_heard_ms: (heard > 0).then(|| self.shared.now_ms().saturating_sub(heard)),
            session: state.session,
            incoming_session: incoming.map(|session| session.number),
            refused: state.refused.clone(),
            registry: link.registry.load(Ordering::Relaxed),
            identity: state.identity.clone(),
            queued,
            calls: state.calls.len(),
            in_flight_bytes: state.calls.bytes(),
            sent_bytes: link.meters.sent.load(Ordering::Relaxed),
            received_bytes: link.meters.received.load(Ordering::Relaxed),
        }
    }

    /// Takes no new calls or requests (peers are told that they certainly were not handled), waits up to the
    /// drain timeout for those under way, and closes.
    pub async fn shutdown(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let until = Instant::now() + self.drain_timeout;
        // A drain that takes too long is given up: what is under way fails.
        let _drained = timeout_at(until, self.drained()).await;
        close(&self.last.0);
        let tasks = {
            let mut tasks = self
                .shared
                .tasks
                .lock()
                .expect("nothing panics while it holds the tasks");
            std::mem::take(&mut *tasks)
        };
        let mut tasks = tasks;
        let until = Instant::now() + FAREWELL;
        while let Ok(Some(_)) = timeout_at(until, tasks.join_next()).await {}
        tasks.shutdown().await;
    }

    async fn drained(&self) {
        loop {
            let calls: usize = self
                .shared
                .links()
                .iter()
                .map(|link| link.lock().calls.len())
                .sum();
            let idle = self
                .shared
                .sessions()
                .iter()
                .all(|session| session.is_idle());
            if calls == 0 && idle {
                return;
            }
            sleep(DRAIN_STEP).await;
        }
    }
}
