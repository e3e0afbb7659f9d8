//! Incoming connections: who may come in, what they ask, and what is answered.
//!
//! One [`Session`] per peer; a newer connection of the same node replaces the older. Requests go to the
//! [`Service`] on the connection's own task. What a peer may keep under way is bounded: beyond it requests
//! are shed at once, and a peer that does not read its answers is not read either.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sibyl_core::id::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::error::Fault;
use super::handshake::{self, Hello, Identity, Refusal, Welcome};
use super::knock;
use super::limits::{
    ACCEPT_PAUSE, FAREWELL, HANDSHAKE_TIMEOUT, MAX_CALLS, MAX_HANDSHAKES, MAX_PEER_BYTES,
    MAX_SESSIONS,
};
use super::link::Meters;
use super::outbox::{Full, Outbox};
use super::pump::{self, Close, Open, Role};
use super::service::{Incoming, Remote, Responder};
use super::shared::Shared;
use super::wire::{BadFrame, Frame, Kind, Out, Stamp};
use crate::outside::{Listener, Stream};

/// One accepted and proved connection.
pub(super) struct Session {
    pub(super) node: NodeId,
    pub(super) number: u64,
    pub(super) outbox: Outbox,
    pub(super) meters: Arc<Meters>,
    pub(super) heard_ms: AtomicU64,
    unanswered: AtomicUsize,
    unanswered_bytes: AtomicUsize,
    shared: Arc<Shared>,
}

impl Session {
    /// Whether nothing is asked and nothing is left to write.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.load(Ordering::Acquire) == 0 && self.outbox.unwritten().0 == 0
    }

    /// Queues an answer, or an error in its place when the peer does not take its answers.
    pub(super) fn answer(&self, id: u64, head: Bytes, body: Bytes, registry: u64) {
        let out = Out {
            head,
            body,
            ..Out::bare(Kind::Answer, id, registry)
        };
        match self.outbox.push(out, 2 * MAX_PEER_BYTES) {
            Ok(()) | Err(Full::Closed) => {}
            Err(Full::Bytes) => self.fault(id, &Fault::NoRoom),
        }
    }

    /// Queues an error. Errors are small and there is at most one per frame read, so they always fit.
    pub(super) fn fault(&self, id: u64, fault: &Fault) {
        let (head, body) = fault.parts();
        self.push_small(Out {
            head,
            body,
            ..Out::bare(Kind::Error, id, self.shared.registry())
        });
    }

    fn push_small(&self, out: Out) {
        // A closed connection takes nothing, and nobody is there to miss it.
        let _closed = self.outbox.push(out, usize::MAX);
    }

    /// A responder is done with: the request no longer counts.
    pub(super) fn answered(&self, bytes: usize) {
        self.unanswered_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
    }

    /// Enters a request, unless too much is under way.
    fn admit(&self, bytes: usize) -> bool {
        let fits = self.unanswered.load(Ordering::Acquire) < MAX_CALLS
            && self.unanswered_bytes.load(Ordering::Acquire) + bytes <= MAX_PEER_BYTES;
        if fits {
            self.unanswered.fetch_add(1, Ordering::AcqRel);
            self.unanswered_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        fits
    }
}

