//! Does to real processes what the plan says, and undoes it.
//!
//! A fault is begun, the load goes on for a while, and what can be healed is healed: that is `suffer`. What has to
//! follow once the load is over is `recover`. Invariant: after both, every member that should be there runs.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::plan::{Fault, Round};
use super::rest;
use crate::ask::{get, post};
use crate::flips::{Draw, files, flip};
use crate::nodes::{Cluster, Node, until};

/// The nodes, as they come and go.
pub(super) struct Field {
    cluster: Cluster,
    flags: &'static [&'static str],
}

impl Field {
    pub(super) fn new(cluster: Cluster, flags: &'static [&'static str]) -> Self {
        Self { cluster, flags }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.cluster.nodes
    }

    pub(super) fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.nodes().iter().map(|node| node.http).collect()
    }

    fn at(&mut self, id: &str) -> &mut Node {
        let found = self.cluster.nodes.iter_mut().find(|node| node.id == id);
        found.expect("the plan names members")
    }

    /// A fault and what is beside it, while `wait` waits for more load.
    pub(super) fn suffer(&mut self, round: &Round, wait: &dyn Fn(&str)) {
        wait("load before any fault");
        if let Some(before) = &round.before {
            self.begin(before);
            wait("load during what is before the fault");
            // What it missed nobody has told it yet.
            self.heal(before);
        }
        self.begin(&round.fault);
        if let Some(beside) = &round.beside {
            self.begin(beside);
        }
        wait("load during the fault");
        if let Some(beside) = &round.beside {
            self.heal(beside);
        }
        self.heal(&round.fault);
        wait("load after the fault");
    }

    fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(node) => self.at(node).kill(),
            Fault::Blackout => {
                self.cluster.nodes.iter_mut().for_each(Node::kill);
                self.cluster.nodes.iter_mut().for_each(Node::start);
            }
            Fault::Pause(node) => self.at(node).signal(Signal::STOP),
            Fault::Cut(a, b) => self.cut(a, b, true),
            Fault::Wipe(node) => self.wipe(node),
            Fault::Flip(node, place) => self.flip(node, *place),
            Fault::Join(node) => {
                let mut joiner = self.cluster.joiner(node, self.flags);
                joiner.start();
                self.cluster.nodes.push(joiner);
            }
            Fault::Leave(node) => self.change(node, "leave", &json!({ "node": node })),
            Fault::Remove(node) => {
                self.at(node).kill();
                self.change(node, "remove", &json!({ "node": node }));
            }
            Fault::Replace { node, with, dead } => self.replace(node, with, *dead),
        }
    }

    fn heal(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(node) => self.at(node).start(),
            Fault::Pause(node) => self.at(node).signal(Signal::CONT),
            Fault::Cut(a, b) => self.cut(a, b, false),
            // Nobody undoes these.
            _ => {}
        }
    }

    /// What is left to do when the load is over.
    pub(super) fn recover(&mut self, round: &Round) {
        match &round.fault {
            Fault::Leave(node) | Fault::Remove(node) | Fault::Replace { node, .. } => {
                self.gone(node);
            }
            // A bit that nobody has read yet would be a second lost disk later.
            Fault::Flip(node, _) => {
                rest::reach(self, &Default::default());
                self.wipe(node);
            }
            _ => {}
        }
    }

    fn cut(&mut self, a: &str, b: &str, cut: bool) {
        for (one, other) in [(a, b), (b, a)] {
            let body = json!({ "peer": other, "cut": cut });
            self.at(one)
                .ask(&post("/v1/cluster/cut", &body))
                .expect(200);
        }
    }

    /// Its disk is gone; it comes back where it was.
    fn wipe(&mut self, node: &str) {
        self.at(node).kill();
        std::fs::remove_dir_all(&self.at(node).folder).unwrap();
        self.start_forgetful(node);
    }

    fn flip(&mut self, node: &str, place: usize) {
        self.at(node).kill();
        let files = files(&self.at(node).folder);
        let mut draw = Draw(place as u64 | 1);
        let (path, length) = &files[draw.below(files.len())];
        let (at, bit) = (draw.place(*length), draw.below(8));
        println!("bit {bit} of byte {at} of {length} in {}", path.display());
        flip(path, at, bit).unwrap();
        self.start_forgetful(node);
    }

    /// Starts a node that may know nobody any more.
    fn start_forgetful(&mut self, node: &str) {
        let others = self.nodes().iter().filter(|other| other.id != node);
        let peers: Vec<String> = others.map(|other| other.peer.to_string()).collect();
        self.at(node).ask_at_start(&peers);
        self.at(node).start();
    }

    fn replace(&mut self, node: &str, with: &str, dead: bool) {
        let flags: Vec<&str> = self.flags.iter().chain(&["--spare"]).copied().collect();
        let mut spare = self.cluster.joiner(with, &flags);
        spare.start();
        if dead {
            self.at(node).kill();
        }
        self.change(node, "replace", &json!({ "node": node, "with": with }));
        self.cluster.nodes.push(spare);
    }

    /// Asks somebody else until the change of owners has begun.
    fn change(&self, node: &str, what: &str, body: &Value) {
        let other = self.nodes().iter().find(|other| other.id != node);
        let other = other.expect("it is not alone");
        until(&format!("{what} {body} begins"), || {
            let answer = post(format!("/v1/cluster/{what}"), body).send(other.http);
            let answer = answer.map_err(|error| error.to_string())?;
            match (answer.status, answer.code().as_str()) {
                // Only that: an answer that came too late was not lost.
                (200, _) | (404, "no_member") => Ok(()),
                _ => Err(answer.to_string()),
            }
        });
    }

    /// Waits until a member is none any more, and ends its process.
    fn gone(&mut self, node: &str) {
        let other = self
            .nodes()
            .iter()
            .find(|other| other.id != node && other.runs());
        let other = other.expect("it is not alone");
        until(&format!("{node} is gone"), || {
            let body = get("/v1/cluster")
                .send(other.http)
                .map_err(|error| error.to_string())?;
            let body = body.json();
            let members = body["members"].as_array().cloned().unwrap_or_default();
            let here = members
                .iter()
                .any(|one| one["node_id"] == node && one["gone_with"].is_null());
            match !here && body["owner_change"].is_null() {
                true => Ok(()),
                false => Err(body.to_string()),
            }
        });
        // One that left waits for its end; that of one that is killed already is none.
        self.cluster.nodes.retain(|other| other.id != node);
    }
}
