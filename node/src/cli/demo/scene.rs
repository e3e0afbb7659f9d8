//! One scene of the demo: the way of one conflict, from two writes to one merged value.
//!
//! The steps are the same for any kind of value; a [`Scene`] brings the value, the two edits, the resolver and
//! the check of the result. Invariant: nothing is called seen that the public API did not answer.

use serde_json::Value;

use super::stage::{Actor, COMPILE_LIMIT, MERGE_LIMIT, SETTLE_LIMIT, Stage};
use super::story::{Story, duration};
use crate::cli::client::{Answer, Error, Parts, key_path};
use crate::cli::failure::Failure;
use crate::cli::{bucket, output, resolver};

/// First names that keys are made of. The demo wants a key whose first two owners are the two sides of the cut,
/// which one key in three is, so all of these miss once in some ten thousand runs; see [`Side::choose`].
const NAMES: &[&str] = &[
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "kim",
    "leo", "mallory", "nina", "olivia", "peggy", "quinn", "rupert", "sybil", "trent", "uma",
    "victor", "wendy", "xena",
];

/// A write whose outcome is unknown may be there twice, so the scene starts again with another key.
const ATTEMPTS: usize = 3;

/// An edit, from the value read to the value written.
pub(super) type Edit = fn(&[u8]) -> Result<Vec<u8>, String>;

/// Whether a merged value holds the edits of the left and the right sibling, and what to say of it.
pub(super) type Check = fn(merged: &[u8], left: &[u8], right: &[u8]) -> Result<String, String>;

/// What differs between scenes.
pub(super) struct Scene {
    pub(super) title: &'static str,
    pub(super) bucket: &'static str,
    pub(super) content_type: &'static str,
    /// The value both sides have seen.
    pub(super) base: fn() -> Result<Vec<u8>, String>,
    /// What the client at the first node does, in words and as an edit.
    pub(super) left: (&'static str, Edit),
    /// What the client at the second node does.
    pub(super) right: (&'static str, Edit),
    pub(super) resolver: &'static str,
    pub(super) module: &'static [u8],
    /// A value for people.
    pub(super) show: fn(&[u8]) -> Result<String, String>,
    pub(super) check: Check,
}

/// What the two sides wrote.
struct Conflict {
    key: String,
    left: Vec<u8>,
    right: Vec<u8>,
}

/// Why a cut scene has to be played again.
enum Again {
    Failure(Failure),
    Unsettled(String),
}

impl From<Failure> for Again {
    fn from(failure: Failure) -> Again {
        Again::Failure(failure)
    }
}

/// Plays a scene to its end.
pub(super) fn play(scene: &Scene, stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    story.title(scene.title)?;
    stage.create_bucket(scene.bucket)?;
    let conflict = conflict(scene, stage, story)?;
    show_siblings(scene, stage, story, &conflict)?;
    bind(scene, stage, story)?;
    let merged = read_everywhere(scene, stage, story, &conflict)?;
    settle(scene, stage, story, &conflict, &merged)
}

fn conflict(scene: &Scene, stage: &Stage, story: &mut Story) -> Result<Conflict, Failure> {
    let mut names = NAMES.iter();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match cut_writes(scene, stage, story, &mut names) {
            Ok(conflict) => return Ok(conflict),
            Err(Again::Failure(failure)) => return Err(failure),
            Err(Again::Unsettled(saw)) => {
                stage.cut(false)?;
                story.note(&format!(
                    "the cluster had not settled ({saw}); once more with another key"
                ))?;
                last = saw;
            }
        }
    }
    Err(stage.unexpected(
        stage.left(),
        "write on both sides of the cut",
        "one write on each side",
        last,
    ))
}

fn cut_writes<'a>(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    names: &mut impl Iterator<Item = &'a &'a str>,
) -> Result<Conflict, Again> {
    let (left, right) = (stage.left(), stage.right());
    story.step(&format!(
        "A client writes a key of bucket {:?}; two others read it",
        scene.bucket
    ))?;
    let base = made(stage, "the first value", (scene.base)())?;
    let key = choose_key(scene, stage, names, &base)?;
    let seen = [left, right].map(|actor| read_base(scene, stage, story, actor, &key, &base));
    let [seen_left, seen_right] = seen;
    let (seen_left, seen_right) = (seen_left?, seen_right?);

    let (a, b) = (&left.node_id, &right.node_id);
    story.step(&format!(
        "The link between {a} and {b} is cut, for real and on both sides; n3 still sees both"
    ))?;
    stage.cut(true)?;
    let (words, edit) = scene.left;
    let left_value = made(stage, words, edit(&seen_left.body))?;
    let left_by = write(
        scene,
        stage,
        story,
        left,
        &key,
        words,
        &left_value,
        seen_left.header("sibyl-context"),
    )?;
    let (words, edit) = scene.right;
    let right_value = made(stage, words, edit(&seen_right.body))?;
    let right_by = write(
        scene,
        stage,
        story,
        right,
        &key,
        words,
        &right_value,
        seen_right.header("sibyl-context"),
    )?;
    if left_by == right_by {
        return Err(Again::Unsettled(format!(
            "both writes were coordinated by {left_by}"
        )));
    }
    Ok(Conflict {
        key,
        left: left_value,
        right: right_value,
    })
}

