//! Anti-entropy: which copies this node compares with whom, and when.
//!
//! Each peer has a set of partitions that are *due*: all of them when it can be reached again, those that were
//! marked dirty, and one after the other in the background. One exchange at a time per peer, few in all; each
//! waits for clients before every message, and a peer with whom one failed is left alone for a random while.
//! `exchange` performs one, `answer` answers those of others, `trees` computes unclean trees anew, `heal`
//! replaces records that cannot be read, `refill` says when a node that lost its copies may vouch again, `transfer`
//! fetches what this node is to own, `leftover` lets go of what it does not own any more.
//! The flow decides (`core: flow/exchange`); this knows no keys' meaning and never runs user code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use sibyl_core::flow::exchange::Summary;
use sibyl_core::id::{Incarnation, NodeId, Partition};
use sibyl_core::room::Level;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::door::Door;
use crate::outside;
use crate::peer::Net;
use crate::replica::Replica;
use crate::store::Watermark;
use crate::tasks::registry::{Registry, View};
use crate::telemetry::Metrics;

mod answer;
mod exchange;
mod heal;
mod leftover;
mod refill;
mod status;
mod transfer;
mod transfers;
mod trees;

pub use status::{Filling, Peer, Running, Status, Totals};
pub use transfers::{Stage, Transfer};

/// Exchanges under way at once: one reads disks on both ends while another waits for the network.
const MAX_EXCHANGES: usize = 2;
/// How long the background takes to come round all partitions: with 256 of them one every 2.3 s, each a few
/// milliseconds of reading leaves on both ends.
const ROUND: Duration = Duration::from_secs(600);
/// The shortest pause between two partitions of the background.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// First pause after an exchange failed; doubles up to the longest, each drawn from its upper half.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause after exchanges failed.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Reads of trees for peers at once; beyond it they are shed. A page takes a thread for some 25 ms.
const MAX_SCANS: usize = 2;

/// What anti-entropy stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Lets clients go first.
    pub door: Door,
    /// Its copies.
    pub replica: Replica,
    /// Its peers.
    pub net: Net,
    /// Who owns what.
    pub registry: Registry,
    /// Remembers that a store was refilled.
    pub watermark: Arc<Watermark>,
    /// Whether comparing begins by itself; a node that lost its data compares either way.
    pub active: bool,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// A handle. Clones are one.
#[derive(Clone)]
pub struct AntiEntropy {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    state: Mutex<State>,
    /// Rings when there may be something to do.
    bell: Notify,
    scans: Semaphore,
}

#[derive(Default)]
struct State {
    peers: BTreeMap<NodeId, PeerState>,
    totals: Totals,
    refill: refill::Progress,
    transfer: transfer::Progress,
    /// Partitions that are not this node's any more, and with whom they were compared since.
    leftover: leftover::Leftover,
    /// The next partition of the background.
    turn: u32,
}

