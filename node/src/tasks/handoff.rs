//! Delivers what this node keeps for others, and asks others for what they keep for it.
//!
//! Both sides act when a node returns: whoever keeps something for it begins to deliver, and the node itself
//! asks everybody it can reach. What is delivered when, and how much of it, the core's value decides; here
//! hints are read, sent, and crossed off on the target's durable word that names the dots. Nothing is
//! remembered but the hints themselves, so a restart goes on with what is left. When the registry changes,
//! hints whose target owns the key no longer are given to whoever does, and those of buckets that are gone go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use sibyl_core::flow::handoff::{Effect, End, Event, Handoff as Flow};
use sibyl_core::id::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::door::Door;
use crate::outside;
use crate::peer::Net;
use crate::replica::{Replica, Slot};
use crate::telemetry::{Metrics, Tracer};

mod batch;

/// The most askers that wait; each node asks once when it returns, so more are repetitions.
const QUEUE: usize = 256;

/// What the task stands on.
pub struct Ground {
    /// This node.
    pub me: NodeId,
    /// Lets clients go first.
    pub door: Door,
    /// Its hints.
    pub replica: Replica,
    /// Its peers.
    pub net: Net,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Starts spans.
    pub tracer: Tracer,
    /// The owners of a key by what is in force.
    pub owners: Owners,
    /// The number of the document in force.
    pub number: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The clock, milliseconds since the Unix epoch.
    pub now_ms: fn() -> u64,
}

/// Looks up who owns a key.
pub type Owners = Box<dyn Fn(&Slot) -> Owned + Send + Sync>;

/// Who owns a key, by what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    /// These, and how many copies the bucket keeps.
    By(Vec<NodeId>, u8),
    /// Its bucket is newer than what is in force here.
    Unknown,
    /// Its bucket was deleted.
    Gone,
}

/// A handle to the task.
#[derive(Clone)]
pub struct Handoff {
    asks: mpsc::Sender<Asked>,
}

/// What is asked of the task.
enum Asked {
    /// Deliver what is kept for this node.
    Deliver(NodeId),
    /// Ask everybody for what they keep for this one.
    Collect,
}

/// Where the task hears of those who ask.
pub struct Inbox(mpsc::Receiver<Asked>);

/// The two ends of the way to the task: it is needed before the task can begin.
pub fn channel() -> (Handoff, Inbox) {
    let (asks, asked) = mpsc::channel(QUEUE);
    (Handoff { asks }, Inbox(asked))
}

impl Handoff {
    /// This node is back, or asks for what is kept for it.
    pub fn asked(&self, by: NodeId) {
        // A full queue loses it: hints are delivered without being asked for, too.
        let _lost = self.asks.try_send(Asked::Deliver(by));
    }

    /// Others thought that this node was away: it asks everybody for what they kept meanwhile.
    pub fn was_away(&self) {
        // As above.
        let _lost = self.asks.try_send(Asked::Collect);
    }
}

/// Waits until every hint that is kept now is delivered, or the time is up; answers whether it is.
///
/// Hints are told apart by when they came, to the second: those of the second of the call are waited for too.
pub async fn sync_point(replica: &Replica, now_ms: u64, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let newest = now_ms / 1000;
    let left = || {
        replica.hints(|ledger| {
            let mut oldest = ledger.targets().filter_map(|(_, kept)| kept.oldest_ms());
            oldest.any(|oldest_ms| oldest_ms / 1000 <= newest)
        })
    };
    let mut hinting = replica.hinting();
    loop {
        hinting.mark_unchanged();
        if !left() {
            return true;
        }
        if !matches!(timeout_at(until, hinting.changed()).await, Ok(Ok(()))) {
            return !left();
        }
    }
}

/// The task.
struct Task {
    ground: Arc<Ground>,
    flow: Flow,
    /// Peers that can be reached, as of the last look.
    reachable: BTreeSet<NodeId>,
    batches: JoinSet<(NodeId, End)>,
    began: Instant,
    wake: Option<u64>,
}

/// What the task wakes up for.
enum Woken {
    Peers,
    Hints,
    Registry,
    Asked(Asked),
    Ended(NodeId, End),
    Time,
}

