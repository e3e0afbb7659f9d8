//! What all connections of a node share: who we are, whom we know, what is cut, and whether we close.
//!
//! Holds no decision of its own beyond the table of sessions and the order in which a cut, a removal or a
//! changed identity reaches connections that are just being opened: the flag first, then the connections;
//! an opening connection enters its table first and looks at the flag afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sibyl_core::id::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::flights::Flights;
use super::handshake::{self, Identity, Refusal};
use super::limits::{MAX_KNOCKS, MAX_VISITS};
use super::link::{Link, Meters};
use super::net::{Options, RegistrySeen};
use super::outbox::Outbox;
use super::pump::Close;
use super::server::Session;
use super::service::Service;
use super::wire::Kind;

/// Shared by a node's links and sessions.
pub(super) struct Shared {
    pub(super) service: Arc<dyn Service>,
    pub(super) links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) seen: watch::Sender<RegistrySeen>,
    pub(super) registry: AtomicU64,
    pub(super) closing: AtomicBool,
    pub(super) tasks: Mutex<JoinSet<()>>,
    pub(super) cuts: RwLock<BTreeSet<NodeId>>,
    /// Room for knocks that are being answered.
    pub(super) knocks: Semaphore,
    /// Room for visits.
    pub(super) visits: Semaphore,
    /// What is under way here, by epoch.
    pub(super) flights: Arc<Flights>,
    identity: RwLock<Arc<Identity>>,
    sessions: Mutex<BTreeMap<NodeId, Arc<Session>>>,
    /// Every session that something still holds: its connection, or a request of it that is not answered.
    held: Mutex<BTreeMap<NodeId, Vec<Weak<Session>>>>,
    rng: Mutex<StdRng>,
    /// What was last said about a refusal of an unknown peer; the same again is not worth a warning.
    last_refusal: Mutex<String>,
    started: Instant,
    ping_every: Duration,
    probe_timeout: Duration,
}