fn made<T>(stage: &Stage, what: &str, result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(|reason| {
        stage.unexpected(stage.left(), &format!("make {what}"), "a value", reason)
    })
}

/// Writes the first value under a key whose first two owners are the sides of the cut, so that each side
/// coordinates its own write.
fn choose_key<'a>(
    scene: &Scene,
    stage: &Stage,
    names: &mut impl Iterator<Item = &'a &'a str>,
    base: &[u8],
) -> Result<String, Failure> {
    let first = stage.left();
    let mut last = "no name left to try".to_owned();
    for name in names {
        let key = (*name).to_owned();
        let owners = stage.preference_list(scene.bucket, &key)?;
        if owners.as_ref().is_some_and(|owners| !suits(stage, owners)) {
            last = format!("{key}: {owners:?}");
            continue;
        }
        let path = stage.must(first, "write the first value", key_path(scene.bucket, &key))?;
        let write = || {
            let parts = Parts::default()
                .header("content-type", scene.content_type)
                .body(base);
            first
                .client
                .put(&path, parts)
                .map_err(|error| error.to_string())
        };
        stage.until(
            first,
            "write the first value",
            "two of three copies",
            SETTLE_LIMIT,
            write,
        )?;
        match owners.or(stage.preference_list(scene.bucket, &key)?) {
            Some(owners) if suits(stage, &owners) => return Ok(key),
            owners => last = format!("{key}: {owners:?}"),
        }
    }
    Err(stage.unexpected(
        first,
        "look for a key",
        "one whose first owners are the sides of the cut",
        last,
    ))
}

fn suits(stage: &Stage, owners: &[String]) -> bool {
    let sides = [&stage.left().node_id, &stage.right().node_id];
    owners.len() == stage.all().len() && owners.iter().take(2).all(|owner| sides.contains(&owner))
}

fn read_base(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    actor: &Actor,
    key: &str,
    base: &[u8],
) -> Result<Answer, Failure> {
    let doing = format!("read {key} via {}", actor.node_id);
    let answer = stage.until(
        actor,
        &doing,
        "200 with the first value",
        SETTLE_LIMIT,
        || {
            let answer = stage
                .read(actor, scene.bucket, key)
                .map_err(|error| error.to_string())?;
            if answer.status == 200 && answer.body == base && answer.header("sibyl-siblings") == "1"
            {
                Ok(answer)
            } else {
                Err(summary(&answer))
            }
        },
    )?;
    let shown = made(stage, "the value readable", (scene.show)(&answer.body))?;
    story.seen(&format!(
        "GET {}/{key} via {}: {shown} ({})",
        scene.bucket,
        actor.node_id,
        facts(&answer)
    ))?;
    Ok(answer)
}

/// Writes and says who coordinated. Repeats only what certainly was not written.
#[allow(
    clippy::too_many_arguments,
    reason = "one request with its story, called twice"
)]
fn write(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    actor: &Actor,
    key: &str,
    words: &str,
    value: &[u8],
    context: &str,
) -> Result<String, Again> {
    let doing = format!("PUT {key} via {}", actor.node_id);
    let path = stage.must(actor, &doing, key_path(scene.bucket, key))?;
    let parts = Parts::default()
        .header("content-type", scene.content_type)
        .header("sibyl-context", context);
    let parts = parts.body(value);
    let answer = stage.until(
        actor,
        &doing,
        "two of three copies",
        SETTLE_LIMIT,
        || match actor.client.put(&path, parts.clone()) {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) if certainly_not_written(&error) => Err(error.to_string()),
            Err(error) => Ok(Err(error)),
        },
    )?;
    let answer = answer.map_err(|error| match error {
        Error::Refused(problem) if problem.status == 503 => Again::Unsettled(problem.to_string()),
        other => stage
            .unexpected(actor, &doing, "the node to take it", other)
            .into(),
    })?;
    let coordinator = answer.header("sibyl-coordinator").to_owned();
    let acks = answer.header("sibyl-acks");
    story.seen(&format!(
        "via {}: {words}; acknowledged, {acks}, coordinator {coordinator} ({})",
        actor.node_id,
        facts(&answer)
    ))?;
    Ok(coordinator)
}

