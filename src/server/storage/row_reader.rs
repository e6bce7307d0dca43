//! Reads the rows of a bets file. Memory does not grow with the file, whatever it holds.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use thiserror::Error;

use crate::lottery::foreign::{BetsOf, Foreign, shell_word};
use crate::lottery::row::{MAX_ROW, Row, RowError, parse_row};

/// The remedy for files that are damaged or contradict each other.
pub(crate) const RESTORE: &str = "restore both files from one backup";
/// How much is read at once, in bytes.
const READ_AHEAD: usize = 256 * 1024;

/// What comes next in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Row(Row<'a>),
    /// A line that is not a row.
    Damaged(Damage),
    /// The end of the file, after `torn` bytes of a last row that is not whole.
    End {
        torn: u64,
    },
}

/// Why a line is not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damage {
    #[error("{0}")]
    Foreign(Foreign),
    #[error("{0}")]
    Row(RowError),
}

impl Damage {
    /// Says what is wrong with the line and what to do about it, for people.
    pub(crate) fn advice(self, path: &Path, line: u64) -> String {
        match self {
            Self::Foreign(foreign) if foreign.is_reversible() => {
                format!("{foreign}: {}; or {RESTORE}", foreign.remedy(path, line))
            }
            _ => format!(
                "{self}; {RESTORE}; take the line out only if you accept that an acknowledged bet is lost"
            ),
        }
    }
}

/// Returns the command that lists all that is wrong with the files.
pub(crate) fn check_command(path: &Path) -> String {
    format!("loteria check --file {}", shell_word(path))
}

/// Reads a bets file line by line.
#[derive(Debug)]
pub(crate) struct RowReader<R> {
    file: BufReader<R>,
    line: Vec<u8>,
    offset: u64,
    lines: u64,
}

impl<R: Read> RowReader<R> {
    /// Begins to read; `file` has to be at its beginning.
    pub(crate) fn new(file: R) -> Self {
        Self { file: BufReader::with_capacity(READ_AHEAD, file), line: Vec::new(), offset: 0, lines: 0 }
    }

    /// Returns where in the file the next line begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the number of the line that was returned last, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.lines
    }

    /// Returns what the lines are read from.
    pub(crate) fn source(&self) -> &R {
        self.file.get_ref()
    }

    pub(crate) fn next_line(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        let length = self.file.by_ref().take(MAX_ROW as u64).read_until(b'\n', &mut self.line)?;
        let is_whole = self.line.ends_with(b"\n");
        if !is_whole && length < MAX_ROW && Foreign::of_tail(&self.line).is_none() {
            return Ok(Line::End { torn: length as u64 });
        }
        self.lines += 1;
        self.offset += length as u64;
        let error = if is_whole {
            match parse_row(&self.line) {
                Ok(row) => return Ok(Line::Row(row)),
                Err(error) => error,
            }
        } else {
            self.offset += self.file.skip_until(b'\n')? as u64;
            RowError::TooLong
        };
        let foreign = Foreign::of(&self.line, BetsOf::Server);
        Ok(Line::Damaged(foreign.map_or(Damage::Row(error), Damage::Foreign)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over_in_little_memory() {
        let row = "1,a,b,c,1999-03-17,7\r\n";
        for length in [MAX_ROW, MAX_ROW + 1, 100 * MAX_ROW] {
            let long = "\"".repeat(length);
            let file = format!("{long}\r\n{row}{long}");
            let mut reader = RowReader::new(file.as_bytes());
            for number in 1..=3 {
                match reader.next_line().unwrap() {
                    Line::Row(_) => assert_eq!(number, 2, "{length}"),
                    line => assert_eq!(line, Line::Damaged(Damage::Row(RowError::TooLong)), "{length}"),
                }
                assert_eq!(reader.line(), number);
                assert!(reader.line.capacity() <= 2 * MAX_ROW);
            }
            assert_eq!(reader.next_line().unwrap(), Line::End { torn: 0 });
            assert_eq!(reader.offset(), file.len() as u64);
        }
        let torn = [b'x'; MAX_ROW - 1];
        assert_eq!(RowReader::new(&torn[..]).next_line().unwrap(), Line::End { torn: MAX_ROW as u64 - 1 });
    }
}
