//! The agency's file of bets: CSV without a header, read as a stream straight into the records of a frame.
//!
//! Nothing is allocated per bet, and memory does not grow with the file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, StringRecord};

use super::error::{AgencyError, BadRow};
use crate::lottery::{AgencyId, Bet};
use crate::protocol::record::{RECORD_SEPARATOR, count_byte, push_fields};

/// How much is read from the file at once, in bytes.
const READ_SIZE: usize = 64 * 1024;
/// The longest row, in bytes. A quote that is not closed would make one row of the rest of the file.
const MAX_ROW: usize = 1 << 20;

/// How much goes into one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bets.
    pub bets: usize,
    /// The most bytes of records.
    pub bytes: usize,
}

/// Bets that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub bets: u64,
    /// Where in the file the first one begins.
    first_byte: u64,
    /// Where the last one begins.
    last_byte: u64,
}

impl Batch {
    /// Where they stand, for people.
    pub fn name(&self, path: &Path) -> String {
        let line = |byte| line_at(path, byte).map_or_else(|_| "?".to_owned(), |line| line.to_string());
        let (first, last) = (line(self.first_byte), line(self.last_byte));
        format!("the bets of lines {first} to {last} of {}", path.display())
    }
}

/// Returns the line of the first row at or after `byte`.
///
/// The line of a `csv` position does not serve: after CRLF or an empty line it is that of the record before.
fn line_at(path: &Path, byte: u64) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(READ_SIZE, File::open(path)?);
    let mut line = 1;
    let mut left = byte;
    loop {
        let bytes = file.fill_buf()?;
        let before = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (before, after) = bytes.split_at_checked(before).unwrap_or_default();
        let ends = after.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        line += count_lines(before) + count_lines(after.get(..ends).unwrap_or_default());
        if bytes.is_empty() || ends < after.len() {
            return Ok(line);
        }
        left -= before.len() as u64;
        let used = bytes.len();
        file.consume(used);
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    count_byte(b'\n', bytes) as u64
}

/// An open file of bets, and the place that has been reached in it.
#[derive(Debug)]
pub struct BetsFile {
    path: PathBuf,
    /// In bytes, when it was opened; 0 where that is not known.
    length: u64,
    agency: String,
    rows: Reader<Rationed<File>>,
    row: StringRecord,
    /// Whether `row` was read and not sent: it did not fit into the batch before.
    pending: bool,
}

