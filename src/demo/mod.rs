//! `loteria demo`: a whole contest on this machine. A server and agencies, real processes of this very program, and
//! made-up bets; at the end a table, checked against the file of bets.

mod contest;
mod output;
mod process;
mod report;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use thiserror::Error;

use crate::audit::{AuditError, Count};
use crate::lottery::AgencyId;
use crate::sample::{self, SampleError};
use crate::status::StatusError;
use crate::system::signal::Signals;
use contest::LiveContest;
use output::Output;

/// The most agencies that one machine is asked to run.
pub const MAX_AGENCIES: i64 = 1000;
/// The server's file, in the demo's folder.
const BETS_FILE: &str = "bets.csv";

/// Why the contest failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The folder holds the bets of another contest.
    #[error("{} holds a {BETS_FILE} already: give another --dir", .0.display())]
    FolderInUse(PathBuf),
    /// The folder, or the file of bets in it, can't be used.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which of them.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The agencies' files can't be written.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A process can't be started, waited for, or written about.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SIGINT or SIGTERM came.
    #[error("interrupted")]
    Interrupted,
    /// The server ended, not by a signal or too often.
    #[error("the server ended ({status}): {last_line}")]
    ServerEnded {
        /// How.
        status: ExitStatus,
        /// The end of its log.
        last_line: String,
    },
    /// The server does not listen.
    #[error("the server does not listen: {last_line}")]
    NotListening {
        /// The end of its log.
        last_line: String,
    },
    /// The server does not say how many bets it has.
    #[error("the server does not tell its status: {0}")]
    Status(#[from] StatusError),
    /// An agency failed.
    #[error("agency {agency} ended ({status}): {last_line}")]
    AgencyEnded {
        /// Which.
        agency: AgencyId,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        last_line: String,
    },
    /// An agency ended well, and did not say how many of its bets won.
    #[error("the log of agency {0} does not say how many of its bets won")]
    NoWinners(AgencyId),
    /// What the processes said and what is in the file differ.
    #[error("agency {agency}: {BETS_FILE} has {counted}, but should have {told}")]
    Disagreement {
        /// Which.
        agency: AgencyId,
        /// What is in the file.
        counted: Count,
        /// What server and agency said.
        told: Count,
    },
    /// The files can't be read at the end.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The files have errors at the end.
    #[error("{} has errors; `loteria check --file FILE` lists them", .0.display())]
    BadFile(PathBuf),
}

/// Runs a contest of that many agencies with that many bets each.
///
/// # Errors
/// Something did not go as it should, or a signal came. All processes have ended then, too.
pub fn run(agencies: u16, bets: u64, folder: Option<PathBuf>) -> Result<(), DemoError> {
    let signals = Signals::open()?;
    let folder = prepare(folder)?;
    let output = Output::new(u64::from(agencies) * bets);
    output.say(&format!("folder: {}", folder.display()))?;
    sample::write(agencies, &[bets], sample::DEFAULT_SEED, &folder)?;
    let mut contest = LiveContest::new(&folder, agencies, &signals, &output)?;
    let claims = contest.run();
    let stopped = contest.stop();
    let claims = claims?;
    stopped?;
    output.finish();
    report::check(&claims, bets, &folder.join(BETS_FILE), &output)
}

/// Makes the folder and says its full path.
fn prepare(folder: Option<PathBuf>) -> Result<PathBuf, DemoError> {
    let at = |path: &Path, error| DemoError::File { path: path.to_owned(), error };
    let folder = match folder {
        Some(folder) => {
            fs::create_dir_all(&folder).map_err(|error| at(&folder, error))?;
            folder
        }
        None => fresh_folder().map_err(|error| at(&std::env::temp_dir(), error))?,
    };
    let folder = folder.canonicalize().map_err(|error| at(&folder, error))?;
    if folder.join(BETS_FILE).exists() { Err(DemoError::FolderInUse(folder)) } else { Ok(folder) }
}

fn fresh_folder() -> io::Result<PathBuf> {
    loop {
        let folder = std::env::temp_dir().join(format!("loteria-demo-{:08x}", rand::random::<u32>()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_bets_is_refused_and_a_missing_one_made() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        assert!(prepare(Some(inner.clone())).unwrap().is_dir());
        fs::write(inner.join(BETS_FILE), "").unwrap();
        assert!(matches!(prepare(Some(inner)), Err(DemoError::FolderInUse(_))));
    }
}
