//! Why the agency fails: an [`AgencyError`] ends it, after any other [`AttemptError`] it tries again.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::logging::{self, Level, Outcome};
use crate::lottery::BetError;
use crate::lottery::foreign::Foreign;
use crate::protocol::frame::FrameError;
use crate::protocol::message::NotAnAnswer;
use crate::tls::client::TlsError;
use crate::tls::folder::FolderError;

/// Said where the server may have the bets of an earlier contest.
const NEW_CONTEST: &str = "for a new contest the server needs an empty folder or volume for its bets";

#[derive(Debug, Error)]
pub(crate) enum AgencyError {
    #[error("{}: {error} (CLI_BETS_FILE)", .file.display())]
    File { file: PathBuf, error: io::Error },
    /// `line` is the line on which the row begins.
    #[error("{}, line {line}: {error}", .file.display())]
    Row { file: PathBuf, line: u64, error: BadRow },
    #[error("{0}")]
    OtherBets(Mismatch),
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
        "the connection broke before the answer to {bets}: whether that is stored is not known, and sending it again \
         could store it twice ({lost})"
    )]
    UnknownOutcome { bets: String, lost: ConnectionLost },
    #[error("{0}")]
    BadFrame(#[from] FrameError),
    #[error("{0}")]
    NotAReply(#[from] NotAnAnswer),
    #[error("the server sent a reply of the wrong type")]
    WrongReply,
    #[error("{0}")]
    Tls(TlsError),
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
        let log = |fields: &[logging::Field<'_>]| {
            logging::event(Level::Critical, "agency", Outcome::Fail, fields);
        };
        match self {
            Self::Row { file, line, error } => {
                log(&[("file", &file.display()), ("line", line), ("error", error)]);
            }
            other => log(&[("error", other)]),
        }
    }
}

/// The stored bets are not the first ones of the file.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(super) file: PathBuf,
    pub(super) stored: u64,
    /// How many rows the file has, if it has fewer than are stored.
    pub(super) rows: Option<u64>,
    /// How many bets of the file are stored.
    pub(super) equal: u64,
    /// How many were sent, or were stored before.
    pub(super) sent: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, stored, rows, equal, sent } = self;
        write!(f, "the stored bets of this agency are not the first ones of {}: ", file.display())?;
        let next = equal + 1;
        match rows {
            Some(rows) => write!(f, "{stored} are stored, but it has only {rows}")?,
            None if next == *stored => write!(f, "bet {stored} differs")?,
            None => write!(f, "one of the bets {next} to {stored} differs, a digest does not tell which")?,
        }
        match (equal, sent) {
            (_, 0) => {
                write!(
                    f,
                    "; nothing of it was sent. Use the file that this contest began with; {NEW_CONTEST}"
                )
            }
            (_, sent) if sent <= equal => write!(f, "; its first {equal} are stored, no other was sent"),
            (0, sent) => write!(f, "; its first {sent} were sent and may be stored, no other was sent"),
            _ => write!(
                f,
                "; its first {equal} are stored, {next} to {sent} were sent and may be stored, no other was sent"
            ),
        }
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

/// Why a connection broke or could not be made.
#[derive(Debug, Error)]
pub(crate) enum ConnectionLost {
    #[error("{0}")]
    Io(io::Error),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server did not answer for {0} s")]
    Silent(u64),
    #[error("{0}")]
    Tls(TlsError),
}

#[derive(Debug, Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Lost(ConnectionLost),
    /// The server gave a temporary reason. Nothing of what it refused is stored.
    #[error("the server says: {0}")]
    RefusedForNow(String),
    #[error(transparent)]
    Fatal(#[from] AgencyError),
}

impl From<ConnectionLost> for AttemptError {
    fn from(lost: ConnectionLost) -> Self {
        match lost {
            ConnectionLost::Tls(error) if error.is_final() => Self::Fatal(AgencyError::Tls(error)),
            ConnectionLost::Tls(TlsError::Busy(reason)) => Self::RefusedForNow(reason),
            // The handshake was not completed, so nothing of this connection is stored.
            ConnectionLost::Tls(error @ TlsError::Refused(_)) => Self::RefusedForNow(error.to_string()),
            lost => Self::Lost(lost),
        }
    }
}
