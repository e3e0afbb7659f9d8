//! What the law check found of a resolver version, as every node agrees on it.
//!
//! A counterexample stays one for ever: the bytes, the configuration and the engine's fuel schedule are the same. So
//! certificates of one version under one [`Setting`] are joined, never replaced: a law that was broken once is broken,
//! and what is found later, by a longer check or on real conflicts, can only take away.

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// The most settings that one version has certificates for. Beyond it, one that no bucket uses makes room.
pub const MAX_CERTIFICATES: usize = 8;
/// The longest report of one broken law, in bytes of JSON: 8 settings of 64 versions with all 7 laws broken would
/// already exceed a document, which is refused then.
pub const MAX_REPORT_BYTES: usize = 4 << 10;

/// What must hold of a resolver `M`, on fresh instances, comparing bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Law {
    /// The same input twice gives the same answer.
    Determinism,
    /// No failure on values that `check-value` accepts.
    Totality,
    /// The result passes `check-value`.
    Closure,
    /// For every grouping of S: merging the groups, then the results, gives `M(S)`.
    Regrouping,
    /// `M([a, a]) = a`.
    Repetition,
    /// `M({M(S), s}) = M(S)`, and `M({M(S), M(T)}) = M(S ∪ T)`.
    Absorption,
    /// Regrouping, with tombstones among the siblings.
    Deletes,
}

impl Law {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Law; 7] = [
        Law::Determinism,
        Law::Totality,
        Law::Closure,
        Law::Regrouping,
        Law::Repetition,
        Law::Absorption,
        Law::Deletes,
    ];

    /// The name that the API, metrics and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Law::Determinism => "determinism",
            Law::Totality => "totality",
            Law::Closure => "closure",
            Law::Regrouping => "regrouping",
            Law::Repetition => "repetition",
            Law::Absorption => "absorption",
            Law::Deletes => "deletes",
        }
    }

    /// What it says.
    pub fn statement(self) -> &'static str {
        match self {
            Law::Determinism => "the same siblings twice give the same answer",
            Law::Totality => "it never fails on values that its check-value accepts",
            Law::Closure => "its result passes its own check-value",
            Law::Regrouping => {
                "merging groups first, then the results, gives what merging all at once gives"
            }
            Law::Repetition => "two equal siblings merge to that value",
            Law::Absorption => {
                "a merged value that meets its own past, or another merge, adds nothing twice"
            }
            Law::Deletes => "regrouping holds with deleted siblings among them",
        }
    }
}

/// What a resolver may do. Ordered: a higher tier may all that a lower one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Stored and try-able.
    None,
    /// Views only; siblings stay until a client supersedes them.
    Deterministic,
    /// May be folded: each write is counted once.
    Foldable,
    /// May be folded and written back freely.
    Lattice,
}

impl Tier {
    /// The name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Tier::None => "none",
            Tier::Deterministic => "deterministic",
            Tier::Foldable => "foldable",
            Tier::Lattice => "lattice",
        }
    }

    /// What it means to somebody who binds such a resolver.
    pub fn meaning(self) -> &'static str {
        match self {
            Tier::None => "fit to be tried only",
            Tier::Deterministic => "fit for views; siblings stay until a client writes over them",
            Tier::Foldable => {
                "fit to be folded; a client that writes back what it read, without a context, counts twice"
            }
            Tier::Lattice => "fit to be folded, and clients may write merged values back freely",
        }
    }

    /// The tier of a resolver of which these laws do not hold.
    pub fn without(broken: impl Fn(Law) -> bool) -> Self {
        let any = |laws: &[Law]| laws.iter().any(|law| broken(*law));
        if any(&[Law::Determinism, Law::Totality, Law::Closure]) {
            Tier::None
        } else if any(&[Law::Regrouping, Law::Deletes]) {
            Tier::Deterministic
        } else if any(&[Law::Repetition, Law::Absorption]) {
            Tier::Foldable
        } else {
            Tier::Lattice
        }
    }
}

/// Under which circumstances a version was checked: what a bucket hands it besides siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// SHA-256 of the configuration's JSON text, as a binding has it.
    pub config: Digest,
    /// Whether it is shown tombstones: the bucket has `deletes: resolver`.
    pub deletes: bool,
}

/// What became of one law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Which.
    pub law: Law,
    /// The most cases of one check that counted.
    pub cases: u32,
    /// Where that check began to draw.
    pub seed: u64,
    /// The report of what breaks it, as JSON; at most [`MAX_REPORT_BYTES`].
    pub broken: Option<String>,
}

/// What is known of a version under one setting. Its laws are in the order of [`Law`], each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    laws: Vec<Tried>,
}

impl Certificate {
    /// From what was tried; of a law that is there twice, both are joined.
    pub fn new(tried: impl IntoIterator<Item = Tried>) -> Self {
        let mut certificate = Self::default();
        for one in tried {
            certificate.take(one);
        }
        certificate
    }

    /// Each law that was tried.
    pub fn laws(&self) -> &[Tried] {
        &self.laws
    }

    /// What the version may do.
    pub fn tier(&self) -> Tier {
        Tier::without(|law| self.is_broken(law))
    }

    /// Whether this law is known not to hold.
    pub fn is_broken(&self, law: Law) -> bool {
        self.laws
            .iter()
            .any(|tried| tried.law == law && tried.broken.is_some())
    }

    /// Learns what another check found.
    pub fn join(&mut self, other: &Self) {
        for tried in &other.laws {
            self.take(tried.clone());
        }
    }

    fn take(&mut self, tried: Tried) {
        let at = self.laws.partition_point(|known| known.law < tried.law);
        let Some(known) = self.laws.get_mut(at).filter(|it| it.law == tried.law) else {
            self.laws.insert(at, tried);
            return;
        };
        if known.broken.is_some() {
            return;
        }
        if tried.broken.is_some() || tried.cases > known.cases {
            let cases = known.cases.max(tried.cases);
            *known = Tried { cases, ..tried };
        }
    }

    /// Whether it is one: laws in order, each once, reports within their limit.
    pub(in crate::registry) fn is_sound(&self) -> bool {
        let ordered = self.laws.windows(2).all(|two| two[0].law < two[1].law);
        let small = |report: &String| report.len() <= MAX_REPORT_BYTES;
        let reports = || self.laws.iter().filter_map(|tried| tried.broken.as_ref());
        ordered && !self.laws.is_empty() && reports().all(small)
    }
}
