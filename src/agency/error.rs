//! What can go wrong for an agency: [`Lost`] is worth another try, [`AgencyError`] is not.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::logging::{self, Level, Outcome};
use crate::lottery::BetError;
use crate::protocol::frame::FrameError;
use crate::protocol::message::NotAnAnswer;

/// What ends an agency.
#[derive(Debug, Error)]
pub enum AgencyError {
    /// The file of bets can't be read.
    #[error("{}: {error}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A row of the file is no bet.
    #[error("{}, line {line}: {error}", .file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// The line on which the row begins.
        line: u64,
        /// What is wrong with it.
        error: BadRow,
    },
    /// The server has bets of this agency that the file has not.
    #[error("the server has {stored} bets of this agency, but {} has only {in_file}", .file.display())]
    FileTooShort {
        /// The file.
        file: PathBuf,
        /// How many bets the server has.
        stored: u64,
        /// How many rows the file has.
        in_file: u64,
    },
    /// The file has bets that the server can't take any more.
    #[error("this agency has ended with {stored} bets, but {} has more", .file.display())]
    EndedBefore {
        /// The file.
        file: PathBuf,
        /// How many bets the server has.
        stored: u64,
    },
    /// The server refused what was asked.
    #[error("the server refused {what}: {reason}")]
    Refused {
        /// What it was.
        what: String,
        /// What the server says.
        reason: String,
    },
    /// Classic messages hold the agency in one byte.
    #[error("classic messages know only agencies from 1 to 255, not {0}")]
    NoClassicAgency(u16),
    /// Classic bets were sent whole and not answered. Sent again, they could be stored twice.
    #[error(
        "the connection broke before the answer to {bets}: whether that is stored is not known, and sending it again \
         could store it twice ({lost})"
    )]
    UnknownOutcome {
        /// Which ones.
        bets: String,
        /// How the connection broke.
        lost: Lost,
    },
    /// What answers is no server of this protocol.
    #[error("{0}")]
    NoSuchFrame(#[from] FrameError),
    /// What answers is no server of this protocol.
    #[error("{0}")]
    NoAnswer(#[from] NotAnAnswer),
    /// The server answers something else than what it was asked.
    #[error("the server's answer does not fit to what was asked")]
    WrongAnswer,
    /// The signals can't be waited for.
    #[error("can't wait for signals: {0}")]
    Signals(io::Error),
}

impl AgencyError {
    /// Writes the error to the log, as what ended the process.
    pub fn log(&self) {
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

/// Why a row of the file can't be sent as a bet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRow {
    /// It has not the columns of a bet.
    #[error("5 columns are needed (first name, last name, document, birthdate, number), not {0}")]
    Columns(usize),
    /// It is not text.
    #[error("it is not UTF-8 text")]
    Utf8,
    /// A value is not allowed.
    #[error("{0}")]
    Bet(#[from] BetError),
    /// It does not fit into a message.
    #[error("the bet takes {len} bytes, but a message holds at most {max}")]
    TooLong {
        /// Its length as a record, in bytes.
        len: usize,
        /// The most that one message can hold, in bytes.
        max: usize,
    },
    /// It does not end.
    #[error("the row goes on for more than {0} bytes: is a quote not closed?")]
    Endless(usize),
}

/// Why a connection was lost, or never came about. Trying again may help.
#[derive(Debug, Error)]
pub enum Lost {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The server ended it.
    #[error("the server closed the connection")]
    Closed,
    /// Nothing was heard.
    #[error("the server did not answer for {0} s")]
    Silent(u64),
    /// The server can't serve now.
    #[error("the server says: {0}")]
    Busy(String),
}

/// Either of the two.
#[derive(Debug, Error)]
pub enum Trouble {
    /// Try again.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Give up.
    #[error(transparent)]
    Fatal(#[from] AgencyError),
}
