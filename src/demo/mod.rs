//! `loteria demo`: runs a whole contest on this machine, with this program as server and agencies and with made-up bets. At
//! the end it compares what they said with the file of bets.

mod contest;
mod error;
mod output;
mod process;
mod report;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::contest::{BETS_FILE, Contest};
use self::error::DemoError;
use self::output::Output;
use crate::sample;
use crate::system::random;
use crate::system::signal::Signals;

/// The most agencies. Each is a process.
pub(crate) const MAX_AGENCIES: i64 = 1000;

/// Run a contest of that many agencies with that many bets each. Its processes have ended when this returns.
pub(crate) fn run(agencies: u16, bets: u64, folder: Option<PathBuf>) -> Result<(), DemoError> {
    let signals = Signals::open()?;
    let folder = prepare(folder)?;
    let output = Output::new(u64::from(agencies) * bets);
    output.say(&format!("folder: {}", folder.display()))?;
    sample::write(agencies, &[bets], sample::DEFAULT_SEED, &folder)?;
    let mut contest = Contest::start(&folder, agencies, &signals, &output)?;
    let claims = contest.run();
    let stopped = contest.stop();
    let claims = claims?;
    stopped?;
    output.finish();
    report::check(&claims, bets, &folder.join(BETS_FILE), &output)
}

/// Make the folder, and return its full path.
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
        let name = format!("loteria-demo-{:08x}", random::number()?);
        let folder = std::env::temp_dir().join(name);
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
