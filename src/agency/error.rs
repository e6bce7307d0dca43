//! Why the agency fails. An [`AgencyError`] ends it. After any other [`AttemptError`] it tries again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::logging::{self, Field, Level, Outcome};
use crate::lottery::BetError;
use crate::lottery::foreign::Foreign;
use crate::protocol::frame::FrameError;
use crate::protocol::message::NotAReply;
use crate::tls::folder::FolderError;

/// Said where the server may have the bets of an earlier contest.
pub(super) const NEW_CONTEST: &str =
    "for a new contest the server needs an empty folder or volume for its bets";

#[derive(Debug, Error)]
pub(crate) enum AgencyError {
    #[error("{}: {error} (CLI_BETS_FILE)", .file.display())]
    File { file: PathBuf, error: io::Error },
    /// `line` is the line on which the row begins.
    #[error("{}, line {line}: {error}", .file.display())]
    Row { file: PathBuf, line: u64, error: BadRow },
    /// The texts say where they differ, and which bets of the file may be stored nevertheless.
    #[error("the stored bets of this agency are not the first ones of {}: {difference}; {sent}", .file.display())]
    OtherBets { file: PathBuf, difference: String, sent: String },
    #[error("this agency has ended with {stored} bets, but {} has more; {NEW_CONTEST}", .file.display())]
    EndedBefore { file: PathBuf, stored: u64 },
    #[error("the server refused {what}: {reason}")]
    Refused { what: String, reason: String },
    #[error("this server does not speak sessions: start the agency with CLI_PROTOCOL=classic")]
    NoSessions,
    /// Classic messages hold the agency in one byte.
    #[error("classic messages know only agencies from 1 to 255, not {0}")]
    NoClassicAgency(u16),
    #[error(
        "the connection broke before the reply to {bets}: it is not known whether that is stored, and sending it again \
         could store it twice ({lost})"
    )]
    UnknownOutcome { bets: String, lost: String },
    #[error("{0}")]
    BadFrame(#[from] FrameError),
    #[error("{0}")]
    BadReply(#[from] NotAReply),
    #[error("the server sent a reply of the wrong type")]
    WrongReply,
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    TlsFolder(#[from] FolderError),
    #[error(
        "no connection to {address} within {limit:?} (CLI_CONNECT_TIMEOUT): {failure}; what was acknowledged is stored, and in \
         session mode the agency goes on behind it when it is started again"
    )]
    NoConnection { address: String, limit: Duration, failure: String },
    #[error(
        "no result within {0:?} (CLI_RESULT_TIMEOUT): the draw waits for agencies that have not ended, which `loteria \
         status` names; all bets of this one are stored, and in session mode it goes on waiting when it is started again"
    )]
    NoResult(Duration),
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

impl AgencyError {
    /// Logs the error as the one that ends the agency.
    pub(crate) fn log(&self) {
        let fields: &[Field<'_>] = match self {
            Self::Row { file, line, error } => &[("file", &file.display()), ("line", line), ("error", error)],
            other => &[("error", other)],
        };
        logging::event(Level::Critical, "agency", Outcome::Fail, fields);
    }
}

/// Why a row of the file can't be sent as a bet.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum BadRow {
    #[error("5 columns are needed (first name, last name, document, birthdate, number), not {0}")]
    Columns(usize),
    #[error("it is not UTF-8 text")]
    Utf8,
    #[error("{0}")]
    Bet(#[from] BetError),
    #[error(
        "the bet takes {len} bytes, but a message holds at most {max}: raise CLI_BATCH_MAXBYTES, or the server's MAX_PAYLOAD"
    )]
    TooLong { len: usize, max: usize },
    #[error("the row is longer than {0} bytes")]
    Endless(u64),
    #[error("{foreign}: {remedy}")]
    Foreign { foreign: Foreign, remedy: String },
}

/// Why an attempt failed. After any error but `Fatal` the agency tries again.
#[derive(Debug, Error)]
pub(crate) enum AttemptError {
    /// The connection broke or could not be made.
    #[error("{0}")]
    Lost(String),
    /// The server gave a temporary reason. Nothing of what it refused is stored.
    #[error("{0}")]
    RefusedForNow(String),
    #[error(transparent)]
    Fatal(#[from] AgencyError),
}