/// These maps hold no invariant across entries, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(identity: Identity, service: Arc<dyn Service>, options: Options) -> Self {
        Self {
            service,
            links: RwLock::default(),
            changes: watch::Sender::new(0),
            seen: watch::Sender::new(RegistrySeen::default()),
            registry: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            tasks: Mutex::new(JoinSet::new()),
            cuts: RwLock::default(),
            knocks: Semaphore::new(MAX_KNOCKS),
            visits: Semaphore::new(MAX_VISITS),
            identity: RwLock::new(Arc::new(identity)),
            sessions: Mutex::default(),
            held: Mutex::default(),
            flights: Arc::default(),
            rng: Mutex::new(options.rng),
            last_refusal: Mutex::default(),
            started: Instant::now(),
            ping_every: options.ping_every,
            probe_timeout: options.probe_timeout,
        }
    }

    /// Milliseconds since this node's transport started, from 1: a clock that fits an atomic.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(super) fn ping_every_ms(&self) -> u64 {
        u64::try_from(self.ping_every.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn probe_timeout_ms(&self) -> u64 {
        u64::try_from(self.probe_timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(
            &self
                .identity
                .read()
                .expect("nobody panics while writing it"),
        )
    }

    /// Changes who we are and tells every connection.
    pub(super) fn set_identity(&self, identity: Identity) {
        let frame = handshake::frame(Kind::Identity, &identity, self.registry());
        *self
            .identity
            .write()
            .expect("nobody panics while writing it") = Arc::new(identity);
        let sessions = self.sessions();
        let links = self.links();
        let connections = links.iter().filter_map(|link| link.connection());
        for outbox in connections {
            // A connection that is closing need not know.
            let _closing = outbox.push(frame.clone(), usize::MAX);
        }
        for session in sessions {
            let _closing = session.outbox.push(frame.clone(), usize::MAX);
        }
    }

    /// A connection entered its table: what changed while it shook hands reaches it now.
    pub(super) fn catch_up(&self, node: &NodeId, told: &Arc<Identity>, outbox: &Outbox) {
        let now = self.identity();
        if !Arc::ptr_eq(told, &now) {
            let frame = handshake::frame(Kind::Identity, &*now, self.registry());
            let _closing = outbox.push(frame, usize::MAX);
        }
        if self.is_cut(node) {
            outbox.close(Close::Cut, true);
        }
        if self.is_closing() {
            outbox.close(Close::Shutdown, false);
        }
    }

    /// Judges a peer whose identity changed; on refusal tells it and closes this connection.
    pub(super) fn rejudge(&self, node: &NodeId, theirs: &Identity, outbox: &Outbox) {
        let judged = match &theirs.node_id {
            changed if changed != node => Err(Refusal::Node {
                wanted: node.clone(),
                reached: changed.clone(),
            }),
            _ => handshake::judge(&self.identity(), theirs).and_then(|()| self.admit(theirs)),
        };
        match judged {
            Ok(()) => {
                if let Some(link) = self.link(node) {
                    link.lock().identity = Some(theirs.clone());
                }
                self.note_change();
            }
            Err(why) => {
                let _closing = outbox.push(handshake::refusal(&why, self.registry()), usize::MAX);
                outbox.close(Close::Refused(why), false);
            }
        }
    }

    /// What remains to be asked once cluster, node and lineage fit.
    pub(super) fn admit(&self, theirs: &Identity) -> Result<(), Refusal> {
        if self.is_cut(&theirs.node_id) {
            return Err(Refusal::Cut);
        }
        if self.is_closing() {
            return Err(Refusal::Closing);
        }
        self.service.admit(theirs).map_err(Refusal::Admission)
    }

    pub(super) fn registry(&self) -> u64 {
        self.registry.load(Ordering::Relaxed)
    }

    /// A peer's frame carried this registry number.
    pub(super) fn saw(&self, node: &NodeId, number: u64) {
        self.seen.send_if_modified(|seen| {
            let higher = number > seen.number;
            if higher {
                seen.number = number;
                seen.from = Some(node.clone());
            }
            higher
        });
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn is_cut(&self, node: &NodeId) -> bool {
        let cuts = self.cuts.read().expect("nobody panics while writing it");
        cuts.contains(node)
    }

    pub(super) fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn draw_session(&self) -> u64 {
        // Zero is the handshake's own.
        lock(&self.rng).random_range(1..=u64::MAX)
    }

    /// A pause drawn from the upper half.
    pub(super) fn jitter(&self, pause: Duration) -> Duration {
        pause.mul_f64(lock(&self.rng).random_range(0.5..=1.0))
    }

    /// Starts a task that ends with the node.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if !self.is_closing() {
            tasks.spawn(task);
        }
    }

    pub(super) fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        let links = self.links.read().expect("nobody panics while writing it");
        links.get(node).cloned()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        let links = self.links.read().expect("nobody panics while writing it");
        links.values().cloned().collect()
    }

    /// The byte counters of a peer: its link's, its session's, or new ones.
    pub(super) fn meters(&self, node: &NodeId) -> Arc<Meters> {
        let of_link = self.link(node).map(|link| Arc::clone(&link.meters));
        let of_session = || {
            self.session(node)
                .map(|session| Arc::clone(&session.meters))
        };
        of_link.or_else(of_session).unwrap_or_default()
    }

    pub(super) fn session(&self, node: &NodeId) -> Option<Arc<Session>> {
        lock(&self.sessions).get(node).cloned()
    }

    pub(super) fn has_session(&self, node: &NodeId) -> bool {
        lock(&self.sessions).contains_key(node)
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).values().cloned().collect()
    }

    /// Enters a session; an older one of the same node ends. The peer is there: dial it, if need be.
    pub(super) fn enter_session(&self, session: &Arc<Session>) {
        self.hold(session);
        let older = lock(&self.sessions).insert(session.node.clone(), Arc::clone(session));
        if let Some(older) = older {
            older.outbox.close(Close::Replaced, true);
        }
        if let Some(link) = self.link(&session.node) {
            link.lock().refused = None;
            if link.connection().is_none() {
                link.kick.notify_one();
            }
        }
        self.note_change();
    }

    fn hold(&self, session: &Arc<Session>) {
        let mut held = lock(&self.held);
        held.retain(|_, sessions| {
            sessions.retain(|session| session.strong_count() > 0);
            !sessions.is_empty()
        });
        let sessions = held.entry(session.node.clone()).or_default();
        sessions.push(Arc::downgrade(session));
    }

    /// The numbers of a node's sessions that something still holds.
    pub(super) fn held(&self, node: &NodeId) -> Vec<u64> {
        let held = lock(&self.held);
        let sessions = held.get(node).into_iter().flatten();
        let alive = sessions.filter_map(Weak::upgrade);
        alive.map(|session| session.number).collect()
    }

    /// Every node with a session that something still holds.
    pub(super) fn holders(&self) -> BTreeSet<NodeId> {
        let held = lock(&self.held);
        let alive = |sessions: &[Weak<Session>]| sessions.iter().any(|it| it.strong_count() > 0);
        let nodes = held.iter().filter(|(_, sessions)| alive(sessions));
        nodes.map(|(node, _)| node.clone()).collect()
    }

    /// Takes a session out again, unless a newer one took its place.
    pub(super) fn leave_session(&self, session: &Arc<Session>) {
        let mut sessions = lock(&self.sessions);
        if sessions
            .get(&session.node)
            .is_some_and(|there| Arc::ptr_eq(there, session))
        {
            sessions.remove(&session.node);
        }
        drop(sessions);
        self.note_change();
    }

    /// We refused a peer that dialled us: `peers()` shows it too.
    pub(super) fn note_refusal_at(&self, node: &NodeId, why: &Refusal) {
        if let Some(link) = self.link(node) {
            link.lock().refused = Some(why.to_string());
            self.note_change();
        }
    }

    /// Logs a refusal; the same one again only at debug level, for diallers try again and again.
    pub(super) fn note_refused(&self, node: Option<&NodeId>, why: &Refusal) {
        let peer = node.map_or("(not proved)", NodeId::as_str);
        let text = format!("{peer} {why}");
        let mut last = lock(&self.last_refusal);
        if *last == text || why.is_closing() || why.is_cut() {
            debug!(peer, %why, "peer connection refused");
        } else {
            warn!(peer, %why, "peer connection refused");
            *last = text;
        }
    }
}
