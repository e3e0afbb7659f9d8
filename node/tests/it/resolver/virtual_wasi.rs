//! WASI preview 1 as a resolver gets it: constants and log lines, the same in every call, and nothing else.

use sibyl::resolver::{Failure, Level, Limits, LogLine, Report, Resolution};

use super::Bench;
use super::fixture::{module, pick};

/// Every function that is offered, with its type.
const OFFERED: [(&str, &str); 32] = [
    ("args_get", "(param i32 i32) (result i32)"),
    ("args_sizes_get", "(param i32 i32) (result i32)"),
    ("clock_res_get", "(param i32 i32) (result i32)"),
    ("clock_time_get", "(param i32 i64 i32) (result i32)"),
    ("environ_get", "(param i32 i32) (result i32)"),
    ("environ_sizes_get", "(param i32 i32) (result i32)"),
    ("fd_advise", "(param i32 i64 i64 i32) (result i32)"),
    ("fd_allocate", "(param i32 i64 i64) (result i32)"),
    ("fd_close", "(param i32) (result i32)"),
    ("fd_datasync", "(param i32) (result i32)"),
    ("fd_fdstat_get", "(param i32 i32) (result i32)"),
    ("fd_fdstat_set_flags", "(param i32 i32) (result i32)"),
    ("fd_fdstat_set_rights", "(param i32 i64 i64) (result i32)"),
    ("fd_filestat_get", "(param i32 i32) (result i32)"),
    ("fd_filestat_set_size", "(param i32 i64) (result i32)"),
    (
        "fd_filestat_set_times",
        "(param i32 i64 i64 i32) (result i32)",
    ),
    ("fd_pread", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_prestat_dir_name", "(param i32 i32 i32) (result i32)"),
    ("fd_prestat_get", "(param i32 i32) (result i32)"),
    ("fd_pwrite", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_read", "(param i32 i32 i32 i32) (result i32)"),
    ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_renumber", "(param i32 i32) (result i32)"),
    ("fd_seek", "(param i32 i64 i32 i32) (result i32)"),
    ("fd_sync", "(param i32) (result i32)"),
    ("fd_tell", "(param i32 i32) (result i32)"),
    ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
    ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
    ("proc_exit", "(param i32)"),
    ("proc_raise", "(param i32) (result i32)"),
    ("random_get", "(param i32 i32) (result i32)"),
    ("sched_yield", "(result i32)"),
];

/// A guest that has all of them by their names, and `text` at 1024.
fn guest(body: &str, text: &str) -> String {
    let imports: String = OFFERED
        .iter()
        .map(|(name, of_type)| {
            format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} {of_type}))\n")
        })
        .collect();
    let data = format!("(data (i32.const 1024) \"{text}\")");
    module("resolve", body, &data).replacen(
        "(memory (export",
        &format!("{imports}(memory (export"),
        1,
    )
}

async fn run(body: &str, text: &str) -> Report {
    let siblings = ["a", "b"];
    Bench::new()
        .merged(&guest(body, text), &siblings, Limits::default())
        .await
}

/// The bytes that `body` leaves from 512 on.
async fn left(body: &str, length: usize) -> Vec<u8> {
    let body = format!(
        "{body} (call $answer (i32.const 0) (i32.const 0) (i32.const 512) (i32.const {length}))"
    );
    match run(&body, "").await.outcome {
        Ok(Resolution::Merged(bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_clock_stands_still_and_there_is_no_environment() {
    let body = "
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 512)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 520)))
        (i64.store (i32.const 528) (i64.const -1))
        (i64.store (i32.const 536) (i64.const -1))
        (drop (call $args_sizes_get (i32.const 528) (i32.const 532)))
        (drop (call $environ_sizes_get (i32.const 536) (i32.const 540)))";
    let second = 1_000_000_000_u64.to_le_bytes();
    assert_eq!(
        left(body, 32).await,
        [second, second, [0; 8], [0; 8]].concat()
    );
}

#[tokio::test]
async fn randomness_is_the_same_in_every_call() {
    let body = "
        (drop (call $random_get (i32.const 512) (i32.const 16)))
        (drop (call $random_get (i32.const 528) (i32.const 16)))";
    let drawn = left(body, 32).await;
    assert_ne!(drawn[..16], drawn[16..]);
    assert!(drawn.iter().any(|byte| *byte != drawn[0]));
    assert_eq!(left(body, 32).await, drawn);
}

#[tokio::test]
async fn there_are_three_streams_and_nothing_to_open() {
    let results = [
        ("(call $fd_close (i32.const 2))", 0),
        ("(call $fd_close (i32.const 3))", 8),
        ("(call $fd_prestat_get (i32.const 3) (i32.const 0))", 8),
        ("(call $fd_fdstat_get (i32.const 1) (i32.const 600))", 0),
        ("(call $fd_fdstat_get (i32.const 3) (i32.const 600))", 8),
        (
            "(call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 600))",
            29,
        ),
        (
            "(call $fd_seek (i32.const 7) (i64.const 0) (i32.const 0) (i32.const 600))",
            8,
        ),
        (
            "(call $fd_write (i32.const 0) (i32.const 600) (i32.const 0) (i32.const 600))",
            8,
        ),
        (
            "(call $fd_write (i32.const 3) (i32.const 600) (i32.const 0) (i32.const 600))",
            8,
        ),
        (
            "(call $fd_read (i32.const 0) (i32.const 600) (i32.const 0) (i32.const 604))",
            0,
        ),
        (
            "(call $fd_read (i32.const 3) (i32.const 600) (i32.const 0) (i32.const 604))",
            8,
        ),
        ("(call $sched_yield)", 0),
    ];
    let body: String = (512..)
        .zip(&results)
        .map(|(at, (call, _))| format!("(i32.store8 (i32.const {at}) {call})"))
        .collect();
    let expected: Vec<u8> = results.iter().map(|(_, errno)| *errno).collect();
    assert_eq!(left(&body, results.len()).await, expected);
}

