//! Transcripts: what is delivered to whom, and when again.

use super::*;

/// A delivering node, its clock, and what it was told to do.
struct Desk {
    handoff: Handoff,
    now_ms: u64,
    random: u64,
}

fn node(name: &str) -> NodeId {
    name.parse().expect("a node id")
}

impl Desk {
    fn new() -> Self {
        Self {
            handoff: Handoff::default(),
            now_ms: 1_000,
            random: 0,
        }
    }

    /// Tells an event; the effects in words.
    fn tell(&mut self, event: Event<'_>) -> String {
        let effects = self.handoff.handle(event, self.now_ms, self.random);
        let words: Vec<String> = effects.iter().map(words).collect();
        words.join(", ")
    }

    fn kept(&mut self, target: &str) -> String {
        self.tell(Event::Kept(&node(target)))
    }

    fn reachable(&mut self, target: &str) -> String {
        self.tell(Event::Reachable(&node(target)))
    }

    /// A batch ended with so many delivered and so many not, at this record if there is more.
    fn ended(&mut self, target: &str, [delivered, failed]: [usize; 2], next: &str) -> String {
        let end = End {
            delivered,
            failed,
            next: (!next.is_empty()).then(|| next.to_owned().into()),
            busy: false,
        };
        let target = &node(target);
        self.tell(Event::Ended { target, end })
    }
}

fn words(effect: &Effect) -> String {
    match effect {
        Effect::Deliver {
            target,
            after: None,
        } => format!("{target} from the start"),
        Effect::Deliver {
            target,
            after: Some(after),
        } => format!("{target} behind {}", String::from_utf8_lossy(after)),
        Effect::WakeAt(at) => format!("wake at {at}"),
    }
}

#[test]
fn a_target_that_returns_is_served_until_nothing_is_left() {
    let mut desk = Desk::new();
    assert_eq!(desk.kept("a"), "");
    assert_eq!(desk.reachable("a"), "a from the start");
    assert_eq!(desk.ended("a", [64, 0], "k1"), "a behind k1");
    assert_eq!(desk.ended("a", [3, 0], ""), "");
    assert!(!desk.handoff.is_wanted(&node("a")));
    assert_eq!(desk.kept("a"), "a from the start");
}

#[test]
fn what_comes_during_a_pass_is_not_forgotten() {
    let mut desk = Desk::new();
    desk.reachable("a");
    assert_eq!(desk.kept("a"), "a from the start");
    assert_eq!(desk.kept("a"), "", "it may lie before the batch under way");
    assert_eq!(desk.ended("a", [1, 0], ""), "a from the start");
    assert_eq!(desk.ended("a", [1, 0], ""), "");
}

#[test]
fn failures_are_paused_after_longer_each_time_with_a_random_part() {
    let mut desk = Desk::new();
    desk.reachable("a");
    desk.kept("a");
    assert_eq!(desk.ended("a", [0, 2], ""), "wake at 1250");
    assert_eq!(desk.tell(Event::Woken), "wake at 1250", "not before");
    desk.now_ms = 1_250;
    assert_eq!(desk.tell(Event::Woken), "a from the start");
    desk.random = 250;
    assert_eq!(desk.ended("a", [0, 2], ""), "wake at 2000");
    for _ in 0..40 {
        desk.now_ms += LONGEST_PAUSE_MS;
        desk.tell(Event::Woken);
        desk.ended("a", [0, 2], "");
    }
    desk.now_ms += LONGEST_PAUSE_MS;
    assert_eq!(desk.tell(Event::Woken), "a from the start", "and no longer");
}

#[test]
fn a_hint_that_cannot_be_delivered_holds_up_no_other() {
    let mut desk = Desk::new();
    desk.reachable("a");
    desk.kept("a");
    assert_eq!(
        desk.ended("a", [0, 64], "k1"),
        "wake at 1250",
        "nothing went"
    );
    desk.now_ms = 1_250;
    assert_eq!(desk.tell(Event::Woken), "a behind k1");
    assert_eq!(desk.ended("a", [63, 1], "k2"), "a behind k2");
    assert_eq!(
        desk.ended("a", [5, 0], ""),
        "wake at 1500",
        "the rest is tried again, but not at once"
    );
    desk.now_ms = 1_500;
    assert_eq!(desk.tell(Event::Woken), "a from the start");
    assert_eq!(desk.ended("a", [65, 0], ""), "");
}

#[test]
fn one_that_asks_does_not_wait_for_the_pause() {
    let mut desk = Desk::new();
    desk.reachable("a");
    desk.kept("a");
    desk.ended("a", [0, 1], "");
    assert_eq!(desk.tell(Event::Asked(&node("a"))), "a from the start");
}

#[test]
fn who_is_gone_is_left_alone() {
    let mut desk = Desk::new();
    desk.reachable("a");
    desk.kept("a");
    assert_eq!(desk.tell(Event::Gone(&node("a"))), "");
    assert_eq!(desk.ended("a", [0, 1], ""), "", "no timer for who is away");
    assert_eq!(desk.reachable("a"), "a from the start");
}

#[test]
fn a_few_targets_at_a_time_and_each_in_its_turn() {
    let mut desk = Desk::new();
    for target in ["a", "b", "c"] {
        desk.kept(target);
    }
    assert_eq!(desk.reachable("a"), "a from the start");
    desk.now_ms += 1;
    assert_eq!(desk.reachable("b"), "b from the start");
    desk.now_ms += 1;
    assert_eq!(desk.reachable("c"), "");
    desk.now_ms += 1;
    let next = desk.ended("a", [64, 0], "k");
    assert_eq!(next, "c from the start", "a had its turn");
}

#[test]
fn clients_come_first() {
    let mut desk = Desk::new();
    desk.reachable("a");
    desk.kept("a");
    let end = End {
        delivered: 64,
        failed: 0,
        next: Some("k".into()),
        busy: true,
    };
    let target = &node("a");
    assert_eq!(desk.tell(Event::Ended { target, end }), "wake at 1100");
    desk.now_ms = 1_100;
    assert_eq!(desk.tell(Event::Woken), "a behind k");
}
