//! `loteria winners` and `loteria check` on the command line.

use std::io::{self, BufWriter, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{NOBODY_READS, USAGE, fail};
use crate::audit::files::Files;
use crate::audit::winners::Question;
use crate::audit::{AuditError, Verdict, check, winners};
use crate::config::ServerConfig;
use crate::lottery::AgencyId;
use crate::server::storage::recovery::Rules;

/// Says that the file goes behind a flag, to one who forgot that.
pub const WINNERS_USAGE: &str =
    "loteria winners [--file <FILE>] [--agency <NUMBER>] [--number <NUMBER>] [--csv]";

/// As that of `winners`.
pub const CHECK_USAGE: &str = "loteria check [--file <FILE>]";

/// What the answer of `winners` means.
pub const WINNERS_HELP: &str = "The number that wins is that of the draw in the state file (FILE.state); where there is \
none, LOTTERY_WINNER_NUMBER of the configuration (config.ini, environment). Nothing is locked or written: a server may \
run meanwhile.\n\nExit code 0: the state file agrees, or there is no draw to agree with, which is said. 1: it disagrees, \
or a file can't be read or is damaged. 2: command line or configuration. 141: nobody reads the output any more.";

/// What the answer of `check` means.
pub const CHECK_HELP: &str = "Errors are rows that are none, rows of agencies that do not take part (each such agency is \
listed once), a state file \
that is damaged or contradicts the bets, and after the draw a last row that is not whole. Notices are a last row that is not \
whole before the draw, and what a server will do when it starts. Lines are counted from 1. Up to 100 errors and 100 notices are listed, and all are counted. Nothing is locked or written: a server may run \
meanwhile.\n\nExit code 0: there are no errors. 1: there are, or a file can't \
be read. 2: command line or configuration. 141: nobody reads the output any more.";

/// What to recount.
#[derive(Debug, Args)]
pub struct WinnersArgs {
    /// The file of all bets, a regular one; that which the configuration names unless given
    #[arg(long)]
    file: Option<PathBuf>,
    /// Names the documents of that agency that won, in the order in which their bets were stored
    #[arg(long, value_name = "NUMBER", value_parser = super::bet::agency)]
    agency: Option<AgencyId>,
    /// Takes this number for the one that wins
    #[arg(long)]
    number: Option<u32>,
    /// Names all documents that won, as CSV: agency,document
    #[arg(long)]
    csv: bool,
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The file of all bets, a regular one; that which the configuration names unless given
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Recounts the draw.
pub fn run_winners(args: WinnersArgs) -> ExitCode {
    let WinnersArgs { file, agency, number, csv } = args;
    audit(file, |files, configured| {
        let question = Question { agency, number, csv, configured };
        winners::run(files, &question, &mut BufWriter::new(io::stdout()), &mut io::stderr())
    })
}

/// Checks the files.
pub fn run_check(args: CheckArgs) -> ExitCode {
    audit(args.file, |files, configured| check::run(files, configured, &mut BufWriter::new(io::stdout())))
}

fn audit(file: Option<PathBuf>, look: impl FnOnce(&Files, Rules) -> Result<Verdict, AuditError>) -> ExitCode {
    let config = match ServerConfig::load() {
        Ok(config) => config,
        Err(error) => {
            let _failure = fail(&error);
            return ExitCode::from(USAGE);
        }
    };
    let configured = Rules { clients_amount: config.clients_amount, winner_number: config.winner_number };
    let is_named = file.is_some();
    let path = file.unwrap_or(config.storage_filepath);
    match Files::open(&path).and_then(|files| look(&files, configured)) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
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
