//! What goes wrong: cuts, crashes, wipes, bad disks; and what puts it right again.
//!
//! A restart raises the line to the end of the reserved counters. A wipe begins a new store under a new
//! actor, which mints nothing and whose reads do not count until it is filled again. Wipes keep to a budget:
//! one that would leave a promise on fewer than W other synced copies (in frail runs: on none), or the last
//! registry document nowhere, is spared, so that every loss found is a bug. An engine that is behind its watermark, or
//! does not open, is a wipe that the node finds out itself; a restored backup is one with memories.

use std::rc::Rc;

use sibyl::replica::leaves::Leaves;
use sibyl::store::{Batch, Space, Store as _};
use sibyl_core::registry::{Document, Faults, Machine, Member};

use super::reap::Part;
use super::registry::Registry;
use super::writer::{CHOSEN, Writer};
use super::{Event, NodeId, Process, World, actor};
use crate::checks::Violation;
use crate::draw::Draw;
use crate::oracle::Writes;
use crate::plan::{Entry, What};
use crate::sight::Sight;
use crate::zoo::Bug;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 7;
/// The longest until a node notices that a peer is gone or back.
const NOTICE_US: u64 = 30_000;

impl World {
    /// An entry of the plan takes place.
    pub(crate) fn enter(&mut self, entry: Entry) {
        if !matches!(entry.what, What::Ask { .. }) {
            self.note(&[13, u64::from(entry.id)], || {
                format!("#{} {:?}", entry.id, entry.what)
            });
        }
        match entry.what {
            What::Ask { .. } => self.wish(entry),
            What::Cut { from, to } => {
                self.network.cut(from, to);
                self.notice(from, to);
            }
            What::Heal { from, to } => {
                self.network.heal(from, to);
                self.notice(from, to);
            }
            What::Crash { node, down_us } => self.crash(node, down_us),
            What::Wipe { node, down_us } => self.wipe(node, down_us),
            What::Refill { node } => self.refill(node),
            What::Compare { node, peer } => self.compare(node, peer),
            What::SlowDisk { node, for_us } => {
                self.nodes[node].disk.slow_until_us = self.scheduler.now_us() + for_us;
            }
            What::BadSync { node } => self.nodes[node]
                .disk
                .store
                .fault(|faults| faults.fail_next_sync = true),
            What::Damage { node, key } => self.damage(node, key),
            What::Truncate {
                node,
                batches,
                down_us,
            } => self.truncate(node, batches, down_us),
            What::Refuse { node, down_us } => self.refuse(node, down_us),
            What::Backup { node } => {
                let records: Vec<_> = self.keys.iter().map(|key| key.record.clone()).collect();
                self.nodes[node].disk.back_up(CHOSEN, &records);
            }
            What::Restore { node, down_us } => self.restore(node, down_us),
            What::Full { node, for_us } => {
                self.nodes[node].disk.full_until_us = self.scheduler.now_us() + for_us;
            }
            What::Pause { node, for_us } => {
                if self.nodes[node].process.is_some() {
                    self.sights.met(Sight::Stood);
                    self.nodes[node].paused_until_us = self.scheduler.now_us() + for_us;
                }
            }
            What::Clog { from, to, for_us } => {
                let until_us = self.scheduler.now_us() + for_us;
                self.network.clog(from, to, until_us);
            }
            What::Change { node, which } => self.change(node, which, entry),
            What::Expel { node, who, dies } => self.expel(node, who, dies),
            What::Return { node } => self.bring_back(node),
            what @ (What::Leave { .. } | What::Join { .. } | What::Remove { .. }) => {
                self.change_members(what);
            }
        }
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: usize) {
        let this = &self.nodes[node];
        if this.process.is_some() || this.gone || this.giver.is_some() {
            return;
        }
        if this.disk.fenced.is_some() {
            return self.start_giving(node);
        }
        self.nodes[node].lives += 1;
        let machine = match self.open_machine(node) {
            Ok(machine) => machine,
            Err(violation) => return self.hold(Err(violation)),
        };
        let this = &mut self.nodes[node];
        let unraised = self.bug == Some(Bug::LineNotRaised);
        let reused = self.bug == Some(Bug::DotReuse);
        let (first, disk) = (actor(self.plan.seed, node, 0), &this.disk);
        let process = Process {
            life: this.lives,
            actor: if reused { first } else { disk.actor },
            store: disk.actor,
            rebuilding: disk.rebuilding && !reused,
            line: if unraised { 0 } else { disk.reserved - 1 },
            lines: Default::default(),
            counter: disk.reserved,
            writer: Writer::default(),
            placed: machine.held().document.owners(),
            since: machine.held().document.layout.since,
            transfer: Default::default(),
            numbers: vec![0; self.plan.setting.nodes],
            held: Rc::new(machine.held().clone()),
            registry: Registry::new(machine),
            reachable: vec![!self.plan.setting.senses; self.plan.setting.nodes],
            seen: 0,
            calls: Default::default(),
            handings: Default::default(),
            puts: Default::default(),
            gets: Default::default(),
            looking: Default::default(),
            leaves: Leaves::open(&disk.store),
            exchanges: Default::default(),
            compared: Default::default(),
            handoff: Default::default(),
            deliveries: Default::default(),
            healing: Default::default(),
            part: Part::new(this.id.clone(), disk.actor, disk.epoch),
            taking: Default::default(),
            judging: Default::default(),
            ids: 0,
        };
        this.number = process.held.document.number;
        let (number, digest) = (this.number, process.held.digest);
        this.process = Some(process);
        self.note(&[14, node as u64], || format!("n{node} starts"));
        if number > 1 {
            // A batch that was not synced may survive a crash: the document in it is in force now.
            let once = self.chosen.take(number, digest);
            self.hold(once);
        }
        self.check_leaves(node);
        self.open_leaves(node);
        self.notice_all(node);
        self.open_registry(node);
        self.open_handoff(node);
        self.look_at_owners(node);
        self.open_reaping(node);
        self.open_judging(node);
        self.look_at_removal(node);
    }

