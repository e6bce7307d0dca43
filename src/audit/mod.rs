//! `loteria winners` and `loteria check`: the contest, from its files alone.
//!
//! Nothing is locked or written, so both work while a server runs. The state file is read first: bets are only appended,
//! so the bets are at least as new as the state.
//!
//! | file | what |
//! |---|---|
//! | `files` | the files, opened for reading |
//! | `tally` | how many bets and winners each agency has |
//! | `report` | reads all rows, and collects the tally and what is wrong |
//! | `winners` | the question of `loteria winners`, and its answer |

mod files;
mod report;
mod tally;
mod winners;

use std::io::{self, Write};
use std::path::PathBuf;

use thiserror::Error;

pub(crate) use files::Files;
pub(crate) use report::Report;
pub(crate) use tally::{Count, Tally};
pub(crate) use winners::{Question, winners};

use crate::server::storage::Rules;

#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Nobody reads the output any more, or the disk is full.
    #[error("can't write: {0}")]
    Write(io::Error),
}

/// Checks the files. Returns whether they have no errors.
pub(crate) fn check(files: &Files, configured: Rules, out: &mut dyn Write) -> Result<bool, AuditError> {
    let report = Report::read(files, configured, None, &report::bar(files)?, |_| Ok(()))?;
    report.write(out).and_then(|()| out.flush()).map_err(AuditError::Write)?;
    Ok(report.is_good())
}
