//! Which traces are recorded: the decision, apart from its doing.
//!
//! It falls before the SDK is asked, so a span nobody keeps costs next to nothing. In this order: a forced
//! span is kept; a child follows its parent; a root that links to a recorded span is kept, so a link never
//! dangles for our own doing; any other root is kept with the ratio's probability. The ratio can change at
//! any time (`PUT /v1/trace`) and touches only roots that start afterwards.

use std::sync::atomic::{AtomicU64, Ordering};

/// A ratio that is not a number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the sampling ratio is a number from 0 (no traces) to 1 (all traces), not {0}")]
pub struct BadRatio(pub f64);

/// What is known about a span that wants to start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Question {
    /// The parent's decision; `None` for a root.
    pub(super) parent: Option<bool>,
    /// Whether any link leads to a recorded span.
    pub(super) link_sampled: bool,
    /// Whether the span must be kept.
    pub(super) forced: bool,
}

/// The ratio, shared by everything that starts roots.
#[derive(Debug)]
pub(super) struct Sampler {
    /// `f64` bits of a number from 0 to 1.
    ratio: AtomicU64,
}

impl Sampler {
    /// A sampler that keeps this share of roots, from 0 to 1.
    pub(super) fn new(ratio: f64) -> Result<Self, BadRatio> {
        let sampler = Self {
            ratio: AtomicU64::new(0),
        };
        sampler.set_ratio(ratio)?;
        Ok(sampler)
    }

    /// The share of roots that are kept, from 0 to 1.
    pub(super) fn ratio(&self) -> f64 {
        f64::from_bits(self.ratio.load(Ordering::Relaxed))
    }

    /// Changes the share for roots that start from now on.
    pub(super) fn set_ratio(&self, ratio: f64) -> Result<(), BadRatio> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(BadRatio(ratio));
        }
        self.ratio.store(ratio.to_bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Decides. `draw` is a uniform random number from 0 (included) to 1 (excluded), asked for only when
    /// it matters. It is not derived from the trace id: a client chooses that one.
    pub(super) fn keeps(&self, question: Question, draw: impl FnOnce() -> f64) -> bool {
        if question.forced {
            return true;
        }
        match question.parent {
            Some(sampled) => sampled,
            None => question.link_sampled || draw() < self.ratio(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keeps(ratio: f64, question: Question, draw: f64) -> bool {
        let sampler = Sampler::new(ratio).expect("the test gives a valid ratio");
        sampler.keeps(question, || draw)
    }

    proptest! {
        #[test]
        fn the_ratio_decides_roots(ratio in 0.0..=1.0f64, draw in 0.0..1.0f64) {
            prop_assert_eq!(keeps(ratio, Question::default(), draw), draw < ratio);
        }

        #[test]
        fn a_child_follows_its_parent(ratio in 0.0..=1.0f64, draw in 0.0..1.0f64, parent: bool, link_sampled: bool) {
            let question = Question { parent: Some(parent), link_sampled, forced: false };
            prop_assert_eq!(keeps(ratio, question, draw), parent);
        }

        #[test]
        fn a_recorded_link_keeps_a_root(ratio in 0.0..=1.0f64, draw in 0.0..1.0f64) {
            let question = Question { link_sampled: true, ..Question::default() };
            prop_assert!(keeps(ratio, question, draw));
        }

        #[test]
        fn force_beats_everything(ratio in 0.0..=1.0f64, draw in 0.0..1.0f64, parent: Option<bool>, link_sampled: bool) {
            let question = Question { parent, link_sampled, forced: true };
            prop_assert!(keeps(ratio, question, draw));
        }

        #[test]
        fn only_ratios_are_accepted(ratio: f64) {
            prop_assert_eq!(Sampler::new(ratio).is_ok(), (0.0..=1.0).contains(&ratio));
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_exact() {
        assert!(!keeps(0.0, Question::default(), 0.0));
        assert!(keeps(1.0, Question::default(), 1.0 - f64::EPSILON));
    }

    #[test]
    fn a_bad_ratio_changes_nothing() {
        let sampler = Sampler::new(0.25).expect("a quarter is a ratio");
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(sampler.set_ratio(bad).is_err());
            assert_eq!(sampler.ratio(), 0.25);
        }
    }
}
