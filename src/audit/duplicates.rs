//! Rows that stand in the file more than once.
//!
//! They are looked for in two passes. The first keeps a hash of 8 bytes of each row; sorted, these tell which may stand
//! there twice. The second looks at those rows alone, and compares them byte for byte.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::AuditError;
use super::files::Files;
use super::rows::{Found, Rows};

/// The hashes of all rows.
#[derive(Debug, Default)]
pub struct Hashes(Vec<u64>);

/// A row that stood in the file before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// The line on which it begins.
    pub line: u64,
    /// The line on which the same row begins for the first time.
    pub first: u64,
}

impl Hashes {
    /// Takes a row.
    pub fn add(&mut self, row: &[u8]) {
        self.0.push(hash(row));
    }

    /// The rows that may stand in the file more than once.
    pub fn repeated(mut self) -> Repeated {
        self.0.sort_unstable();
        let mut repeated = Repeated { hashes: Vec::new(), again: 0 };
        for same in self.0.chunk_by(|a, b| a == b) {
            if let [hash, again @ ..] = same
                && !again.is_empty()
            {
                repeated.hashes.push(*hash);
                repeated.again += again.len() as u64;
            }
        }
        repeated
    }
}

/// Hashes that several rows have, sorted.
#[derive(Debug)]
pub struct Repeated {
    hashes: Vec<u64>,
    again: u64,
}

impl Repeated {
    /// How many rows there are that stood in the file before, if rows with the same hash are the same.
    pub fn count(&self) -> u64 {
        self.again
    }

    /// Hands on those rows that stand in the file again, up to that byte, in the order of the file: all of them, or, of
    /// more than `most` different ones, those of some.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn find(
        mut self,
        files: &Files,
        up_to: u64,
        most: usize,
        mut found: impl FnMut(Duplicate),
    ) -> Result<(), AuditError> {
        self.hashes.truncate(most);
        let mut firsts: HashMap<u64, (u64, Box<[u8]>)> = HashMap::new();
        let mut rows = Rows::of(files);
        while !self.hashes.is_empty() && rows.offset() < up_to {
            let found = rows.next(|line, _, row| {
                let hash = hash(row);
                if self.hashes.binary_search(&hash).is_err() {
                    return;
                }
                let (first, same) = firsts.entry(hash).or_insert_with(|| (line, row.into()));
                if *first != line && **same == *row {
                    found(Duplicate { line, first: *first });
                }
            })?;
            if matches!(found, Found::End(_)) {
                break;
            }
        }
        Ok(())
    }
}

/// Of the same row it is the same in every run, and so is what is listed.
fn hash(row: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(row);
    hasher.finish()
}
