//! The rules of a bucket, found by path.
//!
//! Paths are JSON Pointers (RFC 6901) whose segment `*` stands for any one member. Where several rules fit a
//! path, the one with the first literal segment where the others have `*` wins. Paths do not reach into
//! arrays: an array is one value.

use std::collections::BTreeMap;

/// How the values at one path become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The newest sibling that has a value; ties go to the greater value. Deterministic only: merged
    /// documents carry the newest time of all inputs, so an old member can look new when merged again.
    Lww,
    /// The newest sibling decides, even if it has no value there. A lattice.
    Newest,
    /// The oldest sibling that has a value. Deterministic only.
    First,
    /// The greatest value in JSON order. A lattice.
    Max,
    /// The least value in JSON order. A lattice.
    Min,
    /// Arrays as sets. A lattice.
    Union,
    /// Numbers that only grow, each raised by one writer, in objects of any depth. A lattice.
    Counter,
    /// Member by member, and nothing but objects is accepted. As good as the rules below it.
    Object,
}

impl Rule {
    /// All rules by name.
    pub(crate) const NAMES: [(&'static str, Self); 8] = [
        ("counter", Self::Counter),
        ("first", Self::First),
        ("lww", Self::Lww),
        ("max", Self::Max),
        ("min", Self::Min),
        ("newest", Self::Newest),
        ("object", Self::Object),
        ("union", Self::Union),
    ];

    /// Whether it takes values of every kind, as a default must.
    pub(crate) fn takes_all(self) -> bool {
        !matches!(self, Self::Union | Self::Counter | Self::Object)
    }
}

/// All rules of a bucket.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) root: Node,
    pub(crate) default: Rule,
}

/// The rules at and below one path.
#[derive(Debug, Default)]
pub(crate) struct Node {
    rule: Option<Rule>,
    members: BTreeMap<String, Node>,
    any: Option<Box<Node>>,
}

/// Why a rule cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// The path has a rule already.
    Twice,
    /// A rule above takes the value as a whole.
    Covered(Rule),
}

impl Node {
    /// Adds `rule` at `path`, given as decoded segments.
    pub(crate) fn insert(&mut self, path: &[String], rule: Rule) -> Result<(), Clash> {
        let Some((segment, rest)) = path.split_first() else {
            return match self.rule.replace(rule) {
                Some(_) => Err(Clash::Twice),
                None => Ok(()),
            };
        };
        let below = if segment == "*" {
            self.any.get_or_insert_default()
        } else {
            self.members.entry(segment.clone()).or_default()
        };
        below.insert(rest, rule)
    }

    /// The first path with a rule that a rule above it keeps from ever being asked.
    pub(crate) fn covered(&self, above: Option<Rule>, path: &str) -> Option<(String, Clash)> {
        if let (Some(above), Some(_)) = (above, self.rule) {
            return Some((path.to_owned(), Clash::Covered(above)));
        }
        let above = above.or(self.rule.filter(|&rule| rule != Rule::Object));
        let literal = self.members.iter().map(|(name, node)| (escape(name), node));
        let any = self.any.iter().map(|node| ("*".to_owned(), &**node));
        literal
            .chain(any)
            .find_map(|(name, node)| node.covered(above, &format!("{path}/{name}")))
    }
}

/// The nodes that fit one path, most specific first.
#[derive(Debug, Clone)]
pub(crate) struct Fitting<'r>(Vec<&'r Node>);

impl<'r> Fitting<'r> {
    pub(crate) fn root(rules: &'r Rules) -> Self {
        Self(vec![&rules.root])
    }

    pub(crate) fn rule(&self) -> Option<Rule> {
        self.0.iter().find_map(|node| node.rule)
    }

    /// The nodes that fit the member `name` of a value at this path.
    pub(crate) fn member(&self, name: &str) -> Self {
        let below = self.0.iter().flat_map(|node| {
            let literal = node.members.get(name);
            literal.into_iter().chain(node.any.as_deref())
        });
        Self(below.collect())
    }
}

/// A member's name as a segment of a JSON Pointer.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