    /// The registry's machine of what the disk holds.
    fn open_machine(&self, node: usize) -> Result<Machine, Violation> {
        let this = &self.nodes[node];
        let kept = this.disk.store.get(Space::Meta, CHOSEN);
        let kept = kept.expect("no read fault is switched on");
        let opened = Machine::open(
            this.id.clone(),
            this.disk.actor,
            self.first.clone(),
            kept.as_deref(),
            this.disk.promises.as_deref(),
        );
        let poll = self.bug == Some(Bug::PolledLayouts);
        let faults = Faults {
            poll,
            ..Faults::default()
        };
        let machine = opened.map_err(|error| Violation {
            check: "what was synced can be opened",
            found: format!("n{node} cannot open its registry: {error}"),
        })?;
        Ok(machine.with_faults(faults))
    }

    /// A process dies, and starts again later.
    pub(crate) fn crash(&mut self, node: usize, down_us: u64) {
        if self.nodes[node].giver.take().is_some() {
            let seed = self.plan.seed;
            self.nodes[node].disk.crash(seed, node);
            return self.scheduler.after(down_us, Event::Start { node });
        }
        if self.nodes[node].process.is_some() {
            self.die(node);
            self.scheduler.after(down_us, Event::Start { node });
        }
    }

    /// Every record is read once, as clients and listings would in the end.
    pub(crate) fn look_for_damage(&mut self) {
        for node in 0..self.nodes.len() {
            for key in 0..self.keys.len() {
                if self.nodes[node].process.is_some() && self.is_holder(node, key) {
                    let _noted = self.read(node, key);
                }
            }
        }
    }

    pub(crate) fn die(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.take() else {
            return;
        };
        let minted = process
            .puts
            .values()
            .any(|writing| writing.minted.is_some());
        if this.disk.crash(self.plan.seed, node) {
            self.sights.met(Sight::UnsyncedLost);
            if minted {
                self.sights.met(Sight::MintLost);
            }
        }
        self.note(&[15, node as u64], || format!("n{node} is dead"));
        self.read_disk(node);
        (0..self.keys.len()).for_each(|key| self.check_durable(key));
        self.break_requests(node);
        self.notice_all(node);
    }

    /// What the synced copies hold, read back from the disk.
    fn read_disk(&mut self, node: usize) {
        for key in 0..self.keys.len() {
            // What may still be set aside nobody counts on.
            let disk = &self.nodes[node].disk;
            let counts =
                disk.image.is_none() || disk.shown.contains(&self.keys[key].slot.partition);
            let object = self.held(node, key);
            let synced = self.oracle.held(key, &object);
            self.nodes[node].synced[key] = if counts { synced } else { Writes::default() };
        }
    }

    fn wipe(&mut self, node: usize, down_us: u64) {
        if self.nodes[node].process.is_none() || !self.lose(node) {
            return self.sights.met(Sight::WipeSpared);
        }
        self.sights.met(Sight::Wiped);
        self.nodes[node].disk.rebuilding = true;
        self.scheduler.after(down_us, Event::Start { node });
    }

