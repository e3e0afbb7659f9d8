//! One answer, true whatever comes in which order.

use proptest::prelude::*;

use super::*;

fn node(at: usize) -> NodeId {
    format!("n{at}").parse().expect("a node id")
}

/// What an owner does with its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acks,
    Fails,
    Silent,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Acks), Just(Fate::Fails), Just(Fate::Silent)]
}

proptest! {
    #[test]
    fn acknowledged_means_w_copies(
        fates in proptest::collection::vec(fate(), 1..6),
        w in 1..6usize,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 12),
        repeat in any::<bool>(),
    ) {
        let owners: Vec<NodeId> = (0..fates.len()).map(node).collect();
        let w = w.min(owners.len());
        let mut put = Put::new(owners[0].clone(), &owners, w);
        let sent = put.handle(Event::Minted);
        let others: Vec<Effect> = owners[1..].iter().cloned().map(Effect::Replicate).collect();
        prop_assert_eq!(sent, others, "everyone else is asked at once");

        let mut left: Vec<usize> = (0..owners.len()).collect();
        let (mut answers, mut acked) = (Vec::new(), 0);
        for pick in order {
            if left.is_empty() { break }
            let at = left.remove(pick.index(left.len()));
            let times = if repeat { 2 } else { 1 };
            for _ in 0..times {
                let effects = match fates[at] {
                    Fate::Acks => put.handle(Event::Acked(&owners[at])),
                    Fate::Fails => put.handle(Event::Failed(&owners[at])),
                    Fate::Silent => Vec::new(),
                };
                answers.extend(effects);
            }
            acked += usize::from(fates[at] == Fate::Acks);
            let written = matches!(answers.first(), Some(Effect::Answer(Outcome::Written { .. })));
            prop_assert!(!written || acked >= w, "acknowledged with {} of {}", acked, w);
        }
        answers.extend(put.handle(Event::Deadline));
        prop_assert_eq!(answers.len(), 1, "exactly one answer");
        let acks = fates.iter().filter(|fate| **fate == Fate::Acks).count();
        let written = matches!(answers[0], Effect::Answer(Outcome::Written { .. }));
        prop_assert_eq!(written, acks >= w, "{:?}", answers);
        prop_assert_eq!(put.is_done(), !fates.contains(&Fate::Silent));
    }
}
