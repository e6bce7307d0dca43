//! `loteria winners` and `loteria check` on the command line.

use std::io::{self, BufWriter, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{NOBODY_READS, fail, misuse};
use crate::audit::{AuditError, Files, Question, check, winners};
use crate::config::ServerConfig;
use crate::lottery::AgencyId;
use crate::server::storage::Rules;

/// The usage shows that the file follows a flag.
pub(super) const WINNERS_USAGE: &str =
    "loteria winners [--file <FILE>] [--agency <NUMBER>] [--number <NUMBER>] [--csv]";
pub(super) const CHECK_USAGE: &str = "loteria check [--file <FILE>]";

pub(super) const CHECK_HELP: &str = "An error is a line that is not a row, an agency with bets that does not take part (in the line of its \
first bet), a state file (FILE.state) that is damaged or contradicts itself, and after the draw a last row that is not \
whole. A notice is a last row that is not whole before the draw, and what a server will do when it starts. Lines are \
counted from 1. Up to 100 errors and 100 notices are listed; all are counted.\n\nNothing is locked or written: a \
server may be running.\n\nExit code 0: there are no errors. 1: there are errors, or a file can't be read. 2: command \
line or configuration. 141: nobody reads the output any more.";

pub(super) fn winners_help() -> String {
    format!(
        "The winning number is that of the draw in the state file. Without a draw it is LOTTERY_WINNER_NUMBER of the \
         configuration (config.ini, environment). The files are checked as by `loteria check`; with --csv, what was \
         found goes to standard error.\n\n{CHECK_HELP}"
    )
}

#[derive(Debug, Args)]
pub(super) struct WinnersArgs {
    /// The file of all bets, unless it is that of the configuration
    #[arg(long)]
    file: Option<PathBuf>,
    /// List the winning documents of this agency, in the order in which their bets were stored
    #[arg(long, value_name = "NUMBER", value_parser = super::bet::agency)]
    agency: Option<AgencyId>,
    /// Count the winners of this number instead
    #[arg(long)]
    number: Option<u32>,
    /// List all winners as CSV: agency,document
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file of all bets, unless it is that of the configuration
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(super) fn run_winners(args: WinnersArgs) -> ExitCode {
    let WinnersArgs { file, agency, number, csv } = args;
    audit(file, |files, configured| {
        let question = Question { agency, number, csv, configured };
        winners(files, &question, &mut BufWriter::new(io::stdout()), &mut io::stderr())
    })
}

pub(super) fn run_check(args: CheckArgs) -> ExitCode {
    audit(args.file, |files, configured| check(files, configured, &mut BufWriter::new(io::stdout())))
}

fn audit(file: Option<PathBuf>, look: impl FnOnce(&Files, Rules) -> Result<bool, AuditError>) -> ExitCode {
    let config = match ServerConfig::load() {
        Ok(config) => config,
        Err(faults) => return misuse(faults.lines()),
    };
    let configured = Rules { clients_amount: config.clients_amount, winner_number: config.winner_number };
    let is_named = file.is_some();
    let path = file.unwrap_or(config.storage_filepath);
    match Files::open(&path).and_then(|files| look(&files, configured)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(AuditError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::from(NOBODY_READS)
        }
        Err(error @ AuditError::Read { .. }) if !is_named => fail(&format_args!(
            "{error}; the configuration's STORAGE_FILEPATH is {}, --file names another file",
            path.display()
        )),
        Err(error) => fail(&error),
    }
}
