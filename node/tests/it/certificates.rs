//! `sibyl resolver check` on real modules: the shipped ones are what the README says, and modules that break laws
//! are told which, why, and with what exit code.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::live::SIBYL;

fn check(args: &[&str]) -> Output {
    let mut command = Command::new(SIBYL);
    command.args(["resolver", "check"]).args(args);
    command.stdin(Stdio::null()).env_remove("SIBYL_OUTPUT");
    command.output().expect("it runs")
}

fn prebuilt(name: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/../resolvers/prebuilt/{name}.wasm")
}

/// The certificate, and the exit code.
#[track_caller]
fn certificate(args: &[&str]) -> (Value, Option<i32>) {
    let output = check(&[args, &["--output", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (report["certificate"].clone(), output.status.code())
}

/// A shipped resolver is of this tier, with deleted siblings among the others too.
#[track_caller]
fn is(name: &str, tier: &str, more: &[&str]) {
    let file = prebuilt(name);
    let (certificate, code) = certificate(&[&[file.as_str(), "--deletes"], more].concat());
    assert_eq!(
        certificate["tier"], tier,
        "{name} {more:?}: {certificate:#}"
    );
    let passes = matches!(tier, "foldable" | "lattice");
    assert_eq!(code, Some(i32::from(!passes)), "{name}");
    assert_eq!(
        certificate["costs"].as_array().map(Vec::len),
        Some(4),
        "{name}"
    );
}

#[test]
fn the_shipped_resolvers_are_what_they_claim() {
    is("lww", "lattice", &[]);
    is("set-union", "lattice", &[]);
    is("cart", "lattice", &[]);
    is("max", "lattice", &[]);
    is("min", "lattice", &[]);
    is("or-set", "lattice", &[]);
    is("pn-counter", "lattice", &[]);
    is("sum", "foldable", &[]);
    is("automerge", "lattice", &["--cases", "24"]);
    is("json-merge", "deterministic", &[]);
    for rule in ["newest", "max", "min"] {
        let config = format!(r#"{{"default":"{rule}"}}"#);
        is("json-merge", "lattice", &["--config", &config]);
    }
}

/// All values, one behind the other.
const CONCATENATES: &str = r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "resolve")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $siblings i32) (param $count i32) (result i32)
    (local $to i32) (local $from i32) (local $left i32)
    (local.set $to (i32.const 65536))
    (loop $each
      (if (local.get $count) (then
        (local.set $from (i32.load offset=4 (local.get $siblings)))
        (local.set $left (i32.load offset=8 (local.get $siblings)))
        (memory.copy (local.get $to) (local.get $from) (local.get $left))
        (local.set $to (i32.add (local.get $to) (local.get $left)))
        (local.set $siblings (i32.add (local.get $siblings) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $each))))
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store8 (i32.const 20) (i32.const 0))
    (i32.store (i32.const 24) (i32.const 65536))
    (i32.store (i32.const 28) (i32.sub (local.get $to) (i32.const 65536)))
    (i32.const 16)))"#;

#[test]
fn a_module_that_breaks_a_law_is_told_which_and_why() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("concatenates.wat");
    std::fs::write(&file, CONCATENATES).expect("it can be written");
    let file = file.to_str().expect("text");
    let (found, code) = certificate(&[file, "--seed", "5"]);
    assert_eq!(
        (code, &found["tier"]),
        (Some(1), &Value::from("deterministic")),
        "{found:#}"
    );
    let laws = found["laws"].as_array().expect("a list");
    let repetition = laws
        .iter()
        .find(|law| law["law"] == "repetition")
        .expect("it was tried");
    assert_eq!(repetition["holds"], false);
    let suspicion = repetition["suspicion"].as_str().expect("text");
    assert!(suspicion.contains("one behind the other"), "{suspicion}");
    let siblings = &repetition["counterexample"]["siblings"];
    assert_eq!(
        siblings.as_array().map(Vec::len),
        Some(1),
        "one is enough: {siblings}"
    );
    let (again, _) = certificate(&[file, "--seed", "5"]);
    assert_eq!(again, found, "a seed repeats everything");
    let (_, code) = certificate(&[file, "--at-least", "deterministic"]);
    assert_eq!(code, Some(0));

    let text = check(&[file, "--seed", "5"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in [
        "repetition is broken",
        ") should be ",
        "remedy: ",
        "--seed 5",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn what_cannot_be_checked_is_refused_with_the_reason() {
    let refused = |args: &[&str], code: i32, words: &str| {
        let output = check(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    };
    let cart = prebuilt("cart");
    refused(&["/nowhere/cart.wasm"], 1, "/nowhere/cart.wasm");
    refused(&[&prebuilt("SHA256SUMS").replace(".wasm", "")], 1, "");
    refused(&[&cart, "--cases", "0"], 2, "--cases");
    refused(
        &[&prebuilt("json-merge"), "--config", r#"{"rules":1}"#],
        2,
        "--config",
    );
    // Edits of what is no cart are no carts.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let sample = folder.path().join("sample");
    std::fs::write(&sample, "no cart").expect("it can be written");
    let sample = sample.to_str().expect("text");
    refused(
        &[&cart, "--sample", sample],
        1,
        "give samples of real values",
    );
}
