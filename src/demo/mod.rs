//! `loteria demo`: runs a whole contest on this machine, with this program as server and agencies and with made-up bets. At
//! the end it compares the file of bets with what the agencies report.

mod contest;
mod error;
mod process;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use indicatif::ProgressBar;
use nix::unistd::mkdtemp;

use self::contest::{BETS_FILE, Contest, all_agencies};
use self::error::DemoError;
use crate::audit::{Files, Report};
use crate::sample;
use crate::server::storage::Rules;
use crate::system::signal::Signals;

/// The most agencies. Each is a process.
pub(crate) const MAX_AGENCIES: i64 = 1000;

/// Runs a contest of that many agencies with that many bets each. Its processes have ended when this returns.
pub(crate) fn run(agencies: u16, bets: u64, folder: Option<PathBuf>) -> Result<(), DemoError> {
    let signals = Signals::open()?;
    let folder = prepare(folder)?;
    writeln!(io::stdout(), "folder: {}", folder.display())?;
    sample::write(agencies, &[bets], sample::DEFAULT_SEED, &folder)?;
    let mut contest = Contest::start(&folder, agencies, bets, &signals)?;
    let reported = contest.run();
    let stopped = contest.stop();
    let (reported, duration) = reported?;
    stopped?;
    let bets_file = folder.join(BETS_FILE);
    let files = Files::open(&bets_file)?;
    let rules = Rules { clients_amount: agencies, winner_number: sample::WINNING_NUMBER };
    let found = Report::read(&files, rules, None, &ProgressBar::hidden(), |_| Ok(()))?;
    let mut out = io::stdout().lock();
    writeln!(out)?;
    reported.write_table(agencies, &mut out)?;
    writeln!(out, "\ntime: {:.2} s\nbets: {}", duration.as_secs_f64(), bets_file.display())?;
    found.seal.map_or(Ok(()), |seal| writeln!(out, "seal: {seal}"))?;
    // The file of bets must have each bet of the agencies' files once.
    for agency in all_agencies(agencies) {
        let (reported, counted) = (reported.of(agency), found.tally.of(agency));
        if reported != counted || counted.stored.bets != bets {
            return Err(DemoError::Disagreement { agency, bets, counted, reported });
        }
    }
    if found.is_good() { Ok(()) } else { Err(DemoError::BadFile(bets_file)) }
}

/// Makes the folder, and returns its full path.
fn prepare(folder: Option<PathBuf>) -> Result<PathBuf, DemoError> {
    let template = std::env::temp_dir().join("loteria-demo-XXXXXX");
    let made = match &folder {
        Some(path) => fs::create_dir_all(path).and_then(|()| path.canonicalize()),
        None => mkdtemp(&template).map_err(io::Error::from),
    };
    let folder = made.map_err(|error| DemoError::File { path: folder.unwrap_or(template), error })?;
    if folder.join(BETS_FILE).exists() { Err(DemoError::FolderInUse(folder)) } else { Ok(folder) }
}
