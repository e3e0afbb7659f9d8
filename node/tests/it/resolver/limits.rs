//! Every limit, each with a guest that runs into it, and each told apart from the others.

use sibyl::resolver::{Failure, Limits, LogLine, Resolution};

use super::fixture::{guest, log, merged, module, pick};
use super::{Bench, call};

const ENDLESS: &str = "(loop (br 0)) unreachable";

async fn check(wat: &str, limits: Limits, expected: Failure) {
    let bench = Bench::new();
    let digest = bench.accepted(wat.to_owned()).await;
    let call = call(&["one", "two"], limits);
    assert_eq!(
        bench.platform.resolve_now(&digest, &call).outcome,
        Err(expected.clone())
    );
    let report = bench.platform.resolve(digest, call).await;
    assert_eq!(report.outcome, Err(expected), "on a thread");
}

fn little() -> Limits {
    Limits {
        fuel: 10_000_000,
        memory_bytes: 1 << 20,
        output_bytes: 10_000,
    }
}

#[tokio::test]
async fn an_endless_loop_uses_up_its_fuel() {
    let input = call(&["one", "two"], little()).input_bytes();
    let limit = little().fuel + Limits::FUEL_PER_INPUT_BYTE * input;
    check(&guest(ENDLESS), little(), Failure::Fuel { limit }).await;
}

#[test]
fn fuel_grows_with_the_input_up_to_a_cap() {
    let limits = |fuel| Limits {
        fuel,
        ..Limits::default()
    };
    assert_eq!(limits(5).fuel_for(0), 5);
    assert_eq!(limits(5).fuel_for(3), 3_005);
    assert_eq!(limits(5).fuel_for(u64::MAX), Limits::FUEL_MAX);
    assert_eq!(
        limits(Limits::FUEL_MAX + 1).fuel_for(9),
        Limits::FUEL_MAX + 1
    );
}

#[tokio::test]
async fn growing_memory_beyond_the_limit() {
    let bomb = "(loop (drop (memory.grow (i32.const 1))) (br 0)) unreachable";
    let failure = Failure::Memory {
        wanted_bytes: (1 << 20) + (1 << 16),
        limit_bytes: 1 << 20,
    };
    check(&guest(bomb), little(), failure).await;
}

#[tokio::test]
async fn memory_that_is_too_large_from_the_start() {
    let wat = guest(&pick(0)).replace("\"memory\") 2", "\"memory\") 20");
    let failure = Failure::Memory {
        wanted_bytes: 20 << 16,
        limit_bytes: 1 << 20,
    };
    check(&wat, little(), failure).await;
}

#[tokio::test]
async fn the_maximum_a_module_declares_is_its_own_affair() {
    let body = format!(
        "(if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable)) {}",
        pick(1)
    );
    let wat = guest(&body).replace("\"memory\") 2", "\"memory\") 2 3");
    let report = Bench::new().merged(&wat, &["a", "b"], little()).await;
    assert_eq!(report.outcome, Ok(Resolution::Pick(1)));
    assert_eq!(report.memory_bytes, 2 << 16);
}

#[tokio::test]
async fn growing_a_table_beyond_the_limit() {
    let body = format!(
        "(drop (table.grow (ref.null func) (i32.const 20000))) {}",
        pick(0)
    );
    let wat = module("resolve", &body, "(table 0 funcref)");
    // The wrapped module has a table of one beside it.
    check(
        &wat,
        little(),
        Failure::Table {
            wanted: 20_001,
            limit: 20_000,
        },
    )
    .await;
}

#[tokio::test]
async fn recursing_too_deeply() {
    let more = "(func $deeper (call $deeper) (call $deeper))";
    let wat = module("resolve", "(call $deeper) unreachable", more);
    check(
        &wat,
        little(),
        Failure::StackOverflow {
            limit_bytes: 512 << 10,
        },
    )
    .await;
}

#[tokio::test]
async fn answering_too_much() {
    // Over the limit, but within what may be handed over; and over both.
    for length in [10_001, 500_000] {
        check(
            &guest(&merged(length)),
            little(),
            Failure::Output {
                limit_bytes: 10_000,
            },
        )
        .await;
    }
    let report = Bench::new()
        .merged(&guest(&merged(10_000)), &["a", "b"], little())
        .await;
    let Ok(Resolution::Merged(value)) = report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert_eq!(value.len(), 10_000);
}

