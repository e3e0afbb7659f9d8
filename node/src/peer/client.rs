//! The dialling side: connects to a peer, keeps the connection, and keeps time for its calls.
//!
//! Two tasks per peer. `run` dials, moves frames and dials again, with a pause that doubles and is drawn
//! from its upper half, so that nodes that lost one peer together do not return together. `keep` fails
//! overdue calls, pings an idle link and judges whether the peer is reachable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use tokio::select;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::calls::Answer;
use super::error::{Fault, Reason};
use super::handshake::{self, Hello, Identity, Refusal, VERSIONS, Welcome};
use super::limits::{
    BACKOFF_FIRST, BACKOFF_MAX, CONNECT_TIMEOUT, DEAD_AFTER_PROBES, DEAF_AFTER_PROBES, FAREWELL,
    HANDSHAKE_TIMEOUT, SETTLED_AFTER,
};
use super::link::Link;
use super::outbox::Outbox;
use super::pump::{self, Close, Open, Role};
use super::shared::Shared;
use super::wire::{BadFrame, Frame, Kind, Out, Stamp};
use crate::outside::{self, Stream};

/// Dials until the peer is removed or the node closes.
pub(super) async fn run(link: Arc<Link>, shared: Arc<Shared>) {
    let mut pause = BACKOFF_FIRST;
    while !link.lock().removed {
        if shared.is_cut(&link.node) {
            link.shut(&Reason::Cut, &Close::Cut);
            link.kick.notified().await;
            continue;
        }
        let (why, lasted) = attend(&link, &shared).await;
        note(&link, &shared, &why, lasted.is_some());
        shared.note_change();
        if lasted.is_some_and(|lasted| lasted >= SETTLED_AFTER) {
            pause = BACKOFF_FIRST;
        }
        // Woken early when the peer was healed, moved, or called us: it is there now.
        let _woken = timeout(shared.jitter(pause), link.kick.notified()).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

fn note(link: &Link, shared: &Shared, why: &Close, connected: bool) {
    let peer = &link.node;
    match why {
        Close::Refused(why) => shared.note_refused(Some(peer), why),
        why if connected => info!(%peer, %why, "connection to peer ended"),
        why => debug!(%peer, %why, "cannot connect to peer"),
    }
}

/// One connection, from dialling to its end; and how long it stood, if it did.
async fn attend(link: &Arc<Link>, shared: &Arc<Shared>) -> (Close, Option<Duration>) {
    let addr = link.lock().addr.clone();
    let (open, welcome) = match dial(&addr, link, shared).await {
        Ok(dialled) => dialled,
        Err(why) => {
            link.failed(&why);
            return (why, None);
        }
    };
    let began = Instant::now();
    let session = welcome.session;
    link.heard_ms.store(shared.now_ms(), Ordering::Relaxed);
    let Some(outbox) = link.open(session, welcome.identity, shared) else {
        // Cut, removed or closing: whoever did it has shut the link already.
        return (Close::Cut, None);
    };
    shared.catch_up(&link.node, &open.told, &outbox);
    shared.note_change();
    info!(peer = %link.node, session, "connected to peer");
    let mut client = Client {
        link,
        shared,
        outbox: &outbox,
        wakers: Vec::new(),
        rest: Vec::new(),
        registry: 0,
        pings: false,
    };
    let why = pump::run(open, &outbox, &mut client).await;
    link.lock().sent.ended();
    link.lost(&why, &outbox);
    (why, Some(began.elapsed()))
}

/// Connects and shakes hands. The name is resolved anew each time.
async fn dial(addr: &str, link: &Link, shared: &Shared) -> Result<(Open, Welcome), Close> {
    let timed_out = |_| Close::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let mut stream = timeout(CONNECT_TIMEOUT, outside::connect(addr))
        .await
        .map_err(timed_out)??;
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE_TIMEOUT, greet(&mut stream, link, shared))
        .await
        .map_err(timed_out)?
        .map(|(welcome, buf, told)| {
            let stamp = Stamp {
                version: welcome.version,
                session: welcome.session,
            };
            let open = Open {
                stream,
                buf,
                stamp,
                told,
            };
            (open, welcome)
        })
}

/// The dialler's side of the handshake. A refusal is told to the listener before it is returned.
async fn greet(
    stream: &mut Stream,
    link: &Link,
    shared: &Shared,
) -> Result<(Welcome, BytesMut, Arc<Identity>), Close> {
    let ours = shared.identity();
    let hello = Hello {
        versions: VERSIONS,
        wanted: link.node.clone(),
        identity: (*ours).clone(),
    };
    let registry = shared.registry();
    handshake::write(stream, &handshake::frame(Kind::Hello, &hello, registry)).await?;
    let mut buf = BytesMut::new();
    let frame = handshake::read(stream, &mut buf, &[Kind::Welcome]).await?;
    let judged = handshake::parse(&frame).and_then(|welcome: Welcome| {
        handshake::judge_welcome(&ours, &link.node, &welcome)?;
        shared.admit(&welcome.identity)?;
        Ok(welcome)
    });
    match judged {
        Ok(welcome) => {
            link.registry.fetch_max(frame.registry, Ordering::Relaxed);
            shared.saw(&link.node, frame.registry);
            Ok((welcome, buf, ours))
        }
        Err(why) => {
            let out = handshake::refusal(&why, registry);
            // The listener may be gone already; the refusal is what counts.
            let _told = timeout(FAREWELL, handshake::write(stream, &out)).await;
            Err(why.into())
        }
    }
}

/// The client's part in a connection.
struct Client<'a> {
    link: &'a Arc<Link>,
    shared: &'a Arc<Shared>,
    outbox: &'a Outbox,
    wakers: Vec<Waker>,
    /// Frames of one read that complete no call.
    rest: Vec<Frame>,
    /// The highest registry number this connection has carried.
    registry: u64,
    /// Whether a ping is among what is being written.
    pings: bool,
}

