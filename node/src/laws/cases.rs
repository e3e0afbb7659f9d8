//! Related inputs: a base with a few edits on each branch, as siblings of one key come about.
//!
//! Everything is drawn as bytes, *entropy*, which `proptest` shrinks; values are made from it by the module's own
//! `sampling`, from samples that an author gave, or by media type. Fewer bytes make a smaller value.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sibyl_core::id::WriteId;
use sibyl_core::object::Content;

use super::host::Subject;
use crate::resolver::Input;

/// Siblings of one case.
const SIBLINGS: std::ops::RangeInclusive<usize> = 3..=8;
/// Bytes of the base, and edits of each branch.
const BASE: std::ops::Range<usize> = 0..7;
const EDITS: std::ops::Range<usize> = 0..3;
/// Few instants, so that many are equal.
const INSTANTS: std::ops::Range<u64> = 0..4;
/// Values remembered, so that shrinking does not make them anew: a few hundred kilobytes.
const REMEMBERED: usize = 4_096;

/// A sibling's difference from the base.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// Where, and what stands there; behind the end it is added.
    edits: Vec<(u8, u8)>,
    modified_at: u64,
    dead: bool,
}

/// One case as it is drawn.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    base: Vec<u8>,
    branches: Vec<Branch>,
    /// The group of each sibling.
    pub(super) groups: Vec<u8>,
}

/// Draws cases; with tombstones among the siblings or without.
pub(super) fn case(tombstones: bool) -> impl Strategy<Value = Drawn> {
    let edits = prop::collection::vec(any::<(u8, u8)>(), EDITS);
    let dead = prop::bool::weighted(if tombstones { 0.3 } else { f64::EPSILON });
    let branch = (edits, INSTANTS, dead).prop_map(move |(edits, modified_at, dead)| Branch {
        edits,
        modified_at,
        dead: dead && tombstones,
    });
    let branches = prop::collection::vec(branch, SIBLINGS);
    let groups = prop::collection::vec(0..3_u8, *SIBLINGS.end());
    let base = prop::collection::vec(any::<u8>(), BASE);
    (base, branches, groups).prop_map(|(base, branches, groups)| Drawn {
        base,
        branches,
        groups,
    })
}

impl Drawn {
    /// The siblings; `None` if one of them is no value to the subject.
    pub(super) fn siblings(&self, subject: &dyn Subject, values: &Values) -> Option<Vec<Content>> {
        let sibling = |branch: &Branch| {
            let mut entropy = self.base.clone();
            for (at, byte) in &branch.edits {
                match entropy.get_mut(usize::from(*at) % (self.base.len() + 1)) {
                    Some(place) => *place = *byte,
                    None => entropy.push(*byte),
                }
            }
            let content = values.draw(subject, &entropy)?;
            let value = content.value.filter(|_| !branch.dead);
            Some(Content {
                value,
                modified_at: branch.modified_at,
                ..content
            })
        };
        self.branches.iter().map(sibling).collect()
    }
}

/// Where values come from.
#[derive(Debug)]
pub struct Values {
    media_type: String,
    samples: Vec<Bytes>,
    made: RefCell<BTreeMap<Vec<u8>, Option<Bytes>>>,
}

