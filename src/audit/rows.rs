//! The rows of the bets file, read as a stream, each with the line on which it begins.

use std::io;
use std::os::unix::fs::FileExt as _;

use memchr::memchr_iter;
use thiserror::Error;

use super::AuditError;
use super::files::Files;
use crate::lottery::row::{Row, RowError};
use crate::server::storage::recovery::is_torn;
use crate::server::storage::row_reader::RowReader;

/// What is wrong with a row that is not the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damage {
    /// It is none.
    #[error("{0}")]
    Row(#[from] RowError),
    /// It does not end within so many bytes.
    #[error("the row goes on for more than {0} bytes: is a quote not closed?")]
    Endless(usize),
    /// It begins with a quote that is not closed, before what are rows.
    #[error("a quote is not closed, and rows follow")]
    StrayQuote,
}

/// What came next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A row, which was handed on.
    Row,
    /// Something else, from the beginning of that line to its end. It is passed over.
    Damaged(u64, Damage),
    /// The end, behind so many bytes of a row that is not whole: 0 where all rows are.
    End(u64),
}

type ReadAt<'a> = Box<dyn Fn(&mut [u8], u64) -> io::Result<usize> + 'a>;

/// The place that has been reached.
pub struct Rows<'a> {
    files: &'a Files,
    reader: RowReader<ReadAt<'a>>,
    line: u64,
}

impl<'a> Rows<'a> {
    /// The rows of that file, from its beginning.
    pub fn of(files: &'a Files) -> Self {
        let read: ReadAt<'a> = Box::new(|buffer, at| {
            loop {
                match files.bets.read_at(buffer, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        });
        Self { files, reader: RowReader::new(files.longest_row, read), line: 1 }
    }

    /// How much of the file is behind, in bytes.
    pub fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Hands the next row on: the line on which it begins, what it says, and its bytes.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn next(&mut self, mut take: impl FnMut(u64, &Row<'_>, &[u8])) -> Result<Found, AuditError> {
        let line = self.line;
        let mut lines = 1;
        let next = self.reader.next_row(|row, bytes| {
            if row.quoted {
                lines = memchr_iter(b'\n', bytes).count() as u64;
            }
            take(line, row, bytes);
        });
        match next.map_err(|error| self.files.unreadable(error))? {
            Ok(()) => {
                self.line += lines;
                Ok(Found::Row)
            }
            Err(error) => self.pass(error),
        }
    }

    /// Passes over what is no row.
    fn pass(&mut self, error: RowError) -> Result<Found, AuditError> {
        let damage = match error {
            RowError::Unfinished | RowError::UnfinishedQuotes if !self.reader.at_end() => {
                Damage::Endless(self.files.longest_row)
            }
            RowError::Unfinished => return Ok(self.end()),
            RowError::UnfinishedQuotes if self.is_torn() => return Ok(self.end()),
            RowError::UnfinishedQuotes => Damage::StrayQuote,
            other => Damage::Row(other),
        };
        self.reader.skip_line().map_err(|error| self.files.unreadable(error))?;
        self.line += 1;
        Ok(Found::Damaged(self.line - 1, damage))
    }

    fn end(&self) -> Found {
        Found::End(self.reader.waiting().len() as u64)
    }

    /// As recovery would see it. A server that runs may have noted meanwhile what it writes.
    fn is_torn(&self) -> bool {
        let states = [self.files.good_state().cloned(), self.files.state_now()];
        let mut notes = states.into_iter().map(|state| state.and_then(|state| state.writing));
        notes.any(|writing| is_torn(self.reader.waiting(), self.offset(), writing))
    }
}