impl Client<'_> {
    fn take(&self, frame: &Frame) -> Result<(), Close> {
        match frame.kind {
            Kind::Pong => Ok(()),
            Kind::Identity => {
                let identity: Identity = handshake::parse(frame)?;
                self.shared.rejudge(&self.link.node, &identity, self.outbox);
                Ok(())
            }
            Kind::Refuse => Err(Refusal::Told(handshake::parse(frame)?).into()),
            kind => Err(BadFrame::Misplaced(kind).into()),
        }
    }
}

impl Role for Client<'_> {
    fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Close> {
        let most = frames.iter().map(|frame| frame.registry).max();
        if let Some(most) = most.filter(|most| *most > self.registry) {
            self.registry = most;
            self.link.registry.fetch_max(most, Ordering::Relaxed);
            self.shared.saw(&self.link.node, most);
        }
        let mut state = self.link.lock();
        for frame in frames.drain(..) {
            let result = match frame.kind {
                Kind::Answer => Ok(Answer {
                    head: frame.head,
                    body: frame.body,
                    registry: frame.registry,
                }),
                Kind::Error => Err(Fault::call_error(&frame.head, &frame.body)),
                _ => {
                    self.rest.push(frame);
                    continue;
                }
            };
            state.sent.answered(frame.id);
            state.calls.complete(frame.id, result, &mut self.wakers);
        }
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
        let rest = std::mem::take(&mut self.rest);
        rest.iter().try_for_each(|frame| self.take(frame))
    }

    fn may_read(&self) -> bool {
        true
    }

    fn sending(&mut self, frames: &mut Vec<Out>, now: Instant) {
        self.pings |= frames.iter().any(|frame| frame.kind == Kind::Ping);
        let mut state = self.link.lock();
        frames.retain(|frame| frame.kind != Kind::Request || state.calls.sending(frame.id, now));
        let epoch = self.shared.flights.tag();
        let carrying = |frame: &&Out| frame.kind == Kind::Request && !frame.body.is_empty();
        for frame in frames.iter().filter(carrying) {
            state.sent.written(frame.id, epoch);
        }
    }

    fn moved(&mut self, read: usize, written: usize) {
        self.link.meters.add(read, written);
        let now = self.shared.now_ms();
        if written > 0 {
            self.link.wrote_ms.store(now, Ordering::Relaxed);
        }
        if read > 0 {
            self.link.heard_ms.store(now, Ordering::Relaxed);
            if !self.link.reachable.load(Ordering::Relaxed) {
                self.link.reachable.store(true, Ordering::Release);
                self.shared.note_change();
            }
        }
    }

    fn left(&mut self) {
        if std::mem::take(&mut self.pings) {
            let now = self.shared.now_ms();
            self.link.pinged_ms.store(now, Ordering::Relaxed);
        }
    }
}

