//! The shell under turmoil: real routers, peers and tasks of whole nodes on a simulated network and clock.
//!
//! Each seed is a cluster, clients that write down what they were told, and a plan of cuts, messages that wait, slow
//! links and power failures. Then all is healed, the cluster must come to rest, and `chaos::judge` goes through the
//! record. Everything happens on one thread, so that a seed repeats its run; the first seed of each batch runs twice
//! and must do the same to the byte. `SIBYL_TURMOIL_SEED=7 SIBYL_TURMOIL_SEEDS=500 cargo test -p sibyl --test it
//! turmoil::` runs other batches. What is replaced, and what is not simulated, says decision 16, and which planted bugs
//! are found.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

#[cfg(not(tokio_unstable))]
compile_error!(
    "turmoil cannot seed tokio: build with .cargo/config.toml, whose flags RUSTFLAGS in the environment replaces"
);

mod client;
mod plan;
mod referee;
mod stand;
mod trace;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ::turmoil::{Builder, Sim};
use sibyl::config::{Config, FLAGS, Layer, Settings};
use sibyl::node::{Ended, run_until};
use tokio::sync::watch;

use crate::chaos::judge::{Record, judge, judge_reads};
use crate::flips::{Draw, number};
use client::{Client, Field};
use plan::{Fault, Planned};
use referee::{Findings, Referee};
use stand::{Around, Disks, Holds, Places};
use trace::{Event, Trace};

/// Seeds in a run of all tests.
const SEEDS: usize = 24;
/// The first of them.
const SEED: usize = 1;
/// One seed of so many runs twice, and always the first.
const TWICE: usize = 100;
/// Where nodes listen for clients, and for one another.
const HTTP: u16 = 80;
const PEERS: u16 = 7000;
/// The most by which a node's clock is wrong, either way.
const MOST_OFF_MS: usize = 90_000;
/// Clients that write at once.
const CLIENTS: usize = 3;
/// One step of the simulation; messages arrive between steps.
const TICK: Duration = Duration::from_millis(2);
/// A run that takes longer than this has not come to rest, in simulated time.
const LONGEST: Duration = Duration::from_secs(180);
/// A cluster that takes longer than this to be whole has lost something it said, in simulated time: dialling, naming
/// all stores and making a bucket are some twenty messages and a dozen syncs, one after the other, of which few are
/// slow. The slowest of the first 24 seeds takes 0.82 s; what is lost is said again much later.
const WHOLE_WITHIN: Duration = Duration::from_millis(1200);
/// Messages usually take up to this long.
const LATENCY: Duration = Duration::from_millis(12);
/// On a slow link they take up to this long.
const SLOW: Duration = Duration::from_millis(700);

/// What came of a run.
struct Outcome {
    trace: Vec<Event>,
    /// How long the cluster took to be whole.
    formed: Duration,
    /// What is wrong; empty if nothing is.
    wrong: Vec<String>,
    acknowledged: usize,
}

#[test]
fn whatever_a_client_was_told_still_holds() {
    let (first, seeds) = (
        number("SIBYL_TURMOIL_SEED", SEED),
        number("SIBYL_TURMOIL_SEEDS", SEEDS),
    );
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        return;
                    }
                    if let Err(why) = check(first + at, at % TWICE == 0) {
                        failed.lock().unwrap().push((first + at, why));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (seed, why) in &failed {
        eprintln!("seed {seed}: {why}");
        eprintln!(
            "repeat with: SIBYL_TURMOIL_SEED={seed} SIBYL_TURMOIL_SEEDS=1 cargo test -p sibyl --test it turmoil::"
        );
    }
    let seeds: Vec<_> = failed.iter().map(|(seed, _)| seed).collect();
    assert!(failed.is_empty(), "seeds {seeds:?} failed");
}

/// Runs a seed, twice if asked to.
fn check(seed: usize, twice: bool) -> Result<(), String> {
    let outcome = run(seed)?;
    println!(
        "seed {seed}: whole after {:?}, {} acknowledged, {} events, {:016x}",
        outcome.formed,
        outcome.acknowledged,
        outcome.trace.len(),
        trace::hash_of(&outcome.trace)
    );
    if outcome.formed > WHOLE_WITHIN {
        let formed = outcome.formed;
        return Err(format!(
            "it took {formed:?} to be whole: something was lost"
        ));
    }
    if !outcome.wrong.is_empty() {
        return Err(format!("{:#?}", outcome.wrong));
    }
    if twice {
        let again = run(seed)?;
        if let Some(difference) = trace::difference(&outcome.trace, &again.trace) {
            return Err(format!("its two runs differ {difference}"));
        }
    }
    Ok(())
}

/// Runs a seed on a thread of its own, which is replaced for good.
fn run(seed: usize) -> Result<Outcome, String> {
    let running = move || catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
    let thread = std::thread::Builder::new().name(format!("seed-{seed}"));
    let ended = thread.spawn(running).unwrap().join();
    let panicked = |cause: Box<dyn std::any::Any + Send>| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("it panicked: {}", text.unwrap_or_default())
    };
    ended.map_err(panicked)?.map_err(panicked)?
}

