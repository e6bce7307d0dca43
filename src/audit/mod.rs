//! `loteria winners` and `loteria check`: the contest, from its files alone.
//!
//! Nothing is locked or written, so both work while a server runs: the state file is read first, and as the bets only
//! grow, these are at least as new. A last row that is not whole may be one that is being written.
//!
//! | file | what |
//! |---|---|
//! | [`files`] | the files, opened to be read |
//! | `tally` | how many bets and winners each agency has |
//! | `agreement` | what state file and bets say against each other |
//! | [`winners`], [`check`] | the two commands |

mod agreement;
pub mod check;
pub mod files;
mod tally;
pub mod winners;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::lottery::row::RowError;

/// Why there is no result.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file can't be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is none that can be read at any place, such as a pipe.
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A row is damaged, so what is counted would not be what is in the file.
    #[error(
        "{}, line {line}: {error}; what stands behind it was not counted, `loteria check` lists all such lines",
        .path.display()
    )]
    Row {
        /// The file.
        path: PathBuf,
        /// The line on which the row begins, from 1.
        line: u64,
        /// What is wrong with it.
        error: RowError,
    },
    /// Nobody reads what is written.
    #[error("can't write: {0}")]
    Write(io::Error),
}

/// What an audit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Good,
    /// Something is.
    Bad,
}

impl Verdict {
    fn of(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}