/// Delivers hints until the node goes. `registry` changes with the document in force.
pub async fn run<V: Send + Sync>(ground: Ground, inbox: Inbox, mut registry: watch::Receiver<V>) {
    let Inbox(mut asked) = inbox;
    let mut peers = returns(&ground.net);
    let mut hints = ground.replica.hinting();
    let mut task = Task {
        ground: Arc::new(ground),
        flow: Flow::default(),
        reachable: BTreeSet::new(),
        batches: JoinSet::new(),
        began: Instant::now(),
        wake: None,
    };
    peers.mark_changed();
    hints.mark_changed();
    registry.mark_changed();
    let mut came = None;
    loop {
        let wake = task.began + Duration::from_millis(task.wake.unwrap_or_default());
        let woken = tokio::select! {
            changed = peers.changed() => changed.map(|()| Woken::Peers),
            changed = hints.changed() => changed.map(|()| Woken::Hints),
            changed = registry.changed() => changed.map(|()| Woken::Registry),
            Some(ask) = asked.recv() => Ok(Woken::Asked(ask)),
            Some(Ok((target, end))) = task.batches.join_next() => Ok(Woken::Ended(target, end)),
            () = sleep_until(wake), if task.wake.is_some() => Ok(Woken::Time),
        };
        match woken {
            // The node is going.
            Err(_) => return,
            Ok(Woken::Hints) => {
                let now = hints.borrow_and_update().came;
                if came.replace(now) != Some(now) {
                    task.hints_came();
                }
            }
            Ok(woken) => task.wake_up(woken),
        }
    }
}

/// Changes when a node may have returned: with every change of the peers' reachability. Gossip tells of returns
/// behind connections that never broke, by [`Handoff::asked`] and [`Handoff::was_away`].
fn returns(net: &Net) -> watch::Receiver<u64> {
    net.changes()
}

/// Who can be reached now, as [`returns`] tells of it.
fn present(net: &Net) -> BTreeSet<NodeId> {
    let peers = net.peers().into_iter();
    peers
        .filter(|peer| peer.reachable)
        .map(|peer| peer.node_id)
        .collect()
}

impl Task {
    fn wake_up(&mut self, woken: Woken) {
        match woken {
            Woken::Peers => self.look_around(),
            Woken::Hints => self.hints_came(),
            Woken::Registry => {
                tokio::spawn(batch::reroute(Arc::clone(&self.ground)));
            }
            Woken::Asked(Asked::Deliver(by)) => self.tell(Event::Asked(&by)),
            Woken::Asked(Asked::Collect) => self.collect_all(),
            Woken::Ended(target, end) => {
                let target = &target;
                self.tell(Event::Ended { target, end });
            }
            Woken::Time => {
                self.wake = None;
                self.tell(Event::Woken);
            }
        }
    }

    /// Serves whoever is there again, and asks it for what it keeps for this node.
    fn look_around(&mut self) {
        let mut present = present(&self.ground.net);
        // What is kept for the node itself, by an owner change, needs no way.
        present.insert(self.ground.me.clone());
        let before = std::mem::replace(&mut self.reachable, present.clone());
        for gone in before.difference(&present) {
            self.tell(Event::Gone(gone));
        }
        for returned in present.difference(&before) {
            self.tell(Event::Reachable(returned));
            self.collect(returned);
        }
    }

    fn collect_all(&self) {
        self.reachable.iter().for_each(|from| self.collect(from));
    }

    fn collect(&self, from: &NodeId) {
        if *from != self.ground.me {
            let (ground, from) = (Arc::clone(&self.ground), from.clone());
            tokio::spawn(async move { batch::collect(&ground, &from).await });
        }
    }

    fn hints_came(&mut self) {
        // Names only: the ledger is the writer's, and grows with the time that targets are away.
        let targets: Vec<NodeId> = self.ground.replica.hints(|ledger| {
            let kept = ledger.targets().filter(|(_, kept)| kept.count > 0);
            kept.map(|(target, _)| target.clone()).collect()
        });
        for target in targets {
            self.tell(Event::Kept(&target));
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for effect in self.flow.handle(event, now_ms, outside::rng().random()) {
            match effect {
                Effect::WakeAt(at_ms) => self.wake = Some(at_ms),
                Effect::Deliver { target, after } => {
                    let ground = Arc::clone(&self.ground);
                    self.batches.spawn(async move {
                        let end = batch::deliver(&ground, &target, after).await;
                        (target, end)
                    });
                }
            }
        }
    }
}
