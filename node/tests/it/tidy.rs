//! The tidy test: what the layout promises, read from the sources.
//!
//! One door per library, who may import whom, sizes of files and functions, headers, words that do not belong
//! in a finished repository. It names every violation at once, with file, line and what to do. The tables in
//! `tables` are the architecture: a change there is a decision, and `ARCHITECTURE.md` changes with it.

mod rules;
mod source;
mod tables;

use source::Source;

#[test]
fn the_repository_is_tidy() {
    let sources = source::all();
    let rust = sources.iter().filter(|source| source.is_rust()).count();
    assert!(
        rust > 100,
        "only {rust} Rust files found: does the walk still work?"
    );
    let mut found: Vec<String> = sources.iter().flat_map(rules::check).collect();
    found.extend(rules::dependencies(&sources));
    found.extend(rules::exceptions(&sources));
    assert!(
        found.is_empty(),
        "{} violations:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// Holds one made-up file to the rules; `expected` are pieces of the messages, in order.
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let found = rules::check(&Source::new(path, text));
    let fits = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, piece)| found.contains(piece));
    assert!(fits, "{path}: expected {expected:?}, found {found:#?}");
}

const HEADER: &str = "//! One.\n//!\n//! Three.\n\n";

#[test]
fn a_library_has_one_door() {
    let text = format!("{HEADER}use axum::Router;\nfn f() {{ let _ = ::fjall::open(); }}\n");
    check("node/src/peer/new.rs", &text, &["axum", "fjall"]);
    check("node/src/http/new.rs", &text, &["fjall"]);
    // Neither a comment, a string nor a module of ours is the library.
    let text = format!(
        "{HEADER}// axum::Router\nconst A: &str = \"axum::Router\";\nuse super::fjall::X;\n"
    );
    check("node/src/store/new.rs", &text, &[]);
}

#[test]
fn a_room_imports_only_what_stands_below_it() {
    let text =
        format!("{HEADER}use crate::http::Api;\nuse crate::{{coordinator::Got, replica}};\n");
    check(
        "node/src/store/new.rs",
        &text,
        &["http", "coordinator", "replica"],
    );
    check("node/src/node.rs", &text, &[]);
    check(
        "node/src/unheard_of.rs",
        &text,
        &["`unheard_of` is not in the table"],
    );
    check(
        "node/src/tasks/gossip.rs",
        &format!("{HEADER}use super::registry::View;\n"),
        &["tasks"],
    );
}

#[test]
fn the_core_is_pure() {
    let text = format!(
        "{HEADER}use std::collections::HashMap;\nuse std::time::Instant;\nuse tokio::sync;\n"
    );
    check(
        "node/core/src/new.rs",
        &text,
        &["door", "HashMap", "Instant", "tokio"],
    );
}

#[test]
fn files_and_functions_have_a_size() {
    let body = "    let _x = 1;\n".repeat(69);
    check(
        "node/src/config/new.rs",
        &format!("{HEADER}fn long() {{\n{body}}}\n"),
        &["`long` has 71 lines"],
    );
    let body = "    let _x = 1;\n".repeat(68);
    check(
        "node/src/config/new.rs",
        &format!("{HEADER}fn fits() {{\n{body}}}\n"),
        &[],
    );
    check(
        "node/src/config/new.rs",
        &format!("{HEADER}{}", "\n".repeat(597)),
        &["601 lines"],
    );
}

#[test]
fn files_say_what_they_are() {
    check("node/src/config/new.rs", "fn f() {}\n", &["header"]);
    check(
        "node/src/config/new.rs",
        "//! One line.\nfn f() {}\n",
        &["header"],
    );
    check(
        "node/src/config/tests.rs",
        "//! One line.\nfn f() {}\n",
        &[],
    );
    check(
        "node/src/config/new.rs",
        &"//! A line.\n".repeat(13),
        &["header"],
    );
    check("node/src/config/utils.rs", HEADER, &["name"]);
}

#[test]
fn unfinished_things_and_foreign_places_are_named() {
    let text = format!(
        "{HEADER}fn f() {{ {}!() }}\n#[{}]\nfn g() {{}}\n",
        "todo", "ignore = \"later\""
    );
    check("node/src/config/new.rs", &text, &["todo", "ignore"]);
    check(
        "node/x.md",
        &format!("get it from {}crates.io/a\n", "https://"),
        &["registry"],
    );
    check("node/x.sh", &format!("cd {}work/x\n", "/"), &["machine"]);
}
