//! The rows of a bets file, read from its beginning in pieces.

use std::io;

use memchr::{memchr, memchr2};

use crate::lottery::row::{Row, RowError, parse_row};
use crate::protocol::record::{FIELD_SEPARATOR, RECORD_SEPARATOR};

/// How much is read at once, in bytes. In the tests so little that rows lie across chunks.
const CHUNK: usize = if cfg!(test) { 64 } else { 256 * 1024 };

/// Checks what rows have to be besides being rows. It is the same when they are stored as when they are read again, or
/// a handler that was taken over could store what no start takes up.
///
/// # Errors
/// They are not UTF-8, or hold what separates fields or bets on the wire.
pub fn check_text(rows: &[u8]) -> Result<(), RowError> {
    std::str::from_utf8(rows).map_err(|_| RowError::Utf8)?;
    match memchr2(FIELD_SEPARATOR, RECORD_SEPARATOR, rows) {
        Some(_) => Err(RowError::Separator),
        None => Ok(()),
    }
}

/// Reads through `read`, which fills a buffer from a place in the file on, and says with how many bytes: 0 at the end.
#[derive(Debug)]
pub struct RowReader<F> {
    read: F,
    longest: usize,
    bytes: Vec<u8>,
    start: usize,
    /// Where the bytes from `start` on stand in the file.
    offset: u64,
    at_end: bool,
}

impl<F: Fn(&mut [u8], u64) -> io::Result<usize>> RowReader<F> {
    /// A reader at the beginning of the file. What goes on for longer than `longest` bytes need not be
    /// read to its end.
    pub fn new(longest: usize, read: F) -> Self {
        Self { read, longest, bytes: Vec::new(), start: 0, offset: 0, at_end: false }
    }

    /// Where in the file the next row begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What has been read of the file from [`Self::offset`] on.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether [`Self::waiting`] is all that there is.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Hands the next row on, with its bytes, and passes over it. A row that is not one is left where it is; where the
    /// file ends, that is an unfinished one.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn next_row(&mut self, mut take: impl FnMut(&Row<'_>, &[u8])) -> io::Result<Result<(), RowError>> {
        loop {
            let found = parse_row(self.waiting()).and_then(|row| {
                let bytes = self.waiting().get(..row.len).unwrap_or_default();
                check_text(bytes)?;
                take(&row, bytes);
                Ok(row.len)
            });
            match found {
                Ok(len) => {
                    self.pass(len);
                    return Ok(Ok(()));
                }
                Err(RowError::Unfinished | RowError::UnfinishedQuotes) if self.may_grow() => self.fill()?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Passes over what is left of the line.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let end = memchr(b'\n', self.waiting());
            self.pass(end.map_or(self.waiting().len(), |end| end + 1));
            if end.is_some() || self.at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn may_grow(&self) -> bool {
        !self.at_end && self.waiting().len() < self.longest
    }

    fn pass(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Reads one chunk more. A row that is longer than a chunk makes the memory grow.
    fn fill(&mut self) -> io::Result<()> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let had = self.bytes.len();
        self.bytes.resize(had + CHUNK.max(had), 0);
        let buffer = self.bytes.get_mut(had..).unwrap_or_default();
        let count = (self.read)(buffer, self.offset + had as u64)?;
        self.bytes.truncate(had + count);
        self.at_end = count == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_skipped_whatever_it_holds_and_however_long_it_is() {
        let good = "1,a,b,c,1999-03-17,7\r\n";
        let file = format!("{}\n{good}x", "\"x".repeat(100)).into_bytes();
        let mut reader = RowReader::new(usize::MAX, |buffer: &mut [u8], at| {
            let rest = file.get(usize::try_from(at).unwrap()..).unwrap();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        });
        assert_eq!(reader.next_row(|_, _| ()).unwrap(), Err(RowError::Malformed));
        reader.skip_line().unwrap();
        assert_eq!(reader.offset(), 201);
        assert_eq!(reader.next_row(|row, bytes| assert_eq!(row.len, bytes.len())).unwrap(), Ok(()));
        assert_eq!(reader.next_row(|_, _| ()).unwrap(), Err(RowError::Unfinished));
        assert!(reader.at_end() && reader.waiting() == b"x");
        reader.skip_line().unwrap();
        assert_eq!(reader.offset(), file.len() as u64);
    }

    #[test]
    fn a_row_that_does_not_end_is_not_read_to_the_end_of_the_file() {
        let mut reader = RowReader::new(1000, |buffer: &mut [u8], _| {
            buffer.fill(b'"');
            Ok(buffer.len() & !1)
        });
        assert!(matches!(
            reader.next_row(|_, _| ()).unwrap(),
            Err(RowError::UnfinishedQuotes | RowError::Unfinished)
        ));
        assert!(!reader.at_end() && reader.waiting().len() < 4000);
    }
}
