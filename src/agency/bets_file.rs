//! The agency's file of bets: CSV without a header, read as a stream into the records of messages.
//!
//! Nothing is allocated per bet, and memory does not grow with the file.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, BufReader, Read as _, Take};
use std::path::{Path, PathBuf};
use std::{iter, mem};

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};

use super::error::{AgencyError, BadRow};
use crate::lottery::bet::FIELDS;
use crate::lottery::foreign::{BetsOf, Foreign};
use crate::lottery::row::encode_row;
use crate::lottery::{AgencyId, Bet, Digest};
use crate::protocol::record::{RECORD_SEPARATOR, push_record};

/// How much is read from the file at once, in bytes.
const READ_SIZE: usize = 64 * 1024;
/// The longest row, in bytes. Without a limit, a quote that is not closed would make one row of the rest of the file.
const MAX_ROW: u64 = 1 << 20;
/// The columns of a row: those of a bet, except the agency.
const COLUMNS: usize = FIELDS - 1;

/// The most bets of a batch, and the most bytes of their records.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bets: u64,
    pub(super) bytes: usize,
}

/// Bets that are sent together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// The index of the first bet among those of the file.
    pub(super) first: u64,
    pub(super) bets: u64,
    /// The offset in the file at which the first row begins, in bytes.
    first_byte: u64,
    /// The offset at which the last row begins.
    last_byte: u64,
}

impl Batch {
    /// Returns the index of the bet behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.first + self.bets
    }
}

/// Returns the first row that begins at or after this offset: the number of its line, and that line.
///
/// The line in a `csv::Position` is not the row's if CRLF or an empty line precedes it.
fn line_at(path: &Path, offset: u64) -> io::Result<(u64, Vec<u8>)> {
    let file = BufReader::with_capacity(READ_SIZE, File::open(path)?).take(offset + MAX_ROW);
    let (mut number, mut line) = (1, Vec::new());
    for (at, byte) in iter::zip(0.., file.bytes()) {
        match byte? {
            b'\r' | b'\n' if !line.is_empty() => break,
            b'\n' => number += 1,
            b'\r' => {}
            byte if at >= offset => line.push(byte),
            _ => {}
        }
    }
    Ok((number, line))
}

/// An open file of bets, and the next row to send.
pub(super) struct BetsFile {
    path: PathBuf,
    /// The length when the file was opened, in bytes; 0 if it is not known.
    length: u64,
    agency: String,
    rows: Reader<Take<File>>,
    /// The row that was read last.
    row: StringRecord,
    /// Whether `row` did not fit into the last batch and begins the next one.
    is_pending: bool,
    /// How many rows were read as bets.
    taken: u64,
    /// The last is the digest of the first `taken` bets, the one before it that of one bet less, and so on.
    digests: VecDeque<Digest>,
    /// The bet that was read last, as a row of the server's file. Kept to reuse its memory.
    stored_row: Vec<u8>,
}

impl BetsFile {
    pub(super) fn open(path: &Path, agency: AgencyId) -> Result<Self, AgencyError> {
        let file = File::open(path).map_err(|error| AgencyError::File { file: path.to_owned(), error })?;
        let length = file.metadata().map_or(0, |data| data.len());
        let rows = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(READ_SIZE)
            .from_reader(file.take(MAX_ROW));
        Ok(Self {
            path: path.to_owned(),
            length,
            agency: agency.to_string(),
            rows,
            row: StringRecord::new(),
            is_pending: false,
            taken: 0,
            digests: VecDeque::from([Digest::default()]),
            stored_row: Vec::new(),
        })
    }

    /// Estimates how many rows the file has, from the length of those that were taken.
    pub(super) fn expected_rows(&self) -> u64 {
        let read = self.rows.position().byte().max(1);
        let rows = u128::from(self.taken) * u128::from(self.length) / u128::from(read);
        u64::try_from(rows).unwrap_or(u64::MAX).max(self.taken)
    }