#[derive(Default)]
struct PeerState {
    due: BTreeSet<Partition>,
    running: Option<Partition>,
    /// The last one that was tried.
    tried: Option<Partition>,
    succeeded: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

/// The copies of each bucket.
fn copies(view: &View) -> BTreeMap<Incarnation, u8> {
    let buckets = view.document().buckets.values();
    buckets
        .map(|bucket| (bucket.incarnation, bucket.config.n))
        .collect()
}

/// The numbers of copies that buckets have.
fn ns(view: &View) -> BTreeSet<u8> {
    copies(view).into_values().collect()
}

impl AntiEntropy {
    /// Anti-entropy on this ground; nothing happens until [`AntiEntropy::start`].
    pub fn new(ground: Ground) -> Self {
        let inner = Inner {
            ground,
            state: Mutex::default(),
            bell: Notify::new(),
            scans: Semaphore::new(MAX_SCANS),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts the tasks.
    pub fn start(&self) {
        let filled = self.inner.ground.replica.kept(refill::FILLED);
        self.take_up(filled.ok().flatten());
        tokio::spawn(self.clone().run());
        tokio::spawn(self.clone().keep_trees());
        tokio::spawn(self.clone().heal_damage());
    }

    /// While the disk is low nothing is fetched.
    fn is_paused(&self) -> bool {
        self.ground().replica.gauge().level() > Level::Enough
    }

    /// A member can be reached again, or was away as far as anybody knows: everything shared with it is due.
    /// This is where membership reports returns.
    pub fn returned(&self, member: &NodeId) {
        let ground = self.ground();
        if ground.active || ground.registry.is_rebuilding() {
            self.owe(member);
        }
    }

    /// Everything shared with a member is due.
    fn owe(&self, member: &NodeId) {
        let view = self.ground().registry.view();
        let partitions = (0..view.ring().partitions()).map(Partition);
        let shared: Vec<Partition> = partitions
            .filter(|at| self.shares(&view, *at, member))
            .collect();
        let mut state = self.state();
        let peer = state.peers.entry(member.clone()).or_default();
        peer.due.extend(shared);
        (peer.failures, peer.not_before) = (0, None);
        drop(state);
        self.inner.bell.notify_one();
    }

    /// Others thought that this node was away: everything is due with everybody.
    pub fn was_away(&self) {
        self.others()
            .iter()
            .for_each(|member| self.returned(member));
    }

    /// Everything is due now, with everybody. Answers how many partitions and peers that are.
    pub fn start_now(&self) -> usize {
        let members: Vec<NodeId> = self.others();
        members.iter().for_each(|member| self.owe(member));
        let state = self.state();
        state.peers.values().map(|peer| peer.due.len()).sum()
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.inner.ground
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Holds no invariant across its parts.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> Vec<NodeId> {
        let view = self.ground().registry.view();
        let members = view.document().layout.members.keys();
        members
            .filter(|member| **member != self.ground().me)
            .cloned()
            .collect()
    }

    /// Whether both this node and a member hold a partition, at some n.
    fn shares(&self, view: &View, partition: Partition, member: &NodeId) -> bool {
        let both = |n| self.compares(view, partition, n, member);
        ns(view).into_iter().any(both)
    }

    /// Whether a tree can be compared with a member: it holds it, and this node does, or did.
    fn compares(&self, view: &View, partition: Partition, n: u8, member: &NodeId) -> bool {
        view.placed.holds(member, partition, n)
            && (view.placed.holds(&self.ground().me, partition, n) || self.is_leftover(partition))
    }

    async fn run(self) {
        let ground = self.ground();
        let mut changes = ground.net.changes();
        let (mut reached, mut running) = (BTreeSet::new(), JoinSet::new());
        let mut view = ground.registry.watch();
        if view.wait_for(|view| !view.forming()).await.is_err() {
            return;
        }
        let partitions = ground.registry.view().ring().partitions();
        let mut turn = tokio::time::interval((ROUND / partitions).max(LEAST_PAUSE));
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.notice(&mut reached);
        loop {
            while running.len() < MAX_EXCHANGES
                && let Some((peer, partition)) = self.take_due()
            {
                let this = self.clone();
                running.spawn(async move { this.compare(peer, partition).await });
            }
            self.look_at_refill().await;
            self.look_at_transfer();
            self.look_at_leftover().await;
            let wake = self.next_wake().min(self.next_step());
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.notice(&mut reached),
                    Err(_) => return,
                },
                changed = view.changed() => if changed.is_err() {
                    return;
                },
                () = self.inner.bell.notified() => {}
                _ = turn.tick() => self.take_turn(),
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Who can be reached now and could not before has returned. Gossip tells of those whose connections held.
    fn notice(&self, reached: &mut BTreeSet<NodeId>) {
        let peers = self
            .ground()
            .net
            .peers()
            .into_iter()
            .filter(|peer| peer.reachable);
        let now: BTreeSet<NodeId> = peers.map(|peer| peer.node_id).collect();
        now.difference(reached).for_each(|peer| self.returned(peer));
        *reached = now;
    }

    /// The background: one more partition is due with everybody whose name comes later; they do the rest.
    fn take_turn(&self) {
        if !self.ground().active {
            return;
        }
        let view = self.ground().registry.view();
        let turn = self.state().turn;
        let partition = Partition(turn % view.ring().partitions());
        let mut later = self.others();
        later.retain(|other| *other > self.ground().me && self.shares(&view, partition, other));
        let mut state = self.state();
        state.turn = turn.wrapping_add(1);
        for other in later {
            state.peers.entry(other).or_default().due.insert(partition);
        }
    }

    /// Something that can be compared now: its peer is there and idle, and its tree is clean here.
    fn take_due(&self) -> Option<(NodeId, Partition)> {
        if self.is_paused() {
            return None;
        }
        let (ground, now) = (self.ground(), Instant::now());
        let mut state = self.state();
        let ready = |peer: &PeerState| {
            peer.running.is_none() && peer.not_before.is_none_or(|until| until <= now)
        };
        for (node, peer) in state.peers.iter_mut().filter(|(_, peer)| ready(peer)) {
            if !ground.net.is_reachable(node) {
                continue;
            }
            // Round and round: one that cannot be finished must not keep the others waiting.
            let from = peer.tried.map_or(0, |tried| tried.0.saturating_add(1));
            let behind = peer.due.range(Partition(from)..);
            let round = behind.chain(peer.due.range(..Partition(from)));
            let may =
                |at: &Partition| ground.replica.is_clean(*at) && ground.replica.is_judged(*at);
            let due = round.copied().find(may);
            if let Some(partition) = due {
                peer.due.remove(&partition);
                peer.running = Some(partition);
                peer.tried = Some(partition);
                return Some((node.clone(), partition));
            }
        }
        None
    }

    /// When a pause ends, at the latest.
    fn next_wake(&self) -> Instant {
        let state = self.state();
        let pauses = state
            .peers
            .values()
            .filter(|peer| !peer.due.is_empty())
            .filter_map(|peer| peer.not_before);
        let now = Instant::now();
        pauses
            .filter(|until| *until > now)
            .min()
            .unwrap_or(now + PAUSE_MAX)
    }

    /// Compares one partition with one peer, all its trees.
    async fn compare(&self, peer: NodeId, partition: Partition) {
        let _flight = self.ground().net.flights().begin();
        let view = self.ground().registry.view();
        let mut whole = true;
        let mut counts = true;
        for n in ns(&view) {
            if self.compares(&view, partition, n, &peer) {
                let tree = sibyl_core::merkle::Tree { partition, n };
                let summary = self.exchange(&peer, tree).await;
                (whole, counts) = (whole && summary.whole, counts && summary.counts);
                self.note_moved(partition, &peer, &summary);
                self.count(&summary);
            }
        }
        // What a lost store had acknowledged is asked for only once everybody knows that it is lost.
        whole &= self.is_named(&view);
        self.compared(&peer, partition, whole);
        if whole {
            self.note_filled_from(partition, &peer, counts);
            self.note_fetched_from(&view, partition, &peer, counts);
            self.note_given_to(&view, partition, &peer);
        }
        self.inner.bell.notify_one();
    }

    fn count(&self, summary: &Summary) {
        let totals = &mut self.state().totals;
        totals.exchanges += 1;
        totals.keys_repaired += u64::from(summary.sent) + u64::from(summary.received);
        totals.bytes += summary.bytes;
        totals.alarms += u64::from(summary.alarms);
        totals.failed += u64::from(!summary.whole);
    }

    fn compared(&self, name: &NodeId, partition: Partition, whole: bool) {
        let mut state = self.state();
        let peer = state.peers.entry(name.clone()).or_default();
        peer.running = None;
        if whole {
            self.ground().metrics.merkle_succeeded(name.as_str());
            (peer.succeeded, peer.failures, peer.not_before) = (Some(Instant::now()), 0, None);
            return;
        }
        peer.due.insert(partition);
        let longest = PAUSE_FIRST
            .saturating_mul(1 << peer.failures.min(10))
            .min(PAUSE_MAX);
        let pause = longest.mul_f64(outside::rng().random_range(0.5..=1.0));
        peer.not_before = Some(Instant::now() + pause);
        peer.failures += 1;
    }

    /// Lets clients go first, for a while.
    async fn yield_to_clients(&self) {
        self.ground().door.yield_to_clients().await;
    }
}