    /// The engine comes back without its last batches, and its node finds out by the watermark.
    fn truncate(&mut self, node: usize, batches: u64, down_us: u64) {
        if self.nodes[node].process.is_none() || !self.may_wipe(node) {
            return self.sights.met(Sight::WipeSpared);
        }
        self.die(node);
        let held: Vec<Writes> = self.nodes[node].synced.clone();
        let chosen = self.nodes[node].disk.store.get(Space::Meta, CHOSEN);
        let is_whole = self.nodes[node].disk.truncate(batches);
        if self.bug == Some(Bug::WatermarkIgnored) {
            // The registry's promises would find it out: only data is lost here.
            let mut batch = Batch::new();
            if let Ok(Some(chosen)) = chosen {
                batch.put(Space::Meta, CHOSEN, chosen);
            }
            let store = &self.nodes[node].disk.store;
            store.fault(|faults| faults.fail_next_sync = false);
            let kept = store.apply(batch).and_then(|()| store.sync());
            kept.expect("a reopened store takes what it held");
        }
        if !is_whole && self.bug != Some(Bug::WatermarkIgnored) {
            self.sights.met(Sight::Behindhand);
            self.forget_disk(node);
            self.nodes[node].disk.rebuilding = true;
        } else {
            self.read_disk(node);
            for (held, left) in held.into_iter().zip(self.nodes[node].synced.clone()) {
                for write in held.without(left).iter() {
                    self.oracle.writes[write].destroyed += 1;
                }
            }
        }
        self.scheduler.after(down_us, Event::Start { node });
    }

    /// The engine refuses to open.
    fn refuse(&mut self, node: usize, down_us: u64) {
        if self.nodes[node].process.is_none() || !self.may_wipe(node) {
            return self.sights.met(Sight::WipeSpared);
        }
        self.die(node);
        if !self.nodes[node].disk.refuse() {
            self.sights.met(Sight::Refused);
            self.forget_disk(node);
            self.nodes[node].disk.rebuilding = true;
        }
        self.scheduler.after(down_us, Event::Start { node });
    }

    /// An operator puts a node's backup in the place of its disk: another actor, with memories.
    fn restore(&mut self, node: usize, down_us: u64) {
        let this = &self.nodes[node];
        if this.process.is_none() || !this.disk.has_backup() || !self.lose(node) {
            return self.sights.met(Sight::WipeSpared);
        }
        self.sights.met(Sight::Restored);
        let partitions: Vec<_> = self.keys.iter().map(|key| key.slot.partition).collect();
        let reaps = self.plan.setting.reaps;
        let disk = &mut self.nodes[node].disk;
        disk.rebuilding = true;
        disk.restore();
        disk.spoiled.extend(partitions);
        if !reaps {
            // Nobody ever has a horizon.
            disk.image = None;
        }
        if self.bug == Some(Bug::BackupGoesOn) {
            disk.pretend();
        }
        self.read_disk(node);
        self.scheduler.after(down_us, Event::Start { node });
    }

    /// A node dies and loses its disk, unless a promise hangs on it; answers whether it did. What starts on the
    /// next one may be a member or not.
    pub(crate) fn lose(&mut self, node: usize) -> bool {
        if !self.may_wipe(node) {
            return false;
        }
        self.die(node);
        self.forget_disk(node);
        true
    }

    /// What lay on a dead node's disk is gone.
    pub(crate) fn forget_disk(&mut self, node: usize) {
        for write in self.nodes[node].synced.iter().flat_map(|copy| copy.iter()) {
            self.oracle.writes[write].destroyed += 1;
        }
        let this = &mut self.nodes[node];
        this.stores += 1;
        this.disk.wipe(actor(self.plan.seed, node, this.stores));
        this.number = 1;
        this.synced.fill(Writes::default());
        (0..self.keys.len()).for_each(|key| self.check_durable(key));
    }

