//! The only place that builds and wires the parts of a node, and takes them down again.
//!
//! Up: store, telemetry, replica, registry, network, resolvers, coordinator, HTTP. Down in the other
//! direction: HTTP drains, peers drain, the writer ends its queue, telemetry sends what it has. A store that
//! cannot prove what it remembers is begun anew under another actor, without an operator; a store that fails
//! while running ends the node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sibyl_core::id::{Actor, NodeId};
use sibyl_core::membership::Timing;
use sibyl_core::reap::RETRY_WINDOW_MS;
use sibyl_core::registry::Document;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::answers::Answers;
use crate::backup;
use crate::config::{Config, LogFormat};
use crate::coordinator::{Coordinator, Ground, UNNAMED_EVERY, UNNAMED_GRACE};
use crate::door::{Door, MAX_REQUESTS};
use crate::http::{self, backend};
use crate::outside;
use crate::peer::{Identity, Net};
use crate::replica::{self, Group, Replica};
use crate::resolver::{Platform, Settings};
use crate::store::{self, Watermark};
use crate::tasks::anti_entropy::{self, AntiEntropy};
use crate::tasks::gossip::{self, Notice};
use crate::tasks::handoff::{self, Owned};
use crate::tasks::reap::{self, Reaping};
use crate::tasks::registry::{Opened, StartError};
use crate::telemetry::metrics::StorageOp;
use crate::telemetry::{self, Collector, Telemetry};
use disk::Fate;

mod disk;
mod fenced;
mod giving;
mod listed;
mod origin;
#[cfg(test)]
mod tests;
mod waiting;
mod yielding;

/// How long the last spans may take to leave.
const TELEMETRY_DEADLINE: Duration = Duration::from_secs(2);
/// How often a store that contradicts itself is begun anew before the node gives up.
const MOST_STARTS: usize = 2;

/// Runs a node until SIGTERM or Ctrl-C, then drains it.
///
/// # Errors
/// Whatever keeps it from starting, or ended it; in words for an operator.
pub fn run(config: Config) -> anyhow::Result<Ended> {
    let json = config.log_format.map(|format| format == LogFormat::Json);
    telemetry::logs::start(Some(&config.log), json).context("cannot set up logging")?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .thread_name("sibyl")
        .build()
        .context("cannot start worker threads")?;
    runtime.block_on(run_once(config))
}

/// How a node ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Its store is damaged and given up: start it again, and it begins a new one.
    GivenUp,
    /// It was removed: start it again, and it gives what it holds to the owners of now.
    Fenced,
}

async fn run_once(config: Config) -> anyhow::Result<Ended> {
    run_until(config, told_to_stop()?).await
}

/// As [`run`], inside of a runtime and until it is told to stop. Logging is the caller's.
///
/// # Errors
/// As [`run`].
pub async fn run_until(config: Config, mut told: watch::Receiver<bool>) -> anyhow::Result<Ended> {
    let data_dir = config.data_dir.clone();
    let node = tokio::select! {
        node = Node::start(config) => node?,
        // A node that waits to be taken in has nothing to drain.
        _ = told.wait_for(|told| *told) => return Ok(Ended::Told),
    };
    let mut failed = node.coordinator.replica().failed();
    let mut fenced = node.fenced.clone();
    let failure = tokio::select! {
        _ = told.wait_for(|told| *told) => None,
        Ok(_) = fenced.wait_for(|fenced| *fenced) => {
            node.stop().await;
            return Ok(Ended::Fenced);
        }
        failure = failed.wait_for(Option::is_some) => failure.ok().and_then(|failure| failure.clone()),
    };
    let fate = match failure {
        Some(_) => disk::will_be_renewed(&node.coordinator, &mut told).await,
        None => Fate::Ends,
    };
    if fate == Fate::Renewed {
        disk::give_up(&data_dir, &node.watermark)?;
    }
    node.stop().await;
    match failure {
        Some(why) if fate == Fate::Told => {
            tracing::error!(%why, "the store is damaged, and too few others are there to begin a new one");
            Ok(Ended::Told)
        }
        Some(why) if fate == Fate::Renewed => {
            tracing::error!(%why, "the store is given up: the next start begins a new one");
            // Whoever wants it to end meanwhile wants no other start.
            let told = *told.borrow();
            Ok(if told { Ended::Told } else { Ended::GivenUp })
        }
        Some(why) => anyhow::bail!("the store failed: {why}"),
        None => Ok(Ended::Told),
    }
}

/// Becomes true with the first signal to stop, and stays so: one that comes while the node is doing something else
/// is not forgotten.
fn told_to_stop() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("interrupted: draining"),
        }
        tell.send_replace(true);
        // As long as somebody may ask.
        tell.closed().await;
    });
    Ok(told)
}