/// A run.
struct World {
    sim: Sim<'static>,
    field: Field,
    findings: Findings,
    plan: Vec<Planned>,
    holds: Holds,
    /// Nodes' folders, for as long as it runs.
    _folder: tempfile::TempDir,
}

/// A generator for one purpose: what one draws changes nothing for others.
fn draw(seed: usize, purpose: u64) -> Draw {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (purpose << 40 | purpose);
    let mut draw = Draw(mixed | 1);
    // Seeds that are near one another draw alike at first.
    for _ in 0..8 {
        draw.below(2);
    }
    draw
}

impl World {
    fn new(seed: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::default();
        let (holds, places) = (Holds::default(), Places::default());
        let mut shape = draw(seed, 3);
        sibyl::outside::replace(Around {
            trace: trace.clone(),
            draw: Rc::new(Mutex::new(draw(seed, 1))),
            holds: holds.clone(),
            places: places.clone(),
            // Every other cluster lies on disks that are slow all the time.
            slow_disks: shape.below(2) == 0,
        });
        sibyl::store::engine::replace(Disks {
            stores: Mutex::default(),
            draw: Rc::new(Mutex::new(draw(seed, 2))),
            forgets_all: shape.below(2) == 0,
            trace: trace.clone(),
        });
        let count = [3, 4, 5, 5][shape.below(4)];
        let mut sim = Builder::new()
            .epoch(SystemTime::UNIX_EPOCH)
            .simulation_duration(LONGEST)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY)
            .tcp_capacity(4096)
            .enable_random_order()
            .rng_seed(seed as u64)
            .build();
        let nodes: Vec<String> = (1..=count).map(|at| format!("n{at}")).collect();
        for node in &nodes {
            let config = config(node, &nodes, folder.path());
            // One clock of two is wrong.
            let off_ms = match shape.below(2) {
                0 => 0,
                _ => shape.below(2 * MOST_OFF_MS) as i64 - MOST_OFF_MS as i64,
            };
            let places = places.clone();
            sim.host(node.as_str(), move || {
                let (places, config) = (places.clone(), config.clone());
                async move {
                    places.clock_is_off(off_ms);
                    serve(config).await
                }
            });
        }
        let field = Field {
            nodes: Rc::new(nodes),
            record: Rc::new(RefCell::new(Record::default())),
            trace,
            open: Rc::new(Cell::new(false)),
            over: Rc::new(Cell::new(false)),
        };
        for name in 0..CLIENTS {
            let mut client = Client::new(name, draw(seed, 10 + name as u64), field.clone());
            sim.client(format!("client-{name}"), async move {
                client.run().await;
                Ok(())
            });
        }
        let findings = Findings::default();
        let plan = plan::plan(&mut draw(seed, 4), count);
        let mut world = Self {
            sim,
            field,
            findings,
            plan,
            holds,
            _folder: folder,
        };
        world.add_referee();
        world
    }

    fn add_referee(&mut self) {
        let referee = Referee::new(self.field.clone(), self.findings.clone());
        let over = Rc::clone(&self.field.over);
        self.sim.client("referee", async move {
            referee.begin().await;
            while !over.get() {
                tokio::time::sleep(TICK * 10).await;
            }
            referee.end().await;
            Ok(())
        });
    }

    fn run(mut self) -> Result<Outcome, String> {
        let mut began = None;
        let (mut begun, mut ended) = (0, vec![false; self.plan.len()]);
        loop {
            if let Some(began) = began {
                let since: Duration = self.sim.elapsed() - began;
                while begun < self.plan.len() && self.plan[begun].from <= since {
                    let fault = self.plan[begun].fault;
                    self.suffer(fault);
                    begun += 1;
                    if fault.is_power() {
                        // What else is wrong with its links stays so.
                        let links = (0..begun - 1).filter(|at| !ended[*at]);
                        let links: Vec<_> = links.map(|at| self.plan[at].fault).collect();
                        let links = links.into_iter().filter(|it| !it.is_power());
                        links.for_each(|fault| self.suffer(fault));
                    }
                }
                for (at, ended) in ended.iter_mut().enumerate().take(begun) {
                    if !*ended && self.plan[at].until <= since {
                        *ended = true;
                        self.mend(self.plan[at].fault);
                    }
                }
                if since > plan::DURING && !self.field.over.get() {
                    self.field.over.set(true);
                }
            } else if self.field.open.get() {
                began = Some(self.sim.elapsed());
            }
            match self.sim.step() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let waits = self.findings.waits.borrow();
                    return Err(format!(
                        "{error}; last seen waiting: {waits}; {}",
                        self.told()
                    ));
                }
            }
        }
        let shown = self.findings.shown.borrow_mut().take();
        let shown = shown.ok_or("the referee found nothing")?;
        let record = self.field.record.borrow();
        let mut wrong = judge(&record, &shown);
        wrong.extend(judge_reads(&record));
        let mut told: Vec<_> = wrong.iter().map(|it| it.tell(&record, &shown)).collect();
        if !told.is_empty() {
            told.push(self.told());
        }
        Ok(Outcome {
            trace: self.field.trace.take(),
            formed: began.unwrap_or_default(),
            wrong: told,
            acknowledged: record.acknowledged(),
        })
    }

    /// The plan, for whoever wants to know what happened.
    fn told(&self) -> String {
        format!("{} nodes, {:#?}", self.field.nodes.len(), self.plan)
    }

    fn suffer(&mut self, fault: Fault) {
        self.field.trace.say(format!("begins: {fault:?}"));
        let name = |at: usize| self.field.nodes[at].clone();
        match fault {
            Fault::Cut(a, b) => self.sim.partition(name(a), name(b)),
            Fault::CutOneWay(a, b) => self.sim.partition_oneway(name(a), name(b)),
            Fault::Hold(a, b) => self.sim.hold(name(a), name(b)),
            Fault::Slow(a, b) => self
                .sim
                .set_link_max_message_latency(name(a), name(b), SLOW),
            Fault::HoldOneWay(a, b) => self.holds.begin(self.place(a), self.place(b)),
            Fault::Crash(at) => self.take_power(at),
            Fault::Blackout => (0..self.field.nodes.len()).for_each(|at| self.take_power(at)),
        }
    }

    fn place(&self, at: usize) -> IpAddr {
        self.sim.lookup(self.field.nodes[at].as_str())
    }

    /// A node without power says no farewell: connections of its end without a word. Otherwise the order in which
    /// tokio drops its tasks, which hangs on ids that the process counts, would be seen by others.
    fn take_power(&mut self, at: usize) {
        let node = self.field.nodes[at].clone();
        let clients = (0..CLIENTS).map(|name| format!("client-{name}"));
        let others = self.field.nodes.iter().filter(|it| **it != node).cloned();
        let others: Vec<_> = others
            .chain(clients)
            .chain(["referee".to_owned()])
            .collect();
        for other in &others {
            self.sim.partition(node.as_str(), other.as_str());
        }
        self.sim.crash(node.as_str());
        for other in &others {
            self.sim.repair(node.as_str(), other.as_str());
        }
    }

    fn mend(&mut self, fault: Fault) {
        self.field.trace.say(format!("ends: {fault:?}"));
        let name = |at: usize| self.field.nodes[at].clone();
        match fault {
            Fault::Cut(a, b) | Fault::CutOneWay(a, b) => self.sim.repair(name(a), name(b)),
            Fault::Hold(a, b) => self.sim.release(name(a), name(b)),
            Fault::Slow(a, b) => self
                .sim
                .set_link_max_message_latency(name(a), name(b), LATENCY),
            Fault::HoldOneWay(a, b) => self.holds.end(self.place(a), self.place(b)),
            Fault::Crash(at) => self.sim.bounce(name(at)),
            Fault::Blackout => self
                .field
                .nodes
                .iter()
                .for_each(|node| self.sim.bounce(node.as_str())),
        }
    }
}

