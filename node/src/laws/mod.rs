//! The law check: what a resolver may be trusted with, found out by trying.
//!
//! The host sorts siblings and never calls a resolver for a single one, so order and that case hold by
//! construction. What is left are the laws of `design/resolvers.md`, tried on related inputs that `proptest` draws
//! from a seed and shrinks. A broken law comes with the smallest input that breaks it, every step on the way, a
//! suspicion and a remedy. [`Subject`] is the resolver: a [`Module`], or a function of a test. What a law is and which
//! tier its lack leaves is the registry's matter (`sibyl_core::registry::Certificate`), which keeps what is found here.

mod cases;
mod host;
mod judge;
mod module;
mod recheck;
mod report;
mod suspicion;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

pub use cases::Values;
pub use host::{Ran, Step, Subject};
pub use judge::{Counterexample, Given, Side};
pub use module::Module;
pub use recheck::recheck;
pub use report::kept;
pub use sibyl_core::registry::{Law, Tier};
pub use suspicion::Suspicion;

/// Cases of a quick check: a second or two for a shipped resolver, even in a debug build.
pub const QUICK_CASES: u32 = 256;
/// Cases of a thorough one.
pub const THOROUGH_CASES: u32 = 4_096;
/// The most cases of one check: each is some dozen calls.
pub const MOST_CASES: u32 = 100_000;
/// Fewer than this, where more were asked for, say nothing.
const LEAST_CASES: u32 = 32;
/// Drawn cases that may be refused for each that counts, before there are too few values to say anything.
const REFUSALS_PER_CASE: u32 = 16;
/// Steps of shrinking, each a whole case.
const SHRINKS: u32 = 2_000;
/// The most of a value that a report shows.
const SHOWN_BYTES: usize = 200;
/// Entropy of the values whose cost is measured: each four times the one before.
const COST_ENTROPY: [usize; 4] = [2, 8, 32, 128];

/// How a check is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cases of each law, at most [`MOST_CASES`].
    pub cases: u32,
    /// Where drawing begins: the same seed draws the same cases.
    pub seed: u64,
    /// Whether the resolver is shown tombstones, as a bucket with `deletes: resolver` does.
    pub deletes: bool,
    /// When to stop drawing; each law gets an equal share of what is left. Without it all cases are tried.
    pub until: Option<Instant>,
}

/// How far a check is, for somebody who waits.
#[derive(Debug, Default)]
pub struct Progress {
    /// The law that is tried, by its place in [`Law::ALL`].
    law: AtomicU32,
    /// Its cases that counted.
    cases: AtomicU32,
}

impl Progress {
    /// The law that is tried now, and how many of its cases counted.
    pub fn now(&self) -> (Law, u32) {
        let at = self.law.load(Ordering::Relaxed) as usize;
        let law = Law::ALL.get(at).copied().unwrap_or(Law::Deletes);
        (law, self.cases.load(Ordering::Relaxed))
    }

    fn begin(&self, law: Law) {
        let at = Law::ALL.iter().position(|one| *one == law).unwrap_or(0);
        self.cases.store(0, Ordering::Relaxed);
        self.law.store(at as u32, Ordering::Relaxed);
    }
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

/// Too few cases could be tried to say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconclusive {
    /// The law at which it showed.
    pub law: Law,
    /// How many cases counted before.
    pub cases: u32,
    /// Whether it was the time that ran out, and not the values.
    pub slow: bool,
}

impl std::error::Error for Inconclusive {}

impl fmt::Display for Inconclusive {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.slow {
            "the resolver is too slow for this check; give it more time with a thorough one"
        } else {
            "check-value refuses nearly all values that were drawn; export sampling, or give samples of real values"
        };
        let (cases, law) = (self.cases, self.law.name());
        write!(to, "only {cases} cases of {law} could be tried: {why}")
    }
}

/// Tries every law.
///
/// # Errors
/// [`Inconclusive`] if the subject accepts too few of the values, or the time ran out.
pub fn check(
    subject: &dyn Subject,
    values: &Values,
    plan: Plan,
    progress: &Progress,
) -> Result<Certificate, Inconclusive> {
    let wanted = |law: &&Law| **law != Law::Deletes || plan.deletes;
    let mut tried: Vec<Law> = Law::ALL.iter().filter(wanted).copied().collect();
    // First what a resolver that never ends breaks at once, so that no other law waits for it.
    tried.sort_by_key(|law| *law != Law::Totality);
    let mut laws: Vec<Finding> = Vec::new();
    for (left, law) in (1..=tried.len()).rev().zip(&tried) {
        let now = Instant::now();
        let share = |until: Instant| now + until.saturating_duration_since(now) / left as u32;
        progress.begin(*law);
        let budget = Budget {
            until: plan.until.map(share),
            progress,
        };
        match try_law(*law, subject, values, plan, &budget) {
            Ok(finding) => laws.push(finding),
            // Without totality nothing else makes a difference.
            Err(why) if why.slow && laws.first().is_some_and(|it| it.broken.is_some()) => break,
            Err(why) => return Err(why),
        }
    }
    laws.sort_by_key(|finding| finding.law);
    let broken = |law| laws.iter().any(|it| it.law == law && it.broken.is_some());
    Ok(Certificate {
        tier: Tier::without(broken),
        costs: costs(subject, values),
        laws,
        seed: plan.seed,
    })
}

/// What one law may take, and who watches.
struct Budget<'a> {
    until: Option<Instant>,
    progress: &'a Progress,
}

impl Budget<'_> {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

fn try_law(
    law: Law,
    subject: &dyn Subject,
    values: &Values,
    plan: Plan,
    budget: &Budget<'_>,
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
    let counted = &budget.progress.cases;
    let judged = runner.run(&cases::case(law == Law::Deletes), |case| {
        // What is over counts nothing; a case that broke the law is not shrunk further.
        if budget.is_over() {
            return Ok(());
        }
        judge::of_drawn(law, &case, subject, values)?;
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let counted = counted.load(Ordering::Relaxed);
    let inconclusive = |slow| Inconclusive {
        law,
        cases: counted,
        slow,
    };
    let broken = match judged {
        Ok(()) if counted < cases.min(LEAST_CASES) => return Err(inconclusive(true)),
        Ok(()) => None,
        // Once more, with every step written down. A law may break only now and then: then it has been seen to.
        Err(TestError::Fail(_, case)) => Some(judge::explain(law, &case, subject, values)),
        Err(TestError::Abort(_)) => return Err(inconclusive(false)),
    };
    Ok(Finding {
        law,
        cases: counted,
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
