//! x
fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some(sibyl::resolver::COMPILE_COMMAND) {
        return sibyl::resolver::compile_child();
    }
    std::process::ExitCode::SUCCESS
//! The `sibyl` executable: the command line, and nothing of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    sibyl::cli::run()
}
