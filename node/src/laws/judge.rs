//! Whether a law holds of one case, and everything on the way if it does not.
//!
//! Each law is an equation between merges. A merge that fails where the whole does not breaks it; that the whole fails
//! is the matter of totality alone. Values are compared, as bytes; several that are kept, as a set.

use bytes::Bytes;
use proptest::test_runner::TestCaseError;
use sibyl_core::object::Content;
use sibyl_core::registry::Deletes;

use super::Law;
use super::cases::{Drawn, Values};
use super::host::{Host, Step, Subject, Term, values as values_of};
use super::suspicion::{self, Suspicion};
use crate::resolver::{Failure, Input};

/// One side of an equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The term, as in `M(M(a, b), c)`.
    pub of: String,
    /// Its values, `None` for deleted; or why there are none.
    pub values: Result<Vec<Option<Bytes>>, String>,
}

/// One sibling of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// `a`, `b`, …
    pub name: String,
    /// `None`: deleted.
    pub value: Option<Bytes>,
    /// Milliseconds.
    pub modified_at: u64,
}

/// A case that breaks a law.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The siblings.
    pub siblings: Vec<Given>,
    /// Every merge, in order.
    pub steps: Vec<Step>,
    /// What should be equal.
    pub sides: [Side; 2],
    /// What it looks like.
    pub suspicion: Suspicion,
    /// Whether it broke the law again when it was tried once more.
    pub always: bool,
}

/// As the runner wants to know it.
pub(super) fn of_drawn(
    law: Law,
    case: &Drawn,
    subject: &dyn Subject,
    values: &Values,
) -> Result<(), TestCaseError> {
    let siblings = case.siblings(subject, values);
    let siblings = siblings.ok_or_else(|| TestCaseError::reject("check-value refuses a value"))?;
    let mut host = host(law, subject);
    match broken(law, &terms(&siblings), &case.groups, &mut host) {
        None => Ok(()),
        Some(_) => Err(TestCaseError::fail(law.name())),
    }
}

/// Siblings that were written, if they break the law; in the host's order, with a group for each.
pub(super) fn of_real(
    law: Law,
    siblings: &[Content],
    groups: &[u8],
    subject: &dyn Subject,
) -> Option<Counterexample> {
    broken(law, &terms(siblings), groups, &mut host(law, subject))?;
    Some(story(law, siblings, groups, subject))
}

/// The whole story of a case that broke the law.
pub(super) fn explain(
    law: Law,
    case: &Drawn,
    subject: &dyn Subject,
    values: &Values,
) -> Counterexample {
    let siblings = case.siblings(subject, values).unwrap_or_default();
    story(law, &siblings, &case.groups, subject)
}

fn story(law: Law, siblings: &[Content], groups: &[u8], subject: &dyn Subject) -> Counterexample {
    let terms = terms(siblings);
    let mut host = host(law, subject);
    let again = broken(law, &terms, groups, &mut host);
    let always = again.is_some();
    let whole = || Side {
        of: "M".to_owned(),
        values: Ok(Vec::new()),
    };
    let sides = again.unwrap_or_else(|| [whole(), whole()]);
    // Merges that kept the law on the way are no part of the story.
    let tells = |step: &Step| !always || sides.iter().any(|side| side.of.contains(&step.of));
    let mut steps: Vec<Step> = host.steps.into_iter().filter(tells).collect();
    // What is merged twice on the way gave the same, unless that is the story.
    steps.dedup();
    let named = |name: &str| {
        let of = |side: &Side| side.of.split(['(', ')', ',', ' ']).any(|word| word == name);
        !always || sides.iter().any(of)
    };
    let used = |term: &&Term| named(&term.name);
    let given = |term: &Term| Given {
        name: term.name.clone(),
        value: term.versions[0].value.clone(),
        modified_at: term.versions[0].modified_at,
    };
    let siblings: Vec<Given> = terms.iter().filter(used).map(given).collect();
    Counterexample {
        suspicion: suspicion::of(law, &siblings, &sides, always),
        siblings,
        steps,
        sides,
        always,
    }
}

fn host(law: Law, subject: &dyn Subject) -> Host<'_> {
    let deletes = match law {
        Law::Deletes => Deletes::Resolver,
        _ => Deletes::WriteWins,
    };
    Host {
        subject,
        deletes,
        steps: Vec::new(),
    }
}

fn terms(siblings: &[Content]) -> Vec<Term> {
    let named = siblings.iter().zip('a'..);
    let term = |(content, name): (&Content, char)| Term {
        name: name.to_string(),
        versions: vec![content.clone()],
    };
    named.map(term).collect()
}

