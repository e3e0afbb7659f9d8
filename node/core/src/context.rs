//! The causal context: an exact set of dots.
//!
//! Kept per actor as intervals `(after, through]`; touching intervals merge. It is a *set*, not a version
//! vector (which is the special case of one interval from 0 per actor): it never claims a dot that its
//! writer did not know. Dotted version vector sets (Preguiça et al., 2010) with the gap made explicit;
//! why the gap matters is counted in `reference/model-findings.md`, m2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Actor, Dot};

/// The counters `after + 1` to `through` of one actor. `after < through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// The counter just below the interval; not part of it.
    pub after: u64,
    /// The last counter of the interval.
    pub through: u64,
}

/// An exact set of dots.
///
/// Laws: [`Context::join`] is associative, commutative and idempotent; a context holds exactly the dots
/// that were put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Actor, Vec<Interval>>")]
pub struct Context {
    intervals: BTreeMap<Actor, Vec<Interval>>,
}

impl Context {
    /// The empty set: what a client knows that never read.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of one dot.
    pub fn of(dot: Dot) -> Self {
        let mut context = Self::new();
        context.insert(dot);
        context
    }

    /// Whether the set holds nothing.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How many intervals the set takes: what it costs on the wire and on disk.
    pub fn len(&self) -> usize {
        self.intervals.values().map(Vec::len).sum()
    }

    /// Whether the set holds this dot.
    pub fn contains(&self, dot: Dot) -> bool {
        let Some(intervals) = self.intervals.get(&dot.actor) else {
            return false;
        };
        let at = intervals.partition_point(|interval| interval.through < dot.counter);
        intervals
            .get(at)
            .is_some_and(|interval| interval.after < dot.counter)
    }

    /// Whether the set holds every dot of another one. Exact: touching intervals are merged, so one of theirs
    /// lies within one of ours or sticks out.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |ours: &[Interval], theirs: &Interval| {
            let at = ours.partition_point(|interval| interval.through < theirs.through);
            ours.get(at)
                .is_some_and(|interval| interval.after <= theirs.after)
        };
        other.intervals.iter().all(|(actor, theirs)| {
            let ours = self.intervals.get(actor).map_or(&[][..], Vec::as_slice);
            theirs.iter().all(|interval| within(ours, interval))
        })
    }

    /// The highest counter of an actor in the set, if it is above a line.
    pub fn highest_above(&self, actor: Actor, line: u64) -> Option<u64> {
        let last = self.intervals.get(&actor)?.last()?;
        (last.through > line).then_some(last.through)
    }

    /// The highest counter per actor: what peers remember of each other.
    pub fn highest(&self) -> impl Iterator<Item = Dot> + '_ {
        self.intervals.iter().filter_map(|(actor, intervals)| {
            let last = intervals.last()?;
            Some(Dot {
                actor: *actor,
                counter: last.through,
            })
        })
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        let after = dot.counter.saturating_sub(1);
        self.insert_interval(dot.actor, after, dot.counter);
    }

    /// Adds the dots `after + 1` to `through` of an actor; nothing if there are none.
    pub fn insert_interval(&mut self, actor: Actor, after: u64, through: u64) {
        if after < through {
            let intervals = self.intervals.entry(actor).or_default();
            insert(intervals, Interval { after, through });
        }
    }

    /// Adds every dot of another set.
    pub fn join(&mut self, other: &Self) {
        for (actor, theirs) in &other.intervals {
            let ours = self.intervals.entry(*actor).or_default();
            if ours.is_empty() {
                ours.clone_from(theirs);
            } else {
                theirs.iter().for_each(|interval| insert(ours, *interval));
            }
        }
    }

    /// The intervals of each actor, in order.
    pub fn intervals(&self) -> impl Iterator<Item = (Actor, &[Interval])> {
        self.intervals
            .iter()
            .map(|(actor, intervals)| (*actor, intervals.as_slice()))
    }
}

impl Extend<Dot> for Context {
    fn extend<I: IntoIterator<Item = Dot>>(&mut self, dots: I) {
        dots.into_iter().for_each(|dot| self.insert(dot));
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::new();
        context.extend(dots);
        context
    }
}

