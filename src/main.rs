//! The `loteria` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    loteria::cli::run()
}