impl BetsFile {
    /// Opens the file of that agency, at its first row.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: &Path, agency: AgencyId) -> Result<Self, AgencyError> {
        let file = File::open(path).map_err(|error| AgencyError::File { file: path.to_owned(), error })?;
        let length = file.metadata().map_or(0, |data| data.len());
        let rows = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(READ_SIZE)
            .from_reader(Rationed { inner: file, left: MAX_ROW });
        Ok(Self {
            path: path.to_owned(),
            length,
            agency: agency.to_string(),
            rows,
            row: StringRecord::new(),
            pending: false,
        })
    }

    /// About how many rows the file has, if those to come are as long as the `read` ones so far.
    pub fn expected_rows(&self, read: u64) -> u64 {
        let rows =
            u128::from(read) * u128::from(self.length) / u128::from(self.rows.position().byte().max(1));
        u64::try_from(rows).unwrap_or(u64::MAX).max(read)
    }

    /// Skips the first rows, which the server already has.
    ///
    /// # Errors
    /// The file can't be read, or has fewer rows.
    pub fn skip(&mut self, stored: u64) -> Result<(), AgencyError> {
        let mut row = ByteRecord::new();
        for in_file in 0..stored {
            self.rows.get_mut().left = MAX_ROW;
            let there = self.rows.read_byte_record(&mut row).map_err(|error| self.explain(&error))?;
            if !there {
                return Err(AgencyError::FileTooShort { file: self.path.clone(), stored, in_file });
            }
        }
        Ok(())
    }

    /// Reads another row, good or bad. Returns whether there is one.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn has_more(&mut self) -> Result<bool, AgencyError> {
        let mut row = ByteRecord::new();
        self.rows.read_byte_record(&mut row).map_err(|error| self.explain(&error))
    }

    /// Appends the next bets to `out`, as records; none at the end of the file.
    ///
    /// # Errors
    /// The file can't be read, or a row is no bet: then some bets may have been appended.
    pub fn fill(&mut self, limits: Limits, out: &mut Vec<u8>) -> Result<Option<Batch>, AgencyError> {
        let start = out.len();
        let mut batch: Option<Batch> = None;
        while batch.is_none_or(|batch| batch.bets < limits.bets as u64) && self.next_row()? {
            let before = out.len();
            if batch.is_some() {
                out.push(RECORD_SEPARATOR);
            }
            self.push_row(out)?;
            if out.len() - start > limits.bytes {
                let len = out.len() - before;
                out.truncate(before);
                self.pending = batch.is_some();
                return match batch {
                    Some(_) => Ok(batch),
                    None => Err(self.bad_row(BadRow::TooLong { len, max: limits.bytes })),
                };
            }
            let byte = self.byte();
            let batch = batch.get_or_insert(Batch { bets: 0, first_byte: byte, last_byte: byte });
            batch.bets += 1;
            batch.last_byte = byte;
        }
        Ok(batch)
    }

    /// Makes `row` the next one to send, if there is one.
    fn next_row(&mut self) -> Result<bool, AgencyError> {
        if self.pending {
            self.pending = false;
            return Ok(true);
        }
        self.rows.get_mut().left = MAX_ROW;
        self.rows.read_record(&mut self.row).map_err(|error| self.explain(&error))
    }

    /// Appends `row` as a record, if it is a bet.
    fn push_row(&self, out: &mut Vec<u8>) -> Result<(), AgencyError> {
        let mut columns = self.row.iter();
        let mut fields = [&*self.agency, "", "", "", "", ""];
        for field in fields.iter_mut().skip(1) {
            *field = columns.next().ok_or_else(|| self.bad_row(BadRow::Columns(self.row.len())))?;
        }
        if columns.next().is_some() {
            return Err(self.bad_row(BadRow::Columns(self.row.len())));
        }
        Bet::from_fields(fields).map_err(|error| self.bad_row(error.into()))?;
        push_fields(fields, out);
        Ok(())
    }

    /// Where in the file `row` begins.
    fn byte(&self) -> u64 {
        self.row.position().map_or(0, csv::Position::byte)
    }

    fn bad_row(&self, error: BadRow) -> AgencyError {
        match line_at(&self.path, self.byte()) {
            Ok(line) => AgencyError::Row { file: self.path.clone(), line, error },
            Err(error) => self.unreadable(error),
        }
    }

    fn unreadable(&self, error: io::Error) -> AgencyError {
        AgencyError::File { file: self.path.clone(), error }
    }

    fn explain(&self, error: &csv::Error) -> AgencyError {
        match error.kind() {
            ErrorKind::Utf8 { .. } => self.bad_row(BadRow::Utf8),
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.bad_row(BadRow::Endless(MAX_ROW))
            }
            ErrorKind::Io(error) => self.unreadable(io::Error::new(error.kind(), error.to_string())),
            _ => self.unreadable(io::Error::other(error.to_string())),
        }
    }
}

