//! Quorums intersect, count everyone once, and say the truth early.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn levels_of_small_clusters() {
    let needs = |text: &str, n, members| text.parse::<Level>().expect("a level").need(n, members);
    assert_eq!(needs("quorum", 3, 6), 2);
    assert_eq!(needs("quorum", 3, 1), 1);
    assert_eq!(needs("quorum", 3, 2), 2);
    assert_eq!(needs("quorum", 4, 9), 3);
    assert_eq!(needs("all", 3, 2), 2);
    assert_eq!(needs("one", 3, 2), 1);
    assert_eq!(needs("3", 3, 2), 3);
}

#[test]
fn other_texts_are_refused() {
    for text in ["", "0", "-1", "+1", "01", "256", "ALL", "quorum ", "two"] {
        assert_eq!(text.parse::<Level>(), Err(BadLevel(text.to_owned())));
    }
}

#[test]
fn more_than_there_are_is_lost_at_once() {
    assert_eq!(Tally::<u8>::new(2, 3).standing(), Standing::Lost);
    assert_eq!(Tally::<u8>::new(2, 0).standing(), Standing::Met);
}

#[test]
fn a_late_answer_counts() {
    let mut tally = Tally::new(2, 2);
    tally.ack(0);
    assert_eq!(tally.fail(1), Standing::Lost);
    assert_eq!(tally.ack(1), Standing::Met);
    assert_eq!(tally.fail(1), Standing::Met);
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::One),
        Just(Level::Quorum),
        Just(Level::All),
        (1..=u8::MAX).prop_map(Level::Count)
    ]
}

proptest! {
    #[test]
    fn a_level_reads_as_it_is_written(level in level()) {
        prop_assert_eq!(level.to_string().parse::<Level>(), Ok(level));
    }

    #[test]
    fn two_quorums_meet(n in 1..20_usize, members in 1..20_usize) {
        prop_assert!(2 * Level::Quorum.need(n, members) > n.min(members));
        prop_assert!(Level::Quorum.need(n, members) <= Level::All.need(n, members));
    }

    #[test]
    fn standing_is_what_the_sets_say(
        n in 1..8_usize,
        need in 0..9_usize,
        replies in prop::collection::vec((0..8_usize, any::<bool>()), 0..24),
    ) {
        let mut tally = Tally::new(n, need);
        let (mut acked, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for (replica, good) in replies.into_iter().filter(|(replica, _)| *replica < n) {
            if good { acked.insert(replica); tally.ack(replica); } else { failed.insert(replica); tally.fail(replica); }
            let may_come = n - failed.difference(&acked).count();
            let expected = if acked.len() >= need { Standing::Met } else if may_come < need { Standing::Lost } else { Standing::Pending };
            prop_assert_eq!(tally.standing(), expected);
            prop_assert_eq!((tally.acks(), tally.heard(&replica)), (acked.len(), true));
        }
    }
}
