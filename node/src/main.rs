//! The `sibyl` executable: the command line, and nothing of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    sibyl::cli::run()
}