/// A reader that gives only so many bytes, until it gets another ration.
#[derive(Debug)]
struct Rationed<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits { bets: 136, bytes: 8192 };

    /// A file of bets that stays as long as what is returned beside it.
    fn file_of(bytes: &[u8]) -> (BetsFile, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        (BetsFile::open(file.path(), AgencyId::new(7_u16).unwrap()).unwrap(), file)
    }

    fn batches(bytes: &[u8], limits: Limits) -> Vec<(u64, String)> {
        let (mut file, _kept) = file_of(bytes);
        let mut all = Vec::new();
        let mut out = Vec::new();
        while let Some(batch) = file.fill(limits, &mut out).unwrap() {
            all.push((batch.bets, String::from_utf8(std::mem::take(&mut out)).unwrap()));
        }
        all
    }

    fn bad_row(bytes: &[u8]) -> (u64, BadRow) {
        let (mut file, _kept) = file_of(bytes);
        match file.fill(LIMITS, &mut Vec::new()) {
            Err(AgencyError::Row { line, error, .. }) => (line, error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_become_records() {
        let file = b"Ana,\"Paz, \"\"La\"\"\",1,1999-03-17,007\r\nB\xc3\xa9,C,2,2000-02-29,5";
        assert_eq!(
            batches(file, LIMITS),
            [(
                2,
                "7\x1fAna\x1fPaz, \"La\"\x1f1\x1f1999-03-17\x1f007\x1e7\x1fBé\x1fC\x1f2\x1f2000-02-29\x1f5"
                    .into()
            )]
        );
        assert_eq!(batches(b"", LIMITS), []);
    }

    #[test]
    fn a_batch_ends_at_either_limit_and_no_row_is_lost() {
        let file = b"a,b,1,2000-01-01,1\nc,d,2,2000-01-01,2\ne,f,3,2000-01-01,3\n";
        let counts = |bets, bytes| {
            let all = batches(file, Limits { bets, bytes });
            (all.iter().map(|batch| batch.0).collect::<Vec<_>>(), text_of(&all))
        };
        let whole = text_of(&batches(file, LIMITS));
        let record = whole.len() / 3;
        assert_eq!(counts(2, 1000), (vec![2, 1], whole.clone()));
        assert_eq!(counts(10, record), (vec![1, 1, 1], whole.clone()));
        assert_eq!(counts(10, record * 2 + 1), (vec![2, 1], whole));
    }

    fn text_of(batches: &[(u64, String)]) -> String {
        batches.iter().map(|batch| batch.1.as_str()).collect::<Vec<_>>().join("\x1e")
    }

    #[test]
    fn a_bad_row_is_named_by_the_line_on_which_it_begins() {
        for end in ["\n", "\r\n"] {
            let with =
                |row: &str| bad_row(format!("a,c,1,2000-01-01,1{end}{end}\n{row}{end}x{end}").as_bytes());
            assert_eq!(with("a,b,1,2000-01-01"), (4, BadRow::Columns(4)));
            assert_eq!(with("a,b,1,2000-01-01,1,1"), (4, BadRow::Columns(6)));
            assert!(matches!(with("a\x1f,b,1,2000-01-01,1"), (4, BadRow::Bet(_))));
            assert!(matches!(with("a,b,1,2000-13-01,1"), (4, BadRow::Bet(_))));
            assert!(matches!(with("\"a\n\",b,1,2000-01-01,x"), (4, BadRow::Bet(_))));
        }
        assert_eq!(bad_row(b"a,b,1,2000-01-01,1\r\n\xff,b,1,2000-01-01,1\r\n"), (2, BadRow::Utf8));
        assert!(matches!(
            bad_row(b"a,b,1,2000-01-01,1\r\n\r\n\nx,b,1,2000-01-01,x\r\n"),
            (4, BadRow::Bet(_))
        ));
    }

    #[test]
    fn a_bet_that_fits_into_no_message_is_refused() {
        let row = format!("{},b,1,2000-01-01,1\n", "x".repeat(255));
        let (mut file, _kept) = file_of(format!("a,b,1,2000-01-01,1\n{row}").as_bytes());
        let limits = Limits { bets: 136, bytes: 200 };
        assert_eq!(file.fill(limits, &mut Vec::new()).unwrap().unwrap().bets, 1);
        assert!(matches!(
            file.fill(limits, &mut Vec::new()),
            Err(AgencyError::Row { line: 2, error: BadRow::TooLong { .. }, .. })
        ));
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_swallow_the_file() {
        let file = format!("a,b,1,2000-01-01,1\n\"{}", "x\n".repeat(2 * MAX_ROW));
        assert_eq!(bad_row(file.as_bytes()), (2, BadRow::Endless(MAX_ROW)));
    }

    #[test]
    fn how_many_rows_there_are_is_guessed_from_those_that_were_read() {
        let row = b"a,b,1,2000-01-01,1\n";
        let (mut file, _kept) = file_of(&row.repeat(1000));
        assert_eq!(file.expected_rows(0), 0);
        file.fill(Limits { bets: 10, bytes: 8192 }, &mut Vec::new()).unwrap();
        let expected = file.expected_rows(10);
        assert!((900..=1100).contains(&expected), "{expected}");
        file.skip(990).unwrap();
        assert_eq!(file.expected_rows(1000), 1000);
    }

    #[test]
    fn what_is_stored_is_skipped() {
        let rows = b"a,b,1,2000-01-01,1\nbad\nc,d,2,2000-01-01,2\n";
        let (mut file, _kept) = file_of(rows);
        file.skip(2).unwrap();
        assert_eq!(file.fill(LIMITS, &mut Vec::new()).unwrap().unwrap().bets, 1);
        assert!(!file.has_more().unwrap());
        assert!(matches!(
            file_of(rows).0.skip(4),
            Err(AgencyError::FileTooShort { stored: 4, in_file: 3, .. })
        ));
        file_of(rows).0.skip(3).unwrap();
    }
}
