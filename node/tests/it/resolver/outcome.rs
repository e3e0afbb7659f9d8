//! What a guest answers, and what the node makes of it.

use std::sync::Arc;

use sibyl::resolver::{BadIndex, Failure, Level, Limits, LogLine, Resolution};

use super::fixture::{fail, guest, keep, log, merged, module, pick};
use super::{Bench, call};

async fn check(body: &str, expected: Result<Resolution, Failure>) {
    let bench = Bench::new();
    let report = bench
        .merged(&guest(body), &["one", "two", "three"], Limits::default())
        .await;
    assert_eq!(report.outcome, expected);
}

#[tokio::test]
async fn resolutions() {
    check(&pick(2), Ok(Resolution::Pick(2))).await;
    check(&keep(&[2, 0]), Ok(Resolution::Keep(vec![2, 0]))).await;
    check(
        "(call $answer (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 0))",
        Ok(Resolution::Delete),
    )
    .await;
    let text = "(call $answer (i32.const 0) (i32.const 0) (i32.const 256) (i32.const 10))";
    check(text, Ok(Resolution::Merged("a sentence".into()))).await;
}

#[tokio::test]
async fn a_guest_sees_the_siblings_in_order() {
    // The value of the third sibling: its record stands at 64 after the first.
    let third = "(call $answer (i32.const 0) (i32.const 0)
        (i32.load offset=68 (local.get $siblings)) (i32.load offset=72 (local.get $siblings)))";
    check(third, Ok(Resolution::Merged("three".into()))).await;
}

#[tokio::test]
async fn a_delete_is_a_sibling_without_a_value() {
    let bench = Bench::new();
    let present = "(call $answer (i32.const 0) (i32.const 1)
        (i32.load8_u offset=32 (local.get $siblings)) (i32.const 0))";
    let digest = bench.accepted(guest(present)).await;
    let mut call = call(&["a", "b"], Limits::default());
    assert_eq!(
        bench.platform.resolve_now(&digest, &call).outcome,
        Ok(Resolution::Pick(1))
    );
    call.siblings[1].value = None;
    assert_eq!(
        bench.platform.resolve_now(&digest, &call).outcome,
        Ok(Resolution::Pick(0))
    );
}

#[tokio::test]
async fn failures_of_the_resolver_itself() {
    let text = || "a sentence".to_owned();
    check(&fail(1), Err(Failure::BadConfig(text()))).await;
    check(&fail(2), Err(Failure::Declined(text()))).await;
    check(&fail(3), Err(Failure::Other(text()))).await;
    let malformed = |index: u32| {
        format!(
            "(i32.store (i32.const 32) (i32.const 10))
             (call $answer (i32.const 1) (i32.const 0) (i32.const {index}) (i32.const 256))"
        )
    };
    check(
        &malformed(1),
        Err(Failure::Malformed {
            index: 1,
            message: text(),
        }),
    )
    .await;
    let bad = BadIndex::OutOfRange {
        index: 3,
        siblings: 3,
    };
    check(&malformed(3), Err(Failure::InvalidIndex(bad))).await;
}

#[tokio::test]
async fn indices_out_of_range_twice_and_none() {
    let out = |index| {
        Err(Failure::InvalidIndex(BadIndex::OutOfRange {
            index,
            siblings: 3,
        }))
    };
    check(&pick(3), out(3)).await;
    check(&pick(u32::MAX), out(u32::MAX)).await;
    check(&keep(&[0, 3]), out(3)).await;
    check(
        &keep(&[1, 2, 1]),
        Err(Failure::InvalidIndex(BadIndex::Twice { index: 1 })),
    )
    .await;
    check(&keep(&[]), Err(Failure::InvalidIndex(BadIndex::None))).await;
}

#[tokio::test]
async fn answers_that_break_the_rules_of_components_are_crashes() {
    for body in [
        // A pointer outside memory, a list longer than memory, an unknown case, an unaligned result.
        "(call $answer (i32.const 0) (i32.const 0) (i32.const -8) (i32.const 8))",
        "(call $answer (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 200000))",
        "(call $answer (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 0))",
        "i32.const 17",
        // Text that is not UTF-8.
        "(i32.store8 (i32.const 256) (i32.const 255))
         (call $answer (i32.const 1) (i32.const 3) (i32.const 256) (i32.const 4))",
    ] {
        let bench = Bench::new();
        let report = bench
            .merged(&guest(body), &["a", "b"], Limits::default())
            .await;
        assert_eq!(
            report.outcome.as_ref().map_err(Failure::kind),
            Err("trap"),
            "{body}: {:?}",
            report.outcome
        );
    }
}

#[tokio::test]
async fn a_crash_keeps_what_was_logged() {
    let bench = Bench::new();
    let body = format!("{} {} unreachable", log(2, 10), log(0, 1));
    let report = bench
        .merged(&guest(&body), &["a", "b"], Limits::default())
        .await;
    let Err(Failure::Trap(text)) = &report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert!(text.contains("unreachable"), "{text}");
    let line = |level, message: &str| LogLine {
        level,
        message: message.to_owned(),
    };
    assert_eq!(
        report.log,
        [line(Level::Warn, "a sentence"), line(Level::Debug, "a")]
    );
    assert!(
        report.fuel > 0 && report.memory_bytes == 2 << 16,
        "{report:?}"
    );
}

