//! `observability/TRACES.md` and `names.rs` say the same.

use std::collections::BTreeSet;

use super::rpc::Rpc;

const DOCUMENT: &str = include_str!("../../../observability/TRACES.md");
const NAMES: &str = include_str!("names.rs");

/// The names a table of the document lists: what stands in back quotes in first cells.
fn documented() -> BTreeSet<&'static str> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

/// The names the code uses: every constant of `names.rs`.
fn coded() -> BTreeSet<&'static str> {
    let constants = NAMES
        .lines()
        .filter(|line| line.trim_start().starts_with("pub const"));
    constants
        .filter_map(|line| line.split('"').nth(1))
        .collect()
}

#[test]
fn the_document_lists_exactly_the_names_in_the_code() {
    assert_eq!(documented(), coded());
    assert!(coded().len() > 50, "names.rs was read");
}

#[test]
fn the_document_lists_every_remote_call() {
    for rpc in Rpc::ALL {
        let quoted = format!("`{}`", rpc.as_str());
        assert!(DOCUMENT.contains(&quoted), "{quoted}");
    }
}
