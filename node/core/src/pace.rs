//! How long peers take to answer, and who of them is slow.
//!
//! Slow is not dead: a peer that takes many times as long as the fastest still gets every write and is asked like any
//! other, but nobody who can choose waits for it: it coordinates writes and gives objects to reads only when all the
//! others are away or slow as well. Compared with the fastest peer, so that a load that slows everybody down makes
//! nobody slow. It chooses; it never decides what is safe. Every write goes to all owners, so a peer that is fast
//! again is soon known to be.

use std::collections::BTreeMap;

use crate::id::NodeId;

/// One answer counts for so much: eight of them and most of what was before is forgotten.
const SHARE: u64 = 8;
/// So many times as long as the fastest is slow.
const TIMES: u64 = 4;
/// Below this nobody is slow: some group commits, which differ by chance.
const LEAST_US: u64 = 25_000;

/// What is known of how long peers take.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Moving averages, in microseconds.
    by: BTreeMap<NodeId, u64>,
}

impl Pace {
    /// A peer took so long to answer, or had not answered after so long.
    pub fn observe(&mut self, node: &NodeId, took_us: u64) {
        match self.by.get_mut(node) {
            Some(average) => *average = *average - *average / SHARE + took_us / SHARE,
            None => {
                self.by.insert(node.clone(), took_us);
            }
        }
    }

    /// Whether a peer takes many times as long as the fastest one.
    #[must_use]
    pub fn is_slow(&self, node: &NodeId) -> bool {
        let Some(took_us) = self.by.get(node) else {
            return false;
        };
        let fastest_us = self.by.values().min().copied().unwrap_or(0);
        *took_us >= LEAST_US && *took_us > fastest_us.saturating_mul(TIMES)
    }

    /// Forgets peers that are no members any more.
    pub fn keep(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.by.retain(|node, _| is_member(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().expect("a name")
    }

    fn after(answers: &[(&str, u64, usize)]) -> Pace {
        let mut pace = Pace::default();
        for (name, took_us, times) in answers {
            for _ in 0..*times {
                pace.observe(&node(name), *took_us);
            }
        }
        pace
    }

    fn check(answers: &[(&str, u64, usize)], slow: &[&str]) {
        let pace = after(answers);
        let found: Vec<&str> = ["n1", "n2", "n3"]
            .into_iter()
            .filter(|name| pace.is_slow(&node(name)))
            .collect();
        assert_eq!(found, slow, "{answers:?}");
    }

    #[test]
    fn one_that_takes_a_hundred_times_as_long_is_slow() {
        check(&[("n2", 5_000, 9), ("n3", 500_000, 1)], &["n3"]);
        check(
            &[("n2", 5_000, 9), ("n3", 5_000, 99), ("n3", 500_000, 3)],
            &["n3"],
        );
    }

    #[test]
    fn one_late_answer_makes_nobody_slow() {
        check(
            &[("n2", 5_000, 9), ("n3", 5_000, 9), ("n3", 100_000, 1)],
            &[],
        );
    }

    #[test]
    fn a_load_that_slows_everybody_down_makes_nobody_slow() {
        check(&[("n2", 900_000, 9), ("n3", 900_000, 9)], &[]);
    }

    #[test]
    fn what_is_fast_anyway_is_not_slow() {
        check(&[("n2", 100, 9), ("n3", 10_000, 9)], &[]);
    }

    #[test]
    fn nobody_is_slow_alone() {
        check(&[("n3", 900_000, 9)], &[]);
    }

    #[test]
    fn one_that_is_fast_again_is_soon_known_to_be() {
        check(
            &[("n2", 5_000, 9), ("n3", 500_000, 9), ("n3", 5_000, 40)],
            &[],
        );
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut pace = after(&[("n2", 5_000, 9), ("n3", 500_000, 9)]);
        pace.keep(|name| *name != node("n2"));
        assert!(
            !pace.is_slow(&node("n3")),
            "there is nobody to compare with"
        );
    }
}
