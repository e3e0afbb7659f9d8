//! The `sibyl` executable: the command line, and nothing of its own.
//!
//! One hidden word is answered before the command line is looked at: the child process that compiles an
//! uploaded module runs this same executable, and must not depend on flags or environment.

use std::process::ExitCode;

/// A fifth of a node's time went into the system's allocator: a request is many small, short-lived values,
/// made on one thread and dropped on another (docs/decisions).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(sibyl::resolver::COMPILE_COMMAND) {
        return sibyl::resolver::compile_child();
    }
    sibyl::cli::run()
}
