//! Bursts wait, overload is told, and the laws hold whatever comes in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    running: 2,
    waiting: 3,
    patience_ms: 100,
    overload_patience_ms: 10,
    overload_after_ms: 50,
};
const FAR: u64 = 1_000_000;

fn line(running: usize) -> Line {
    let mut line = Line::new(LIMITS);
    for _ in 0..running {
        assert_eq!(line.arrive(0, FAR), Verdict::Begin);
    }
    line
}

fn waits(line: &mut Line, now_ms: u64) -> Ticket {
    match line.arrive(now_ms, FAR) {
        Verdict::Wait(ticket, _) => ticket,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn places_then_the_line_then_nothing() {
    let mut line = line(2);
    for _ in 0..3 {
        waits(&mut line, 0);
    }
    assert_eq!(line.arrive(0, FAR), Verdict::Shed);
}

#[test]
fn a_burst_is_served_in_its_order() {
    let mut line = line(2);
    let (first, second) = (waits(&mut line, 0), waits(&mut line, 1));
    assert_eq!(line.leave(2), [Turn::Begin(first)]);
    assert_eq!(line.leave(3), [Turn::Begin(second)]);
    assert_eq!((line.running(), line.waiting()), (2, 0));
}

#[test]
fn under_overload_the_newest_goes_first_and_the_late_go() {
    let mut line = line(2);
    let late = waits(&mut line, 0);
    let old = waits(&mut line, 55);
    let new = waits(&mut line, 60);
    assert!(line.is_overloaded(60));
    assert_eq!(line.leave(60), [Turn::Shed(late), Turn::Begin(new)]);
    assert_eq!(line.leave(61), [Turn::Begin(old)]);
    assert!(!line.is_overloaded(61), "the line emptied");
}

#[test]
fn nobody_is_begun_after_its_deadline() {
    let mut line = line(2);
    assert_eq!(line.arrive(5, 5), Verdict::Shed);
    let Verdict::Wait(ticket, wait_ms) = line.arrive(5, 9) else {
        panic!("there is room in the line");
    };
    assert_eq!(wait_ms, 4, "its deadline comes before its patience ends");
    assert_eq!(line.leave(9), [Turn::Shed(ticket)]);
}

#[test]
fn who_withdraws_is_not_told_any_more() {
    let mut line = line(2);
    let ticket = waits(&mut line, 0);
    assert!(line.withdraw(ticket));
    assert!(!line.withdraw(ticket));
    assert_eq!(line.leave(2), []);
    let told = {
        assert_eq!(line.arrive(2, FAR), Verdict::Begin);
        waits(&mut line, 2)
    };
    assert_eq!(line.leave(3), [Turn::Begin(told)]);
    assert!(!line.withdraw(told), "it was told, and has a place");
}

#[test]
fn background_work_waits_for_clients_and_never_for_ever() {
    let idle = Load::default();
    assert!(!idle.holds_back(0));
    let loads = [
        Load {
            running: BUSY_REQUESTS + 1,
            ..idle
        },
        Load { waiting: 1, ..idle },
        Load {
            writes: BUSY_WRITES + 1,
            ..idle
        },
    ];
    for load in loads {
        assert!(
            load.holds_back(0) && load.holds_back(MAX_YIELD_MS - 1),
            "{load:?}"
        );
        assert!(!load.holds_back(MAX_YIELD_MS), "{load:?}");
    }
    let served = Load {
        running: BUSY_REQUESTS,
        waiting: 0,
        writes: BUSY_WRITES,
    };
    assert!(!served.holds_back(0));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(u64),
    Leave,
    Withdraw(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..200u64).prop_map(Step::Arrive),
        3 => Just(Step::Leave),
        1 => (0..8usize).prop_map(Step::Withdraw),
        2 => (0..60u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn the_laws_hold(steps in steps()) {
        let mut line = Line::new(LIMITS);
        let (mut now_ms, mut running) = (0, 0);
        let mut waiting = BTreeMap::new();
        for step in steps {
            match step {
                Step::Pass(ms) => now_ms += ms,
                Step::Arrive(patience_ms) => {
                    let until_ms = now_ms + patience_ms;
                    match line.arrive(now_ms, until_ms) {
                        Verdict::Begin => running += 1,
                        Verdict::Wait(ticket, wait_ms) => {
                            prop_assert!(wait_ms <= LIMITS.patience_ms && wait_ms <= patience_ms);
                            prop_assert_eq!(running, LIMITS.running, "a free place is taken");
                            waiting.insert(ticket, until_ms);
                        }
                        Verdict::Shed => {
                            prop_assert!(patience_ms == 0 || waiting.len() == LIMITS.waiting);
                        }
                    }
                }
                Step::Leave if running > 0 => {
                    running -= 1;
                    for turn in line.leave(now_ms) {
                        let (ticket, begins) = match turn {
                            Turn::Begin(ticket) => (ticket, true),
                            Turn::Shed(ticket) => (ticket, false),
                        };
                        let until_ms = waiting.remove(&ticket);
                        prop_assert!(until_ms.is_some(), "told once");
                        prop_assert!(!begins || until_ms > Some(now_ms), "in time");
                        running += usize::from(begins);
                    }
                    prop_assert!(running == LIMITS.running || waiting.is_empty(), "a place goes on");
                }
                Step::Withdraw(at) => {
                    if let Some(ticket) = waiting.keys().nth(at).copied() {
                        prop_assert!(line.withdraw(ticket));
                        waiting.remove(&ticket);
                    }
                }
                Step::Leave => {}
            }
            prop_assert_eq!((line.running(), line.waiting()), (running, waiting.len()));
            prop_assert!(running <= LIMITS.running && waiting.len() <= LIMITS.waiting);
            prop_assert!(!waiting.is_empty() || !line.is_overloaded(now_ms));
        }
    }
}