fn certainly_not_written(error: &Error) -> bool {
    let Error::Refused(problem) = error else {
        return false;
    };
    problem.status == 503
        && problem.more.get("outcome").and_then(Value::as_str) == Some("not_written")
}

fn show_siblings(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    conflict: &Conflict,
) -> Result<(), Failure> {
    story.step("The link is mended. Neither write is lost: a read shows both")?;
    stage.cut(false)?;
    let actor = stage.right();
    let key = &conflict.key;
    let doing = format!("read {key} via {} after the cut", actor.node_id);
    let (answer, values) = stage.until(
        actor,
        &doing,
        "300 with exactly both writes",
        SETTLE_LIMIT,
        || {
            let answer = stage
                .read(actor, scene.bucket, key)
                .map_err(|error| error.to_string())?;
            let mut values = sibling_values(&answer).ok_or_else(|| summary(&answer))?;
            values.sort();
            let mut written = [conflict.left.clone(), conflict.right.clone()];
            written.sort();
            if answer.status == 300 && values == written {
                Ok((answer, values))
            } else {
                Err(summary(&answer))
            }
        },
    )?;
    story.seen(&format!(
        "GET {}/{key}: 300, {} siblings ({})",
        scene.bucket,
        values.len(),
        facts(&answer)
    ))?;
    let body = stage.must(actor, &doing, answer.json())?;
    for sibling in body
        .get("siblings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let bytes = sibling
            .get("value")
            .and_then(output::bytes_from_json)
            .unwrap_or_default();
        let shown = made(stage, "a sibling readable", (scene.show)(&bytes))?;
        let field = |name: &str| {
            sibling
                .get(name)
                .map_or_else(|| "-".to_owned(), output::cell)
        };
        story.note(&format!(
            "dot {}: {shown} (trace {})",
            field("dot"),
            field("trace_id")
        ))?;
    }
    Ok(())
}

fn sibling_values(answer: &Answer) -> Option<Vec<Vec<u8>>> {
    let body = answer.json().ok()?;
    let siblings = body.get("siblings")?.as_array()?;
    siblings
        .iter()
        .map(|sibling| output::bytes_from_json(sibling.get("value")?))
        .collect()
}

fn bind(scene: &Scene, stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    let actor = stage.left();
    let (name, size) = (scene.resolver, output::size(scene.module.len() as u64));
    story.step(&format!(
        "The resolver {name:?}, {size} of WebAssembly, is uploaded and bound to the bucket"
    ))?;
    let doing = format!("upload the resolver {name}");
    let waiting = output::spinner(format!("every node checks and compiles {name}"));
    let uploaded = resolver::upload(
        &actor.patient,
        name,
        "application/wasm",
        scene.module,
        "quick",
    );
    waiting.finish_and_clear();
    let version = stage.must(actor, &doing, uploaded)?;
    let Some(digest) = version.get("digest").and_then(Value::as_str) else {
        return Err(stage.unexpected(actor, &doing, "a version with its digest", version));
    };
    story.seen(&format!("PUT /v1/resolvers/{name}: {digest}"))?;
    let tier = version.pointer("/certificate/tier").and_then(Value::as_str);
    if !matches!(tier, Some("lattice" | "foldable")) {
        return Err(stage.unexpected(actor, &doing, "a version that may be folded", version));
    }
    let tier = tier.unwrap_or_default();
    story.seen(&format!("its laws were tried on related values: {tier}"))?;
    let doing = format!("bind {name} to {}", scene.bucket);
    let fields = resolver::binding(name, digest, None, "active", "enforce");
    let waiting = output::spinner("every node gets it ready");
    let bound = stage.until(
        actor,
        &doing,
        "the registry to name it",
        COMPILE_LIMIT,
        || {
            match bucket::change(&actor.patient, scene.bucket, &fields) {
                // Nodes that still compile, or another change under way: worth another look.
                Err(Error::Refused(problem)) if [409, 412, 503].contains(&problem.status) => {
                    Err(problem.to_string())
                }
                other => Ok(other),
            }
        },
    );
    waiting.finish_and_clear();
    let answer = stage.must(actor, &doing, bound?)?;
    story.seen(&format!(
        "PUT /v1/buckets/{}: {} ({})",
        scene.bucket,
        answer.status,
        facts(&answer)
    ))
}

