//! The `loteria` binary: blocks the signals, then does what the command line says.

use std::process::ExitCode;

use loteria::{cli, system};

fn main() -> ExitCode {
    match system::signal::block() {
        Ok(()) => cli::run(),
        Err(error) => cli::fail(&error),
    }
}