/// A running node.
pub struct Node {
    coordinator: Coordinator,
    telemetry: Telemetry,
    watermark: Arc<Watermark>,
    listen: SocketAddr,
    stop: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<usize>>,
    /// Whether this node found that it was removed.
    fenced: watch::Receiver<bool>,
}

impl Node {
    /// Builds a node and starts to serve. Must be called inside a runtime.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let me: NodeId = config.node_id.parse()?;
        let first = origin::first_document(&config, &me).await?;
        let telemetry = start_telemetry(&config, &me, &first)?;
        let Store {
            replica,
            registry,
            watermark,
            actor,
        } = open_store(&config, &me, &first, &telemetry)?;
        let peers = bind(config.peer_listen, "peer-listen").await?;
        let identity = Identity {
            store: actor.0,
            incarnation: watermark.incarnation(),
            lineage: registry.handle().view().document().lineage(),
            ..nameless(&config, &me, &first)
        };
        let tracer = telemetry.tracer.clone();
        let answers = Arc::new(Answers::new(registry.handle(), tracer.clone()));
        let net = Net::start(identity, peers, answers.clone(), net_options(&config))?;
        let door = door(&config, &replica);
        let anti_entropy = AntiEntropy::new(anti_entropy::Ground {
            me: me.clone(),
            door: door.clone(),
            replica: replica.clone(),
            net: net.clone(),
            registry: registry.handle(),
            watermark: Arc::clone(&watermark),
            active: config.anti_entropy,
            metrics: Arc::clone(&telemetry.metrics),
        });
        let platform = open_platform(&config).await?;
        let backups = disk::backups(&me, &replica, &watermark, &platform);
        let (handoff, inbox) = handoff::channel();
        let gossip = gossip(
            &config, &me, actor, &replica, &registry, &watermark, &telemetry,
        );
        let coordinator = Coordinator::new(Ground {
            me,
            handoff,
            replica,
            net: net.clone(),
            registry: registry.handle(),
            gossip: gossip.handle(),
            platform,
            metrics: Arc::clone(&telemetry.metrics),
            reaping: reaping(&config, &anti_entropy, &telemetry),
            anti_entropy: anti_entropy.clone(),
            door,
        });
        answers.serve(&coordinator);
        registry.start(net.clone());
        gossip.start(net);
        anti_entropy.start();
        deliver_hints(&coordinator, tracer, inbox);
        look_after(&coordinator, &config);
        let fenced = fenced::follow(&coordinator, &config).await?;
        let (stop, stopped) = watch::channel(false);
        let served = listen(&config, &coordinator, &telemetry, backups, &stopped).await?;
        tracing::info!(node = %coordinator.me(), listen = %served.0, "serving");
        Ok(Self {
            coordinator,
            telemetry,
            watermark,
            listen: served.0,
            stop,
            servers: served.1,
            fenced,
        })
    }

    /// Where clients connect.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Drains and stops: what is under way ends or fails within bounds, what was acknowledged is on disk.
    pub async fn stop(self) {
        let Self {
            coordinator,
            telemetry,
            watermark: _,
            listen: _,
            stop,
            servers,
            fenced: _,
        } = self;
        // Whoever asks from here on hears that it is not ready.
        coordinator.leave();
        // Listeners close at once; requests under way go on.
        stop.send_replace(true);
        for server in servers {
            match server.await {
                Ok(0) => {}
                Ok(cut) => tracing::warn!(cut, "connections were cut off while draining"),
                Err(error) => tracing::error!(%error, "a listener died"),
            }
        }
        coordinator.drain();
        coordinator.net().shutdown().await;
        let replica = coordinator.replica().clone();
        drop(coordinator);
        // Tasks that hold a handle end with the runtime; the writer has nothing left to do by now.
        if let Err(failure) = replica.shut().await {
            tracing::error!(%failure, "the last writes are not on disk");
        }
        telemetry.shutdown(TELEMETRY_DEADLINE).await;
    }
}

fn net_options(config: &Config) -> crate::peer::Options {
    let mut options = crate::peer::Options::new(StdRng::from_rng(&mut outside::rng()));
    options.allow_cuts = config.allow_cuts;
    options
}

fn door(config: &Config, replica: &Replica) -> Door {
    let max_requests = config.max_requests.unwrap_or(MAX_REQUESTS);
    Door::new(replica.clone(), max_requests)
}

/// What runs users' WebAssembly, with what it kept.
async fn open_platform(config: &Config) -> anyhow::Result<Platform> {
    let resolvers = config.data_dir.join("resolvers");
    let compiler = std::env::current_exe().context("cannot find this executable")?;
    let settings = Settings::new(resolvers, compiler);
    let platform = outside::aside(move || Platform::open(settings)).await?;
    platform.context("cannot open the resolver platform")
}