/// Keeps time for one link until the peer is removed.
pub(super) async fn keep(link: Arc<Link>, shared: Arc<Shared>) {
    let mut probe = Probe::default();
    while !link.lock().removed {
        let now = Instant::now();
        let overdue = expire(&link, now);
        let due = probe.tick(&link, &shared);
        let next = [overdue, due.map(|due| now + due)]
            .into_iter()
            .flatten()
            .min();
        let woken = link.keeper.notified();
        match next {
            None => woken.await,
            Some(next) => select! {
                () = sleep_until(next) => {}
                () = woken => {}
            },
        }
    }
}

/// Fails overdue calls; when to look again.
fn expire(link: &Link, now: Instant) -> Option<Instant> {
    let mut wakers = Vec::new();
    let mut state = link.lock();
    state.calls.expire(now, &mut wakers);
    let next = state.calls.earliest();
    drop(state);
    wakers.drain(..).for_each(Waker::wake);
    next
}

/// The ping under way on an idle link.
#[derive(Default)]
struct Probe {
    session: u64,
    pinged_ms: Option<u64>,
}

impl Probe {
    /// Pings when nothing was heard for a while, judges when a ping stays unanswered, and closes the
    /// connection when it stays so and nothing can be written either, or the ping has left long ago. As long as it
    /// waits behind what is being written, nobody can have heard it. Returns when to look again.
    fn tick(&mut self, link: &Link, shared: &Shared) -> Option<Duration> {
        let session = link.lock().session;
        let (Some(session), Some(outbox)) = (session, link.connection()) else {
            self.pinged_ms = None;
            return None;
        };
        if session != self.session {
            *self = Self {
                session,
                pinged_ms: None,
            };
        }
        let now = shared.now_ms();
        let heard = link.heard_ms.load(Ordering::Relaxed);
        let (every, wait) = (shared.ping_every_ms(), shared.probe_timeout_ms());
        self.pinged_ms = self.pinged_ms.filter(|pinged| heard < *pinged);
        let Some(pinged) = self.pinged_ms else {
            let due = (heard + every).saturating_sub(now);
            if due > 0 {
                return Some(Duration::from_millis(due));
            }
            self.pinged_ms = Some(now);
            // A connection that is closing takes no ping, and needs none.
            let ping = Out::bare(Kind::Ping, 0, shared.registry());
            let _closing = outbox.push(ping, usize::MAX);
            return Some(Duration::from_millis(wait));
        };
        let silent = now.saturating_sub(pinged);
        if silent < wait {
            return Some(Duration::from_millis(wait - silent));
        }
        if link.reachable.swap(false, Ordering::AcqRel) {
            debug!(peer = %link.node, silent_ms = silent, "peer does not answer");
            shared.note_change();
        }
        let moved = pinged.max(link.wrote_ms.load(Ordering::Relaxed));
        let dead = now.saturating_sub(moved) >= wait * u64::from(DEAD_AFTER_PROBES);
        let left = link.pinged_ms.load(Ordering::Relaxed);
        let unheard = now.saturating_sub(left);
        let deaf = left >= pinged && unheard >= wait * u64::from(DEAF_AFTER_PROBES);
        if dead || deaf {
            outbox.close(Close::Silent, true);
        }
        Some(Duration::from_millis(wait))
    }
}