/// Both sides of the equation, if they differ.
fn broken(law: Law, terms: &[Term], groups: &[u8], host: &mut Host<'_>) -> Option<[Side; 2]> {
    let all: Vec<&Term> = terms.iter().collect();
    if law == Law::Repetition {
        return terms.iter().find_map(|term| {
            let twice = side(host.merge(&[term, term]), term);
            differ(plain(term), twice)
        });
    }
    let whole = match host.merge(&all) {
        Ok(whole) => whole,
        Err(failure) if law == Law::Totality => {
            return Some([
                Side {
                    of: name_of(&all),
                    values: Err("anything but a failure".to_owned()),
                },
                Side {
                    of: name_of(&all),
                    values: Err(failure.to_string()),
                },
            ]);
        }
        Err(failure) if law == Law::Determinism => {
            let first = Side {
                of: name_of(&all),
                values: Err(failure.to_string()),
            };
            return differ(first, side(host.merge(&all), &terms[0]));
        }
        // That is another law's matter.
        Err(_) => return None,
    };
    match law {
        Law::Determinism => differ(plain(&whole), side(host.merge(&all), &whole)),
        Law::Totality | Law::Repetition => None,
        Law::Closure => closed(&whole, host.subject),
        Law::Regrouping | Law::Deletes => {
            regrouped(&all, groups, &whole, host).or_else(|| chained(&all, &whole, host))
        }
        Law::Absorption => absorbed(&all, &whole, host),
    }
}

fn closed(whole: &Term, subject: &dyn Subject) -> Option<[Side; 2]> {
    let refused = whole
        .versions
        .iter()
        .find(|version| version.value.is_some() && !subject.accepts(&Input::from(*version)))?;
    Some([
        plain(whole),
        Side {
            of: format!("check-value({})", whole.name),
            values: Err(format!("refuses {}", super::shown(refused.value.as_ref()))),
        },
    ])
}

/// Groups first, then the results.
fn regrouped(all: &[&Term], groups: &[u8], whole: &Term, host: &mut Host<'_>) -> Option<[Side; 2]> {
    let mut merged = Vec::new();
    for group in 0..3 {
        let members = all.iter().zip(groups).filter(|(_, of)| **of == group);
        let members: Vec<&Term> = members.map(|(term, _)| *term).collect();
        match members[..] {
            [] => {}
            [one] => merged.push(one.clone()),
            _ => match host.merge(&members) {
                Ok(term) => merged.push(term),
                Err(failure) => return differ(plain(whole), failed(&members, &failure)),
            },
        }
    }
    let merged: Vec<&Term> = merged.iter().collect();
    if merged.len() < 2 {
        return None;
    }
    differ(plain(whole), side(host.merge(&merged), whole))
}

/// One after the other, as they may arrive.
fn chained(all: &[&Term], whole: &Term, host: &mut Host<'_>) -> Option<[Side; 2]> {
    let mut so_far = all[0].clone();
    for next in &all[1..] {
        let members = [&so_far, next];
        so_far = match host.merge(&members) {
            Ok(term) => term,
            Err(failure) => return differ(plain(whole), failed(&members, &failure)),
        };
    }
    differ(plain(whole), plain(&so_far))
}

/// What is merged already meets one of its own, and another merge that shares one.
fn absorbed(all: &[&Term], whole: &Term, host: &mut Host<'_>) -> Option<[Side; 2]> {
    for one in all {
        let again = side(host.merge(&[whole, one]), whole);
        if let Some(sides) = differ(plain(whole), again) {
            return Some(sides);
        }
    }
    let middle = all.len() / 2;
    let (left, right) = (&all[..=middle], &all[middle..]);
    let halves = [host.merge(left), host.merge(right)];
    let [Ok(left), Ok(right)] = halves else {
        return None;
    };
    differ(plain(whole), side(host.merge(&[&left, &right]), whole))
}

fn differ(one: Side, other: Side) -> Option<[Side; 2]> {
    let sorted = |side: &Side| {
        let mut values = side.values.clone();
        if let Ok(values) = &mut values {
            values.sort();
        }
        values
    };
    (sorted(&one) != sorted(&other)).then_some([one, other])
}

fn plain(term: &Term) -> Side {
    Side {
        of: term.name.clone(),
        values: Ok(values_of(&term.versions)),
    }
}

fn side(merged: Result<Term, Failure>, beside: &Term) -> Side {
    match merged {
        Ok(term) => plain(&term),
        Err(failure) => failed(&[beside], &failure),
    }
}

fn failed(members: &[&Term], failure: &Failure) -> Side {
    Side {
        of: name_of(members),
        values: Err(failure.to_string()),
    }
}

fn name_of(terms: &[&Term]) -> String {
    let names: Vec<&str> = terms.iter().map(|term| term.name.as_str()).collect();
    format!("M({})", names.join(", "))
}
