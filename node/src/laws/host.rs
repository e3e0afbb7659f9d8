//! The host's call `M`, as a read makes it: sorted siblings in, what a view shows out.
//!
//! A merged value becomes a version again with what a view inherits, so partial results stand where a fold would
//! stand. Order, inheritance and what an outcome means are the core's own (`sibyl_core::view`).

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::{Actor, Dot, WriteId};
use sibyl_core::object::{Content, Object, Sibling};
use sibyl_core::registry::Deletes;
use sibyl_core::view::{Faces, View, faces, resolved};

use super::Cost;
use crate::resolver::{Failure, Input, Resolution};

/// What one call answered and cost.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The resolution, or why there is none.
    pub outcome: Result<Resolution, Failure>,
    /// Fuel used; 0 where there is none.
    pub fuel: u64,
    /// The most linear memory held; 0 where there is none.
    pub memory_bytes: u64,
}

/// A resolver with its configuration: a module, or a function of a test.
pub trait Subject {
    /// One call on siblings in canonical order.
    fn resolve(&self, siblings: &[Input]) -> Ran;
    /// What its `check-value` says; a subject without one accepts all.
    fn accepts(&self, value: &Input) -> bool;
    /// What its `sampling` makes of these bytes; `None` if it has none.
    fn sample(&self, entropy: &[u8]) -> Option<Vec<u8>>;
}

/// One merge on the way to a broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was merged, as in `M(a, b)`.
    pub of: String,
    /// What came out: values, `None` for deleted; or the failure.
    pub gave: Result<Vec<Option<Bytes>>, String>,
}

/// One or several versions that stand for a merge, under a name.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) name: String,
    pub(super) versions: Vec<Content>,
}

/// Merges and writes down what it does.
pub(super) struct Host<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) deletes: Deletes,
    pub(super) steps: Vec<Step>,
}

impl Host<'_> {
    /// `M` of all these together.
    pub(super) fn merge(&mut self, terms: &[&Term]) -> Result<Term, Failure> {
        let names: Vec<&str> = terms.iter().map(|term| term.name.as_str()).collect();
        let name = format!("M({})", names.join(", "));
        let versions: Vec<Content> = terms
            .iter()
            .flat_map(|term| term.versions.clone())
            .collect();
        let merged = merge(self.subject, self.deletes, &versions);
        let gave = merged.as_ref().map(|(versions, _)| values(versions));
        let gave = gave.map_err(ToString::to_string);
        self.steps.push(Step {
            of: name.clone(),
            gave,
        });
        merged.map(|(versions, _)| Term { name, versions })
    }
}

/// The values of versions, in their order.
pub(super) fn values(versions: &[Content]) -> Vec<Option<Bytes>> {
    versions
        .iter()
        .map(|version| version.value.clone())
        .collect()
}

fn merge(
    subject: &dyn Subject,
    deletes: Deletes,
    versions: &[Content],
) -> Result<(Vec<Content>, Option<Ran>), Failure> {
    let siblings = versions.iter().zip(1..).map(|(content, counter)| {
        let dot = Dot {
            actor: Actor(1),
            counter,
        };
        // Each is a write of its own.
        let write_id = WriteId(u128::from(counter).to_be_bytes());
        Sibling::written(
            dot,
            Content {
                write_id,
                ..content.clone()
            },
        )
    });
    let siblings: Vec<Sibling> = siblings.collect();
    let context: Context = siblings.iter().flat_map(Sibling::dots).collect();
    let object = Object::from_parts(context, siblings);
    let several = match faces(&object, deletes) {
        Faces::Gone => return Ok((deleted(versions), None)),
        Faces::One(one) => return Ok((vec![one.content.clone()], None)),
        Faces::Several(several) => several,
    };
    let inputs: Vec<Input> = several
        .iter()
        .map(|sibling| Input::from(&sibling.content))
        .collect();
    let ran = subject.resolve(&inputs);
    let resolution = ran.outcome.clone()?;
    let view =
        resolved(&several, &resolution).map_err(|wrong| Failure::Other(wrong.to_string()))?;
    let versions = match view {
        View::Gone => deleted(versions),
        View::One(content) => vec![content],
        View::Siblings(siblings) => siblings
            .into_iter()
            .map(|sibling| sibling.content)
            .collect(),
    };
    Ok((versions, Some(ran)))
}

/// What stands for a deleted key: a tombstone as new as the newest.
fn deleted(versions: &[Content]) -> Vec<Content> {
    let newest = versions.iter().max_by_key(|version| version.modified_at);
    newest
        .map(|newest| Content {
            value: None,
            ..newest.clone()
        })
        .into_iter()
        .collect()
}

/// What merging two values costs.
pub(super) fn cost(subject: &dyn Subject, pair: [Content; 2]) -> Cost {
    let bytes = |versions: &[Content]| -> u64 {
        let values = versions.iter().filter_map(|version| version.value.as_ref());
        values.map(|value| value.len() as u64).sum()
    };
    let input_bytes = bytes(&pair);
    let (output_bytes, ran) = match merge(subject, Deletes::WriteWins, &pair) {
        Ok((versions, ran)) => (bytes(&versions), ran),
        Err(_) => (0, None),
    };
    Cost {
        input_bytes,
        output_bytes,
        fuel: ran.as_ref().map_or(0, |ran| ran.fuel),
        memory_bytes: ran.map_or(0, |ran| ran.memory_bytes),
    }
}
