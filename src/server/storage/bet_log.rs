//! The bets file as a log of groups: each is on disk whole, or known not to be there.

use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::disk::Disk;

/// What became of a change that failed.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Nothing of it is on disk.
    #[error("{0}")]
    NotDone(io::Error),
    /// Nobody knows what is on disk; the process must end, and recovery find out.
    #[error("{0}")]
    Unknown(io::Error),
}

/// The file, and how much of it is good.
#[derive(Debug)]
pub struct BetLog<D> {
    disk: D,
    length: u64,
}

impl<D: Disk> BetLog<D> {
    /// A file whose first `length` bytes are whole rows that are on disk, and which ends there.
    pub fn new(disk: D, length: u64) -> Self {
        Self { disk, length }
    }

    /// Puts a group of rows on disk. Returns how long the sync took.
    ///
    /// # Errors
    /// It failed; where that could be undone, the next group may succeed.
    pub fn append(&mut self, rows: &[u8]) -> Result<Duration, WriteError> {
        match self.disk.append(rows).and_then(|()| self.timed_sync()) {
            Ok(time) => {
                self.length += rows.len() as u64;
                Ok(time)
            }
            // After a failed sync the kernel may call the lost bytes clean, and a second sync would claim what is not
            // true. So they are cut off, and it is the cut that has to last.
            Err(error) => match self.disk.cut(self.length) {
                Ok(()) => Err(WriteError::NotDone(error)),
                Err(error) => Err(WriteError::Unknown(error)),
            },
        }
    }

    fn timed_sync(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.disk.sync()?;
        Ok(start.elapsed())
    }

    /// The disk, for what stands beside the bets.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }
}
