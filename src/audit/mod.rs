//! `loteria winners` and `loteria check`: the contest, from its files alone.
//!
//! No file of the contest is locked or written, so both work while a server runs.
//!
//! | file | what |
//! |---|---|
//! | `files` | the files, opened for reading |
//! | `tally` | how many bets and winners each agency has |
//! | `report` | reads all rows, counts them, and collects the errors |
//! | `winners` | the question of `loteria winners`, and its answer |

mod files;
mod report;
mod tally;
mod winners;

use std::io::Write;

pub(crate) use files::{AuditError, Files};
pub(crate) use report::Report;
pub(crate) use tally::{Count, Tally};
pub(crate) use winners::{Form, Question, winners, winners_to_file};

use crate::server::storage::Rules;

/// Checks the files. Returns whether they have no errors.
pub(crate) fn check(files: &Files, configured: Rules, out: &mut dyn Write) -> Result<bool, AuditError> {
    let report = Report::read(files, configured, None, &files.bar(), |_| Ok(()))?;
    report.write(out)?;
    out.flush()?;
    Ok(report.is_good())
}
