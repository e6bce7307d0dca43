//! Rows that stand in the file more than once.
//!
//! They are looked for in two passes. The first keeps a hash of 8 bytes of each row; sorted, these tell which may stand
//! there twice. The second looks at those rows alone, and compares them byte for byte.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use super::AuditError;
use super::files::Files;
use super::rows::{Rows, Step};

/// The hashes of all rows.
#[derive(Debug, Default)]
pub struct Hashes {
    keyed: RandomState,
    hashes: Vec<u64>,
}

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
        self.hashes.push(self.hash(row));
    }

    fn hash(&self, row: &[u8]) -> u64 {
        self.keyed.hash_one(row)
    }

    /// The hashes that more than one row has, sorted.
    fn keep_repeated(&mut self) {
        self.hashes.sort_unstable();
        let mut repeated = Vec::new();
        for same in self.hashes.chunk_by(|a, b| a == b) {
            if let [hash, _, ..] = same {
                repeated.push(*hash);
            }
        }
        self.hashes = repeated;
    }

    /// Hands on each row that stands in the file again, up to that byte, in the order of the file. All rows up to there
    /// must have been added.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn find(
        mut self,
        files: &Files,
        up_to: u64,
        mut found: impl FnMut(Duplicate),
        mut reached: impl FnMut(u64),
    ) -> Result<(), AuditError> {
        self.keep_repeated();
        if self.hashes.is_empty() {
            return Ok(());
        }
        let mut rows = Rows::of(files);
        let mut firsts: HashMap<u64, (u64, Box<[u8]>)> = HashMap::new();
        while rows.offset() < up_to {
            let step = rows.next(|line, _, row| {
                let hash = self.hash(row);
                if self.hashes.binary_search(&hash).is_err() {
                    return;
                }
                let (first, same) = firsts.entry(hash).or_insert_with(|| (line, row.into()));
                if *first != line && **same == *row {
                    found(Duplicate { line, first: *first });
                }
            })?;
            if matches!(step, Step::End(_)) {
                break;
            }
            reached(rows.offset());
        }
        Ok(())
    }
}
