//! The law check: what a resolver may be trusted with, found out by trying.
//!
//! The host sorts siblings and never calls a resolver for a single one, so order and that case hold by
//! construction. What is left are the laws of `design/resolvers.md`, tried on related inputs that `proptest` draws
//! from a seed and shrinks. A broken law comes with the smallest input that breaks it, every step on the way, a
//! suspicion and a remedy. Pure: [`Subject`] is the resolver, a module or a function of a test.

mod cases;
mod host;
mod judge;
mod suspicion;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

pub use cases::Values;
pub use host::{Ran, Step, Subject};
pub use judge::{Counterexample, Given, Side};
pub use suspicion::Suspicion;

/// Cases of a quick check: a second or two for a shipped resolver, even in a debug build.
pub const QUICK_CASES: u32 = 256;
/// Cases of a thorough one.
pub const THOROUGH_CASES: u32 = 4_096;
/// The most cases of one check: each is some dozen calls.
pub const MOST_CASES: u32 = 100_000;
/// Drawn cases that may be refused for each that counts, before there are too few values to say anything.
const REFUSALS_PER_CASE: u32 = 16;
/// Steps of shrinking, each a whole case.
const SHRINKS: u32 = 2_000;
/// The most of a value that a report shows.
const SHOWN_BYTES: usize = 200;
/// Entropy of the values whose cost is measured: each four times the one before.
const COST_ENTROPY: [usize; 4] = [2, 8, 32, 128];

/// What must hold of a resolver `M`, on fresh instances, comparing bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The name that the API and reports use.
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

    fn of(laws: &[Finding]) -> Tier {
        let holds = |wanted: &[Law]| {
            laws.iter()
                .all(|it| !wanted.contains(&it.law) || it.broken.is_none())
        };
        if !holds(&[Law::Determinism, Law::Totality, Law::Closure]) {
            Tier::None
        } else if !holds(&[Law::Regrouping, Law::Deletes]) {
            Tier::Deterministic
        } else if !holds(&[Law::Repetition, Law::Absorption]) {
            Tier::Foldable
        } else {
            Tier::Lattice
        }
    }
}

/// How a check is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cases of each law, at most [`MOST_CASES`].
    pub cases: u32,
    /// Where drawing begins: the same seed draws the same cases.
    pub seed: u64,
    /// Whether the resolver is shown tombstones, as a bucket with `deletes: resolver` does.
    pub deletes: bool,
}

/// What became of one law.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub law: Law,
    /// Cases that counted.
    pub cases: u32,
    /// The smallest case that breaks it.
    pub broken: Option<Counterexample>,
}

/// What one call of a certain size cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes of the siblings.
    pub input_bytes: u64,
    /// Bytes of the result.
    pub output_bytes: u64,
    /// Fuel used.
    pub fuel: u64,
    /// The most linear memory held.
    pub memory_bytes: u64,
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What may be done with it.
    pub tier: Tier,
    /// Each law that was tried.
    pub laws: Vec<Finding>,
    /// Where drawing began.
    pub seed: u64,
    /// Two siblings of growing size. A report, not a law.
    pub costs: Vec<Cost>,
}

/// Too few of the drawn values are values to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconclusive {
    /// The law at which it showed.
    pub law: Law,
    /// How many cases counted before.
    pub cases: u32,
}

impl std::error::Error for Inconclusive {}

impl fmt::Display for Inconclusive {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "only {} cases of {} could be tried: check-value refuses nearly all values that were drawn; export \
             sampling, or give samples of real values",
            self.cases,
            self.law.name()
        )
    }
}

/// Tries every law.
///
/// # Errors
/// [`Inconclusive`] if the subject accepts too few of the values.
pub fn check(
    subject: &dyn Subject,
    values: &Values,
    plan: Plan,
) -> Result<Certificate, Inconclusive> {
    let tried = Law::ALL
        .iter()
        .filter(|law| **law != Law::Deletes || plan.deletes);
    let laws = tried.map(|law| try_law(*law, subject, values, plan));
    let laws = laws.collect::<Result<Vec<_>, _>>()?;
    Ok(Certificate {
        tier: Tier::of(&laws),
        laws,
        seed: plan.seed,
        costs: costs(subject, values),
    })
}

fn try_law(
    law: Law,
    subject: &dyn Subject,
    values: &Values,
    plan: Plan,
) -> Result<Finding, Inconclusive> {
    let cases = plan.cases.clamp(1, MOST_CASES);
    let config = Config {
        cases,
        max_shrink_iters: SHRINKS,
        max_global_rejects: cases.saturating_mul(REFUSALS_PER_CASE),
        failure_persistence: None,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&plan.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let counted = std::cell::Cell::new(0);
    let judged = runner.run(&cases::case(law == Law::Deletes), |case| {
        judge::of_drawn(law, &case, subject, values).map(|()| counted.set(counted.get() + 1))
    });
    let broken = match judged {
        Ok(()) => None,
        // Once more, with every step written down. A law may break only now and then: then it has been seen to.
        Err(TestError::Fail(_, case)) => Some(judge::explain(law, &case, subject, values)),
        Err(TestError::Abort(_)) => {
            return Err(Inconclusive {
                law,
                cases: counted.get(),
            });
        }
    };
    Ok(Finding {
        law,
        cases: counted.get(),
        broken,
    })
}

fn costs(subject: &dyn Subject, values: &Values) -> Vec<Cost> {
    // Bytes that do not repeat soon, and other ones for the other sibling.
    let entropy = |size: usize, salt: u32| -> Vec<u8> {
        let byte = |at: u32| (at ^ salt).wrapping_mul(0x9e37_79b1).to_be_bytes()[0];
        (0..).take(size).map(byte).collect()
    };
    let of_size = |size: &usize| {
        let pair = [
            values.draw(subject, &entropy(*size, 0))?,
            values.draw(subject, &entropy(*size, 0x5a5a))?,
        ];
        Some(host::cost(subject, pair))
    };
    COST_ENTROPY.iter().filter_map(of_size).collect()
}

/// A value for people: as text, cut, or its length.
pub fn shown(value: Option<&Bytes>) -> String {
    let Some(value) = value else {
        return "(deleted)".to_owned();
    };
    match std::str::from_utf8(value) {
        Ok(text)
            if text
                .chars()
                .any(|character| character.is_control() && character != '\n') =>
        {
            format!("{} bytes", value.len())
        }
        Ok(text) if text.len() > SHOWN_BYTES => {
            let cut = text.floor_char_boundary(SHOWN_BYTES);
            format!("{:?}… ({} bytes)", &text[..cut], text.len())
        }
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("{} bytes", value.len()),
    }
}
