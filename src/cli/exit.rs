//! How a command ends: what it prints, and its exit code.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::Faults;

/// The exit code for a command line or a configuration with faults, the certificates of a server included.
pub(super) const USAGE: u8 = 2;
/// The exit code that shells report for a program ended by SIGPIPE.
const NOBODY_READS: u8 = 141;

/// What a command returns. An error has been reported already.
pub(super) type CommandResult = Result<(), ExitCode>;

/// Prints an error for people.
pub(super) fn fail(error: &dyn Display) -> ExitCode {
    // If standard error is closed, nobody reads it.
    writeln!(io::stderr(), "loteria: {error}").ok();
    ExitCode::FAILURE
}

/// Prints the error, if there is one, for people.
pub(super) fn report<T, E: Display>(result: Result<T, E>) -> Result<T, ExitCode> {
    result.map_err(|error| fail(&error))
}

/// Prints a command's output.
pub(super) fn print(text: impl AsRef<[u8]>) -> CommandResult {
    let mut out = io::stdout();
    end_output(out.write_all(text.as_ref()).and_then(|()| out.flush()))
}

/// Reports why output can't be written. It is no error if the reader closes the pipe early.
pub(super) fn end_output(result: io::Result<()>) -> CommandResult {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ExitCode::from(NOBODY_READS)),
        result => report(result.map_err(|error| format!("can't write: {error}"))),
    }
}

/// Prints what is wrong with a configuration or a command line, for people.
pub(super) fn misuse(lines: impl IntoIterator<Item = impl Display>) -> ExitCode {
    for line in lines {
        fail(&line);
    }
    ExitCode::from(USAGE)
}

/// Logs the faults of a configuration.
pub(super) fn log_faults(faults: &Faults) -> ExitCode {
    faults.log();
    ExitCode::from(USAGE)
}

/// Prints the help that was asked for, or what is wrong with the command line.
pub(super) fn explain(error: &clap::Error) -> ExitCode {
    match error.print() {
        Ok(()) if error.exit_code() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(USAGE),
        Err(_) => ExitCode::FAILURE,
    }
}
