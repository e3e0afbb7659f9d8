//! A cluster at rest: nothing is away, under way, kept for others, or different between owners.
//!
//! Waits until every node says so of itself, has all copies compared, and then reads every key. Invariant: what is
//! returned was shown alike by every node.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::faults::Field;
use super::judge::Shown;
use super::load::{BUCKET, values};
use crate::ask::{Ask, get, key, post, text};
use crate::nodes::{Node, until};

/// Waits until the cluster rests; what it shows of these keys.
#[track_caller]
pub(super) fn reach(field: &Field, keys: &BTreeSet<String>) -> BTreeMap<String, Shown> {
    let nodes = field.nodes();
    for node in nodes {
        until(&format!("{} rests", node.id), || rests(node, nodes));
    }
    // What nobody has noticed yet would be found in time; here it is found now.
    for node in nodes {
        node.ask(&post("/v1/cluster/anti-entropy", &Value::Null))
            .expect(200);
    }
    for node in nodes {
        until(&format!("{} rests again", node.id), || rests(node, nodes));
    }
    let shown = |name: &String| {
        let path = key(BUCKET, name);
        until(&format!("every owner holds the same of {name}"), || {
            same(&nodes[0], &path)
        });
        let all: Vec<Shown> = nodes.iter().map(|node| show(node, &path)).collect();
        for (node, shown) in nodes.iter().zip(&all) {
            assert_eq!(
                shown.view, all[0].view,
                "{} and {} show {name}",
                node.id, nodes[0].id
            );
        }
        (name.clone(), all[0].clone())
    };
    keys.iter().map(shown).collect()
}

fn body(node: &Node, ask: &Ask) -> Result<Value, String> {
    let answer = ask
        .send(node.http)
        .map_err(|error| format!("{}: {error}", node.id))?;
    match answer.status {
        200 => Ok(answer.json()),
        _ => Err(answer.to_string()),
    }
}

/// Whether a node says that all is well, that it has compared everything, and that it keeps nothing for others.
fn rests(node: &Node, nodes: &[Node]) -> Result<(), String> {
    body(node, &get("/health/ready"))?;
    let mut reached = node.reaches()?;
    reached.push(node.id.clone());
    reached.sort();
    let mut wanted: Vec<_> = nodes.iter().map(|node| node.id.clone()).collect();
    wanted.sort();
    let cluster = body(node, &get("/v1/cluster"))?;
    let members = body(node, &get("/v1/registry"))?;
    let members = members["members"].as_array().cloned().unwrap_or_default();
    let members: Vec<_> = members
        .iter()
        .map(|member| text(&member["node_id"]))
        .collect();
    if reached != wanted || members != wanted || !cluster["owner_change"].is_null() {
        return Err(cluster.to_string());
    }
    let handoff = body(node, &get("/v1/cluster/handoff"))?;
    if !keeps_nothing(&handoff) {
        return Err(handoff.to_string());
    }
    let compared = body(node, &get("/v1/cluster/anti-entropy"))?;
    has_compared(&compared)
        .then_some(())
        .ok_or_else(|| compared.to_string())
}

/// Whether a node's word on hints is that it keeps none.
pub(crate) fn keeps_nothing(handoff: &Value) -> bool {
    let kept = handoff["hints"].as_array().cloned().unwrap_or_default();
    kept.iter().all(|hint| hint["count"] == 0)
}

/// Whether a node's word on anti-entropy is that all its copies are compared and sound.
#[track_caller]
pub(crate) fn has_compared(compared: &Value) -> bool {
    assert_eq!(compared["totals"]["alarms"], 0, "{compared}");
    let peers = compared["peers"].as_array().cloned().unwrap_or_default();
    compared["rebuilding"].is_null()
        && compared["unclean_partitions"] == 0
        && compared["damaged_records"] == 0
        && peers.iter().all(|peer| peer["dirty_partitions"] == 0)
}

/// Whether all owners hold the same, which is something, and nobody else anything.
pub(crate) fn same(node: &Node, path: &str) -> Result<(), String> {
    let explained = body(node, &get(format!("{path}?explain=true&r=1")))?;
    are_same(&explained)
        .then_some(())
        .ok_or_else(|| explained.to_string())
}

/// As [`same`], of what a node explains.
pub(crate) fn are_same(explained: &Value) -> bool {
    let list = explained["preference_list"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let primary = |copy: &&Value| copy["role"] == "primary";
    let owners: Vec<_> = list.iter().filter(primary).collect();
    let digest = &owners[0]["object_digest"];
    let equal = owners
        .iter()
        .all(|owner| owner["object_digest"] == *digest && owner["hint"] == json!(false));
    let others = list
        .iter()
        .filter(|copy| !primary(copy))
        .all(|copy| copy["object_digest"].is_null());
    owners.len() == 3 && equal && others
}

fn show(node: &Node, path: &str) -> Shown {
    let view = until("all copies are read", || {
        let read = get(format!("{path}?r=all")).send(node.http);
        let read = read.map_err(|error| error.to_string())?;
        values(&read).ok_or_else(|| read.to_string())
    });
    let siblings = until("all siblings are read", || {
        let read = get(format!("{path}?r=all&siblings=true")).send(node.http);
        let read = read.map_err(|error| error.to_string())?;
        match read.status {
            200 => Ok(read.json()["siblings"]
                .as_array()
                .cloned()
                .unwrap_or_default()),
            404 => Ok(Vec::new()),
            _ => Err(read.to_string()),
        }
    });
    let mut view = view;
    view.sort();
    Shown {
        view,
        siblings: siblings.iter().map(sibling).collect(),
    }
}

/// A sibling's name, and its value unless it is a tombstone.
pub(crate) fn sibling(sibling: &Value) -> (String, Option<String>) {
    let value = (sibling["deleted"] == false).then(|| text(&sibling["value"]));
    (text(&sibling["dot"]), value)
}