    /// Names a batch by its lines, for people. The file is read again each time the name is displayed.
    pub(super) fn name(&self, batch: Batch) -> impl Display {
        let path = &self.path;
        fmt::from_fn(move |f| {
            let line =
                |byte| line_at(path, byte).map_or_else(|_| "?".to_owned(), |(line, _)| line.to_string());
            let (first, last) = (line(batch.first_byte), line(batch.last_byte));
            write!(f, "the bets of lines {first} to {last} of {}", path.display())
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Returns how many bets were read.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the digest of the bets that were read.
    pub(super) fn digest(&self) -> Digest {
        self.digests.back().copied().unwrap_or_default()
    }

    /// Returns the digest of the first `count` bets, and forgets the digests of fewer. If fewer bets were read, it reads on:
    /// those bets will not be in a batch. Returns `None` if the file has fewer bets, or if that digest was forgotten.
    pub(super) fn digest_of(&mut self, count: u64) -> Result<Option<Digest>, AgencyError> {
        let mut record = Vec::new();
        while self.taken < count {
            if !self.has_row()? {
                return Ok(None);
            }
            record.clear();
            let digest = self.push_row(&mut record)?;
            self.digests.clear();
            self.take(digest);
        }
        let later = usize::try_from(self.taken - count).unwrap_or(usize::MAX);
        let Some(earlier) = self.digests.len().checked_sub(later.saturating_add(1)) else { return Ok(None) };
        self.digests.drain(..earlier);
        Ok(self.digests.front().copied())
    }

    /// Counts the bet that was read last.
    fn take(&mut self, digest: Digest) {
        self.digests.push_back(digest);
        self.taken += 1;
    }

    /// Replaces `records` by the next bets. Returns `None` at the end of the file.
    pub(super) fn next_batch(
        &mut self,
        limits: Limits,
        records: &mut Vec<u8>,
    ) -> Result<Option<Batch>, AgencyError> {
        records.clear();
        let mut batch = Batch { first: self.taken, bets: 0, first_byte: 0, last_byte: 0 };
        while batch.bets < limits.bets && self.has_row()? {
            let before = records.len();
            if batch.bets > 0 {
                records.push(RECORD_SEPARATOR);
            }
            let digest = self.push_row(records)?;
            if records.len() > limits.bytes {
                if batch.bets == 0 {
                    return Err(self.bad_row(BadRow::TooLong { len: records.len(), max: limits.bytes }));
                }
                records.truncate(before);
                self.is_pending = true;
                break;
            }
            batch.last_byte = self.offset();
            if batch.bets == 0 {
                batch.first_byte = batch.last_byte;
            }
            batch.bets += 1;
            self.take(digest);
        }
        Ok((batch.bets > 0).then_some(batch))
    }

    /// Reads the next row into `row`, unless one is pending. Returns false at the end of the file.
    pub(super) fn has_row(&mut self) -> Result<bool, AgencyError> {
        if mem::take(&mut self.is_pending) {
            return Ok(true);
        }
        self.rows.get_mut().set_limit(MAX_ROW);
        let read = self.rows.read_record(&mut self.row);
        if self.rows.get_ref().limit() == 0 {
            return Err(self.bad_row(BadRow::Endless(MAX_ROW)));
        }
        read.map_err(|error| match error.kind() {
            ErrorKind::Utf8 { .. } => self.bad_row(BadRow::Utf8),
            _ => self.unreadable(error.into()),
        })
    }

    /// Appends `row` as a record, if it is a bet. Returns the digest of all bets up to this one.
    fn push_row(&mut self, out: &mut Vec<u8>) -> Result<Digest, AgencyError> {
        if self.row.len() != COLUMNS {
            return Err(self.bad_row(BadRow::Columns(self.row.len())));
        }
        let mut fields = [&*self.agency, "", "", "", "", ""];
        for (field, column) in fields.iter_mut().skip(1).zip(&self.row) {
            *field = column;
        }
        let bet = Bet::from_fields(fields).map_err(|error| self.bad_row(error.into()))?;
        push_record(&bet, out);
        self.stored_row.clear();
        encode_row(&bet, &mut self.stored_row);
        Ok(self.digest().with_row(&self.stored_row))
    }

    /// Returns the offset of `row` in the file, or of the line ends before it.
    fn offset(&self) -> u64 {
        self.row.position().map_or(0, csv::Position::byte)
    }

    fn bad_row(&self, error: BadRow) -> AgencyError {
        let file = self.path.clone();
        let (line, row) = match line_at(&file, self.offset()) {
            Ok(found) => found,
            Err(error) => return self.unreadable(error),
        };
        let is_bet = matches!(error, BadRow::TooLong { .. });
        let foreign = Foreign::of(&row, BetsOf::Agency).filter(|_| !is_bet);
        let error = foreign.map_or(error, |foreign| {
            let remedy = foreign.remedy(&file, line);
            BadRow::Foreign { foreign, remedy }
        });
        AgencyError::Row { file, line, error }
    }

    fn unreadable(&self, error: io::Error) -> AgencyError {
        AgencyError::File { file: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits { bets: 136, bytes: 8192 };

    /// Makes a file of bets. It is removed when the second value is dropped.
    fn file_of(bytes: &[u8]) -> (BetsFile, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        (BetsFile::open(file.path(), AgencyId::new(7_u16).unwrap()).unwrap(), file)
    }

    /// Reads the batches of a file. Returns how many bets each has, and all records.
    fn batches(bytes: &[u8], limits: Limits) -> (Vec<u64>, String) {
        let (mut file, _kept) = file_of(bytes);
        let (mut counts, mut all, mut records) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = file.next_batch(limits, &mut records).unwrap() {
            assert_eq!(batch.first, counts.iter().sum::<u64>());
            counts.push(batch.bets);
            all.push(String::from_utf8(records.clone()).unwrap());
        }
        (counts, all.join("\x1e"))
    }

    fn bad_row(bytes: &[u8]) -> (u64, BadRow) {
        let (mut file, _kept) = file_of(bytes);
        match file.next_batch(LIMITS, &mut Vec::new()) {
            Err(AgencyError::Row { line, error, .. }) => (line, error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_ends_at_either_limit_and_no_row_is_lost() {
        let file = b"a,b,1,2000-01-01,1\nc,d,2,2000-01-01,2\ne,f,3,2000-01-01,3\n";
        let (_, whole) = batches(file, LIMITS);
        let record = whole.len() / 3;
        for (bets, bytes, counts) in
            [(2, 1000, vec![2, 1]), (10, record, vec![1, 1, 1]), (10, record * 2 + 1, vec![2, 1])]
        {
            assert_eq!(batches(file, Limits { bets, bytes }), (counts, whole.clone()));
        }
    }

    #[test]
    fn a_bad_row_is_named_by_the_line_on_which_it_begins() {
        for end in ["\n", "\r\n"] {
            let with =
                |row: &str| bad_row(format!("a,c,1,2000-01-01,1{end}{end}\n{row}{end}x{end}").as_bytes());
            assert_eq!(with("a,b,1,2000-01-01"), (4, BadRow::Columns(4)));
            assert_eq!(with("a,b,1,2000-01-01,1,1"), (4, BadRow::Columns(6)));
            assert!(matches!(with("a,b,1,2000-13-01,1"), (4, BadRow::Bet(_))));
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_swallow_the_file() {
        let file = format!("a,b,1,2000-01-01,1\n\"{}", "x\n".repeat(1 << 20));
        assert!(matches!(bad_row(file.as_bytes()), (2, BadRow::Foreign { foreign: Foreign::OpenQuote, .. })));
        assert_eq!(bad_row("x".repeat(1 << 21).as_bytes()), (1, BadRow::Endless(MAX_ROW)));
    }
}