/// Puts an interval in its place and merges it with those it meets.
fn insert(intervals: &mut Vec<Interval>, new: Interval) {
    let first = intervals.partition_point(|old| old.through < new.after);
    let met = intervals[first..].partition_point(|old| old.after <= new.through);
    let (mut after, mut through) = (new.after, new.through);
    for old in &intervals[first..first + met] {
        after = after.min(old.after);
        through = through.max(old.through);
    }
    intervals.splice(first..first + met, [Interval { after, through }]);
}

/// Bytes that decode to intervals in no order, empty or touching: nothing that this code ever wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context's intervals are empty, out of order or touch each other")]
pub struct NotNormal;

impl TryFrom<BTreeMap<Actor, Vec<Interval>>> for Context {
    type Error = NotNormal;

    fn try_from(intervals: BTreeMap<Actor, Vec<Interval>>) -> Result<Self, NotNormal> {
        let filled = |list: &[Interval]| {
            !list.is_empty()
                && list
                    .iter()
                    .all(|interval| interval.after < interval.through)
        };
        let apart = |list: &[Interval]| list.windows(2).all(|pair| pair[0].through < pair[1].after);
        let normal = intervals.values().all(|list| filled(list) && apart(list));
        if normal {
            Ok(Self { intervals })
        } else {
            Err(NotNormal)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn dot() -> impl Strategy<Value = Dot> {
        (0..3u64, 1..24u64).prop_map(|(actor, counter)| Dot {
            actor: Actor(actor),
            counter,
        })
    }

    fn dots() -> impl Strategy<Value = BTreeSet<Dot>> {
        proptest::collection::btree_set(dot(), 0..24)
    }

    fn every_dot() -> impl Iterator<Item = Dot> {
        (0..3).flat_map(|actor| {
            (0..26).map(move |counter| Dot {
                actor: Actor(actor),
                counter,
            })
        })
    }

    fn check_holds_exactly(context: &Context, dots: &BTreeSet<Dot>) {
        for dot in every_dot() {
            assert_eq!(
                context.contains(dot),
                dots.contains(&dot),
                "{dot} in {context:?}"
            );
        }
        let again: Context = context.intervals.clone().try_into().expect("normal form");
        assert_eq!(&again, context);
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_and_nothing_else(dots in dots()) {
            check_holds_exactly(&dots.iter().copied().collect(), &dots);
        }

        #[test]
        fn join_is_union(a in dots(), b in dots(), c in dots()) {
            let [x, y, z]: [Context; 3] = [&a, &b, &c].map(|set| set.iter().copied().collect());
            let joined = |p: &Context, q: &Context| { let mut p = p.clone(); p.join(q); p };
            check_holds_exactly(&joined(&x, &y), &a.union(&b).copied().collect());
            prop_assert_eq!(joined(&x, &y), joined(&y, &x));
            prop_assert_eq!(joined(&joined(&x, &y), &z), joined(&x, &joined(&y, &z)));
            prop_assert_eq!(joined(&x, &x), x);
        }

        #[test]
        fn it_covers_its_subsets_and_nothing_else(a in dots(), b in dots(), both in any::<bool>()) {
            let a: BTreeSet<Dot> = if both { a.union(&b).copied().collect() } else { a };
            let [x, y]: [Context; 2] = [&a, &b].map(|set| set.iter().copied().collect());
            prop_assert_eq!(x.covers(&y), b.is_subset(&a));
        }

        #[test]
        fn intervals_stand_for_their_dots(after in 0..12u64, width in 0..12u64, dots in dots()) {
            let mut context: Context = dots.iter().copied().collect();
            context.insert_interval(Actor(1), after, after + width);
            let span = (after + 1..=after + width).map(|counter| Dot { actor: Actor(1), counter });
            check_holds_exactly(&context, &dots.into_iter().chain(span).collect());
        }
    }

    #[test]
    fn a_key_written_by_one_node_stays_one_interval() {
        let mut context = Context::new();
        let mut after = 0;
        for counter in [3, 9, 10, 70] {
            context.insert_interval(Actor(7), after, counter);
            after = counter;
        }
        assert_eq!(context.len(), 1);
        assert_eq!(context.highest_above(Actor(7), 69), Some(70));
        assert_eq!(context.highest_above(Actor(7), 70), None);
    }
}
