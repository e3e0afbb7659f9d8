//! When a replica that lost its copies may vouch for a partition again.
//!
//! What was acknowledged with W is on W synced copies; one of them may have been the lost one. So a partition
//! answers for itself again only after whole exchanges with at least q = min(n - W + 1, the others) owners
//! whose copies count: any W copies but the lost one meet those. All that can be reached are asked in any case.
//! If everybody there is was asked, more cannot be had: that is enough too, or two nodes that lost their
//! copies at once would wait for each other for ever.

use std::collections::BTreeMap;

use crate::id::NodeId;

/// What a partition of one bucket needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The other owners.
    pub others: Vec<NodeId>,
    /// How many of them, counting, are enough.
    pub q: usize,
}

impl Need {
    /// Of this node, among the owners of a bucket's partition, if so many copies acknowledge a write. Owners that
    /// are no members any more failed for good, and are not asked. `None` if this node is no owner: then it
    /// vouches for nothing.
    pub fn of(
        me: &NodeId,
        owners: &[NodeId],
        w: usize,
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Option<Self> {
        owners
            .contains(me)
            .then(|| Self::from(owners, w, |owner| owner != me && is_member(owner)))
    }

    /// Of whoever is to become an owner: from the owners of before.
    pub fn from(owners: &[NodeId], w: usize, asks: impl Fn(&NodeId) -> bool) -> Self {
        let others: Vec<NodeId> = owners.iter().filter(|owner| asks(owner)).cloned().collect();
        let q = (owners.len() + 1).saturating_sub(w).max(1);
        Self {
            q: q.min(others.len()),
            others,
        }
    }

    /// Whether the exchanges made so far are enough. `done` holds with whom, and whether their copies counted.
    pub fn is_met(
        &self,
        done: &BTreeMap<NodeId, bool>,
        reachable: impl Fn(&NodeId) -> bool,
    ) -> bool {
        let counting = self
            .others
            .iter()
            .filter(|other| done.get(other) == Some(&true));
        let all = self.others.iter().all(|other| done.contains_key(other));
        let present = self.others.iter().filter(|other| reachable(other));
        all || counting.count() >= self.q
            && present.into_iter().all(|other| done.contains_key(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &str) -> Vec<NodeId> {
        names.split(' ').map(|name| name.parse().unwrap()).collect()
    }

    fn check(w: usize, done: &[(&str, bool)], reachable: &str, met: bool) {
        let owners = nodes("a b c");
        let need = Need::of(&owners[0], &owners, w, |_| true).unwrap();
        let done = done
            .iter()
            .map(|(name, counts)| (name.parse().unwrap(), *counts))
            .collect();
        let there = |node: &NodeId| reachable.contains(node.as_str());
        assert_eq!(
            need.is_met(&done, there),
            met,
            "w={w} {done:?} reachable {reachable}"
        );
    }

    #[test]
    fn any_w_copies_but_the_lost_one_meet_those_that_were_asked() {
        for n in 1..=7 {
            let owners: Vec<NodeId> = (0..n).map(|at| format!("n{at}").parse().unwrap()).collect();
            for w in 1..=n {
                let need = Need::of(&owners[0], &owners, w, |_| true).unwrap();
                // W - 1 of the others hold what was acknowledged with the lost copy.
                let missed = need.others.len() - need.q;
                assert!(w == 1 || w - 1 > missed, "n={n} w={w}: {need:?}");
            }
        }
        assert_eq!(Need::of(&nodes("x")[0], &nodes("a b"), 1, |_| true), None);
    }

    #[test]
    fn who_failed_for_good_is_not_waited_for() {
        let owners = nodes("a b c");
        let need = Need::of(&owners[0], &owners, 2, |node| *node != owners[1]).unwrap();
        assert_eq!((need.others, need.q), (nodes("c"), 1));
    }

    #[test]
    fn quorums_and_everybody() {
        check(2, &[], "bc", false);
        check(2, &[("b", true)], "bc", false);
        check(2, &[("b", true)], "b", false);
        check(2, &[("b", true), ("c", true)], "", true);
        check(3, &[("b", true)], "b", true);
        check(3, &[("b", true)], "bc", false);
        check(3, &[("b", false)], "b", false);
        // Both others lost theirs too: there is nobody else to ask.
        check(2, &[("b", false), ("c", false)], "bc", true);
    }
}
