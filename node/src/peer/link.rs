//! One peer as this node calls it: the calls under way, the queue they wait in, and how the link stands.
//!
//! Calls enter while the link is connected or being dialled for the first time; otherwise they fail at
//! once, certain that nothing was sent. The link outlives its connections; each connection has its own
//! session and its own outbox. Dialling and probing are in `client.rs`.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::{NodeId, Trace};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::calls::{Answer, Calls};
use super::error::{CallError, Reason};
use super::handshake::Identity;
use super::limits::{MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_PEER_BYTES, MAX_TIMEOUT};
use super::outbox::Outbox;
use super::pump::Close;
use super::sent::Sent;
use super::shared::Shared;
use super::wire::{Kind, Out};

/// A request to a peer.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The caller's and service's own encoding, at most [`MAX_HEAD_BYTES`].
    pub head: Bytes,
    /// Raw bytes, at most [`MAX_BODY_BYTES`].
    pub body: Bytes,
    /// How long to wait for the answer, at most [`MAX_TIMEOUT`]; the peer learns what is left of it when the request is written.
    pub timeout: Duration,
    /// The registry number this node acts under.
    pub registry: u64,
    /// The span this call belongs to.
    pub span: Option<Trace>,
}

/// Bytes that passed between this node and a peer, on both connections, handshakes excluded.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Meters {
    pub(super) fn add(&self, received: usize, sent: usize) {
        self.received.fetch_add(received as u64, Ordering::Relaxed);
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }
}

/// Whether calls may enter.
enum Door {
    /// They may: the link is connected, or being dialled for the first time.
    Open(Arc<Outbox>),
    /// They may not, and why.
    Shut(Reason),
}

/// What changes together.
pub(super) struct State {
    pub(super) addr: String,
    door: Door,
    pub(super) calls: Calls,
    /// What the peer may still act on.
    pub(super) sent: Sent,
    pub(super) session: Option<u64>,
    pub(super) identity: Option<Identity>,
    pub(super) refused: Option<String>,
    pub(super) removed: bool,
}

/// The calling side of one peer.
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) meters: Arc<Meters>,
    /// Answered within the probe timeout.
    pub(super) reachable: AtomicBool,
    /// When the peer was last heard, and when bytes last went out; milliseconds of the node's clock.
    pub(super) heard_ms: AtomicU64,
    pub(super) wrote_ms: AtomicU64,
    /// When a ping left last, behind everything that waited before it.
    pub(super) pinged_ms: AtomicU64,
    /// The highest registry number it was heard to go by.
    pub(super) registry: AtomicU64,
    /// Dial now.
    pub(super) kick: Notify,
    /// The keeper should look at its clock again.
    pub(super) keeper: Notify,
    state: Mutex<State>,
}

