//! What happens when, in words: each transcript is a file that reads from top to bottom.
//!
//! `script.rs` says what the commands mean. A view's cell is a state and an incarnation.

use super::script::check;

#[test]
fn a_node_stops_and_returns() {
    check(include_str!("stops_and_returns.txt"));
}

#[test]
fn a_pause_is_noticed_and_refuted() {
    check(include_str!("pause.txt"));
}

#[test]
fn one_broken_link_suspects_nobody() {
    check(include_str!("broken_link.txt"));
}

#[test]
fn a_cut_longer_than_every_timer_resurrects_nobody() {
    check(include_str!("resurrection.txt"));
}

#[test]
fn a_wrong_clock_is_shown_and_not_believed() {
    check(include_str!("clock.txt"));
}

#[test]
fn a_lost_disk_goes_on_above_what_was_and_an_older_one_is_noticed() {
    check(include_str!("disks.txt"));
}
