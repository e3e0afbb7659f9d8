//! Recorded load under a seeded plan of faults: afterwards every acknowledged write is accounted for.
//!
//! Each round does a fault, mostly with another beside it, while clients write through all nodes and record what
//! they asked and what they were told. Then all is healed, the cluster comes to rest, and `judge` goes through the
//! whole record. A failure prints seed, plan and round; `SIBYL_CHAOS_SEED` repeats them, though threads and disks
//! have their own mind. `SIBYL_CHAOS_ROUNDS` says how many rounds: some in all tests, more in `.ci/run chaos`, as
//! many as you like by `SIBYL_CHAOS_ROUNDS=500 cargo test -p sibyl --test it chaos::`.
//! Within the promise: W = 2 synced disks stand one lost disk. So at most one is lost in a round, and the next round
//! begins when every key has all its copies again and no hint is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod faults;
pub(crate) mod judge;
mod judge_tests;
pub(crate) mod load;
mod plan;
pub(crate) mod rest;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::ask::put_bucket;
use crate::flips::number;
use crate::nodes::{Cluster, Node, until};
use faults::Field;
use judge::Record;
use load::Client;

/// Rounds in a run of all tests.
const ROUNDS: usize = 7;
/// With it, those rounds have a fault of every kind.
const SEED: usize = 365;
/// Clients that write at once; each has a connection at a time.
const CLIENTS: usize = 4;
/// Acknowledged writes while a fault lasts.
const DURING: usize = 25;
/// The members at the beginning.
const MEMBERS: usize = 4;
/// Gossip is quick, so that a node that died is suspected within a round.
const FLAGS: &[&str] = &[
    "--allow-cuts",
    "--partitions=16",
    "--gossip-interval=800ms",
    "--suspect-after=5s",
];

/// Sets a flag when it goes: however a round or a client ends, the others must.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Says what repeats a run that failed.
struct Story {
    seed: usize,
    plan: Vec<plan::Round>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let rounds = self.plan.len();
            eprintln!(
                "repeat with: SIBYL_CHAOS_SEED={} SIBYL_CHAOS_ROUNDS={rounds}",
                self.seed
            );
            for (at, round) in self.plan.iter().enumerate() {
                eprintln!("round {at}: {round:?}");
            }
        }
    }
}

#[test]
fn every_acknowledged_write_is_accounted_for() {
    let seed = number("SIBYL_CHAOS_SEED", SEED);
    let rounds = number("SIBYL_CHAOS_ROUNDS", ROUNDS);
    let story = Story {
        seed,
        plan: plan::plan(seed as u64, rounds, MEMBERS),
    };
    let mut cluster = Cluster::plan(MEMBERS, FLAGS);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_whole();
    let config = json!({ "max_siblings": 1000 });
    cluster.nodes[0]
        .ask(&put_bucket(load::BUCKET, &config))
        .expect(201);
    let mut field = Field::new(cluster, FLAGS);
    let record = Mutex::new(Record::default());
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|name| Client::new(name, seed as u64))
        .collect();
    for (at, round) in story.plan.iter().enumerate() {
        println!("round {at}: {round:?}");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stopper = Stopper(&stop);
            for client in &mut clients {
                let (stop, record, nodes) = (&stop, &record, field.addresses());
                scope.spawn(move || {
                    let _ended = Stopper(stop);
                    client.run(&nodes, stop, record);
                });
            }
            field.suffer(round, &|what| wait_written(&record, &stop, what));
            drop(stopper);
        });
        field.recover(round);
        let shown = rest::reach(&field, &record.lock().unwrap().keys());
        let mut record = record.lock().unwrap();
        let mut wrong = judge::judge(&record, &shown);
        wrong.extend(judge::judge_reads(&record));
        record.reads.clear();
        let told: Vec<String> = wrong
            .iter()
            .map(|wrong| wrong.tell(&record, &shown))
            .collect();
        assert!(
            told.is_empty(),
            "seed {seed}, round {at}, {round:?}: {told:#?}"
        );
        println!(
            "round {at}: {} writes asked for, {} acknowledged",
            record.writes.len(),
            record.acknowledged()
        );
    }
}

/// Waits until so many more writes were acknowledged.
#[track_caller]
fn wait_written(record: &Mutex<Record>, stop: &AtomicBool, what: &str) {
    let acknowledged = || record.lock().unwrap().acknowledged();
    let from = acknowledged();
    until(what, || {
        assert!(!stop.load(Ordering::Relaxed), "a client failed");
        match acknowledged() - from {
            DURING.. => Ok(()),
            some => Err(format!("{some} acknowledged")),
        }
    });
}