#[tokio::test]
async fn whoever_waits_goes_on_at_once() {
    // A subscription to the clock: its user data comes back, with no error and of its kind (1 here, a read).
    let body = "
        (i64.store (i32.const 768) (i64.const 77))
        (i32.store8 (i32.const 776) (i32.const 1))
        (i64.store (i32.const 512) (i64.const -1))
        (i64.store (i32.const 520) (i64.const -1))
        (drop (call $poll_oneoff (i32.const 768) (i32.const 512) (i32.const 1) (i32.const 544)))";
    let mut expected = [0; 36];
    (expected[0], expected[10], expected[32]) = (77, 1, 1);
    assert_eq!(left(body, 36).await, expected);
}

/// Writes `length` bytes of the text from `from` on to a stream, in two parts.
fn write(fd: u32, from: u32, length: u32) -> String {
    let (first, second) = (length / 2, length - length / 2);
    format!(
        "(i32.store (i32.const 512) (i32.const {at})) (i32.store (i32.const 516) (i32.const {first}))
         (i32.store (i32.const 520) (i32.const {})) (i32.store (i32.const 524) (i32.const {second}))
         (if (call $fd_write (i32.const {fd}) (i32.const 512) (i32.const 2) (i32.const 528)) (then unreachable))
         (if (i32.ne (i32.load (i32.const 528)) (i32.const {length})) (then unreachable))",
        1024 + from + first,
        at = 1024 + from,
    )
}

fn lines(of: &[(Level, &str)]) -> Vec<LogLine> {
    let line = |(level, message): &(Level, &str)| LogLine {
        level: *level,
        message: (*message).to_owned(),
    };
    of.iter().map(line).collect()
}

#[tokio::test]
async fn output_is_logged_line_by_line() {
    // "é" is cut off once, then whole, then half of it stands before an end of line.
    let text = r"one\ntwo and\n\nthree \c3\28 \c3\a9 \ed\a0\80 \f0\9f\98\80\n\c3\nunfinished";
    let body = [write(1, 0, 6), write(2, 0, 4), write(1, 6, 31), pick(1)].concat();
    let report = run(&body, text).await;
    assert_eq!(report.outcome, Ok(Resolution::Pick(1)));
    let expected = [
        (Level::Error, "one"),
        (Level::Info, "one"),
        (Level::Info, "two and"),
        (Level::Info, "three ?( é ??? 😀"),
        (Level::Info, "?"),
    ];
    let mut found = report.log;
    // The first line of standard output was complete before that of standard error.
    found.swap(0, 1);
    assert_eq!(found, lines(&expected));
}

#[tokio::test]
async fn a_long_line_is_logged_in_pieces() {
    let text = "x".repeat(1500) + r"\n";
    let report = run(&[write(1, 0, 1501), pick(0)].concat(), &text).await;
    let lengths: Vec<_> = report.log.iter().map(|line| line.message.len()).collect();
    assert_eq!(lengths, [1024, 476]);
}

#[tokio::test]
async fn exit_is_a_crash_with_the_words_before_it() {
    let body = [
        &write(2, 0, 19),
        "(call $proc_exit (i32.const 0)) unreachable",
    ]
    .concat();
    let report = run(&body, r"panic: boom\nat line 3").await;
    let Err(Failure::Trap(text)) = &report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert!(text.starts_with("panic: boom; at line"), "{text}");
    assert!(text.contains("unreachable"), "{text}");
}

#[tokio::test]
async fn output_cannot_flood_the_host() {
    let body = format!("(loop $again {} (br $again)) unreachable", write(1, 0, 2));
    let report = run(&body, r"a\n").await;
    assert_eq!(
        report.outcome.map_err(|failure| failure.kind()),
        Err("fuel")
    );
    assert_eq!(report.log.len(), LogLine::LINES_MAX + 1);
}

#[tokio::test]
async fn a_function_that_wasi_does_not_have_is_refused() {
    let wat = guest(&pick(0), "").replacen("fd_sync", "fd_teleport", 1);
    let refusal = Bench::new().upload(wat).await.expect_err("it is refused");
    assert!(refusal.to_string().contains("fd_teleport"), "{refusal}");
    let wat = guest(&pick(0), "").replacen("(param i32) (result i32))", "(result i32))", 1);
    let refusal = Bench::new().upload(wat).await.expect_err("it is refused");
    assert!(refusal.to_string().contains("fd_close"), "{refusal}");
}