impl Values {
    /// Values of this media type. Samples that an author gives come before the module's own `sampling`.
    pub fn new(media_type: &str, samples: Vec<Bytes>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            samples,
            made: RefCell::default(),
        }
    }

    /// A value that the subject accepts, made of these bytes.
    pub(super) fn draw(&self, subject: &dyn Subject, entropy: &[u8]) -> Option<Content> {
        let known = self.made.borrow().get(entropy).cloned();
        let value = known.unwrap_or_else(|| {
            let value = Bytes::from(self.make(subject, entropy));
            let accepted = subject.accepts(&Input::from(&self.content(value.clone())));
            let value = accepted.then_some(value);
            let mut made = self.made.borrow_mut();
            if made.len() >= REMEMBERED {
                made.clear();
            }
            made.insert(entropy.to_vec(), value.clone());
            value
        });
        Some(self.content(value?))
    }

    fn content(&self, value: Bytes) -> Content {
        Content {
            value: Some(value),
            content_type: self.media_type.clone(),
            attributes: BTreeMap::new(),
            modified_at: 0,
            write_id: WriteId([0; 16]),
            trace: None,
        }
    }

    fn make(&self, subject: &dyn Subject, entropy: &[u8]) -> Vec<u8> {
        if !self.samples.is_empty() {
            let (which, edits) = entropy.split_first().unwrap_or((&0, &[]));
            return edited(
                &self.samples[usize::from(*which) % self.samples.len()],
                edits,
            );
        }
        if let Some(sample) = subject.sample(entropy) {
            return sample;
        }
        match self.media_type.split(';').next().unwrap_or("").trim() {
            json if json == "application/json" || json.ends_with("+json") => {
                Value::Object(members(entropy)).to_string().into_bytes()
            }
            text if text.starts_with("text/") => {
                let lines = entropy.iter().map(|byte| format!("line {}\n", byte % 16));
                lines.collect::<String>().into_bytes()
            }
            _ => entropy.to_vec(),
        }
    }
}

/// A member for each byte: one of four names, and a number, a text, a list or an object.
fn members(entropy: &[u8]) -> Map<String, Value> {
    let mut all = Map::new();
    for byte in entropy {
        let (name, kind, detail) = (byte % 4, byte / 4 % 4, byte / 16);
        let value = match kind {
            0 => json!(detail),
            1 => json!(format!("text {detail}")),
            2 => json!(
                (0..detail % 4)
                    .map(|at| (at + detail) % 5)
                    .collect::<Vec<_>>()
            ),
            _ => json!({ format!("n{}", detail % 3): detail }),
        };
        all.insert(char::from(b'a' + name).to_string(), value);
    }
    all
}

/// A sample with an edit for each byte: of its JSON tree if it is one, else of its lines.
fn edited(sample: &[u8], edits: &[u8]) -> Vec<u8> {
    if let Ok(mut tree) = serde_json::from_slice::<Value>(sample) {
        edits.iter().for_each(|edit| edit_tree(&mut tree, *edit));
        return if edits.is_empty() {
            sample.to_vec()
        } else {
            tree.to_string().into_bytes()
        };
    }
    let mut lines: Vec<&[u8]> = sample.split_inclusive(|byte| *byte == b'\n').collect();
    for edit in edits {
        let at = usize::from(*edit / 2) % lines.len().max(1);
        match lines.get(at).copied() {
            Some(line) if edit % 2 == 0 => lines.insert(at, line),
            Some(_) => drop(lines.remove(at)),
            None => {}
        }
    }
    lines.concat()
}

/// Changes one place: what it is stays what it is, since a resolver knows its values by their shape.
fn edit_tree(tree: &mut Value, edit: u8) {
    let (at, deeper) = (usize::from(edit), edit.rotate_left(3));
    match tree {
        Value::Object(members) if !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            let name = &names[at % names.len()];
            if edit % 5 == 4 {
                members.remove(name);
            } else if let Some(member) = members.get_mut(name) {
                edit_tree(member, deeper);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let place = at % items.len();
            match edit % 3 {
                0 => drop(items.remove(place)),
                1 => items.insert(place, items[place].clone()),
                _ => edit_tree(&mut items[place], deeper),
            }
        }
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                *tree = json!(whole.wrapping_add(i64::from(edit % 7) - 3));
            }
        }
        Value::String(text) => {
            text.push(char::from(b'a' + edit % 8));
        }
        Value::Bool(truth) => *truth = !*truth,
        Value::Object(_) | Value::Array(_) | Value::Null => {}
    }
}