#[tokio::test]
async fn siblings_that_are_too_large_together() {
    let bench = Bench::new();
    let digest = bench.accepted(guest(&pick(0))).await;
    let large = "x".repeat(9 << 20);
    let call = call(&[&large, &large], Limits::default());
    let bytes = call.input_bytes();
    let failure = Failure::InputTooLarge {
        bytes,
        limit_bytes: Limits::INPUT_BYTES_MAX,
    };
    assert_eq!(
        bench.platform.resolve_now(&digest, &call).outcome,
        Err(failure)
    );
}

#[tokio::test]
async fn a_million_log_lines_are_64_and_cost_fuel() {
    let lines = |count: u32| {
        format!(
            "(local $left i32) (local.set $left (i32.const {count}))
             (loop {} (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {}",
            log(1, 10),
            pick(0)
        )
    };
    let bench = Bench::new();
    let some = bench
        .merged(&guest(&lines(1_000)), &["a", "b"], Limits::default())
        .await;
    assert_eq!(some.outcome, Ok(Resolution::Pick(0)));
    assert_eq!(some.log.len(), LogLine::LINES_MAX + 1);
    assert_eq!(
        some.log.last().map(|line| line.message.as_str()),
        Some(LogLine::DROPPED)
    );
    assert!(
        some.fuel > 1_000_000,
        "each line is paid for: {}",
        some.fuel
    );

    let million = bench
        .merged(&guest(&lines(1_000_000)), &["a", "b"], Limits::default())
        .await;
    assert_eq!(
        million.outcome.map_err(|failure| failure.kind()),
        Err("fuel")
    );
    assert_eq!(million.log.len(), LogLine::LINES_MAX + 1);
}

#[tokio::test]
async fn a_long_log_line_is_cut_and_says_so() {
    let body = format!("{} {} {}", log(1, 1024), log(1, 1025), pick(0));
    let report = Bench::new()
        .merged(&guest(&body), &["a", "b"], Limits::default())
        .await;
    let lengths: Vec<usize> = report.log.iter().map(|line| line.message.len()).collect();
    assert_eq!(lengths, [1024, 1024]);
    assert!(!report.log[0].message.ends_with(LogLine::CUT));
    assert!(report.log[1].message.ends_with(LogLine::CUT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_permits_are_overload() {
    let bench = Bench::with(|settings| settings.permits = 1);
    let endless = bench.accepted(guest(ENDLESS)).await;
    let quick = bench.accepted(guest(&pick(0))).await;
    let few = call(&["a"], Limits::default());
    let long = call(
        &["a"],
        Limits {
            fuel: 2_000_000_000,
            ..Limits::default()
        },
    );
    let platform = bench.platform.clone();
    let busy = std::thread::spawn(move || {
        loop {
            let report = platform.resolve_now(&endless, &long);
            if report.outcome != Err(Failure::Overload) {
                return report;
            }
        }
    });
    let mut refused = false;
    while !busy.is_finished() && !refused {
        refused = bench.platform.resolve_now(&quick, &few).outcome == Err(Failure::Overload);
        std::thread::yield_now();
    }
    assert!(refused, "a second call ran beside the only permitted one");
    let report = busy.join().expect("no panic");
    assert_eq!(
        report.outcome.map_err(|failure| failure.kind()),
        Err("fuel")
    );
    assert_eq!(
        bench.platform.resolve_now(&quick, &few).outcome,
        Ok(Resolution::Pick(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_queue_for_permits_and_all_are_answered() {
    let bench = Bench::with(|settings| settings.permits = 2);
    let body = format!(
        "(local $left i32) (local.set $left (i32.const 3000000))
         (loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {}",
        pick(0)
    );
    let digest = bench.accepted(guest(&body)).await;
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let platform = bench.platform.clone();
            tokio::spawn(async move {
                platform
                    .resolve(digest, call(&["a"], Limits::default()))
                    .await
            })
        })
        .collect();
    for call in calls {
        assert_eq!(
            call.await.expect("no panic").outcome,
            Ok(Resolution::Pick(0))
        );
    }
}
