//! Who begins a run and ends it: makes the bucket, lets clients begin, and waits until all is healed and at rest.
//!
//! What it asks for it asks by HTTP, as clients do. A cluster that never comes to rest ends the run by its limit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::{BUCKET, Field, ask};
use crate::ask::{Ask, get, key, post, put_bucket, text};
use crate::chaos::judge::Shown;
use crate::chaos::load::values;
use crate::chaos::rest::{are_same, has_compared, keeps_nothing, sibling};

/// Between two looks, in simulated time.
const LOOK: Duration = Duration::from_millis(100);

/// What the cluster shows at rest, or what it was last seen to wait for.
#[derive(Clone, Default)]
pub(super) struct Findings {
    pub(super) shown: Rc<RefCell<Option<BTreeMap<String, Shown>>>>,
    pub(super) waits: Rc<RefCell<String>>,
}

pub(super) struct Referee {
    field: Field,
    findings: Findings,
}

impl Referee {
    pub(super) fn new(field: Field, findings: Findings) -> Self {
        Self { field, findings }
    }

    /// Waits until the cluster is formed, and lets clients begin.
    pub(super) async fn begin(&self) {
        for node in self.field.nodes.iter() {
            self.until(|| self.is_whole(node)).await;
        }
        let bucket = put_bucket(BUCKET, &json!({ "max_siblings": 1000 }));
        self.until(async || {
            let made = ask(&self.field, &self.field.nodes[0], &bucket).await;
            let made = made.ok_or("nobody answers")?;
            match made.status {
                200 | 201 => Ok(()),
                _ => Err(made.to_string()),
            }
        })
        .await;
        self.field.open.set(true);
    }

    /// Waits until the cluster rests, and reads everything.
    pub(super) async fn end(&self) {
        let nodes = &self.field.nodes;
        for node in nodes.iter() {
            self.until(|| self.rests(node)).await;
        }
        // What nobody has noticed yet would be found in time; here it is found now.
        for node in nodes.iter() {
            let compare = post("/v1/cluster/anti-entropy", &Value::Null);
            self.until(async || self.body(node, &compare).await.map(drop))
                .await;
        }
        for node in nodes.iter() {
            self.until(|| self.rests(node)).await;
        }
        let keys = self.field.record.borrow().keys();
        let mut found = BTreeMap::new();
        for name in keys {
            let path = key(BUCKET, &name);
            self.until(|| self.is_same(&path)).await;
            let first = self.shown(&nodes[0], &path).await;
            for node in nodes.iter().skip(1) {
                let shown = self.shown(node, &path).await;
                assert_eq!(
                    shown.view, first.view,
                    "{node} and {} show {name}",
                    nodes[0]
                );
            }
            found.insert(name, first);
        }
        *self.findings.shown.borrow_mut() = Some(found);
    }

    async fn until(&self, mut look: impl AsyncFnMut() -> Result<(), String>) {
        while let Err(why) = look().await {
            *self.findings.waits.borrow_mut() = why;
            sleep(LOOK).await;
        }
    }

    async fn body(&self, node: &str, asks: &Ask) -> Result<Value, String> {
        let answer = ask(&self.field, node, asks).await;
        let answer = answer.ok_or_else(|| format!("{node} does not answer"))?;
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(answer.to_string()),
        }
    }

    /// Whether a node is ready and reaches all others.
    async fn is_whole(&self, node: &str) -> Result<(), String> {
        self.body(node, &get("/health/ready")).await?;
        let cluster = self.body(node, &get("/v1/cluster")).await?;
        let members = cluster["members"].as_array().cloned().unwrap_or_default();
        let there = |member: &&Value| {
            let itself = text(&member["node_id"]) == node;
            itself || member["state"] == "alive" && member["reachable"] == true
        };
        let all = members.iter().filter(there).count() == self.field.nodes.len();
        all.then_some(()).ok_or_else(|| cluster.to_string())
    }

    /// Whether a node says that all is well, that it has compared everything, and that it keeps nothing for others.
    async fn rests(&self, node: &str) -> Result<(), String> {
        self.is_whole(node).await?;
        let handoff = self.body(node, &get("/v1/cluster/handoff")).await?;
        if !keeps_nothing(&handoff) {
            return Err(handoff.to_string());
        }
        let compared = self.body(node, &get("/v1/cluster/anti-entropy")).await?;
        has_compared(&compared)
            .then_some(())
            .ok_or_else(|| compared.to_string())
    }

    async fn is_same(&self, path: &str) -> Result<(), String> {
        let explain = get(format!("{path}?explain=true&r=1"));
        let explained = self.body(&self.field.nodes[0], &explain).await?;
        are_same(&explained)
            .then_some(())
            .ok_or_else(|| explained.to_string())
    }

    /// What a node shows of a key.
    async fn shown(&self, node: &str, path: &str) -> Shown {
        let shown = RefCell::new(Shown::default());
        self.until(async || {
            let read = ask(&self.field, node, &get(format!("{path}?r=all"))).await;
            let read = read.ok_or("nobody answers")?;
            let mut view = values(&read).ok_or_else(|| read.to_string())?;
            view.sort();
            shown.borrow_mut().view = view;
            let all = get(format!("{path}?r=all&siblings=true"));
            let all = ask(&self.field, node, &all).await.ok_or("nobody answers")?;
            let siblings = match all.status {
                200 => all.json()["siblings"].as_array().cloned(),
                404 => None,
                _ => return Err(all.to_string()),
            };
            let siblings = siblings.unwrap_or_default();
            shown.borrow_mut().siblings = siblings.iter().map(sibling).collect();
            Ok(())
        })
        .await;
        shown.into_inner()
    }
}