    /// Whether all promises can be kept without this node's disk.
    fn may_wipe(&self, node: usize) -> bool {
        // What lies on a store that is to be removed, or was, lies there alone.
        if self.nodes[node].parted {
            return false;
        }
        let others = || {
            self.nodes
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != node)
        };
        let highest = self.chosen.highest();
        // A removed store does not tell anybody.
        let tells = |other: &super::Node| other.number >= highest && !other.parted;
        let documented = highest < 2 || others().any(|(_, other)| tells(other));
        let keys = 0..self.keys.len();
        documented
            && self.majority_without(node)
            && keys.into_iter().all(|key| self.may_lose(node, key))
    }

    /// Whether all promises can be kept without this node's copy of a key.
    pub(crate) fn may_lose(&self, node: usize, key: usize) -> bool {
        // An acknowledgement of this copy may be on its way to a client that waits.
        let relied_on = |write: &usize| {
            let minted = &self.oracle.writes[*write];
            minted.promised.is_some() || self.requests[minted.request].answers == 0
        };
        let needed = if self.plan.setting.frail {
            1
        } else {
            self.plan.setting.w
        };
        // Hints do not count: they may be forgotten on a word that this node has given already.
        let owners = self.owners_now(key).into_iter();
        let others: Vec<usize> = owners.filter(|other| *other != node).collect();
        let keepable = |write: usize| {
            let holds = |other: &&usize| self.nodes[**other].synced[key].contains(write);
            others.iter().filter(holds).count() >= needed
        };
        let here = self.nodes[node].synced[key].iter();
        here.filter(relied_on).all(keepable)
    }

    /// Whether enough stores that the registry names are left to name another one. Without them a lost store is
    /// an operator's business, and stays lost here. A document that was accepted may be chosen already, though
    /// nobody knows it yet.
    pub(crate) fn majority_without(&self, node: usize) -> bool {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let newest = processes.max_by_key(|process| process.held.document.number);
        let held = newest.map(|process| &process.held.document);
        if !self.votes_without(node, held) {
            return false;
        }
        (0..self.nodes.len()).all(|other| {
            let machine = self.open_machine(other).ok();
            let accepted = machine.as_ref().and_then(Machine::accepted);
            accepted.is_none_or(|accepted| self.votes_without(node, Some(accepted)))
        })
    }

    /// With a document, and with the one after it if somebody is about to leave by that.
    fn votes_without(&self, node: usize, document: Option<&Document>) -> bool {
        let Some(document) = document else {
            let whole = |other: &usize| *other != node && self.nodes[*other].stores == 0;
            return (0..self.nodes.len()).filter(whole).count() * 2 > self.nodes.len();
        };
        let members = &document.layout.members;
        let votes = |(id, member): &(&NodeId, &Member)| {
            let other = self.index(id);
            let disk = &self.nodes[other].disk;
            let named = member.store.map(|store| store == disk.actor);
            other != node && named.unwrap_or(self.nodes[other].stores == 0)
        };
        // Who is no member may be about to become one, with the store that is lost now.
        let joins = usize::from(!members.contains_key(&self.nodes[node].id));
        let enough = |stay: &dyn Fn(&NodeId, &Member) -> bool| {
            let left = members.iter().filter(|(id, member)| stay(id, member));
            left.clone().filter(votes).count() * 2 > left.count() + joins
        };
        // Whom somebody wants to have removed may be gone by the next document, too.
        let parted = |id: &NodeId| self.nodes[self.index(id)].parted;
        enough(&|_, _| true)
            && enough(&|_, member| !member.leaving)
            && enough(&|id, _| !parted(id))
            && enough(&|id, member| !member.leaving && !parted(id))
    }

    /// A node compares its copies with all others now.
    pub(crate) fn refill(&mut self, node: usize) {
        (0..self.nodes.len()).for_each(|peer| self.compare(node, peer));
    }

    /// Both ends of a link look at it soon, if nodes notice such things.
    fn notice(&mut self, a: usize, b: usize) {
        if !self.plan.setting.senses || a == b {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            let link = (node * self.nodes.len() + peer) as u64;
            let mut draw = Draw::of(self.plan.seed, PURPOSE + link * 64, self.scheduler.now_us());
            self.scheduler
                .after(1 + draw.below(NOTICE_US), Event::Sense { node, peer });
        }
    }

    fn notice_all(&mut self, node: usize) {
        (0..self.nodes.len()).for_each(|peer| self.notice(node, peer));
    }

    /// The faults are over: all links are whole and lose nothing, all disks are well.
    pub(crate) fn calm_down(&mut self) {
        self.network.calm();
        for node in &mut self.nodes {
            node.disk.slow_until_us = 0;
            node.disk.full_until_us = 0;
            node.paused_until_us = 0;
            node.disk
                .store
                .fault(|faults| faults.fail_next_sync = false);
        }
        self.note(&[17], || "all is calm".into());
        self.mend_members();
        (0..self.nodes.len()).for_each(|node| self.bring_back(node));
        (0..self.nodes.len()).for_each(|node| self.notice_all(node));
    }
}