/// Accepts connections until the node closes.
pub(super) async fn listen(listener: Listener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, from)) => {
                let serving = serve(stream, slot, Arc::clone(&shared));
                debug!(%from, "peer connection accepted");
                shared.spawn(serving);
            }
            Err(err) => {
                warn!(%err, "cannot accept peer connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes clients that have said nothing for too long: each would ping if it were alive.
pub(super) async fn sweep(shared: Arc<Shared>, silent_after: Duration) {
    loop {
        sleep(silent_after / 4).await;
        let now = shared.now_ms();
        let limit = u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX);
        for session in shared.sessions() {
            if now.saturating_sub(session.heard_ms.load(Ordering::Relaxed)) > limit {
                session.outbox.close(Close::Silent, true);
            }
        }
    }
}

async fn serve(stream: Stream, slot: OwnedSemaphorePermit, shared: Arc<Shared>) {
    let (open, remote) = match enter(stream, &shared).await {
        Ok(Some(entered)) => entered,
        Ok(None) => return debug!("a knock was answered"),
        Err(Close::Refused(why)) => return shared.note_refused(None, &why),
        Err(why) => return debug!(%why, "peer handshake failed"),
    };
    drop(slot);
    let node = remote.identity.node_id.clone();
    let session = Arc::new(Session {
        number: remote.session,
        outbox: Outbox::default(),
        meters: shared.meters(&node),
        heard_ms: AtomicU64::new(shared.now_ms()),
        unanswered: AtomicUsize::new(0),
        unanswered_bytes: AtomicUsize::new(0),
        shared: Arc::clone(&shared),
        node: node.clone(),
    });
    let entry = Entry::new(Arc::clone(&session));
    shared.catch_up(&node, &open.told, &session.outbox);
    info!(peer = %node, session = remote.session, "peer connected to us");
    let mut served = Served {
        session: Arc::clone(&session),
        remote: Arc::new(remote),
        registry: 0,
    };
    let why = pump::run(open, &session.outbox, &mut served).await;
    drop(entry);
    match why {
        Close::Refused(why) => shared.note_refused(Some(&node), &why),
        why => info!(peer = %node, %why, "peer connection to us ended"),
    }
}

/// A session's place in the table; leaves it when the connection ends, however it does.
struct Entry(Arc<Session>);

impl Entry {
    fn new(session: Arc<Session>) -> Self {
        session.shared.enter_session(&session);
        Self(session)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.shared.leave_session(&self.0);
    }
}

/// The first frame says what this is: a peer that wants a session, or a knock, which is answered here and over.
async fn enter(mut stream: Stream, shared: &Shared) -> Result<Option<(Open, Remote)>, Close> {
    stream.set_nodelay(true)?;
    let mut buf = BytesMut::new();
    let reading = handshake::read(&mut stream, &mut buf, &[Kind::Hello, Kind::Knock]);
    let frame = timeout(HANDSHAKE_TIMEOUT, reading)
        .await
        .map_err(|_| Close::Silent)??;
    match frame.kind {
        Kind::Knock => knock::answer(stream, &frame, shared).await.map(|()| None),
        _ => greet(stream, buf, &frame, shared).await.map(Some),
    }
}

/// The listener's side of the handshake. A refusal is told to the dialler before it is returned.
async fn greet(
    mut stream: Stream,
    buf: BytesMut,
    frame: &Frame,
    shared: &Shared,
) -> Result<(Open, Remote), Close> {
    let registry = frame.registry;
    let judged = handshake::parse(frame).and_then(|hello: Hello| judge(shared, hello));
    let (version, identity) = match judged {
        Ok(judged) => judged,
        Err(why) => {
            let out = handshake::refusal(&why, shared.registry());
            // The dialler may be gone already; the refusal is what counts.
            let _told = timeout(FAREWELL, handshake::write(&mut stream, &out)).await;
            return Err(why.into());
        }
    };
    shared.saw(&identity.node_id, registry);
    let session = shared.draw_session();
    let ours = shared.identity();
    let welcome = Welcome {
        version,
        session,
        identity: (*ours).clone(),
    };
    let out = handshake::frame(Kind::Welcome, &welcome, shared.registry());
    let writing = handshake::write(&mut stream, &out);
    timeout(HANDSHAKE_TIMEOUT, writing)
        .await
        .map_err(|_| Close::Silent)??;
    let open = Open {
        stream,
        buf,
        stamp: Stamp { version, session },
        told: ours,
    };
    Ok((open, Remote { identity, session }))
}

fn judge(shared: &Shared, hello: Hello) -> Result<(u8, Identity), Refusal> {
    let judged = handshake::judge_hello(&shared.identity(), &hello)
        .and_then(|version| shared.admit(&hello.identity).map(|()| version));
    let node = &hello.identity.node_id;
    if let Err(why) = &judged {
        shared.note_refusal_at(node, why);
    }
    let version = judged?;
    if shared.sessions().len() >= MAX_SESSIONS && !shared.has_session(node) {
        return Err(Refusal::Full);
    }
    Ok((version, hello.identity))
}

/// The server's part in a connection.
struct Served {
    session: Arc<Session>,
    remote: Arc<Remote>,
    /// The highest registry number this connection has carried.
    registry: u64,
}

impl Served {
    fn take(&mut self, frame: Frame) -> Result<(), Close> {
        let shared = &self.session.shared;
        if frame.registry > self.registry {
            self.registry = frame.registry;
            shared.saw(&self.session.node, frame.registry);
        }
        match frame.kind {
            Kind::Request => self.request(frame),
            Kind::Ping => {
                let pong = Out::bare(Kind::Pong, frame.id, shared.registry());
                self.session.push_small(pong);
            }
            Kind::Identity => self.identity(&frame)?,
            Kind::Refuse => return Err(Refusal::Told(handshake::parse(&frame)?).into()),
            kind => return Err(BadFrame::Misplaced(kind).into()),
        }
        Ok(())
    }

    fn request(&self, frame: Frame) {
        let session = &self.session;
        let bytes = frame.head.len() + frame.body.len();
        if session.shared.is_closing() {
            return session.fault(frame.id, &Fault::Closing);
        }
        if frame.timeout_ms == Some(0) {
            return session.fault(frame.id, &Fault::Expired);
        }
        if !session.admit(bytes) {
            return session.fault(frame.id, &Fault::Shed);
        }
        let left = Duration::from_millis(frame.timeout_ms.unwrap_or(u32::MAX).into());
        let deadline = Instant::now() + left;
        let reply = Responder::new(Arc::clone(session), frame.id, bytes, deadline);
        let incoming = Incoming {
            head: frame.head,
            body: frame.body,
            deadline,
            registry: frame.registry,
            span: frame.span,
        };
        let service = &session.shared.service;
        let handling = || service.handle(&self.remote, incoming, reply);
        // The responder answers when it is dropped while unwinding, so the caller learns of it too.
        if catch_unwind(AssertUnwindSafe(handling)).is_err() {
            error!(peer = %session.node, "a request handler panicked");
        }
    }

    /// The peer's identity changed: judged again, for it may now be of another lineage.
    fn identity(&mut self, frame: &Frame) -> Result<(), Close> {
        let identity: Identity = handshake::parse(frame)?;
        let session = &self.session;
        session
            .shared
            .rejudge(&session.node, &identity, &session.outbox);
        self.remote = Arc::new(Remote {
            identity,
            session: session.number,
        });
        Ok(())
    }
}

impl Role for Served {
    fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Close> {
        frames.drain(..).try_for_each(|frame| self.take(frame))
    }

    fn may_read(&self) -> bool {
        self.session.outbox.roomy()
    }

    fn sending(&mut self, _: &mut Vec<Out>, _: Instant) {}

    fn moved(&mut self, read: usize, written: usize) {
        self.session.meters.add(read, written);
        if read > 0 {
            let now = self.session.shared.now_ms();
            self.session.heard_ms.store(now, Ordering::Relaxed);
        }
    }
}