/// The listeners for clients and, if it has one of its own, for operation; and where clients connect.
async fn listen(
    config: &Config,
    coordinator: &Coordinator,
    telemetry: &Telemetry,
    backups: backup::Source,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<(SocketAddr, Vec<tokio::task::JoinHandle<usize>>)> {
    let clients = bind(config.listen, "listen").await?;
    let address = clients.local_addr()?;
    let backend = backend::Backend::new(coordinator.clone(), telemetry.clone(), config, backups);
    let surface = match config.admin_listen {
        Some(_) => http::Surface::Clients,
        None => http::Surface::Whole,
    };
    let mut servers = vec![serve(clients, &backend, surface, config, stopped.clone())];
    if let Some(admin) = config.admin_listen {
        let admin = bind(admin, "admin-listen").await?;
        let surface = http::Surface::Admin;
        servers.push(serve(admin, &backend, surface, config, stopped.clone()));
    }
    Ok((address, servers))
}

fn serve(
    listener: outside::Listener,
    backend: &backend::Backend,
    surface: http::Surface,
    config: &Config,
    mut stopped: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<usize> {
    let limits = http::Limits::default();
    let options = http::Options {
        api: Arc::new(backend.clone()),
        surface,
        allow_cuts: config.allow_cuts,
        limits,
    };
    let server = http::Server {
        listener,
        router: http::router(&options),
        limits,
    };
    tokio::spawn(server.serve(async move {
        // Closed: the node is gone, and this with it.
        let _gone = stopped.wait_for(|stopped| *stopped).await;
    }))
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<outside::Listener> {
    let bound = outside::bind(address).await;
    bound.with_context(|| {
        format!("cannot listen on {address} (--{flag}): is another process there?")
    })
}

fn start_telemetry(config: &Config, me: &NodeId, first: &Document) -> anyhow::Result<Telemetry> {
    let collector = Collector::read(config.otlp_endpoint.as_deref(), |name| {
        std::env::var(name).ok()
    })?;
    Ok(Telemetry::start(telemetry::Settings {
        collector,
        node_id: me.clone(),
        cluster_id: first.cluster_id.clone(),
        service_name: std::env::var("OTEL_SERVICE_NAME").ok(),
        ratio: config.trace_ratio,
        trust_client_sampling: false,
    })?)
}

/// The store and what stands directly on it.
struct Store {
    replica: Replica,
    registry: Opened,
    watermark: Arc<Watermark>,
    actor: Actor,
}

/// Gossip over what stands already: the registry's members, the store's memory.
fn gossip(
    config: &Config,
    me: &NodeId,
    store: Actor,
    replica: &Replica,
    registry: &Opened,
    watermark: &Arc<Watermark>,
    telemetry: &Telemetry,
) -> gossip::Opened {
    let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let registry = registry.handle();
    gossip::Opened::new(gossip::Ground {
        me: me.clone(),
        store,
        timing: Timing {
            interval_ms: whole(config.gossip_interval),
            suspect_after_ms: whole(config.suspect_after),
        },
        replica: replica.clone(),
        watermark: Arc::clone(watermark),
        listed: listed::listed(&registry),
        on_behind: Box::new(move |member, number| registry.seen(member, number)),
        tracer: telemetry.tracer.clone(),
        metrics: Arc::clone(&telemetry.metrics),
    })
}

/// What the configuration says of this node's identity; the store says the rest.
fn nameless(config: &Config, me: &NodeId, first: &Document) -> Identity {
    Identity {
        cluster_id: first.cluster_id.clone(),
        node_id: me.clone(),
        store: 0,
        incarnation: 0,
        lineage: None,
        url: config.advertise.clone(),
    }
}

/// Opens the data folder. What contradicts itself is disowned and begun anew.
fn open_store(
    config: &Config,
    me: &NodeId,
    first: &Document,
    telemetry: &Telemetry,
) -> anyhow::Result<Store> {
    disk::refuse_unfinished(&config.data_dir)?;
    for _ in 0..MOST_STARTS {
        let opened = store::open(&config.data_dir.join("data"), || outside::rng().random())?;
        disk::report(&opened.start, telemetry);
        let store::Opened {
            store,
            watermark,
            counters,
            actor,
            counter,
            start: _,
        } = opened;
        if watermark.is_rebuilding() && first.layout.members.len() == 1 {
            // Nobody else holds anything: there is nothing to refill from.
            watermark.rebuilt()?;
        }
        let line = counter.saturating_sub(1);
        let replica = start_replica(
            config,
            store,
            &watermark,
            counters,
            (actor, line),
            telemetry,
        );
        let registry = Opened::open(crate::tasks::registry::Ground {
            me: me.clone(),
            store: actor,
            first: first.clone(),
            replica: replica.clone(),
            watermark: Arc::clone(&watermark),
            tracer: telemetry.tracer.clone(),
            metrics: Arc::clone(&telemetry.metrics),
        });
        match registry {
            Ok(registry) => {
                disk::report_origin(&replica);
                return Ok(Store {
                    replica,
                    registry,
                    watermark,
                    actor,
                });
            }
            Err(StartError::Contradiction(why)) => {
                tracing::error!(%why, "the registry's records contradict themselves: the store lost data");
                watermark.disown()?;
                replica.stop();
            }
            Err(StartError::Unreadable(why))
                if replica.store().damage().is_some() && first.layout.members.len() > 1 =>
            {
                tracing::error!(%why, "the storage engine's files are damaged");
                disk::give_up(&config.data_dir, &watermark)?;
                replica.stop();
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!(
        "{} contradicts itself even when begun anew: examine the disk",
        config.data_dir.display()
    )
}

fn start_replica(
    config: &Config,
    store: Arc<dyn store::Store>,
    watermark: &Arc<Watermark>,
    counters: store::Counters,
    (actor, line): (Actor, u64),
    telemetry: &Telemetry,
) -> Replica {
    let metrics = Arc::clone(&telemetry.metrics);
    Replica::start(replica::Ground {
        store,
        watermark: Some(Arc::clone(watermark)),
        counters: Box::new(counters),
        actor,
        line,
        hint_quota_bytes: disk::hint_quota(config),
        gauge: disk::gauge(config),
        observer: Box::new(move |group: Group| {
            metrics.storage(StorageOp::Put, group.apply);
            if let Some(sync) = group.sync {
                metrics.storage(StorageOp::Fsync, sync);
            }
        }),
    })
}

/// What forgets deleted keys, over what stands already.
fn reaping(config: &Config, beside: &AntiEntropy, telemetry: &Telemetry) -> Reaping {
    let (ground, leftover) = (beside.ground(), beside.clone());
    Reaping::new(reap::Ground {
        me: ground.me.clone(),
        door: ground.door.clone(),
        replica: ground.replica.clone(),
        net: ground.net.clone(),
        registry: ground.registry.clone(),
        interval: config.reap_interval,
        window_ms: RETRY_WINDOW_MS,
        leftover: Box::new(move || leftover.has_leftover()),
        now_ms: crate::coordinator::now_ms,
        metrics: Arc::clone(&telemetry.metrics),
    })
}

/// Begins to deliver what this node keeps for others.
fn deliver_hints(coordinator: &Coordinator, tracer: telemetry::Tracer, inbox: handoff::Inbox) {
    let (by, numbers) = (
        coordinator.registry().clone(),
        coordinator.registry().clone(),
    );
    let owners = move |slot: &replica::Slot| {
        let view = by.view();
        match view.bucket_of(slot.place.bucket) {
            Some((_, bucket)) => {
                let n = bucket.config.n;
                Owned::By(view.takers(slot.partition, n), n)
            }
            None if slot.place.bucket.0 <= view.number() => Owned::Gone,
            None => Owned::Unknown,
        }
    };
    let ground = handoff::Ground {
        me: coordinator.me().clone(),
        door: coordinator.door().clone(),
        replica: coordinator.replica().clone(),
        net: coordinator.net().clone(),
        metrics: coordinator.metrics(),
        tracer,
        owners: Box::new(owners),
        number: Box::new(move || numbers.view().number()),
        now_ms: crate::coordinator::now_ms,
    };
    tokio::spawn(handoff::run(ground, inbox, coordinator.registry().watch()));
}

/// What goes on beside requests.
fn look_after(coordinator: &Coordinator, config: &Config) {
    coordinator.reaping().start();
    tokio::spawn(follow_returns(coordinator.clone()));
    tokio::spawn(coordinator.clone().keep_up());
    tokio::spawn(coordinator.clone().sweep_up());
    let unnamed = coordinator.clone();
    tokio::spawn(unnamed.erase_unnamed(UNNAMED_GRACE, UNNAMED_EVERY));
    tokio::spawn(coordinator.clone().give_up_lost(config.down_after));
    tokio::spawn(disk::watch(coordinator.clone()));
    tokio::spawn(disk::watch_damage(coordinator.clone()));
}

/// Lets copies be compared and hints delivered when gossip says that somebody, or this node, was away.
async fn follow_returns(coordinator: Coordinator) {
    let (anti_entropy, handoff) = (coordinator.anti_entropy(), coordinator.handoff());
    let mut notices = coordinator.gossip().notices();
    loop {
        match notices.recv().await {
            Ok(Notice::Returned { member, .. }) => {
                anti_entropy.returned(&member);
                handoff.asked(member);
            }
            // Whoever misses some looks at everyone.
            Ok(Notice::WasSuspected { .. }) | Err(RecvError::Lagged(_)) => {
                anti_entropy.was_away();
                handoff.was_away();
            }
            Err(RecvError::Closed) => return,
        }
    }
}
