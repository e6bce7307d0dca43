//! The rows of a bets file, read from its beginning in pieces. Memory does not grow with the file, whatever it holds.

use std::io;

use memchr::memchr;

use crate::lottery::row::{MAX_ROW, Row, RowError, parse_row};

/// How much is read at once, in bytes. Unit tests read little, so that rows lie across chunks.
const CHUNK: usize = if cfg!(test) { 64 } else { 256 * 1024 };

/// What comes next in the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A row.
    Row(Row<'a>),
    /// A line that is not a row.
    Damaged(RowError),
    /// The end of the file, after `torn` bytes of a last row that is not whole.
    End {
        /// How many bytes.
        torn: u64,
    },
}

/// Reads through `read`, which fills a buffer from an offset of the file on and returns how many bytes: 0 at the end.
#[derive(Debug)]
pub struct RowReader<F> {
    read: F,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    start: usize,
    /// Where in the file the next line begins.
    offset: u64,
    /// How many lines were returned.
    lines: u64,
    at_end: bool,
    /// Whether the rest of a line that is too long comes next.
    in_long_line: bool,
}

impl<F: Fn(&mut [u8], u64) -> io::Result<usize>> RowReader<F> {
    /// A reader at the beginning of the file.
    pub fn new(read: F) -> Self {
        Self { read, buffer: Vec::new(), start: 0, offset: 0, lines: 0, at_end: false, in_long_line: false }
    }

    /// Where in the file the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of the line that was returned last, from 1.
    pub fn line(&self) -> u64 {
        self.lines
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn next_line(&mut self) -> io::Result<Line<'_>> {
        if self.in_long_line {
            self.finish_long_line()?;
        }
        let length = loop {
            let waiting = self.waiting();
            let window = waiting.get(..MAX_ROW).unwrap_or(waiting);
            match memchr(b'\n', window) {
                Some(end) => break end + 1,
                None if window.len() == MAX_ROW => {
                    self.in_long_line = true;
                    self.lines += 1;
                    return Ok(Line::Damaged(RowError::TooLong));
                }
                None if self.at_end => return Ok(Line::End { torn: window.len() as u64 }),
                None => self.fill()?,
            }
        };
        let start = self.start;
        self.pass(length);
        self.lines += 1;
        let line = self.buffer.get(start..start + length).unwrap_or_default();
        Ok(parse_row(line).map_or_else(Line::Damaged, Line::Row))
    }

    fn finish_long_line(&mut self) -> io::Result<()> {
        loop {
            let end = memchr(b'\n', self.waiting());
            self.pass(end.map_or(self.waiting().len(), |end| end + 1));
            if end.is_some() || self.at_end {
                self.in_long_line = false;
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn pass(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    /// Reads one chunk more behind what is waiting, which is less than a row.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + CHUNK, 0);
        let chunk = self.buffer.get_mut(had..).unwrap_or_default();
        let count = (self.read)(chunk, self.offset + had as u64)?;
        self.buffer.truncate(had + count);
        self.at_end = count == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "1,a,b,c,1999-03-17,7\r\n";

    /// Each line of the file: its number, and what it is.
    fn lines(file: &[u8]) -> Vec<(u64, String)> {
        let mut reader = RowReader::new(|buffer: &mut [u8], at| {
            let rest = file.get(usize::try_from(at).unwrap()..).unwrap();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        });
        let mut found = Vec::new();
        loop {
            let line = match reader.next_line().unwrap() {
                Line::Row(row) => format!("row of {}", row.agency),
                Line::Damaged(error) => error.to_string(),
                Line::End { torn } => {
                    assert_eq!(reader.offset() + torn, file.len() as u64);
                    found.push((reader.line(), format!("{torn} torn")));
                    return found;
                }
            };
            found.push((reader.line(), line));
            assert!(reader.buffer.capacity() <= 2 * (MAX_ROW + CHUNK));
        }
    }

    fn expected(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
        lines.iter().map(|(number, line)| (*number, (*line).to_owned())).collect()
    }

    #[test]
    fn each_line_is_a_row_or_damaged_and_a_last_one_without_its_end_is_torn() {
        let file = format!("{ROW}x\r\n{ROW}1,\"a");
        let field_count = RowError::FieldCount.to_string();
        let found = expected(&[(1, "row of 1"), (2, &field_count), (3, "row of 1"), (3, "4 torn")]);
        assert_eq!(lines(file.as_bytes()), found);
        assert_eq!(lines(b""), expected(&[(0, "0 torn")]));
        let torn = "x".repeat(MAX_ROW - 1);
        assert_eq!(lines(torn.as_bytes()), expected(&[(0, &format!("{} torn", MAX_ROW - 1))]));
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_in_little_memory() {
        let too_long = RowError::TooLong.to_string();
        for length in [MAX_ROW, MAX_ROW + 1, 100 * MAX_ROW] {
            let long = "\"".repeat(length);
            let file = format!("{ROW}{long}\r\n{ROW}{long}");
            let found = [(1, "row of 1"), (2, &*too_long), (3, "row of 1"), (4, &too_long), (4, "0 torn")];
            assert_eq!(lines(file.as_bytes()), expected(&found), "{length}");
        }
    }
}