/// Reads on every node: merged, and the same bytes everywhere.
/// Reads through one node until its resolver has merged, and checks what it made.
fn read_merged(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    conflict: &Conflict,
    actor: &Actor,
) -> Result<Answer, Failure> {
    let doing = format!(
        "read {} via {} with the resolver",
        conflict.key, actor.node_id
    );
    let answer = stage.until(actor, &doing, "200, outcome=merged", MERGE_LIMIT, || {
        let answer = stage
            .read(actor, scene.bucket, &conflict.key)
            .map_err(|error| error.to_string())?;
        let merged = answer.header("sibyl-resolver").contains("outcome=merged");
        if answer.status == 200 && merged {
            Ok(answer)
        } else {
            Err(summary(&answer))
        }
    })?;
    if answer.header("sibyl-siblings") != "2" {
        return Err(stage.unexpected(
            actor,
            &doing,
            "still two siblings behind the view",
            summary(&answer),
        ));
    }
    let what = match (scene.check)(&answer.body, &conflict.left, &conflict.right) {
        Ok(what) => what,
        Err(reason) => {
            return Err(stage.unexpected(actor, &doing, "both edits in the merged value", reason));
        }
    };
    story.seen(&format!(
        "via {}: {what} ({})",
        actor.node_id,
        facts(&answer)
    ))?;
    Ok(answer)
}

fn read_everywhere(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    conflict: &Conflict,
) -> Result<Answer, Failure> {
    story.step("Every node merges both writes to the same value; nothing stored has changed")?;
    let mut first: Option<Answer> = None;
    for actor in stage.all() {
        let answer = read_merged(scene, stage, story, conflict, actor)?;
        let same = first.get_or_insert_with(|| answer.clone());
        if same.body != answer.body || same.header("etag") != answer.header("etag") {
            return Err(stage.unexpected(
                actor,
                "read the merged value",
                "the same bytes and ETag as on n1",
                summary(&answer),
            ));
        }
    }
    let answer = first
        .ok_or_else(|| stage.unexpected(stage.left(), "read on every node", "nodes", "none"))?;
    let shown = made(
        stage,
        "the merged value readable",
        (scene.show)(&answer.body),
    )?;
    story.note(&format!("merged: {shown}"))?;
    story.note(&format!(
        "{}; {}",
        output::size(answer.body.len() as u64),
        answer.header("sibyl-resolver")
    ))?;
    Ok(answer)
}

/// A client that saw the merge writes it back: the conflict is over.
fn settle(
    scene: &Scene,
    stage: &Stage,
    story: &mut Story,
    conflict: &Conflict,
    merged: &Answer,
) -> Result<(), Failure> {
    story.step("A client that saw the merged value writes with its context: one sibling again")?;
    let actor = stage.left();
    let doing = format!("write the merged value of {}", conflict.key);
    let path = stage.must(actor, &doing, key_path(scene.bucket, &conflict.key))?;
    let context = merged.header("sibyl-context");
    let parts = Parts::default()
        .header("content-type", scene.content_type)
        .header("sibyl-context", context);
    let written = actor.client.put(&path, parts.body(merged.body.clone()));
    stage.must(actor, &doing, written)?;
    for actor in stage.all() {
        let doing = format!("read {} via {} at the end", conflict.key, actor.node_id);
        let answer = stage.until(actor, &doing, "200 with one sibling", SETTLE_LIMIT, || {
            let answer = stage
                .read(actor, scene.bucket, &conflict.key)
                .map_err(|error| error.to_string())?;
            let one = answer.status == 200
                && answer.header("sibyl-siblings") == "1"
                && answer.body == merged.body;
            if one {
                Ok(answer)
            } else {
                Err(summary(&answer))
            }
        })?;
        story.seen(&format!(
            "via {}: the merged value, one sibling ({})",
            actor.node_id,
            facts(&answer)
        ))?;
    }
    Ok(())
}

/// Time and trace of an answer.
fn facts(answer: &Answer) -> String {
    format!("{}, trace {}", duration(answer.elapsed), answer.trace_id())
}

/// An answer in one line, for failures.
fn summary(answer: &Answer) -> String {
    let body: String = output::bytes_for_people(&answer.body)
        .chars()
        .take(300)
        .collect();
    let header = |name| answer.header(name);
    format!(
        "{}, siblings {:?}, resolver {:?}, trace {:?}: {body}",
        answer.status,
        header("sibyl-siblings"),
        header("sibyl-resolver"),
        header("sibyl-trace-id")
    )
}