impl Link {
    pub(super) fn new(node: NodeId, addr: String, meters: Arc<Meters>) -> Self {
        Self {
            node,
            meters,
            reachable: AtomicBool::new(false),
            heard_ms: AtomicU64::new(0),
            wrote_ms: AtomicU64::new(0),
            pinged_ms: AtomicU64::new(0),
            registry: AtomicU64::new(0),
            kick: Notify::new(),
            keeper: Notify::new(),
            state: Mutex::new(State {
                addr,
                door: Door::Open(Arc::default()),
                calls: Calls::default(),
                sent: Sent::default(),
                session: None,
                identity: None,
                refused: None,
                removed: false,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds a link's state")
    }

    /// Enters a call and queues its frame.
    pub(super) fn call(self: Arc<Self>, outgoing: Outgoing) -> Call {
        match self.enter(outgoing) {
            Ok(id) => Call(Under::Way { link: self, id }),
            Err(reason) => Call::failed(reason),
        }
    }

    fn enter(&self, outgoing: Outgoing) -> Result<u64, Reason> {
        if outgoing.head.len() > MAX_HEAD_BYTES || outgoing.body.len() > MAX_BODY_BYTES {
            return Err(Reason::TooLarge);
        }
        let deadline = Instant::now() + outgoing.timeout.min(MAX_TIMEOUT);
        let mut guard = self.lock();
        let state = &mut *guard;
        let outbox = match &state.door {
            Door::Open(outbox) => outbox,
            Door::Shut(why) => return Err(why.clone()),
        };
        let before = state.calls.earliest();
        let mut out = Out {
            kind: Kind::Request,
            id: 0,
            deadline: Some(deadline),
            registry: outgoing.registry,
            span: outgoing.span,
            head: outgoing.head,
            body: outgoing.body,
        };
        let entered = state.calls.insert(deadline, out.size());
        let id = entered.ok_or(Reason::Overloaded)?;
        out.id = id;
        if let Err(_full) = outbox.push(out, MAX_PEER_BYTES) {
            state.calls.cancel(id);
            return Err(Reason::Overloaded);
        }
        drop(guard);
        if before.is_none_or(|before| deadline < before) {
            self.keeper.notify_one();
        }
        Ok(id)
    }

    /// A connection stands: calls enter its outbox. None when the link was shut or removed meanwhile.
    pub(super) fn open(
        &self,
        session: u64,
        identity: Identity,
        shared: &Shared,
    ) -> Option<Arc<Outbox>> {
        let mut state = self.lock();
        if state.removed || shared.is_closing() || shared.is_cut(&self.node) {
            return None;
        }
        let outbox = match &state.door {
            Door::Open(outbox) => Arc::clone(outbox),
            Door::Shut(_) => Arc::default(),
        };
        state.door = Door::Open(Arc::clone(&outbox));
        state.session = Some(session);
        state.identity = Some(identity);
        state.refused = None;
        drop(state);
        self.reachable.store(true, Ordering::Release);
        self.keeper.notify_one();
        Some(outbox)
    }

    /// The outbox of the standing connection.
    pub(super) fn connection(&self) -> Option<Arc<Outbox>> {
        let state = self.lock();
        match (&state.door, state.session) {
            (Door::Open(outbox), Some(_)) => Some(Arc::clone(outbox)),
            _ => None,
        }
    }

    /// An attempt to connect failed: calls that waited for it fail and new ones do not enter.
    pub(super) fn failed(&self, why: &Close) {
        self.shut(&reason_of(why, false), why);
    }

    /// The connection with this outbox is over: its calls fail and new ones do not enter. Unless the link
    /// was shut and reopened meanwhile: then they wait for the next connection.
    pub(super) fn lost(&self, why: &Close, outbox: &Arc<Outbox>) {
        let theirs = match &self.lock().door {
            Door::Open(current) => Arc::ptr_eq(current, outbox),
            Door::Shut(_) => false,
        };
        if theirs {
            self.shut(&reason_of(why, true), why);
        }
    }

    /// Stops calls for a reason and ends the connection, if there is one, at once.
    pub(super) fn shut(&self, reason: &Reason, why: &Close) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let after = match reason {
            Reason::Lost(text) => Reason::Unreachable(text.clone()),
            reason => reason.clone(),
        };
        if let Door::Open(outbox) = std::mem::replace(&mut state.door, Door::Shut(after)) {
            outbox.close(why.clone(), true);
        }
        state.session = None;
        if let Close::Refused(why) = why {
            state.refused = Some(why.to_string());
        }
        state.calls.fail_all(|| reason.clone(), &mut wakers);
        drop(state);
        self.reachable.store(false, Ordering::Release);
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Calls may wait for the next attempt to connect, which should come now: a healed or moved peer.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        if let Door::Shut(_) = state.door {
            state.door = Door::Open(Arc::default());
        }
        drop(state);
        self.kick.notify_one();
    }

    /// For ever: the peer was removed or the node closes.
    pub(super) fn remove(&self, reason: &Reason, why: &Close) {
        self.lock().removed = true;
        self.shut(reason, why);
        self.kick.notify_one();
        self.keeper.notify_one();
    }

    /// Frames queued and not yet written.
    pub(super) fn queued(&self) -> usize {
        match &self.lock().door {
            Door::Open(outbox) => outbox.unwritten().0,
            Door::Shut(_) => 0,
        }
    }
}

/// What the end of a connection, or of the attempt at one, means for calls.
fn reason_of(why: &Close, connected: bool) -> Reason {
    match why {
        Close::Cut => Reason::Cut,
        Close::Refused(why) if why.is_cut() => Reason::Cut,
        Close::Refused(why) => Reason::Refused(why.to_string()),
        Close::Shutdown => Reason::Closing,
        why if connected => Reason::Lost(why.to_string()),
        why => Reason::Unreachable(why.to_string()),
    }
}

/// A call under way; resolves to the peer's answer. It was entered when it was made, not when it is first
/// polled. Dropping it gives the call up: an answer that still comes is discarded.
#[must_use = "dropping a call gives it up"]
pub struct Call(Under);

enum Under {
    Way { link: Arc<Link>, id: u64 },
    Failed(Option<CallError>),
}

impl Call {
    /// A call that never entered.
    pub(super) fn failed(reason: Reason) -> Self {
        Self(Under::Failed(Some(CallError::unsent(reason))))
    }
}

impl Future for Call {
    type Output = Result<Answer, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Under::Failed(err) => Poll::Ready(Err(err
                .take()
                .expect("a future is not polled after it resolved"))),
            Under::Way { link, id } => {
                let polled = link.lock().calls.poll(*id, cx);
                if polled.is_ready() {
                    self.0 = Under::Failed(None);
                }
                polled
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Under::Way { link, id } = &self.0 {
            link.lock().calls.cancel(*id);
        }
    }
}
