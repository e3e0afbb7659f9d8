//! Links between nodes: delay, loss, doubling, overtaking, clogs, and cuts of one direction.
//!
//! What happens to a message is drawn from the seed, its link and its number on that link. A cut loses
//! what is sent while it lasts and what is under way when it begins. Nothing here knows what a message says.

use std::collections::{BTreeMap, BTreeSet};

use crate::draw::Draw;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 1;
/// The least delay of a message.
const LEAST_US: u64 = 50;
/// Of 1,000 messages so many are stuck for a while.
const STUCK: u64 = 15;

/// The mean delay when all is calm.
const CALM_DELAY_US: u64 = 1_000;

/// What a run's links are like.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// How many nodes they join.
    pub nodes: usize,
    /// Messages lost, of 1,000.
    pub lost: u64,
    /// Messages that come twice, of 1,000.
    pub doubled: u64,
    /// Mean delay of a message.
    pub delay_us: u64,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after so long, once or twice.
    Arrives(Vec<u64>),
    /// It is lost by chance.
    Lost,
    /// Its direction is cut.
    Cut,
}

/// The links of a run.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    nodes: usize,
    lost: u64,
    doubled: u64,
    stuck: u64,
    delay_us: u64,
    cut: BTreeSet<(usize, usize)>,
    /// Until when what is sent in a direction waits.
    clogged: BTreeMap<(usize, usize), u64>,
    sent: Vec<u64>,
}

impl Network {
    /// Whole links.
    pub fn new(seed: u64, links: Links) -> Self {
        let Links {
            nodes,
            lost,
            doubled,
            delay_us,
        } = links;
        Self {
            seed,
            nodes,
            lost,
            doubled,
            stuck: STUCK,
            delay_us,
            cut: BTreeSet::new(),
            clogged: BTreeMap::new(),
            sent: vec![0; nodes * nodes],
        }
    }

    /// Cuts a direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Mends a direction.
    pub fn heal(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
    }

    /// Until then what is sent in this direction waits.
    pub fn clog(&mut self, from: usize, to: usize, until_us: u64) {
        self.clogged.insert((from, to), until_us);
    }

    /// How long what is sent in this direction now waits.
    pub fn waits(&self, from: usize, to: usize, now_us: u64) -> u64 {
        let until_us = self.clogged.get(&(from, to)).copied();
        until_us.unwrap_or_default().saturating_sub(now_us)
    }

    /// Mends everything; nothing is lost, stuck or slow any more.
    pub fn calm(&mut self) {
        self.cut.clear();
        self.clogged.clear();
        (self.lost, self.doubled, self.stuck) = (0, 0, 0);
        self.delay_us = self.delay_us.min(CALM_DELAY_US);
    }

    /// Whether messages of this direction pass.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether two nodes can hold a connection: both directions pass.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Sends a message; one that must not come twice says so.
    pub fn send(&mut self, from: usize, to: usize, once: bool) -> Fate {
        let link = from * self.nodes + to;
        self.sent[link] += 1;
        let mut draw = Draw::of(self.seed, PURPOSE + (link as u64) * 64, self.sent[link]);
        let delay = |draw: &mut Draw| {
            let stuck = if draw.chance(self.stuck) { 20 } else { 1 };
            LEAST_US + draw.around(self.delay_us) * stuck
        };
        let (lost, doubled) = (draw.chance(self.lost), draw.chance(self.doubled));
        let first = delay(&mut draw);
        if !self.passes(from, to) {
            return Fate::Cut;
        }
        match (lost, doubled && !once) {
            (true, _) => Fate::Lost,
            (false, true) => Fate::Arrives(vec![first, delay(&mut draw)]),
            (false, false) => Fate::Arrives(vec![first]),
        }
    }
}
