//! Scripts of looks: who is seen how, and what follows. Times are minutes of the looking node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::record::Life;
use super::super::view::MemberView;
use super::*;

const MINUTE_MS: u64 = 60_000;

fn node(name: &str) -> NodeId {
    name.parse().expect("a valid name")
}

fn seen_as(state: State) -> MemberView {
    MemberView {
        state,
        life: Life::NONE,
        learnt_ms: None,
        stamp_ms: 0,
        registry: 0,
        suspected_ms: None,
        suspected_by: Vec::new(),
        skew_ms: None,
    }
}

/// Plays a script for `n1` or another node. Each line is a span of minutes in which it looks every 20 seconds, and
/// what it sees: `name` is alive, `-name` away, `/name` has another store and is away, `~` owners change, `+1` so
/// many were removed. What it decides is said once per change, with the minute.
fn play(me: &str, down_after_minutes: u64, copies: usize, script: &str) -> String {
    let mut removal = Removal::new(down_after_minutes * MINUTE_MS);
    let (mut told, mut last) = (String::new(), Verdict::Nothing);
    let me = node(me);
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (span, rest) = line.split_once(':').expect("a span and what is seen");
        let (from, to) = span.split_once('-').expect("two minutes");
        let minute = |text: &str| text.trim().parse::<u64>().expect("a minute");
        let (mut view, mut members) = (View::default(), BTreeMap::new());
        let (mut removed, mut owners_change) = (0, false);
        for word in rest.split_whitespace() {
            let (state, store, name) = match word.split_at(1) {
                ("~", _) => {
                    owners_change = true;
                    continue;
                }
                ("+", count) => {
                    removed = count.parse().expect("a count");
                    continue;
                }
                ("-", name) => (State::Suspect, 1, name),
                ("/", name) => (State::Suspect, 2, name),
                _ => (State::Alive, 1, word),
            };
            view.members.insert(node(name), seen_as(state));
            members.insert(node(name), Actor(store));
        }
        let looks = (minute(from) * MINUTE_MS..=minute(to) * MINUTE_MS).step_by(20_000);
        for now_ms in looks {
            let verdict = removal.look(&Seen {
                now_ms,
                me: &me,
                view: &view,
                members: &members,
                removed,
                owners_change,
                copies,
            });
            if verdict != last {
                let said = match &verdict {
                    Verdict::Nothing => "nothing".to_owned(),
                    Verdict::Remove { node, store } => format!("remove {node} with store {store}"),
                    Verdict::Held { node, why } => format!("{node} stays: {why}"),
                };
                // Only the first of the sentences that count seconds.
                let counts = |verdict: &Verdict| matches!(verdict, Verdict::Held { why, .. } if why.contains("turn in"));
                if !(counts(&verdict) && counts(&last)) {
                    writeln!(told, "{}: {said}", now_ms / MINUTE_MS).expect("text");
                }
                last = verdict;
            }
        }
    }
    told
}

const ALL: &str = "0000000000000001";

#[test]
fn the_first_who_is_alive_removes_who_stays_away() {
    let script = "0-9: n1 n2 n3 -n4\n 9-11: n1 n2 n3 n4";
    let said = format!("5: remove n4 with store {ALL}\n9: nothing\n");
    assert_eq!(play("n1", 5, 3, script), said);
    assert_eq!(play("n2", 5, 3, script), "", "n1 sees to it");
    assert_eq!(play("n1", 0, 3, script), "", "only an operator does");
    let without_n1 = "0-9: -n1 n2 n3 n4";
    let said = format!("5: remove n1 with store {ALL}\n");
    assert_eq!(play("n2", 5, 3, without_n1), said);
    assert_eq!(play("n3", 5, 3, without_n1), "");
}

#[test]
fn whoever_speaks_in_between_has_not_been_away_so_long() {
    let script = "0-4: n1 n2 n3 -n4\n 4-5: n1 n2 n3 n4\n 5-9: n1 n2 n3 -n4\n 9-11: n1 n2 n3 -n4";
    assert_eq!(
        play("n1", 5, 3, script),
        format!("10: remove n4 with store {ALL}\n")
    );
    // Another store is another life.
    let script = "0-4: n1 n2 n3 -n4\n 4-10: n1 n2 n3 /n4";
    assert_eq!(
        play("n1", 5, 3, script),
        "9: remove n4 with store 0000000000000002\n"
    );
}

#[test]
fn a_node_that_slept_begins_to_count_anew() {
    let script = "0-1: n1 n2 n3 -n4\n 100-106: n1 n2 n3 -n4";
    assert_eq!(
        play("n1", 5, 3, script),
        format!("105: remove n4 with store {ALL}\n")
    );
}

#[test]
fn nobody_goes_below_the_copies_that_buckets_have() {
    let script = "0-6: n1 n2 -n3\n 6-8: n1 n2 -n3 n4";
    assert_eq!(
        play("n1", 5, 3, script),
        format!(
            "5: n3 stays: 2 members would be left for 3 copies: add a node, or replace it\n6: remove n3 with store {ALL}\n"
        )
    );
}

#[test]
fn one_at_a_time_and_one_in_ten_minutes() {
    let script = "0-6: n1 n2 n3 -n4 -n5 n6
        6-7: n1 n2 n3 -n5 n6 ~ +1
        7-18: n1 n2 n3 -n5 n6 +1";
    assert_eq!(
        play("n1", 5, 3, script),
        format!(
            "5: remove n4 with store {ALL}\n6: n5 stays: owners are changing\n7: n5 stays: another one was removed lately: it is its turn in 540 s\n16: remove n5 with store {ALL}\n"
        )
    );
}

#[test]
fn a_node_that_is_no_member_removes_nobody() {
    assert_eq!(play("n0", 5, 3, "0-9: n1 n2 n3 -n4"), "");
}