#[tokio::test]
async fn a_crash_is_told_with_the_errors_before_it() {
    let body = format!("{} {} unreachable", log(2, 1), log(3, 10));
    let report = Bench::new()
        .merged(&guest(&body), &["a", "b"], Limits::default())
        .await;
    let Err(failure) = &report.outcome else {
        panic!("{:?}", report.outcome)
    };
    let text = failure.to_string();
    assert!(
        text.starts_with("the resolver crashed: a sentence: "),
        "{text}"
    );
    assert!(text.contains("unreachable"), "{text}");
}

#[tokio::test]
async fn every_call_starts_afresh() {
    // Counts in a global and picks that sibling: a second call on the same instance would pick another.
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (call $answer (i32.const 0) (i32.const 1) (global.get $calls) (i32.const 0))";
    let bench = Bench::new();
    let digest = bench
        .accepted(module(
            "resolve",
            body,
            "(global $calls (mut i32) (i32.const 0))",
        ))
        .await;
    let call = call(&["a", "b"], Limits::default());
    for _ in 0..5 {
        assert_eq!(
            bench.platform.resolve_now(&digest, &call).outcome,
            Ok(Resolution::Pick(1))
        );
        assert_eq!(
            bench.platform.resolve(digest, call.clone()).await.outcome,
            Ok(Resolution::Pick(1))
        );
    }
}

#[tokio::test]
async fn fuel_is_the_same_every_time_and_after_a_restart() {
    let body = format!("{} {}", log(1, 10), merged(1000));
    let bench = Bench::new();
    let digest = bench.accepted(guest(&body)).await;
    let call = call(&["some", "siblings"], Limits::default());
    let first = bench.platform.resolve_now(&digest, &call).fuel;
    assert!(first > 0);
    assert_eq!(bench.platform.resolve_now(&digest, &call).fuel, first);
    assert_eq!(
        bench.platform.resolve(digest, call.clone()).await.fuel,
        first
    );
    let bench = bench.restarted();
    bench.platform.prepare(digest).await.expect("ready again");
    assert_eq!(bench.platform.resolve_now(&digest, &call).fuel, first);
}

#[tokio::test]
async fn configurations_and_values_are_checked_by_the_module_or_not_at_all() {
    // Refuses a configuration that begins with `x`, with a text; crashes on one that begins with `!`.
    let check = r#"(func (export "check-config") (param $at i32) (param $length i32) (result i32)
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 33)) (then unreachable))
        (i32.store8 (i32.const 64) (i32.eq (i32.load8_u (local.get $at)) (i32.const 120)))
        (i32.store (i32.const 68) (i32.const 256))
        (i32.store (i32.const 72) (i32.const 10))
        i32.const 64)"#;
    let bench = Bench::new();
    let checks = bench.accepted(module("resolve", &pick(0), check)).await;
    let platform = &bench.platform;
    assert_eq!(
        platform.check_config(checks, "{}".to_owned()).await,
        Ok(Ok(()))
    );
    assert_eq!(
        platform.check_config(checks, "x".to_owned()).await,
        Ok(Err("a sentence".to_owned()))
    );
    let crashed = platform.check_config(checks, "!".to_owned()).await;
    assert_eq!(crashed.map_err(|failure| failure.kind()), Err("trap"));
    let does_not = bench.accepted(guest(&pick(0))).await;
    assert_eq!(
        platform.check_config(does_not, "x".to_owned()).await,
        Ok(Ok(()))
    );
    assert_eq!(
        platform
            .check_value(does_not, call(&["v"], Limits::default()))
            .await,
        Ok(Ok(()))
    );
}

#[tokio::test]
async fn a_value_is_checked_by_what_it_is() {
    // Refuses a value that begins with `x`. The value comes after bucket, key, config and attributes.
    let check = r#"(func (export "check-value")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $at i32) (param $length i32) (result i32)
        (i32.store8 (i32.const 64) (i32.eq (i32.load8_u (local.get $at)) (i32.const 120)))
        (i32.store (i32.const 68) (i32.const 256))
        (i32.store (i32.const 72) (i32.const 10))
        i32.const 64)"#;
    let bench = Bench::new();
    let digest = bench.accepted(module("resolve", &pick(0), check)).await;
    let check = async |value| {
        bench
            .platform
            .check_value(digest, call(&[value], Limits::default()))
            .await
    };
    assert_eq!(check("good").await, Ok(Ok(())));
    assert_eq!(check("x is bad").await, Ok(Err("a sentence".to_owned())));
}

#[tokio::test]
async fn a_module_that_is_not_here_is_missing() {
    let bench = Bench::new();
    let digest = sibyl_core::id::Digest::of(b"nothing");
    let call = Arc::new(call(&["a", "b"], Limits::default()));
    assert_eq!(
        bench.platform.resolve_now(&digest, &call).outcome,
        Err(Failure::MissingModule)
    );
    let report = bench
        .platform
        .resolve(digest, Arc::unwrap_or_clone(call))
        .await;
    assert_eq!(report.outcome, Err(Failure::MissingModule));
}