/// One node, as its process would run it: again, where it says so.
async fn serve(config: Config) -> ::turmoil::Result {
    let (_tell, told) = watch::channel(false);
    // Ends: a node that is told to stop by nobody gives itself up at most once for each damage.
    loop {
        match run_until(config.clone(), told.clone()).await {
            Ok(Ended::Told) => return Ok(()),
            Ok(Ended::GivenUp | Ended::Fenced) => {}
            Err(error) => return Err(format!("{}: {error:#}", config.node_id).into()),
        }
    }
}

fn config(node: &str, nodes: &[String], folder: &Path) -> Config {
    let members: Vec<_> = nodes
        .iter()
        .map(|id| format!("{id}={id}:{PEERS}"))
        .collect();
    let mut settings = Settings::default();
    let mut set = |name: &str, value: String| {
        let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap();
        settings.set(flag, Layer::Flag, value);
    };
    set("node-id", node.to_owned());
    set("cluster-id", "turmoil".to_owned());
    set("members", members.join(","));
    set("listen", format!("0.0.0.0:{HTTP}"));
    set("advertise", format!("http://{node}:{HTTP}"));
    set("peer-listen", format!("0.0.0.0:{PEERS}"));
    set("peer-advertise", format!("{node}:{PEERS}"));
    set("data-dir", folder.join(node).to_str().unwrap().to_owned());
    set("insecure", "true".to_owned());
    set("partitions", "8".to_owned());
    set("gossip-interval", "300ms".to_owned());
    set("suspect-after", "2s".to_owned());
    set("reap-interval", "400ms".to_owned());
    set("hint-quota-bytes", (64 << 20).to_string());
    set("trace-ratio", "0".to_owned());
    Config::resolve(&settings).unwrap()
}
