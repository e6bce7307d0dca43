//! `loteria demo`: runs a whole contest on this machine, with this program as server and agencies and with made-up bets. At
//! the end it compares what they reported with the file of bets.

mod contest;
mod error;
mod process;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use nix::unistd::mkdtemp;

use self::contest::{BETS_FILE, Contest, Reported};
use self::error::DemoError;
use crate::audit::{Files, Report};
use crate::sample;
use crate::server::storage::Rules;
use crate::system::signal::Signals;

/// The most agencies. Each is a process.
pub(crate) const MAX_AGENCIES: i64 = 1000;

/// Run a contest of that many agencies with that many bets each. Its processes have ended when this returns.
pub(crate) fn run(agencies: u16, bets: u64, folder: Option<PathBuf>) -> Result<(), DemoError> {
    let signals = Signals::open()?;
    let folder = prepare(folder)?;
    writeln!(io::stdout(), "folder: {}", folder.display())?;
    sample::write(agencies, &[bets], sample::DEFAULT_SEED, &folder)?;
    let mut contest = Contest::start(&folder, agencies, bets, &signals)?;
    let reported = contest.run();
    let stopped = contest.stop();
    let reported = reported?;
    stopped?;
    let bets_file = folder.join(BETS_FILE);
    print(&reported, agencies, &bets_file)?;
    check(&reported, agencies, bets, &bets_file)
}

/// Make the folder, and return its full path.
fn prepare(folder: Option<PathBuf>) -> Result<PathBuf, DemoError> {
    let folder = folder.map_or_else(
        || {
            let template = std::env::temp_dir().join("loteria-demo-XXXXXX");
            mkdtemp(&template).map_err(|error| DemoError::File { path: template, error: error.into() })
        },
        |path| {
            let made = fs::create_dir_all(&path).and_then(|()| path.canonicalize());
            made.map_err(|error| DemoError::File { path, error })
        },
    )?;
    if folder.join(BETS_FILE).exists() { Err(DemoError::FolderInUse(folder)) } else { Ok(folder) }
}

fn print(reported: &Reported, agencies: u16, bets_file: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out)?;
    reported.tally.write_table(agencies, &mut out)?;
    writeln!(out, "\ntime: {:.2} s", reported.duration.as_secs_f64())?;
    writeln!(out, "bets: {}", bets_file.display())?;
    reported.seal.map_or(Ok(()), |seal| writeln!(out, "seal: {seal}"))
}

/// Compare what the processes reported with the file of bets, which must have each bet of the agencies' files once.
fn check(reported: &Reported, agencies: u16, bets: u64, bets_file: &Path) -> Result<(), DemoError> {
    let rules = Rules { clients_amount: agencies, winner_number: reported.winning_number };
    let files = Files::open(bets_file)?;
    let report = Report::read(&files, rules, None, &ProgressBar::hidden(), |_| Ok(()))?;
    for agency in contest::all_agencies(agencies) {
        let (reported, counted) = (reported.tally.of(agency), report.tally.of(agency));
        if reported != counted || counted.bets != bets {
            return Err(DemoError::Disagreement { agency, bets, counted, reported });
        }
    }
    if report.is_good() { Ok(()) } else { Err(DemoError::BadFile(bets_file.to_owned())) }
}
