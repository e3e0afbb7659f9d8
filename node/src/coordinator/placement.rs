//! Who takes a request now: the preference list of a key after a look at who can be reached.
//!
//! Reachability is a local opinion. It chooses whom to ask first and who stands in for whom; it never decides
//! safety: whoever was judged wrong answers for itself.

use sibyl_core::flow::Replicas;
use sibyl_core::flow::put::Put;
use sibyl_core::id::{NodeId, Partition};
use sibyl_core::registry::Bucket;

use super::Coordinator;
use crate::tasks::registry::View;

/// The most fallbacks of a key that are asked: twice the largest usual n, and a read without an answer ends.
const MOST_FALLBACKS: usize = 10;

/// A key's nodes, as this node sees them.
pub(super) struct Placement {
    pub(super) owners: Vec<NodeId>,
    /// Its owners by the other layout, while it changes hands: a write goes to them, too.
    pub(super) also: Vec<NodeId>,
    /// Owners that cannot be reached, or are suspected.
    away: Vec<NodeId>,
    /// Owners that are suspected: a read leaves them alone as long as the others do.
    spared: Vec<NodeId>,
    /// Owners that can be reached and take many times as long as others.
    slow: Vec<NodeId>,
    /// Others that can, in the order of the preference list; none in a strict request.
    fallbacks: Vec<NodeId>,
}

impl Placement {
    pub(super) fn replicas(&self) -> Replicas<'_> {
        Replicas {
            owners: &self.owners,
            away: &self.away,
            spared: &self.spared,
            fallbacks: &self.fallbacks,
        }
    }

    /// A write by this node that is acknowledged when `w` copies count, by both layouts while owners change.
    pub(super) fn put(&self, me: &NodeId, w: usize, sloppy: bool) -> Put {
        self.by_both(Put::new(me.clone(), self.replicas(), w, sloppy), w)
    }

    /// The same of a write that was minted when others were the owners.
    pub(super) fn put_again(&self, before: &Put, w: usize, sloppy: bool) -> Put {
        self.by_both(before.again(self.replicas(), w, sloppy), w)
    }

    fn by_both(&self, put: Put, w: usize) -> Put {
        if self.also.is_empty() {
            return put;
        }
        // What is all of these is all of those.
        let all = w == self.owners.len();
        let also = if all {
            self.also.len()
        } else {
            w.min(self.also.len())
        };
        put.also(&self.also, &self.away, also)
    }

    /// How many nodes could take a write at most, this one included.
    pub(super) fn in_reach(&self) -> usize {
        let here = self.owners.iter().filter(|node| !self.away.contains(node));
        here.count() + self.fallbacks.len()
    }

    /// In which order nodes are asked to coordinate a write: owners that can be reached, slow ones behind the others,
    /// then whoever may stand in, and in the end owners that cannot, for the one that has just come back.
    pub(super) fn candidates(self) -> impl Iterator<Item = NodeId> {
        let Self {
            owners,
            away,
            slow,
            fallbacks,
            ..
        } = self;
        let (gone, mut here): (Vec<_>, Vec<_>) =
            owners.into_iter().partition(|owner| away.contains(owner));
        here.sort_by_key(|owner| slow.contains(owner));
        here.into_iter().chain(fallbacks).chain(gone)
    }

    /// Nobody is spared: the client takes what there is.
    pub(super) fn ask_all(&mut self) {
        self.spared.clear();
    }

    /// The owners in the order in which a read asks them: this node, then those that can be reached, slow ones last.
    pub(super) fn best_first(mut self, me: &NodeId) -> Self {
        let (away, spared, slow) = (&self.away, &self.spared, &self.slow);
        let rank = |node: &NodeId| match node {
            node if node == me => 0,
            node if spared.contains(node) => 4,
            node if away.contains(node) => 3,
            node if slow.contains(node) => 2,
            _ => 1,
        };
        self.owners.sort_by_key(rank);
        self.fallbacks.sort_by_key(rank);
        self
    }
}

impl Coordinator {
    pub(super) fn placement(
        &self,
        view: &View,
        bucket: &Bucket,
        partition: Partition,
        sloppy: bool,
    ) -> Placement {
        let n = bucket.config.n;
        let owners = view.owners(bucket, partition).to_vec();
        let also = view.placed.also(partition, n).to_vec();
        let all = owners.iter().chain(&also);
        let away = all.filter(|owner| !self.is_there(owner));
        let suspects = owners.iter().filter(|owner| !self.is_there(owner));
        let spared = suspects.filter(|owner| self.gossip().is_suspect(owner));
        let slow = self.slow_among(&owners);
        let others = view.placed.fallbacks(partition, n);
        let fallbacks = others.filter(|node| sloppy && self.is_there(node));
        Placement {
            away: away.cloned().collect(),
            spared: spared.cloned().collect(),
            fallbacks: fallbacks.take(MOST_FALLBACKS).cloned().collect(),
            owners,
            also,
            slow,
        }
    }

    /// Of these, who takes many times as long as others.
    fn slow_among(&self, owners: &[NodeId]) -> Vec<NodeId> {
        let pace = self.pace();
        let slow = owners.iter().filter(|owner| pace.is_slow(owner));
        slow.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> Vec<NodeId> {
        let node = |name: &&str| name.parse().expect("a name");
        names.iter().map(node).collect()
    }

    fn placement() -> Placement {
        Placement {
            owners: nodes(&["n1", "n2", "n3", "n4"]),
            also: Vec::new(),
            away: nodes(&["n1"]),
            spared: Vec::new(),
            slow: nodes(&["n2"]),
            fallbacks: nodes(&["n5"]),
        }
    }

    #[test]
    fn a_slow_owner_coordinates_when_no_other_can() {
        let order: Vec<NodeId> = placement().candidates().collect();
        assert_eq!(order, nodes(&["n3", "n4", "n2", "n5", "n1"]));
    }

    #[test]
    fn a_slow_owner_is_read_behind_the_others() {
        let me = &nodes(&["n4"])[0];
        let placed = placement().best_first(me);
        assert_eq!(placed.owners, nodes(&["n4", "n3", "n2", "n1"]));
    }
}
